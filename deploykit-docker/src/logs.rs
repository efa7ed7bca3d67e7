//! The output of instances, as the engine keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use deploykit_core::model::{AppName, ServiceName};
use deploykit_core::{LogLine, LogQuery, OutputStream, Result};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream, SelectAll};

use crate::engine::Engine;
use crate::error::engine;
use crate::names::{self, Role};

/// How often new instances are looked for while output is followed.
const LOOK: Duration = Duration::from_millis(500);

/// Whose output: the container, and its labels.
#[derive(Clone, Debug)]
struct Source {
    container: String,
    service: ServiceName,
    instance: String,
}

/// The lines that `query` asks for. While it follows, the output of new instances is told from
/// their first line on.
pub(crate) async fn read(
    of: Engine,
    app: AppName,
    query: LogQuery,
) -> Result<BoxStream<'static, Result<LogLine>>> {
    let mut known = BTreeSet::new();
    let mut lines = SelectAll::new();
    for source in sources(&of, &app, &query).await? {
        known.insert(source.container.clone());
        lines.push(follow(of.clone(), source, query.tail, query.follow));
    }
    if !query.follow {
        return Ok(lines.boxed());
    }
    let following = Following { of, app, query, known, lines };
    Ok(stream::unfold(Some(following), |following| async move {
        let mut following = following?;
        match following.next().await {
            Ok(line) => Some((Ok(line), Some(following))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed())
}

struct Following {
    of: Engine,
    app: AppName,
    query: LogQuery,
    known: BTreeSet<String>,
    lines: SelectAll<BoxStream<'static, Result<LogLine>>>,
}

impl Following {
    async fn next(&mut self) -> Result<LogLine> {
        loop {
            tokio::select! {
                Some(line) = self.lines.next() => return line,
                () = tokio::time::sleep(LOOK) => {}
            }
            for source in sources(&self.of, &self.app, &self.query).await? {
                if self.known.insert(source.container.clone()) {
                    self.lines.push(follow(self.of.clone(), source, None, true));
                }
            }
        }
    }
}

async fn sources(of: &Engine, app: &AppName, query: &LogQuery) -> Result<Vec<Source>> {
    let containers = of.containers(app, Some(Role::Instance)).await?;
    let read = containers.into_iter().filter_map(|container| {
        let labels: BTreeMap<String, String> = container.labels?.into_iter().collect();
        Some(Source {
            container: container.id?,
            service: labels.get(names::SERVICE)?.parse().ok()?,
            instance: labels.get(names::INSTANCE)?.clone(),
        })
    });
    let wanted = |source: &Source| {
        query.service.as_ref().is_none_or(|service| *service == source.service)
            && query.instance.as_ref().is_none_or(|id| *id == source.instance)
    };
    Ok(read.filter(wanted).collect())
}

/// The lines of one container. One that breaks off (the engine was restarted) goes on after the
/// last line that was told.
fn follow(
    of: Engine,
    source: Source,
    tail: Option<usize>,
    follow: bool,
) -> BoxStream<'static, Result<LogLine>> {
    let tail = tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
    let options = LogsOptionsBuilder::new()
        .follow(follow)
        .stdout(true)
        .stderr(true)
        .timestamps(true)
        .tail(&tail)
        .build();
    let output = of.api.logs(&source.container, Some(options));
    let lines = output.filter_map(move |output| {
        let line = match output {
            Ok(output) => Some(Ok(line(&source, output))),
            // It was removed meanwhile, which is how its output ends.
            Err(cause) if crate::error::is_missing(&cause) => None,
            Err(cause) => Some(Err(engine("read the output of an instance", cause))),
        };
        std::future::ready(line)
    });
    lines.boxed()
}

fn line(source: &Source, output: LogOutput) -> LogLine {
    let stream = match &output {
        LogOutput::StdErr { .. } => OutputStream::Stderr,
        _ => OutputStream::Stdout,
    };
    let bytes = output.into_bytes();
    let text = String::from_utf8_lossy(&bytes);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    let (at, line) = text.split_once(' ').unwrap_or((text, ""));
    LogLine {
        service: source.service.clone(),
        instance: source.instance.clone(),
        stream,
        at: humantime::parse_rfc3339_weak(at).ok(),
        line: line.to_owned(),
    }
}
