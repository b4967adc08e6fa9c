//! Canonical bytes, and Ed25519 over them.
//!
//! **Invariant:** hex is lower case everywhere, so a key, a hash or a signature has one spelling.

mod keyfile;

use std::fmt;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::Serialize;

pub use keyfile::{KeyFileError, generate_key_file, public_key_path, read_public_key};

/// The value as canonical JSON (RFC 8785): one spelling for one meaning.
///
/// # Errors
/// When the value is not JSON: a key that is no string, a key given twice.
pub fn canonical_json(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    serde_json_canonicalizer::to_vec(value)
}

/// Why a signature was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// No Ed25519 point, or not 64 lower-case hex digits.
    #[error("the public key is not an Ed25519 key in lower-case hex")]
    Key,
    /// Not by this key over these bytes, or not 128 lower-case hex digits.
    #[error("the signature does not match")]
    Signature,
}

/// Holds the secret key and signs with it. Never shows it.
#[derive(Clone)]
pub struct Signer {
    key: SigningKey,
    public: String,
}

impl Signer {
    /// From the 32 secret bytes.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(seed);
        let public = hex::encode(key.verifying_key().as_bytes());
        Self { key, public }
    }

    /// The signature over `bytes`, 128 hex digits.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> String {
        hex::encode(self.sign_raw(bytes))
    }

    /// The signature over `bytes`, 64 bytes.
    #[must_use]
    pub fn sign_raw(&self, bytes: &[u8]) -> [u8; 64] {
        self.key.sign(bytes).to_bytes()
    }

    /// The public key, 64 hex digits.
    #[must_use]
    pub fn public_key(&self) -> &str {
        &self.public
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Signer").field("public", &self.public).finish_non_exhaustive()
    }
}

/// Checks that `signature` (hex) is by `public` (hex) over `bytes`.
///
/// Strict: weak keys and malleable signatures are refused.
///
/// # Errors
/// Says whether the key or the signature is at fault.
pub fn verify(public: &str, bytes: &[u8], signature: &str) -> Result<(), VerifyError> {
    let key = verifying_key(public).ok_or(VerifyError::Key)?;
    let signature = decode::<64>(signature).ok_or(VerifyError::Signature)?;
    key.verify_strict(bytes, &Signature::from_bytes(&signature)).map_err(|_| VerifyError::Signature)
}

fn verifying_key(public: &str) -> Option<VerifyingKey> {
    let key = VerifyingKey::from_bytes(&decode(public)?).ok()?;
    (!key.is_weak()).then_some(key)
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 2.
    const SEED: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    const PUBLIC: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
    const SIGNATURE: &str = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";

    fn signer() -> Signer {
        Signer::from_seed(&decode(SEED).unwrap())
    }

    #[test]
    fn the_rfc_8032_vector_holds() {
        assert_eq!(signer().public_key(), PUBLIC);
        assert_eq!(signer().sign(&[0x72]), SIGNATURE);
        assert_eq!(verify(PUBLIC, &[0x72], SIGNATURE), Ok(()));
    }

    #[test]
    fn what_does_not_match_is_refused() {
        let upper = SIGNATURE.to_uppercase();
        // The neutral element: it would accept signatures over anything.
        let weak = format!("01{}", "00".repeat(31));
        #[rustfmt::skip]
        let cases: &[(&str, &str, &[u8], &str, VerifyError)] = &[
            ("other bytes",           PUBLIC, &[0x73], SIGNATURE,        VerifyError::Signature),
            ("a short signature",     PUBLIC, &[0x72], &SIGNATURE[..126], VerifyError::Signature),
            ("upper-case signature",  PUBLIC, &[0x72], &upper,           VerifyError::Signature),
            ("no hex at all",         PUBLIC, &[0x72], "grün",           VerifyError::Signature),
            ("a short key",           "3d40", &[0x72], SIGNATURE,        VerifyError::Key),
            ("a weak key",            &weak,  &[0x72], SIGNATURE,        VerifyError::Key),
        ];
        for (name, public, bytes, signature, want) in cases {
            assert_eq!(verify(public, bytes, signature), Err(*want), "{name}");
        }
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let shown = format!("{:?}", signer());
        assert!(shown.contains(PUBLIC) && !shown.contains(SEED), "{shown}");
    }

    #[test]
    fn canonical_json_is_sorted_and_compact() {
        let value = serde_json::json!({"b": 1.0, "a": "é\n", "c": 1e21});
        assert_eq!(canonical_json(&value).unwrap(), r#"{"a":"é\n","b":1,"c":1e+21}"#.as_bytes());
    }
}
