//! Statistics of statements: what each text, without its literals, has cost, by who sent it and which pool has run it.
//!
//! ```text
//! classified  -> learn    the text without literals, once       a lookup in the thread's front
//! answered    -> record   relaxed atomics of its entry          another one
//! ```
//!
//! Requests find their entry in a table of their thread (`front`), and take no lock and allocate nothing for a text that
//! is known. The entries themselves are shared; there are `statistics.queries` of them at most, and those used least
//! recently make room for new ones. A request is counted for the strongest of its statements. An entry that has made room
//! is forgotten whole: it is never another text's.

mod entry;
mod front;
mod slow;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

pub use entry::{Query, Ran};
pub use slow::{Slow, SlowLimits, SlowLog};

use crate::{
    backend::{Identity, probe::PinReason},
    clock::{self, Moment},
    metrics::Evictions,
    route::PoolId,
    sql::{Reason, TextId, Verdict, normal},
};
use entry::Entry;

/// The part of all, by its divisor, that makes room at once: so looking for those used least recently costs little.
const EVICTED_PART: usize = 16;

/// Bounds of the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryLimits {
    /// Entries; zero for no statistics.
    pub queries: usize,
    /// Texts that are known; zero for none.
    pub texts: usize,
    /// Bytes of a text that are kept.
    pub text_bytes: usize,
}

/// The sender of a request, and the pool that has run it.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    /// The client's user and database.
    pub identity: &'a Identity,
    /// The pool's place.
    pub pool: PoolId,
    /// The pool's name.
    pub pool_name: &'a str,
}

/// The statistics of all statements.
#[derive(Debug)]
pub struct Queries {
    /// Tells these statistics from others of the same program.
    number: u64,
    began: Moment,
    entries_max: AtomicUsize,
    texts_max: AtomicUsize,
    text_bytes: AtomicUsize,
    state: Mutex<State>,
    /// Times that texts were forgotten: what a thread knows from before, it does not know.
    forgot_texts: AtomicU32,
    /// Entries that have made room for others, since the start, and at the last reset.
    evicted: Evictions,
    evicted_before: AtomicU64,
    texts_evicted: Evictions,
    left_out: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    texts: HashMap<u64, Arc<str>>,
    entries: HashMap<Named, Arc<Entry>>,
}

/// The names of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Named {
    text: Arc<str>,
    database: Arc<str>,
    user: Arc<str>,
    pool: Arc<str>,
}

impl Default for Queries {
    /// Switched off.
    fn default() -> Self {
        Self {
            number: getrandom::u64().unwrap_or_default() | 1,
            began: Moment::now(),
            entries_max: AtomicUsize::new(0),
            texts_max: AtomicUsize::new(0),
            text_bytes: AtomicUsize::new(0),
            state: Mutex::default(),
            forgot_texts: AtomicU32::new(0),
            evicted: Evictions::default(),
            evicted_before: AtomicU64::new(0),
            texts_evicted: Evictions::default(),
            left_out: AtomicU64::new(0),
        }
    }
}

impl Queries {
    /// Has these bounds from now on. What is above them is forgotten.
    pub fn set_limits(&self, limits: QueryLimits) {
        self.text_bytes.store(limits.text_bytes, Ordering::Relaxed);
        self.entries_max.store(limits.queries, Ordering::Relaxed);
        self.texts_max.store(limits.texts, Ordering::Relaxed);
        let mut state = self.lock();
        if state.entries.len() > limits.queries || state.texts.len() > limits.texts {
            self.forget(&mut state);
        }
    }

    /// Whether anything is counted.
    pub fn is_on(&self) -> bool {
        self.entries_max.load(Ordering::Relaxed) > 0
    }

    /// Whether texts are kept.
    fn learns(&self) -> bool {
        self.texts_max.load(Ordering::Relaxed) > 0
    }

    /// A text was judged: from now on its requests can be counted.
    #[inline]
    pub fn learn(&self, verdict: &Verdict, text: &[u8]) {
        if verdict.text != TextId::NONE && self.learns() && !front::knows(self, verdict.text) {
            self.learn_slowly(verdict, text);
        }
    }

    #[cold]
    fn learn_slowly(&self, verdict: &Verdict, text: &[u8]) {
        let normal = normal(verdict, text, self.text_bytes.load(Ordering::Relaxed));
        let mut state = self.lock();
        if state.texts.len() >= self.texts_max.load(Ordering::Relaxed) {
            // Those that are still sent are learned again.
            self.texts_evicted.add(state.texts.len());
            state.texts.clear();
            self.forgot_texts.fetch_add(1, Ordering::Release);
        }
        state.texts.insert(verdict.text.number(), normal.into());
        front::learned(self, verdict.text);
    }

    /// Counts a request that has run, or was refused.
    #[inline]
    pub fn record(&self, verdict: &Verdict, by: By<'_>, ran: &Ran) {
        if self.is_on() {
            let used_at = ran.ended.millis_since(self.began);
            let is_counted = front::with_entry(self, verdict, by, |entry| entry.count(verdict, ran, used_at));
            if !is_counted {
                self.left_out.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// A session became pinned by what a text has left.
    pub fn pinned(&self, text: TextId, verdict: &Verdict, by: By<'_>, reason: PinReason) {
        if self.is_on() {
            let verdict = Verdict { text, ..*verdict };
            front::with_entry(self, &verdict, by, |entry| entry.pinned(reason));
        }
    }

    /// The entry of a text by who sends it and which pool runs it; `None` if the text is not known any more.
    #[cold]
    fn find(&self, verdict: &Verdict, by: By<'_>) -> Option<Arc<Entry>> {
        let mut state = self.lock();
        let text = match state.texts.get(&verdict.text.number()) {
            Some(text) => Arc::clone(text),
            None if verdict.text == TextId::NONE => unread(verdict.reason)?.into(),
            None => return None,
        };
        let Identity { database, user, .. } = by.identity;
        let named = Named {
            text,
            database: database.as_str().into(),
            user: user.as_str().into(),
            pool: by.pool_name.into(),
        };
        if let Some(entry) = state.entries.get(&named) {
            return Some(Arc::clone(entry));
        }
        self.make_room(&mut state);
        let entry =
            Arc::new(Entry::new(Arc::clone(&named.pool), clock::last_tick().millis_since(self.began)));
        state.entries.insert(named, Arc::clone(&entry));
        Some(entry)
    }

    /// Forgets the entries used least recently, if there is no place for one more.
    fn make_room(&self, state: &mut State) {
        let max = self.entries_max.load(Ordering::Relaxed).max(1);
        if state.entries.len() < max {
            return;
        }
        let mut used: Vec<u64> = state.entries.values().map(|entry| entry.used_at()).collect();
        let count = (used.len() / EVICTED_PART + 1 + state.entries.len() - max).min(used.len());
        let (_, last, _) = used.select_nth_unstable(count - 1);
        let last = *last;
        let mut left = count;
        state.entries.retain(|_, entry| {
            let goes = left > 0 && entry.used_at() <= last;
            if goes {
                left -= 1;
                entry.forget();
            }
            !goes
        });
        self.evicted.add(count);
    }

    /// Forgets everything: counting begins anew.
    pub fn reset(&self) {
        let mut state = self.lock();
        self.forget(&mut state);
        self.evicted_before.store(self.evicted.read(), Ordering::Relaxed);
        self.left_out.store(0, Ordering::Relaxed);
    }

    fn forget(&self, state: &mut State) {
        state.entries.values().for_each(|entry| entry.forget());
        *state = State::default();
        self.forgot_texts.fetch_add(1, Ordering::Release);
    }

    /// Entries that have made room for others since the last reset.
    pub fn evicted(&self) -> u64 {
        self.evicted.read().saturating_sub(self.evicted_before.load(Ordering::Relaxed))
    }

    /// Entries that have made room for others since the start, and texts that have.
    pub fn evictions(&self) -> (u64, u64) {
        (self.evicted.read(), self.texts_evicted.read())
    }

    /// Requests that were not counted, since their texts had made room for others meanwhile.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// All entries, those that took longest all together first.
    pub fn read(&self) -> Vec<Query> {
        let entries: Vec<(Named, Arc<Entry>)> =
            self.lock().entries.iter().map(|(named, entry)| (named.clone(), Arc::clone(entry))).collect();
        let mut queries: Vec<Query> = entries.iter().map(|(named, entry)| entry.read(named)).collect();
        queries.sort_by(|one, other| {
            other.total_time.cmp(&one.total_time).then_with(|| one.text.cmp(&other.text))
        });
        queries
    }

    /// The text of a request as it may be shown, if it is known.
    pub fn text(&self, verdict: &Verdict) -> Option<Arc<str>> {
        let known = self.lock().texts.get(&verdict.text.number()).cloned();
        known.or_else(|| unread(verdict.reason).map(Arc::from))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stands for texts that are not read.
fn unread(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::TooLong => Some("(longer than limits.statement_bytes)"),
        Reason::OldStrings => Some("(standard_conforming_strings is off)"),
        Reason::Unparsed => Some("(not read)"),
        Reason::FunctionCall => Some("(function call)"),
        _ => None,
    }
}

/// A time in microseconds, as many as fit.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn as_micros<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(micros(*time))
}

#[cfg(test)]
mod tests;
