//! Plans as files: what is stale, edited or meant for something else is refused, nothing done.

use crate::{Ctl, SHOP};

/// The plan of the shop, written to a file.
fn planned(ctl: &Ctl) -> (String, String) {
    let file = ctl.file("shop.yaml", SHOP);
    let plan = ctl.path("shop.plan").to_str().unwrap().to_owned();
    ctl.done(&["plan", "-f", &file, "--out", &plan]);
    (file, plan)
}

fn revisions(ctl: &Ctl) -> usize {
    ctl.json(&["history", "shop"]).as_array().unwrap().len()
}

#[test]
fn a_plan_is_applied_later_and_only_once() {
    let ctl = Ctl::new();
    let (_, plan) = planned(&ctl);
    let said = ctl.done(&["up", "--plan", &plan]);
    assert!(said.ends_with("shop is at revision 1\n"), "{said}");
    let message = "apply the plan: the plan is stale: another revision was applied since; plan \
                   again (backend local, app shop)";
    ctl.fails(&["up", "--plan", &plan], 1, message);
    assert_eq!(revisions(&ctl), 1);
}

#[test]
fn a_plan_is_stale_when_something_else_runs() {
    let ctl = Ctl::new();
    let (file, _) = planned(&ctl);
    ctl.done(&["up", "-f", &file]);
    let changed = ctl.file("changed.yaml", &SHOP.replace("one", "two"));
    let plan = ctl.path("changed.plan").to_str().unwrap().to_owned();
    ctl.done(&["plan", "-f", &changed, "--out", &plan]);
    ctl.done(&["scale", "shop", "web", "3"]);
    let message = "apply the plan: the plan is stale: another revision was applied since; plan \
                   again (backend local, app shop)";
    ctl.fails(&["up", "--plan", &plan], 1, message);
    assert_eq!(revisions(&ctl), 2);
}

#[test]
fn a_plan_edited_by_hand_is_refused() {
    let ctl = Ctl::new();
    let (_, plan) = planned(&ctl);
    let text = std::fs::read_to_string(&plan).unwrap();
    assert!(text.contains("\"one\""), "{text}");
    std::fs::write(&plan, text.replace("\"one\"", "\"two\"")).unwrap();
    let message = format!(
        "read the plan: 1 problem (file {plan})\n  - digest: the plan was changed after it was \
         made (change the app and make a new plan)"
    );
    ctl.refused(&["up", "--plan", &plan], 2, &message);
    ctl.file("shop.plan", "{}");
    let ended = ctl.run(&["up", "--plan", &plan]);
    let message = "deployctl: read the plan: this is no plan of this version: missing field `plan`";
    assert!(ended.err.starts_with(message), "{}", ended.err);
    assert_eq!(ended.code, 2);
    let nothing = "look at the app: there is nothing of it (backend local, app shop)";
    ctl.refused(&["status", "shop"], 1, nothing);
}

#[test]
fn a_plan_of_another_app_or_another_backend_is_refused() {
    let ctl = Ctl::new();
    let (_, plan) = planned(&ctl);
    let other = ctl.file("other.yaml", &SHOP.replace("name: shop", "name: other"));
    let message = "read the plan: the plan is of the app shop, the file of other";
    ctl.refused(&["up", "-f", &other, "--plan", &plan], 2, message);

    let elsewhere = Ctl::new();
    let place = |ctl: &Ctl| ctl.path("state").display().to_string();
    let message = format!(
        "apply the plan: the plan was made for {}, and this is {} (backend local, app shop)",
        place(&ctl),
        place(&elsewhere)
    );
    elsewhere.fails(&["up", "--plan", &plan], 2, &message);
    let nothing = "look at the app: there is nothing of it (backend local, app shop)";
    elsewhere.refused(&["status", "shop"], 1, nothing);
}

#[test]
fn changes_show_in_the_exit_code_where_that_is_asked() {
    let ctl = Ctl::new();
    let (file, _) = planned(&ctl);
    assert_eq!(ctl.run(&["plan", "-f", &file]).code, 0);
    let ended = ctl.run(&["plan", "-f", &file, "--detailed-exitcode"]);
    assert_eq!(ended.code, 3, "{}", ended.err);
    let expected = "shop: deploy\n  + service web: new\n  + job seed: new\n  \
                    ~ collect what no revision names\n";
    assert_eq!(ended.out, expected);
    ctl.done(&["up", "-f", &file]);
    let ended = ctl.run(&["plan", "-f", &file, "--detailed-exitcode"]);
    assert_eq!((ended.code, ended.out.as_str()), (0, "shop: deploy\n  nothing to do\n"));
}
