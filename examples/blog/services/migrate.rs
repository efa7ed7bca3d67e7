//! Makes the tables of the database. Runs once for each of its versions, before the store starts.

use crate::Result;

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
";

pub fn run() -> Result<()> {
    let database = super::store::database()?;
    database.execute_batch(TABLES)?;
    println!("the tables are there");
    Ok(())
}
