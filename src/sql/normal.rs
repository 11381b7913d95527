//! A statement's text as it may be shown: without its literals, without comments, on one line.
//!
//! Nothing that stands for a value is kept, since it may be a password. Where the lexer cannot tell where a literal ends,
//! or the grammar refuses the text, all that is kept is the keyword that it begins with.

use super::{
    lexer::{Kind, Lexer},
    verdict::Verdict,
};

/// Stands for a literal.
const LITERAL: &str = "?";

/// Stands for what is left out.
const REST: &str = "..";

/// Words that a statement begins with. Of a text that is not read nothing else is shown: it may be anything.
const KEYWORDS: [&str; 49] = [
    "ABORT",
    "ALTER",
    "ANALYZE",
    "BEGIN",
    "CALL",
    "CHECKPOINT",
    "CLOSE",
    "CLUSTER",
    "COMMENT",
    "COMMIT",
    "COPY",
    "CREATE",
    "DEALLOCATE",
    "DECLARE",
    "DELETE",
    "DISCARD",
    "DO",
    "DROP",
    "END",
    "EXECUTE",
    "EXPLAIN",
    "FETCH",
    "GRANT",
    "IMPORT",
    "INSERT",
    "LISTEN",
    "LOAD",
    "LOCK",
    "MERGE",
    "MOVE",
    "NOTIFY",
    "PREPARE",
    "REASSIGN",
    "REFRESH",
    "REINDEX",
    "RELEASE",
    "RESET",
    "REVOKE",
    "ROLLBACK",
    "SAVEPOINT",
    "SECURITY",
    "SELECT",
    "SET",
    "SHOW",
    "START",
    "TABLE",
    "TRUNCATE",
    "UPDATE",
    "WITH",
];

/// The text as it may be shown, in at most so many bytes.
pub fn normal(verdict: &Verdict, text: &[u8], bytes_max: usize) -> String {
    let read = std::str::from_utf8(text).ok().filter(|_| !verdict.is_unread());
    let mut normal = read.and_then(|text| literal_free(text, bytes_max)).unwrap_or_else(|| keyword(text));
    if normal.len() > bytes_max {
        let end = (0..=bytes_max.saturating_sub(REST.len())).rev().find(|at| normal.is_char_boundary(*at));
        normal.truncate(end.unwrap_or(0));
        normal.push_str(REST);
    }
    normal.shrink_to_fit();
    normal
}

/// The keyword that a text begins with.
fn keyword(text: &[u8]) -> String {
    let first = Lexer::new(text)
        .find(|token| !matches!(token.kind, Kind::Space | Kind::Comment) && text[token.start] != b'(');
    let word = first
        .filter(|token| token.kind == Kind::Word)
        .map_or(&b""[..], |token| &text[token.start..token.end]);
    let known = KEYWORDS.iter().find(|known| word.eq_ignore_ascii_case(known.as_bytes()));
    known.map_or_else(|| REST.to_owned(), |known| format!("{known} {REST}"))
}

/// A list of literals behind IN: programs send it in all lengths.
#[derive(Clone, Copy)]
struct List {
    /// Where it begins in what is written.
    at: usize,
    literals: usize,
}

/// The text without literals and comments; `None` if it cannot be told where one ends.
fn literal_free(text: &str, bytes_max: usize) -> Option<String> {
    let mut out = String::with_capacity(text.len().min(bytes_max));
    let (mut pending_space, mut after_in) = (false, false);
    let mut list: Option<List> = None;
    let mut setting = Setting::Begins;
    for token in Lexer::new(text.as_bytes()) {
        let raw = &text[token.start..token.end];
        if out.len() > bytes_max && token.kind != Kind::Broken {
            // What comes is not written.
            continue;
        }
        match token.kind {
            Kind::Space | Kind::Comment => {
                pending_space = !out.is_empty();
                continue;
            }
            Kind::Broken => return None,
            _ => {}
        }
        if std::mem::take(&mut pending_space) {
            out.push(' ');
        }
        let is_literal = matches!(token.kind, Kind::Integer | Kind::Decimal | Kind::Text | Kind::Exotic);
        let hides = setting.hides(token.kind, raw);
        if is_literal || hides {
            out.push_str(LITERAL);
        } else if raw == ")" && list.is_some_and(|list| list.literals > 1) {
            let at = list.map_or(0, |list| list.at);
            out.truncate(at);
            out.push_str("?, ..)");
        } else {
            out.push_str(raw);
        }
        list = match (raw, list) {
            ("(", _) if after_in => Some(List { at: out.len(), literals: 0 }),
            ("," | "-", list) => list,
            (_, Some(List { at, literals })) if is_literal => Some(List { at, literals: literals + 1 }),
            _ => None,
        };
        after_in = token.kind == Kind::Word && raw.eq_ignore_ascii_case("in");
    }
    while out.ends_with([';', ' ']) {
        out.pop();
    }
    Some(out)
}

/// Where a text stands as to `SET name = value`, of which the value may be a word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Setting {
    /// A statement begins.
    Begins,
    /// Inside SET.
    Sets,
    /// Inside SET, where its value comes.
    Value,
    /// Inside another statement.
    No,
}

impl Setting {
    /// Takes the next token in: whether it is a part of a value.
    fn hides(&mut self, kind: Kind, raw: &str) -> bool {
        let is_word = kind == Kind::Word;
        let hides = *self == Self::Value && (is_word || kind == Kind::Quoted) && raw != ";";
        *self = match self {
            // Any => Begins
            _ if raw == ";" => Self::Begins,
            // Begins => Sets
            Self::Begins if is_word && raw.eq_ignore_ascii_case("set") => Self::Sets,
            // Sets => (Sets | Value)
            Self::Sets if raw == "=" || is_word && raw.eq_ignore_ascii_case("to") => Self::Value,
            Self::Sets => Self::Sets,
            // Value => Value
            Self::Value => Self::Value,
            // (Begins | No) => No
            Self::Begins | Self::No => Self::No,
        };
        hides
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::verdict::{Class, Reason},
        *,
    };

    fn of(text: &str) -> String {
        normal(&Verdict::new(Class::Read, Reason::ReadOnly), text.as_bytes(), 1000)
    }

    #[test]
    fn literals_and_comments_are_left_out() {
        for (text, expected) in [
            ("SELECT 1", "SELECT ?"),
            ("  SELECT\n\t a ,b FROM t WHERE x = 'S' ; ", "SELECT a ,b FROM t WHERE x = ?"),
            ("/* S */ SELECT /* S /* S */ */ $1 -- S", "SELECT $1"),
            ("SELECT E'S\\'S', U&'S', B'01', X'ff', 1.5e3, $$S$$, $t$S$t$", "SELECT ?, ?, ?, ?, ?, ?, ?"),
            ("SELECT \"a b\" FROM t", "SELECT \"a b\" FROM t"),
            ("DO $$ BEGIN PERFORM 'S'; END $$", "DO ?"),
            ("ALTER ROLE a PASSWORD 'S'", "ALTER ROLE a PASSWORD ?"),
            ("SELECT 'S'\n'S'", "SELECT ?"),
            ("SET app.token = S", "SET app.token = ?"),
            ("set local app.token to S; SELECT a", "set local app.token to ?; SELECT a"),
            ("SET search_path TO a, \"S\"", "SET search_path TO ?, ?"),
            ("UPDATE t SET a = b", "UPDATE t SET a = b"),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
    }

    #[test]
    fn lists_of_all_lengths_are_the_same() {
        for (text, expected) in [
            ("SELECT a FROM t WHERE b IN (1)", "SELECT a FROM t WHERE b IN (?)"),
            ("SELECT a FROM t WHERE b in (1, -2,3 ) AND c", "SELECT a FROM t WHERE b in (?, ..) AND c"),
            ("SELECT a FROM t WHERE b IN ('a', 'b')", "SELECT a FROM t WHERE b IN (?, ..)"),
            ("SELECT a FROM t WHERE b IN (1, c)", "SELECT a FROM t WHERE b IN (?, c)"),
            ("SELECT a FROM t WHERE b IN (SELECT 1, 2)", "SELECT a FROM t WHERE b IN (SELECT ?, ?)"),
            ("INSERT INTO t VALUES (1, 2)", "INSERT INTO t VALUES (?, ?)"),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
    }

    #[test]
    fn of_what_cannot_be_read_only_the_keyword_is_kept() {
        let unparsed = Verdict::unknown(Reason::Unparsed);
        for (text, expected) in [
            (&b"alter ROLE a PASSWORD S"[..], "ALTER .."),
            (b"/* S */ (select S", "SELECT .."),
            (b"S3CR3T", ".."),
            (b"'S'", ".."),
            (b"", ".."),
            (b"SELECT '\xff'", "SELECT .."),
        ] {
            assert_eq!(normal(&unparsed, text, 1000), expected, "{}", text.escape_ascii());
        }
        let parsed = Verdict::new(Class::Write, Reason::Utility);
        for text in [&b"ALTER ROLE a PASSWORD 'S"[..], b"ALTER ROLE a PASSWORD '\xff'", b"ALTER ROLE a /* S"]
        {
            assert_eq!(normal(&parsed, text, 1000), "ALTER ..", "{}", text.escape_ascii());
        }
        // The end counts, also where nothing is written any more.
        assert_eq!(normal(&parsed, b"ALTER ROLE a PASSWORD $$S$$, '", 5), "ALT..");
    }

    #[test]
    fn a_text_has_its_bound() {
        let long = format!("SELECT {} FROM t", "a\u{e9}".repeat(100));
        for bytes_max in 10..40 {
            let normal = normal(&Verdict::new(Class::Read, Reason::ReadOnly), long.as_bytes(), bytes_max);
            assert!(normal.len() <= bytes_max && normal.ends_with(".."), "{normal}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_none_shows_a_string(before in "[a-z0-9'\"$/*;,() =-]{0,40}", after in ".{0,20}") {
            let text = format!("{before} 'Secret' {after}");
            let normal = of(&text);
            // Inside a quoted name, of which there is no end in sight, it would be a name.
            let is_string = Lexer::new(text.as_bytes())
                .any(|token| token.kind == Kind::Text && text[token.start..token.end].contains("Secret"));
            proptest::prop_assert!(!is_string || !normal.contains("Secret"), "{text}: {normal}");
        }
    }
}
