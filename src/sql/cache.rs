//! The verdicts of texts already judged, bounded.

use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache;

use super::{
    catalog::Catalog,
    hidden::HiddenSearch,
    hint, judge,
    key::{Key, Keys},
    reading::Reading,
    recent,
    rules::Rules,
    tables::Tables,
    verdict::{Class, Reason, Verdict},
};
use crate::metrics::Evictions;

/// Judges texts by one set of rules and remembers what it judged.
pub struct Classifier {
    rules: Rules,
    keys: Keys,
    verdicts: Cache<(u64, Key), Verdict, quick_cache::UnitWeighter, foldhash::fast::RandomState, Evictions>,
    statement_bytes: usize,
    refusals: AtomicU64,
}

/// A text that was not judged yet, for [`Classifier::judge`] of the same classifier.
#[derive(Clone, Copy, Debug)]
pub struct Miss {
    key: Key,
}

impl Classifier {
    /// A classifier that remembers up to `verdicts` texts and does not read those of more than
    /// `statement_bytes`.
    pub fn new(rules: Rules, verdicts: usize, statement_bytes: usize) -> Self {
        Self::counting(rules, verdicts, statement_bytes, Evictions::default())
    }

    /// The same, which counts here the verdicts that make room for others.
    pub fn counting(rules: Rules, verdicts: usize, statement_bytes: usize, evictions: Evictions) -> Self {
        let verdicts = verdicts.max(1);
        let verdicts = Cache::with(
            verdicts,
            verdicts as u64,
            quick_cache::UnitWeighter,
            foldhash::fast::RandomState::default(),
            evictions,
        );
        Self {
            keys: Keys::new(rules.worker_tags.clone()),
            rules,
            verdicts,
            statement_bytes,
            refusals: AtomicU64::new(0),
        }
    }

    /// The rules that this classifier judges by.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The verdict of a text, if it or one that differs only in literals was judged before. Takes a fraction
    /// of a microsecond for texts of usual size.
    pub fn lookup(&self, catalog: &Catalog, text: &[u8]) -> Result<Verdict, Miss> {
        if text.len() > self.statement_bytes {
            let wishes = hint::read(text, &self.rules);
            let hides = HiddenSearch::default().finds(catalog, text);
            let verdict = if hides { Verdict::unknown(Reason::TooLong) } else { Verdict::too_long() };
            return Ok(Verdict { hint: wishes.route, consistency: wishes.consistency, ..verdict });
        }
        let key = recent::key(&self.keys, text);
        self.verdicts.get(&(catalog.epoch_of(text), key)).ok_or(Miss { key })
    }

    /// Parses a text and remembers its verdict. Takes from a microsecond to tens of milliseconds, by size.
    pub fn judge(&self, catalog: &Catalog, text: &[u8], miss: Miss) -> Verdict {
        let verdict = Verdict { text: miss.key.id(), ..judge::judge(&self.rules, catalog, text, None) };
        self.verdicts.insert((catalog.epoch_of(text), miss.key), verdict);
        verdict
    }

    /// A standby has refused to run this text, though it was judged to read only: it writes, whatever the catalog says.
    pub fn refused(&self, catalog: &Catalog, text: &[u8]) {
        let verdict = self.classify(catalog, text);
        if verdict.class != Class::Read || text.len() > self.statement_bytes {
            return;
        }
        let written =
            Verdict { class: Class::Write, reason: Reason::Refused, tables: Tables::ALL, ..verdict };
        self.verdicts.insert((catalog.epoch_of(text), recent::key(&self.keys, text)), written);
        self.refusals.fetch_add(1, Ordering::Release);
    }

    /// How often a text was found to be something else than it was judged to be: what was judged before is judged anew.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Acquire)
    }

    /// The verdict of a text that the server reads otherwise than it is classified: it may do anything.
    pub fn unread(reading: Reading, text: &[u8]) -> Option<Verdict> {
        match reading {
            Reading::OldStrings => Some(Verdict::old_strings()),
            _ if !reading.fits(text) => Some(Verdict::unknown(Reason::Unparsed)),
            _ => None,
        }
    }

    /// [`Classifier::lookup`], then [`Classifier::judge`] if need be.
    pub fn classify(&self, catalog: &Catalog, text: &[u8]) -> Verdict {
        self.lookup(catalog, text).unwrap_or_else(|miss| self.judge(catalog, text, miss))
    }
}

impl std::fmt::Debug for Classifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Classifier").field("remembered", &self.verdicts.len()).finish_non_exhaustive()
    }
}
