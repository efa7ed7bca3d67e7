//! What others change of our objects.

use deploykit_core::model::*;
use deploykit_core::{Change, Plan, Silent};

use super::{Bed, config, kubectl, web};

impl Bed {
    pub(crate) async fn plan(&self, app: App) -> Plan {
        let ready = self.deployer.prepare(app).await.unwrap();
        self.deployer.plan(Change::Deploy(Box::new(ready))).await.unwrap()
    }
}

fn app(bed: &Bed) -> App {
    bed.only(web().replicas(2))
}

pub(crate) async fn what_others_change_is_told_and_taken_back_where_that_is_allowed() {
    let mut bed = Bed::new().await;
    bed.up(app(&bed)).await.unwrap();
    let plan = bed.plan(app(&bed)).await;
    assert!(plan.is_empty(), "{plan}");

    // An annotation beside ours is nobody's business.
    let deployment = format!("deployment/{}-web", bed.app);
    kubectl(&["annotate", &deployment, "example.test/owner=somebody"], "");
    let plan = bed.plan(app(&bed)).await;
    assert!(plan.is_empty(), "{plan}");

    let patch = r#"{"spec":{"progressDeadlineSeconds":77}}"#;
    kubectl(&["patch", &deployment, "--field-manager", "somebody", "--patch", patch], "");
    let plan = bed.plan(app(&bed)).await;
    let said = plan.to_string();
    assert!(said.contains(&format!("drift: Deployment {}-web", bed.app)), "{said}");
    assert!(said.contains("somebody") && said.contains(".spec.progressDeadlineSeconds"), "{said}");
    let refused = bed.deployer.apply(plan, &mut Silent).await.unwrap_err();
    assert!(refused.to_string().contains("somebody"), "{refused}");

    // Allowed to overrule, it is taken back.
    let mut forcing = config();
    forcing.force = true;
    let forcing = Bed::with(forcing).await;
    bed.deployer = forcing.deployer;
    let plan = bed.plan(app(&bed)).await;
    let said = plan.to_string();
    assert!(said.contains("in spec.progressDeadlineSeconds"), "{said}");
    bed.deployer.apply(plan, &mut Silent).await.unwrap();
    let plan = bed.plan(app(&bed)).await;
    assert!(plan.is_empty(), "{plan}");
    bed.down().await;
}

pub(crate) async fn what_others_remove_is_made_again() {
    let bed = Bed::new().await;
    let app = || {
        let mut app = bed.only(web().replicas(2));
        for service in app.services.values_mut() {
            service.placement.spread = Some("kubernetes.io/hostname".into());
        }
        app
    };
    bed.up(app()).await.unwrap();
    let budget = format!("poddisruptionbudget/{}-web", bed.app);
    kubectl(&["delete", &budget], "");
    let plan = bed.plan(app()).await;
    let said = plan.to_string();
    assert!(said.contains(&format!("PodDisruptionBudget {}-web is missing", bed.app)), "{said}");
    bed.deployer.apply(plan, &mut Silent).await.unwrap();
    kubectl(&["get", &budget], "");
    let plan = bed.plan(app()).await;
    assert!(plan.is_empty(), "{plan}");
    bed.down().await;
}
