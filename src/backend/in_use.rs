//! Which of its hosts a server is at: one at a time, and which one wins if several could be it.
//!
//! Every choice is a turn. A backend bears the turn in which it was connected; in another one it is of no use any more.
//! Pure but for a lock: `search` looks at the hosts.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use std::time::Duration;

use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};

use super::SessionAttrs;

/// The host in use, of one server.
#[derive(Debug, Default)]
pub struct InUse {
    state: Mutex<State>,
    /// Changes with the host, and when there is doubt about it.
    turn: AtomicU32,
    /// How often the server went over to another host.
    changes: AtomicU64,
    /// Wakes those who are still looking where it was before.
    moved: Notify,
}

#[derive(Debug, Default)]
struct State {
    chosen: Option<HostStanding>,
    /// Since when the host is in use.
    since: Option<Instant>,
    /// The latest timeline that was in use, and where.
    newest: Option<HostStanding>,
    /// Hosts that could be it as well, and get nothing.
    rivals: Vec<HostStanding>,
}

/// A host, and the timeline that it has told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostStanding {
    /// The position among the server's hosts.
    pub host: usize,
    /// The timeline that it writes to; `None` if it is in recovery, or does not tell.
    pub timeline: Option<u32>,
}

/// Where and when a backend was connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostTurn {
    /// The host's place among the server's hosts.
    pub host: usize,
    /// The turn.
    pub turn: u32,
}

impl HostStanding {
    /// Whether it is to be used rather than `other`, though that one would do. Of two that take writes, that is the one
    /// that was promoted later; where any host will do, a primary that stands before a standby in the URL.
    pub fn beats(self, other: Self, attrs: SessionAttrs) -> bool {
        if !attrs.may_be_primary() {
            return false;
        }
        match (self.timeline, other.timeline) {
            (Some(own), Some(others)) => own > others,
            (Some(_), None) => self.host < other.host,
            (None, _) => false,
        }
    }
}

impl State {
    fn note(&mut self, standing: HostStanding) {
        if standing.timeline > self.newest.and_then(|newest| newest.timeline) {
            self.newest = Some(standing);
        }
    }
}

impl InUse {
    /// Changes whenever backends that were connected before are of no use any more.
    pub fn turn(&self) -> u32 {
        self.turn.load(Ordering::Acquire)
    }

    /// The host in use, once there has been one.
    pub fn chosen(&self) -> Option<HostStanding> {
        self.lock().chosen
    }

    /// The position among the server's hosts.
    pub fn host(&self) -> Option<usize> {
        self.chosen().map(|standing| standing.host)
    }

    /// The server is at this host from now on, unless another choice was made since `turn`. Returns the turn that it
    /// begins or goes on with.
    pub fn choose(&self, turn: u32, standing: HostStanding) -> Option<u32> {
        let mut state = self.lock();
        if self.turn() != turn {
            return None;
        }
        let before = state.chosen.replace(standing);
        state.note(standing);
        state.rivals.retain(|rival| rival.host != standing.host);
        if before.is_none_or(|before| before.host != standing.host) {
            state.since = Some(Instant::now());
        }
        match before {
            Some(before) if before.host != standing.host => {
                self.changes.fetch_add(1, Ordering::Relaxed);
                self.turn.store(turn.wrapping_add(1), Ordering::Release);
                self.moved.notify_waiters();
            }
            _ => {}
        }
        Some(self.turn())
    }

    /// Waits until the server goes over to another host, counted from this call.
    pub fn moved(&self) -> Notified<'_> {
        self.moved.notified()
    }

    /// The only host that there is, which nobody has to choose, is in use from now on at the latest.
    pub fn note_use(&self) {
        self.lock().since.get_or_insert_with(Instant::now);
    }

    /// How long the host has been in use, once there has been one.
    pub fn used_for(&self) -> Option<Duration> {
        self.lock().since.map(|since| since.elapsed())
    }

    /// The host in use has said something that makes it doubtful whether it still is what is looked for: who wants a
    /// backend looks again. False if somebody has found that out already.
    pub fn doubt(&self, turn: u32) -> bool {
        let next = turn.wrapping_add(1);
        let _state = self.lock();
        self.turn.compare_exchange(turn, next, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The host in use writes to this timeline.
    pub fn note_timeline(&self, place: HostTurn, timeline: Option<u32>) {
        let mut state = self.lock();
        if let Some(chosen) = state.chosen.as_mut().filter(|chosen| chosen.host == place.host)
            && timeline > chosen.timeline
        {
            chosen.timeline = timeline;
            let chosen = *chosen;
            state.note(chosen);
        }
    }

    /// A host that has been in use since this one was a primary, if this one is an old one.
    pub fn newer_than(&self, standing: HostStanding) -> Option<HostStanding> {
        let newest = self.lock().newest?;
        (standing.timeline.is_some() && newest.timeline > standing.timeline && newest.host != standing.host)
            .then_some(newest)
    }

    /// These could be it as well. Returns those that are new.
    pub fn set_rivals(&self, rivals: Vec<HostStanding>) -> Vec<HostStanding> {
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.rivals, rivals);
        let is_new = |rival: &&HostStanding| !before.iter().any(|known| known.host == rival.host);
        state.rivals.iter().filter(is_new).copied().collect()
    }

    /// Hosts that could be it as well, and get nothing.
    pub fn rivals(&self) -> Vec<HostStanding> {
        self.lock().rivals.clone()
    }

    /// How often the server went over to another host.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(host: usize, timeline: u32) -> HostStanding {
        HostStanding { host, timeline: (timeline > 0).then_some(timeline) }
    }

    #[test]
    fn the_higher_timeline_wins() {
        use SessionAttrs::{Any, Primary, ReadWrite, Standby};
        for (one, other, attrs, wins) in [
            (standing(1, 2), standing(0, 1), ReadWrite, true),
            (standing(0, 1), standing(1, 2), ReadWrite, false),
            (standing(0, 2), standing(1, 2), Primary, false),
            (standing(0, 2), standing(1, 2), Any, false),
            (standing(1, 3), standing(0, 2), Any, true),
            (standing(0, 1), standing(1, 0), Any, true),
            (standing(1, 1), standing(0, 0), Any, false),
            (standing(0, 0), standing(1, 0), Any, false),
            (standing(0, 3), standing(1, 0), Standby, false),
        ] {
            assert_eq!(one.beats(other, attrs), wins, "{one:?} {other:?} {attrs:?}");
        }
    }

    #[test]
    fn another_host_is_another_turn() {
        let in_use = InUse::default();
        assert_eq!(in_use.choose(0, standing(0, 1)), Some(0));
        assert_eq!(in_use.choose(0, standing(0, 1)), Some(0));
        assert_eq!((in_use.choose(0, standing(1, 2)), in_use.changes()), (Some(1), 1));
        assert_eq!(in_use.choose(0, standing(0, 1)), None, "somebody has just chosen otherwise");
        assert_eq!(in_use.host(), Some(1));
        assert!(!in_use.doubt(0) && in_use.doubt(1));
        assert_eq!((in_use.turn(), in_use.host(), in_use.changes()), (2, Some(1), 1));
        assert_eq!(in_use.newer_than(standing(0, 1)), Some(standing(1, 2)));
        assert_eq!(in_use.newer_than(standing(0, 2)), None);
        assert_eq!(in_use.newer_than(standing(0, 0)), None);
    }

    #[test]
    fn rivals_are_told_of_once() {
        let in_use = InUse::default();
        in_use.choose(0, standing(0, 2));
        assert_eq!(in_use.set_rivals(vec![standing(1, 1)]), [standing(1, 1)]);
        assert_eq!(in_use.set_rivals(vec![standing(1, 1)]), []);
        assert_eq!(in_use.set_rivals(vec![]), []);
        assert_eq!(in_use.set_rivals(vec![standing(1, 1)]), [standing(1, 1)]);
    }
}
