//! `rollbackd keygen`: a new signing key.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::{CommandError, EXIT_OK};
use crate::signing::generate_key_file;

/// Make a signing key: FILE (readable by its owner only) and FILE.pub.
///
/// Prints the public key. Never overwrites.
#[derive(Args, Clone, Debug)]
pub struct KeygenArgs {
    /// Where the secret key goes.
    #[arg(default_value = "rollbackd.key")]
    pub file: PathBuf,
}

/// Makes the key and prints its public half.
///
/// # Errors
/// When a file exists already or cannot be written.
pub fn run(args: &KeygenArgs, out: &mut impl Write) -> Result<u8, CommandError> {
    let signer = generate_key_file(&args.file)?;
    writeln!(out, "{}", signer.public_key())?;
    Ok(EXIT_OK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::Signer;

    #[test]
    fn keygen_prints_the_public_key_once_and_refuses_to_do_it_again() {
        let dir = tempfile::tempdir().unwrap();
        let args = KeygenArgs { file: dir.path().join("k") };
        let mut out = Vec::new();
        assert_eq!(run(&args, &mut out).unwrap(), EXIT_OK);
        let public = Signer::load(&args.file).unwrap().public_key().to_owned();
        assert_eq!(String::from_utf8(out).unwrap(), format!("{public}\n"));

        let error = run(&args, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.ends_with("exists already and is not overwritten"), "{error}");
    }
}
