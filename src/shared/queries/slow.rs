//! The requests that took longest lately, for the console; and the log of them.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use serde::Serialize;

use super::{By, Ran};
use crate::{seldom::Rationed, sql::Verdict};

/// Lines of the log in a second.
const LINES_A_SECOND: u32 = 20;

/// Bounds from which on a request is slow, and what becomes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlowLimits {
    /// A request that takes longer is kept; zero for none.
    pub kept_from: Duration,
    /// How many are kept.
    pub kept_max: usize,
    /// A request that takes longer is logged; zero for none.
    pub logged_from: Duration,
    /// How many of a hundred of those.
    pub logged_percent: u8,
    /// Whether the values that it binds, and its literals, are logged.
    pub logs_values: bool,
}

/// A slow request.
#[derive(Clone, Debug, Serialize)]
pub struct Slow {
    /// When it ended.
    #[serde(rename = "ended_at", serialize_with = "as_seconds")]
    pub ended: SystemTime,
    /// How long it took, with waiting.
    #[serde(rename = "time_us", serialize_with = "super::as_micros")]
    pub took: Duration,
    /// How long it waited for a connection.
    #[serde(rename = "wait_time_us", serialize_with = "super::as_micros")]
    pub waited: Duration,
    /// The text without its literals.
    #[serde(rename = "query")]
    pub text: Arc<str>,
    /// The database.
    pub database: String,
    /// The user.
    pub user: String,
    /// The name that the client gives itself.
    pub application_name: String,
    /// The pool.
    pub pool: String,
    /// The class.
    pub class: &'static str,
    /// Rows.
    pub rows: u64,
    /// Whether it failed.
    pub failed: bool,
}

/// Seconds since 1970, with milliseconds.
fn as_seconds<S: serde::Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    to.serialize_f64(since.as_millis() as f64 / 1000.0)
}

/// The slow requests that were kept, and those that are logged.
#[derive(Debug, Default)]
pub struct SlowLog {
    limits: ArcSwap<SlowLimits>,
    /// Nanoseconds: a request that takes less is neither.
    least_nanos: AtomicU64,
    logs_values: AtomicBool,
    kept: Mutex<VecDeque<Slow>>,
    lines: Rationed,
}

impl SlowLog {
    /// Has these bounds from now on.
    pub fn set_limits(&self, limits: SlowLimits) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.len() > limits.kept_max {
            kept.pop_front();
        }
        let times = [limits.kept_from, limits.logged_from];
        let least = times.iter().filter(|time| !time.is_zero()).min();
        self.least_nanos.store(least.map_or(u64::MAX, |time| time.as_nanos() as u64), Ordering::Relaxed);
        let logs_values = limits.logs_values && !limits.logged_from.is_zero();
        self.logs_values.store(logs_values, Ordering::Relaxed);
        self.limits.store(Arc::new(limits));
    }

    /// Whether values are logged.
    pub fn logs_values(&self) -> bool {
        self.logs_values.load(Ordering::Relaxed)
    }

    /// The bounds.
    pub fn limits(&self) -> SlowLimits {
        **self.limits.load()
    }

    /// Whether a request that took so long may be kept or logged.
    #[inline]
    pub(crate) fn wants(&self, took: Duration) -> bool {
        took.as_nanos() as u64 >= self.least_nanos.load(Ordering::Relaxed)
    }

    /// Keeps a request that is [wanted](Self::wants), logs it, or both. `text` gives its text without literals.
    pub(crate) fn note(
        &self,
        (verdict, by, ran): (&Verdict, By<'_>, &Ran),
        application_name: &str,
        values: Option<&str>,
        text: impl FnOnce() -> Arc<str>,
    ) {
        let limits = self.limits();
        let (keeps, logs) = (limits.keeps(ran.took), limits.logs(ran.took));
        if !keeps && !logs {
            return;
        }
        let slow = Slow {
            ended: SystemTime::now(),
            took: ran.took,
            waited: ran.waited,
            text: text(),
            database: by.identity.database.clone(),
            user: by.identity.user.clone(),
            application_name: application_name.to_owned(),
            pool: by.pool_name.to_owned(),
            class: verdict.class.label(),
            rows: ran.rows,
            failed: ran.failed,
        };
        if logs {
            self.log(&slow, values.filter(|_| limits.logs_values));
        }
        if keeps {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() >= limits.kept_max {
                kept.pop_front();
            }
            kept.push_back(slow);
        }
    }

    fn log(&self, slow: &Slow, values: Option<&str>) {
        let Some(left_out) = self.lines.is_time(LINES_A_SECOND) else { return };
        let Slow { took, waited, text, database, user, application_name, pool, class, rows, failed, .. } =
            slow;
        let (took_ms, waited_ms) = (took.as_secs_f64() * 1000.0, waited.as_secs_f64() * 1000.0);
        let (took_ms, waited_ms) = (format!("{took_ms:.3}"), format!("{waited_ms:.3}"));
        let values = values.unwrap_or_default();
        tracing::info!(
            took_ms,
            waited_ms,
            database,
            user,
            application_name,
            pool,
            class,
            rows,
            failed,
            query = &**text,
            values,
            left_out,
            "a slow statement"
        );
    }

    /// The requests that were kept, the last one first.
    pub fn read(&self) -> Vec<Slow> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }

    /// Forgets those that were kept.
    pub fn reset(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl SlowLimits {
    fn keeps(&self, took: Duration) -> bool {
        !self.kept_from.is_zero() && took >= self.kept_from && self.kept_max > 0
    }

    /// Whether a request is logged; of those that are slow enough, chance decides about this one.
    fn logs(&self, took: Duration) -> bool {
        let is_slow = !self.logged_from.is_zero() && took >= self.logged_from;
        // The nanoseconds of a duration are chance enough.
        is_slow && took.subsec_nanos() / 10 % 100 < u32::from(self.logged_percent)
    }
}
