//! Whether SQLite's write-ahead log is whole, by its own checksums.
//!
//! SQLite takes the first frame that does not check for the end of the log, and says nothing: a
//! flipped bit makes committed records vanish. Their chain would still hold, only shorter. So the
//! log is read here too, before SQLite opens it (which mends it, in its way).
//!
//! ```text
//! log    header(magic, version, page size, n, salt, checksum) frame* rest
//! frame  page number, size after commit, salt, checksum, page
//! ```
//!
//! Each checksum covers all before it. The rest is what an earlier round of the log left behind
//! (another salt), or an append that was cut off. How far the appends that returned go is in the
//! log's index (`-shm`), which outlives a killed process; without it, damage to the last append
//! and an append cut off look the same.
//!
//! Formats: <https://sqlite.org/walformat.html>.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::beside;

const MAGIC: u32 = 0x377f_0682;
const FORMAT: u32 = 3_007_000;
const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// The index has its header twice.
const INDEX_HEADER_BYTES: usize = 48;

/// How often a log is read that another process writes to at the same time.
const READS_MAX: u32 = 10;

/// What is wrong with a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogFlaw {
    /// Records that were on disk are not readable any more.
    #[error(
        "its write-ahead log is damaged in frame {frame}: records appended there or later are lost"
    )]
    Damaged {
        /// Counted from 1; 0 is the log's header.
        frame: usize,
    },
    /// The end does not check, and nothing says whether it ever did.
    #[error(
        "its write-ahead log ends in frame {frame}, which does not check: an append that was cut \
         off, and never counted, or damage to the last one"
    )]
    CutOff {
        /// Counted from 1; 0 is the log's header.
        frame: usize,
    },
}

/// Reads the log beside the ledger at `path`; no log is a whole one.
///
/// # Errors
/// When a file is there and cannot be read.
pub(super) fn examine(path: &Path) -> io::Result<Option<LogFlaw>> {
    let mut before = None;
    for _ in 0..READS_MAX {
        // The index first: what it says is in the log stays there, unless the log begins anew.
        let read = (read(&beside(path, "-shm"))?, read(&beside(path, "-wal"))?);
        let flaw = check(&read.1, &read.0);
        // What was in the midst of being written is another thing the next time.
        if flaw.is_none() || before.as_ref() == Some(&read) {
            return Ok(flaw);
        }
        before = Some(read);
    }
    Ok(before.and_then(|(index, log)| check(&log, &index)))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        result => result,
    }
}

/// What is wrong with the bytes of a log, of which `index` may say how far it goes.
pub(super) fn check(log: &[u8], index: &[u8]) -> Option<LogFlaw> {
    let Some(header) = Header::read(log) else {
        return match Index::read(index) {
            // What it knows is gone.
            Some(index) if index.frames > 0 => Some(LogFlaw::Damaged { frame: 0 }),
            None if !log.is_empty() => Some(LogFlaw::CutOff { frame: 0 }),
            Some(_) | None => None,
        };
    };
    let frame_bytes = FRAME_HEADER_BYTES + header.page_bytes;
    let frames = || log.get(HEADER_BYTES..).unwrap_or_default().chunks(frame_bytes);
    let mut sum = header.checksum;
    let mut good = 0;
    for frame in frames().filter(|frame| frame.len() == frame_bytes) {
        let next = header.checksum_after(sum, frame);
        if frame.get(8..16) != Some(&header.salt) || Some(next) != stored_checksum(frame) {
            break;
        }
        sum = next;
        good += 1;
    }
    let bad = good + 1;
    if let Some(index) = Index::read(index).filter(|index| index.salt == header.salt) {
        return (index.frames > good).then_some(LogFlaw::Damaged { frame: bad });
    }
    // Frames of this log after the one that does not check, or in its place.
    let later: Vec<&[u8]> = frames()
        .skip(good)
        .filter(|frame| frame.len() == frame_bytes)
        .filter(|frame| frame.get(8..16) == Some(&header.salt))
        .collect();
    let commits = later.iter().filter(|frame| word(frame, 4).is_some_and(|size| size > 0)).count();
    // A frame that continues the chain under another salt had its salt changed.
    let resalted = frames().nth(good).is_some_and(|frame| {
        frame.len() == frame_bytes
            && stored_checksum(frame) == Some(header.checksum_after(sum, frame))
    });
    match (resalted, later.len(), commits) {
        // One append is cut off at most: a second commit came after the first was on disk.
        (true, _, _) | (false, _, 2..) => Some(LogFlaw::Damaged { frame: bad }),
        (false, 1.., _) => Some(LogFlaw::CutOff { frame: bad }),
        (false, 0, _) => None,
    }
}

type Checksum = (u32, u32);

struct Header {
    /// Whether checksums add up words as big-endian machines do.
    big_endian: bool,
    page_bytes: usize,
    salt: [u8; 8],
    checksum: Checksum,
}

impl Header {
    fn read(log: &[u8]) -> Option<Self> {
        let bytes = log.get(..HEADER_BYTES)?;
        let magic = word(bytes, 0)?;
        let page_bytes = usize::try_from(word(bytes, 8)?).ok()?;
        let header = Self {
            big_endian: magic & 1 == 1,
            page_bytes,
            salt: bytes.get(16..24)?.try_into().ok()?,
            checksum: (word(bytes, 24)?, word(bytes, 28)?),
        };
        let good = magic & !1 == MAGIC
            && word(bytes, 4)? == FORMAT
            && page_bytes.is_power_of_two()
            && (512..=65_536).contains(&page_bytes)
            && header.sum((0, 0), bytes.get(..24)?) == header.checksum;
        good.then_some(header)
    }

    fn checksum_after(&self, before: Checksum, frame: &[u8]) -> Checksum {
        let (head, page) = frame.split_at(FRAME_HEADER_BYTES.min(frame.len()));
        self.sum(self.sum(before, head.get(..8).unwrap_or_default()), page)
    }

    fn sum(&self, before: Checksum, bytes: &[u8]) -> Checksum {
        let number = if self.big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
        sum(before, bytes, number)
    }
}

/// SQLite's checksum: two sums that feed each other, over pairs of words.
fn sum(before: Checksum, bytes: &[u8], number: fn([u8; 4]) -> u32) -> Checksum {
    let (words, _) = bytes.as_chunks::<4>();
    let (pairs, _) = words.as_chunks::<2>();
    pairs.iter().fold(before, |(first, second), [left, right]| {
        let first = first.wrapping_add(number(*left)).wrapping_add(second);
        (first, second.wrapping_add(number(*right)).wrapping_add(first))
    })
}

/// A big-endian number.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let (word, _) = bytes.get(at..)?.split_first_chunk::<4>()?;
    Some(u32::from_be_bytes(*word))
}

fn stored_checksum(frame: &[u8]) -> Option<Checksum> {
    Some((word(frame, 16)?, word(frame, 20)?))
}

/// What the log's index says of it.
struct Index {
    /// How many frames appends that returned have left in the log.
    frames: usize,
    /// Which log.
    salt: [u8; 8],
}

impl Index {
    /// `None` if there is no index, or it was being written. Its numbers are in this machine's
    /// order of bytes.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (header, again) = bytes.split_at_checked(INDEX_HEADER_BYTES)?;
        let (words, _) = header.as_chunks::<4>();
        let number = |index: usize| words.get(index).copied().map(u32::from_ne_bytes);
        let checksum = sum((0, 0), header.get(..40)?, u32::from_ne_bytes);
        let good = again.starts_with(header)
            && number(0) == Some(FORMAT)
            && header.get(12) == Some(&1)
            && (number(10)?, number(11)?) == checksum;
        let frames = usize::try_from(number(4)?).ok()?;
        good.then_some(Self { frames, salt: header.get(32..40)?.try_into().ok()? })
    }
}
