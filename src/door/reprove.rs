//! Proving a login at the server again (`auth.reprove_after`).
//!
//! What a client has proven to us says nothing of a role that the server no longer lets in: NOLOGIN, VALID UNTIL, another
//! password, REVOKE CONNECT. So a login whose last proof at the server is too old waits for a connection that logs in
//! there anew. At most one does so for each identity; whoever comes meanwhile shares its outcome.
//!
//! * The server refuses: so do we, with its own error, and the connections that had logged in before are closed, as far
//!   as they are idle; busy ones when they are given back.
//! * The server cannot be asked (unreachable, no answer, at its bound of connections): the client is let in. Whatever
//!   is down must not lock users out, and without a server they can do nothing.
//! * The pool has no place: the client is refused as a statement would be.

use std::{sync::Arc, time::Instant};

use crate::{
    backend::{Identity, proof::Outcome},
    pool::{Refusal, ServerPool},
    route::PoolId,
    session::reply::{self, Reply},
    shared::Snapshot,
    threads::Home,
    wire::read::ErrorFields,
};

/// SQLSTATE class of what is wrong with a user, whatever the database.
const INVALID_AUTHORIZATION: &str = "28";

/// Lets a login pass that its server has let in not long ago, or lets in now.
pub(super) async fn prove(
    snapshot: &Snapshot,
    identity: &Arc<Identity>,
    pool: PoolId,
    home: Home,
) -> Result<(), Reply> {
    let pool = snapshot.pool(pool);
    // Without a server that can be reached there is nobody to ask.
    let Some(member) = pool.choose() else { return Ok(()) };
    let (server, now) = (&member.server_name, Instant::now());
    if identity.proofs.is_proven(server, snapshot.identities.reprove_after, now) {
        return Ok(());
    }
    let _turn = identity.proofs.turn().await;
    let outcome = match identity.proofs.found_since(server, now) {
        Some(outcome) => outcome,
        None => ask(snapshot, identity, member, home).await,
    };
    match outcome {
        Outcome::Proven | Outcome::Unknown => Ok(()),
        Outcome::Refused(fields) => Err(Reply::from_server(&fields)),
        Outcome::NoPlace => {
            let (figures, waited) = (member.figures(), now.elapsed());
            Err(reply::refused(&pool.name, &Refusal::TimedOut { figures, waited, down: None, full: None }))
        }
    }
}

async fn ask(snapshot: &Snapshot, identity: &Arc<Identity>, member: &Arc<ServerPool>, home: Home) -> Outcome {
    let began = Instant::now();
    // The client is to be told before its time is over.
    let limit = member.limits().connect_timeout.min(snapshot.limits.login_timeout / 2);
    let outcome = member.prove(identity, home, limit).await;
    if let Outcome::Refused(fields) = &outcome {
        revoke(snapshot, identity, fields);
    }
    identity.proofs.note(&member.server_name, began, outcome.clone());
    outcome
}

fn revoke(snapshot: &Snapshot, identity: &Identity, refusal: &ErrorFields) {
    snapshot.identities.revoke(identity, refusal.code.starts_with(INVALID_AUTHORIZATION));
    snapshot.pools.iter().flat_map(|pool| &pool.members).for_each(ServerPool::close_outdated);
}
