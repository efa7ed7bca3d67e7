//! The life of an app, for people and for programs.

use std::io::{BufRead, BufReader};

use crate::{Ctl, SHOP};

fn instances(ctl: &Ctl) -> Vec<serde_json::Value> {
    let status = ctl.json(&["status", "shop"]);
    let all = status["observation"]["instances"].as_array().unwrap().clone();
    all.into_iter().filter(|i| i["service"] == "web" && i["ready"] == true).collect()
}

#[test]
fn an_app_goes_up_changes_and_goes_down() {
    let ctl = Ctl::new();
    let file = ctl.file("shop.yaml", SHOP);
    let said = ctl.run(&["up", "-f", &file]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.ends_with("\nshop is at revision 1\n"), "{}", said.out);
    assert!(
        said.err.contains("web: 2/2 ready\n"),
        "plain lines where no terminal is: {}",
        said.err
    );
    assert_eq!(instances(&ctl).len(), 2);

    let status = ctl.done(&["status", "shop"]);
    assert!(status.starts_with("shop: revision 1, succeeded\nSERVICE  INSTANCE"), "{status}");
    assert_eq!(
        ctl.done(&["status"]),
        "APP   STATE                  READY\nshop  revision 1, succeeded  2/2\n"
    );

    ctl.done(&["scale", "shop", "web", "3"]);
    let three = instances(&ctl);
    assert_eq!(three.len(), 3);
    ctl.done(&["restart", "shop", "web"]);
    let ids = |all: &[serde_json::Value]| all.iter().map(|i| i["id"].clone()).collect::<Vec<_>>();
    let restarted = instances(&ctl);
    assert!(restarted.len() == 3 && ids(&restarted).iter().all(|id| !ids(&three).contains(id)));
    ctl.done(&["run", "shop", "seed"]);
    ctl.done(&["rollback", "shop", "--to", "1"]);
    assert_eq!(instances(&ctl).len(), 2);
    let history = ctl.json(&["history", "shop"]);
    let causes: Vec<&str> =
        history.as_array().unwrap().iter().map(|r| r["cause"].as_str().unwrap()).collect();
    let expected = ["deploy", "scale web to 3", "restart web", "run seed", "rollback to 1"];
    assert_eq!(causes, expected);
    let table = ctl.done(&["history", "shop"]);
    assert!(table.starts_with("REVISION  OUTCOME    AGE  CAUSE"), "{table}");
    assert_eq!(table.lines().count(), 6);

    assert!(ctl.done(&["down", "shop"]).ends_with("\nshop is removed\n"));
    let nothing = "look at the app: there is nothing of it (backend local, app shop)";
    ctl.refused(&["status", "shop"], 1, nothing);
}

#[test]
fn a_failure_says_why_and_ends_with_1() {
    let ctl = Ctl::new();
    let bad = SHOP.replace("exec sleep 1000", "echo out of luck >&2; exit 7");
    let bad =
        bad.replace("replicas: 2", "replicas: 1\n    update: {monitor: 1s, progress_deadline: 3s}");
    let file = ctl.file("shop.yaml", &bad);
    let ended = ctl.run(&["up", "-f", &file]);
    assert_eq!(ended.code, 1, "{}{}", ended.out, ended.err);
    assert!(ended.err.contains("exit code 7"), "{}", ended.err);
    assert!(ended.err.contains("last line: out of luck"), "{}", ended.err);
    let status = ctl.done(&["status", "shop"]);
    assert!(status.starts_with("shop: revision 1, failed\n"), "{status}");
    assert!(status.contains("exit code 7"), "{status}");
}

#[test]
fn an_apply_for_programs_is_lines_of_json() {
    let ctl = Ctl::new();
    let file = ctl.file("shop.yaml", SHOP);
    let out = ctl.done(&["--json", "up", "-f", &file]);
    let lines: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, events) = lines.split_last().unwrap();
    assert_eq!(events.first().unwrap()["event"], "revision_started");
    assert_eq!(events.last().unwrap()["event"], "revision_finished");
    assert_eq!(last["revision"], 1);
}

#[test]
fn logs_are_shown_and_followed() {
    let ctl = Ctl::new();
    let file = ctl.file("shop.yaml", SHOP);
    ctl.done(&["up", "-f", &file]);
    let out = ctl.done(&["logs", "shop", "web", "--tail", "1"]);
    assert_eq!(out.lines().count(), 2, "{out}");
    assert!(out.lines().all(|line| line.starts_with("web-") && line.ends_with("  hello from one")));
    let line = ctl.done(&["--json", "logs", "shop", "--instance", &id(&ctl)]);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["line"], &line["stream"]), (&"hello from one".into(), &"stdout".into()));

    let mut follower = ctl.command(&["logs", "shop", "-f"]).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        assert!(lines.next().unwrap().unwrap().ends_with("hello from one"));
    }
    ctl.file("shop.yaml", &SHOP.replace("one", "two"));
    ctl.done(&["up", "-f", &file]);
    assert!(lines.next().unwrap().unwrap().ends_with("hello from two"));
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn a_command_ends_with_its_own_exit_code() {
    let ctl = Ctl::new();
    let file = ctl.file("shop.yaml", SHOP);
    ctl.done(&["up", "-f", &file]);
    let sh = |script: &str, target: &str, input: &str| {
        ctl.run_with(&["exec", "shop", target, "-i", "--", "/bin/sh", "-c", script], input)
    };
    let ended = sh("echo $VERSION; cat; echo oops >&2; exit 9", "web", "from outside");
    assert_eq!((ended.code, ended.out.as_str()), (9, "one\nfrom outside"));
    assert_eq!(ended.err, "oops\n");
    let id = id(&ctl);
    assert_eq!(sh("echo $DEPLOYKIT_INSTANCE", &id, "").out, format!("{id}\n"));
    assert_eq!(sh("kill -9 $$", &id, "").code, 128 + 9);
    let message = "run the command: nobody is neither an instance of shop nor a service with a \
                   ready one";
    ctl.refused(&["exec", "shop", "nobody", "--", "/bin/true"], 1, message);
}

fn id(ctl: &Ctl) -> String {
    instances(ctl)[0]["id"].as_str().unwrap().to_owned()
}
