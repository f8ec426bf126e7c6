//! Passwords as Postgres keeps them: made here, so that none is in a statement, which servers write to their logs.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::CryptoRng;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};

/// What Postgres keeps for a password, with a new salt. There are no quotes in it.
///
/// Iterations make guessing dear. Our passwords are 256 random bits, of which nobody guesses one: a single iteration is as
/// sound as any number, and a login costs half as much. That holds for such secrets only.
pub(super) fn verifier(password: &SecretString, iterations: NonZeroU32, rng: &mut impl CryptoRng) -> String {
    let mut salt = [0; 16];
    rng.fill_bytes(&mut salt);
    with_salt(password, iterations, salt)
}

/// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey` (RFC 5802 and 7677; `pg_authid.rolpassword` in Postgres' manual).
/// Our passwords are ASCII, which SASLprep leaves as it is.
fn with_salt(password: &SecretString, iterations: NonZeroU32, salt: [u8; 16]) -> String {
    let password = password.expose_secret().as_bytes();
    let mut block = mac(password, &[&salt, &1u32.to_be_bytes()]);
    let mut salted = block;
    for _ in 1..iterations.get() {
        block = mac(password, &[&block]);
        salted.iter_mut().zip(block).for_each(|(sum, byte)| *sum ^= byte);
    }
    let stored = Sha256::digest(mac(&salted, &[b"Client Key"]));
    let server = mac(&salted, &[b"Server Key"]);
    let [salt, stored, server] = [&salt[..], &stored[..], &server[..]].map(|bytes| STANDARD.encode(bytes));
    format!("SCRAM-SHA-256${iterations}:{salt}${stored}:{server}")
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    #[allow(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Password, salt and count are those of the example in RFC 7677; the keys are Postgres' own for them.
    #[test]
    fn a_verifier_is_what_postgres_would_keep() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap();
        assert_eq!(
            with_salt(&"pencil".to_owned().into(), NonZeroU32::new(4096).unwrap(), salt),
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
             wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }
}
