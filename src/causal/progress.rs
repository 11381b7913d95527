//! How far one replica is.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::samples::{Era, Samples};

/// A replica that has so often not answered in time does not work on what it was asked either, as far as can be told.
const SILENCES_MAX: u32 = 2;

/// How far a replica may be behind; by default without a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LagBounds {
    /// In time; zero for no bound.
    pub max_lag: Duration,
    /// In bytes of WAL; zero for no bound.
    pub max_lag_bytes: u64,
}

/// What a replica says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Whether it is in recovery: otherwise it is no replica.
    pub in_recovery: bool,
    /// The timeline that it follows.
    pub timeline: Option<u32>,
    /// The cluster that it is of.
    pub cluster: Option<u64>,
    /// The connection that it has answered on.
    pub connection: u64,
    /// The time by the clock of samples when it was asked.
    pub time: u64,
    /// The position up to which it has replayed.
    pub position: Option<u64>,
    /// The number of the last backend that was connected before it was asked.
    pub backends: u64,
}

/// A replica that comes back has all of its weight after so long, and an eighth more of it after each eighth.
const SLOW_START: Duration = Duration::from_secs(10);

/// How far a replica is: written by whoever asks it, read by every session.
#[derive(Debug, Default)]
pub struct Progress {
    /// The time of the newest sample that it has replayed.
    replayed: AtomicU64,
    /// The time of the last question that it has answered.
    asked: AtomicU64,
    /// The connection that it has answered on, and how often that was another one than before.
    connection: AtomicU64,
    life: AtomicU8,
    /// The last backend that was connected before it was asked.
    backends: AtomicU64,
    is_to_be_asked: AtomicBool,
    /// The replica follows another primary, or is too far behind.
    is_out: AtomicBool,
    /// How often in a row it has not answered in time.
    silences: AtomicU32,
    /// Since when it has been in, once it is.
    came_in: Mutex<Option<Instant>>,
    /// How many eighths of its weight it lacks.
    lacks_eighths: AtomicUsize,
    lag_bytes: AtomicU64,
    lag_ms: AtomicU64,
}

impl Progress {
    /// Of the primary itself.
    pub fn of_primary() -> Self {
        let progress = Self::default();
        progress.replayed.store(u64::MAX, Ordering::Release);
        progress.backends.store(u64::MAX, Ordering::Release);
        progress
    }

    /// Whether a read may use it that needs what was stamped at `time`.
    pub fn covers(&self, time: u64) -> bool {
        self.replayed.load(Ordering::Acquire) > time && self.is_in()
    }

    /// Whether a read may use it that needs nothing.
    pub fn is_in(&self) -> bool {
        !self.is_out.load(Ordering::Acquire) && self.silences.load(Ordering::Acquire) == 0
    }

    /// The time of the newest sample that it has replayed.
    pub fn replayed(&self) -> u64 {
        self.replayed.load(Ordering::Acquire)
    }

    /// How far it is behind, in bytes and in time, as it was last known.
    pub fn lag(&self) -> (u64, Duration) {
        let (bytes, time) = (&self.lag_bytes, &self.lag_ms);
        (bytes.load(Ordering::Relaxed), Duration::from_millis(time.load(Ordering::Relaxed)))
    }

    /// The replica has answered this.
    pub fn note(&self, standing: Standing, samples: &Samples, bounds: LagBounds, now: Instant) {
        let was_silent = self.silences.swap(0, Ordering::AcqRel) > 0;
        self.is_to_be_asked.store(false, Ordering::Release);
        self.asked.store(standing.time, Ordering::Release);
        if self.connection.swap(standing.connection, Ordering::AcqRel) != standing.connection {
            self.life.fetch_add(1, Ordering::AcqRel);
        }
        let era = samples.era();
        let is_of =
            |era: Era| standing.timeline == Some(era.timeline) && standing.cluster == Some(era.cluster);
        let follows = standing.in_recovery && era.is_none_or(is_of);
        let position = standing.position.filter(|_| follows && era.is_some());
        let Some(replayed) = position.and_then(|position| samples.replayed(position)) else {
            self.replayed.store(0, Ordering::Release);
            // Of one that follows another primary, or none, nothing is known.
            self.is_out.store(!follows, Ordering::Release);
            return;
        };
        let lag = replayed.behind_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.lag_bytes.store(replayed.lag_bytes, Ordering::Relaxed);
        self.lag_ms.store(lag.as_millis() as u64, Ordering::Relaxed);
        // In this order: who knows of the new backends knows that it has no more than this.
        self.replayed.store(replayed.time, Ordering::Release);
        self.backends.store(standing.backends, Ordering::Release);
        // What has left comes back when it is well within its bounds.
        let share = if self.is_out.load(Ordering::Acquire) { 2 } else { 1 };
        let is_late = !bounds.max_lag.is_zero() && lag > bounds.max_lag / share;
        let is_far = bounds.max_lag_bytes > 0 && replayed.lag_bytes > bounds.max_lag_bytes / u64::from(share);
        let was_out = self.is_out.swap(is_late || is_far, Ordering::AcqRel) || was_silent;
        self.warm_up(was_out, now);
    }

    /// The replica serves reads, or has just begun to, if it was out before.
    fn warm_up(&self, was_out: bool, now: Instant) {
        let mut came_in = self.came_in.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match *came_in {
            Some(since) if !was_out => since,
            // At the start all are new.
            None => *came_in.insert(now.checked_sub(SLOW_START).unwrap_or(now)),
            Some(_) => *came_in.insert(now),
        };
        let passed = now.saturating_duration_since(since).as_millis() * 8 / SLOW_START.as_millis();
        self.lacks_eighths.store(7_usize.saturating_sub(passed as usize), Ordering::Release);
    }

    /// How many eighths of its weight count.
    pub fn eighths(&self) -> usize {
        8 - self.lacks_eighths.load(Ordering::Acquire).min(7)
    }

    /// The replica has not answered in time. True if that is the last time that is waited for.
    pub fn note_silent(&self) -> bool {
        self.silences.fetch_add(1, Ordering::AcqRel) + 1 == SILENCES_MAX
    }

    /// The number of the last backend that was connected before it was asked. One that was connected later may be at
    /// something else that has come in its place, with less than it had. To be read before [`Progress::covers`].
    pub fn backends(&self) -> u64 {
        self.backends.load(Ordering::Acquire)
    }

    /// Changes when it may have come back as something else, with less than it had: as long as it does not, whoever has read
    /// on it does not go back there.
    pub fn life(&self) -> u8 {
        self.life.load(Ordering::Acquire)
    }

    /// A backend was met that was connected later: it is asked anew.
    pub fn ask_anew(&self) {
        self.is_to_be_asked.store(true, Ordering::Release);
    }

    /// True once the replica has answered what it was asked after `time`, by the clock of samples.
    pub fn has_answered_since(&self, time: u64) -> bool {
        self.asked.load(Ordering::Acquire) > time
    }

    /// Whether a backend was met that is not known.
    pub fn is_to_be_asked(&self) -> bool {
        self.is_to_be_asked.load(Ordering::Acquire)
    }

    /// True while the replica has not answered in time, and may yet: whoever waits for it, and asks for nothing else, is to be told.
    pub fn is_in_doubt(&self) -> bool {
        (1..SILENCES_MAX).contains(&self.silences.load(Ordering::Acquire))
    }

    /// True once what the replica has been asked is not waited for any more.
    pub fn is_stuck(&self) -> bool {
        self.silences.load(Ordering::Acquire) >= SILENCES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: LagBounds = LagBounds { max_lag: Duration::from_secs(10), max_lag_bytes: 1000 };

    fn standing(timeline: u32, position: u64) -> Standing {
        Standing {
            in_recovery: true,
            timeline: Some(timeline),
            cluster: Some(7),
            connection: 1,
            time: 9,
            position: Some(position),
            backends: 3,
        }
    }

    fn samples(now: Instant) -> Samples {
        let mut samples = Samples::default();
        samples.begin(Era { connection: 1, timeline: 2, cluster: 7 });
        samples.add(5, 500, now);
        samples.add(9, 900, now);
        samples
    }

    #[test]
    fn a_replica_serves_what_it_has() {
        let (progress, now) = (Progress::default(), Instant::now());
        assert!(!progress.covers(0), "nothing is known");
        let samples = samples(now);
        progress.note(standing(2, 600), &samples, BOUNDS, now);
        assert!(
            progress.covers(4) && !progress.covers(5),
            "a stamp of the sample's own time is later than it"
        );
        assert!(!progress.note_silent() && !progress.is_stuck() && progress.is_in_doubt());
        assert!(!progress.covers(4) && !progress.is_in());
        assert!(progress.note_silent() && progress.is_stuck() && !progress.is_in_doubt());
        progress.note(standing(2, 900), &samples, BOUNDS, now);
        assert!(progress.covers(8) && !progress.covers(9));
        // Of another timeline, or no replica any more.
        progress.note(standing(1, 2000), &samples, BOUNDS, now);
        assert!(!progress.covers(0));
        progress.note(Standing { cluster: Some(8), ..standing(2, 2000) }, &samples, BOUNDS, now);
        assert!(!progress.covers(0) && !progress.is_in(), "of another cluster");
        let promoted = Standing { in_recovery: false, ..standing(2, 2000) };
        progress.note(promoted, &samples, BOUNDS, now);
        assert!(!progress.covers(0) && !progress.is_in());
    }

    #[test]
    fn who_is_too_far_behind_leaves_and_comes_back_late() {
        let (progress, now) = (Progress::default(), Instant::now());
        let samples = samples(now);
        for (position, seconds, is_in) in [(600, 9, true), (600, 11, false), (600, 6, false), (600, 4, true)]
        {
            progress.note(standing(2, position), &samples, BOUNDS, now + Duration::from_secs(seconds));
            assert_eq!(progress.is_in(), is_in, "{position} {seconds}");
        }
        assert_eq!(progress.eighths(), 1, "it has just come back");
        progress.note(standing(2, 900), &samples, BOUNDS, now + Duration::from_secs(4 + 5));
        assert_eq!(progress.eighths(), 5);
        progress.note(standing(2, 900), &samples, BOUNDS, now + Duration::from_secs(4 + 10));
        assert_eq!(progress.eighths(), 8);
        let narrow = LagBounds { max_lag_bytes: 200, ..BOUNDS };
        for (position, is_in) in [(600, false), (750, false), (850, true), (700, true)] {
            progress.note(standing(2, position), &samples, narrow, now);
            assert_eq!(progress.is_in(), is_in, "{position}");
        }
    }
}
