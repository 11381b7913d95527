//! Passwords and what is kept of them.
//!
//! Owns the wrapping that keeps a password out of logs and out of freed memory, and the three forms in
//! which a user's password may be known. Refuses to hash anything.

use std::fmt;

use zeroize::Zeroizing;

use super::{ScramVerifier, keys, md5};

/// A password. Wiped when dropped; `Debug` and `Display` show `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

/// What is known of a user's password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verifier {
    /// The password itself: serves every method, on both sides.
    Plain(Secret),
    /// `md5(password || user)`: serves md5 on both sides, and nothing else.
    Md5(md5::Digest),
    /// Serves SCRAM towards clients; towards servers only with a key that the client's login proved.
    Scram(ScramVerifier),
}

/// A text that begins as a SCRAM verifier, but is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("begins as a SCRAM verifier, but is not SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>")]
pub struct BadVerifier;

impl Secret {
    /// Wraps a password.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The password itself. Never log it, never format it into a message.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// PostgreSQL refuses empty passwords, so one never proves anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Verifier {
    /// Tells the forms apart as PostgreSQL does (`get_password_type`): a SCRAM verifier, `md5` and 32 lower
    /// case hexadecimal digits, or else the password itself. Unlike PostgreSQL it does not take a damaged
    /// SCRAM verifier for a password: that would only fail later and less clearly.
    pub fn parse(text: &str) -> Result<Self, BadVerifier> {
        if let Some(digest) = md5::Digest::parse(text) {
            return Ok(Self::Md5(digest));
        }
        if text.starts_with(keys::PREFIX) {
            return ScramVerifier::parse(text).map(Self::Scram).ok_or(BadVerifier);
        }
        Ok(Self::Plain(Secret::new(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_forms_apart() {
        let parse = |text: &str| Verifier::parse(text);
        assert!(matches!(parse("pencil"), Ok(Verifier::Plain(_))));
        assert!(matches!(parse("md5a2286e2058e8275f4419293789626063"), Ok(Verifier::Md5(_))));
        assert!(matches!(parse("md5A2286E2058E8275F4419293789626063"), Ok(Verifier::Plain(_))));
        assert!(matches!(parse("md5a2286e"), Ok(Verifier::Plain(_))));
        assert_eq!(parse("SCRAM-SHA-256$4096:abc"), Err(BadVerifier));
    }

    #[test]
    fn never_shows_passwords() {
        let secret = Secret::new("pencil");
        assert_eq!(
            format!("{secret} {secret:?} {:?}", Verifier::Plain(secret.clone())),
            "*** *** Plain(***)"
        );
    }
}
