//! The output of instances.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use deploykit_core::model::{AppName, ServiceName};
use deploykit_core::{ErrorKind, LogLine, LogQuery, OutputStream, Result};
use futures_util::stream::BoxStream;
use futures_util::{AsyncBufReadExt, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::LogParams;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::error::{client, error};
use crate::labels;

const OPERATION: &str = "read the output";
/// How long a follower waits before it asks again whether an instance has gone on.
const PAUSE: Duration = Duration::from_millis(500);

/// The lines of the instances that there are; a follower also gets those of later ones.
pub(crate) async fn logs(
    cluster: &Cluster,
    app: &AppName,
    query: &LogQuery,
) -> Result<BoxStream<'static, Result<LogLine>>> {
    let found = sources(cluster, app, query).await?;
    if found.is_empty()
        && let Some(instance) = &query.instance
    {
        let message = format!("there is no instance {instance}");
        return Err(error(ErrorKind::NotFound, OPERATION, message).with("app", app));
    }
    // One instance is followed to its end.
    if !query.follow || query.instance.is_some() {
        return Ok(stream::iter(found.into_iter().map(Source::lines)).flatten().boxed());
    }
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(follow(cluster.clone(), app.clone(), query.clone(), sender));
    Ok(stream::unfold(receiver, async |mut lines| Some((lines.recv().await?, lines))).boxed())
}

/// Reads every instance, those among them that come later, until nobody listens.
async fn follow(
    cluster: Cluster,
    app: AppName,
    query: LogQuery,
    sender: mpsc::Sender<Result<LogLine>>,
) {
    let mut known = BTreeSet::new();
    let mut readers = JoinSet::new();
    loop {
        match sources(&cluster, &app, &query).await {
            Ok(found) => {
                for source in found.into_iter().filter(|source| known.insert(source.id.clone())) {
                    let sender = sender.clone();
                    readers.spawn(async move {
                        let mut lines = source.lines();
                        while let Some(line) = lines.next().await {
                            if sender.send(line).await.is_err() {
                                return;
                            }
                        }
                    });
                }
            }
            Err(error) => {
                let _ = sender.send(Err(error)).await;
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = sender.closed() => return,
        }
    }
}

/// The instances whose output is asked for.
async fn sources(cluster: &Cluster, app: &AppName, query: &LogQuery) -> Result<Vec<Source>> {
    let mut selector = format!("{}={app}", labels::APP);
    if let Some(service) = &query.service {
        selector = format!("{selector},{}={service}", labels::SERVICE);
    }
    let pods = cluster.list::<Pod>(OPERATION, &selector).await?;
    let source = |pod: Pod| {
        let id = pod.name_any();
        let service = ServiceName::new(pod.labels().get(labels::SERVICE)?.clone()).ok()?;
        query.instance.as_ref().is_none_or(|wanted| *wanted == id).then(|| Source {
            cluster: cluster.clone(),
            service,
            id,
            query: query.clone(),
        })
    };
    Ok(pods.into_iter().filter_map(source).collect())
}

struct Source {
    cluster: Cluster,
    service: ServiceName,
    id: String,
    query: LogQuery,
}

/// Where a follower is: what it has read last, and how many lines of that very moment.
struct Place {
    source: Source,
    last: Option<Timestamp>,
    first: bool,
}

impl Source {
    fn lines(self) -> BoxStream<'static, Result<LogLine>> {
        let place = Place { source: self, last: None, first: true };
        // Each turn reads one answer to its end; a follower then asks for what came since.
        stream::try_unfold(place, |mut place| async move {
            if !place.first {
                if !place.source.query.follow || place.source.is_over().await? {
                    return Ok::<_, deploykit_core::Error>(None);
                }
                tokio::time::sleep(PAUSE).await;
            }
            let lines = place.source.read(&place).await?;
            place.first = false;
            Ok(Some((lines, place)))
        })
        .map_ok(|lines: BoxStream<'static, Result<LogLine>>| lines)
        .try_flatten()
        .boxed()
    }

    /// Whether nothing more will come of the instance.
    async fn is_over(&self) -> Result<bool> {
        let pod = self.cluster.get::<Pod>(OPERATION, &self.id).await?;
        let phase = pod.and_then(|pod| pod.status?.phase);
        Ok(!matches!(phase.as_deref(), Some("Pending" | "Running")))
    }

    async fn read(&self, place: &Place) -> Result<BoxStream<'static, Result<LogLine>>> {
        let params = LogParams {
            follow: self.query.follow,
            timestamps: true,
            tail_lines: self.query.tail.filter(|_| place.first).map(|n| n as i64),
            since_time: place.last,
            ..LogParams::default()
        };
        let api = self.cluster.lasting::<Pod>();
        let opened = match api.log_stream(&self.id, &params).await {
            Ok(opened) => opened,
            // It has not been started yet, or is gone meanwhile.
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 404) => {
                return Ok(stream::empty().boxed());
            }
            Err(source) => return Err(client(OPERATION)(source)),
        };
        let (service, instance) = (self.service.clone(), self.id.clone());
        let lines = opened.lines().map(move |line| {
            let line = line.map_err(|source| client(OPERATION)(kube::Error::ReadEvents(source)))?;
            let (at, text) = match line.split_once(' ') {
                Some((at, text)) => (at.parse::<Timestamp>().ok(), text.to_owned()),
                None => (line.parse().ok(), String::new()),
            };
            Ok(LogLine {
                service: service.clone(),
                instance: instance.clone(),
                stream: OutputStream::Stdout,
                at: at.map(SystemTime::from),
                line: text,
            })
        });
        Ok(lines.boxed())
    }
}
