//! Causal reads: what a replica must have replayed before a read may use it.
//!
//! Two things are counted by one clock, which only the sampler moves.
//!
//! - **Stamps** ([`stamps`]): when a commit's answer passes, before its client can know of it, every table that the
//!   transaction may have changed is stamped with the clock's time.
//! - **Samples** ([`samples`]): the primary is asked for its WAL position. The clock moves on before the question, so that
//!   a sample has a later time than every stamp whose commit it surely contains.
//!
//! A replica that has replayed a sample ([`progress`]) has everything that was stamped before that sample was asked for.
//! A read needs what was stamped on its tables. What a commit has done, and its client does not know yet, may show
//! already: a session that may have seen it remembers the time, as a floor under its later reads.
//!
//! Positions mean nothing across timelines, and nothing is known at the start: with every new connection on which the
//! primary is asked, all tables count as just written ([`Stamps::void`]).

pub mod progress;
pub mod samples;
pub mod stamps;

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio::sync::{Notify, futures::Notified};

use crate::clock::Moment;
use samples::{Era, Samples};
use stamps::Stamps;

/// The sampler rests if nobody has read for so long.
const RESTS_AFTER_MS: u64 = 1000;

/// A read is noted once in so many milliseconds.
const NOTED_EVERY_MS: u64 = 50;

/// Everything that is known of writes and positions, for all sessions.
#[derive(Debug)]
pub struct Causal {
    /// When which table was written.
    pub stamps: Stamps,
    samples: Mutex<Samples>,
    /// The time of the newest sample.
    newest: AtomicU64,
    /// A sample of a later time than this is waited for.
    wanted: AtomicU64,
    started: Moment,
    /// When somebody last wanted to read on a replica, in milliseconds since `started`.
    read_at: AtomicU64,
    /// The sampler is to look at whether it is wanted.
    woken: Notify,
    /// There is a new sample, or a replica has replayed one.
    progressed: Notify,
}

impl Default for Causal {
    fn default() -> Self {
        Self {
            stamps: Stamps::default(),
            samples: Mutex::default(),
            newest: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            started: Moment::now(),
            read_at: AtomicU64::new(0),
            woken: Notify::new(),
            progressed: Notify::new(),
        }
    }
}

impl Causal {
    /// Somebody wants to read on a replica, at `now`: samples are worth being taken.
    pub fn note_read(&self, now: Moment) {
        let now = now.millis_since(self.started);
        let before = self.read_at.load(Ordering::Relaxed);
        if now >= before + NOTED_EVERY_MS {
            self.read_at.store(now, Ordering::Relaxed);
            if now >= before + RESTS_AFTER_MS {
                self.woken.notify_waiters();
            }
        }
    }

    /// Whether somebody has wanted to read on a replica lately.
    pub fn is_read(&self) -> bool {
        let now = Moment::now().millis_since(self.started);
        now < self.read_at.load(Ordering::Relaxed) + RESTS_AFTER_MS
    }

    /// Waits until the sampler is to look again at whether it is wanted, counted from this call.
    pub fn woken(&self) -> Notified<'_> {
        self.woken.notified()
    }

    /// A sample that is asked for after `time` is waited for.
    pub fn want(&self, time: u64) {
        if self.wanted.fetch_max(time, Ordering::AcqRel) < time {
            self.woken.notify_waiters();
        }
    }

    /// Whether anything was stamped, or is waited for, that no sample contains.
    pub fn needs_sample(&self) -> bool {
        let wanted = self.wanted.load(Ordering::Acquire).max(self.stamps.last_of_any());
        self.newest.load(Ordering::Acquire) <= wanted
    }

    /// The time of the newest sample.
    pub fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// Waits until there is a new sample, or a replica has replayed more, counted from this call.
    pub fn progressed(&self) -> Notified<'_> {
        self.progressed.notified()
    }

    /// A replica has replayed more.
    pub fn note_progress(&self) {
        self.progressed.notify_waiters();
    }

    /// The primary was at this position when it was asked at `time`. Of another era than the samples before it counts
    /// for nothing but that: all tables are taken for just written.
    pub fn note_sample(&self, era: Era, time: u64, position: u64) {
        let mut samples = self.samples();
        if samples.begin(era) {
            self.stamps.void();
            tracing::debug!(?era, "positions of the primary are sampled anew");
        } else if samples.add(time, position, Instant::now()) {
            self.newest.store(time, Ordering::Release);
        }
        drop(samples);
        self.woken.notify_waiters();
        self.progressed.notify_waiters();
    }

    /// The samples.
    pub fn samples(&self) -> MutexGuard<'_, Samples> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
