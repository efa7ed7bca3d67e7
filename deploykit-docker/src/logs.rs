//! The output of instances, as the engine keeps it.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use deploykit_core::model::{AppName, ServiceName};
use deploykit_core::{LogLine, LogQuery, OutputStream, Result};
use futures_util::stream::{self, BoxStream, SelectAll};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};

use crate::engine::Engine;
use crate::error::engine;
use crate::names::{self, Role};

/// How often new instances are looked for while output is followed.
const LOOK: Duration = Duration::from_millis(500);
/// How often in a row an engine that does not answer is asked again.
const TRIES: u32 = 10;
const READ: &str = "read the output of an instance";

/// Whose output: the container, and its labels.
#[derive(Clone, Debug)]
struct Source {
    container: String,
    service: ServiceName,
    instance: String,
    /// Whether more output may come: the engine runs it, or is about to.
    lives: bool,
}

/// The times of the last lines that were told of one container, for each of its outputs: what one
/// output says is in order, the two together need not be.
type Told = HashMap<OutputStream, SystemTime>;

/// What the output of one container yields.
enum Piece {
    Line(LogLine),
    /// It has ended, or broken off.
    End,
}

/// The lines that `query` asks for. While it follows, the output of new instances is told from
/// their first line on, and what breaks off (the engine was restarted, the instance was started
/// again) goes on after the last line that was told.
pub(crate) async fn read(
    of: Engine,
    app: AppName,
    query: LogQuery,
) -> Result<BoxStream<'static, Result<LogLine>>> {
    let found = sources(&of, &app, &query).await?;
    if !query.follow {
        let all = found.into_iter().map(|source| {
            let lines = output(&of, &source, query.tail, false, None);
            lines.map_err(|cause| engine(READ, cause)).boxed()
        });
        return Ok(stream::select_all(all).boxed());
    }
    let mut following =
        Following { of, app, query, known: HashMap::new(), pieces: SelectAll::new(), failures: 0 };
    let tail = following.query.tail;
    for source in found {
        following.begin(source, tail);
    }
    Ok(stream::unfold(Some(following), |following| async move {
        let mut following = following?;
        match following.next().await {
            Ok(line) => Some((Ok(line), Some(following))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed())
}

/// What is known of one container's output.
#[derive(Default)]
struct Known {
    told: Told,
    /// Whether its output is being read.
    open: bool,
    /// Whether there were lines since it was opened.
    fresh: bool,
}

struct Following {
    of: Engine,
    app: AppName,
    query: LogQuery,
    known: HashMap<String, Known>,
    pieces: SelectAll<BoxStream<'static, (String, Piece)>>,
    /// How often in a row the engine has not told what there is.
    failures: u32,
}

impl Following {
    /// Opens the output of a container after the last line that was told of it.
    fn begin(&mut self, source: Source, tail: Option<usize>) {
        let known = self.known.entry(source.container.clone()).or_default();
        known.open = true;
        known.fresh = false;
        let told = known.told.clone();
        let name = source.container.clone();
        // What breaks off is looked for again, as what ends is.
        let lines = output(&self.of, &source, tail, true, Some(told))
            .take_while(|line| std::future::ready(line.is_ok()))
            .filter_map(|line| std::future::ready(line.ok().map(Piece::Line)))
            .chain(stream::once(std::future::ready(Piece::End)));
        self.pieces.push(lines.map(move |piece| (name.clone(), piece)).boxed());
    }

    async fn next(&mut self) -> Result<LogLine> {
        loop {
            tokio::select! {
                Some((container, piece)) = self.pieces.next() => {
                    let known = self.known.entry(container).or_default();
                    match piece {
                        Piece::Line(line) => {
                            known.fresh = true;
                            if let Some(at) = line.at {
                                known.told.insert(line.stream, at);
                            }
                            return Ok(line);
                        }
                        Piece::End => {
                            known.open = false;
                            continue;
                        }
                    }
                }
                () = tokio::time::sleep(LOOK) => {}
            }
            let found = match sources(&self.of, &self.app, &self.query).await {
                Ok(found) => found,
                Err(cause) if cause.is_retryable() && self.failures < TRIES => {
                    self.failures += 1;
                    continue;
                }
                Err(cause) => return Err(cause),
            };
            self.failures = 0;
            for source in found {
                // One that has ended is read once more: it may have run again in between.
                let again = |known: &Known| !known.open && (source.lives || known.fresh);
                if self.known.get(&source.container).is_none_or(again) {
                    self.begin(source, None);
                }
            }
        }
    }
}

async fn sources(of: &Engine, app: &AppName, query: &LogQuery) -> Result<Vec<Source>> {
    use bollard::models::ContainerSummaryStateEnum as State;
    let containers = of.containers(app, Some(Role::Instance)).await?;
    let read = containers.into_iter().filter_map(|container| {
        let labels: BTreeMap<String, String> = container.labels?.into_iter().collect();
        Some(Source {
            container: container.id?,
            service: labels.get(names::SERVICE)?.parse().ok()?,
            instance: labels.get(names::INSTANCE)?.clone(),
            lives: matches!(container.state, Some(State::RUNNING | State::RESTARTING)),
        })
    });
    let wanted = |source: &Source| {
        query.service.as_ref().is_none_or(|service| *service == source.service)
            && query.instance.as_ref().is_none_or(|id| *id == source.instance)
    };
    Ok(read.filter(wanted).collect())
}

/// The lines of one container, without those that were told already.
fn output(
    of: &Engine,
    source: &Source,
    tail: Option<usize>,
    follow: bool,
    told: Option<Told>,
) -> impl Stream<Item = Result<LogLine, bollard::errors::Error>> + Send + 'static {
    let tail = tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
    let told = told.unwrap_or_default();
    // The engine takes whole seconds: what it tells twice is left out here.
    let since = told.values().min().and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    let since = since.and_then(|since| i32::try_from(since.as_secs()).ok()).unwrap_or(0);
    let options = LogsOptionsBuilder::new()
        .follow(follow)
        .stdout(true)
        .stderr(true)
        .timestamps(true)
        .since(since)
        .tail(&tail)
        .build();
    let source = source.clone();
    of.api.logs(&source.container, Some(options)).filter_map(move |output| {
        let line = match output {
            Ok(output) => {
                let line = line(&source, output);
                let again =
                    told.get(&line.stream).zip(line.at).is_some_and(|(told, at)| at <= *told);
                (!again).then_some(Ok(line))
            }
            // It was removed meanwhile, which is how its output ends.
            Err(cause) if crate::error::is_missing(&cause) => None,
            Err(cause) => Some(Err(cause)),
        };
        std::future::ready(line)
    })
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
