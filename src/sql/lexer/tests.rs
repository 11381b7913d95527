//! Texts in tokens.

use super::*;

fn kinds(text: &str) -> Vec<(Kind, &str)> {
    Lexer::new(text.as_bytes())
        .filter(|token| token.kind != Kind::Space)
        .map(|token| (token.kind, &text[token.start..token.end]))
        .collect()
}

#[test]
fn tells_literals_apart() {
    use Kind::{Broken, Comment, Decimal, Exotic, Integer, Quoted, Symbol, Text, Word};
    let cases: &[(&str, &[(Kind, &str)])] = &[
        ("a1$b", &[(Word, "a1$b")]),
        ("'it''s'", &[(Text, "'it''s'")]),
        (r"'\' x", &[(Text, r"'\'"), (Word, "x")]),
        (r"E'\'' x", &[(Text, r"E'\''"), (Word, "x")]),
        (r"e'\\' x", &[(Text, r"e'\\'"), (Word, "x")]),
        (r"E'\x41'", &[(Exotic, r"E'\x41'")]),
        ("$$a'b$$", &[(Text, "$$a'b$$")]),
        ("$t$ $$ $t$", &[(Text, "$t$ $$ $t$")]),
        ("$1", &[(Symbol, "$1")]),
        ("$1::int", &[(Symbol, "$1"), (Symbol, ":"), (Symbol, ":"), (Word, "int")]),
        ("a$$b", &[(Word, "a$$b")]),
        ("\"a\"\"b\".c", &[(Quoted, "\"a\"\"b\""), (Symbol, "."), (Word, "c")]),
        ("U&'\\0041'", &[(Exotic, "U&'\\0041'")]),
        ("u&\"a\"", &[(Exotic, "u&\"a\"")]),
        ("b'01' X'f'", &[(Exotic, "b'01'"), (Exotic, "X'f'")]),
        ("n'a'", &[(Word, "n"), (Text, "'a'")]),
        ("'a' \n 'b'", &[(Exotic, "'a' \n 'b'")]),
        ("'a' 'b'", &[(Text, "'a'"), (Text, "'b'")]),
        ("'a' -- c\n'b'", &[(Exotic, "'a' -- c\n'b'")]),
        ("'a' /* c */ 'b'", &[(Exotic, "'a'"), (Comment, "/* c */"), (Text, "'b'")]),
        ("'a' /* c */ , 'b'", &[(Text, "'a'"), (Comment, "/* c */"), (Symbol, ","), (Text, "'b'")]),
        ("E'a'\n'\\''", &[(Exotic, "E'a'\n'\\''")]),
        ("/* a /* b */ c */d", &[(Comment, "/* a /* b */ c */"), (Word, "d")]),
        ("1--2\n3", &[(Integer, "1"), (Comment, "--2"), (Integer, "3")]),
        ("+/*c*/-", &[(Symbol, "+"), (Comment, "/*c*/"), (Symbol, "-")]),
        ("1 2147483647 2147483648", &[(Integer, "1"), (Integer, "2147483647"), (Decimal, "2147483648")]),
        (
            "1.5 .5 1. 1e5 1.e-5",
            &[(Decimal, "1.5"), (Decimal, ".5"), (Decimal, "1."), (Decimal, "1e5"), (Decimal, "1.e-5")],
        ),
        ("0x1F 1_000 1abc", &[(Exotic, "0x1F"), (Exotic, "1_000"), (Exotic, "1abc")]),
        ("'open", &[(Broken, "'open")]),
        ("/* open", &[(Broken, "/* open")]),
        ("$q$ open", &[(Broken, "$q$ open")]),
        ("t.5", &[(Word, "t"), (Decimal, ".5")]),
    ];
    for (text, expected) in cases {
        assert_eq!(kinds(text), *expected, "{text}");
    }
}

#[test]
fn eight_bytes_are_as_one() {
    for byte in 0..=u8::MAX {
        for place in 0..8 {
            let mut bytes = [b' '; 8];
            bytes[place] = byte;
            let found = word_bytes(u64::from_le_bytes(bytes)) != 0;
            assert_eq!(found, CONTINUES_WORD[byte as usize], "{byte} at {place}");
        }
    }
}

#[test]
fn tokens_have_no_gaps() {
    let text = b"SELECT 'a', E'\\n' /* c */ FROM \"T\" WHERE x = $1 -- end";
    let mut at = 0;
    for token in Lexer::new(text) {
        assert_eq!(token.start, at);
        assert!(token.end > token.start);
        at = token.end;
    }
    assert_eq!(at, text.len());
}
