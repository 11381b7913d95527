//! The journey of a request:
//!
//! ```text
//! next_request -> classify -> route -> admit -> checkout -> sync state -> relay -> settle
//! ```
//!
//! A session in a transaction, pinned, or between a Flush and its Sync holds its lease and skips admission and
//! checkout. Whatever ends the session in between drops its lease, and with it the backend. What is rare is boxed:
//! the size of this journey is memory that every idle client pays for.

use super::{Ended, Session, request::End};
use crate::{clock, route::Target};

/// Serves a client until it goes, breaks the protocol, or Bulkhead goes down.
pub(crate) async fn serve(session: &mut Session) -> Ended {
    session.wake_on_shutdown().await;
    loop {
        if let Err(ended) = serve_one(session).await {
            return ended;
        }
    }
}

async fn serve_one(session: &mut Session) -> Result<(), Ended> {
    let request = session.next_request().await?;
    let start = clock::last_tick();
    match request.end {
        End::Terminate => return Err(Ended::ByClient),
        End::StrayCopy => return Box::pin(session.drop_request(request)).await,
        _ => {}
    }
    if session.skips(request) {
        return Box::pin(session.drop_request(request)).await;
    }
    let demand = session.classify(request).await?;
    if session.answers(request, &demand)? {
        return Ok(());
    }
    if let Some(reply) = session.begun.failure() {
        return Box::pin(session.refuse(request, reply)).await;
    }
    match session.target(request, &demand) {
        Target::Torn => {
            let reply = session.torn(request);
            return Box::pin(session.refuse(request, reply)).await;
        }
        Target::Held => {}
        Target::Pool(pool) => {
            if let Err(reply) = session.checkout(request, &demand, pool).await? {
                return Box::pin(session.refuse(request, reply)).await;
            }
        }
    }
    if session.listens(&demand)
        && let Err(reply) = Box::pin(session.prepare_listening(request, &demand)).await
    {
        return Box::pin(session.refuse(request, reply)).await;
    }
    session.count(&demand);
    if let Err(reply) = session.send(request, &demand)? {
        return Box::pin(session.refuse(request, reply)).await;
    }
    session.relay().await?;
    session.settle().await?;
    session.took(&demand, start);
    Ok(())
}
