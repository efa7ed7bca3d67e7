//! What our objects are called and how they are found again.

use std::collections::BTreeMap;

use deploykit_core::model::{AppName, ServiceName};
use sha2::{Digest, Sha256};

/// The one field manager of server-side apply
/// (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#managers>).
pub(crate) const MANAGER: &str = "deploykit";

/// Label: the app.
pub(crate) const APP: &str = "deploykit.dev/app";
/// Label: the service or job.
pub(crate) const SERVICE: &str = "deploykit.dev/service";
/// Label: the revision that an object was last changed for, and a pod made for.
pub(crate) const REVISION: &str = "deploykit.dev/revision";
/// Label: what an object is to us where its kind does not tell.
pub(crate) const ROLE: &str = "deploykit.dev/role";
/// Its value for the certificates of routes.
pub(crate) const CERTIFICATE: &str = "certificate";
/// Label: the volume.
pub(crate) const VOLUME: &str = "deploykit.dev/volume";
/// Label: the secret.
pub(crate) const SECRET: &str = "deploykit.dev/secret";
/// Label: the config.
pub(crate) const CONFIG: &str = "deploykit.dev/config";
/// Label: the run of a job.
pub(crate) const RUN: &str = "deploykit.dev/run";
/// The value of [`ROLE`] for raw objects.
pub(crate) const MANIFEST: &str = "raw";
/// Label: the name of a raw object in the app.
pub(crate) const RAW: &str = "deploykit.dev/raw";
/// Label of objects of no namespace: that of the app.
pub(crate) const NAMESPACE: &str = "deploykit.dev/namespace";
/// Label of pods in an isolated app, with the name of a service: that they may reach it.
pub(crate) const REACHES: &str = "reaches.deploykit.dev/";
/// Annotation: the hash of what an instance or endpoint was made from.
pub(crate) const HASH: &str = "deploykit.dev/hash";
/// Annotation: the version of a secret.
pub(crate) const VERSION: &str = "deploykit.dev/version";

/// The most that the name of a CronJob may have: its Jobs add to it
/// (<https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/>).
const LONGEST_SCHEDULE: usize = 52;
/// The most that the name of a Service, or of what pods carry as a label, may have.
const LONGEST: usize = 63;
/// How many digits of a hash stand for the rest of a name that is too long.
const DIGITS: usize = 8;

/// `<app>-<service>` and further parts, shortened by a hash where it would be too long.
pub(crate) fn object_name(parts: &[&str]) -> String {
    shortened(parts.join("-"), LONGEST)
}

fn shortened(name: String, longest: usize) -> String {
    if name.len() <= longest {
        return name;
    }
    let hash = hex(name.as_bytes());
    let kept = name[..longest - DIGITS - 1].trim_end_matches('-');
    format!("{kept}-{}", &hash[..DIGITS])
}

/// The name of the objects of a service.
pub(crate) fn service_object(app: &AppName, service: &ServiceName) -> String {
    object_name(&[app.as_str(), service.as_str()])
}

/// The name of the second Deployment of a service, which is beside the first while an update goes
/// on, and takes its place.
pub(crate) fn second_object(app: &AppName, service: &ServiceName) -> String {
    object_name(&[app.as_str(), service.as_str(), "b"])
}

/// The name of the CronJob of a job.
pub(crate) fn schedule_object(app: &AppName, job: &ServiceName) -> String {
    shortened(format!("{app}-{job}"), LONGEST_SCHEDULE)
}

/// The SHA-256 of `bytes` in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The labels of everything of an app.
pub(crate) fn of_app(app: &AppName) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/managed-by".to_owned(), MANAGER.to_owned()),
        ("app.kubernetes.io/part-of".to_owned(), app.to_string()),
        (APP.to_owned(), app.to_string()),
    ])
}

/// The labels of everything of a service or job.
pub(crate) fn of_service(app: &AppName, service: &ServiceName) -> BTreeMap<String, String> {
    let mut labels = of_app(app);
    labels.insert("app.kubernetes.io/name".to_owned(), service.to_string());
    labels.insert(SERVICE.to_owned(), service.to_string());
    labels
}

/// The label of pods that may reach a service of an isolated app.
pub(crate) fn reaches(service: &ServiceName) -> String {
    format!("{REACHES}{service}")
}

/// The labels that a service's pods are selected by.
pub(crate) fn selector(app: &AppName, service: &ServiceName) -> BTreeMap<String, String> {
    BTreeMap::from([(APP.to_owned(), app.to_string()), (SERVICE.to_owned(), service.to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_shortened_and_stays_a_name() {
        let long = "x".repeat(40);
        let name = object_name(&[&long, &long]);
        assert_eq!(name.len(), 63);
        assert!(crate::names::is_dns1035_label(&name), "{name}");
        assert_ne!(name, object_name(&[&long, &long, "y"]));
        assert_eq!(object_name(&["blog", "posts"]), "blog-posts");
    }
}
