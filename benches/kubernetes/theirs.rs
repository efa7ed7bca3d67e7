//! The same objects by `helm` and `kubectl`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use deploykit_benches::Result;
use kube::api::DynamicObject;

use crate::ours::Ours;

/// The objects of a rendering.
pub(crate) fn manifests(rendered: &str) -> Result<Vec<DynamicObject>> {
    let documents = rendered.split("---\n");
    Ok(documents.map(serde_saphyr::from_str).collect::<std::result::Result<_, _>>()?)
}

fn program(name: &str) -> Result<Command> {
    let mut command = Command::new(std::env::var(name)?);
    command.args(["--kubeconfig", &std::env::var("DEPLOYKIT_TEST_KUBECONFIG")?]);
    command.stdin(Stdio::null());
    Ok(command)
}

/// Runs a process from its start to its end.
fn timed(mut command: Command) -> Result<f64> {
    let start = Instant::now();
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}: {said}", output.status).into());
    }
    Ok(start.elapsed().as_secs_f64())
}

/// `helm`, with a chart for each version of the app.
pub(crate) struct Helm(PathBuf);

impl Helm {
    pub(crate) fn write(folder: &Path, ours: &Ours) -> Result<Self> {
        for change in [0, 1] {
            let chart = folder.join(format!("chart-{change}"));
            std::fs::create_dir_all(chart.join("templates"))?;
            let about = format!("apiVersion: v2\nname: bench\nversion: 0.0.{change}\n");
            std::fs::write(chart.join("Chart.yaml"), about)?;
            for (n, document) in ours.rendered(change)?.split("---\n").enumerate() {
                std::fs::write(chart.join(format!("templates/{n:02}.yaml")), document)?;
            }
        }
        Ok(Self(folder.to_owned()))
    }

    pub(crate) fn upgrade(&self, namespace: &str, change: usize, options: &[&str]) -> Result<f64> {
        let mut command = program("BENCH_HELM")?;
        let home = self.0.join("helm");
        command.env("HELM_CACHE_HOME", &home).env("HELM_CONFIG_HOME", &home);
        command.env("HELM_DATA_HOME", &home);
        command.args(["upgrade", "--install", "bench", "--namespace", namespace]).args(options);
        command.arg(self.0.join(format!("chart-{change}")));
        timed(command)
    }
}

/// `kubectl`, with a file for each version of the app.
pub(crate) struct Kubectl(PathBuf);

impl Kubectl {
    pub(crate) fn write(folder: &Path, ours: &Ours) -> Result<Self> {
        for change in [0, 1] {
            std::fs::write(folder.join(format!("all-{change}.yaml")), ours.rendered(change)?)?;
        }
        Ok(Self(folder.to_owned()))
    }

    pub(crate) fn apply(&self, namespace: &str, change: usize) -> Result<f64> {
        let mut command = program("BENCH_KUBECTL")?;
        command.args(["apply", "--namespace", namespace, "--filename"]);
        command.arg(self.0.join(format!("all-{change}.yaml")));
        timed(command)
    }
}
