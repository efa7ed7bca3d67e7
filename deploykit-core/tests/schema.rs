//! The published JSON Schema is the one of the model. `UPDATE_GOLDEN=1` writes it anew.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use deploykit_core::model::App;
use serde_json::Value;

#[test]
fn the_published_schema_is_that_of_the_model() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/app.schema.json");
    let schema = App::json_schema();
    let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(file, &text).unwrap();
    }
    let published: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(published, schema, "UPDATE_GOLDEN=1 cargo test -p deploykit-core --test schema");
}

#[test]
fn it_says_what_is_read() {
    let schema = App::json_schema();
    let replicas = &schema["$defs"]["Replicas"]["oneOf"];
    assert_eq!(replicas[0]["type"], "integer");
    assert_eq!(replicas[1]["const"], "global");
    assert_eq!(replicas[2]["$ref"], "#/$defs/Scaled");
    assert_eq!(schema["$defs"]["Scaled"]["required"][0], "autoscale");
    assert_eq!(schema["$defs"]["Cpu"]["type"], serde_json::json!(["string", "number"]));
    // Each field that is a struct's is named, and no other is let through.
    assert_eq!(schema["$defs"]["Service"]["additionalProperties"], false);
    assert_eq!(schema["$defs"]["Service"]["required"], serde_json::json!(["image"]));
}
