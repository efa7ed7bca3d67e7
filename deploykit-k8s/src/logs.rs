//! The output of instances.

use std::time::{Duration, SystemTime};

use deploykit_core::model::{AppName, ServiceName};
use deploykit_core::{ErrorKind, LogLine, LogQuery, OutputStream, Result};
use futures_util::stream::BoxStream;
use futures_util::{AsyncBufReadExt, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::LogParams;

use crate::cluster::Cluster;
use crate::error::{client, error};
use crate::labels;

const OPERATION: &str = "read the output";
/// How long a follower waits before it asks again whether an instance has gone on.
const PAUSE: Duration = Duration::from_millis(500);

/// The lines of the instances that there are.
pub(crate) async fn logs(
    cluster: &Cluster,
    app: &AppName,
    query: &LogQuery,
) -> Result<BoxStream<'static, Result<LogLine>>> {
    let mut selector = format!("{}={app}", labels::APP);
    if let Some(service) = &query.service {
        selector = format!("{selector},{}={service}", labels::SERVICE);
    }
    let pods = cluster.list::<Pod>(OPERATION, &selector).await?;
    let mut streams = Vec::new();
    for pod in pods {
        let id = pod.name_any();
        let service = pod.labels().get(labels::SERVICE).cloned().unwrap_or_default();
        let (Ok(service), true) =
            (ServiceName::new(service), query.instance.as_ref().is_none_or(|wanted| *wanted == id))
        else {
            continue;
        };
        let source = Source { cluster: cluster.clone(), service, id, query: query.clone() };
        streams.push(source.lines());
    }
    if streams.is_empty()
        && let Some(instance) = &query.instance
    {
        let message = format!("there is no instance {instance}");
        return Err(error(ErrorKind::NotFound, OPERATION, message).with("app", app));
    }
    Ok(match query.follow {
        true => stream::select_all(streams).boxed(),
        false => stream::iter(streams).flatten().boxed(),
    })
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
        let api = self.cluster.api::<Pod>();
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
