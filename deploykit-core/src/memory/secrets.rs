//! A [`SecretStore`] in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::lock;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{AppName, SecretName};
use crate::secret::{SecretStore, SecretValue};

/// A [`SecretStore`] in memory. Clones are the same store.
#[derive(Clone, Debug, Default)]
pub struct Secrets(Arc<Mutex<BTreeMap<(AppName, SecretName), Versions>>>);

#[derive(Debug, Default)]
struct Versions {
    newest: u64,
    kept: BTreeMap<u64, SecretValue>,
}

impl Versions {
    fn add(&mut self, value: SecretValue) -> u64 {
        self.newest += 1;
        self.kept.insert(self.newest, value);
        self.newest
    }
}

impl Secrets {
    fn with<T>(&self, app: &AppName, name: &SecretName, act: impl FnOnce(&mut Versions) -> T) -> T {
        act(lock(&self.0).entry((app.clone(), name.clone())).or_default())
    }
}

#[async_trait]
impl SecretStore for Secrets {
    async fn put(&self, app: &AppName, name: &SecretName, value: SecretValue) -> Result<u64> {
        Ok(self.with(app, name, |versions| versions.add(value)))
    }

    async fn ensure(&self, app: &AppName, name: &SecretName, value: SecretValue) -> Result<u64> {
        Ok(self.with(app, name, |versions| match versions.kept.last_key_value() {
            Some((newest, _)) => *newest,
            None => versions.add(value),
        }))
    }

    async fn get(&self, app: &AppName, name: &SecretName, version: u64) -> Result<SecretValue> {
        self.with(app, name, |versions| versions.kept.get(&version).cloned()).ok_or_else(|| {
            let error = Error::new(ErrorKind::NotFound, "read a secret", "no such version");
            error.on("memory").with("app", app).with("secret", name).with("version", version)
        })
    }

    async fn versions(&self, app: &AppName, name: &SecretName) -> Result<Vec<u64>> {
        Ok(self.with(app, name, |versions| versions.kept.keys().copied().collect()))
    }

    async fn list(&self, app: &AppName) -> Result<Vec<(SecretName, u64)>> {
        let all = lock(&self.0);
        let of_app = all.iter().filter(|((owner, _), _)| owner == app);
        let newest = |versions: &Versions| versions.kept.last_key_value().map(|(v, _)| *v);
        Ok(of_app.filter_map(|((_, name), v)| Some((name.clone(), newest(v)?))).collect())
    }

    async fn delete(&self, app: &AppName, name: &SecretName, versions: &[u64]) -> Result<()> {
        self.with(app, name, |all| all.kept.retain(|version, _| !versions.contains(version)));
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn versions_are_never_given_out_twice() {
        let secrets = Secrets::default();
        let (app, name) = (AppName::new("blog").unwrap(), SecretName::new("db").unwrap());
        assert_eq!(secrets.ensure(&app, &name, SecretValue::new("a")).await.unwrap(), 1);
        assert_eq!(secrets.ensure(&app, &name, SecretValue::new("b")).await.unwrap(), 1);
        assert_eq!(secrets.put(&app, &name, SecretValue::new("c")).await.unwrap(), 2);
        assert_eq!(secrets.get(&app, &name, 1).await.unwrap().expose(), b"a");
        secrets.delete(&app, &name, &[1, 2]).await.unwrap();
        assert!(secrets.versions(&app, &name).await.unwrap().is_empty());
        assert!(secrets.list(&app).await.unwrap().is_empty());
        assert_eq!(secrets.put(&app, &name, SecretValue::new("d")).await.unwrap(), 3);
        let missing = secrets.get(&app, &name, 2).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }
}
