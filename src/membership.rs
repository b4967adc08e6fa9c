//! The token a worker proves its membership with: `OpenRTC`'s `sign_membership`, byte for byte.
//!
//! The token is the hex HMAC-SHA256, under a shared secret, of the compact JSON array
//! `[version, worker_id, repr(timestamp)]` as Python writes it. Both sides must write the same
//! bytes, so this module writes JSON strings and floats the way Python does.
//!
//! **Invariant:** no clock and no I/O; the caller says what time it is.

use std::fmt;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::domain::membership::Heartbeat;
use crate::domain::time::Timestamp;

/// SHA-256 works on blocks of this size; HMAC pads its key to one of them.
const BLOCK_BYTES: usize = 64;

/// Why a heartbeat's token was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Signed too long ago: it may have been overheard.
    #[error("membership timestamp is stale")]
    Stale,
    /// Signed for a time still to come: a clock is wrong, or the token was made for later.
    #[error("membership timestamp is in the future")]
    Future,
    /// No current secret makes this token.
    #[error("membership signature is invalid")]
    BadSignature,
}

/// Why there is no verifier: without a secret, or with an empty one, anybody could sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("membership needs at least one secret, and none may be empty")]
pub struct MissingSecret;

/// Believes heartbeats of one fleet entry's workers, or does not.
#[derive(Clone)]
pub struct MembershipVerifier {
    secrets: Vec<Vec<u8>>,
    max_age: Duration,
}

impl MembershipVerifier {
    /// All `secrets` are good, which is how they are rotated; a timestamp may differ from our
    /// clock by `max_age`, either way.
    ///
    /// # Errors
    /// Without a secret, or with an empty one.
    pub fn new(secrets: Vec<Vec<u8>>, max_age: Duration) -> Result<Self, MissingSecret> {
        if secrets.is_empty() || secrets.iter().any(Vec::is_empty) {
            return Err(MissingSecret);
        }
        Ok(Self { secrets, max_age })
    }

    /// Checks freshness, then the token against every secret, in time that depends on neither.
    ///
    /// # Errors
    /// The first of the two that does not hold.
    pub fn verify(&self, heartbeat: &Heartbeat, now: Timestamp) -> Result<(), Rejection> {
        let age_seconds = now.as_seconds() - heartbeat.timestamp_seconds;
        let age_seconds_max = self.max_age.as_secs_f64();
        if age_seconds.is_nan() || age_seconds > age_seconds_max {
            return Err(Rejection::Stale);
        }
        if age_seconds < -age_seconds_max {
            return Err(Rejection::Future);
        }
        let mut any = Choice::from(0);
        for secret in &self.secrets {
            let token = sign_membership(
                heartbeat.version.as_str(),
                &heartbeat.worker_id,
                heartbeat.timestamp_seconds,
                secret,
            );
            any |= token.as_bytes().ct_eq(heartbeat.token.as_bytes());
        }
        if bool::from(any) { Ok(()) } else { Err(Rejection::BadSignature) }
    }
}

impl fmt::Debug for MembershipVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MembershipVerifier")
            .field("secrets", &self.secrets.len())
            .field("max_age", &self.max_age)
            .finish()
    }
}

/// Makes the token: lower-case hex. `timestamp` is in seconds since the Unix epoch, `secret` is
/// the shared secret's UTF-8.
#[must_use]
pub fn sign_membership(version: &str, worker_id: &str, timestamp: f64, secret: &[u8]) -> String {
    let mut message = String::from("[");
    for part in [version, worker_id, &python_repr(timestamp)] {
        if message.len() > 1 {
            message.push(',');
        }
        push_json_ascii(&mut message, part);
    }
    message.push(']');

    // HMAC's own rule for a key's length (RFC 2104), applied here so that making the key cannot
    // fail: a long key is hashed, a short one padded with zeros.
    let mut key = [0; BLOCK_BYTES];
    let hashed = Sha256::digest(secret);
    let short = if secret.len() > BLOCK_BYTES { hashed.as_slice() } else { secret };
    for (place, byte) in key.iter_mut().zip(short) {
        *place = *byte;
    }
    let mut mac = Hmac::<Sha256>::new(&key.into());
    mac.update(message.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// Writes a float as Python's `repr` does: the fewest digits that read back as the same float,
/// with an exponent below 1e-4 and from 1e16 on.
#[must_use]
pub fn python_repr(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let shortest = format!("{value:e}");
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let decimals = digits.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    if (-4..16).contains(&exponent) {
        let decimals = i32::try_from(decimals).unwrap_or(0).saturating_sub(exponent);
        let decimals = usize::try_from(decimals).unwrap_or(0).max(1);
        return even_of(format!("{value:.decimals$}"), format!("{value:?}"), value);
    }
    let scientific = even_of(format!("{value:.decimals$e}"), shortest, value);
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// Of two texts as short and as near to the value, Python takes the one with an even last digit,
/// Rust's shortest form the larger: -1113178120592002.25 ends in `.2` there and in `.3` here.
/// Rust's rounding to a number of digits does as Python does, but near a power of two its text may
/// be that of the neighbour.
fn even_of(rounded: String, shortest: String, value: f64) -> String {
    let same = |read: f64| read.to_bits() == value.to_bits();
    if rounded.parse().is_ok_and(same) { rounded } else { shortest }
}

/// Appends `text` as Python's `json.dumps` writes a string with `ensure_ascii`.
fn push_json_ascii(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    out.extend(format!("\\u{unit:04x}").chars());
                }
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Made by `openrtc.core.membership.sign_membership`, openrtc 0.20.1; the timestamps as
    /// Python's `repr` writes them.
    const SIGNED_BY_OPENRTC: &str = include_str!("../tests/vectors/membership.json");

    #[test]
    fn tokens_are_those_openrtc_makes() {
        let vectors: Vec<BTreeMap<String, String>> =
            serde_json::from_str(SIGNED_BY_OPENRTC).unwrap();
        assert!(vectors.len() >= 12);
        for vector in vectors {
            let timestamp: f64 = vector["timestamp"].parse().unwrap();
            assert_eq!(python_repr(timestamp), vector["timestamp"]);
            let secret = vector["secret"].as_bytes();
            let ours = sign_membership(&vector["version"], &vector["worker_id"], timestamp, secret);
            assert_eq!(ours, vector["token"], "{vector:?}");
        }
    }

    #[test]
    fn floats_are_written_as_python_writes_them() {
        #[rustfmt::skip]
        let cases = [
            (0.0, "0.0"), (-0.0, "-0.0"), (1.5, "1.5"), (-1.5, "-1.5"), (100.0, "100.0"),
            (1_700_000_000.0, "1700000000.0"), (1_753_000_000.123_456, "1753000000.123456"),
            (1e15, "1000000000000000.0"), (9_999_999_999_999_998.0, "9999999999999998.0"),
            (1e16, "1e+16"), (1.25e17, "1.25e+17"), (1e22, "1e+22"), (1e100, "1e+100"),
            (1e-4, "0.0001"), (0.000_123, "0.000123"), (1e-5, "1e-05"), (1.5e-7, "1.5e-07"),
            (5e-324, "5e-324"), (f64::MAX, "1.7976931348623157e+308"),
            (-1_113_178_120_592_002.0 - 0.25, "-1113178120592002.2"),
            (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf"), (f64::NAN, "nan"),
        ];
        for (value, want) in cases {
            assert_eq!(python_repr(value), want);
        }
    }

    fn heartbeat(timestamp_seconds: f64, secret: &str) -> Heartbeat {
        Heartbeat {
            fleet: "voice".to_owned(),
            worker_id: "w1".to_owned(),
            version: "v2".parse().unwrap(),
            draining: false,
            active_sessions: 0,
            timestamp_seconds,
            token: sign_membership("v2", "w1", timestamp_seconds, secret.as_bytes()),
        }
    }

    #[test]
    fn a_token_is_believed_while_fresh_and_under_any_current_secret() {
        let secrets = vec![b"old".to_vec(), b"new".to_vec()];
        let verifier = MembershipVerifier::new(secrets, Duration::from_mins(5)).unwrap();
        let now = Timestamp::from_millis(1_700_000_000_000);
        #[rustfmt::skip]
        let cases = [
            ("fresh",                    1_700_000_000.0, "new",   Ok(())),
            ("under the old secret",     1_700_000_000.0, "old",   Ok(())),
            ("as old as may be",         1_699_999_700.0, "new",   Ok(())),
            ("as far ahead as may be",   1_700_000_300.0, "new",   Ok(())),
            ("too old",                  1_699_999_699.9, "new",   Err(Rejection::Stale)),
            ("too far ahead",            1_700_000_300.1, "new",   Err(Rejection::Future)),
            ("no time at all",           f64::NAN,        "new",   Err(Rejection::Stale)),
            ("the end of time",          f64::INFINITY,   "new",   Err(Rejection::Future)),
            ("under another's secret",   1_700_000_000.0, "wrong", Err(Rejection::BadSignature)),
            ("both stale and not ours",  0.0,             "wrong", Err(Rejection::Stale)),
        ];
        for (name, timestamp, secret, want) in cases {
            assert_eq!(verifier.verify(&heartbeat(timestamp, secret), now), want, "{name}");
        }
    }

    #[test]
    fn a_token_speaks_for_one_worker_of_one_version_at_one_time() {
        let verifier =
            MembershipVerifier::new(vec![b"s".to_vec()], Duration::from_mins(5)).unwrap();
        let now = Timestamp::from_millis(1_700_000_000_000);
        let good = heartbeat(1_700_000_000.0, "s");
        let changed = [
            Heartbeat { version: "v3".parse().unwrap(), ..good.clone() },
            Heartbeat { worker_id: "w2".to_owned(), ..good.clone() },
            Heartbeat { timestamp_seconds: 1_700_000_001.0, ..good.clone() },
            Heartbeat { token: good.token.to_uppercase(), ..good.clone() },
            Heartbeat { token: good.token[..63].to_owned(), ..good.clone() },
            Heartbeat { token: String::new(), ..good.clone() },
        ];
        assert_eq!(verifier.verify(&good, now), Ok(()));
        for heartbeat in changed {
            assert_eq!(verifier.verify(&heartbeat, now), Err(Rejection::BadSignature));
        }
    }

    #[test]
    fn no_verifier_believes_an_empty_secret_or_shows_one() {
        let age = Duration::from_mins(5);
        assert_eq!(MembershipVerifier::new(vec![], age).err(), Some(MissingSecret));
        assert_eq!(MembershipVerifier::new(vec![vec![]], age).err(), Some(MissingSecret));
        let verifier = MembershipVerifier::new(vec![b"tell-nobody".to_vec()], age).unwrap();
        assert!(!format!("{verifier:?}").contains("116"), "{verifier:?}");
    }
}
