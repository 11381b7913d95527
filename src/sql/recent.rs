//! The keys of the texts that a thread has seen lately, without reading a text anew that differs from one of them in
//! literals only: programs send the same few texts over and over.
//!
//! It gives what [`Keys::key`] would, and nothing else. A text fits one that was read token by
//! token if the bytes between the literals are the same, and in the place of each literal stands another plain one of the
//! same kind. Then the lexer takes the same way through both: it decides by the bytes before a literal, by its first byte,
//! which is of the same class, and by those behind it; and whether a literal decides the verdict, by the words around it.

use std::cell::RefCell;

use super::key::{Key, Keys, Literal};

/// Texts that a thread remembers: one in each slot.
const SLOTS: usize = 64;

/// Longer ones are not remembered.
const TEXT_BYTES_MAX: usize = 1024;

/// Texts are found again by so many bytes at their beginning.
const BEGINNING: usize = 32;

thread_local! {
    static SEEN: RefCell<Vec<Seen>> = const { RefCell::new(Vec::new()) };
}

/// A text that was read.
#[derive(Debug, Default)]
struct Seen {
    text: Vec<u8>,
    /// Its literals, in their order, if others may stand in their place.
    literals: Vec<Literal>,
    /// Its key, and who has made that.
    known: Option<(u64, Key)>,
}

/// The key of a text.
pub(super) fn key(keys: &Keys, text: &[u8]) -> Key {
    let Some(slot) = slot(text) else { return keys.key(text) };
    SEEN.with_borrow_mut(|seen| {
        if seen.is_empty() {
            seen.resize_with(SLOTS, Seen::default);
        }
        let seen = &mut seen[slot];
        match seen.known {
            Some((maker, key)) if maker == keys.maker() && seen.fits(text) => key,
            _ => seen.read(keys, text),
        }
    })
}

/// Where a text is remembered, if it is.
fn slot(text: &[u8]) -> Option<usize> {
    let beginning = text.first_chunk::<BEGINNING>().filter(|_| text.len() <= TEXT_BYTES_MAX)?;
    let mixed = beginning.as_chunks::<8>().0.iter().fold(0_u64, |mixed, eight| {
        (mixed.rotate_left(5) ^ u64::from_le_bytes(*eight)).wrapping_mul(0x517c_c1b7_2722_0a95)
    });
    Some((mixed >> (u64::BITS - SLOTS.ilog2())) as usize)
}

impl Seen {
    /// Reads a text, and remembers it in the place of this one.
    fn read(&mut self, keys: &Keys, text: &[u8]) -> Key {
        self.text.clear();
        self.text.extend_from_slice(text);
        self.literals.clear();
        let (key, may_vary) = keys.key_and_literals(text, |literal| self.literals.push(literal));
        if !may_vary {
            self.literals.clear();
        }
        self.known = Some((keys.maker(), key));
        key
    }

    /// Whether the other text has the same key.
    fn fits(&self, other: &[u8]) -> bool {
        let (mut own, mut rest) = (0, other);
        for literal in &self.literals {
            let Some(from) = rest.strip_prefix(&self.text[own..literal.start]) else { return false };
            let Some(len) = plain_literal(from, literal.is_text) else { return false };
            (own, rest) = (literal.end, &from[len..]);
        }
        *rest == self.text[own..]
    }
}

/// The length of the plain literal that begins here, if one does: a string or an integer.
fn plain_literal(text: &[u8], is_text: bool) -> Option<usize> {
    if is_text {
        let inside = text.strip_prefix(b"'")?;
        let len = memchr::memchr(b'\'', inside)?;
        return inside[..len].is_ascii().then_some(len + 2);
    }
    let len = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    // More digits may be too many for 32 bits.
    (1..10).contains(&len).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::tags::Tags;

    /// Pieces of texts, of which every neighbour may change how the lexer reads the other one.
    const PIECES: [&str; 44] = [
        "SELECT a, b FROM accounts WHERE ",
        "x = ",
        "1",
        "12",
        "2147483647",
        "2147483648",
        "007",
        "'one'",
        "'it''s'",
        "''",
        "'\u{e9}'",
        "'",
        "E'\\n'",
        "e",
        "n",
        "U&",
        "x",
        "b",
        "$1",
        "$",
        "$$",
        "$t$",
        "$t$ 1 $t$",
        ".",
        "..",
        "-",
        "--",
        "/*",
        "*/",
        "/* c */",
        " ",
        "  ",
        "\n",
        ";",
        "(",
        ")",
        ",",
        "_",
        "DO ",
        "pg_x",
        "regclass",
        "\"q\"",
        "::",
        "1e5",
    ];

    fn text(pieces: &[usize]) -> Vec<u8> {
        pieces.iter().flat_map(|at| PIECES[*at % PIECES.len()].bytes()).collect()
    }

    fn assert_same(keys: &Keys, text: &[u8]) {
        assert_eq!(key(keys, text), keys.key(text), "{}", text.escape_ascii());
    }

    #[test]
    fn a_text_with_other_literals_fits() {
        let keys = Keys::new(Tags::default());
        let mut seen = Seen::default();
        let texts = |a: &str, b: &str| format!("UPDATE accounts SET a = a + {a} WHERE b = '{b}' AND c = $1");
        seen.read(&keys, texts("1", "x").as_bytes());
        for (a, b, fits) in [
            ("1", "x", true),
            ("123456789", "a longer one; -- no comment", true),
            ("1234567890", "x", false),
            ("-1", "x", false),
            ("1.5", "x", false),
            ("", "x", false),
            ("1", "it''s", false),
            ("1", "\u{e9}", false),
            ("1 ", "x", false),
        ] {
            let text = texts(a, b);
            assert_eq!(seen.fits(text.as_bytes()), fits, "{text}");
            assert!(!fits || keys.key(text.as_bytes()) == keys.key(texts("1", "x").as_bytes()), "{text}");
        }
        seen.read(&keys, b"SELECT '1'::regclass");
        assert!(seen.fits(b"SELECT '1'::regclass") && !seen.fits(b"SELECT '2'::regclass"));
        seen.read(&keys, b"SELECT 1 -- c");
        assert!(seen.fits(b"SELECT 1 -- c") && !seen.fits(b"SELECT 2 -- c"));
    }

    #[test]
    fn keys_of_another_maker_are_not_given() {
        let text = b"SELECT abalance FROM pgbench_accounts WHERE aid = 1";
        for keys in [Keys::new(Tags::default()), Keys::new(Tags::default())] {
            assert_same(&keys, text);
            assert_same(&keys, text);
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]

        /// A text, and others in which few pieces are different: whichever fits, its key is the same.
        #[test]
        fn keys_are_those_of_a_reading(
            pieces in proptest::collection::vec(0..PIECES.len(), 1..12),
            changes in proptest::collection::vec((0_usize..12, 0..PIECES.len()), 1..12),
        ) {
            let keys = Keys::new(Tags::default());
            let mut pieces = [&[0], pieces.as_slice()].concat();
            let mut seen = Seen::default();
            seen.read(&keys, &text(&pieces));
            for (at, piece) in changes {
                assert_same(&keys, &text(&pieces));
                let at = at % pieces.len();
                pieces[at] = piece;
                let other = text(&pieces);
                if seen.fits(&other) {
                    proptest::prop_assert_eq!(seen.known.map(|(_, key)| key), Some(keys.key(&other)), "{}", other.escape_ascii());
                }
            }
        }
    }
}
