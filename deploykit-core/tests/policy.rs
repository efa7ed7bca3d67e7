//! The image policy in `prepare`.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use async_trait::async_trait;
use deploykit_core::model::{App, AppName, ImageSpec, Job, ResolvedImage, Service};
use deploykit_core::{Deployer, Error, ErrorKind, ImagePolicy, Reconciler, Result, memory};

/// Refuses whatever is named `bad…`, and knows nothing of what is named `far…`.
struct ByName;

#[async_trait]
impl ImagePolicy for ByName {
    async fn check(&self, app: &AppName, _: &ImageSpec, resolved: &ResolvedImage) -> Result<()> {
        assert_eq!(app.to_string(), "shop");
        assert!(resolved.digest.starts_with("sha256:"));
        let kind = match resolved.source.as_str() {
            name if name.starts_with("bad") => ErrorKind::Unauthorized,
            name if name.starts_with("far") => ErrorKind::Unavailable,
            _ => return Ok(()),
        };
        Err(Error::new(kind, "check", format!("{} is not to be", resolved.source)))
    }
}

fn image(name: &str) -> ImageSpec {
    serde_json::from_value(serde_json::json!({ "reference": name })).unwrap()
}

fn app(services: &[(&str, &str)], job: &str) -> App {
    let mut app = App::build("shop");
    for (name, reference) in services {
        app = app.service(Service::build(*name, image(reference)));
    }
    app.job(Job::build("seed", image(job))).validate().unwrap()
}

fn deployer() -> Deployer {
    let backend = Arc::new(Reconciler::new(memory::Host::new()));
    Deployer::new(backend).with_image_policy(Arc::new(ByName))
}

#[tokio::test]
async fn every_refused_image_is_named_at_once() {
    let services = [("web", "bad/web:1"), ("api", "good/api:1"), ("mail", "bad/web:1")];
    let refused = deployer().prepare(app(&services, "bad/seed:1")).await.unwrap_err();
    let expected = "prepare the app: 3 problems (backend memory, app shop)\n  \
                    - services.mail.image: bad/web:1 is not to be\n  \
                    - services.web.image: bad/web:1 is not to be\n  \
                    - jobs.seed.image: bad/seed:1 is not to be";
    assert_eq!(refused.to_string(), expected);
    assert_eq!(refused.kind(), ErrorKind::Unauthorized);
}

#[tokio::test]
async fn what_cannot_be_found_out_is_no_refusal() {
    let services = [("web", "bad/web:1"), ("api", "far/api:1")];
    let failed = deployer().prepare(app(&services, "good/seed:1")).await.unwrap_err();
    assert_eq!(failed.to_string(), "check: far/api:1 is not to be");
    assert!(failed.is_retryable());
}

#[tokio::test]
async fn what_is_accepted_is_deployed() {
    let ready = deployer().prepare(app(&[("web", "good/web:1")], "good/seed:1")).await.unwrap();
    assert_eq!(ready.images.len(), 2);
}
