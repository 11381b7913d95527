//! Every job by its value, on both databases, against what its writer was told.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    Victim, Yard,
    load::{Fate, Way, Written, key},
};

/// Faults that are told in words; all are counted.
const TOLD: usize = 20;

/// What has become of all jobs.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Transactions that were told to be committed, rolled back, and neither.
    pub(crate) committed: u64,
    pub(crate) rolled_back: u64,
    pub(crate) unknown: u64,
    /// Jobs that were enqueued by themselves, and how many of these have an unknown end.
    pub(crate) alone: u64,
    alone_unknown: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) of_rolled_back: u64,
    /// Jobs that the job database was made to refuse, and that were set aside.
    pub(crate) refused: u64,
    /// With the job behind the commit: rows, and of these the ones without a job, by who was killed in their round.
    rows: u64,
    rows_without_job: BTreeMap<Victim, u64>,
    /// What must not be, in words.
    pub(crate) wrong: Vec<String>,
}

/// What both databases have.
#[derive(Default)]
struct Found {
    /// The application's rows.
    orders: BTreeSet<String>,
    /// How often each job has come.
    arrivals: BTreeMap<String, u64>,
    /// Jobs that were set aside.
    refused: Vec<String>,
}

pub(super) async fn compare(
    yard: &Yard,
    written: &Written,
    refused: &[String],
    victim_of: impl Fn(u64) -> Victim,
) -> Verdict {
    let texts = |rows: Vec<Vec<Option<String>>>| rows.into_iter().flatten().flatten();
    let orders = texts(yard.primary.query("SELECT key FROM orders").await).collect();
    let arrived =
        "SELECT concat_ws(', of ', worker, CASE WHEN args ->> 'key' <> worker THEN args END) FROM arrivals";
    let mut arrivals = BTreeMap::new();
    for key in texts(yard.jobs.query(arrived).await) {
        *arrivals.entry(key).or_default() += 1;
    }
    let set_aside = "SELECT row ->> 'worker' FROM bulkhead.refused ORDER BY id";
    let found = Found { orders, arrivals, refused: texts(yard.primary.query(set_aside).await).collect() };
    judge(written, refused, &found, victim_of)
}

fn judge(written: &Written, refused: &[String], found: &Found, victim_of: impl Fn(u64) -> Victim) -> Verdict {
    let mut verdict = Verdict::default();
    for ((way, number), fate) in written {
        let key = key(*way, *number);
        let came = found.arrivals.get(&key).copied().unwrap_or(0);
        let has_row = found.orders.contains(&key);
        match way {
            Way::Within => verdict.take_within(&key, *fate, has_row, came),
            Way::Alone => verdict.take_alone(&key, *fate, came),
            Way::Behind => {
                verdict.rows += u64::from(has_row);
                let without = has_row && came == 0;
                *verdict.rows_without_job.entry(victim_of(*number)).or_default() += u64::from(without);
            }
        }
    }
    let known: BTreeSet<String> = written.keys().map(|(way, number)| key(*way, *number)).collect();
    for stranger in found.arrivals.keys().filter(|key| !known.contains(*key)) {
        verdict.doubled += 1;
        verdict.say(format!("`{stranger}` was written by nobody"));
    }
    verdict.refused = found.refused.len() as u64;
    let mut set_aside = found.refused.clone();
    set_aside.sort();
    let mut expected = refused.to_vec();
    expected.sort();
    if set_aside != expected {
        verdict.say(format!("set aside are {set_aside:?}, refused were {expected:?}"));
    }
    verdict
}

impl Verdict {
    /// Transactions in all.
    pub(crate) fn within(&self) -> u64 {
        self.committed + self.rolled_back + self.unknown
    }

    fn say(&mut self, what: String) {
        if self.wrong.len() < TOLD {
            self.wrong.push(what);
        }
    }

    /// The application's row tells whether its transaction has committed, also where its client was not told.
    fn take_within(&mut self, key: &str, fate: Fate, has_row: bool, came: u64) {
        let wanted = match fate {
            Fate::Committed => true,
            Fate::RolledBack => false,
            Fate::Unknown => has_row,
        };
        match fate {
            Fate::Committed => self.committed += 1,
            Fate::RolledBack => self.rolled_back += 1,
            Fate::Unknown => self.unknown += 1,
        }
        self.lost += u64::from(wanted && (came == 0 || !has_row));
        self.doubled += u64::from(came > 1);
        self.of_rolled_back += u64::from(!wanted && (came > 0 || has_row));
        if came != u64::from(wanted) || has_row != wanted {
            let row = if has_row { "is" } else { "is not" };
            self.say(format!("`{key}`, {fate:?}: its row {row} there, its job came {came} times"));
        }
    }

    fn take_alone(&mut self, key: &str, fate: Fate, came: u64) {
        self.alone += 1;
        self.alone_unknown += u64::from(fate == Fate::Unknown);
        let is_lost = fate == Fate::Committed && came == 0;
        self.lost += u64::from(is_lost);
        self.doubled += u64::from(came > 1);
        if is_lost || came > 1 {
            self.say(format!("`{key}`, {fate:?}: it came {came} times"));
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { committed, rolled_back, unknown, alone, alone_unknown, .. } = self;
        writeln!(
            f,
            "{} jobs within transactions ({committed} committed, {rolled_back} rolled back, {unknown} told to be unknown), \
             {alone} alone ({alone_unknown} told to be unknown), {} refused and set aside: {} lost, {} doubled, {} of \
             transactions that were rolled back",
            self.within(),
            self.refused,
            self.lost,
            self.doubled,
            self.of_rolled_back
        )?;
        let without: u64 = self.rows_without_job.values().sum();
        write!(
            f,
            "beside them, with the job behind the commit: {} rows, {without} without their job ({:.1} %), by who was \
             killed: {:?}",
            self.rows,
            without as f64 * 100.0 / (self.rows as f64).max(1.0),
            self.rows_without_job
        )
    }
}

#[test]
fn a_verdict_sees_what_is_lost_doubled_and_of_a_rolled_back_transaction() {
    let judged = |way, fate, has_row: bool, came: u64| {
        let key = key(way, 0);
        let found = Found {
            orders: has_row.then(|| key.clone()).into_iter().collect(),
            arrivals: BTreeMap::from([(key, came)]),
            refused: Vec::new(),
        };
        let verdict = judge(&BTreeMap::from([((way, 0), fate)]), &[], &found, |_| Victim::Jobs);
        assert_eq!(
            verdict.wrong.is_empty(),
            verdict.lost + verdict.doubled + verdict.of_rolled_back == 0,
            "{verdict}"
        );
        (verdict.lost, verdict.doubled, verdict.of_rolled_back)
    };
    for (fate, has_row, came, wanted) in [
        (Fate::Committed, true, 1, (0, 0, 0)),
        (Fate::Committed, true, 0, (1, 0, 0)),
        (Fate::Committed, false, 1, (1, 0, 0)),
        (Fate::Committed, true, 2, (0, 1, 0)),
        (Fate::RolledBack, false, 0, (0, 0, 0)),
        (Fate::RolledBack, false, 1, (0, 0, 1)),
        (Fate::RolledBack, true, 0, (0, 0, 1)),
        (Fate::Unknown, true, 1, (0, 0, 0)),
        (Fate::Unknown, true, 0, (1, 0, 0)),
        (Fate::Unknown, false, 0, (0, 0, 0)),
        (Fate::Unknown, false, 1, (0, 0, 1)),
    ] {
        assert_eq!(judged(Way::Within, fate, has_row, came), wanted, "{fate:?} {has_row} {came}");
    }
    for (fate, came, wanted) in [
        (Fate::Committed, 1, (0, 0, 0)),
        (Fate::Committed, 0, (1, 0, 0)),
        (Fate::Unknown, 0, (0, 0, 0)),
        (Fate::Unknown, 2, (0, 1, 0)),
    ] {
        assert_eq!(judged(Way::Alone, fate, false, came), wanted, "{fate:?} {came}");
    }
}

#[test]
fn a_verdict_sees_strangers_and_what_was_not_set_aside_once() {
    let stranger = Found { arrivals: BTreeMap::from([("another".to_owned(), 1)]), ..Found::default() };
    assert_eq!(judge(&Written::new(), &[], &stranger, |_| Victim::Jobs).doubled, 1);
    for set_aside in [vec![], vec!["a".to_owned(), "a".to_owned()]] {
        let found = Found { refused: set_aside, ..Found::default() };
        let verdict = judge(&Written::new(), &["a".to_owned()], &found, |_| Victim::Jobs);
        assert_eq!(verdict.wrong.len(), 1, "{verdict}");
    }
}

#[test]
fn rows_behind_whose_commit_no_job_came_are_counted() {
    let written = [0, 1].map(|number| ((Way::Behind, number), Fate::Committed)).into();
    let found = Found {
        orders: [0, 1].map(|number| key(Way::Behind, number)).into(),
        arrivals: [(key(Way::Behind, 0), 1)].into(),
        refused: Vec::new(),
    };
    let verdict = judge(&written, &[], &found, |_| Victim::Primary);
    assert_eq!((verdict.rows, verdict.rows_without_job[&Victim::Primary]), (2, 1));
    assert!(verdict.wrong.is_empty());
}
