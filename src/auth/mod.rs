//! Authentication, both sides: what a client must prove to Bulkhead, and what Bulkhead proves to a server.
//!
//! Owns passwords, verifiers, the users' file and the exchanges (SCRAM-SHA-256 and md5) as state machines
//! over message bodies. Refuses to know about sockets, message framing or configuration: `session` and
//! `backend` carry the bytes. Whatever costs more than some microseconds (PBKDF2) is a call of its own, so
//! that the caller can move it off the session's thread and cache it.
//!
//! ```text
//! client                 session                    auth::scram            server
//!   client-first  ->  Server::first        ...   Client::start     ->  client-first
//!   server-first  <-  (Challenge, text)          Client::challenge <-  server-first
//!   client-final  ->  Challenge::finish          Challenge::answer ->  client-final
//!   server-final  <-  Proven                     Sent::verify      <-  server-final
//! ```

pub mod keys;
pub mod md5;
mod prepare;
pub mod require;
pub mod scram;
pub mod secret;
pub mod tls;
pub mod users;
mod verifier;

use keys::ITERATIONS_MIN;
pub use keys::{ClientKey, ScramKeys, ScramVerifier};
pub use require::{Asked, RequireAuth};
pub use secret::Secret;
pub use users::{User, Users};
pub use verifier::Verifier;

/// Why an exchange ended without proof.
///
/// None of them is retryable with the same input. The texts are for the log: a client is told only that
/// authentication failed, because the difference between the causes would help whoever probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The message breaks the grammar of RFC 5802; says where.
    #[error("malformed authentication message: {0}")]
    Malformed(&'static str),
    /// What the client says of channel binding does not fit the mechanism that it chose, or what was offered.
    #[error("the client's channel binding does not fit what was offered and chosen")]
    ChannelBinding,
    /// The client says that it was not offered channel binding, but it was: somebody in between has changed the offer.
    #[error("the client was not shown the offer of channel binding: somebody in between has hidden it")]
    Downgrade,
    /// The client wants to act as another user than the one it proves to be.
    #[error("the client names an authorization identity, which is not supported")]
    AuthorizationIdentity,
    /// The other side answers to a nonce that is not of this exchange.
    #[error("the nonce does not belong to this exchange")]
    Nonce,
    /// The proof does not fit the verifier: wrong password, or no such user.
    #[error("the password does not match")]
    Proof,
    /// The server does not know the password either: it may not be the server it claims to be.
    #[error("the server failed to prove that it knows the password")]
    ServerSignature,
    /// The server ended the exchange with `e=`.
    #[error("the server refused the exchange")]
    Refused,
    /// An iteration count of zero, or one that would keep a core busy for seconds.
    #[error("the iteration count is out of bounds")]
    Iterations,
    /// A server's iteration count with which a password would be too easily guessed from the exchange.
    #[error(
        "the server asks for fewer than {ITERATIONS_MIN} iterations of SCRAM-SHA-256; set scram_iterations there, and \
         the password again"
    )]
    FewIterations,
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    Random,
}

/// Random bytes for nonces and salts.
fn random<const N: usize>() -> Result<[u8; N], AuthError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| AuthError::Random)?;
    Ok(bytes)
}
