//! Members of etcd.

use std::path::Path;
use std::process::Command;

use super::{Kind, MEMBERS, address};

pub(crate) const ETCD: Kind =
    Kind { scheme: "etcd", port: 2379, variable: "DEPLOYKIT_TEST_ETCD", program: member, leads };

fn member(folder: &Path, number: usize) -> Vec<String> {
    let peer = |number| format!("http://{}:2380", address(number));
    let all: Vec<_> = (1..=MEMBERS).map(|n| format!("m{n}={}", peer(n))).collect();
    let client = format!("http://{}:2379", address(number));
    let data = folder.join("data").display().to_string();
    [
        ["etcd", "--name", &format!("m{number}"), "--data-dir", &data].as_slice(),
        &["--listen-client-urls", &client, "--advertise-client-urls", &client],
        &["--listen-peer-urls", &peer(number), "--initial-advertise-peer-urls", &peer(number)],
        &["--initial-cluster", &all.join(",")],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect()
}

/// <https://etcd.io/docs/v3.4/dev-guide/api_reference_v3/#message-statusresponse-etcdserveretcdserverpbrpcproto>
fn leads(host: &str) -> Option<bool> {
    let url = format!("http://{host}/v3/maintenance/status");
    let arguments = ["--silent", "--fail", "--max-time", "2", "--data", "{}", &url];
    let answer = Command::new("curl").args(arguments).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&answer.stdout).ok()?;
    let leader = status.get("leader")?;
    Some(*leader == status["header"]["member_id"])
}
