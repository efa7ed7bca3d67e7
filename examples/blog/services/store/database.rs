//! The data of the blog, or of one shard of it: an SQLite file on a volume.

use std::path::Path;
use std::time::Duration;

use hyper::{Method, StatusCode};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Transaction, TransactionBehavior};

use crate::Result;
use crate::http::{Answer, Refusal, Request, json, not_found, parse, segments, variable};
use crate::services::users::User;
use crate::services::{Comment, Post, PostList};

/// Opens the file of a shard, or that of all data, on the volume `data`.
pub fn file(shard: Option<u32>) -> Result<Connection> {
    let name = shard.map_or("blog.sqlite".to_owned(), |shard| format!("blog-{shard}.sqlite"));
    let database = Connection::open(Path::new(&variable("VOLUMES_DIR")?).join("data").join(name))?;
    database.busy_timeout(Duration::from_secs(5))?;
    // An acknowledged write survives the death of the process.
    database.pragma_update(None, "journal_mode", "wal")?;
    database.pragma_update(None, "synchronous", "normal")?;
    database.pragma_update(None, "foreign_keys", true)?;
    Ok(database)
}

/// An open file, and the token by which this process owns it.
pub struct Database {
    connection: Connection,
    token: u64,
}

impl Database {
    /// Opens a file as its owner: from here on it is closed to those with a lower token.
    pub fn open(shard: Option<u32>, token: u64) -> Result<Self, Refusal> {
        let failed = |e| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, e);
        let mut database = Self { connection: file(shard).map_err(failed)?, token };
        let transaction = database.begin(TransactionBehavior::Immediate)?;
        transaction.execute("UPDATE owner SET token = ?1", [token])?;
        transaction.commit()?;
        Ok(database)
    }

    /// Answers a request: all of it is done, or nothing.
    pub fn answer(&mut self, request: &Request) -> Result<Answer, Refusal> {
        let transaction = self.begin(match request.method().is_safe() {
            true => TransactionBehavior::Deferred,
            false => TransactionBehavior::Immediate,
        })?;
        let answer = respond(&transaction, request)?;
        transaction.commit()?;
        Ok(answer)
    }

    /// Begins a transaction, unless somebody with a higher token has opened the file: then this
    /// process was frozen or cut off, and has lost the shard without knowing it.
    fn begin(&mut self, behavior: TransactionBehavior) -> Result<Transaction<'_>, Refusal> {
        let transaction = self.connection.transaction_with_behavior(behavior)?;
        let seen: u64 = transaction.query_row("SELECT token FROM owner", [], |row| row.get(0))?;
        if seen > self.token {
            let why =
                format!("the data is of the owner {seen}, and here is the owner {}", self.token);
            return Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, why));
        }
        Ok(transaction)
    }
}

/// What is written may be written again: the second time it is there already.
fn respond(database: &Connection, request: &Request) -> Result<Answer, Refusal> {
    match (request.method(), segments(request).as_slice()) {
        (&Method::PUT, ["users", name]) => {
            let new: User = parse(request)?;
            let insert =
                "INSERT INTO users (name, password) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
            database.execute(insert, (name, &new.password))?;
            let there = user(database, name)?.is_some_and(|user| user == new);
            written(there, &new, "the name is taken")
        }
        (&Method::GET, ["users", name]) => found(request, user(database, name)?),
        (&Method::PUT, ["posts", id]) => {
            let new = Post { id: number(id)?, ..parse(request)? };
            let insert = "INSERT INTO posts (id, author, title, body) VALUES (?1, ?2, ?3, ?4) \
                          ON CONFLICT DO NOTHING";
            database.execute(insert, (new.id, &new.author, &new.title, &new.body))?;
            let there = post(database, new.id)?.is_some_and(|post| post.is(&new));
            written(there, &new, "the number is taken")
        }
        (&Method::GET, ["posts"]) => {
            let newest = "SELECT id, author, title, body FROM posts ORDER BY id DESC LIMIT 20";
            let mut newest = database.prepare(newest)?;
            let newest = newest.query_map([], read_post)?.collect::<rusqlite::Result<_>>()?;
            let total = database.query_row("SELECT count(*) FROM posts", [], |row| row.get(0))?;
            Ok(json(StatusCode::OK, &PostList { total, newest }))
        }
        (&Method::GET, ["posts", id]) => found(request, post(database, number(id)?)?),
        (&Method::GET, ["posts", id, "comments"]) => {
            let select = "SELECT id, author, body FROM comments WHERE post = ?1 ORDER BY id";
            let mut select = database.prepare(select)?;
            let comments = select.query_map([number(id)?], read_comment)?;
            Ok(json(StatusCode::OK, &comments.collect::<rusqlite::Result<Vec<_>>>()?))
        }
        (&Method::PUT, ["posts", of, "comments", id]) => {
            let new = Comment { id: number(id)?, ..parse(request)? };
            let insert = "INSERT INTO comments (id, post, author, body) VALUES (?1, ?2, ?3, ?4) \
                          ON CONFLICT DO NOTHING";
            database.execute(insert, (new.id, number(of)?, &new.author, &new.body))?;
            let select = "SELECT id, author, body FROM comments WHERE id = ?1 AND post = ?2";
            let there =
                database.query_row(select, (new.id, number(of)?), read_comment).optional()?;
            written(there.is_some_and(|comment| comment == new), &new, "the number is taken")
        }
        _ => Err(not_found(request)),
    }
}

fn user(database: &Connection, name: &str) -> rusqlite::Result<Option<User>> {
    let select = "SELECT name, password FROM users WHERE name = ?1";
    let read = |row: &Row<'_>| Ok(User { name: row.get(0)?, password: row.get(1)? });
    database.query_row(select, [name], read).optional()
}

fn post(database: &Connection, id: i64) -> rusqlite::Result<Option<Post>> {
    let select = "SELECT id, author, title, body FROM posts WHERE id = ?1";
    database.query_row(select, [id], read_post).optional()
}

fn read_post(row: &Row<'_>) -> rusqlite::Result<Post> {
    let (id, author) = (row.get(0)?, row.get(1)?);
    Ok(Post { id, author, title: row.get(2)?, body: row.get(3)?, words: None })
}

fn read_comment(row: &Row<'_>) -> rusqlite::Result<Comment> {
    Ok(Comment { id: row.get(0)?, author: row.get(1)?, body: row.get(2)? })
}

fn number(text: &str) -> Result<i64, Refusal> {
    text.parse().map_err(|_| Refusal::new(StatusCode::NOT_FOUND, format!("`{text}` is no number")))
}

fn found<T: serde::Serialize>(request: &Request, row: Option<T>) -> Result<Answer, Refusal> {
    row.map(|row| json(StatusCode::OK, &row)).ok_or_else(|| not_found(request))
}

fn written<T: serde::Serialize>(there: bool, row: &T, taken: &str) -> Result<Answer, Refusal> {
    match there {
        true => Ok(json(StatusCode::CREATED, row)),
        false => Err(Refusal::new(StatusCode::CONFLICT, taken)),
    }
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
