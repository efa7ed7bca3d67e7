//! Load: eight visitors who never ask twice and look at every answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use tokio::task::JoinSet;

use super::report::{Failure, expect};
use super::site::{Site, version};
use crate::http::{Answer, Connection};
use crate::services::{Draft, Post};

const CONNECTIONS: usize = 8;
/// How many of them write, where writing is asked for.
const WRITERS: usize = 2;
/// What a load sends at least.
const REQUESTS: u64 = 500;
const PAUSE: Duration = Duration::from_millis(8);
const DEADLINE: Duration = Duration::from_secs(20);

/// What the visitors do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    Reads,
    ReadsAndWrites,
}

/// A load that runs until it is told to end.
pub struct Load {
    visitors: JoinSet<Tally>,
    progress: Arc<Progress>,
    begun: Instant,
}

#[derive(Default)]
struct Progress {
    sent: AtomicU64,
    end: AtomicBool,
}

/// What came of a load.
#[derive(Debug, Default)]
pub struct Tally {
    pub sent: u64,
    pub failed: u64,
    pub seconds: f64,
    /// The first failure.
    failure: Option<String>,
    /// The posts whose writing was acknowledged.
    pub written: Vec<Post>,
    /// How many requests each version of the posts service has answered.
    pub versions: BTreeMap<u32, u64>,
}

impl Load {
    /// Begins to ask for `posts`, each answer being compared with what is known.
    pub fn start(site: &Site, posts: &[Post], mix: Mix) -> Self {
        let progress = Arc::new(Progress::default());
        let mut visitors = JoinSet::new();
        for number in 0..CONNECTIONS {
            let visitor = Visitor {
                site: site.clone(),
                posts: posts.to_vec(),
                progress: progress.clone(),
                writes: mix == Mix::ReadsAndWrites && number < WRITERS,
                name: format!("visitor {number}"),
            };
            visitors.spawn(visitor.visit());
        }
        Self { visitors, progress, begun: Instant::now() }
    }

    /// Ends it, when enough requests have been sent.
    pub async fn finish(mut self) -> Result<Tally, Failure> {
        self.progress.end.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        while let Some(tally) = self.visitors.join_next().await {
            all.add(tally?);
        }
        all.seconds = self.begun.elapsed().as_secs_f64();
        Ok(all)
    }
}

impl Tally {
    /// Checks that no request failed, and says how many there were.
    pub fn faultless(&self) -> Result<String, Failure> {
        let first = self.failure.as_deref().unwrap_or_default();
        expect(
            self.failed == 0,
            format_args!("none of {} requests to fail", self.sent),
            format_args!("{} failed, the first: {first}", self.failed),
        )?;
        Ok(format!("{} requests in {:.1} s, 0 failed", self.sent, self.seconds))
    }

    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.failed += other.failed;
        self.failure = self.failure.take().or(other.failure);
        self.written.extend(other.written);
        for (version, count) in other.versions {
            *self.versions.entry(version).or_default() += count;
        }
    }
}

struct Visitor {
    site: Site,
    posts: Vec<Post>,
    progress: Arc<Progress>,
    writes: bool,
    name: String,
}

impl Visitor {
    async fn visit(self) -> Tally {
        let mut tally = Tally::default();
        let mut connection = None;
        let done = || {
            let Progress { sent, end } = &*self.progress;
            end.load(Ordering::Relaxed) && sent.load(Ordering::Relaxed) >= REQUESTS
        };
        while !done() {
            let asked = tokio::time::timeout(DEADLINE, self.ask(&mut connection, &mut tally));
            let outcome = asked.await.unwrap_or_else(|_| Err("no answer in time".into()));
            if let Err(error) = outcome {
                tally.failed += 1;
                tally.failure.get_or_insert_with(|| format!("{}: {error}", self.name));
                connection = None;
            }
            tally.sent += 1;
            self.progress.sent.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
        tally
    }

    /// Sends one request, once, and compares the answer with what it must be.
    async fn ask(
        &self,
        connection: &mut Option<Connection>,
        tally: &mut Tally,
    ) -> crate::Result<()> {
        let mut open = match connection.take().filter(|open| !open.is_closed()) {
            Some(open) => open,
            None => Connection::open(&self.site.address).await?,
        };
        let answer = if self.writes {
            let title = format!("{} writes {}", self.name, tally.sent);
            let draft = Draft { title, body: "in the middle of an update".into() };
            let request = self.site.request(Method::POST, "/api/posts", &draft)?;
            let answer = open.send(request).await?;
            let post = matching(&answer, StatusCode::CREATED, |p| {
                p.title == draft.title && p.body == draft.body
            })?;
            tally.written.push(post);
            answer
        } else {
            let wanted = &self.posts[tally.sent as usize % self.posts.len()];
            let path = format!("/api/posts/{}", wanted.id);
            let answer = open.send(self.site.request(Method::GET, &path, &())?).await?;
            matching(&answer, StatusCode::OK, |post| post.is(wanted))?;
            answer
        };
        *tally.versions.entry(version(&answer)).or_default() += 1;
        *connection = Some(open);
        Ok(())
    }
}

/// The post in an answer, where it is the right one and told as its version tells it.
fn matching(
    answer: &Answer,
    status: StatusCode,
    is_right: impl Fn(&Post) -> bool,
) -> crate::Result<Post> {
    let wrong = || {
        let body = String::from_utf8_lossy(answer.body());
        format!("{} with a wrong body: {body}", answer.status())
    };
    let post: Post = serde_json::from_slice(answer.body()).map_err(|_| wrong())?;
    let words = (version(answer) >= 2).then(|| post.body.split_whitespace().count());
    if answer.status() != status || !is_right(&post) || post.words != words {
        return Err(wrong().into());
    }
    Ok(post)
}
