//! Asking a client to prove who it is, by the method of the configuration.
//!
//! Who knocks learns nothing of which users there are: unknown ones go through the same exchange, what is derived from
//! a password is derived on another thread and not before the first answer, and every refusal comes at the same time
//! after the proof.

use std::sync::Arc;

use tokio::time::{Duration, Instant, sleep_until};

use super::{refused::Refused, stranger::Stranger};
use crate::{
    auth::{AuthError, ScramKeys, ScramVerifier, User, Verifier, md5, scram},
    session::reply,
    shared::{Snapshot, identities::Method},
    socket::Socket,
    wire::{message, read::Body},
};

/// A proof that fails is answered no sooner than this: far longer than any of the ways in which it can fail takes.
const REFUSED_AFTER: Duration = Duration::from_millis(50);

/// The length that stands for no data at all (SASLInitialResponse).
const NO_DATA: i32 = -1;

pub(super) async fn authenticate(
    stranger: &mut Stranger,
    snapshot: &Snapshot,
    user: &str,
) -> Result<(), Refused> {
    let identities = &snapshot.identities;
    let known = identities.users.get(user);
    let only_scram = known.is_some_and(|known| matches!(known.verifier(), Verifier::Scram(_)));
    match identities.method {
        Method::Trust if known.is_some() => Ok(()),
        Method::Trust => {
            stranger.why = Some("there is no such user".to_owned());
            Err(reply::authentication_failed(user).into())
        }
        Method::Md5 if !only_scram => check_md5(stranger, snapshot, user).await,
        Method::Md5 | Method::ScramSha256 => check_scram(stranger, snapshot, user).await,
    }
}

/// The refusal of a login that failed at `since`; the log says why.
async fn failed(
    stranger: &mut Stranger,
    user: &str,
    is_known: bool,
    error: AuthError,
    since: Instant,
) -> Refused {
    let why = if is_known { error.to_string() } else { "there is no such user".to_owned() };
    stranger.why = Some(why);
    sleep_until(since + REFUSED_AFTER).await;
    reply::authentication_failed(user).into()
}

async fn check_md5(stranger: &mut Stranger, snapshot: &Snapshot, user: &str) -> Result<(), Refused> {
    let known = snapshot.identities.users.get(user);
    let challenge = match md5::Challenge::new() {
        Ok(challenge) => challenge,
        Err(error) => return Err(failed(stranger, user, known.is_some(), error, Instant::now()).await),
    };
    let mut out = Vec::new();
    message::authentication(&mut out, 5, &challenge.salt());
    stranger.send(&out).await?;
    let body = stranger.password_message().await?;
    let since = Instant::now();
    let answer = body.strip_suffix(&[0]).unwrap_or(&body);
    match challenge.verify(known.and_then(|known| known.verifier().md5_digest(user)), answer) {
        Ok(()) => Ok(()),
        Err(error) => Err(failed(stranger, user, known.is_some(), error, since).await),
    }
}

async fn check_scram(stranger: &mut Stranger, snapshot: &Snapshot, user: &str) -> Result<(), Refused> {
    let identities = &snapshot.identities;
    let known = identities.users.get(user);
    let (first, channel) = first_message(stranger, snapshot).await?;
    let since = Instant::now();
    let server = identities.users.scram_server(user, &identities.mock).on(channel);
    let (challenge, text) = match server.first(&first) {
        Ok(begun) => begun,
        Err(error) => return Err(failed(stranger, user, known.is_some(), error, since).await),
    };
    let mut out = Vec::new();
    message::authentication(&mut out, 11, text.as_bytes());
    stranger.send(&out).await?;

    let last = stranger.password_message().await?;
    let since = Instant::now();
    let verifier = match known {
        Some(known) => derive(known, challenge.salt()).await,
        None => None,
    };
    let proven = match challenge.finish(&last, verifier.as_ref()) {
        Ok(proven) => proven,
        Err(error) => return Err(failed(stranger, user, known.is_some(), error, since).await),
    };
    if let Some(verifier) = &verifier {
        identities.set_proven(user, verifier, ScramKeys::passed_through(proven.client_key, verifier));
    }
    out.clear();
    message::authentication(&mut out, 12, proven.server_final.as_bytes());
    stranger.send(&out).await?;
    Ok(())
}

/// What a user is checked against; from a password it is derived once, on another thread.
async fn derive(user: &Arc<User>, salt: &[u8]) -> Option<ScramVerifier> {
    if let Some(ready) = user.scram_ready() {
        return Some(ready.clone());
    }
    let (user, salt) = (Arc::clone(user), salt.to_vec());
    tokio::task::spawn_blocking(move || user.scram(&salt).cloned()).await.ok().flatten()
}

/// Offers SCRAM, and takes the client's choice and its first message.
async fn first_message(
    stranger: &mut Stranger,
    snapshot: &Snapshot,
) -> Result<(Vec<u8>, scram::Channel), Refused> {
    // The certificate that the client sees is ours: a login can be bound to it.
    let end_point = match stranger.socket {
        Some(Socket::Tls(_)) => snapshot.acceptor.end_point(),
        _ => None,
    };
    let mut out = Vec::new();
    let plus = if end_point.is_some() { format!("{}\0", scram::MECHANISM_PLUS) } else { String::new() };
    message::authentication(&mut out, 10, format!("{plus}{}\0\0", scram::MECHANISM).as_bytes());
    stranger.send(&out).await?;

    let initial = stranger.password_message().await?;
    let (mechanism, data) = initial_response(&initial)
        .ok_or_else(|| reply::protocol_violation("malformed SASLInitialResponse message"))?;
    let channel = match end_point {
        Some(end_point) if mechanism == scram::MECHANISM_PLUS.as_bytes() => {
            scram::Channel::Bound(end_point.clone())
        }
        Some(_) if mechanism == scram::MECHANISM.as_bytes() => scram::Channel::Offered,
        None if mechanism == scram::MECHANISM.as_bytes() => scram::Channel::Plain,
        _ => {
            let what = "client selected an invalid SASL authentication mechanism";
            return Err(reply::protocol_violation(what).into());
        }
    };
    if let Some(data) = data {
        return Ok((data.to_vec(), channel));
    }
    // As in PostgreSQL, who has chosen without saying anything is asked to begin.
    out.clear();
    message::authentication(&mut out, 11, &[]);
    stranger.send(&out).await?;
    Ok((stranger.password_message().await?, channel))
}

/// The mechanism and the data of a SASLInitialResponse; `None` if its inner length is not that of what follows.
fn initial_response(body: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let mut body = Body::new(body, "SASLInitialResponse");
    let mechanism = body.cstring().ok()?;
    let data = match body.int32().ok()? {
        NO_DATA => None,
        count => Some(body.take(usize::try_from(count).ok()?).ok()?),
    };
    body.rest().is_empty().then_some((mechanism, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inner_length_must_be_that_of_the_data() {
        let with = |length: i32, data: &[u8]| [b"M\0", &length.to_be_bytes()[..], data].concat();
        assert_eq!(initial_response(&with(3, b"n,,")), Some((&b"M"[..], Some(&b"n,,"[..]))));
        assert_eq!(initial_response(&with(0, b"")), Some((&b"M"[..], Some(&b""[..]))));
        assert_eq!(initial_response(&with(-1, b"")), Some((&b"M"[..], None)));
        for (length, data) in [
            (4, &b"n,,"[..]),
            (2, b"n,,"),
            (-1, b"n,,"),
            (-2, b""),
            (i32::MIN, b"n,,"),
            (i32::MAX, b"n,,"),
            (1, b""),
        ] {
            assert_eq!(initial_response(&with(length, data)), None, "{length} {data:?}");
        }
        assert_eq!(initial_response(b"M\0\0\0"), None);
        assert_eq!(initial_response(b"M"), None);
    }
}
