//! A statement's identity without its literals: two texts with the same key have the same verdict.
//!
//! One pass over the text, no allocation. White space counts as one blank, comments as white space,
//! numbers and strings as a mark of their kind. Where a literal may decide the verdict
//! ([`keeps_literals`]), or is of a rare form, the whole text counts as it stands.

use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::{SharedSeed, fast::SeedableRandomState};

use super::{
    hint,
    lexer::{Kind, Lexer},
    tags::Tags,
};

/// 128 bits; the seeds are random, so nobody outside can look for two texts with the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(u64, u64);

impl Hash for Key {
    /// One half is random enough to find a place by; both are compared.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// Makes keys. Keys of two makers cannot be compared.
pub(super) struct Keys {
    low: SeedableRandomState,
    high: SeedableRandomState,
    maker: u64,
    /// Comments do not count, but for these.
    tags: Tags,
}

/// A literal that begins with a digit or a quote, and whose value is not in the key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Literal {
    /// Where it stands in the text.
    pub(super) start: usize,
    pub(super) end: usize,
    /// It is a string, and not an integer.
    pub(super) is_text: bool,
}

/// Marks in the place of literals. As raw bytes in a text they are kept apart: see `Stream::raw`.
mod mark {
    pub(super) const SPACE: u64 = 1 << 56;
    pub(super) const INTEGER: u64 = 2 << 56;
    pub(super) const DECIMAL: u64 = 3 << 56;
    pub(super) const TEXT: u64 = 4 << 56;
    pub(super) const HINT: u64 = 5 << 56;
    pub(super) const TAG: u64 = 8 << 56;
    pub(super) const EXACT: u64 = 6 << 56;
    pub(super) const END: u64 = 7 << 56;
}

impl Keys {
    pub(super) fn new(tags: Tags) -> Self {
        let random = || getrandom::u64().unwrap_or_else(|_| SeedableRandomState::random().hash_one(0));
        let state = || SeedableRandomState::with_seed(random(), SharedSeed::global_random());
        Self { low: state(), high: state(), maker: random(), tags }
    }

    /// Tells this maker from others.
    pub(super) const fn maker(&self) -> u64 {
        self.maker
    }

    /// The key of a text.
    pub(super) fn key(&self, text: &[u8]) -> Key {
        self.key_and_literals(text, |_| {}).0
    }

    /// The key of a text, and whether others like them may stand in the place of its literals, each of which is noted.
    pub(super) fn key_and_literals(&self, text: &[u8], note: impl FnMut(Literal)) -> (Key, bool) {
        self.literal_free(text, note).unwrap_or_else(|| {
            let mut stream = self.stream();
            stream.cut(text, mark::EXACT);
            (stream.finish(), false)
        })
    }

    fn stream(&self) -> Stream<impl Hasher> {
        Stream { low: self.low.build_hasher(), high: self.high.build_hasher() }
    }

    /// `None`: the text counts as it stands.
    fn literal_free(&self, text: &[u8], mut note: impl FnMut(Literal)) -> Option<(Key, bool)> {
        // What is no UTF-8 is not parsed: it is not the same as a text that is.
        if !text.is_ascii() && std::str::from_utf8(text).is_err() {
            return None;
        }
        let mut stream = self.stream();
        let mut begins = true;
        let mut run = 0;
        let mut may_vary = true;
        if self.tags.are_in(text) {
            stream.cut(&[], mark::TAG);
        }
        if let Some(comment) = hint::comment(text) {
            stream.cut(comment, mark::HINT);
        }
        for token in Lexer::new(text) {
            let mark = match token.kind {
                Kind::Symbol => {
                    begins = text[token.start] == b';';
                    continue;
                }
                Kind::Word => {
                    if decides(&text[token.start..token.end], begins) {
                        return None;
                    }
                    begins = false;
                    continue;
                }
                Kind::Quoted => {
                    if decides(&text[token.start + 1..token.end - 1], false) {
                        return None;
                    }
                    begins = false;
                    continue;
                }
                Kind::Space if text[token.start..token.end] == *b" " => continue,
                Kind::Space => mark::SPACE,
                Kind::Comment => {
                    may_vary = false;
                    mark::SPACE
                }
                Kind::Integer => mark::INTEGER,
                Kind::Decimal => mark::DECIMAL,
                Kind::Text => mark::TEXT,
                Kind::Exotic | Kind::Broken => return None,
            };
            let is_text = text[token.start] == b'\'';
            if is_text || mark == mark::INTEGER {
                note(Literal { start: token.start, end: token.end, is_text });
            }
            stream.cut(&text[run..token.start], mark);
            run = token.end;
        }
        stream.cut(&text[run..], mark::END);
        Some((stream.finish(), may_vary))
    }
}

struct Stream<H> {
    low: H,
    high: H,
}

impl<H: Hasher> Stream<H> {
    /// A run of bytes as they stand and what comes after it. The length goes in with the mark, so that no
    /// two sequences of runs and marks give the same stream.
    #[inline]
    fn cut(&mut self, raw: &[u8], mark: u64) {
        let end = mark | raw.len() as u64;
        if !raw.is_empty() {
            self.low.write(raw);
            self.high.write(raw);
        }
        self.low.write_u64(end);
        self.high.write_u64(end);
    }

    fn finish(&self) -> Key {
        Key(self.low.finish(), self.high.finish())
    }
}

/// Whether a literal of this text may decide its verdict. Only then does the judge look at literals, so
/// that a text whose literals are not in its key cannot be judged by them.
pub(super) fn keeps_literals(text: &[u8]) -> bool {
    let mut begins = true;
    for token in Lexer::new(text) {
        let raw = &text[token.start..token.end];
        match token.kind {
            Kind::Space | Kind::Comment => {}
            Kind::Exotic | Kind::Broken => return true,
            Kind::Word if decides(raw, begins) => return true,
            Kind::Quoted if decides(&raw[1..raw.len() - 1], false) => return true,
            _ => begins = raw == b";",
        }
    }
    false
}

/// Words whose presence means that a literal may name an object, a channel, a setting or a program.
#[inline]
fn decides(word: &[u8], begins: bool) -> bool {
    let Some(&first) = word.first() else {
        return false;
    };
    match first | 0x20 {
        b'p' => has_prefix(word, b"pg_"),
        b'r' => has_prefix(word, b"reg") && REG_TYPES.iter().any(|name| word.eq_ignore_ascii_case(name)),
        b't' => has_prefix(word, b"to_reg"),
        b's' => {
            word.eq_ignore_ascii_case(b"set_config")
                || word.eq_ignore_ascii_case(b"setval")
                || word.eq_ignore_ascii_case(b"standard_conforming_strings")
        }
        b'n' => word.eq_ignore_ascii_case(b"nextval") || word.eq_ignore_ascii_case(b"names"),
        b'c' => {
            word.eq_ignore_ascii_case(b"currval")
                || word.eq_ignore_ascii_case(b"col_description")
                || word.eq_ignore_ascii_case(b"client_encoding")
        }
        b'o' => word.eq_ignore_ascii_case(b"obj_description"),
        b'i' => word.eq_ignore_ascii_case(b"information_schema"),
        b'd' => begins && word.eq_ignore_ascii_case(b"do"),
        _ => false,
    }
}

#[inline]
fn has_prefix(word: &[u8], prefix: &[u8]) -> bool {
    word.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Types that read a name out of a string.
pub(super) const REG_TYPES: [&[u8]; 11] = [
    b"regclass",
    b"regcollation",
    b"regconfig",
    b"regdictionary",
    b"regnamespace",
    b"regoper",
    b"regoperator",
    b"regproc",
    b"regprocedure",
    b"regrole",
    b"regtype",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_plain_literals_out() {
        let keys = Keys::new(Tags::default());
        let same = [
            ("SELECT 1", "SELECT 42"),
            ("SELECT a FROM t WHERE x = 'one'", "SELECT a FROM t WHERE x = 'it''s'"),
            ("SELECT 'a'", "SELECT $$b$$"),
            ("SELECT 1.5", "SELECT 99999999999"),
            ("SELECT  1", "SELECT\n\t1"),
            ("SELECT 1 /* a */", "SELECT 1 /* b */"),
            ("UPDATE t SET a = -5 WHERE b = 1", "UPDATE t SET a = -6 WHERE b = 2"),
        ];
        for (one, two) in same {
            assert_eq!(keys.key(one.as_bytes()), keys.key(two.as_bytes()), "{one} | {two}");
        }
    }

    #[test]
    fn keeps_what_may_decide() {
        let keys = Keys::new(Tags::default());
        let different = [
            ("SELECT 1", "SELECT '1'"),
            ("SELECT 1", "SELECT 1.0"),
            ("SELECT 1", "SELECT 3000000000"),
            ("SELECT a", "SELECT A"),
            ("SELECT $1", "SELECT $2"),
            ("SELECT ab", "SELECT a b"),
            ("SELECT pg_notify('a', '')", "SELECT pg_notify('b', '')"),
            ("SELECT 'a'::regclass", "SELECT 'b'::regclass"),
            ("SELECT 'a'::\"regclass\"", "SELECT 'b'::\"regclass\""),
            ("SELECT to_regclass('a')", "SELECT to_regclass('b')"),
            ("SELECT 1 FROM PG_class WHERE x = 'a'", "SELECT 1 FROM PG_class WHERE x = 'b'"),
            ("DO 'a'", "DO 'b'"),
            ("SELECT 1; DO 'a'", "SELECT 1; DO 'b'"),
            ("/* bulkhead: route=read */ SELECT 1", "/* bulkhead: route=job */ SELECT 1"),
            ("SELECT 'a' 'b'", "SELECT 'a'\n'b'"),
            ("SELECT 1abc", "SELECT 2abc"),
            ("SELECT E'\\x41'", "SELECT E'\\xff'"),
            ("SET NAMES 'utf8'", "SET NAMES 'sjis'"),
            ("SET client_encoding TO 'utf8'", "SET client_encoding TO 'gbk'"),
        ];
        for (one, two) in different {
            assert_ne!(keys.key(one.as_bytes()), keys.key(two.as_bytes()), "{one} | {two}");
        }
        assert_ne!(keys.key(b"SELECT 'a'"), keys.key(b"SELECT '\xe9'"));
        let upsert = |value| format!("INSERT INTO t VALUES ('{value}') ON CONFLICT DO NOTHING");
        assert_eq!(keys.key(upsert("a").as_bytes()), keys.key(upsert("b").as_bytes()));
    }
}
