//! Finding the host that a server is at, and logging in there.
//!
//! The host in use is tried first. Only if that one cannot be it any more are the others looked at, all at once; so a
//! host that has vanished costs those who come while nobody knows, and nobody afterwards. No host has all of the time
//! that there is, so that what is left is enough for another.

use std::{pin::Pin, sync::Arc, task::Poll, time::Duration};

use tokio::time::timeout;

use super::{
    Backend, Identity, Server, SessionAttrs,
    connect::{Sought, log_in},
    connect_error::ConnectError,
    in_use::{HostStanding, HostTurn},
    query::in_time,
};
use crate::{threads::Home, wire::message};

/// Two that look at the same time may choose differently; then one looks again.
const ATTEMPTS: usize = 3;

/// The timeline that a primary writes to, which stands in the names of the files that it writes.
pub(crate) const TIMELINE: &str = "CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN \
     pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END";

/// Reads what the server says to [`TIMELINE`].
pub(crate) fn read_timeline(text: Option<&str>) -> Option<u32> {
    u32::from_str_radix(text?, 16).ok()
}

/// The login to be made, and the thread that it is for.
#[derive(Clone, Copy, Debug)]
struct Login<'a> {
    server: &'a Arc<Server>,
    identity: &'a Arc<Identity>,
    home: Home,
}

/// A host that will do.
struct Found {
    standing: HostStanding,
    backend: Box<Backend>,
}

/// Connects and logs in, within `limit` as long as nothing needs a second look.
pub async fn connect(
    server: &Arc<Server>,
    identity: &Arc<Identity>,
    home: Home,
    limit: Duration,
) -> Result<Box<Backend>, ConnectError> {
    let login = Login { server, identity, home };
    let mut last = None;
    for wanted in server.session_attrs.passes().into_iter().flatten() {
        let found = match server.hosts.len() {
            1 => login.at(0, wanted, limit).await.map(|backend| placed(backend, server.in_use.turn())),
            _ => login.at_one(wanted, limit).await,
        };
        match found {
            Err(error) if error.is_of_host() => last = Some(error),
            other => return other,
        }
    }
    Err(last.expect("there is something to look for"))
}

/// Looks at the hosts that are not in use. The server goes over to one that beats the host in use; others that could be
/// it are remembered, and told of.
pub async fn look_around(server: &Arc<Server>, identity: &Arc<Identity>, limit: Duration) {
    let in_use = &server.in_use;
    let (turn, Some(chosen)) = (in_use.turn(), in_use.chosen()) else { return };
    let attrs = server.session_attrs;
    if server.hosts.len() < 2 || !attrs.may_be_primary() {
        return;
    }
    let Some(wanted) = attrs.passes()[0] else { return };
    let login = Login { server, identity, home: Home(0) };
    let (found, _) = login.at_others(wanted, Some(chosen.host), limit).await;
    let mut rivals = Vec::new();
    let mut best = chosen;
    for Found { standing, backend } in found {
        say_goodbye(backend);
        if standing.timeline.is_some() {
            rivals.push(standing);
        }
        if standing.beats(best, attrs) {
            best = standing;
        }
    }
    if best.host != chosen.host {
        login.choose(turn, best);
        rivals.retain(|rival| rival.host != best.host);
    }
    if chosen.timeline.is_none() {
        rivals.clear();
    }
    for rival in in_use.set_rivals(rivals) {
        let (host, in_use) = (&server.hosts[rival.host], &server.hosts[best.host]);
        tracing::error!(
            server = server.name, %host, timeline = rival.timeline, %in_use, in_use_timeline = best.timeline,
            "two hosts of a server take writes: only the one in use gets any, stop the other"
        );
    }
}

impl Login<'_> {
    /// Logs in at one host.
    async fn at(
        &self,
        host: usize,
        wanted: SessionAttrs,
        limit: Duration,
    ) -> Result<Box<Backend>, ConnectError> {
        let looked = Sought { host: &self.server.hosts[host], wanted };
        let attempt = timeout(limit, log_in(self.server, looked, self.identity, self.home)).await;
        let mut backend = attempt.unwrap_or(Err(ConnectError::TimedOut(limit)))?;
        backend.place.host = host;
        Ok(backend)
    }

    /// Logs in at the host in use, or finds another one. When another login has found one, this one goes over to it at
    /// once.
    async fn at_one(&self, wanted: SessionAttrs, limit: Duration) -> Result<Box<Backend>, ConnectError> {
        let in_use = &self.server.in_use;
        for _ in 0..ATTEMPTS {
            let moved = in_use.moved();
            let (turn, chosen) = (in_use.turn(), in_use.chosen());
            let found = tokio::select! {
                biased;
                found = self.in_turn(turn, chosen, wanted, limit) => found?,
                () = moved => None,
            };
            if let Some(backend) = found {
                return Ok(backend);
            }
        }
        Err(ConnectError::Unwanted("the hosts take turns at being what is looked for".to_owned()))
    }

    /// Logs in at the chosen host, or chooses another one; `None` if somebody else has chosen one since this turn began.
    async fn in_turn(
        &self,
        turn: u32,
        chosen: Option<HostStanding>,
        wanted: SessionAttrs,
        limit: Duration,
    ) -> Result<Option<Box<Backend>>, ConnectError> {
        let share = limit / (self.server.hosts.len() as u32 + 1);
        let mut failure = None;
        if let Some(chosen) = chosen {
            match self.at(chosen.host, wanted, share).await {
                Err(error) if error.is_of_host() => failure = Some(error),
                other => return other.map(|backend| Some(placed(backend, turn))),
            }
        }
        let (found, error) = self.at_others(wanted, chosen.map(|chosen| chosen.host), share).await;
        let Some(best) = best(found, self.server.session_attrs) else {
            let error = error.filter(|error| !error.is_of_host()).or(failure);
            return match (error, chosen) {
                // Slow is not gone: without anything else there is all the time for it.
                (Some(ConnectError::TimedOut(_)), Some(chosen)) => {
                    let backend = self.at(chosen.host, wanted, limit).await?;
                    Ok(Some(placed(backend, turn)))
                }
                (Some(error), _) => Err(error),
                (None, _) => self.at_each(wanted, limit).await.map(Some),
            };
        };
        if let Some(newer) = self.server.in_use.newer_than(best.standing) {
            let error = self.too_old(best.standing, newer);
            say_goodbye(best.backend);
            return Err(error);
        }
        let Some(turn) = self.choose(turn, best.standing) else {
            say_goodbye(best.backend);
            return Ok(None);
        };
        Ok(Some(placed(best.backend, turn)))
    }

    /// Tries the hosts as libpq does: one after the other, each with all the time that there is.
    async fn at_each(&self, wanted: SessionAttrs, limit: Duration) -> Result<Box<Backend>, ConnectError> {
        let mut last = None;
        for host in 0..self.server.hosts.len() {
            let turn = self.server.in_use.turn();
            match self.at(host, wanted, limit).await {
                Err(error) if error.is_of_host() => last = Some(error),
                Err(error) => return Err(error),
                Ok(mut backend) => {
                    let standing = standing(&mut backend, limit).await;
                    let turn = self.choose(turn, standing).unwrap_or(turn);
                    return Ok(placed(backend, turn));
                }
            }
        }
        Err(last.expect("a server has a host"))
    }

    /// Logs in at all hosts but one at the same time. Returns those that will do, and an error of one that will not; one
    /// that concerns all hosts if there is one.
    async fn at_others(
        &self,
        wanted: SessionAttrs,
        but: Option<usize>,
        share: Duration,
    ) -> (Vec<Found>, Option<ConnectError>) {
        let others = (0..self.server.hosts.len()).filter(|host| Some(*host) != but);
        let logins = others.map(|host| {
            Box::pin(async move {
                let mut backend = self.at(host, wanted, share).await?;
                let standing = standing(&mut backend, share).await;
                Ok::<_, ConnectError>(Found { standing, backend })
            })
        });
        let (mut all, mut last) = (Vec::new(), None);
        for outcome in together(logins.collect()).await {
            match outcome {
                Ok(found) => all.push(found),
                Err(error) if !error.is_of_host() => last = Some(error),
                Err(error) => last = last.or(Some(error)),
            }
        }
        (all, last)
    }

    /// The server is at this host from now on, unless somebody else has chosen since.
    fn choose(&self, turn: u32, standing: HostStanding) -> Option<u32> {
        let in_use = &self.server.in_use;
        let before = in_use.chosen();
        let chosen = in_use.choose(turn, standing)?;
        if let Some(before) = before.filter(|before| before.host != standing.host) {
            let name = |at: usize| &self.server.hosts[at];
            tracing::warn!(
                server = self.server.name,
                from = %name(before.host),
                to = %name(standing.host),
                timeline = standing.timeline,
                "the server is at another host now; connections to the one before are closed"
            );
            self.server.numbers.moved.notify_one();
        }
        Some(chosen)
    }

    /// A host that would undo what was committed at another one.
    fn too_old(&self, found: HostStanding, known: HostStanding) -> ConnectError {
        let name = |at: usize| &self.server.hosts[at];
        ConnectError::Unwanted(format!(
            "{} is on timeline {}, but {}, which was in use, is on timeline {}: it lacks what was committed there; if that \
             is meant, take {} out of the URL",
            name(found.host),
            found.timeline.unwrap_or_default(),
            name(known.host),
            known.timeline.unwrap_or_default(),
            name(known.host),
        ))
    }
}

fn placed(mut backend: Box<Backend>, turn: u32) -> Box<Backend> {
    backend.place = HostTurn { turn, ..backend.place };
    backend
}

/// Asks a host for its timeline.
async fn standing(backend: &mut Backend, limit: Duration) -> HostStanding {
    let host = backend.place.host;
    if !backend.server.session_attrs.may_be_primary() {
        return HostStanding { host, timeline: None };
    }
    let server = Arc::clone(&backend.server);
    let asked = in_time(limit, &server, backend.ask(&format!("SELECT {TIMELINE}"))).await;
    let answer = asked.ok().and_then(|answer| answer.rows.into_iter().flatten().next());
    HostStanding { host, timeline: read_timeline(answer.flatten().as_deref()) }
}

/// The one that is to be used: of equals the first. The others are closed.
fn best(found: Vec<Found>, attrs: SessionAttrs) -> Option<Found> {
    let mut best: Option<Found> = None;
    for other in found {
        best = match best.take() {
            Some(one) if !other.standing.beats(one.standing, attrs) => {
                say_goodbye(other.backend);
                Some(one)
            }
            Some(one) => {
                say_goodbye(one.backend);
                Some(other)
            }
            None => Some(other),
        };
    }
    best
}

fn say_goodbye(mut backend: Box<Backend>) {
    // It is closed all the same.
    let _ = backend.socket.send_now(&message::TERMINATE);
}

/// Waits for all of them, which are few. Their outcomes come in their order.
pub(crate) async fn together<F: Future + Unpin>(mut all: Vec<F>) -> Vec<F::Output> {
    let mut outcomes: Vec<Option<F::Output>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, outcome) in all.iter_mut().zip(&mut outcomes).filter(|(_, outcome)| outcome.is_none()) {
            if let Poll::Ready(ready) = Pin::new(future).poll(cx) {
                *outcome = Some(ready);
            }
        }
        if outcomes.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outcomes.into_iter().flatten().collect()
}
