//! The side that asks: Bulkhead towards a client.
//!
//! Owns the order of the exchange and what unknown users are shown. Refuses to say why a proof failed.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use super::{Attributes, AuthError, Binding, nonce, text};
use crate::auth::{
    ClientKey, ScramVerifier, keys,
    keys::{ITERATIONS_DEFAULT, KEY_BYTES, Key, SALT_BYTES},
    random,
    tls::EndPoint,
};

/// What the client's messages come through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Channel {
    /// Nothing that a login could be bound to.
    #[default]
    Plain,
    /// Binding was offered, and the client has chosen to do without.
    Offered,
    /// The client has chosen to bind the login to this certificate.
    Bound(EndPoint),
}

/// Before the client's first message.
#[derive(Debug)]
pub struct Server {
    salt: Vec<u8>,
    iterations: u32,
    channel: Channel,
}

/// After it: the client must now prove that it knows the password.
#[derive(Debug)]
pub struct Challenge {
    salt: Vec<u8>,
    binding: Binding,
    nonce: String,
    /// `client-first-message-bare "," server-first-message`: the head of what both sides sign.
    signed: String,
}

/// A client that has proven itself.
#[derive(Clone, Debug)]
pub struct Proven {
    /// The body of AuthenticationSASLFinal.
    pub server_final: String,
    /// Lets Bulkhead log in upstream as this client; see [`crate::auth::ScramKeys::passed_through`].
    pub client_key: ClientKey,
}

/// Keys the salts that users without a verifier of their own are shown: the same salt for the same name as long as the process
/// lives (keep it across reloads), unrelated to the salt of any other name.
#[derive(Clone, Debug)]
pub struct MockKey(Key);

impl MockKey {
    /// A random one; make it once per process.
    pub fn random() -> Result<Self, AuthError> {
        Ok(Self(Key::new(random::<KEY_BYTES>()?)))
    }

    fn salt(&self, user: &str) -> Vec<u8> {
        let mut salt = self.0.sign(user.as_bytes()).to_bytes().to_vec();
        salt.truncate(SALT_BYTES);
        salt
    }
}

impl Server {
    /// For a user whose verifier is known.
    pub fn new(verifier: &ScramVerifier) -> Self {
        Self { salt: verifier.salt.clone(), iterations: verifier.iterations, channel: Channel::Plain }
    }

    /// For a user of whom the password itself is known, or who is unknown, or has no password that SCRAM could check:
    /// nobody can tell which.
    pub fn salted(user: &str, key: &MockKey) -> Self {
        Self { salt: key.salt(user), iterations: ITERATIONS_DEFAULT, channel: Channel::Plain }
    }

    /// What the messages come through, and the client's choice of a mechanism for it.
    #[must_use]
    pub fn on(self, channel: Channel) -> Self {
        Self { channel, ..self }
    }

    /// Takes the client-first-message; gives the server-first-message (body of AuthenticationSASLContinue).
    pub fn first(self, message: &[u8]) -> Result<(Challenge, String), AuthError> {
        let nonce = nonce()?;
        self.first_with_nonce(message, &nonce)
    }

    fn first_with_nonce(self, message: &[u8], own: &str) -> Result<(Challenge, String), AuthError> {
        let (binding, bare) = gs2_header(text(message)?, self.channel)?;
        let nonce = format!("{}{own}", client_nonce(bare)?);
        let salt = BASE64.encode(&self.salt);
        let server_first = format!("r={nonce},s={salt},i={}", self.iterations);
        let signed = format!("{bare},{server_first}");
        Ok((Challenge { salt: self.salt, binding, nonce, signed }, server_first))
    }
}

impl Challenge {
    /// The salt that the client was shown.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// Takes the client-final-message and judges it by a verifier with the salt that the client was shown. Without
    /// one the same is done, and it fails whatever the proof.
    pub fn finish(self, message: &[u8], verifier: Option<&ScramVerifier>) -> Result<Proven, AuthError> {
        let (unproven, proof) = text(message)?.rsplit_once(",p=").ok_or(AuthError::Malformed("no proof"))?;
        self.check_unproven(unproven)?;
        let proof = Key::from_base64(proof).ok_or(AuthError::Malformed("the proof is not 32 bytes"))?;

        let signed = format!("{},{unproven}", self.signed);
        let nobody = keys::hmac(&self.salt, &[]);
        let stored_key = verifier.map_or(&nobody, |verifier| &verifier.stored_key);
        let client_key = ClientKey(proof.xor(&stored_key.sign(signed.as_bytes())));
        let matches = client_key.stored_key().matches(stored_key);
        let verifier = verifier.filter(|_| matches).ok_or(AuthError::Proof)?;
        let signature = verifier.server_key.sign(signed.as_bytes());
        Ok(Proven { server_final: format!("v={}", signature.to_base64()), client_key })
    }

    /// All of the message but the proof: channel binding, nonce, extensions.
    fn check_unproven(&self, unproven: &str) -> Result<(), AuthError> {
        let mut attributes = Attributes::new(unproven);
        if attributes.take('c', "no channel binding data")? != self.binding.repeated() {
            return Err(AuthError::Malformed("the channel binding data is not the gs2 header"));
        }
        if attributes.take('r', "no nonce")? != self.nonce {
            return Err(AuthError::Nonce);
        }
        attributes.ignore_extensions()
    }
}

/// Splits `n,,`, `y,,` or `p=tls-server-end-point,,` off a client-first-message, and holds it against the channel.
fn gs2_header(message: &str, channel: Channel) -> Result<(Binding, &str), AuthError> {
    let (flag, rest) = message.split_once(',').ok_or(AuthError::Malformed("no gs2 header"))?;
    let binding = match (flag, channel) {
        ("p=tls-server-end-point", Channel::Bound(end_point)) => Binding::EndPoint(end_point),
        // Somebody has hidden the offer from the client.
        ("y", Channel::Offered) => return Err(AuthError::Downgrade),
        ("n", Channel::Plain | Channel::Offered) => Binding::Unsupported,
        ("y", Channel::Plain) => Binding::NotOffered,
        ("n" | "y", Channel::Bound(_)) => return Err(AuthError::ChannelBinding),
        _ if flag.starts_with("p=") => return Err(AuthError::ChannelBinding),
        _ => return Err(AuthError::Malformed("unknown channel binding flag")),
    };
    let (authorization, bare) = rest.split_once(',').ok_or(AuthError::Malformed("no gs2 header"))?;
    if !authorization.is_empty() {
        return Err(AuthError::AuthorizationIdentity);
    }
    Ok((binding, bare))
}

fn client_nonce(bare: &str) -> Result<&str, AuthError> {
    let mut attributes = Attributes::new(bare);
    // A mandatory extension (`m=`) would stand here; there is none, so it is refused as the RFC demands.
    attributes.take('n', "no user name")?;
    let nonce = attributes.take('r', "no nonce")?;
    attributes.ignore_extensions()?;
    if nonce.is_empty() || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(AuthError::Malformed("the nonce is not printable"));
    }
    Ok(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Secret;

    /// RFC 7677, section 3.
    const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
    const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn verifier() -> ScramVerifier {
        let salt = BASE64.decode(SALT).expect("of the RFC");
        ScramVerifier::with_salt(&Secret::new("pencil"), &salt, 4096)
    }

    fn challenged() -> (Challenge, String) {
        Server::new(&verifier()).first_with_nonce(FIRST, NONCE).expect("of the RFC")
    }

    #[test]
    fn follows_the_example_of_rfc_7677() {
        let (challenge, first) = challenged();
        assert_eq!(first, format!("r=rOprNGfwEbeRWgbNEkqO{NONCE},s={SALT},i=4096"));
        let proven = challenge.finish(FINAL.as_bytes(), Some(&verifier())).expect("of the RFC");
        assert_eq!(proven.server_final, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn judges_first_messages() {
        let malformed = [
            "",
            "n",
            "n,",
            "n,,",
            "x,,n=,r=a",
            "n,,n=",
            "n,,r=a",
            "n,,n=,r=",
            "n,,n=,r=a b",
            "n,,m=x,n=,r=a",
            "n,,n=,r=a,",
            "n,,n=,r=a,bc",
            "n,,n=,r=ä",
            "n,,n=,r=a\0",
        ];
        for message in malformed {
            let verifier = ScramVerifier::with_salt(&Secret::new("x"), b"salt", 1);
            let error = Server::new(&verifier).first(message.as_bytes()).expect_err(message);
            assert!(matches!(error, AuthError::Malformed(_)), "{message}: {error}");
        }
        let cases = [
            ("p=tls-server-end-point,,n=,r=a", AuthError::ChannelBinding),
            ("n,a=root,n=,r=a", AuthError::AuthorizationIdentity),
        ];
        for (message, expected) in cases {
            let verifier = ScramVerifier::with_salt(&Secret::new("x"), b"salt", 1);
            assert_eq!(Server::new(&verifier).first(message.as_bytes()).expect_err(message), expected);
        }
    }

    #[test]
    fn judges_final_messages() {
        let nonce = AuthError::Nonce;
        let cases = [
            (FINAL.replace("biws", "eSws"), None),
            (FINAL.replace("r=rOpr", "r=xOpr"), Some(nonce)),
            (FINAL.replace("k0,p=", ",p="), Some(nonce)),
            (FINAL.replace("dHzb", "eHzb"), Some(AuthError::Proof)),
            // An extension is part of what is signed, so it must not be added on the way.
            (FINAL.replace(",p=", ",x=1,p="), Some(AuthError::Proof)),
            (FINAL.replace('=', ""), None),
            (FINAL.replace(",p=", ",p=AAAA"), None),
            (format!("{FINAL},x=1"), None),
            ("p=".to_owned(), None),
            (",p=".to_owned(), None),
        ];
        let verifier = verifier();
        for (message, expected) in cases {
            let error = challenged().0.finish(message.as_bytes(), Some(&verifier)).expect_err(&message);
            match expected {
                Some(expected) => assert_eq!(error, expected, "{message}"),
                None => assert!(matches!(error, AuthError::Malformed(_)), "{message}: {error}"),
            }
        }
    }

    #[test]
    fn unknown_users_cannot_be_told_from_known_ones() {
        let key = MockKey::random().expect("randomness");
        let salt_of = |user| Server::salted(user, &key).salt;
        assert_eq!(salt_of("ann"), salt_of("ann"));
        assert_ne!(salt_of("ann"), salt_of("bob"));
        assert_eq!(salt_of("ann").len(), SALT_BYTES);

        let (mock, first) = Server::salted("ann", &key).first_with_nonce(FIRST, NONCE).expect("well-formed");
        let (_, real) = challenged();
        assert_eq!(first.len(), real.len());
        assert_eq!(mock.finish(FINAL.as_bytes(), None).expect_err("nobody"), AuthError::Proof);
        // Not even with the key that stands in for one that is not there.
        let (challenge, _) = challenged();
        assert_eq!(challenge.finish(FINAL.as_bytes(), None).expect_err("nobody"), AuthError::Proof);
    }
}
