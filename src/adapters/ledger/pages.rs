//! Whether every byte of the file is what its records make.
//!
//! The chain covers the records. It does not cover the rest of the file: counters, pointers, the
//! schema, bytes no record uses. A flipped bit there changes no record, and may have SQLite write
//! over one with the next append. So the records are written to a new file, in their order, and
//! the two files are compared byte by byte: a ledger is only ever appended to, and what SQLite
//! makes of the same appends is the same.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteOwnedBuf, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};

use super::{LogFlaw, beside, format, reason};

/// The SQLite versions of rollbackd's releases: the last writer's is in the file.
pub(super) const SQLITE_VERSIONS: [u32; 1] = [3_051_003];

const PAGE_BYTES: usize = 4096;

/// What is wrong with a file whose records all hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileFlaw {
    /// Some records may not have been read.
    #[error(transparent)]
    Log(#[from] LogFlaw),
    /// Not what its records make.
    #[error("page {page} is damaged in byte {byte}, outside of the records")]
    Page {
        /// Counted from 1.
        page: usize,
        /// Counted from 0.
        byte: usize,
    },
    /// There is something behind its last page, or not all of it is there.
    #[error("is {found} bytes long, and its pages are {expected}")]
    Length {
        /// Of the file.
        found: u64,
        /// Of its pages.
        expected: u64,
    },
}

/// Compares the ledger at `path` with one made of its records.
///
/// # Errors
/// When the file cannot be read, or no other one written to the directory for temporary files.
pub(super) async fn examine(path: &Path, immutable: bool) -> Result<Option<FileFlaw>, String> {
    let directory = tempfile::tempdir().map_err(|error| no_room(&error))?;
    let rebuilt = directory.path().join("ledger");
    let found = rebuild(&rebuilt, path, immutable).await?;
    let expected = found.as_ref().len() as u64;
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    // Pages that are still in the log may be missing from the file.
    let whole = length == expected || (length < expected && beside(path, "-wal").exists());
    if !whole || length % PAGE_BYTES as u64 != 0 {
        return Ok(Some(FileFlaw::Length { found: length, expected }));
    }
    difference(found.as_ref(), &rebuilt).map_err(|error| no_room(&error))
}

/// Makes a ledger of the records of the one at `path`; gives the bytes of the latter.
///
/// It is not synced to disk.
///
/// # Errors
/// When the one cannot be read or the other not written.
pub(super) async fn rebuild(
    made: &Path,
    path: &Path,
    immutable: bool,
) -> Result<SqliteOwnedBuf, String> {
    let mut connection = SqliteConnectOptions::new()
        .filename(made)
        .create_if_missing(true)
        .page_size(u32::try_from(PAGE_BYTES).unwrap_or_default())
        .journal_mode(SqliteJournalMode::Off)
        .synchronous(SqliteSynchronous::Off)
        .connect()
        .await
        .map_err(|error| reason(&error))?;
    let found = copy(&mut connection, path, immutable).await;
    connection.close().await.map_err(|error| reason(&error))?;
    found.map_err(|error| reason(&error))
}

/// Writes the records to the connection's own file; gives the bytes of the ledger's.
async fn copy(
    connection: &mut SqliteConnection,
    path: &Path,
    immutable: bool,
) -> Result<SqliteOwnedBuf, sqlx::Error> {
    sqlx::query("ATTACH ? AS source").bind(uri(path, immutable)).execute(&mut *connection).await?;
    // One transaction: what is read is one state of the ledger, also beside one who appends.
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql(format::CREATE).execute(&mut *transaction).await?;
    sqlx::raw_sql("INSERT INTO records SELECT seq, json FROM source.records ORDER BY seq")
        .execute(&mut *transaction)
        .await?;
    let found = transaction.serialize(Some("source")).await?;
    transaction.commit().await?;
    Ok(found)
}

/// The name by which SQLite attaches a file to read only.
fn uri(path: &Path, immutable: bool) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    let encode = |byte: &u8| {
        if plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02x}") }
    };
    let path: String = path.as_os_str().as_encoded_bytes().iter().map(encode).collect();
    format!("file:{path}?mode=ro{}", if immutable { "&immutable=1" } else { "" })
}

/// The first place where the bytes of a ledger are not those of the one made anew.
fn difference(found: &[u8], rebuilt: &Path) -> io::Result<Option<FileFlaw>> {
    let mut rebuilt = BufReader::new(File::open(rebuilt)?);
    let mut made = vec![0; PAGE_BYTES];
    for (index, page) in found.chunks(PAGE_BYTES).enumerate() {
        // Fewer pages were made: then this one differs from no page at all.
        if rebuilt.read_exact(&mut made).is_err() {
            return Ok(Some(FileFlaw::Page { page: index + 1, byte: 0 }));
        }
        if index == 0 {
            expect_of_header(page, &mut made);
        }
        let differs = page.iter().zip(&made).position(|(found, made)| found != made);
        if let Some(byte) = differs {
            return Ok(Some(FileFlaw::Page { page: index + 1, byte }));
        }
    }
    let more = rebuilt.read(&mut made)? > 0;
    let pages = found.len() / PAGE_BYTES;
    Ok(more.then_some(FileFlaw::Page { page: pages + 1, byte: 0 }))
}

/// Changes what was made to what the header of a ledger may hold.
///
/// SQLite's file format: <https://sqlite.org/fileformat2.html#the_database_header>.
fn expect_of_header(found: &[u8], made: &mut [u8]) {
    let mut expect = |at: usize, bytes: &[u8]| {
        if let Some(field) = made.get_mut(at..at + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    };
    // Written and read through a log, but for a copy that nobody has appended to.
    if found.get(18..20) == Some(&[2, 2]) {
        expect(18, &[2, 2]);
    }
    // How often it was changed is in two places.
    if let Some(changes) = found.get(24..28) {
        expect(24, found.get(92..96).unwrap_or_default());
        expect(92, changes);
    }
    let version = found.get(96..).and_then(|rest| rest.split_first_chunk::<4>());
    if let Some((version, _)) = version
        && SQLITE_VERSIONS.contains(&u32::from_be_bytes(*version))
    {
        expect(96, version);
    }
}

fn no_room(error: &io::Error) -> String {
    format!("cannot be compared with a copy: {error}")
}
