//! Agents in containers: their program, their image, and the way to talk to them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, Mount, MountType, MountVolumeOptions,
    MountVolumeOptionsDriverConfig, NetworkingConfig, PortMap, RestartPolicy,
    RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use bytes::Bytes;
use deploykit_agent::control::Client;
use deploykit_core::model::AppName;
use deploykit_core::{ErrorKind, Result};
use deploykit_oci::Digest;
use futures_util::StreamExt as _;
use tokio::sync::OnceCell;
use tokio_util::io::StreamReader;

use crate::connect::Stream;
use crate::engine::Engine;
use crate::error::{Mapped as _, error};
use crate::files::Files;
use crate::{images, names, socket};

/// The program in its image.
pub(crate) const PROGRAM: &str = "/deploykit-agent";
/// Where an agent keeps what it has to find again.
pub(crate) const STATE: &str = "/state";
/// How the image of an agent is told from others of its app.
pub(crate) const TAG: &str = "agent-";

const MAKE: &str = "make the image of the agents";

/// What one agent is made with.
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) labels: HashMap<String, String>,
    pub(crate) image: String,
    pub(crate) volume: Option<Volume>,
    /// Its network and its names there; nothing for one that talks to nobody.
    pub(crate) network: Option<(String, Vec<String>)>,
    pub(crate) ports: PortMap,
}

/// The volume of an agent, made with its container where it is not there: so nobody can remove it
/// in between.
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) target: &'static str,
    pub(crate) labels: HashMap<String, String>,
    /// Those of the engine's own kind of volume.
    pub(crate) options: HashMap<String, String>,
}

impl From<Volume> for Mount {
    fn from(volume: Volume) -> Self {
        let driver = MountVolumeOptionsDriverConfig {
            name: Some("local".to_owned()),
            options: Some(volume.options),
        };
        Self {
            typ: Some(MountType::VOLUME),
            source: Some(volume.name),
            target: Some(volume.target.to_owned()),
            volume_options: Some(MountVolumeOptions {
                labels: Some(volume.labels),
                driver_config: Some(driver),
                ..MountVolumeOptions::default()
            }),
            ..Self::default()
        }
    }
}

impl Spec {
    /// Makes and starts the container. One of that name that is ours is started where it does not
    /// run.
    ///
    /// # Errors
    /// `AlreadyExists` where the name is somebody else's.
    pub(crate) async fn ensure(self, engine: &Engine, app: &AppName) -> Result<()> {
        let name = self.name.clone();
        self.create(engine, app).await?;
        start(engine, &name).await
    }

    /// Makes the container, where there is none of ours of that name.
    ///
    /// # Errors
    /// `AlreadyExists` where the name is somebody else's.
    pub(crate) async fn create(self, engine: &Engine, app: &AppName) -> Result<()> {
        let exposed: Vec<String> = self.ports.keys().cloned().collect();
        let networking = self.network.as_ref().map(|(network, aliases)| NetworkingConfig {
            endpoints_config: Some(HashMap::from([(
                network.clone(),
                EndpointSettings { aliases: Some(aliases.clone()), ..EndpointSettings::default() },
            )])),
        });
        let body = ContainerCreateBody {
            image: Some(self.image),
            cmd: Some(vec!["serve".to_owned(), "--state".to_owned(), STATE.to_owned()]),
            labels: Some(self.labels),
            exposed_ports: Some(exposed),
            host_config: Some(HostConfig {
                mounts: Some(self.volume.into_iter().map(Mount::from).collect()),
                network_mode: Some(self.network.map_or("none".to_owned(), |(name, _)| name)),
                port_bindings: Some(self.ports),
                restart_policy: Some(RestartPolicy {
                    name: Some(RestartPolicyNameEnum::ALWAYS),
                    maximum_retry_count: None,
                }),
                ..HostConfig::default()
            }),
            networking_config: networking,
            ..ContainerCreateBody::default()
        };
        engine.create(app, &self.name, body).await.map(drop)
    }
}

/// Starts an agent's container, where it does not run.
pub(crate) async fn start(engine: &Engine, name: &str) -> Result<()> {
    engine.api.start_container(name, None).await.tried("start an agent")
}

/// Copies the agent's program from one container into another.
pub(crate) async fn copy(engine: &Engine, from: &str, to: &str) -> Result<()> {
    const COPY: &str = "put the agent into an instance";
    let options = DownloadFromContainerOptionsBuilder::new().path(PROGRAM).build();
    let mut archive = std::pin::pin!(engine.api.download_from_container(from, Some(options)));
    let mut bytes = Vec::new();
    while let Some(piece) = archive.next().await {
        bytes.extend_from_slice(&piece.tried(COPY)?);
    }
    let options = UploadToContainerOptionsBuilder::new().path("/").build();
    let upload = bollard::body_full(bytes.into());
    engine.api.upload_to_container(to, Some(options), upload).await.tried(COPY)
}

/// A client of the agent in a container.
pub(crate) fn client(engine: &Engine, container: String) -> Client {
    let engine = engine.clone();
    Client::new(move || {
        let (engine, container) = (engine.clone(), container.clone());
        async move { connect(&engine, &container).await }
    })
}

/// A stream to the agent in a container: the short way, or by a command that runs beside it.
pub(crate) async fn connect(engine: &Engine, container: &str) -> Result<Box<dyn Stream>> {
    const CONNECT: &str = "connect to the agent";
    if let Some(stream) = socket::connect(engine, container).await {
        return Ok(Box::new(stream));
    }
    let options = CreateExecOptions {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(vec![PROGRAM, "connect", "--state", STATE]),
        ..CreateExecOptions::default()
    };
    let id = engine.api.create_exec(container, options).await.tried(CONNECT)?.id;
    let started = engine.api.start_exec(&id, Some(StartExecOptions::default())).await;
    let StartExecResults::Attached { output, input } = started.tried(CONNECT)? else {
        return Err(error(ErrorKind::Failed, CONNECT, "the engine has not attached to it"));
    };
    let bytes = output.filter_map(|piece| {
        let piece = match piece {
            Ok(LogOutput::StdErr { message }) => {
                let message = String::from_utf8_lossy(&message).into_owned();
                tracing::warn!(message, "an agent could not be connected to");
                None
            }
            Ok(other) => Some(Ok::<Bytes, std::io::Error>(other.into_bytes())),
            Err(cause) => Some(Err(std::io::Error::other(cause))),
        };
        std::future::ready(piece)
    });
    Ok(Box::new(tokio::io::join(StreamReader::new(Box::pin(bytes)), input)))
}

/// What agents run.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// Where it is, if it is not to be looked for.
    path: Option<PathBuf>,
    /// Whether agents that run another one are moved to it.
    pub(crate) moves: bool,
    /// What their image is made of, and its digest, once it is known.
    files: Arc<OnceCell<(Bytes, Digest)>>,
}

impl Program {
    pub(crate) fn new(path: Option<PathBuf>, moves: bool) -> Self {
        Self { path, moves, files: Arc::default() }
    }

    async fn files(&self) -> Result<&(Bytes, Digest)> {
        let read = || async {
            let program = deploykit_agent::binary::find(self.path.as_deref()).await?;
            let make = move || {
                let content = std::fs::read(&program).map_err(|cause| {
                    error(ErrorKind::NotFound, MAKE, format!("{}: {cause}", program.display()))
                })?;
                let mut files = Files::default();
                files.file(PROGRAM, content, 0o755);
                files.folder(STATE, 0o700);
                let archive = files.archive()?;
                let digest = Digest::of(&archive);
                Ok((Bytes::from(archive), digest))
            };
            images::off_thread(make).await
        };
        self.files.get_or_try_init(read).await
    }
}

/// The image of the agents of an app: the one that they have, so that a newer library or program
/// leaves what runs as it is, unless they are to be moved.
pub(crate) async fn image(engine: &Engine, app: &AppName, program: &Program) -> Result<String> {
    if !program.moves
        && let Some(image) = pinned(engine, app).await?
    {
        return Ok(image);
    }
    let (files, digest) = program.files().await?;
    let name = images::name(app, &format!("{TAG}{}", images::short(digest.hex())));
    let there = images::of_agents(engine, app).await?;
    if let Some(there) = there.into_iter().find(|there| there.starts_with(&name)) {
        return Ok(there);
    }
    // Whoever makes it at the same moment shall not take this one's name away: an image without a
    // name would be left.
    let name = format!("{name}-{:08x}", fastrand::u32(..));
    images::import(engine, &name, files.clone(), PROGRAM).await?;
    Ok(name)
}

/// The image of the agents that are there: the keeper's, or what is left of one that somebody has
/// removed.
async fn pinned(engine: &Engine, app: &AppName) -> Result<Option<String>> {
    let keeper = names::keeper(app);
    let keeper =
        async { engine.api.inspect_container(&keeper, None).await.optional("look for the keeper") };
    let (keeper, mut there) = tokio::try_join!(keeper, images::of_agents(engine, app))?;
    let keepers = keeper.and_then(|keeper| keeper.config?.image);
    Ok(keepers.filter(|image| there.contains(image)).or_else(|| there.pop()))
}
