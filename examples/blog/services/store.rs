//! The database: SQLite on a volume, over HTTP, for the other services alone.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::{Method, StatusCode};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row};

use super::users::User;
use super::{Comment, Post, PostList};
use crate::Result;
use crate::http::{Answer, Handler, Refusal, Request, json, not_found, parse, segments, variable};

/// Opens the database on the volume `data`.
pub fn database() -> Result<Connection> {
    let path = Path::new(&variable("VOLUMES_DIR")?).join("data").join("blog.sqlite");
    let database = Connection::open(path)?;
    database.busy_timeout(Duration::from_secs(5))?;
    // An acknowledged write survives the death of the process.
    database.pragma_update(None, "journal_mode", "wal")?;
    database.pragma_update(None, "synchronous", "normal")?;
    database.pragma_update(None, "foreign_keys", true)?;
    Ok(database)
}

pub struct Store(Arc<Mutex<Connection>>);

impl Store {
    pub fn open() -> Result<Self> {
        Ok(Self(Arc::new(Mutex::new(database()?))))
    }
}

impl Handler for Store {
    async fn answer(&self, request: Request) -> Result<Answer, Refusal> {
        let database = self.0.clone();
        let answered = tokio::task::spawn_blocking(move || {
            // A panic elsewhere leaves the connection as it was: SQLite rolls back by itself.
            let database = database.lock().unwrap_or_else(PoisonError::into_inner);
            respond(&database, &request)
        });
        answered.await.map_err(|e| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, e))?
    }
}

fn respond(database: &Connection, request: &Request) -> Result<Answer, Refusal> {
    let posts = "SELECT id, author, title, body FROM posts";
    match (request.method(), segments(request).as_slice()) {
        (&Method::POST, ["users"]) => {
            let user: User = parse(request)?;
            let insert = "INSERT INTO users (name, password) VALUES (?1, ?2)";
            database.execute(insert, (&user.name, &user.password))?;
            Ok(json(StatusCode::CREATED, &user))
        }
        (&Method::GET, ["users", name]) => {
            let select = "SELECT name, password FROM users WHERE name = ?1";
            let user = |row: &Row<'_>| Ok(User { name: row.get(0)?, password: row.get(1)? });
            found(request, database.query_row(select, [name], user).optional()?)
        }
        (&Method::POST, ["posts"]) => {
            let mut new: Post = parse(request)?;
            let insert = "INSERT INTO posts (author, title, body) VALUES (?1, ?2, ?3)";
            database.execute(insert, (&new.author, &new.title, &new.body))?;
            new.id = database.last_insert_rowid();
            Ok(json(StatusCode::CREATED, &new))
        }
        (&Method::GET, ["posts"]) => {
            let mut newest = database.prepare(&format!("{posts} ORDER BY id DESC LIMIT 20"))?;
            let newest = newest.query_map([], post)?.collect::<rusqlite::Result<_>>()?;
            let total = database.query_row("SELECT count(*) FROM posts", [], |row| row.get(0))?;
            Ok(json(StatusCode::OK, &PostList { total, newest }))
        }
        (&Method::GET, ["posts", id]) => {
            let select = format!("{posts} WHERE id = ?1");
            found(request, database.query_row(&select, [number(id)?], post).optional()?)
        }
        (&Method::GET, ["posts", id, "comments"]) => {
            let select = "SELECT id, author, body FROM comments WHERE post = ?1 ORDER BY id";
            let mut select = database.prepare(select)?;
            let comment = |row: &Row<'_>| {
                Ok(Comment { id: row.get(0)?, author: row.get(1)?, body: row.get(2)? })
            };
            let comments = select.query_map([number(id)?], comment)?;
            Ok(json(StatusCode::OK, &comments.collect::<rusqlite::Result<Vec<_>>>()?))
        }
        (&Method::POST, ["posts", id, "comments"]) => {
            let mut new: Comment = parse(request)?;
            let insert = "INSERT INTO comments (post, author, body) VALUES (?1, ?2, ?3)";
            database.execute(insert, (number(id)?, &new.author, &new.body))?;
            new.id = database.last_insert_rowid();
            Ok(json(StatusCode::CREATED, &new))
        }
        _ => Err(not_found(request)),
    }
}

fn post(row: &Row<'_>) -> rusqlite::Result<Post> {
    let (id, author) = (row.get(0)?, row.get(1)?);
    Ok(Post { id, author, title: row.get(2)?, body: row.get(3)?, words: None })
}

fn number(text: &str) -> Result<i64, Refusal> {
    text.parse().map_err(|_| Refusal::new(StatusCode::NOT_FOUND, format!("`{text}` is no number")))
}

fn found<T: serde::Serialize>(request: &Request, row: Option<T>) -> Result<Answer, Refusal> {
    row.map(|row| json(StatusCode::OK, &row)).ok_or_else(|| not_found(request))
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        let status = match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error)
    }
}
