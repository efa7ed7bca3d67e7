//! Volumes.

use std::collections::{BTreeMap, BTreeSet};

use deploykit_core::memory::dial;
use deploykit_core::model::{App, Update, VolumeScope};

use crate::test::Test;

pub(super) async fn data_is_kept_over_updates_and_shared(t: &Test) {
    let app = |version| -> App {
        let web = t.service("web", version).volume("data");
        let reader = t.service("reader", version).volume("data");
        let build = t.build().volume("data", VolumeScope::Shared);
        build.service(web).service(reader).validate().unwrap()
    };
    t.up(app("1")).await.unwrap();
    assert_eq!(t.write("web", "data/note", "kept").await.body, "kept");
    t.up(app("2")).await.unwrap();
    assert_eq!(t.file("web", "VOLUMES_DIR", "data/note").await.body, "kept");
    assert_eq!(t.file("reader", "VOLUMES_DIR", "data/note").await.body, "kept");
}

/// The lines of the file `runs` of each replica: the instances that have had its volume.
async fn runs(t: &Test, replicas: usize) -> Vec<Vec<String>> {
    let found = std::sync::Mutex::new(BTreeMap::new());
    t.eventually("an answer of each replica", || async {
        let answer = t.file("web", "VOLUMES_DIR", "own/runs").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let lines: Vec<String> = answer.body.lines().map(str::to_owned).collect();
        let mut found = found.lock().unwrap();
        found.insert(lines[0].clone(), lines);
        (found.len() == replicas).then_some(())
    })
    .await;
    found.into_inner().unwrap().into_values().collect()
}

pub(super) async fn each_replica_finds_its_own_again(t: &Test) {
    let app = |version| -> App {
        // The place of a replica has to be empty before another takes it.
        let update = Update::rolling().surge(0).unavailable(1);
        let web = t.service("web", version).replicas(2).volume("own").update(update);
        let build = t.build().volume("own", VolumeScope::PerReplica);
        build.service(web.env(dial::RUNS, "own")).validate().unwrap()
    };
    t.up(app("1")).await.unwrap();
    let slots = |instances: BTreeMap<String, deploykit_core::Instance>| {
        instances.into_iter().map(|(id, i)| (id, i.slot)).collect::<BTreeMap<_, _>>()
    };
    let old = slots(t.instances("web").await);
    assert_eq!(old.values().collect::<BTreeSet<_>>(), BTreeSet::from([&0, &1]));
    t.up(app("2")).await.unwrap();
    let new = slots(t.instances("web").await);
    assert_eq!(new.values().collect::<BTreeSet<_>>(), BTreeSet::from([&0, &1]));
    for lines in runs(t, 2).await {
        assert_eq!(lines.len(), 2, "one after the other: {lines:?}");
        assert_eq!(old[&lines[0]], new[&lines[1]], "{lines:?} {old:?} {new:?}");
    }
}
