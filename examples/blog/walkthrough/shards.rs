//! The step that a registry adds: a store dies, and others own its data.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use deploykit::model::ServiceName;
use hyper::{Method, StatusCode};

use super::Walkthrough;
use super::load::Mix;
use super::report::{Failure, Outcome, expect, until};
use super::site::read;
use crate::http::{request, send};
use crate::services::{SHARDS, StoreShare};

/// Who owns a shard, by which token.
#[derive(Debug)]
struct Owned {
    store: String,
    token: u64,
}

impl Walkthrough {
    /// A store is killed while people read and write: its shards move to others, and nothing that
    /// was acknowledged is lost.
    pub async fn move_shards(&mut self) -> Outcome {
        let before = self.owners("all shards to be owned", |_| true).await?;
        let of = |store: &str| before.values().filter(|owned| owned.store == store).count();
        let names = before.values().map(|owned| owned.store.as_str());
        let victim = names.max_by_key(|store| of(store)).unwrap_or_default().to_owned();
        let shards = of(&victim);
        let instances = self.instances("store").await?;
        let instance = instances.iter().find(|i| victim.starts_with(&format!("{}-", i.id)));
        let instance = instance.ok_or_else(|| {
            Failure::new("an instance for each store", format_args!("{victim}: {instances:?}"))
        })?;

        let load = self.load(Mix::ReadsAndWrites);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let killed = Instant::now();
        self.host.kill(instance).await?;
        let moved = self.owners("the shards to move", |owned| owned.store != victim).await;
        let seconds = killed.elapsed().as_secs_f64();
        let tally = load.finish().await?;
        let after = moved?;
        for (shard, old) in before.iter().filter(|(_, owned)| owned.store == victim) {
            let new = &after[shard];
            expect(
                new.token > old.token,
                format_args!("a higher token of shard {shard} than {old:?}"),
                format_args!("{new:?}"),
            )?;
        }
        let figure = tally.faultless()?;
        self.check_data(&tally).await?;
        Ok(format!(
            "{} killed, its {shards} of {SHARDS} shards moved in {seconds:.1} s, all {} posts are \
             there, {} of them written meanwhile, {figure}",
            instance.id,
            self.posts.len(),
            tally.written.len()
        ))
    }

    /// The owner of each shard, when all have one that is right.
    async fn owners(
        &self,
        expected: &str,
        is_right: impl Fn(&Owned) -> bool,
    ) -> Result<BTreeMap<u32, Owned>, Failure> {
        let Some(registry) = &self.registry else {
            return Err(Failure::new("a registry", "none"));
        };
        let store = ServiceName::new("store")?;
        until(expected, async || {
            let mut owners = BTreeMap::new();
            for store in registry.instances(&store).await? {
                let address = store.address.to_string();
                let asked = send(&address, request(Method::GET, "/shards", "")?).await;
                // Of one that has died, nothing can be said yet.
                let Ok(answer) = asked else { continue };
                let share: StoreShare = read(&answer, StatusCode::OK)?;
                let owned = share.owned.into_iter();
                owners.extend(
                    owned.map(|(n, token)| (n, Owned { store: share.store.clone(), token })),
                );
            }
            let settled = owners.len() == SHARDS as usize && owners.values().all(&is_right);
            Ok(if settled { Ok(owners) } else { Err(format!("{owners:?}")) })
        })
        .await
    }
}
