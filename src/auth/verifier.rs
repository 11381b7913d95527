//! The three forms in which a user's password may be known.

use super::{ScramVerifier, Secret, keys, md5};

/// A user's password, in the form in which it is known.
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

    /// The digest for an md5 exchange; `None` if this verifier cannot serve one.
    pub fn md5_digest(&self, user: &str) -> Option<md5::Digest> {
        match self {
            Self::Plain(password) if password.is_empty() => None,
            Self::Plain(password) => Some(md5::Digest::of(user, password)),
            Self::Md5(digest) => Some(digest.clone()),
            Self::Scram(_) => None,
        }
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
    fn an_empty_password_and_a_scram_verifier_have_no_digest() {
        let digest = |text: &str| Verifier::parse(text).expect("a verifier").md5_digest("c");
        let known = digest("md5a2286e2058e8275f4419293789626063");
        assert!(known.is_some() && digest("pencil") == known);
        assert!(Verifier::Plain(Secret::new("")).md5_digest("c").is_none());
        let scram = ScramVerifier::with_salt(&Secret::new("pencil"), b"salt", 4096);
        assert!(Verifier::Scram(scram).md5_digest("c").is_none());
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
