//! The ledger in one SQLite file.
//!
//! `records(seq, json)`: the canonical JSON as it was hashed, verbatim. Triggers refuse to change
//! or delete a row and to leave out a number; that stops accidents, the chain shows the rest.
//!
//! **Invariant:** one connection, so this process never waits for itself; one transaction an
//! append, so no reader ever sees half of it.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use crate::ledger::chain::{FIRST_PREVIOUS, seal};
use crate::ledger::checkpoint::Checkpoint;
use crate::ledger::record::{Draft, Record};
use crate::ledger::verify::{BrokenRecord, ChainVerifier, Signatures, Trust};
use crate::ports::ledger::{Ledger, LedgerError};
use crate::signing::{Signer, canonical_json};

mod create;
#[cfg(any(test, fuzzing))]
pub(crate) mod foreign;
mod format;
mod lock;
mod pages;
mod wal;

pub use self::lock::lock;
pub use self::pages::FileFlaw;
pub use self::wal::LogFlaw;

/// How many records a replay holds as text at a time.
const PAGE_RECORDS: u32 = 256;

/// How long another process may hold the write lock before an append gives up.
const BUSY_MAX: Duration = Duration::from_secs(5);

/// Why a replay ended early.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The file could not be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The file was read, and a record in it does not hold.
    #[error("{path}: {broken}")]
    Broken {
        /// The database file.
        path: String,
        /// Which record and why.
        broken: BrokenRecord,
    },
}

/// A record as it lies in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// The row's number.
    pub seq: u64,
    /// The row's text, not judged.
    pub json: Vec<u8>,
}

/// The ledger in a SQLite file.
#[derive(Clone, Debug)]
pub struct SqliteLedger {
    path: PathBuf,
    pool: SqlitePool,
    signer: Option<Signer>,
    /// What was wrong with the log before SQLite opened it.
    log_flaw: Option<LogFlaw>,
    /// Nobody can write, so that SQLite need not look for who does.
    immutable: bool,
}

impl SqliteLedger {
    /// Opens the ledger to append to it; makes it if the file is missing.
    ///
    /// # Errors
    /// When the file cannot be written, is no ledger, is of a newer format, or has lost records
    /// with a part of its log.
    pub async fn open(path: &Path, signer: Signer) -> Result<Self, LedgerError> {
        create::if_missing(path).await.map_err(|reason| storage(path, reason))?;
        let log_flaw = Self::examine_log(path)?;
        if let Some(lost @ LogFlaw::Damaged { .. }) = &log_flaw {
            return Err(storage(path, lost.to_string()));
        }
        let mut ledger = Self::connect(path, options(path), Some(signer)).await?;
        format::prepare(&ledger.pool).await.map_err(|reason| storage(path, reason))?;
        ledger.log_flaw = log_flaw;
        Ok(ledger)
    }

    /// Opens the ledger to read it; changes nothing, also beside a process that appends.
    ///
    /// # Errors
    /// When the file cannot be read, is no ledger, or is of a newer format.
    pub async fn open_read_only(path: &Path) -> Result<Self, LedgerError> {
        let log_flaw = Self::examine_log(path)?;
        let opened = match Self::read_only(path, options(path).read_only(true)).await {
            // In a directory it cannot write, SQLite cannot make the WAL's index. Where there is
            // no WAL either, no one is writing and the file alone is the whole ledger.
            Err(_) if path.is_file() && !beside(path, "-wal").exists() => {
                let options = options(path).read_only(true).immutable(true);
                Self::read_only(path, options)
                    .await
                    .map(|ledger| Self { immutable: true, ..ledger })
            }
            result => result,
        };
        opened.map(|ledger| Self { log_flaw, ..ledger })
    }

    async fn read_only(path: &Path, options: SqliteConnectOptions) -> Result<Self, LedgerError> {
        let ledger = Self::connect(path, options, None).await?;
        format::check(&ledger.pool).await.map_err(|reason| storage(path, reason))?;
        Ok(ledger)
    }

    fn examine_log(path: &Path) -> Result<Option<LogFlaw>, LedgerError> {
        wal::examine(path).map_err(|error| storage(path, error.to_string()))
    }

    async fn connect(
        path: &Path,
        options: SqliteConnectOptions,
        signer: Option<Signer>,
    ) -> Result<Self, LedgerError> {
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .map_err(|error| storage(path, reason(&error)))?;
        Ok(Self { path: path.to_owned(), pool, signer, log_flaw: None, immutable: false })
    }

    /// What was wrong with the log when it was opened; SQLite has gone on without its end.
    #[must_use]
    pub fn log_flaw(&self) -> Option<&LogFlaw> {
        self.log_flaw.as_ref()
    }

    /// Checks all that the chain does not cover: the log, and every byte outside of the records.
    ///
    /// Only worth asking once every record holds.
    ///
    /// # Errors
    /// When it could not be found out.
    pub async fn examine_file(&self) -> Result<Option<FileFlaw>, LedgerError> {
        if let Some(flaw) = self.log_flaw.clone() {
            return Ok(Some(flaw.into()));
        }
        let flaw = pages::examine(&self.path, self.immutable).await;
        flaw.map_err(|reason| self.storage(reason))
    }

    /// Writes the records, as they are, to a new ledger; what was damaged around them is left.
    ///
    /// # Errors
    /// When this one cannot be read, or there is a file at `path`, or none can be written.
    pub async fn copy_to(&self, path: &Path) -> Result<(), LedgerError> {
        let copied = create::copy(&self.path, self.immutable, path).await;
        copied.map_err(|reason| storage(path, reason))
    }

    /// Writes back what is in the WAL and closes the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// The key it signs with, hex; none if it was opened to be read.
    #[must_use]
    pub fn public_key(&self) -> Option<&str> {
        self.signer.as_ref().map(Signer::public_key)
    }

    /// The last record's number; 0 if there is none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn last_seq(&self) -> Result<u64, LedgerError> {
        let (last,): (i64,) = sqlx::query_as("SELECT COALESCE(MAX(seq), 0) FROM records")
            .fetch_one(&self.pool)
            .await
            .map_err(|error| self.failed(&error))?;
        self.unsigned(last)
    }

    /// The last record, if there is one.
    ///
    /// # Errors
    /// When the file cannot be read or the record is damaged.
    pub async fn head(&self) -> Result<Option<Record>, LedgerError> {
        let row = sqlx::query_as(LAST).fetch_optional(&self.pool).await;
        self.parse_head(row.map_err(|error| self.failed(&error))?)
    }

    /// At most `limit` rows with a `seq` above `after`, in order, just as they are stored.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn read_stored(
        &self,
        after: u64,
        limit: u32,
    ) -> Result<Vec<StoredRecord>, LedgerError> {
        // As bytes, so that text that is no UTF-8 any more is one bad record, not a bad read.
        let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT seq, CAST(json AS BLOB) FROM records WHERE seq > ? ORDER BY seq LIMIT ?",
        )
        .bind(i64::try_from(after).unwrap_or(i64::MAX))
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(|error| self.failed(&error))?;
        rows.into_iter()
            .map(|(seq, json)| Ok(StoredRecord { seq: self.unsigned(seq)?, json }))
            .collect()
    }

    /// Feeds every record to `verifier`, in order, and each that holds to `take`.
    ///
    /// # Errors
    /// The first record that does not hold, or why the file could not be read.
    pub async fn verify_each(
        &self,
        verifier: &mut ChainVerifier,
        mut take: impl FnMut(Record),
    ) -> Result<(), ReplayError> {
        loop {
            let page = self.read_stored(verifier.summary().records, PAGE_RECORDS).await?;
            if page.is_empty() {
                return Ok(());
            }
            for stored in page {
                let checked = verifier.check_stored(stored.seq, &stored.json);
                take(checked.map_err(|broken| self.broken(broken))?);
            }
        }
    }

    /// Feeds every record to `take`, in order; returns how many there are.
    ///
    /// Checks every hash, and the last signature after the last record: until this has returned,
    /// nothing may be done on what `take` was given.
    ///
    /// # Errors
    /// The first record that does not hold, or why the file could not be read.
    pub async fn replay(&self, trust: Trust, take: impl FnMut(Record)) -> Result<u64, ReplayError> {
        let mut verifier = ChainVerifier::with(trust, Signatures::Last);
        self.verify_each(&mut verifier, take).await?;
        let summary = verifier.finish().map_err(|broken| self.broken(broken))?;
        Ok(summary.records)
    }

    fn broken(&self, broken: BrokenRecord) -> ReplayError {
        ReplayError::Broken { path: self.path.display().to_string(), broken }
    }

    /// One transaction, by hand: sqlx counts its own, and a commit that a full disk has undone
    /// leaves that count wrong for good.
    async fn append_on(
        &self,
        connection: &mut SqliteConnection,
        last_seq: u64,
        drafts: Vec<Draft>,
        signer: &Signer,
    ) -> Result<Vec<Record>, LedgerError> {
        // The write lock first: what is read next stays true until the commit.
        let begun = sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut *connection).await;
        begun.map_err(|error| self.failed(&error))?;
        let records = self.append_in(connection, last_seq, drafts, signer).await?;
        let done = sqlx::raw_sql("COMMIT").execute(&mut *connection).await;
        done.map_err(|error| self.failed(&error))?;
        Ok(records)
    }

    async fn append_in(
        &self,
        connection: &mut SqliteConnection,
        last_seq: u64,
        drafts: Vec<Draft>,
        signer: &Signer,
    ) -> Result<Vec<Record>, LedgerError> {
        let row = sqlx::query_as(LAST).fetch_optional(&mut *connection).await;
        let head = self.parse_head(row.map_err(|error| self.failed(&error))?)?;
        let found = head.as_ref().map_or(0, |head| head.seq);
        if found != last_seq {
            return Err(LedgerError::Conflict { expected: last_seq, found });
        }
        let mut previous = head.map_or_else(|| FIRST_PREVIOUS.to_owned(), |head| head.hash);
        let mut records = Vec::with_capacity(drafts.len());
        for (draft, seq) in drafts.into_iter().zip(last_seq + 1..) {
            let event = draft.event.clone();
            let cannot =
                |error: &dyn Display| self.storage(format!("cannot seal {event}: {error}"));
            let record = seal(draft, seq, &previous, signer).map_err(|error| cannot(&error))?;
            let json = canonical_json(&record).map_err(|error| cannot(&error))?;
            let json = String::from_utf8(json).map_err(|error| cannot(&error))?;
            sqlx::query("INSERT INTO records (seq, json) VALUES (?, ?)")
                .bind(i64::try_from(seq).map_err(|error| cannot(&error))?)
                .bind(json)
                .execute(&mut *connection)
                .await
                .map_err(|error| self.failed(&error))?;
            previous.clone_from(&record.hash);
            records.push(record);
        }
        Ok(records)
    }

    fn parse_head(&self, row: Option<(i64, Vec<u8>)>) -> Result<Option<Record>, LedgerError> {
        row.map(|(seq, json)| self.parse(&StoredRecord { seq: self.unsigned(seq)?, json }))
            .transpose()
    }

    fn parse(&self, stored: &StoredRecord) -> Result<Record, LedgerError> {
        let seq = stored.seq;
        let record: Record = serde_json::from_slice(&stored.json)
            .map_err(|error| self.storage(format!("record {seq} is damaged: {error}")))?;
        if record.seq != seq {
            return Err(self.storage(format!("record {} lies in the place of {seq}", record.seq)));
        }
        Ok(record)
    }

    fn unsigned(&self, seq: i64) -> Result<u64, LedgerError> {
        u64::try_from(seq).map_err(|_| self.storage(format!("a record has the number {seq}")))
    }

    fn failed(&self, error: &sqlx::Error) -> LedgerError {
        self.storage(reason(error))
    }

    fn storage(&self, reason: String) -> LedgerError {
        storage(&self.path, reason)
    }
}

const LAST: &str = "SELECT seq, CAST(json AS BLOB) FROM records ORDER BY seq DESC LIMIT 1";

impl Ledger for SqliteLedger {
    async fn append(&self, last_seq: u64, drafts: Vec<Draft>) -> Result<Vec<Record>, LedgerError> {
        let Some(signer) = &self.signer else {
            return Err(self.storage("opened to read only".to_owned()));
        };
        let mut connection = self.pool.acquire().await.map_err(|error| self.failed(&error))?;
        let appended = self.append_on(&mut connection, last_seq, drafts, signer).await;
        if appended.is_err() {
            // SQLite may have rolled back by itself (disk full); then there is nothing to undo.
            sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await.ok();
        }
        appended
    }

    async fn checkpoint(&self) -> Result<Option<String>, LedgerError> {
        let (first, last) = (self.read(0, 1).await?, self.head().await?);
        let Some(signer) = &self.signer else { return Ok(None) };
        let Some((first, last)) = first.first().zip(last) else { return Ok(None) };
        Ok(Some(Checkpoint::new(&first.hash, last.seq, &last.hash).sign(signer)))
    }

    async fn read(&self, after: u64, limit: u32) -> Result<Vec<Record>, LedgerError> {
        let page = self.read_stored(after, limit).await?;
        page.iter().map(|stored| self.parse(stored)).collect()
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_MAX)
        .statement_cache_capacity(8)
        .command_buffer_size(4)
        .row_buffer_size(16)
        // KiB, negative by SQLite's convention: a replay reads each page once.
        .pragma("cache_size", "-256")
        .pragma("trusted_schema", "OFF")
}

/// The path of the file that SQLite, or rollbackd, keeps beside the ledger under this ending.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn reason(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

fn storage(path: &Path, reason: String) -> LedgerError {
    LedgerError::Storage { path: path.display().to_string(), reason }
}

#[cfg(test)]
mod tests;
