//! Secrets: values come in by standard input, variables and files, and never come out.

use crate::Ctl;

const PAY: &str = "
name: shop
services:
  pay:
    image: {binary: /bin/sh}
    args: [-c, 'cat $SECRETS_DIR/token | wc -c; exec sleep 1000']
    stop_grace: 1s
    mounts: [secret: {name: token}]
secrets: {token: {}}
";

const VALUE: &str = "kept between us";

#[test]
fn a_secret_is_set_used_rotated_and_removed() {
    let ctl = Ctl::new();
    let file = ctl.file("shop.yaml", PAY);
    let set = ["secret", "set", "shop", "token"];
    let said = ctl.run_with(&set, &format!("{VALUE}\n"));
    assert_eq!((said.code, said.out.as_str()), (0, "token is at version 1\n"), "{}", said.err);
    ctl.done(&["up", "-f", &file]);

    let rotated = ctl.file("token", VALUE);
    let said = ctl.done(&["secret", "set", "shop", "token", "--from-file", &rotated]);
    assert_eq!(said, "token is at version 2\n");
    let mut command = ctl.command(&["secret", "set", "shop", "token", "--from-env", "TOKEN"]);
    let output = command.env("TOKEN", VALUE).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "token is at version 3\n");
    assert_eq!(ctl.done(&["secret", "ls", "shop"]), "SECRET  VERSION\ntoken   3\n");
    let listed = ctl.json(&["secret", "ls", "shop"]);
    assert_eq!(listed, serde_json::json!([{ "secret": "token", "version": 3 }]));

    let plan = ctl.done(&["plan", "-f", &file]);
    assert!(plan.contains("~ service pay: secret token rotated 1 -> 3\n"), "{plan}");
    let said = ctl.run(&["up", "-f", &file]);
    assert_eq!(said.code, 0, "{}", said.err);
    for text in [
        plan,
        said.out,
        said.err,
        ctl.done(&["--json", "status", "shop"]),
        ctl.done(&["--json", "history", "shop"]),
        ctl.done(&["--json", "plan", "-f", &file]),
    ] {
        assert!(!text.contains(VALUE), "{text}");
    }
    // Without its line break: as long in both instances.
    let logged = ctl.done(&["logs", "shop"]);
    assert!(logged.trim_end().ends_with(&VALUE.len().to_string()), "{logged}");

    let message = "remove the secret: revision 2 uses it (backend local, secret token)";
    ctl.refused(&["secret", "rm", "shop", "token"], 1, message);
    ctl.done(&["secret", "set", "shop", "spare", "--from-file", &rotated]);
    assert_eq!(ctl.done(&["secret", "rm", "shop", "spare"]), "spare is removed\n");
    assert_eq!(ctl.done(&["secret", "ls", "shop"]), "SECRET  VERSION\ntoken   3\n");
}

#[test]
fn a_value_that_cannot_be_read_is_no_version() {
    let ctl = Ctl::new();
    let set = ["secret", "set", "shop", "token"];
    let message = "read a secret: the environment variable NOWHERE is not set";
    ctl.refused(&[&set[..], &["--from-env", "NOWHERE"]].concat(), 1, message);
    let message = "read nowhere: No such file or directory (os error 2)";
    ctl.refused(&[&set[..], &["--from-file", "nowhere"]].concat(), 1, message);
    assert_eq!(ctl.done(&["secret", "ls", "shop"]), "");
    assert_eq!(ctl.json(&["secret", "ls", "shop"]), serde_json::json!([]));
}
