//! The side that proves: Bulkhead towards a server.
//!
//! Owns the order of the exchange and the check that the server knows the password too. Refuses to derive
//! keys: between [`Client::challenge`] and [`Challenge::answer`] the caller looks them up or derives them.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use super::{Attributes, AuthError, Binding, nonce, text};
use crate::auth::{
    ScramKeys, ScramVerifier,
    keys::{ITERATIONS_MAX, ITERATIONS_MIN, Key},
};

/// The client-first-message is sent.
#[derive(Debug)]
pub struct Client {
    binding: Binding,
    nonce: String,
    bare: String,
}

/// The server has said with which salt it keeps the password.
#[derive(Debug)]
pub struct Challenge {
    salt: Vec<u8>,
    iterations: u32,
    unproven: String,
    /// All that both sides sign.
    signed: String,
}

/// The proof is sent; the server must now give its own.
#[derive(Debug)]
pub struct Sent {
    expected: Key,
}

impl Client {
    /// Begins; the text is the data of SASLInitialResponse.
    pub fn start(binding: Binding) -> Result<(Self, String), AuthError> {
        Ok(Self::with_nonce(binding, "", nonce()?))
    }

    fn with_nonce(binding: Binding, user: &str, nonce: String) -> (Self, String) {
        let bare = format!("n={user},r={nonce}");
        let first = format!("{}{bare}", binding.header());
        (Self { binding, nonce, bare }, first)
    }

    /// Takes the server-first-message (body of AuthenticationSASLContinue).
    pub fn challenge(self, message: &[u8]) -> Result<Challenge, AuthError> {
        let message = text(message)?;
        let mut attributes = Attributes::new(message);
        let nonce = attributes.take('r', "no nonce")?;
        // The server must have added something: else it could replay an old exchange.
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(AuthError::Nonce);
        }
        let salt = attributes.take('s', "no salt")?;
        let iterations = attributes.take('i', "no iteration count")?;
        attributes.ignore_extensions()?;

        let salt = BASE64.decode(salt).map_err(|_| AuthError::Malformed("the salt is not base64"))?;
        let iterations =
            iterations.parse().map_err(|_| AuthError::Malformed("the iteration count is no number"))?;
        if !(1..=ITERATIONS_MAX).contains(&iterations) {
            return Err(AuthError::Iterations);
        }
        let unproven = format!("c={},r={nonce}", self.binding.repeated());
        let signed = format!("{},{message},{unproven}", self.bare);
        Ok(Challenge { salt, iterations, unproven, signed })
    }
}

impl Challenge {
    /// The salt to derive the keys with.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// The rounds to derive the keys with; bounded by [`ITERATIONS_MAX`].
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// Refuses iterations so few that whoever sees the proof could guess the password from it.
    pub fn check_iterations(&self) -> Result<(), AuthError> {
        if self.iterations < ITERATIONS_MIN { Err(AuthError::FewIterations) } else { Ok(()) }
    }

    /// Whether the server keeps a password as `verifier` does, so that a key proven against the verifier
    /// opens this server as well.
    pub fn fits(&self, verifier: &ScramVerifier) -> bool {
        self.salt == verifier.salt && self.iterations == verifier.iterations
    }

    /// Proves; the text is the body of SASLResponse.
    pub fn answer(self, keys: &ScramKeys) -> (Sent, String) {
        let signed = self.signed.as_bytes();
        let signature = keys.client_key().stored_key().sign(signed);
        let proof = keys.client_key().0.xor(&signature).to_base64();
        (Sent { expected: keys.server_key().sign(signed) }, format!("{},p={proof}", self.unproven))
    }
}

impl Sent {
    /// Takes the server-final-message (body of AuthenticationSASLFinal). A server that skips it has proven
    /// nothing: the caller must not take AuthenticationOk before.
    pub fn verify(self, message: &[u8]) -> Result<(), AuthError> {
        let mut attributes = Attributes::new(text(message)?);
        let signature = match attributes.next()? {
            Some(('v', signature)) => signature,
            Some(('e', _)) => return Err(AuthError::Refused),
            _ => return Err(AuthError::Malformed("no server signature")),
        };
        attributes.ignore_extensions()?;
        let signature =
            Key::from_base64(signature).ok_or(AuthError::Malformed("the signature is not 32 bytes"))?;
        if self.expected.matches(&signature) { Ok(()) } else { Err(AuthError::ServerSignature) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Secret;

    /// RFC 7677, section 3.
    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn started() -> (Client, String) {
        Client::with_nonce(Binding::Unsupported, "user", "rOprNGfwEbeRWgbNEkqO".to_owned())
    }

    fn sent() -> (Sent, String) {
        let challenge = started().0.challenge(SERVER_FIRST.as_bytes()).expect("of the RFC");
        let keys = ScramKeys::derive(&Secret::new("pencil"), challenge.salt(), challenge.iterations());
        challenge.answer(&keys)
    }

    #[test]
    fn follows_the_example_of_rfc_7677() {
        assert_eq!(started().1, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let (sent, answer) = sent();
        assert_eq!(
            answer,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert_eq!(sent.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Ok(()));
    }

    #[test]
    fn judges_challenges() {
        let cases = [
            (SERVER_FIRST.replace("r=rOpr", "r=xOpr"), Some(AuthError::Nonce)),
            (SERVER_FIRST.replace("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", ""), Some(AuthError::Nonce)),
            (SERVER_FIRST.replace("i=4096", "i=0"), Some(AuthError::Iterations)),
            (SERVER_FIRST.replace("i=4096", "i=4294967295"), Some(AuthError::Iterations)),
            (SERVER_FIRST.replace("i=4096", "i=4294967296"), None),
            (SERVER_FIRST.replace(",i=4096", ""), None),
            (SERVER_FIRST.replace("W22Z", "W2!Z"), None),
            (format!("m=x,{SERVER_FIRST}"), None),
            (String::new(), None),
        ];
        for (message, expected) in cases {
            let error = started().0.challenge(message.as_bytes()).expect_err(&message);
            match expected {
                Some(expected) => assert_eq!(error, expected, "{message}"),
                None => assert!(matches!(error, AuthError::Malformed(_)), "{message}: {error}"),
            }
        }
    }

    #[test]
    fn a_server_must_prove_itself() {
        let wrong = b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(sent().0.verify(wrong), Err(AuthError::ServerSignature));
        assert_eq!(sent().0.verify(b"e=other-error"), Err(AuthError::Refused));
        assert!(matches!(sent().0.verify(b"v=AAAA"), Err(AuthError::Malformed(_))));
        assert!(matches!(sent().0.verify(b""), Err(AuthError::Malformed(_))));
    }
}
