//! The app, by `deployctl` and in this process.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use deploykit::model::{App, ImageRef, ImageSpec, Port, Probe, Service};
use deploykit::{Change, Deployer, Silent};
use deploykit_benches::Result;
use tokio::process::Command;

use crate::SERVICES;
use crate::cluster::Cluster;

const SERVICE: &str = env!("CARGO_BIN_EXE_bench-service");

/// An app of some services. One of them has `change` in its environment.
fn app(image: &ImageSpec, services: usize, change: usize) -> Result<App> {
    let mut app = App::build("bench");
    for n in 0..services {
        let mut service = Service::build(format!("service{n:02}"), image.clone())
            .port(Port::http(8080))
            .readiness(Probe::http("/healthz"))
            // Pods do not run as root unless that is asked for.
            .user("65532:65532")
            .stop_grace(Duration::from_secs(1));
        if change > 0 && n == services / 2 {
            service = service.env("CHANGE", change.to_string());
        }
        app = app.service(service);
    }
    Ok(app.validate()?)
}

pub(crate) struct Ours {
    deployctl: PathBuf,
    folder: PathBuf,
    registry: String,
    kubeconfig: String,
    image: ImageSpec,
}

impl Ours {
    /// Pushes the image, lets the node pull it, and writes the files of the app.
    pub(crate) async fn open(cluster: &Cluster, folder: &Path) -> Result<Self> {
        let mut ours = Self {
            deployctl: std::env::var("BENCH_DEPLOYCTL")?.into(),
            folder: folder.to_owned(),
            registry: std::env::var("DEPLOYKIT_TEST_REGISTRY")?,
            kubeconfig: std::env::var("DEPLOYKIT_TEST_KUBECONFIG")?,
            image: ImageSpec::binary(SERVICE),
        };
        let namespace = cluster.namespace("warm").await?;
        let deployer = ours.deployer(&namespace).await?;
        deploy(&deployer, app(&ours.image, 1, 0)?).await?;
        let pushed = cluster.image(&namespace).await?;
        cluster.remove(&namespace).await?;
        ours.image = ImageSpec::Reference(ImageRef::new(pushed)?);
        for change in [0, 1] {
            let text = serde_json::to_string(&app(&ours.image, SERVICES, change)?)?;
            std::fs::write(ours.file(change), text)?;
        }
        Ok(ours)
    }

    fn file(&self, change: usize) -> PathBuf {
        self.folder.join(format!("app-{change}.json"))
    }

    fn url(&self, namespace: &str) -> String {
        format!("k8s:///{namespace}?registry={}&kubeconfig={}", self.registry, self.kubeconfig)
    }

    async fn deployer(&self, namespace: &str) -> Result<Deployer> {
        Ok(deploykit::open(&self.url(namespace)).await?)
    }

    /// `deployctl up`, from its start to its end.
    pub(crate) async fn up(&self, namespace: &str, change: usize) -> Result<f64> {
        let start = Instant::now();
        let mut command = Command::new(&self.deployctl);
        command.args(["up", "--on", &self.url(namespace), "-f"]).arg(self.file(change));
        let output = command.stdin(Stdio::null()).output().await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{command:?}: {}: {said}", output.status).into());
        }
        Ok(start.elapsed().as_secs_f64())
    }

    /// What `deployctl render` writes.
    pub(crate) fn rendered(&self, change: usize) -> Result<String> {
        let mut command = std::process::Command::new(&self.deployctl);
        command.args(["render", "--on", &self.url("default"), "-f"]).arg(self.file(change));
        let output = command.stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{command:?}: {}: {said}", output.status).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Deploys from this process, until everything is ready.
    pub(crate) async fn deploy(&self, namespace: &str) -> Result<f64> {
        let deployer = self.deployer(namespace).await?;
        let start = Instant::now();
        deploy(&deployer, app(&self.image, SERVICES, 0)?).await?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Deploys one service whose image is not there, until that is told.
    pub(crate) async fn bad_image(&self, namespace: &str) -> Result<f64> {
        let deployer = self.deployer(namespace).await?;
        let start = Instant::now();
        let mut ready = deployer.prepare(app(&self.image, 1, 0)?).await?;
        // What would be refused beforehand otherwise.
        for image in ready.images.values_mut() {
            image.digest = format!("sha256:{}", "0".repeat(64));
        }
        let plan = deployer.plan(Change::Deploy(Box::new(ready))).await?;
        match deployer.apply(plan, &mut Silent).await {
            Err(error) if !error.diagnoses().is_empty() => Ok(start.elapsed().as_secs_f64()),
            Err(error) => Err(error.into()),
            Ok(_) => Err("an image that is not there came up".into()),
        }
    }
}

async fn deploy(deployer: &Deployer, app: App) -> Result<()> {
    let ready = deployer.prepare(app).await?;
    let plan = deployer.plan(Change::Deploy(Box::new(ready))).await?;
    deployer.apply(plan, &mut Silent).await?;
    Ok(())
}
