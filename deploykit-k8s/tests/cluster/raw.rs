//! Raw objects: applied in their order, drift told, gone with the app.

use deploykit_core::model::*;
use deploykit_core::{Change, ErrorKind, Plan, Silent};
use serde_json::{Value, json};

use super::{Bed, Namespace, kubectl, web};

impl Bed {
    /// An app with these raw objects beside a service.
    fn with_raw(&self, objects: &[(&str, Value)]) -> App {
        let begun = self.build().service(web());
        let add =
            |app: AppBuilder, (name, object): &(&str, Value)| app.raw("k8s", *name, object.clone());
        objects.iter().fold(begun, add).validate().unwrap()
    }

    async fn planned(&self, app: App) -> Plan {
        let ready = self.deployer.prepare(app).await.unwrap();
        self.deployer.plan(Change::Deploy(Box::new(ready))).await.unwrap()
    }

    /// The group of the kinds that a test defines: tests run side by side.
    fn group(&self) -> String {
        format!("{}.deploykit.test", self.app)
    }

    fn definition(&self) -> Value {
        let any = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": { "name": format!("widgets.{}", self.group()) },
            "spec": {
                "group": self.group(),
                "names": { "kind": "Widget", "plural": "widgets" },
                "scope": "Namespaced",
                "versions": [{
                    "name": "v1", "served": true, "storage": true,
                    "schema": { "openAPIV3Schema": any },
                }],
            },
        })
    }

    fn widget(&self, name: &str, size: u32) -> Value {
        json!({
            "apiVersion": format!("{}/v1", self.group()),
            "kind": "Widget",
            "metadata": { "name": name },
            "spec": { "size": size },
        })
    }

    fn settings(&self, name: &str, colour: &str) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": format!("{}-{name}", self.app), "labels": { "team": "kit" } },
            "data": { "colour": colour },
        })
    }
}

fn goals(plan: &Plan) -> Vec<String> {
    plan.steps().iter().map(|step| step.goal.to_string()).collect()
}

/// What an object says at that path; nothing where there is none.
fn field(what: &str, path: &str) -> String {
    let path = format!("jsonpath={{{path}}}");
    kubectl(&["get", what, "--ignore-not-found", "--output", &path], "")
}

pub(crate) async fn definitions_come_before_their_objects_and_go_after_them() {
    let bed = Bed::new().await;
    let widgets = format!("widgets.{}", bed.group());
    let (widget, settings) = (format!("{widgets}/one"), format!("configmap/{}-settings", bed.app));
    // Its name sorts after that of what it defines.
    let app = |size, colour| {
        bed.with_raw(&[
            ("settings", bed.settings("settings", colour)),
            ("widget", bed.widget("one", size)),
            ("zz-definition", bed.definition()),
        ])
    };
    let plan = bed.planned(app(1, "red")).await;
    assert!(plan.to_string().contains("+ raw objects: new"), "{plan}");
    bed.deployer.apply(plan, &mut Silent).await.unwrap();
    assert_eq!(field(&widget, ".spec.size"), "1");
    assert_eq!(field(&settings, ".metadata.labels.team"), "kit");
    let owner = r".metadata.labels.deploykit\.dev/app";
    for object in [&widget, &settings, &format!("crd/{widgets}")] {
        assert_eq!(field(object, owner), bed.app.as_str(), "{object}");
    }
    let plan = bed.planned(app(1, "red")).await;
    assert!(plan.is_empty(), "{plan}");

    // One is changed: that is the only step, but for what comes last.
    let plan = bed.planned(app(2, "red")).await;
    assert_eq!(goals(&plan), ["raw objects", "collect what no revision names"]);
    assert!(plan.to_string().contains("widget changed"), "{plan}");
    bed.deployer.apply(plan, &mut Silent).await.unwrap();
    assert_eq!(field(&widget, ".spec.size"), "2");

    // What others change is drift.
    let patch = r#"{"data":{"colour":"blue"}}"#;
    kubectl(&["patch", &settings, "--field-manager", "somebody", "--patch", patch], "");
    let plan = bed.planned(app(2, "red")).await;
    assert!(plan.to_string().contains(&format!("ConfigMap {}-settings", bed.app)), "{plan}");
    kubectl(&["delete", &settings], "");
    let plan = bed.planned(app(2, "red")).await;
    assert!(plan.to_string().contains("drift: settings is missing"), "{plan}");
    bed.deployer.apply(plan, &mut Silent).await.unwrap();
    assert_eq!(field(&settings, ".data.colour"), "red");

    // Of another name it is another object, and the first is gone.
    let renamed = bed.with_raw(&[
        ("settings", bed.settings("others", "red")),
        ("widget", bed.widget("one", 2)),
        ("zz-definition", bed.definition()),
    ]);
    bed.up(renamed.clone()).await.unwrap();
    assert_eq!(field(&settings, ".data.colour"), "");
    assert_eq!(field(&format!("configmap/{}-others", bed.app), ".data.colour"), "red");
    let plan = bed.planned(renamed).await;
    assert!(plan.is_empty(), "{plan}");

    // A rollback brings back what was.
    let change = Change::Rollback { app: bed.app.clone(), to: Some(1) };
    let plan = bed.deployer.plan(change).await.unwrap();
    bed.deployer.apply(plan, &mut Silent).await.unwrap();
    assert_eq!(
        (field(&widget, ".spec.size"), field(&settings, ".data.colour")),
        ("1".into(), "red".into())
    );

    // What leaves the app is removed: the object, and its definition after it.
    bed.up(bed.with_raw(&[("settings", bed.settings("settings", "red"))])).await.unwrap();
    assert_eq!(field(&format!("crd/{widgets}"), ".metadata.name"), "");
    let seen = bed.deployer.backend().observe(&bed.app).await.unwrap();
    assert_eq!(seen.raw.into_keys().collect::<Vec<_>>(), ["settings"]);

    let app = bed.app.clone();
    bed.down().await;
    assert_eq!(field(&settings, ".metadata.name"), "");
    let all = ["get", "configmaps,leases", "--output", "name", "--selector"];
    let left = kubectl(&[&all[..], &[&format!("deploykit.dev/app={app}")]].concat(), "");
    assert_eq!(left, "");
}

pub(crate) async fn a_definition_stays_while_others_use_it() {
    let bed = Bed::new().await;
    let widgets = format!("widgets.{}", bed.group());
    bed.up(bed.with_raw(&[("definition", bed.definition())])).await.unwrap();
    let elsewhere = Namespace::new("widgets", "");
    let foreign = serde_json::to_string(&bed.widget("foreign", 1)).unwrap();
    kubectl(&["apply", "--namespace", &elsewhere.0, "--filename", "-"], &foreign);
    let remove = || Change::Remove { app: bed.app.clone(), volumes: true };
    let plan = bed.deployer.plan(remove()).await.unwrap();
    let refused = bed.deployer.apply(plan, &mut Silent).await.unwrap_err();
    let said = refused.to_string();
    assert!(said.contains(&format!("like {}/foreign", elsewhere.0)), "{said}");
    kubectl(&["delete", &format!("{widgets}/foreign"), "--namespace", &elsewhere.0], "");
    bed.down().await;
    assert_eq!(field(&format!("crd/{widgets}"), ".metadata.name"), "");
}

pub(crate) async fn a_name_of_somebody_else_is_not_taken() {
    let bed = Bed::new().await;
    let name = format!("{}-settings", bed.app);
    kubectl(&["create", "configmap", &name, "--from-literal=colour=black"], "");
    let app = bed.with_raw(&[("settings", bed.settings("settings", "red"))]);
    let refused = bed.up(app).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Failed, "{refused}");
    assert!(refused.to_string().contains("the name is taken"), "{refused}");
    assert_eq!(field(&format!("configmap/{name}"), ".data.colour"), "black");
    let unknown =
        json!({ "apiVersion": "nobody.test/v1", "kind": "X", "metadata": { "name": "x" } });
    let refused = bed.up(bed.with_raw(&[("x", unknown)])).await.unwrap_err();
    assert!(
        refused.to_string().contains("the cluster has no kind X in nobody.test/v1"),
        "{refused}"
    );
    bed.down().await;
    assert_eq!(field(&format!("configmap/{name}"), ".data.colour"), "black");
    kubectl(&["delete", "configmap", &name], "");
}
