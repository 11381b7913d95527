//! PostgreSQL's md5 method, both sides: `md5(hex(md5(password || user)) || salt)`.
//!
//! Owns the digest and the comparison. Refuses to judge whether md5 should be used: that is a setting.

use std::fmt::{self, Write};

use md5::{Digest as _, Md5};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{AuthError, Secret, random};

/// `md5(password || user)`: as good as the password wherever md5 is accepted, so it is kept as one.
#[derive(Clone, PartialEq, Eq)]
pub struct Digest(Zeroizing<[u8; 16]>);

/// The salt that a client was sent and must answer with. One exchange each.
#[derive(Debug)]
pub struct Challenge {
    salt: [u8; 4],
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Digest {
    /// The digest of a password; the user's name is its salt.
    pub fn of(user: &str, password: &Secret) -> Self {
        Self(Zeroizing::new(Md5::new().chain_update(password.expose()).chain_update(user).finalize().into()))
    }

    /// From `md5` and 32 lower case hexadecimal digits, as `pg_authid` has it.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("md5").filter(|digits| digits.len() == 32)?.as_bytes();
        let mut bytes = Zeroizing::new([0; 16]);
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair.iter().try_fold(0, |sum, &digit| Some(sum << 4 | nibble(digit)?))?;
        }
        Some(Self(bytes))
    }

    /// What a client answers to `salt`: the body of its PasswordMessage, without the closing zero.
    pub fn answer(&self, salt: [u8; 4]) -> Zeroizing<String> {
        let inner = hex(&self.0);
        let outer: [u8; 16] = Md5::new().chain_update(inner.as_bytes()).chain_update(salt).finalize().into();
        Zeroizing::new(format!("md5{}", *hex(&outer)))
    }
}

impl Challenge {
    /// With a random salt.
    pub fn new() -> Result<Self, AuthError> {
        Ok(Self { salt: random()? })
    }

    /// The salt of AuthenticationMD5Password.
    pub fn salt(&self) -> [u8; 4] {
        self.salt
    }

    /// Checks an answer, without its closing zero. A user without a digest, such as an unknown one, goes through the
    /// same exchange, and always fails.
    pub fn verify(self, digest: Option<Digest>, answer: &[u8]) -> Result<(), AuthError> {
        let digest = digest.ok_or(AuthError::Proof)?;
        let proven: bool = digest.answer(self.salt).as_bytes().ct_eq(answer).into();
        if proven { Ok(()) } else { Err(AuthError::Proof) }
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn hex(bytes: &[u8; 16]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(32));
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes any text");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_postgres() {
        // Made by PostgreSQL 15.18 for role `c`.
        let stored = Digest::parse("md5a2286e2058e8275f4419293789626063");
        assert_eq!(stored, Some(Digest::of("c", &Secret::new("pencil"))));
    }

    #[test]
    fn agrees_with_rust_postgres() {
        let answer = Digest::of("md5_user", &Secret::new("password")).answer([0x2a, 0x3d, 0x8f, 0xe0]);
        assert_eq!(*answer, "md562af4dd09bbb41884907a838a3233294");
    }

    #[test]
    fn verifies_only_the_right_answer() {
        let kept = Digest::of("c", &Secret::new("pencil"));
        let verify = |digest: Option<&Digest>, password: &str| {
            let challenge = Challenge { salt: *b"\x01\0\xff9" };
            let answer = Digest::of("c", &Secret::new(password)).answer(challenge.salt());
            challenge.verify(digest.cloned(), answer.as_bytes())
        };
        assert_eq!(verify(Some(&kept), "pencil"), Ok(()));
        assert_eq!(verify(Some(&kept), "Pencil"), Err(AuthError::Proof));
        assert_eq!(verify(None, "pencil"), Err(AuthError::Proof));
        let other = Digest::of("d", &Secret::new("pencil"));
        assert_eq!(verify(Some(&other), "pencil"), Err(AuthError::Proof));
    }
}
