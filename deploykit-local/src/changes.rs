//! Looks at an app, told as what has changed since the look before: of fifty services, one that
//! changes costs what one costs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use deploykit_core::model::{ServiceName, VolumeName};
use deploykit_core::{Endpoint, Instance, Observation};
use serde::{Deserialize, Serialize};

/// The answer to a look.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Changes {
    /// What the looker has when it has taken these in.
    version: u64,
    /// The version that these come on top of; absent where they are everything.
    since: Option<u64>,
    instances: Vec<Instance>,
    endpoints: BTreeMap<ServiceName, Endpoint>,
    volumes: BTreeSet<VolumeName>,
}

/// The supervisor's side: what there is, and the version at which each part of it changed.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Instances in the order of their ids.
    seen: Observation,
    version: u64,
    /// The last version at which something went away; who knows an older one is told everything.
    gone: u64,
    instances: BTreeMap<String, u64>,
    endpoints: BTreeMap<ServiceName, u64>,
}

impl Default for Snapshot {
    fn default() -> Self {
        // Microseconds pass faster than changes, so that no version of an earlier supervisor is
        // taken for one of this.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let version = now.as_micros() as u64;
        Self {
            seen: Observation::default(),
            version,
            gone: version,
            instances: BTreeMap::new(),
            endpoints: BTreeMap::new(),
        }
    }
}

impl Snapshot {
    /// An instance is `now` so; `None` where it is gone.
    pub(crate) fn set_instance(&mut self, id: &str, now: Option<Instance>) {
        let place = self.seen.instances.binary_search_by(|i| i.id.as_str().cmp(id));
        match (place, now) {
            (Ok(place), Some(now)) if self.seen.instances[place] == now => return,
            (Ok(place), Some(now)) => self.seen.instances[place] = now,
            (Err(place), Some(now)) => self.seen.instances.insert(place, now),
            (Err(_), None) => return,
            (Ok(place), None) => {
                self.seen.instances.remove(place);
                self.instances.remove(id);
                self.version += 1;
                self.gone = self.version;
                return;
            }
        }
        self.version += 1;
        self.instances.insert(id.to_owned(), self.version);
    }

    /// An endpoint is `now` so; `None` where it is gone.
    pub(crate) fn set_endpoint(&mut self, service: &ServiceName, now: Option<Endpoint>) {
        if self.seen.endpoints.get(service) == now.as_ref() {
            return;
        }
        self.version += 1;
        match now {
            Some(now) => {
                self.seen.endpoints.insert(service.clone(), now);
                self.endpoints.insert(service.clone(), self.version);
            }
            None => {
                self.seen.endpoints.remove(service);
                self.endpoints.remove(service);
                self.gone = self.version;
            }
        }
    }

    /// Whether there is neither an instance nor an endpoint.
    pub(crate) fn is_empty(&self) -> bool {
        self.seen == Observation::default()
    }

    /// How what there is differs from version `since`.
    pub(crate) fn look(&self, volumes: BTreeSet<VolumeName>, since: Option<u64>) -> Changes {
        let version = self.version;
        let since = since.filter(|since| (self.gone..=version).contains(since));
        let newer = |changed: Option<&u64>| since.is_none_or(|s| changed.is_none_or(|c| *c > s));
        let instances = self.seen.instances.iter().filter(|i| newer(self.instances.get(&i.id)));
        let endpoints = self.seen.endpoints.iter();
        let endpoints = endpoints.filter(|(name, _)| newer(self.endpoints.get(*name)));
        Changes {
            version,
            since,
            instances: instances.cloned().collect(),
            endpoints: endpoints.map(|(name, e)| (name.clone(), e.clone())).collect(),
            volumes,
        }
    }
}

/// A client's side: the newest look that it has.
#[derive(Debug)]
pub(crate) struct Known {
    version: u64,
    seen: Observation,
}

impl Known {
    /// What [`Snapshot::look`] is to be asked for.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Takes in an answer, and returns what is there; nothing where it comes on top of something
    /// else than what is known, so that everything has to be asked for.
    pub(crate) fn take(known: &mut Option<Self>, changes: Changes) -> Option<Observation> {
        if changes.since.is_some() {
            let known = known.as_mut()?;
            // Another look has brought more meanwhile.
            if changes.version <= known.version {
                return Some(known.seen.clone());
            }
            if changes.since != Some(known.version) {
                return None;
            }
            known.merge(changes);
            return Some(known.seen.clone());
        }
        let Changes { version, instances, endpoints, volumes, .. } = changes;
        let seen = Observation { instances, endpoints, volumes, ..Observation::default() };
        if known.as_ref().is_none_or(|known| known.version <= version) {
            *known = Some(Self { version, seen: seen.clone() });
        }
        Some(seen)
    }

    fn merge(&mut self, changes: Changes) {
        for instance in changes.instances {
            match self.seen.instances.binary_search_by(|i| i.id.cmp(&instance.id)) {
                Ok(place) => self.seen.instances[place] = instance,
                Err(place) => self.seen.instances.insert(place, instance),
            }
        }
        self.seen.endpoints.extend(changes.endpoints);
        self.seen.volumes = changes.volumes;
        self.version = changes.version;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use deploykit_core::{InstanceState, SpecHash};
    use proptest::prelude::*;

    use super::*;

    fn observation((instances, endpoints): &(BTreeMap<u8, u8>, BTreeMap<u8, u8>)) -> Observation {
        let name = |n: &u8| ServiceName::new(format!("service{n}")).unwrap();
        let mut seen = Observation::default();
        for (n, value) in instances {
            seen.instances.push(Instance {
                id: format!("instance{n}"),
                service: name(n),
                revision: 1,
                hash: SpecHash::from_text("v1:00"),
                slot: 0,
                state: InstanceState::Running,
                ready: true,
                restarts: u32::from(*value),
                addresses: Vec::new(),
                started_at: None,
                host: String::new(),
                trouble: None,
            });
        }
        for (n, value) in endpoints {
            let routed = BTreeSet::from([value.to_string()]);
            let hash = SpecHash::from_text("v1:00");
            seen.endpoints.insert(name(n), Endpoint { hash, ports: Vec::new(), routed });
        }
        seen
    }

    fn become_so(snapshot: &mut Snapshot, now: &Observation) {
        for n in 0..5 {
            let id = format!("instance{n}");
            snapshot.set_instance(&id, now.instances.iter().find(|i| i.id == id).cloned());
            let name = ServiceName::new(format!("service{n}")).unwrap();
            snapshot.set_endpoint(&name, now.endpoints.get(&name).cloned());
        }
    }

    proptest! {
        /// Whoever looks, however seldom, sees what is there; who has seen it is told nothing new.
        #[test]
        fn a_look_sees_what_is_there(
            states in prop::collection::vec(
                (
                    (
                        prop::collection::btree_map(0..5_u8, 0..3_u8, 0..5),
                        prop::collection::btree_map(0..5_u8, 0..3_u8, 0..5),
                    ),
                    prop::collection::vec(0..3_usize, 0..4),
                ),
                1..20,
            ),
        ) {
            let mut snapshot = Snapshot::default();
            let mut known = [None, None, None];
            for (state, lookers) in states {
                let now = observation(&state);
                become_so(&mut snapshot, &now);
                for looker in lookers {
                    let known = &mut known[looker];
                    let since = known.as_ref().map(Known::version);
                    let changes = snapshot.look(BTreeSet::new(), since);
                    prop_assert_eq!(Known::take(known, changes), Some(now.clone()));
                    let since = known.as_ref().map(Known::version);
                    let again = snapshot.look(BTreeSet::new(), since);
                    prop_assert!(again.instances.is_empty() && again.endpoints.is_empty());
                }
            }
        }
    }

    #[test]
    fn answers_that_overtake_each_other_are_noticed() {
        let state = |n| observation(&(BTreeMap::from([(1, n)]), BTreeMap::new()));
        let mut snapshot = Snapshot::default();
        let mut look = |n, since| {
            become_so(&mut snapshot, &state(n));
            snapshot.look(BTreeSet::new(), since)
        };
        let mut known = None;
        Known::take(&mut known, look(1, None)).unwrap();
        let since = known.as_ref().map(Known::version);
        let first = look(2, since);
        let second = look(3, since);
        assert_eq!(Known::take(&mut known, second), Some(state(3)));
        assert_eq!(Known::take(&mut known, first), Some(state(3)));
        let stale = known.as_ref().map(|k| k.version - 1);
        let changes = look(4, stale);
        assert_eq!(Known::take(&mut known, changes), None, "it comes on top of another version");
    }

    #[test]
    fn another_supervisor_tells_everything() {
        let mut snapshot = Snapshot::default();
        become_so(&mut snapshot, &observation(&(BTreeMap::from([(1, 1)]), BTreeMap::new())));
        let mut known = None;
        Known::take(&mut known, snapshot.look(BTreeSet::new(), None)).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1));
        let since = known.as_ref().map(Known::version);
        let changes = Snapshot::default().look(BTreeSet::new(), since);
        assert_eq!(Known::take(&mut known, changes), Some(Observation::default()));
    }
}
