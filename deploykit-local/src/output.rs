//! The output of instances, read from their files by the client: it needs no supervisor to
//! have been alive while it was written.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use deploykit_core::model::{AppName, ServiceName};
use deploykit_core::{Instance, LogLine, LogQuery, OutputStream, Result};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use crate::client::Client;
use crate::error;
use crate::logs;

/// How often files are looked at for more while they are followed.
const LOOK: Duration = Duration::from_millis(100);
/// How often new instances are looked for: once in so many looks at the files.
const INSTANCES: u32 = 5;

struct Source {
    service: ServiceName,
    instance: String,
    stream: OutputStream,
    reader: logs::Reader,
}

struct Follower {
    client: Arc<Client>,
    app: AppName,
    query: LogQuery,
    sources: Vec<Source>,
    known: BTreeSet<String>,
    ready: VecDeque<LogLine>,
    looks: u32,
}

/// The lines that `query` asks for.
pub(crate) async fn read(
    client: Arc<Client>,
    app: AppName,
    query: LogQuery,
) -> Result<BoxStream<'static, Result<LogLine>>> {
    let mut follower = Follower {
        client,
        app,
        query,
        sources: Vec::new(),
        known: BTreeSet::new(),
        ready: VecDeque::new(),
        looks: 0,
    };
    follower.find(true).await?;
    let next = |follower: Option<Follower>| async move {
        let mut follower = follower?;
        match follower.next().await {
            Ok(Some(line)) => Some((Ok(line), Some(follower))),
            Ok(None) => None,
            Err(e) => Some((Err(e), None)),
        }
    };
    Ok(stream::unfold(Some(follower), next).boxed())
}

impl Follower {
    /// Opens the files of instances that are new. Those that came while we follow are read from
    /// their first line on.
    async fn find(&mut self, first: bool) -> Result<()> {
        let seen = self.client.inspect(&self.app).await?;
        let present: BTreeSet<&str> = seen.instances.iter().map(|i| i.id.as_str()).collect();
        self.known.retain(|id| present.contains(id.as_str()));
        for instance in seen.instances.iter().filter(|i| wanted(&self.query, i)) {
            if !self.known.insert(instance.id.clone()) {
                continue;
            }
            for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                let path = self.client.folder().log(&instance.id, stream);
                let opened = match self.query.tail {
                    Some(lines) if first => logs::Reader::from_tail(&path, lines),
                    _ => logs::Reader::from_start(&path),
                };
                match opened {
                    Ok(reader) => self.sources.push(Source {
                        service: instance.service.clone(),
                        instance: instance.id.clone(),
                        stream,
                        reader,
                    }),
                    // It has not been started yet: looked for again.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        self.known.remove(&instance.id);
                        break;
                    }
                    Err(e) => return Err(error::io("read a log", &path, e)),
                }
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<LogLine>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            let more = self.take()?;
            if !self.ready.is_empty() || more {
                continue;
            }
            if !self.query.follow {
                return Ok(None);
            }
            tokio::time::sleep(LOOK).await;
            self.looks += 1;
            if self.looks.is_multiple_of(INSTANCES) {
                self.find(false).await?;
            }
        }
    }

    /// Takes a piece from each file, so that none of them waits for another. Returns whether
    /// there is more.
    fn take(&mut self) -> Result<bool> {
        let mut more = false;
        for source in &mut self.sources {
            let path = self.client.folder().log(&source.instance, source.stream);
            let failed = |e| error::io("read a log", &path, e);
            let mut lines = source.reader.lines(false).map_err(failed)?;
            let end = source.reader.at_end().map_err(failed)?;
            if end && !self.query.follow {
                lines.extend(source.reader.lines(true).map_err(failed)?);
            }
            more |= !end;
            let (service, instance, stream) = (&source.service, &source.instance, source.stream);
            self.ready.extend(lines.into_iter().map(|line| LogLine {
                service: service.clone(),
                instance: instance.clone(),
                stream,
                at: None,
                line,
            }));
        }
        // The file of an instance that was removed is still readable here, and says nothing more.
        let known = &self.known;
        let ended = |source: &Source| !known.contains(&source.instance);
        self.sources.retain(|source| !ended(source) || !source.reader.at_end().unwrap_or(true));
        Ok(more)
    }
}

fn wanted(query: &LogQuery, instance: &Instance) -> bool {
    query.service.as_ref().is_none_or(|service| instance.service == *service)
        && query.instance.as_ref().is_none_or(|id| instance.id == *id)
}
