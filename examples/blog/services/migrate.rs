//! Makes the tables of the database. Runs once for each of its versions, before the store starts.

use super::store::{SHARDS, file};
use crate::{Result, registry};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS users (
        name TEXT PRIMARY KEY,
        password TEXT NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS posts (
        id INTEGER PRIMARY KEY,
        author TEXT NOT NULL,
        title TEXT NOT NULL,
        body TEXT NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS comments (
        id INTEGER PRIMARY KEY,
        post INTEGER NOT NULL REFERENCES posts (id),
        author TEXT NOT NULL,
        body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS comments_of_post ON comments (post);
    CREATE TABLE IF NOT EXISTS owner (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        token INTEGER NOT NULL
    ) STRICT;
    INSERT INTO owner VALUES (1, 0) ON CONFLICT DO NOTHING;
";

pub fn run() -> Result<()> {
    let shards = match registry::url() {
        Some(_) => (0..SHARDS).map(Some).collect(),
        None => vec![None],
    };
    for shard in shards {
        file(shard)?.execute_batch(TABLES)?;
    }
    println!("the tables are there");
    Ok(())
}
