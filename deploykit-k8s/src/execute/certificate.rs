//! The certificates of routes, as an Ingress wants them: certificate and key apart.

use std::collections::BTreeMap;

use deploykit_core::model::SecretName;
use deploykit_core::{ErrorKind, Result, SecretStore};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::PostParams;

use super::Work;
use crate::cluster::lost_race;
use crate::error::error;
use crate::secrets::Secrets;
use crate::{labels, objects};

/// Makes the Secrets that the Ingress of a service names
/// (<https://kubernetes.io/docs/concepts/configuration/secret/#tls-secrets>).
pub(super) async fn ensure(work: &Work<'_>) -> Result<()> {
    let app = &work.context.target.app.name;
    let endpoint = work.context.target.endpoint(work.name);
    for (name, version) in endpoint.iter().flat_map(|endpoint| &endpoint.certificates) {
        let object = objects::certificate_object(app, name, *version);
        let found = work.cluster.get::<Secret>("look for the certificate", &object).await?;
        if let Some(found) = found {
            if found.labels().get(labels::APP).is_some_and(|of| *app == of.as_str()) {
                continue;
            }
            let message = format!("the name {object} is taken by a Secret that is not of this app");
            return Err(error(ErrorKind::AlreadyExists, "write the certificate", message)
                .with("service", work.name));
        }
        let value = Secrets(work.cluster.clone()).get(app, name, *version).await?;
        let (certificates, key) = parted(work, name, value.expose())?;
        let mut labels = labels::of_app(app);
        labels.insert(labels::ROLE.into(), labels::CERTIFICATE.into());
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(object),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([
                ("tls.crt".to_owned(), ByteString(certificates.into_bytes())),
                ("tls.key".to_owned(), ByteString(key.into_bytes())),
            ])),
            immutable: Some(true),
            type_: Some("kubernetes.io/tls".into()),
            ..Secret::default()
        };
        let api = work.cluster.api::<Secret>();
        let params = PostParams { field_manager: Some(labels::MANAGER.into()), dry_run: false };
        work.cluster.check(&work.context.fence).await?;
        match work.cluster.once("write the certificate", || api.create(&params, &secret)).await {
            // Two services may have routes under one certificate.
            Err(error) if lost_race(&error) => {}
            done => drop(done?),
        }
    }
    Ok(())
}

/// The certificates and the key of a file in
/// [PEM](https://www.rfc-editor.org/rfc/rfc7468) that holds both.
fn parted(work: &Work<'_>, name: &SecretName, file: &[u8]) -> Result<(String, String)> {
    let (mut certificates, mut key, mut within) = (String::new(), String::new(), None);
    for line in String::from_utf8_lossy(file).lines().map(str::trim) {
        if let Some(kind) = line.strip_prefix("-----BEGIN ") {
            within = Some(kind.ends_with("PRIVATE KEY-----"));
        }
        let part = match within {
            Some(true) => &mut key,
            Some(false) => &mut certificates,
            None => continue,
        };
        part.push_str(line);
        part.push('\n');
        if line.starts_with("-----END ") {
            within = None;
        }
    }
    if !certificates.is_empty() && !key.is_empty() && within.is_none() {
        return Ok((certificates, key));
    }
    let message = "it is no certificate with its key; put both into it, in PEM";
    Err(error(ErrorKind::Invalid, "write the certificate", message)
        .with("service", work.name)
        .with("secret", name))
}
