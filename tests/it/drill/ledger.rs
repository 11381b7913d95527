//! What writers were told of their rows, and whether the rows that are there agree with it.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::support::Postgres;

/// Rows of one unit of work, numbered from 1.
pub(super) const PARTS: usize = 2;

/// What a writer was told of one unit of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It is done.
    Done,
    /// An error that says that nothing of it is there.
    NotRun,
    /// An error that says that this is not known, or the end of the connection.
    Unknown,
}

/// Units of work by their keys: who did it, and what it was told.
#[derive(Default)]
pub(super) struct Ledger(BTreeMap<String, (String, Told)>);

/// What does not agree.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    /// Acknowledged and not there, or there in part.
    pub(super) lost: usize,
    /// There twice, or there although said not to be.
    pub(super) doubled: usize,
    /// Each of them in words.
    pub(super) words: String,
    /// Units that were acknowledged.
    pub(super) done: usize,
    /// Units of which it was not known.
    pub(super) unknown: usize,
}

/// The rows of one unit as the server has them.
#[derive(Default)]
struct Found {
    rows: usize,
    parts: usize,
    writers: String,
}

impl Ledger {
    /// What is known of a unit of `who`, from now on.
    pub(super) fn enter(&mut self, key: &str, who: &str, told: Told) {
        self.0.insert(key.to_owned(), (who.to_owned(), told));
    }

    /// Whether it has this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Compares with the rows of a table whose keys begin with `run`, straight at the servers that have them.
    pub(super) async fn compare(&self, run: &str, tables: &[(&Postgres, &str)]) -> Verdict {
        let mut found = BTreeMap::<String, Found>::new();
        for (server, table) in tables {
            let sql = format!(
                "SELECT key, count(*), count(DISTINCT part), string_agg(DISTINCT who, ',') FROM {table} \
                 WHERE key LIKE '{run}-%' GROUP BY key"
            );
            for row in server.query(&sql).await {
                let mut columns = row.into_iter().map(Option::unwrap_or_default);
                let key = columns.next().unwrap_or_default();
                let mut count =
                    || columns.next().and_then(|text| text.parse::<usize>().ok()).unwrap_or_default();
                let entry = found.entry(key).or_default();
                entry.rows += count();
                entry.parts += count();
                entry.writers += &columns.next().unwrap_or_default();
            }
        }
        self.judge(&found)
    }

    fn judge(&self, found: &BTreeMap<String, Found>) -> Verdict {
        let nothing = Found::default();
        let mut verdict = Verdict::default();
        for (key, (who, told)) in &self.0 {
            let there = found.get(key).unwrap_or(&nothing);
            let is_part = there.parts != PARTS && there.parts != 0;
            let is_lost = is_part || (*told == Told::Done && there.parts == 0);
            let is_doubled = there.rows > there.parts || (*told == Told::NotRun && there.rows > 0);
            let is_foreign = there.rows > 0 && there.writers != *who;
            verdict.lost += usize::from(is_lost);
            verdict.doubled += usize::from(is_doubled || is_foreign);
            verdict.done += usize::from(*told == Told::Done);
            verdict.unknown += usize::from(*told == Told::Unknown);
            if is_lost || is_doubled || is_foreign {
                let Found { rows, parts, writers } = there;
                writeln!(
                    verdict.words,
                    "{key} of {who} was told {told:?}: {rows} rows, {parts} of {PARTS} parts, by `{writers}`"
                )
                .expect("text takes text");
            }
        }
        for (key, there) in found.iter().filter(|(key, _)| !self.0.contains_key(*key)) {
            verdict.doubled += 1;
            writeln!(verdict.words, "{key}: {} rows that nobody wrote", there.rows).expect("text takes text");
        }
        verdict
    }
}

#[test]
fn a_ledger_sees_what_is_lost_and_doubled() {
    let rows = |rows, parts, writers: &str| Found { rows, parts, writers: writers.to_owned() };
    for (told, there, lost, doubled) in [
        (Told::Done, Some(rows(2, 2, "a")), 0, 0),
        (Told::Done, None, 1, 0),
        (Told::Done, Some(rows(1, 1, "a")), 1, 0),
        (Told::Done, Some(rows(4, 2, "a")), 0, 1),
        (Told::Done, Some(rows(2, 2, "b")), 0, 1),
        (Told::NotRun, None, 0, 0),
        (Told::NotRun, Some(rows(2, 2, "a")), 0, 1),
        (Told::Unknown, None, 0, 0),
        (Told::Unknown, Some(rows(2, 2, "a")), 0, 0),
        (Told::Unknown, Some(rows(1, 1, "a")), 1, 0),
        (Told::Unknown, Some(rows(4, 2, "a")), 0, 1),
    ] {
        let mut ledger = Ledger::default();
        ledger.enter("k", "a", told);
        let found: BTreeMap<_, _> = there.into_iter().map(|there| ("k".to_owned(), there)).collect();
        let verdict = ledger.judge(&found);
        assert_eq!((verdict.lost, verdict.doubled), (lost, doubled), "{told:?}: {}", verdict.words);
    }
    let found = [("k".to_owned(), rows(2, 2, "a"))].into();
    assert_eq!(Ledger::default().judge(&found).doubled, 1, "rows of nobody");
}
