//! How a cluster is reached, and what a user has to be allowed.

use std::io::BufRead;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use deploykit_k8s::K8s;

use super::{Bed, KUBECONFIG, config, kubectl, kubectl_path, web};

const EDIT: &str = "DEPLOYKIT_TEST_KUBECONFIG_EDIT";

fn edit() -> PathBuf {
    std::env::var(EDIT).unwrap_or_else(|_| panic!("{EDIT} is not set")).into()
}

pub(crate) async fn the_role_edit_suffices() {
    let mut config = config();
    config.kubeconfig = Some(edit());
    let missing = K8s::open(config.clone()).await.unwrap().missing_rights().await.unwrap();
    assert!(missing.is_empty(), "{missing:?}");
    let bed = Bed::with(config).await;
    bed.up(bed.only(web().replicas(2))).await.unwrap();
    let seen = bed.deployer.status(&bed.app).await.unwrap().observation;
    assert_eq!(seen.instances.iter().filter(|i| i.ready).count(), 2);
    bed.down().await;
}

pub(crate) async fn missing_rights_are_listed() {
    let mut config = config();
    config.kubeconfig = Some(edit());
    // Where the user has no role.
    config.namespace = Some("kube-system".into());
    let missing = K8s::open(config).await.unwrap().missing_rights().await.unwrap();
    let words: Vec<String> = missing.iter().map(ToString::to_string).collect();
    assert!(words.contains(&"create deployments.apps".to_owned()), "{words:?}");
    assert!(words.contains(&"get secrets".to_owned()), "{words:?}");
}

/// The kubeconfig of the testbed with other words in it.
fn changed(change: impl Fn(&str) -> String) -> (tempfile::TempDir, PathBuf) {
    let text = std::fs::read_to_string(std::env::var(KUBECONFIG).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    std::fs::write(&path, change(&text)).unwrap();
    (folder, path)
}

fn value<'a>(text: &'a str, key: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("{key}: ")).unwrap();
    rest.split(['}', ',', '\n']).next().unwrap().trim().trim_matches('"')
}

pub(crate) async fn credentials_come_from_a_program() {
    let (folder, path) = changed(|text| {
        let token = value(text, "token");
        let credential = format!(
            r#"{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{{"token":"{token}"}}}}"#
        );
        text.replace(
            &format!("token: {token}"),
            &format!(
                "exec: {{apiVersion: client.authentication.k8s.io/v1, command: sh, interactiveMode: Never, args: [-c, 'echo ''{credential}''']}}"
            ),
        )
    });
    let mut config = config();
    config.kubeconfig = Some(path);
    let bed = Bed::with(config).await;
    let seen = bed.deployer.status(&bed.app).await.unwrap();
    assert!(seen.revision.is_none());
    drop(folder);
}

struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) async fn a_server_may_be_behind_a_path() {
    // As of Rancher: https://rancher.example/k8s/clusters/c-1.
    let mut command = Command::new(kubectl_path());
    command.args(["--kubeconfig", &std::env::var(KUBECONFIG).unwrap(), "proxy", "--port=0"]);
    command.args(["--api-prefix=/k8s/clusters/c-1/", "--reject-paths=^$"]);
    let mut proxy = Proxy(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    std::io::BufReader::new(proxy.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().rsplit(' ').next().unwrap().to_owned();
    let (_folder, path) = changed(|text| {
        let server = value(text, "server");
        text.replace(server, &format!("http://{address}/k8s/clusters/c-1"))
    });
    let mut config = config();
    config.kubeconfig = Some(path);
    let bed = Bed::with(config).await;
    bed.up(bed.only(web())).await.unwrap();
    let pods = kubectl(&["get", "pods", "-l", &format!("deploykit.dev/app={}", bed.app)], "");
    assert!(pods.contains("Running"), "{pods}");
    bed.down().await;
}
