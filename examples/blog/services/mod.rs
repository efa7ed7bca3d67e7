//! The services of the blog. Each is this same program, told by its first argument which it is.

mod comments;
mod gateway;
mod health;
mod migrate;
mod numbers;
mod posts;
mod session;
mod store;
mod users;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::http::Handler;
use crate::{Result, http, registry};

pub use store::SHARDS;

/// One of the programs that the blog is made of.
#[derive(Clone, Copy, Debug, clap::Subcommand)]
pub enum Service {
    /// Signs people up and logs them in.
    Users,
    /// Keeps posts.
    Posts,
    /// Keeps comments on posts.
    Comments,
    /// The page and the JSON API that callers outside see.
    Gateway,
    /// The database, over HTTP.
    Store,
    /// Makes the tables of the database, and ends.
    Migrate,
    /// Asks the service in whose environment it runs whether it is well, and ends: for backends
    /// that ask by a command.
    Health,
}

impl Service {
    /// Serves until SIGTERM.
    pub async fn run(self) -> Result<()> {
        match self {
            Self::Users => serve("users", users::Users::new().await?).await,
            Self::Posts => serve("posts", posts::Posts::new().await?).await,
            Self::Comments => serve("comments", comments::Comments::new().await?).await,
            Self::Gateway => serve("gateway", gateway::Gateway::new().await?).await,
            Self::Store => {
                let listener = http::listen().await?;
                let store = store::Store::open().await?;
                let leaving = store.clone();
                let leave = Box::pin(async move { leaving.leave().await });
                http::serve("store", listener, store, Some(leave)).await
            }
            Self::Migrate => migrate::run(),
            Self::Health => health::run().await,
        }
    }
}

/// Serves, and is found in the registry meanwhile, where there is one and the service is well.
async fn serve(name: &str, handler: impl Handler) -> Result<()> {
    let listener = http::listen().await?;
    let unhealthy = std::env::var_os("UNHEALTHY").is_some();
    let Some(registry) = registry::open().await?.filter(|_| !unhealthy) else {
        return http::serve(name, listener, handler, None).await;
    };
    let registration = registry.register(registry::me(name)?, registry::TTL).await?;
    let leave = async move {
        if let Err(error) = registration.deregister().await {
            eprintln!("the registration is left to end by itself: {error}");
        }
    };
    http::serve(name, listener, handler, Some(Box::pin(leave))).await
}

/// What somebody writes: a post without its number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    pub title: String,
    pub body: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Post {
    pub id: i64,
    pub author: String,
    pub title: String,
    pub body: String,
    /// Told since version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<usize>,
}

impl Post {
    /// Whether this is that post, whatever version tells it.
    pub fn is(&self, other: &Self) -> bool {
        (self.id, &self.author, &self.title, &self.body)
            == (other.id, &other.author, &other.title, &other.body)
    }
}

/// The newest posts, and how many there are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PostList {
    pub total: i64,
    pub newest: Vec<Post>,
}

/// What a store owns of the data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoreShare {
    pub store: String,
    /// Its shards, each with the token by which it owns it.
    pub owned: BTreeMap<u32, u64>,
}

/// A comment before it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Remark {
    pub body: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comment {
    pub id: i64,
    pub author: String,
    pub body: String,
}

/// What somebody signs up or logs in with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Credentials {
    pub name: String,
    pub password: String,
}

/// What a log-in is answered with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Session {
    pub token: String,
}
