//! What makes a SQLite file a ledger of this format.

use sqlx::sqlite::SqlitePool;
use sqlx::{Executor, Sqlite};

use super::reason;

/// "RLBD", in the file's header.
const APPLICATION_ID: i64 = 0x524c_4244;

/// The format this program reads and writes; a newer one is refused.
const VERSION: i64 = 1;

pub(super) const CREATE: &str = "
    CREATE TABLE records (seq INTEGER PRIMARY KEY CHECK (seq > 0), json TEXT NOT NULL) STRICT;
    CREATE TRIGGER records_in_order BEFORE INSERT ON records
    WHEN NEW.seq IS NOT (SELECT COALESCE(MAX(seq), 0) + 1 FROM records)
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: records come in order'); END;
    CREATE TRIGGER records_unchanged BEFORE UPDATE ON records
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: no record is changed'); END;
    CREATE TRIGGER records_kept BEFORE DELETE ON records
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: no record is deleted'); END;
    PRAGMA application_id = 0x524c4244;
    PRAGMA user_version = 1;
";

const TOUCH: &str = "PRAGMA user_version = 1";

/// What a file turned out to be.
enum Found {
    Nothing,
    Ledger,
}

/// Checks that the file is a ledger of this format.
pub(super) async fn check(pool: &SqlitePool) -> Result<(), String> {
    match identify(pool).await? {
        Found::Ledger => Ok(()),
        Found::Nothing => {
            // It was begun whole, so it was cut off, or somebody made a file of this name.
            Err("is empty: there is no ledger in it".to_owned())
        }
    }
}

/// Makes a ledger of a file that is new.
pub(super) async fn make(pool: &SqlitePool) -> Result<(), String> {
    keep_a_log(pool).await?;
    let mut transaction =
        pool.begin_with("BEGIN IMMEDIATE").await.map_err(|error| reason(&error))?;
    sqlx::raw_sql(CREATE).execute(&mut *transaction).await.map_err(|error| reason(&error))?;
    transaction.commit().await.map_err(|error| reason(&error))
}

/// Checks that the file is a ledger that can be appended to.
pub(super) async fn prepare(pool: &SqlitePool) -> Result<(), String> {
    // Looked at before anything is set: someone else's database is left as it is.
    check(pool).await?;
    keep_a_log(pool).await?;
    // Where pages contradict each other, an append may land on records that are there.
    let (flaw,): (String,) = sqlx::query_as("PRAGMA quick_check(1)")
        .fetch_one(pool)
        .await
        .map_err(|error| reason(&error))?;
    if flaw != "ok" {
        return Err(format!("is damaged: {flaw}"));
    }
    // SQLite opens a file it may not write without a word, and even "begins" to write. So a write
    // is tried and taken back; the disk is not touched, and may well be full by now.
    let mut transaction =
        pool.begin_with("BEGIN IMMEDIATE").await.map_err(|error| reason(&error))?;
    sqlx::raw_sql(TOUCH).execute(&mut *transaction).await.map_err(|error| reason(&error))?;
    transaction.rollback().await.map_err(|error| reason(&error))
}

async fn keep_a_log(pool: &SqlitePool) -> Result<(), String> {
    let (mode,): (String,) = sqlx::query_as("PRAGMA journal_mode = WAL")
        .fetch_one(pool)
        .await
        .map_err(|error| reason(&error))?;
    if mode != "wal" {
        return Err(format!("its file system cannot hold a write-ahead log (mode `{mode}`)"));
    }
    Ok(())
}

async fn identify<'c>(executor: impl Executor<'c, Database = Sqlite>) -> Result<Found, String> {
    let (application, version, tables): (i64, i64, i64) = sqlx::query_as(
        "SELECT application_id, user_version, (SELECT COUNT(*) FROM sqlite_schema)
         FROM pragma_application_id, pragma_user_version",
    )
    .fetch_one(executor)
    .await
    .map_err(|error| reason(&error))?;
    match (application, version) {
        (0, 0) if tables == 0 => Ok(Found::Nothing),
        (APPLICATION_ID, VERSION) => Ok(Found::Ledger),
        (APPLICATION_ID, _) => Err(format!(
            "is of format {version}, this rollbackd knows format {VERSION}: use a newer rollbackd"
        )),
        _ => Err("is a database, but not a ledger".to_owned()),
    }
}
