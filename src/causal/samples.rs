//! Positions of the primary's WAL, and when they were asked for.

use std::{collections::VecDeque, time::Instant};

/// More samples are thinned out: which replica has replayed what is known less exactly then, and never wrongly.
const SAMPLES_MAX: usize = 4096;

/// Positions of one era can be compared: they were told on one connection, of one timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Era {
    /// Which connection.
    pub connection: u64,
    /// The timeline that the primary writes to.
    pub timeline: u32,
    /// Which cluster it is of.
    pub cluster: u64,
}

/// One sample.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// The time at which it was asked for.
    time: u64,
    position: u64,
    /// When it was answered.
    at: Instant,
}

/// The samples of one era, by time.
#[derive(Debug, Default)]
pub struct Samples {
    era: Option<Era>,
    list: VecDeque<Sample>,
}

/// How far a replica is, measured by samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The time of the newest sample that it has replayed.
    pub time: u64,
    /// Bytes behind the newest sample.
    pub lag_bytes: u64,
    /// When the oldest sample was answered that it has not replayed.
    pub behind_since: Option<Instant>,
}

impl Samples {
    /// Positions are of this era from now on; whether that is another one.
    pub(super) fn begin(&mut self, era: Era) -> bool {
        let is_new = self.era != Some(era);
        if is_new {
            self.era = Some(era);
            self.list.clear();
        }
        is_new
    }

    /// Adds a sample, unless a later one is there.
    pub(super) fn add(&mut self, time: u64, position: u64, at: Instant) -> bool {
        if self.list.back().is_some_and(|last| last.time >= time || last.position > position) {
            return false;
        }
        if self.list.len() >= SAMPLES_MAX {
            let mut at = 0;
            self.list.retain(|_| {
                at += 1;
                at % 2 == 0
            });
        }
        self.list.push_back(Sample { time, position, at });
        true
    }

    /// The source of positions.
    pub fn era(&self) -> Option<Era> {
        self.era
    }

    /// How far somebody is who has replayed up to a position; `None` if that is behind all samples.
    pub fn replayed(&self, position: u64) -> Option<Replayed> {
        let newest = self.list.back()?;
        let replayed = self.list.partition_point(|sample| sample.position <= position);
        let behind_since = self.list.get(replayed).map(|sample| sample.at);
        let time = replayed.checked_sub(1).map_or(0, |last| self.list[last].time);
        Some(Replayed { time, lag_bytes: newest.position.saturating_sub(position), behind_since })
    }

    /// When the newest sample was answered.
    pub fn newest_at(&self) -> Option<Instant> {
        self.list.back().map(|newest| newest.at)
    }

    /// Forgets samples that everybody has replayed, who has replayed what was asked for at `time`.
    pub fn forget_before(&mut self, time: u64) {
        while self.list.get(1).is_some_and(|second| second.time <= time) {
            self.list.pop_front();
        }
    }
}

/// The end of the last record before a position that the server gives for the next one to be written (`XLogRecPtr`): at
/// the beginning of a page that is behind the page's header, where no replica will ever say that it has replayed to. Sizes
/// are those of `XLogPageHeaderData`, and of `XLogLongPageHeaderData` on the first page of a segment
/// (`src/include/access/xlog_internal.h`).
pub fn end_of_record(position: u64, block_bytes: u64, segment_bytes: u64) -> u64 {
    const SHORT_HEADER: u64 = 24;
    const LONG_HEADER: u64 = 40;
    match position {
        _ if position % segment_bytes == LONG_HEADER => position - LONG_HEADER,
        _ if position % segment_bytes != SHORT_HEADER && position % block_bytes == SHORT_HEADER => {
            position - SHORT_HEADER
        }
        _ => position,
    }
}

/// A position as the server writes it: two numbers in hexadecimal, with a slash between.
pub fn read_position(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let (high, low) = (u32::from_str_radix(high, 16).ok()?, u32::from_str_radix(low, 16).ok()?);
    Some(u64::from(high) << 32 | u64::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERA: Era = Era { connection: 1, timeline: 1, cluster: 7 };

    #[test]
    fn positions_are_read() {
        assert_eq!(read_position("16/B374D848"), Some(0x16_B374_D848));
        for wrong in ["", "/", "1", "1/", "x/1", "1/100000000", "-1/1"] {
            assert_eq!(read_position(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn headers_of_pages_are_not_waited_for() {
        let (block, segment) = (8192, 16 << 20);
        for (position, end) in [
            (segment + 8192 + 24, segment + 8192),
            (segment + 40, segment),
            // Continued from the page before, or right behind a first record.
            (segment + 8192 + 40, segment + 8192 + 40),
            (segment + 24, segment + 24),
            (segment + 8192, segment + 8192),
            (segment + 100, segment + 100),
        ] {
            assert_eq!(end_of_record(position, block, segment), end, "{position:x}");
        }
    }

    #[test]
    fn a_replica_has_what_it_has_replayed() {
        let (mut samples, now) = (Samples::default(), Instant::now());
        assert!(samples.begin(ERA) && !samples.begin(ERA));
        assert_eq!(samples.replayed(100), None);
        for (time, position) in [(2, 100), (3, 100), (5, 200)] {
            assert!(samples.add(time, position, now));
        }
        assert!(
            !samples.add(4, 300, now) && !samples.add(6, 150, now),
            "neither time nor position goes back"
        );
        let replayed = |samples: &Samples, position| samples.replayed(position).expect("there are samples");
        for (position, time, lag_bytes) in
            [(99, 0, 101), (100, 3, 100), (199, 3, 1), (200, 5, 0), (300, 5, 0)]
        {
            let found = replayed(&samples, position);
            assert_eq!((found.time, found.lag_bytes), (time, lag_bytes), "{position}");
            assert_eq!(found.behind_since.is_some(), position < 200);
        }
        assert_eq!(samples.newest_at(), Some(now));
        samples.forget_before(3);
        assert_eq!(replayed(&samples, 150).time, 3);
        assert!(samples.begin(Era { timeline: 2, ..ERA }));
        assert_eq!((samples.replayed(300), samples.newest_at()), (None, None), "of another timeline");
    }

    #[test]
    fn samples_are_bounded() {
        let (mut samples, now) = (Samples::default(), Instant::now());
        samples.begin(ERA);
        for time in 1..=3 * SAMPLES_MAX as u64 {
            samples.add(time, time * 10, now);
        }
        assert!(samples.list.len() <= SAMPLES_MAX);
        let behind = samples.replayed(100).expect("there are samples");
        assert!(behind.time <= 10 && behind.behind_since.is_some());
        assert_eq!(samples.replayed(u64::MAX).expect("there are samples").time, 3 * SAMPLES_MAX as u64);
    }
}
