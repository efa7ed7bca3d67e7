//! The environment contract.

use deploykit_core::model::PortName;
use deploykit_core::model::{Port, Service};

use crate::apps;
use crate::test::Test;
use crate::testapp::WORD;

pub(super) async fn the_contract_is_kept(t: &Test) {
    let web = t
        .service("web", "1")
        .port(Port::tcp(9000).named(PortName::new("tcp").unwrap()))
        .connects_to("user-db")
        .env("OWN", "value");
    let app = t.build().service(web).service(t.service("user-db", "1"));
    let app = app.service(t.service("stranger", "1")).registry("etcd://10.0.0.1/shop");
    let app = app.validate().unwrap();
    t.up(app).await.unwrap();
    let env = t.env("web").await;
    let port = |name: &str| env[name].parse::<u16>().unwrap();
    assert!(!env["HOST"].is_empty() && !env["ADVERTISE_HOST"].is_empty(), "{env:?}");
    assert_ne!(port("PORT"), port("PORT_TCP"));
    assert_eq!(env["DEPLOYKIT_INSTANCE"], t.ids("web").await[0]);
    assert_eq!(env["OWN"], "value");
    assert_eq!(env["DEPLOYKIT_REGISTRY"], "etcd://10.0.0.1/shop");
    for folder in ["SECRETS_DIR", "CONFIGS_DIR", "VOLUMES_DIR"] {
        assert!(env[folder].starts_with('/'), "{folder}: {env:?}");
    }
    let seen = t.seen().await;
    let peer = &seen.endpoints["user-db"].ports[0].address;
    assert_eq!(env["USER_DB_SERVICE_HOST"], peer.host);
    assert_eq!(port("USER_DB_SERVICE_PORT"), peer.port);
    let stranger = env.keys().find(|name| name.starts_with("STRANGER"));
    assert_eq!(stranger, None, "only those that it names");
}

pub(super) async fn hostile_characters_arrive_unchanged(t: &Test) {
    let hostile = [
        "",
        " ",
        "a b",
        "'",
        "\"",
        "$HOME",
        "${HOME}",
        "$(id)",
        "`id`",
        "\\",
        "\\n",
        "a\nb",
        "*",
        "~",
        "%s",
        "#",
        "!",
        "&& id",
        "; id",
        "| id",
        "> /tmp/x",
        "-rf",
        "--",
        "\u{e4}\u{1f980}",
        "a=b",
        "[x]",
        "{{.ID}}",
        "\t",
    ];
    let mut web = Service::build("web", t.image().clone()).arg(WORD);
    web = web.port(Port::http(apps::PORT).public()).readiness(apps::readiness());
    for (place, text) in hostile.iter().enumerate() {
        web = web.arg(*text).env(format!("HOSTILE_{place}"), *text);
    }
    t.up(t.only(web)).await.unwrap();
    let args: Vec<String> = serde_json::from_str(&t.get("web", "/args").await).unwrap();
    assert_eq!(args[0], WORD);
    assert_eq!(args[1..], hostile);
    let env = t.env("web").await;
    for (place, text) in hostile.iter().enumerate() {
        assert_eq!(env[&format!("HOSTILE_{place}")], *text);
    }
}

pub(super) async fn peers_are_reached_where_the_environment_says(t: &Test) {
    let front = t.service("front", "1").connects_to("back");
    let app = t.build().service(front).service(t.service("back", "2").replicas(2));
    t.up(app.validate().unwrap()).await.unwrap();
    let said = t.get("front", "/peer?name=back").await;
    assert!(said.contains(r#""version":"2""#), "{said}");
}
