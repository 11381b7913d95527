//! What the session that holds a backend does with it, for those who look on from outside.
//!
//! Written by that session alone, by plain stores without an allocation or a lock: two at a checkout, one for a request, one
//! for a backend that is kept behind it, and one whenever the client takes no more for the moment. Times are those of the
//! thread's last look at the clock.

use std::{
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
    time::Duration,
};

use super::probe::PinReason;
use crate::{
    clock::{self, Moment},
    sql::Class,
};

/// The ways in which a session has its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The session waits for the server's answer.
    Runs,
    /// The transaction is open, and everything was answered: the client is to go on.
    InTransaction,
    /// The same, and the transaction has failed: the client is to end it.
    InFailedTransaction,
    /// The session keeps the backend between transactions.
    Keeps,
}

/// One look at what a session does with its backend.
#[derive(Clone, Copy, Debug)]
pub struct Glance {
    /// The way in which it has it.
    pub phase: Phase,
    /// For how long it has done so.
    pub lasts: Duration,
    /// The class of the last request.
    pub class: Class,
    /// Why the backend is kept between transactions, if it is.
    pub pin: Option<PinReason>,
    /// For how long the client has taken nothing of an answer that waits for it.
    pub stalled: Option<Duration>,
}

/// Notes of a session; everything else comes from them.
#[derive(Debug)]
pub struct Doing {
    /// Times are milliseconds from here on.
    began: Moment,
    /// Phase, class, and since when.
    phase: AtomicU64,
    /// Since when the client takes nothing, and one; zero if it does not keep anything waiting.
    stalled: AtomicU64,
    /// The position of the reason, and one; zero for none.
    pin: AtomicU8,
}

const PHASES: [Phase; 4] = [Phase::Runs, Phase::InTransaction, Phase::InFailedTransaction, Phase::Keeps];
const PHASE_SHIFT: u32 = 60;
const CLASS_SHIFT: u32 = 56;
const TIME: u64 = (1 << CLASS_SHIFT) - 1;

impl Default for Doing {
    fn default() -> Self {
        let nothing = AtomicU64::new(0);
        Self { began: Moment::now(), phase: nothing, stalled: AtomicU64::new(0), pin: AtomicU8::new(0) }
    }
}

impl Doing {
    /// Begins for another session.
    #[inline]
    pub fn begins(&self) {
        self.stalled.store(0, Ordering::Relaxed);
        self.pin.store(0, Ordering::Relaxed);
    }

    /// Notes that a request of this class is under way from now on.
    #[inline]
    pub fn runs(&self, class: Class) {
        self.note(Phase::Runs, class as u64);
    }

    /// Notes that all has been answered, and that the backend is kept.
    pub fn rests(&self, phase: Phase) {
        let class = self.phase.load(Ordering::Relaxed) >> CLASS_SHIFT & 0xf;
        self.note(phase, class);
    }

    /// The backend is kept between transactions for this reason, or for none any more.
    pub fn keeps(&self, reason: Option<PinReason>) {
        self.pin.store(reason.map_or(0, |reason| reason as u8 + 1), Ordering::Relaxed);
    }

    /// The client takes no more for now; `has_taken` something just before.
    pub fn stalls(&self, has_taken: bool) {
        if has_taken || self.stalled.load(Ordering::Relaxed) == 0 {
            self.stalled.store(self.now() + 1, Ordering::Relaxed);
        }
    }

    /// The client has taken all that there is.
    pub fn flows(&self) {
        self.stalled.store(0, Ordering::Relaxed);
    }

    /// Looks at what is done now.
    pub fn glance(&self) -> Glance {
        let word = self.phase.load(Ordering::Relaxed);
        let now = Moment::now().millis_since(self.began);
        let since = |at: u64| Duration::from_millis(now.saturating_sub(at));
        let stalled = self.stalled.load(Ordering::Relaxed);
        let pin = usize::from(self.pin.load(Ordering::Relaxed)).checked_sub(1);
        Glance {
            phase: PHASES[(word >> PHASE_SHIFT) as usize % PHASES.len()],
            lasts: since(word & TIME),
            class: Class::ALL[(word >> CLASS_SHIFT & 0xf) as usize % Class::ALL.len()],
            pin: pin.and_then(|at| PinReason::ALL.get(at)).copied(),
            stalled: stalled.checked_sub(1).map(since),
        }
    }

    #[inline]
    fn note(&self, phase: Phase, class: u64) {
        let word = (phase as u64) << PHASE_SHIFT | class << CLASS_SHIFT | self.now() & TIME;
        self.phase.store(word, Ordering::Relaxed);
    }

    #[inline]
    fn now(&self) -> u64 {
        clock::last_tick().millis_since(self.began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glance_tells_what_was_written_last() {
        let doing = Doing::default();
        let read = || {
            let Glance { phase, class, pin, stalled, .. } = doing.glance();
            (phase, class, pin, stalled.is_some())
        };
        for (at, phase) in PHASES.into_iter().enumerate() {
            assert_eq!(phase as usize, at);
            for class in Class::ALL {
                doing.runs(class);
                assert_eq!(read(), (Phase::Runs, class, None, false));
                doing.rests(phase);
                assert_eq!(read(), (phase, class, None, false));
            }
        }
        for reason in PinReason::ALL {
            doing.keeps(Some(reason));
            assert_eq!(read().2, Some(reason));
        }
        doing.stalls(false);
        assert!(read().3);
        doing.flows();
        assert!(!read().3);
        doing.stalls(false);
        doing.begins();
        assert_eq!((read().2, read().3), (None, false));
    }

    #[test]
    fn times_count_from_the_change_and_from_what_was_taken_last() {
        let doing = Doing::default();
        let pause = || {
            std::thread::sleep(Duration::from_millis(30));
            clock::tick();
        };
        pause();
        doing.runs(Class::Read);
        doing.stalls(false);
        pause();
        doing.stalls(false);
        let glance = doing.glance();
        assert!(glance.lasts >= Duration::from_millis(29), "{glance:?}");
        assert!(glance.stalled >= Some(Duration::from_millis(29)), "{glance:?}");
        let before = glance.stalled;
        doing.stalls(true);
        assert!(doing.glance().stalled < before);
    }
}
