//! Configs.

use deploykit_core::Change;
use deploykit_core::model::App;

use crate::test::Test;

pub(super) async fn a_change_rolls_who_mounts_it_and_goes_back(t: &Test) {
    let app = |title: &str| -> App {
        let build = t.build().config("title", title);
        let build = build.service(t.service("web", "1").config("title"));
        build.service(t.service("other", "1")).validate().unwrap()
    };
    let hostile = "two lines\n$HOME `id` \"'\\ \u{fc}";
    t.up(app(hostile)).await.unwrap();
    assert_eq!(t.file("web", "CONFIGS_DIR", "title").await.body, hostile);
    let (web, other) = (t.ids("web").await, t.ids("other").await);
    let plan = t.plan(app("new")).await.unwrap();
    assert!(plan.to_string().contains("config title changed"), "{plan}");
    t.up(app("new")).await.unwrap();
    assert_eq!(t.file("web", "CONFIGS_DIR", "title").await.body, "new");
    assert_ne!(t.ids("web").await, web);
    assert_eq!(t.ids("other").await, other);
    t.change(Change::Rollback { app: t.name().clone(), to: None }).await.unwrap();
    assert_eq!(t.file("web", "CONFIGS_DIR", "title").await.body, hostile);
}
