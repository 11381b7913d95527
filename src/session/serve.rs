//! The journey of a request:
//!
//! ```text
//! next_request -> classify -> answers -> target -> checkout -> send -> relay -> settle
//! ```
//!
//! A session in a transaction, pinned, or between a Flush and its Sync holds its lease and skips admission and
//! checkout. Whatever ends the session in between drops its lease, and with it the backend. What is rare is boxed:
//! the size of this journey is memory that every idle client pays for.

use super::{Ended, Session, Stop, request::End};
use crate::route::Target;

/// Serves a session to its end, and says goodbye.
pub(crate) async fn run(session: &mut Session) {
    let ended = serve(session).await;
    Box::pin(session.end(ended)).await;
}

/// Serves a client until it goes, breaks the protocol, or Bulkhead goes down.
async fn serve(session: &mut Session) -> Ended {
    session.wake_on_shutdown().await;
    loop {
        if session.has_parts()
            && let Err(ended) = Box::pin(session.go_on_with_parts()).await
        {
            return ended;
        }
        if let Err(ended) = serve_one(session).await {
            return ended;
        }
    }
}

async fn serve_one(session: &mut Session) -> Result<(), Ended> {
    let request = session.next_request().await?;
    session.note_arrival();
    match request.end {
        End::Terminate => return Err(Ended::ByClient),
        end if end == End::StrayCopy || session.skips(request) => {
            return Box::pin(session.drop_request(request)).await;
        }
        _ => {}
    }
    let judged_at = session.view.catalog.changes();
    let mut demand = session.as_part(session.judge().classify(request).await?);
    if session.awaits_catalog(request, &demand) {
        demand = Box::pin(session.judge_anew(request)).await?;
    }
    session.note_only_reads(&demand);
    if session.takes_apart(request, &demand)? || session.answers(request, &demand)? {
        return if session.hold.across.is_some() { Box::pin(session.settle_across()).await } else { Ok(()) };
    }
    // What is refused from here on was not sent. A block and not a function, whose arguments would be kept twice.
    let served = async {
        session.hold.transaction.check()?;
        if session.awaits_outbox(&demand) {
            Box::pin(session.wait_for_outbox()).await?;
        }
        match session.target(request, &demand) {
            Target::Nowhere(why) => return Err(session.misplaced(why, request, &demand).into()),
            Target::Across(pool) => Box::pin(session.go_across(request, &demand, judged_at, pool)).await?,
            Target::Onward(pool) => Box::pin(session.go_onward(request, &demand, judged_at, pool)).await?,
            Target::Held => session.held().stays(&demand),
            Target::Pool(pool) => {
                let pool = session.fresh_pool(&demand, pool).await?;
                session.checkout(request, &demand, judged_at, pool).await?;
                session.held().note_reading(&demand);
            }
        }
        if session.defines(&demand) {
            Box::pin(session.prepare_definition(request, &demand, judged_at)).await?;
        }
        if session.listens(&demand) {
            Box::pin(session.prepare_listening(request, &demand)).await?;
        }
        if session.held().shows_others(request, &demand) {
            Box::pin(session.hide_others()).await?;
        }
        if session.held().localizes(request) {
            Box::pin(session.held().check_types(request)).await?;
        }
        session.held().count(request, &demand);
        session.send(request, &demand)?;
        if demand.wants_database() {
            Box::pin(session.relay_leaving()).await?;
        } else {
            session.relay().await?;
        }
        session.settle().await?;
        session.saw(&demand);
        session.worked(&demand);
        session.took(&demand);
        Ok(())
    };
    let reply = match served.await {
        Ok(()) => return Ok(()),
        Err(Stop::Ended(ended)) => return Err(ended),
        Err(Stop::Refused(reply)) => reply,
    };
    session.took_in_vain(&demand);
    Box::pin(session.refuse(request, reply)).await
}
