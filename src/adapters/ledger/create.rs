//! A new ledger, made whole or not at all.
//!
//! **Invariant:** a file under the ledger's name was a ledger from its first moment. So one that
//! is empty was cut off, and is refused rather than begun anew.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

use sqlx::sqlite::SqlitePoolOptions;
use tempfile::TempDir;

use super::{beside, format, options, pages, reason};

/// Makes the ledger at `path` unless there is a file; two who do so at once make one.
pub(super) async fn if_missing(path: &Path) -> Result<(), String> {
    if path.exists() {
        return Ok(());
    }
    // Readers leave an empty one behind.
    if fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0) {
        return Err("is missing, and its write-ahead log is there: put both back".to_owned());
    }
    let (workshop, directory) = workshop(path)?;
    let made = workshop.path().join("ledger");
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options(&made).create_if_missing(true))
        .await
        .map_err(|error| reason(&error))?;
    let made_whole = format::make(&pool).await;
    // Writes back the log.
    pool.close().await;
    made_whole.and_then(|()| place(&made, path, directory).map_err(|error| error.to_string()))
}

/// Writes the records of the ledger at `from` to a new one at `path`.
pub(super) async fn copy(from: &Path, immutable: bool, path: &Path) -> Result<(), String> {
    if path.exists() {
        return Err("is there already".to_owned());
    }
    let (workshop, directory) = workshop(path)?;
    let made = workshop.path().join("ledger");
    pages::rebuild(&made, from, immutable).await?;
    place(&made, path, directory).map_err(|error| error.to_string())
}

/// A directory to make a ledger in, and the one that it is in.
fn workshop(path: &Path) -> Result<(TempDir, &Path), String> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let workshop = tempfile::Builder::new().prefix(".rollbackd-").tempdir_in(directory);
    // SQLite's own words, which the same failure has everywhere else.
    let workshop = workshop.map_err(|_| "unable to open database file".to_owned())?;
    Ok((workshop, directory))
}

/// Gives the file its name for good, if no other has it.
fn place(made: &Path, path: &Path, directory: &Path) -> io::Result<()> {
    File::open(made)?.sync_all()?;
    match fs::hard_link(made, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        // Some file systems have no second names.
        Err(_) => fs::rename(made, path)?,
        Ok(()) => {}
    }
    File::open(directory)?.sync_all()
}
