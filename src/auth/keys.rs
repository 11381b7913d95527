//! SCRAM's keys (RFC 5802, section 3) and the verifier PostgreSQL keeps of them.
//!
//! Owns the arithmetic: Hi (PBKDF2), client, stored and server key, proof and signature. Refuses to know
//! of messages. [`ScramKeys::derive`] is the only call here that takes time (about 2 ms at 4096 rounds).

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{AuthError, Secret, prepare::prepare, random};

/// Bytes of every key, proof and signature: one SHA-256 digest.
pub const KEY_BYTES: usize = 32;
/// Bytes of a salt that is made here, as in PostgreSQL.
pub const SALT_BYTES: usize = 16;
/// Rounds for verifiers that are made here, as in PostgreSQL (`scram_iterations`).
pub const ITERATIONS_DEFAULT: u32 = 4096;
/// A server that asks for fewer may be somebody else who wants to guess the password.
pub const ITERATIONS_MIN: u32 = 4096;
/// More than this would keep a core busy for seconds; a server that asks for it is broken or hostile.
pub const ITERATIONS_MAX: u32 = 4_000_000;

/// A key of 32 bytes; wiped when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Zeroizing<[u8; KEY_BYTES]>);

/// What a client's own login proves that it has. Whoever holds it can log in to each server that keeps the
/// same verifier (same salt and iterations): this is how a client's identity is passed through upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientKey(pub(super) Key);

/// What a client needs to log in: its own key, and the server's for checking the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScramKeys {
    client_key: ClientKey,
    server_key: Key,
}

/// What a server keeps of a password: `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScramVerifier {
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: Key,
    pub(super) server_key: Key,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Key {
    pub(super) fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// HMAC-SHA-256 of `message`, keyed by this key.
    pub(super) fn sign(&self, message: &[u8]) -> Key {
        hmac(&*self.0, &[message])
    }

    fn digest(&self) -> Key {
        Key::new(Sha256::digest(*self.0).into())
    }

    pub(super) fn xor(&self, other: &Key) -> Key {
        let mut out = self.clone();
        out.0.iter_mut().zip(&*other.0).for_each(|(a, b)| *a ^= b);
        out
    }

    /// Equal, in a time that does not depend on where they differ.
    pub(super) fn matches(&self, other: &Key) -> bool {
        self.0.ct_eq(&*other.0).into()
    }

    pub(super) fn to_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    pub(super) fn to_base64(&self) -> String {
        BASE64.encode(*self.0)
    }

    pub(super) fn from_base64(text: &str) -> Option<Key> {
        Some(Key::new(Zeroizing::new(BASE64.decode(text).ok()?).as_slice().try_into().ok()?))
    }
}

impl ClientKey {
    /// `StoredKey`: what a verifier holds in place of this key.
    pub(super) fn stored_key(&self) -> Key {
        self.0.digest()
    }
}

impl ScramKeys {
    /// From a password. Costs about half a microsecond an iteration: run it off the session's thread, and
    /// cache it by (salt, iterations).
    pub fn derive(password: &Secret, salt: &[u8], iterations: u32) -> Self {
        let prepared = Zeroizing::new(prepare(password.expose()).into_owned());
        let salted = salted_password(prepared.as_bytes(), salt, iterations);
        Self { client_key: ClientKey(salted.sign(b"Client Key")), server_key: salted.sign(b"Server Key") }
    }

    /// From a client's login that was just proven against `verifier`.
    pub fn passed_through(client_key: ClientKey, verifier: &ScramVerifier) -> Self {
        Self { client_key, server_key: verifier.server_key.clone() }
    }

    /// Keys that open nothing: for a login that is to be refused by the server, in its own words.
    pub fn random() -> Result<Self, AuthError> {
        let [client_key, server_key] = [random::<KEY_BYTES>()?, random::<KEY_BYTES>()?].map(Key::new);
        Ok(Self { client_key: ClientKey(client_key), server_key })
    }

    pub(super) fn client_key(&self) -> &ClientKey {
        &self.client_key
    }

    pub(super) fn server_key(&self) -> &Key {
        &self.server_key
    }
}

impl ScramVerifier {
    /// From a password, with a random salt, as `ALTER ROLE .. PASSWORD` makes it. As slow as
    /// [`ScramKeys::derive`].
    pub fn from_password(password: &Secret) -> Result<Self, AuthError> {
        Ok(Self::with_salt(password, &random::<SALT_BYTES>()?, ITERATIONS_DEFAULT))
    }

    /// From a password and a given salt: the same verifier that a server with this salt keeps.
    pub fn with_salt(password: &Secret, salt: &[u8], iterations: u32) -> Self {
        let keys = ScramKeys::derive(password, salt, iterations);
        Self {
            iterations,
            salt: salt.to_vec(),
            stored_key: keys.client_key.stored_key(),
            server_key: keys.server_key,
        }
    }

    /// PostgreSQL's text form (`pg_authid.rolpassword`). `None` if it is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (count, keys) = text.strip_prefix(PREFIX)?.split_once('$')?;
        let (iterations, salt) = count.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let salt = BASE64.decode(salt).ok().filter(|salt| !salt.is_empty())?;
        Some(Self {
            iterations: iterations.parse().ok().filter(|n| (1..=ITERATIONS_MAX).contains(n))?,
            salt,
            stored_key: Key::from_base64(stored_key)?,
            server_key: Key::from_base64(server_key)?,
        })
    }

    /// The same form again.
    pub fn to_text(&self) -> String {
        format!(
            "{PREFIX}{}:{}${}:{}",
            self.iterations,
            BASE64.encode(&self.salt),
            self.stored_key.to_base64(),
            self.server_key.to_base64()
        )
    }

    /// The salt that the password was hashed with.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// How many rounds it was hashed.
    pub fn iterations(&self) -> u32 {
        self.iterations
    }
}

/// How the text form of a verifier begins.
pub(super) const PREFIX: &str = "SCRAM-SHA-256$";

/// HMAC-SHA-256 over the parts in a row.
pub(super) fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut mac = keyed(key);
    for part in parts {
        mac.update(part);
    }
    Key::new(mac.finalize().into_bytes().into())
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// `Hi` of RFC 5802: PBKDF2 with HMAC-SHA-256 and one block of output.
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> Key {
    // Keyed once; a copy costs less than hashing the key's two blocks again in each round.
    let mac = keyed(password);
    let round = |message: &[&[u8]]| {
        let mut mac = mac.clone();
        for part in message {
            mac.update(part);
        }
        Key::new(mac.finalize().into_bytes().into())
    };
    let mut last = round(&[salt, &1_u32.to_be_bytes()]);
    let mut sum = last.clone();
    for _ in 1..iterations {
        last = round(&[&*last.0]);
        sum = sum.xor(&last);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by PostgreSQL 15.18 (`SELECT rolpassword FROM pg_authid`).
    const FROM_POSTGRES: [(&str, &str); 3] = [
        (
            "pencil",
            "SCRAM-SHA-256$4096:pIq54kvYnoJ+VVQhBijAmA==$I6C8JuqY5j4chQ5I3BO8dELiNeYE2uxiR3lHzorycJM=:EHPQYLfUCLsC16ilWSUdwci/9JmfsiugKuez9+7I2YM=",
        ),
        (
            "pässwörd ①²",
            "SCRAM-SHA-256$4096:iwPLe9faIT/AuHY7Mx1Lyg==$+xiha9cQ0WaTRujzCKBzc0ZHxmr4NUHWMr1pKyi1pX4=:8ZMtp0rFAf3iucCp8JLQT+1kPBhJB0pR1FjPB3ZpIDw=",
        ),
        (
            "tab\there",
            "SCRAM-SHA-256$4096:1YXFteaV3kFU5dOFUI3rBg==$48MAnVNM0FlDf3PaZFZ32wvCst084NRo6Bu16m5SDCI=:DZbsCN1FGUZqmv0lpdJ69icrQg28WvJ2xWg60VjAUiQ=",
        ),
    ];

    #[test]
    fn makes_the_verifiers_that_postgres_makes() {
        for (password, text) in FROM_POSTGRES {
            let verifier = ScramVerifier::parse(text).expect("PostgreSQL made it");
            assert_eq!(verifier.to_text(), text);
            let ours = ScramVerifier::with_salt(&Secret::new(password), verifier.salt(), 4096);
            assert_eq!(ours, verifier, "{password:?}");
        }
    }

    #[test]
    fn refuses_texts_that_are_no_verifier() {
        let (_, good) = FROM_POSTGRES[0];
        let bad = [
            String::new(),
            "SCRAM-SHA-256$".to_owned(),
            good.replace("4096", "0"),
            good.replace("4096", "-1"),
            good.replace("4096", "4294967297"),
            good.replace("pIq54kvYnoJ+VVQhBijAmA==", ""),
            good.replace("pIq5", "p!q5"),
            good.replace("SHA-256", "SHA-512"),
            good.trim_end_matches('=').to_owned(),
            format!("{good}:x"),
        ];
        for text in bad {
            assert_eq!(ScramVerifier::parse(&text), None, "{text}");
        }
    }

    #[test]
    fn never_shows_keys() {
        let verifier = ScramVerifier::parse(FROM_POSTGRES[0].1).expect("PostgreSQL made it");
        let shown = format!("{verifier:?}");
        assert!(shown.contains("stored_key: ***, server_key: ***"), "{shown}");
    }
}
