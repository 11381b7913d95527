//! What a thread has found lately: which texts are known, and the entries that its requests were counted for. Each has one
//! place, and gives it up to another one; then it is looked for again where all are.

use std::{
    cell::RefCell,
    sync::{Arc, atomic::Ordering},
};

use super::{By, Entry, Queries};
use crate::{
    route::PoolId,
    sql::{TextId, Verdict},
};

/// Places of each kind.
const PLACES: usize = 1024;

thread_local! {
    static FRONT: RefCell<Front> = const { RefCell::new(Front { number: 0, forgot_texts: 0, texts: Vec::new(), entries: Vec::new() }) };
}

struct Front {
    /// The statistics that it is of.
    number: u64,
    forgot_texts: u32,
    texts: Vec<u64>,
    entries: Vec<Option<Found>>,
}

struct Found {
    text: u64,
    identity: u64,
    pool: PoolId,
    entry: Arc<Entry>,
}

/// Whether a text is known.
pub(super) fn knows(queries: &Queries, text: TextId) -> bool {
    FRONT.with_borrow_mut(|front| {
        front.turn_to(queries);
        let forgot_texts = queries.forgot_texts.load(Ordering::Acquire);
        if front.forgot_texts != forgot_texts {
            front.forgot_texts = forgot_texts;
            front.texts.fill(0);
        }
        front.texts[place(text.number())] == text.number()
    })
}

/// A text is known from now on.
pub(super) fn learned(queries: &Queries, text: TextId) {
    FRONT.with_borrow_mut(|front| {
        front.turn_to(queries);
        front.texts[place(text.number())] = text.number();
    });
}

/// Does something with the entry of a request. False if there is none.
#[inline]
pub(super) fn with_entry(
    queries: &Queries,
    verdict: &Verdict,
    by: By<'_>,
    use_it: impl FnOnce(&Entry),
) -> bool {
    // What is not read has numbers that no text has.
    let text =
        if verdict.text == TextId::NONE { (verdict.reason as u64 + 1) << 1 } else { verdict.text.number() };
    let identity = by.identity.hash;
    let at = place(text ^ identity.rotate_left(7) ^ u64::from(by.pool.0).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    FRONT.with_borrow_mut(|front| {
        front.turn_to(queries);
        if let Some(found) = &front.entries[at]
            && (found.text, found.identity, found.pool) == (text, identity, by.pool)
            && found.entry.is_of(by.pool_name)
        {
            use_it(&found.entry);
            return true;
        }
        front.find(queries, verdict, by, (at, text), use_it)
    })
}

fn place(number: u64) -> usize {
    (number >> 20) as usize % PLACES
}

impl Front {
    /// Goes over to these statistics.
    #[inline]
    fn turn_to(&mut self, queries: &Queries) {
        if self.number != queries.number {
            self.clear(queries.number);
        }
    }

    #[cold]
    fn clear(&mut self, number: u64) {
        self.texts = vec![0; PLACES];
        self.entries = std::iter::repeat_with(|| None).take(PLACES).collect();
        self.number = number;
    }

    #[cold]
    fn find(
        &mut self,
        queries: &Queries,
        verdict: &Verdict,
        by: By<'_>,
        (at, text): (usize, u64),
        use_it: impl FnOnce(&Entry),
    ) -> bool {
        self.entries[at] = None;
        let Some(entry) = queries.find(verdict, by) else {
            // It is to be learned again.
            self.texts[place(text)] = 0;
            return false;
        };
        use_it(&entry);
        self.entries[at] = Some(Found { text, identity: by.identity.hash, pool: by.pool, entry });
        true
    }
}
