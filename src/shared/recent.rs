//! What was refused in the last minute, and where reads ran: counts that are kept from the start on, noted every few
//! seconds.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::counters::ReadOn;

/// How often counts are noted.
pub const NOTE_EVERY: Duration = Duration::from_secs(5);

/// How far back is told of.
pub const WINDOW: Duration = Duration::from_secs(60);

/// Notes that are kept: those of the window, and one more.
const NOTES: usize = (WINDOW.as_secs() / NOTE_EVERY.as_secs()) as usize + 1;

/// Requests of a pool on one server that got an error in place of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Refused since as many waited as may.
    pub full: u64,
    /// Refused after they had waited for as long as they may.
    pub timeout: u64,
    /// Refused since the server could not be reached, or refused the login.
    pub unreachable: u64,
    /// Refused since as many sessions are pinned as may be.
    pub pins: u64,
    /// Server connections that could not be opened.
    pub connects: u64,
}

/// Counts from the start on, or of a while.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// By the names of pool and server.
    pub pools: HashMap<(String, String), Refused>,
    /// Clients for whom there was no place.
    pub no_place: u64,
    /// Clients that were turned away for any reason.
    pub turned_away: u64,
    /// Reads, in the order of [`ReadOn::ALL`].
    pub reads: [u64; ReadOn::ALL.len()],
}

/// The notes of the last minute.
#[derive(Debug, Default)]
pub struct Recent(Mutex<VecDeque<(Instant, Tally)>>);

impl Refused {
    /// All that were refused.
    pub const fn all(self) -> u64 {
        self.full + self.timeout + self.unreachable + self.pins
    }

    const fn since(self, before: Self) -> Self {
        Self {
            full: self.full.saturating_sub(before.full),
            timeout: self.timeout.saturating_sub(before.timeout),
            unreachable: self.unreachable.saturating_sub(before.unreachable),
            pins: self.pins.saturating_sub(before.pins),
            connects: self.connects.saturating_sub(before.connects),
        }
    }
}

impl Tally {
    /// Counts since `before`.
    fn since(mut self, before: &Self) -> Self {
        for (name, refused) in &mut self.pools {
            *refused = refused.since(before.pools.get(name).copied().unwrap_or_default());
        }
        self.no_place = self.no_place.saturating_sub(before.no_place);
        self.turned_away = self.turned_away.saturating_sub(before.turned_away);
        for (count, before) in self.reads.iter_mut().zip(before.reads) {
            *count = count.saturating_sub(before);
        }
        self
    }
}

impl Recent {
    /// Notes the counts as they are at a time.
    pub fn note(&self, now: Instant, tally: Tally) {
        let mut notes = self.lock();
        while notes.len() >= NOTES {
            notes.pop_front();
        }
        notes.push_back((now, tally));
    }

    /// Counts of the last minute up to `tally`, and how long that is: less if the program is younger.
    pub fn until(&self, now: Instant, tally: Tally) -> (Tally, Duration) {
        let notes = self.lock();
        let is_in = |(at, _): &&(Instant, Tally)| now.saturating_duration_since(*at) <= WINDOW;
        match notes.iter().find(is_in) {
            Some((at, before)) => (tally.since(before), now.saturating_duration_since(*at)),
            None => (tally, WINDOW),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Instant, Tally)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(full: u64) -> Tally {
        let refused = Refused { full, ..Refused::default() };
        let name = ("primary".to_owned(), "main".to_owned());
        Tally { pools: HashMap::from([(name, refused)]), no_place: 2 * full, ..Tally::default() }
    }

    #[test]
    fn only_the_last_minute_counts() {
        let (recent, start) = (Recent::default(), Instant::now());
        assert_eq!(recent.until(start, tally(3)).0, tally(3), "of a program that has just begun");
        for round in 0..40 {
            recent.note(start + NOTE_EVERY * round, tally(u64::from(round)));
        }
        let now = start + NOTE_EVERY * 39 + Duration::from_secs(2);
        let (counted, within) = recent.until(now, tally(100));
        assert_eq!((counted, within), (tally(72), Duration::from_secs(57)));
        let late = now + Duration::from_secs(1000);
        assert_eq!(recent.lock().len(), NOTES);
        assert_eq!(recent.until(late, tally(100)), (tally(100), WINDOW), "nobody has noted for long");
    }
}
