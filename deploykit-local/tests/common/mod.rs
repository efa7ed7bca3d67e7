//! What the tests of this crate share.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use deploykit_core::model::*;
use deploykit_core::{
    EventSender, Fence, InstanceSpec, Lease, Observation, Runtime, SpecHash, StateStore as _,
    Template,
};
use deploykit_local::{Lifetime, Local, LocalConfig};

/// How long anything may take before a test gives up.
pub const LONG: Duration = Duration::from_secs(60);

pub fn app() -> AppName {
    AppName::new("blog").unwrap()
}

pub fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

/// A state folder of its own, with its keys beside it.
pub struct Bed {
    pub temporary: tempfile::TempDir,
    pub lifetime: Lifetime,
}

impl Bed {
    pub fn new(lifetime: Lifetime) -> Self {
        deploykit_local::init();
        Self { temporary: tempfile::tempdir().unwrap(), lifetime }
    }

    pub fn folder(&self) -> PathBuf {
        self.temporary.path().join("state")
    }

    pub fn keys(&self) -> PathBuf {
        self.temporary.path().join("keys")
    }

    pub fn config(&self) -> LocalConfig {
        LocalConfig::new(self.folder()).keys(self.keys()).lifetime(self.lifetime)
    }

    pub async fn open(&self) -> Local {
        Local::open(self.config()).await.unwrap()
    }
}

pub async fn lease(local: &Local) -> Lease {
    local.acquire(&app(), "a test", Duration::from_secs(30)).await.unwrap()
}

/// A template that runs `/bin/sh -c script`.
pub async fn shell(local: &Local, script: &str) -> Template {
    let image = ImageSpec::binary("/bin/sh");
    let image = local.images().build(&app(), &image, &EventSender::channel().0).await.unwrap();
    Template {
        image,
        command: vec![],
        args: vec!["-c".into(), script.into()],
        env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
        workdir: None,
        user: None,
        resources: Resources::default(),
        ports: vec![],
        probes: Probes::default(),
        mounts: vec![],
        secrets: BTreeMap::new(),
        configs: BTreeMap::new(),
        volumes: BTreeMap::new(),
        peers: BTreeMap::new(),
        reaches: None,
        networks: Default::default(),
        placement: Placement::default(),
        service_account: None,
        stop_signal: Signal::Term,
        stop_grace: Duration::from_secs(10),
        restart: RestartPolicy::Always,
        labels: BTreeMap::new(),
        restarted: 0,
    }
}

pub fn instance(id: &str, of: &str, template: Template) -> InstanceSpec {
    let hash = SpecHash::of(&template);
    InstanceSpec {
        id: id.into(),
        service: service(of),
        revision: 1,
        hash,
        slot: 0,
        job: false,
        depends_on: BTreeMap::new(),
        template,
    }
}

/// Waits until an observation fits.
pub async fn until(local: &Local, what: &str, fits: impl Fn(&Observation) -> bool) -> Observation {
    let deadline = Instant::now() + LONG;
    loop {
        let seen = local.inspect(&app()).await.unwrap();
        if fits(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}; last seen: {seen:#?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until something is so.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let deadline = Instant::now() + LONG;
    while !check().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn pid(seen: &Observation, id: &str) -> u32 {
    let host = &seen.instance(id).unwrap_or_else(|| panic!("no instance {id} in {seen:#?}")).host;
    host.strip_prefix("pid ").unwrap_or_else(|| panic!("{id} has no pid: {host}")).parse().unwrap()
}

pub fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

/// Sends a signal by the shell's own command.
pub fn kill(signal: &str, pid: u32) {
    let status =
        std::process::Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

/// The pid of the supervisor of a folder: the one process that names it in its arguments.
pub fn supervisor(folder: &Path) -> Option<u32> {
    let folder = std::fs::canonicalize(folder).ok()?;
    let wanted = [b"deploykit-supervisor\0", folder.as_os_str().as_encoded_bytes(), b"\0"].concat();
    std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let arguments = std::fs::read(entry.path().join("cmdline")).ok()?;
        (arguments == wanted && alive(pid)).then_some(pid)
    })
}

pub async fn stop_and_remove(local: &Local, fence: &Fence, id: &str) {
    local.stop(fence, id).await.unwrap();
    local.remove(fence, id).await.unwrap();
}

fn environment(pid: u32) -> Vec<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|b| *b == 0).map(|v| String::from_utf8_lossy(v).into_owned()).collect()
}

/// The marker of the folder that a process belongs to.
pub fn folder_id(pid: u32) -> String {
    let environment = environment(pid);
    environment.into_iter().find(|v| v.starts_with("DEPLOYKIT_FOLDER=")).unwrap()
}

/// The living processes that carry a folder's marker.
pub fn marked(folder_id: &str) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| alive(*pid) && environment(*pid).iter().any(|v| v == folder_id)).collect()
}
