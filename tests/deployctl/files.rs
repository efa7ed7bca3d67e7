//! Bad usage and bad files: every problem at once, exit code 2, nothing done.

use crate::Ctl;

#[test]
fn help_documents_the_exit_codes() {
    let help = Ctl::new().done(&["--help"]);
    for line in [
        "  0  done",
        "  1  tried and failed, or refused: another deployer is at work, a stale plan",
        "  2  bad usage, a bad file, or something that the backend cannot honour: nothing was changed",
        "  3  there are changes (plan --detailed-exitcode)",
    ] {
        assert!(help.contains(line), "{help}");
    }
}

#[test]
fn bad_usage_ends_with_2() {
    let ctl = Ctl::new();
    for (args, message) in [
        (&["up"][..], "there is no compose.yaml in "),
        (&["scale", "shop", "web", "many"], "invalid value 'many' for '<REPLICAS>'"),
        (&["status", "Shop"], "`Shop` is not a name: it contains `S`"),
        (&["--allow", "speed", "status"], "unknown variant `speed`, expected one of `executables`"),
        (&["secret", "set", "shop", "token", "value"], "unexpected argument 'value' found"),
    ] {
        let ended = ctl.run(args);
        assert!(ended.err.contains(message), "{args:?}: {}", ended.err);
        assert_eq!((ended.code, ended.out.as_str()), (2, ""), "{args:?}");
    }
    assert!(!ctl.path("state").exists(), "nothing was done");
}

#[test]
fn a_missing_file_and_an_unknown_backend_are_refused() {
    let ctl = Ctl::new();
    let message = "read the file: No such file or directory (os error 2) (file nowhere.yaml)";
    ctl.refused(&["up", "-f", "nowhere.yaml"], 2, message);
    let message = "deployctl: open a backend: no backend for `ftp://x`; known are local:// or \
                   local:///absolute/folder";
    let output = ctl.command(&[]).args(["--on", "ftp://x", "status"]).output().unwrap();
    // clap takes no option twice, and says so with the same exit code.
    assert_eq!(output.status.code(), Some(2));
    let mut alone = std::process::Command::new(ctl.command(&[]).get_program());
    let output = alone.args(["--on", "ftp://x", "status"]).output().unwrap();
    // Others follow, with their features.
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.starts_with(message), "{told}");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn every_problem_of_a_file_is_told_at_once() {
    let ctl = Ctl::new();
    let file = ctl.file(
        "shop.yaml",
        "
name: shop
services:
  web:
    image: {binary: /bin/sleep}
    replica: 2
    depends_on: {api: healthy}
  api:
    image: {binary: /bin/sleep}
    depends_on: {web: healthy}
  Bad:
    image: {binary: /bin/sleep}
",
    );
    let problems = [
        "services.web.replica: unknown field `replica` (did you mean `replicas`?",
        "services.Bad: `Bad` is not a name: it contains `B`;",
        "services.api.depends_on.web: `api` waits for itself: api -> web -> api (remove one",
    ];
    for command in ["validate", "plan", "up"] {
        let ended = ctl.run(&[command, "-f", &file]);
        let first = format!("deployctl: read the app: 3 problems (file {file})\n");
        assert!(ended.err.starts_with(&first), "{}", ended.err);
        for problem in problems {
            assert!(ended.err.contains(&format!("\n  - {problem}")), "{}", ended.err);
        }
        assert_eq!((ended.code, ended.out.as_str()), (2, ""));
    }
    let ended = ctl.run(&["--json", "validate", "-f", &file]);
    let error: serde_json::Value = serde_json::from_str(&ended.err).unwrap();
    assert_eq!(error["kind"], "invalid");
    let paths = error["problems"].as_array().unwrap().iter().map(|p| p["path"].as_str().unwrap());
    let expected = ["services.web.replica", "services.Bad", "services.api.depends_on.web"];
    assert_eq!(paths.collect::<Vec<_>>(), expected);
}

#[test]
fn executables_that_cannot_run_and_secrets_that_do_not_exist_are_told_together() {
    let ctl = Ctl::new();
    let plain = ctl.file("plain", "no program");
    let file = ctl.file(
        "shop.yaml",
        &format!(
            "
name: shop
services:
  web:
    image: {{binary: /nowhere/web}}
  api:
    image: {{binary: {plain}}}
  pay:
    image: {{binary: /bin/sleep}}
    mounts: [secret: {{name: token}}]
secrets: {{token: {{}}}}
"
        ),
    );
    let message = format!(
        "prepare the app: 3 problems (backend local, app shop)\n  \
         - services.api.image: {plain} is not executable; `chmod +x` it, or correct the path\n  \
         - services.web.image: there is no file /nowhere/web; build it first, or correct the path\n  \
         - services.pay.mounts[0].secret: the secret `token` has no value on local (set it first)"
    );
    ctl.refused(&["plan", "-f", &file], 2, &message);
    ctl.refused(&["up", "-f", &file], 2, &message);
    let message = "look at the app: there is nothing of it (backend local, app shop)";
    ctl.refused(&["status", "shop"], 1, message);
    ctl.refused(&["history", "shop"], 1, message);
}

#[test]
fn what_a_backend_cannot_honour_is_refused_or_allowed_by_name() {
    let ctl = Ctl::new();
    let file = ctl.file(
        "shop.yaml",
        "
name: shop
services:
  web:
    image: {binary: /bin/sleep}
    args: ['1000']
    resources: {memory_limit: 64Mi}
",
    );
    let problem = "\n  - services.web.resources: the backend local does not support `resources` \
                   (remove it, or allow `resources`: instances run without limits)";
    let message = "validate the app: local cannot honour all of it (app shop)";
    ctl.refused(&["validate", "-f", &file], 2, &format!("{message}{problem}"));
    let message = "prepare the app: 1 problem (backend local, app shop)";
    ctl.refused(&["up", "-f", &file], 2, &format!("{message}{problem}"));
    let valid = ctl.done(&["--allow", "resources", "validate", "-f", &file]);
    assert_eq!(valid, "shop is valid: 1 services, 0 jobs\n");
    ctl.done(&["--allow", "resources", "up", "-f", &file]);
}

#[test]
fn the_blogs_file_is_valid() {
    let ctl = Ctl::new();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/blog/blog.yaml");
    assert_eq!(ctl.done(&["validate", "-f", file]), "blog is valid: 5 services, 1 jobs\n");
}

#[test]
fn a_unit_is_written_and_nobody_elses_is_overwritten() {
    let ctl = Ctl::new();
    let unit = ctl.path("x.service");
    let unit = unit.to_str().unwrap();
    let said = ctl.done(&["autostart", "--out", unit]);
    assert!(said.starts_with(&format!("{unit} is written; switch it on with\n")), "{said}");
    let text = std::fs::read_to_string(unit).unwrap();
    let folder = ctl.path("state").canonicalize().unwrap_or_else(|_| ctl.path("state"));
    let start = format!("--on \"local://{}\" status\n", folder.display());
    assert!(text.contains("\nExecStart=\"") && text.contains(&start), "{text}");
    ctl.done(&["autostart", "--out", unit]);
    std::fs::write(unit, "[Unit]\n").unwrap();
    let message = format!(
        "write a unit: there is a file that is not deployctl's; move it, or choose another place \
         by --out (file {unit})"
    );
    ctl.refused(&["autostart", "--out", unit], 1, &message);
    assert_eq!(std::fs::read_to_string(unit).unwrap(), "[Unit]\n");
}
