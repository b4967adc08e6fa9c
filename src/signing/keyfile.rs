//! Keys on disk: one line of hex, the secret readable by its owner only.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{Signer, decode, verifying_key};

/// A key is 64 hex digits and a newline; anything much longer is another file.
const FILE_BYTES_MAX: u64 = 256;

/// Why a key file could not be used or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Not there, not readable, disk full, …
    #[error("key file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Group or others have access to a secret key.
    #[error("key file {path} is open to others (mode {mode:04o}); run `chmod 600 {path}`")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not the 64 hex digits of a key.
    #[error("key file {path} holds no key: expected one line of 64 lower-case hex digits")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// Making a key never replaces one.
    #[error("key file {path} exists already and is not overwritten")]
    Exists {
        /// The file.
        path: PathBuf,
    },
}

impl Signer {
    /// Reads the secret key: one line, the 32-byte seed in hex.
    ///
    /// # Errors
    /// When the file cannot be read, is open to group or others, or holds no key.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let file = File::open(path).map_err(|source| io_error(path, source))?;
        // Asked of the opened file, not of the path: it cannot be swapped in between.
        let metadata = file.metadata().map_err(|source| io_error(path, source))?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
        }
        let line = read_line(file, path)?;
        let seed = decode(&line).ok_or_else(|| malformed(path))?;
        Ok(Self::from_seed(&seed))
    }
}

/// Makes a new key at `path` (mode 0600) and its public half at `path` + `.pub`.
///
/// # Errors
/// When either file exists or cannot be written; then neither is left behind by this call.
pub fn generate_key_file(path: &Path) -> Result<Signer, KeyFileError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| io_error(path, io::Error::other(error)))?;
    let signer = Signer::from_seed(&seed);
    let public_path = public_key_path(path);
    write_new(path, &hex::encode(seed), 0o600)?;
    if let Err(error) = write_new(&public_path, signer.public_key(), 0o644) {
        fs::remove_file(path).map_err(|source| io_error(path, source))?;
        return Err(error);
    }
    Ok(signer)
}

/// Reads a public key file: one line, 64 hex digits. Gives the hex.
///
/// # Errors
/// When the file cannot be read or holds no Ed25519 public key.
pub fn read_public_key(path: &Path) -> Result<String, KeyFileError> {
    let file = File::open(path).map_err(|source| io_error(path, source))?;
    let line = read_line(file, path)?;
    verifying_key(&line).ok_or_else(|| malformed(path))?;
    Ok(line)
}

/// Where the public half of the key at `path` lies: `path` + `.pub`.
#[must_use]
pub fn public_key_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".pub");
    PathBuf::from(name)
}

fn read_line(file: File, path: &Path) -> Result<String, KeyFileError> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| io_error(path, source))?;
    let text = String::from_utf8(bytes).map_err(|_| malformed(path))?;
    Ok(text.trim_end().to_owned())
}

fn write_new(path: &Path, line: &str, mode: u32) -> Result<(), KeyFileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(|source| not_made(path, source))?;
    writeln!(file, "{line}").and_then(|()| file.sync_all()).map_err(|source| {
        // Half a key is worse than none; that removing it failed too would add nothing.
        fs::remove_file(path).ok();
        io_error(path, source)
    })
}

fn not_made(path: &Path, source: io::Error) -> KeyFileError {
    if source.kind() == io::ErrorKind::AlreadyExists {
        return KeyFileError::Exists { path: path.to_owned() };
    }
    io_error(path, source)
}

fn io_error(path: &Path, source: io::Error) -> KeyFileError {
    KeyFileError::Io { path: path.to_owned(), source }
}

fn malformed(path: &Path) -> KeyFileError {
    KeyFileError::Malformed { path: path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &[u8], mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_generated_key_is_private_and_loads_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rollbackd.key");
        let made = generate_key_file(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Signer::load(&path).unwrap().public_key(), made.public_key());
        assert_eq!(read_public_key(&public_key_path(&path)).unwrap(), made.public_key());
    }

    #[test]
    fn neither_half_is_ever_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        write(&path, b"mine", 0o600);
        assert!(matches!(generate_key_file(&path), Err(KeyFileError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"mine");

        let path = dir.path().join("b.key");
        write(&public_key_path(&path), b"mine", 0o600);
        assert!(matches!(generate_key_file(&path), Err(KeyFileError::Exists { .. })));
        assert_eq!(fs::read(public_key_path(&path)).unwrap(), b"mine");
        assert!(!path.exists(), "a secret without its public half was left behind");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        let line = format!("{}\n", "ab".repeat(32));
        for mode in [0o640, 0o604, 0o620, 0o644] {
            write(&path, line.as_bytes(), mode);
            let said = Signer::load(&path).unwrap_err().to_string();
            assert!(said.contains(&format!("chmod 600 {}", path.display())), "{said}");
            assert!(said.contains(&format!("mode {mode:04o}")), "{said}");
        }
        for mode in [0o600, 0o400] {
            write(&path, line.as_bytes(), mode);
            Signer::load(&path).unwrap();
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        let short = "ab".repeat(31);
        let two = format!("{0}\n{0}\n", "ab".repeat(32));
        let cases: &[(&str, &[u8])] = &[
            ("empty", b""),
            ("too short", short.as_bytes()),
            ("two lines", two.as_bytes()),
            ("not text", &[0xff; 64]),
            ("upper case", "AB".repeat(32).leak().as_bytes()),
            ("endless", &[b'a'; 1_000]),
        ];
        for (name, text) in cases {
            write(&path, text, 0o600);
            let result = Signer::load(&path);
            assert!(matches!(result, Err(KeyFileError::Malformed { .. })), "{name}");
            assert!(
                matches!(read_public_key(&path), Err(KeyFileError::Malformed { .. })),
                "{name}"
            );
        }
        let missing = Signer::load(&dir.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("none: No such file"), "{missing}");
    }
}
