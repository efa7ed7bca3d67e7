//! Why raw objects are worked on.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::model::App;

fn app(objects: &[(&str, i32)]) -> ResolvedApp {
    let mut app = App::build("a");
    for (name, size) in objects {
        app = app.raw("toy", *name, serde_json::json!({ "size": size }));
    }
    let web = crate::model::Service::build("x", crate::model::ImageSpec::binary("/x"));
    let app = app.service(web).validate().unwrap();
    let (images, secrets, restarts) = Default::default();
    ResolvedApp { app, images, secrets, restarts }
}

fn seen(app: &ResolvedApp) -> Observation {
    let objects = app.app.raw.values().flatten();
    let raw = objects.map(|(name, object)| (name.to_string(), SpecHash::of_raw(object)));
    Observation { raw: raw.collect(), ..Observation::default() }
}

fn causes(target: &ResolvedApp, before: Option<&ResolvedApp>, seen: &Observation) -> Vec<String> {
    let (runs, drift) = (BTreeMap::new(), Drift::default());
    Goals { target, before, seen, runs, drift }.raw_causes()
}

#[test]
fn each_raw_object_says_why_it_is_worked_on() {
    let nothing = Observation::default();
    let (one, two) = (app(&[("x", 1)]), app(&[("x", 2), ("y", 1)]));
    assert_eq!(causes(&one, None, &nothing), ["new"]);
    assert!(causes(&one, Some(&one), &seen(&one)).is_empty());
    assert_eq!(causes(&two, Some(&one), &seen(&one)), ["x changed", "y added"]);
    assert_eq!(causes(&one, Some(&two), &seen(&two)), ["x changed", "y no longer in the app"]);
    assert_eq!(causes(&one, Some(&one), &nothing), ["drift: x is missing"]);
    assert_eq!(causes(&one, Some(&one), &seen(&app(&[("x", 2)]))), ["drift: x is another"]);
    assert_eq!(causes(&app(&[]), None, &seen(&one)), ["x no longer in the app"]);
}

#[test]
fn services_wait_for_raw_objects_and_what_is_left_over_is_collected() {
    let (target, seen) = (app(&[("x", 1)]), Observation::default());
    let (runs, drift) = (BTreeMap::new(), Drift::default());
    let steps = Goals { target: &target, before: None, seen: &seen, runs, drift }.steps();
    assert_eq!(steps[0].goal, Goal::Raw);
    assert!(steps.iter().skip(1).all(|step| step.after.iter().any(|(place, _)| *place == 0)));
    assert_eq!(steps.last().unwrap().goal, Goal::Collect);
}
