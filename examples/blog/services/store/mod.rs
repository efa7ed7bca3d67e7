//! The database, over HTTP, for the other services alone.
//!
//! Without a registry it is one process with one file. With one its data is cut into shards, each a
//! file of its own on a volume that all instances share: [`Shards`] says which instance owns which.
//! Any of them takes any request, and passes it on to the owner. When an owner dies, others own its
//! shards and open their files, where everything is that was ever acknowledged; should it live on
//! after all, it finds its files closed to it by the newer owners' tokens.

mod database;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deploykit_registry::Shards;
use futures_util::future::try_join_all;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use tokio::sync::RwLock;
use tokio::time::{sleep, timeout};

use super::{PostList, StoreShare};
use crate::http::{Answer, Handler, Refusal, Request, json, not_found, segments, send};
use crate::{Result, registry};

use database::Database;
pub use database::file;

/// How many shards there are where there is a registry.
pub const SHARDS: u32 = 12;
/// Names the shard that a request is about, from one instance to another.
const SHARD: HeaderName = HeaderName::from_static("x-shard");
/// How long a shard may be without an owner: some times as long as one that died is believed to live.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(50);
/// How long an owner may take: one that is frozen still takes requests.
const TRY: Duration = Duration::from_secs(2);

/// By the numbers of their shards, each with the token that it was opened by.
type Files = BTreeMap<u32, (Arc<Mutex<Database>>, u64)>;

#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    members: Members,
    /// The files that are open. The one of a store without shards is that of number 0.
    open: Mutex<Files>,
}

enum Members {
    /// This process alone.
    One,
    /// Those who share the shards, as this one sees them; nothing when it has left.
    Several { me: String, shards: RwLock<Option<Shards>> },
}

/// Who is asked about a shard.
enum Owner {
    /// This process, by that token.
    Here(u64),
    /// The store at that address.
    There(String),
}

impl Store {
    /// Opens the database, or joins those who share it.
    pub async fn open() -> Result<Self> {
        let members = match (registry::open().await?, registry::coordinator().await?) {
            (Some(registry), Some(coordinator)) => {
                let me = registry::me("store")?;
                let id = me.id.clone();
                let joined = Shards::join(registry, coordinator, me, SHARDS, registry::TTL);
                Members::Several { me: id, shards: RwLock::new(Some(joined.await?)) }
            }
            _ => Members::One,
        };
        Ok(Self(Arc::new(Inner { members, open: Mutex::default() })))
    }

    /// Gives all shards back: others own them at once.
    pub async fn leave(&self) {
        let Members::Several { shards, .. } = &self.0.members else { return };
        let Some(shards) = shards.write().await.take() else { return };
        if let Err(error) = shards.leave().await {
            eprintln!("the registration is left to end by itself: {error}");
        }
    }

    /// Asks the owner of a shard, whoever that is by then: what is asked may be asked twice.
    async fn ask(&self, shard: u32, request: &Request) -> Result<Answer, Refusal> {
        let begun = Instant::now();
        loop {
            let answered = match self.0.owner(shard).await? {
                Some(Owner::Here(token)) => self.here(shard, token, request.clone()).await,
                Some(Owner::There(address)) => {
                    let mut request = request.clone();
                    request.headers_mut().insert(SHARD, HeaderValue::from(shard));
                    let sent = timeout(TRY, send(&address, request)).await;
                    sent.map_err(Into::into).flatten().map_err(misdirected)
                }
                None => Err(misdirected("nobody owns it")),
            };
            let why = match answered {
                Ok(answer) if answer.status() == StatusCode::MISDIRECTED_REQUEST => {
                    String::from_utf8_lossy(answer.body()).into_owned()
                }
                Err(Refusal(StatusCode::MISDIRECTED_REQUEST, why)) => why,
                answered => return answered,
            };
            if begun.elapsed() > PATIENCE {
                let why = format!("shard {shard} has no owner that answers: {why}");
                return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why));
            }
            sleep(PAUSE).await;
        }
    }

    /// Answers from a file of this process's own.
    async fn here(&self, shard: u32, token: u64, request: Request) -> Result<Answer, Refusal> {
        let inner = self.0.clone();
        let answered = tokio::task::spawn_blocking(move || {
            let database = inner.database(shard, token)?;
            // A panic elsewhere leaves the connection as it was: SQLite rolls back by itself.
            let mut database = database.lock().unwrap_or_else(PoisonError::into_inner);
            database.answer(&request)
        });
        answered.await.map_err(|e| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, e))?
    }

    /// The newest posts of all shards.
    async fn newest(&self, request: &Request) -> Result<Answer, Refusal> {
        let mut all = PostList { total: 0, newest: Vec::new() };
        let shards = match self.0.members {
            Members::One => 1,
            Members::Several { .. } => SHARDS,
        };
        for answer in try_join_all((0..shards).map(|shard| self.ask(shard, request))).await? {
            if !answer.status().is_success() {
                return Ok(answer);
            }
            let part: PostList = serde_json::from_slice(answer.body())
                .map_err(|e| Refusal::new(StatusCode::BAD_GATEWAY, e))?;
            all.total += part.total;
            all.newest.extend(part.newest);
        }
        all.newest.sort_by_key(|post| std::cmp::Reverse(post.id));
        all.newest.truncate(20);
        Ok(json(StatusCode::OK, &all))
    }
}

impl Handler for Store {
    async fn answer(&self, request: Request) -> Result<Answer, Refusal> {
        let shard =
            request.headers().get(SHARD).and_then(|shard| shard.to_str().ok()?.parse().ok());
        if let Some(shard) = shard {
            return match self.0.owner(shard).await? {
                Some(Owner::Here(token)) => self.here(shard, token, request).await,
                _ => Err(misdirected(format!("shard {shard} is owned elsewhere"))),
            };
        }
        match (request.method(), segments(&request).as_slice()) {
            (&Method::GET, ["shards"]) => Ok(json(StatusCode::OK, &self.0.share().await)),
            (&Method::GET, ["posts"]) => self.newest(&request).await,
            // What belongs together is in one shard: a post with its comments.
            (_, ["users" | "posts", key, ..]) => {
                self.ask(self.0.shard_of(key).await?, &request).await
            }
            _ => Err(not_found(&request)),
        }
    }
}

impl Inner {
    async fn shard_of(&self, key: &str) -> Result<u32, Refusal> {
        match &self.members {
            Members::One => Ok(0),
            Members::Several { shards, .. } => {
                let shards = shards.read().await;
                Ok(shards.as_ref().ok_or_else(left)?.shard_of(key.as_bytes()))
            }
        }
    }

    async fn owner(&self, shard: u32) -> Result<Option<Owner>, Refusal> {
        let Members::Several { me, shards } = &self.members else {
            return Ok(Some(Owner::Here(0)));
        };
        let shards = shards.read().await;
        let shards = shards.as_ref().ok_or_else(left)?;
        Ok(match shards.owned().get(&shard) {
            Some(token) => Some(Owner::Here(*token)),
            None => {
                let member = shards.member_of(shard).filter(|member| member.id != *me);
                member.map(|member| Owner::There(member.address.to_string()))
            }
        })
    }

    async fn share(&self) -> StoreShare {
        let Members::Several { me, shards } = &self.members else {
            return StoreShare { store: String::new(), owned: BTreeMap::new() };
        };
        let owned = shards.read().await.as_ref().map(Shards::owned).unwrap_or_default();
        StoreShare { store: me.clone(), owned }
    }

    /// The file of a shard, opened by that token.
    fn database(&self, shard: u32, token: u64) -> Result<Arc<Mutex<Database>>, Refusal> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((database, _)) = open.get(&shard).filter(|(_, of)| *of == token) {
            return Ok(database.clone());
        }
        let file = matches!(self.members, Members::Several { .. }).then_some(shard);
        let database = Arc::new(Mutex::new(Database::open(file, token)?));
        open.insert(shard, (database.clone(), token));
        Ok(database)
    }
}

/// Others know better who owns what.
fn misdirected(why: impl ToString) -> Refusal {
    Refusal::new(StatusCode::MISDIRECTED_REQUEST, why)
}

fn left() -> Refusal {
    misdirected("this store is ending")
}
