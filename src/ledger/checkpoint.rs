//! Checkpoints: how long the ledger is and what it ends with, signed, to be kept elsewhere.
//!
//! A chain whose end was cut off still holds. A checkpoint from before shows that it is shorter
//! than it was. The text is a C2SP signed note, laid out like a tlog-checkpoint; the hash is the
//! last record's, which covers all before it:
//!
//! ```text
//! rollbackd/ledger/0123456789abcdef      origin: the first record's hash, shortened
//! 4711                                   records
//! q83vEjRWeJA…                           the last record's hash, base64
//!
//! — rollbackd/ledger/0123456789abcdef 5fq1…
//! ```

use base64::prelude::{BASE64_STANDARD, Engine};
use sha2::{Digest, Sha256};

use crate::signing::{self, Signer};

/// The longest text that is read as a note.
pub const NOTE_BYTES_MAX: usize = 64 * 1024;

/// Ed25519, as signed notes number it.
const ED25519: u8 = 1;

/// Digits of the first record's hash that tell ledgers apart.
const ORIGIN_DIGITS: usize = 16;

/// How long a ledger is and what it ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which ledger.
    pub origin: String,
    /// How many records.
    pub size: u64,
    /// The last one's hash, hex.
    pub head: String,
}

/// A checkpoint as it was read. Nothing in it may be believed before [`SignedCheckpoint::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    text: String,
    signatures: Vec<NoteSignature>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct NoteSignature {
    name: String,
    key_id: [u8; 4],
    signature: Vec<u8>,
}

/// Why a text is no checkpoint that can be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not laid out as one.
    #[error("is no checkpoint: {0}")]
    Malformed(&'static str),
    /// Nobody who may has signed it.
    #[error("is not signed by a key that may sign this ledger")]
    Unsigned,
}

impl Checkpoint {
    /// Of a ledger that begins with the record of hash `first` and ends with that of hash `head`.
    #[must_use]
    pub fn new(first: &str, size: u64, head: &str) -> Self {
        let short: String = first.chars().take(ORIGIN_DIGITS).collect();
        Self { origin: format!("rollbackd/ledger/{short}"), size, head: head.to_owned() }
    }

    /// The signed note.
    #[must_use]
    pub fn sign(&self, signer: &Signer) -> String {
        let text = self.text();
        let name = &self.origin;
        let mut bytes = key_id(name, signer.public_key()).to_vec();
        bytes.extend(hex::decode(signer.sign(text.as_bytes())).unwrap_or_default());
        format!("{text}\n\u{2014} {name} {}\n", BASE64_STANDARD.encode(bytes))
    }

    fn text(&self) -> String {
        let head = BASE64_STANDARD.encode(hex::decode(&self.head).unwrap_or_default());
        format!("{}\n{}\n{head}\n", self.origin, self.size)
    }
}

/// What other tools for signed notes take as a key: name, key id and key.
#[must_use]
pub fn verifier_key(origin: &str, public_key: &str) -> String {
    let mut key = vec![ED25519];
    key.extend(hex::decode(public_key).unwrap_or_default());
    let id = hex::encode(key_id(origin, public_key));
    format!("{origin}+{id}+{}", BASE64_STANDARD.encode(key))
}

/// The first four bytes of SHA-256 over name, newline, kind and key.
fn key_id(name: &str, public_key: &str) -> [u8; 4] {
    let mut digest = Sha256::new();
    digest.update(name);
    digest.update([b'\n', ED25519]);
    digest.update(hex::decode(public_key).unwrap_or_default());
    let hash: [u8; 32] = digest.finalize().into();
    [hash[0], hash[1], hash[2], hash[3]]
}

impl SignedCheckpoint {
    /// Reads a signed note.
    ///
    /// # Errors
    /// When it is not laid out as one.
    pub fn read(note: &str) -> Result<Self, NoteError> {
        let bad = NoteError::Malformed;
        if note.len() > NOTE_BYTES_MAX || note.contains('\r') {
            return Err(bad("it is too long, or has carriage returns"));
        }
        let (text, signatures) =
            note.rsplit_once("\n\n").ok_or(bad("no empty line before the signatures"))?;
        let text = format!("{text}\n");
        let mut lines = text.lines();
        let (Some(origin), Some(size), Some(head), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(bad("expected three lines: origin, size and hash"));
        };
        let number: u64 = size.parse().map_err(|_| bad("the size is no number"))?;
        if number == 0 || number.to_string() != size {
            return Err(bad("the size is not written as a number above 0"));
        }
        let head = BASE64_STANDARD.decode(head).map_err(|_| bad("the hash is no base64"))?;
        if head.len() != 32 {
            return Err(bad("the hash has not 32 bytes"));
        }
        let checkpoint =
            Checkpoint { origin: origin.to_owned(), size: number, head: hex::encode(head) };
        let signatures: Option<Vec<_>> = signatures.lines().map(NoteSignature::read).collect();
        let signatures = signatures.ok_or(bad("a line after the empty one is no signature"))?;
        Ok(Self { checkpoint, text, signatures })
    }

    /// The checkpoint, if one of these public keys (hex) has signed it.
    ///
    /// # Errors
    /// When none has.
    pub fn verify<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a str>,
    ) -> Result<&Checkpoint, NoteError> {
        let signed_by = |key: &str| {
            self.signatures.iter().any(|signature| {
                signature.name == self.checkpoint.origin
                    && signature.key_id == key_id(&signature.name, key)
                    && signing::verify(
                        key,
                        self.text.as_bytes(),
                        &hex::encode(&signature.signature),
                    )
                    .is_ok()
            })
        };
        if keys.into_iter().any(signed_by) {
            Ok(&self.checkpoint)
        } else {
            Err(NoteError::Unsigned)
        }
    }

    /// How many records it speaks of, believed or not: to know which record to look at.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.checkpoint.size
    }
}

impl NoteSignature {
    fn read(line: &str) -> Option<Self> {
        let (name, signed) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
        let signed = BASE64_STANDARD.decode(signed).ok()?;
        let (key_id, signature) = signed.split_first_chunk::<4>()?;
        Some(Self { name: name.to_owned(), key_id: *key_id, signature: signature.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(seed: u8) -> Signer {
        Signer::from_seed(&[seed; 32])
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint::new(&"0123456789abcdef".repeat(4), 4711, &"ab".repeat(32))
    }

    #[test]
    fn a_checkpoint_is_a_signed_note() {
        let note = checkpoint().sign(&signer(7));
        insta::assert_snapshot!(note, @r"
        rollbackd/ledger/0123456789abcdef
        4711
        q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=

        — rollbackd/ledger/0123456789abcdef WNUG1AUw31o7g9i4b+er1amPcVB77e1bTjLjPmIzhQefddM9RxiJThu3tLBP/81Jd5YRZnIDDkTVwwE4w/k379iLywg=
        ");
        let read = SignedCheckpoint::read(&note).unwrap();
        assert_eq!(read.verify([signer(7).public_key()]), Ok(&checkpoint()));
        assert_eq!(read.verify([signer(8).public_key()]), Err(NoteError::Unsigned));
        assert_eq!(read.verify([]), Err(NoteError::Unsigned));
    }

    /// The example of <https://c2sp.org/signed-note>: its key, made of name, id and key.
    #[test]
    fn key_ids_and_keys_are_those_of_the_specification() {
        let vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key = BASE64_STANDARD.decode(vkey.rsplit('+').next().unwrap()).unwrap();
        assert_eq!(verifier_key("PeterNeumann", &hex::encode(&key[1..])), vkey);
    }

    #[test]
    fn what_was_changed_or_is_no_note_is_refused() {
        let note = checkpoint().sign(&signer(7));
        let (_, line) = note.split_once("\n\n").unwrap();
        #[rustfmt::skip]
        let cases = [
            ("empty",            String::new()),
            ("no signature",     note.split_once("\n\n").unwrap().0.to_owned()),
            ("another size",     note.replace("4711", "4712")),
            ("a padded size",    note.replace("4711", "04711")),
            ("nothing",          note.replace("4711", "0")),
            ("a negative size",  note.replace("4711", "-1")),
            ("another origin",   note.replace("rollbackd", "rollback")),
            ("another name",     note.replace("\u{2014} rollbackd", "\u{2014} rollback")),
            ("a longer text",    note.replace("\n\n", "\nmore\n\n")),
            ("a hyphen",         note.replace('\u{2014}', "-")),
            ("carriage returns", note.replace('\n', "\r\n")),
            ("no hash",          format!("a\n1\nq83v\n\n{line}")),
            ("much too long",    format!("{}{note}", "x".repeat(NOTE_BYTES_MAX))),
        ];
        for (name, note) in cases {
            let believed = SignedCheckpoint::read(&note)
                .is_ok_and(|read| read.verify([signer(7).public_key()]).is_ok());
            assert!(!believed, "{name}");
        }
    }

    #[test]
    fn further_signatures_do_no_harm() {
        let note = checkpoint().sign(&signer(7)) + "\u{2014} witness.example AAAAAAAAAAAA\n";
        let read = SignedCheckpoint::read(&note).unwrap();
        read.verify([signer(7).public_key()]).unwrap();
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[ -~\n\u{2014}]{0,200}") {
            drop(SignedCheckpoint::read(&text));
        }
    }
}
