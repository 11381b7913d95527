//! Two texts with the same key have the same verdict; and nothing panics, whatever the bytes.

use std::collections::HashMap;

use proptest::prelude::*;

use super::{catalog, rules};
use crate::sql::{Classifier, Verdict, judge, key::Keys, lexer::Lexer, tags::Tags};

/// Pieces that texts are made of. Literals of all kinds, also half ones; words that make literals decide.
const PIECES: &[&str] = &[
    "SELECT",
    "SELECT",
    "FROM",
    "WHERE",
    "INSERT INTO t VALUES (",
    "(",
    ")",
    ",",
    ";",
    "=",
    "::",
    ".",
    "-",
    "+",
    "/",
    "*",
    "||",
    "AND",
    "NOT",
    "IN",
    "a",
    "t",
    "users",
    "oban_jobs",
    "pgboss.job",
    "1",
    "22",
    "3000000000",
    "1.5",
    ".5",
    "1.",
    "1e5",
    "0x1F",
    "1_0",
    "1a",
    "'a'",
    "'b'",
    "'it''s'",
    "'oban_jobs'",
    "'public.oban_insert'",
    "'pgboss.job'",
    "''",
    "E'\\''",
    "E'\\x41'",
    "E'\\xff'",
    "E'a'",
    "U&'a'",
    "U&\"a\"",
    "$$a$$",
    "$q$b$q$",
    "$$oban_jobs$$",
    "B'01'",
    "B'1'",
    "X'f'",
    "N'a'",
    "\"a\"",
    "\"oban_jobs\"",
    "\"regclass\"",
    "regclass",
    "::regclass",
    "to_regclass(",
    "pg_notify(",
    "set_config(",
    "nextval(",
    "pg_class",
    "relname",
    "information_schema.tables",
    "DO",
    "LISTEN",
    "NOTIFY",
    "SET",
    "TO",
    "true",
    "false",
    "$1",
    "$2",
    "NULL",
    "/* c */",
    "-- c\n",
    "/* bulkhead: route=job */",
    "/* a /* b */ */",
    "UESCAPE",
    "INTERVAL",
    "LIMIT",
    "FETCH",
    "varchar(",
    "AS",
    "LIKE",
    "ON CONFLICT DO NOTHING",
    "'",
    "\"",
    "$",
    "$$",
    "\\",
    "/*",
    "é",
    "\u{b}",
    "CREATE FUNCTION f() RETURNS int AS",
    "EXECUTE p",
    "lower(",
    "pg_advisory_lock(",
    "SAVEPOINT",
    "BEGIN",
    "COMMENT ON TABLE t IS",
    "COPY t FROM",
    "STDIN",
];

const GAPS: &[&str] = &["", " ", " ", " ", "  ", "\n", "\t", " /* x */ ", " -- x\n", "/**/"];

fn text() -> impl Strategy<Value = String> {
    let piece = (prop::sample::select(PIECES), prop::sample::select(GAPS));
    prop::collection::vec(piece, 1..12)
        .prop_map(|pieces| pieces.into_iter().flat_map(|(piece, gap)| [piece, gap]).collect())
}

/// Another text that may have the same key: every literal exchanged for another.
fn other_literals(text: &str, pick: &[usize]) -> String {
    let literals: Vec<&str> = PIECES
        .iter()
        .copied()
        .filter(|piece| piece.starts_with(|c: char| "'$EUBXN0123456789.".contains(c)))
        .collect();
    let mut pick = pick.iter().copied().cycle();
    let mut other = String::new();
    for token in Lexer::new(text.as_bytes()) {
        let raw = text.get(token.start..token.end).unwrap_or_default();
        let literal = raw.starts_with(|c: char| c == '\'' || c == '$' || c.is_ascii_digit());
        let exchanged = literals[pick.next().unwrap_or(0) % literals.len()];
        other.push_str(if literal { exchanged } else { raw });
    }
    other
}

fn verdict(text: &str) -> Verdict {
    judge::judge(&rules(), &catalog(), text.as_bytes(), None)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn same_key_same_verdict(text in text(), picks in prop::collection::vec(any::<usize>(), 6)) {
        let keys = Keys::new(Tags::default());
        let other = other_literals(&text, &picks);
        if keys.key(text.as_bytes()) == keys.key(other.as_bytes()) {
            prop_assert_eq!(verdict(&text), verdict(&other), "{:?} | {:?}", text, other);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let classifier = Classifier::new(rules(), 16, 1 << 20);
        classifier.classify(&catalog(), &bytes);
        rules().value_names_job(&bytes);
    }

    #[test]
    fn no_text_panics(text in text()) {
        let classifier = Classifier::new(rules(), 16, 1 << 20);
        let first = classifier.classify(&catalog(), text.as_bytes());
        prop_assert_eq!(first, classifier.classify(&catalog(), text.as_bytes()));
        crate::sql::setting_names(text.as_bytes());
        crate::sql::deallocate_target(text.as_bytes());
        crate::sql::explain(&rules(), &catalog(), text.as_bytes()).to_string();
    }
}

/// Statements that the grammar accepts with most literals in the gaps.
const TEMPLATES: &[&str] = &[
    "SELECT * FROM t WHERE a = {} AND b IN ({}, {})",
    "INSERT INTO t VALUES ({}, {}), ({}, {}) ON CONFLICT DO NOTHING",
    "UPDATE oban_jobs SET a = {} WHERE b = {}",
    "SELECT pg_notify({}, {})",
    "SELECT set_config({}, {}, false), {}",
    "SELECT {}::regclass, {}::text",
    "SELECT to_regclass({}), lower({})",
    "SELECT 1 FROM pg_class WHERE relname = {} AND relkind = {}",
    "SELECT a FROM audit WHERE table_name = {}",
    "DO {}",
    "SELECT 1; DO {}",
    "NOTIFY a, {}",
    "SET a = {}",
    "SET a.b TO {}, {}",
    "SELECT nextval({}), {}",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS {}",
    "COMMENT ON TABLE t IS {}",
    "SELECT a LIKE {} ESCAPE {} FROM t LIMIT {}",
    "SELECT interval {}, date {}, {} + {}",
    "SELECT * FROM information_schema.tables WHERE table_name = ANY({})",
    "SELECT my_volatile({}), {}",
    "COPY t FROM {}",
    "BEGIN; SELECT {}; COMMIT",
];

/// Each template with each literal in each gap, all against each other.
#[test]
fn all_literals_in_templates() {
    let keys = Keys::new(Tags::default());
    let (rules, catalog) = (rules(), catalog());
    let is_literal = |piece: &&&str| {
        piece.starts_with(|c: char| "'$EUBXN.".contains(c) || c.is_ascii_digit()) && piece.len() > 1
    };
    let literals: Vec<&str> = PIECES.iter().filter(is_literal).copied().collect();
    let (mut verdicts, mut shared) = (HashMap::<_, (Verdict, String)>::new(), 0);
    for template in TEMPLATES {
        for one in &literals {
            for two in &literals {
                let text = template.replacen("{}", one, 1).replace("{}", two);
                let verdict = judge::judge(&rules, &catalog, text.as_bytes(), None);
                let entry = verdicts.entry(keys.key(text.as_bytes()));
                shared += usize::from(matches!(entry, std::collections::hash_map::Entry::Occupied(_)));
                let known = entry.or_insert((verdict, text.clone()));
                assert_eq!(known.0, verdict, "{:?} | {text:?}", known.1);
            }
        }
    }
    assert!(shared > 5_000, "the test means something only if many texts share a key: {shared}");
}

/// Many short texts against each other: those that share a key share a verdict.
#[test]
fn all_pairs_of_pieces() {
    let keys = Keys::new(Tags::default());
    let (rules, catalog) = (rules(), catalog());
    let mut verdicts: HashMap<_, (Verdict, String)> = HashMap::new();
    for first in PIECES {
        for second in PIECES {
            for gap in ["", " ", "\n", "/* x */", "-- x\n"] {
                for start in ["SELECT ", "SELECT pg_notify('a', ", ""] {
                    let text = format!("{start}{first}{gap}{second}");
                    let verdict = judge::judge(&rules, &catalog, text.as_bytes(), None);
                    let known = verdicts.entry(keys.key(text.as_bytes())).or_insert((verdict, text.clone()));
                    assert_eq!(known.0, verdict, "{:?} | {text:?}", known.1);
                }
            }
        }
    }
}

#[test]
fn the_cache_answers_for_other_literals() {
    let classifier = Classifier::new(rules(), 100, 1 << 20);
    let catalog = catalog();
    let first = b"SELECT abalance FROM pgbench_accounts WHERE aid = 1";
    let miss = classifier.lookup(&catalog, first).expect_err("nothing was judged yet");
    let verdict = classifier.judge(&catalog, first, miss);
    let other = b"SELECT abalance FROM pgbench_accounts WHERE aid = 2";
    assert_eq!(classifier.lookup(&catalog, other).expect("it differs in a literal only"), verdict);
    let reread = crate::sql::Catalog::from_rows(2, [("function", "f")]);
    assert!(classifier.lookup(&reread, other).is_err());
    let long = vec![b' '; (1 << 20) + 1];
    assert_eq!(classifier.classify(&catalog, &long).reason, crate::sql::Reason::TooLong);
}
