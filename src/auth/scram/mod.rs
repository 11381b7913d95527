//! SCRAM-SHA-256 (RFC 5802, RFC 7677) as PostgreSQL speaks it.
//!
//! Owns the messages and their order: each step consumes the state before it, so that no message can be
//! taken twice or out of turn. Refuses to hash passwords ([`super::ScramKeys::derive`] does). The user's
//! name inside the messages is ignored and sent empty, as in PostgreSQL: the startup packet names the user.
//!
//! Channel binding (SCRAM-SHA-256-PLUS) ties the exchange to the server's certificate, of the type
//! `tls-server-end-point`: whoever sits in between with another certificate cannot pass the messages on.

mod client;
mod server;

pub use client::{Challenge as ClientChallenge, Client, Sent};
pub use server::{Challenge as ServerChallenge, Channel, MockKey, Proven, Server};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use super::{AuthError, random, tls::EndPoint};

/// The mechanism's name in AuthenticationSASL and SASLInitialResponse.
pub const MECHANISM: &str = "SCRAM-SHA-256";
/// The same with channel binding; only over TLS.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// Messages are some hundred bytes; longer ones are refused unread.
pub const MESSAGE_BYTES_MAX: usize = 8192;
/// Random bytes of a nonce, as in PostgreSQL.
const NONCE_BYTES: usize = 18;

/// What a client says of channel binding in its first message (the gs2 header).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// `n`: the client cannot, or does not want to.
    Unsupported,
    /// `y`: the client can, but was not offered it. Right, as long as it is not offered.
    NotOffered,
    /// `p`: the exchange is bound to this certificate.
    EndPoint(EndPoint),
}

impl Binding {
    fn header(&self) -> &'static str {
        match self {
            Self::Unsupported => "n,,",
            Self::NotOffered => "y,,",
            Self::EndPoint(_) => "p=tls-server-end-point,,",
        }
    }

    /// The gs2 header and the binding data, in base64, as the client must give them in its last message.
    fn repeated(&self) -> String {
        let mut bytes = self.header().as_bytes().to_vec();
        if let Self::EndPoint(end_point) = self {
            bytes.extend_from_slice(end_point.bytes());
        }
        BASE64.encode(bytes)
    }
}

/// A fresh nonce: printable, without commas.
fn nonce() -> Result<String, AuthError> {
    Ok(BASE64.encode(random::<NONCE_BYTES>()?))
}

fn text(message: &[u8]) -> Result<&str, AuthError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(AuthError::Malformed("too long"));
    }
    std::str::from_utf8(message).map_err(|_| AuthError::Malformed("not UTF-8"))
}

/// The attributes of a message, `name=value` between commas, taken from the front.
struct Attributes<'a>(Option<&'a str>);

impl<'a> Attributes<'a> {
    fn new(message: &'a str) -> Self {
        Self(Some(message))
    }

    /// The next attribute's value, if it is the one called `name`.
    fn take(&mut self, name: char, missing: &'static str) -> Result<&'a str, AuthError> {
        match self.next()? {
            Some((found, value)) if found == name => Ok(value),
            _ => Err(AuthError::Malformed(missing)),
        }
    }

    fn next(&mut self) -> Result<Option<(char, &'a str)>, AuthError> {
        let Some(rest) = self.0 else { return Ok(None) };
        let (attribute, rest) = match rest.split_once(',') {
            Some((attribute, rest)) => (attribute, Some(rest)),
            None => (rest, None),
        };
        self.0 = rest;
        let mut chars = attribute.chars();
        match (chars.next(), chars.next()) {
            (Some(name), Some('=')) if name.is_ascii_alphabetic() => Ok(Some((name, chars.as_str()))),
            _ => Err(AuthError::Malformed("an attribute is not of the form name=value")),
        }
    }

    /// The rest may hold extensions, which are ignored; only their form is checked.
    fn ignore_extensions(mut self) -> Result<(), AuthError> {
        while self.next()?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::{ScramKeys, ScramVerifier, Secret};

    /// Both sides against each other; the iterations are few to keep the test quick.
    fn login(known: &str, typed: &str) -> Result<(), AuthError> {
        let verifier = ScramVerifier::with_salt(&Secret::new(known), b"salt", 2);
        let (client, first) = Client::start(Binding::Unsupported)?;
        let (server, challenge) = Server::new(&verifier).first(first.as_bytes())?;
        let client = client.challenge(challenge.as_bytes())?;
        let keys = ScramKeys::derive(&Secret::new(typed), client.salt(), client.iterations());
        let (client, answer) = client.answer(&keys);
        let proven = server.finish(answer.as_bytes(), Some(&verifier))?;
        client.verify(proven.server_final.as_bytes())?;

        // The proven key opens a second server that keeps the same verifier.
        let passed = ScramKeys::passed_through(proven.client_key, &verifier);
        assert_eq!(passed, keys);
        Ok(())
    }

    /// The server's view of the channel, and what the client says: does the login succeed?
    fn bound(channel: Channel, binding: Binding) -> Result<(), AuthError> {
        let verifier = ScramVerifier::with_salt(&Secret::new("x"), b"salt", 1);
        let keys = ScramKeys::derive(&Secret::new("x"), b"salt", 1);
        let (client, first) = Client::start(binding)?;
        let (server, challenge) = Server::new(&verifier).on(channel).first(first.as_bytes())?;
        let (client, answer) = client.challenge(challenge.as_bytes())?.answer(&keys);
        client.verify(server.finish(answer.as_bytes(), Some(&verifier))?.server_final.as_bytes())
    }

    #[test]
    fn a_login_is_bound_to_the_certificate_that_both_see() {
        let ours = EndPoint::from_bytes(&[1; 32]);
        let theirs = EndPoint::from_bytes(&[2; 32]);
        let binding = |end_point: &EndPoint| Binding::EndPoint(end_point.clone());
        assert_eq!(bound(Channel::Bound(ours.clone()), binding(&ours)), Ok(()));
        // Somebody in between shows another certificate.
        assert!(bound(Channel::Bound(ours.clone()), binding(&theirs)).is_err());
        // Somebody in between has taken SCRAM-SHA-256-PLUS off the list.
        assert_eq!(bound(Channel::Offered, Binding::NotOffered), Err(AuthError::Downgrade));
        assert_eq!(bound(Channel::Bound(ours.clone()), Binding::NotOffered), Err(AuthError::ChannelBinding));
        assert_eq!(bound(Channel::Bound(ours.clone()), Binding::Unsupported), Err(AuthError::ChannelBinding));
        assert_eq!(bound(Channel::Offered, binding(&ours)), Err(AuthError::ChannelBinding));
        assert_eq!(bound(Channel::Plain, binding(&ours)), Err(AuthError::ChannelBinding));
        // Who cannot is let in without it, as in PostgreSQL.
        assert_eq!(bound(Channel::Offered, Binding::Unsupported), Ok(()));
        assert_eq!(bound(Channel::Plain, Binding::NotOffered), Ok(()));
    }

    proptest! {
        #[test]
        fn the_right_password_logs_in(password in "\\PC{1,24}") {
            prop_assert_eq!(login(&password, &password), Ok(()));
        }

        #[test]
        fn another_password_does_not(a in "[a-z]{1,8}", b in "[A-Z]{1,8}") {
            prop_assert_eq!(login(&a, &b), Err(AuthError::Proof));
        }

        #[test]
        fn no_bytes_panic(a in proptest::collection::vec(any::<u8>(), 0..80), b in "[ -~]{0,80}") {
            let verifier = ScramVerifier::with_salt(&Secret::new("x"), b"salt", 1);
            for bytes in [a.as_slice(), b.as_bytes()] {
                let _ = Server::new(&verifier).first(bytes);
                let (server, _) = Server::new(&verifier).first(b"n,,n=,r=abc").expect("well-formed");
                prop_assert!(server.finish(bytes, Some(&verifier)).is_err());
                let (client, _) = Client::start(Binding::Unsupported).expect("randomness");
                prop_assert!(client.challenge(bytes).is_err());
            }
        }

        #[test]
        fn damaged_messages_never_log_in(at in 0_usize..200, byte in any::<u8>()) {
            let verifier = ScramVerifier::with_salt(&Secret::new("x"), b"salt", 1);
            let keys = ScramKeys::derive(&Secret::new("x"), b"salt", 1);
            let (client, first) = Client::start(Binding::Unsupported).expect("randomness");
            let (server, challenge) = Server::new(&verifier).first(first.as_bytes()).expect("well-formed");
            let (_, answer) = client.challenge(challenge.as_bytes()).expect("well-formed").answer(&keys);
            let mut damaged = answer.clone().into_bytes();
            let at = at % damaged.len();
            damaged[at] = byte;
            prop_assert_eq!(server.finish(&damaged, Some(&verifier)).is_ok(), damaged == answer.as_bytes());
        }
    }
}
