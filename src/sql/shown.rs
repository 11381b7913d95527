//! A text as it may be shown to people: without its literals and comments, in one line.

use super::lexer::{Kind, Lexer};

/// The mark in the place of a literal.
const LITERAL: &str = "?";

/// The text without the values in it: literals are `?`, comments are gone, and white space is one blank. Of a list of
/// literals one is left. What cannot be told from a literal is none of it: a text that is cut off within one ends there,
/// and so does one with a backslash in a plain string, which the server may have read otherwise.
pub fn without_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    for token in Lexer::new(bytes) {
        let raw = text.get(token.start..token.end).unwrap_or_default();
        match token.kind {
            Kind::Space | Kind::Comment => blank(&mut out),
            Kind::Word | Kind::Quoted | Kind::Symbol => out.push_str(raw),
            Kind::Integer | Kind::Decimal | Kind::Text | Kind::Exotic => {
                push_literal(&mut out);
                if raw.starts_with('\'') && raw.contains('\\') {
                    out.push_str(" ..");
                    break;
                }
            }
            Kind::Broken => {
                push_literal(&mut out);
                out.push_str(" ..");
                break;
            }
        }
    }
    out.truncate(out.trim_end().len());
    out
}

fn blank(out: &mut String) {
    if !out.is_empty() && !out.ends_with(' ') {
        out.push(' ');
    }
}

/// Puts a mark in the place of a literal; one is enough for a list of them.
fn push_literal(out: &mut String) {
    let before = out.trim_end();
    let list = before.strip_suffix(',').map(str::trim_end);
    match list {
        Some(list) if list.ends_with(LITERAL) => {
            let len = list.len();
            out.truncate(len);
            out.push_str(", ..");
        }
        Some(list) if list.ends_with(", ..") => {
            let len = list.len();
            out.truncate(len);
        }
        _ => out.push_str(LITERAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_is_left() {
        for (text, expected) in [
            ("SELECT 1", "SELECT ?"),
            ("  SELECT\n\t'secret' -- secret\n", "SELECT ?"),
            ("SELECT /* secret */ x FROM \"T\" WHERE a=-1.5e3", "SELECT x FROM \"T\" WHERE a=-?"),
            (
                "INSERT INTO t VALUES (1, 'a', $1), (2, 'b', $2)",
                "INSERT INTO t VALUES (?, .., $1), (?, .., $2)",
            ),
            ("SELECT * FROM t WHERE id IN (1,2 , 3, 4)", "SELECT * FROM t WHERE id IN (?, ..)"),
            ("ALTER ROLE a PASSWORD 'secret'", "ALTER ROLE a PASSWORD ?"),
            ("DO $x$ secret $x$", "DO ?"),
            ("SELECT $$secret$$, E'se\\'cret', B'01', U&'secret'", "SELECT ?, .."),
            ("SELECT a FROM t WHERE b = 'cut off sec", "SELECT a FROM t WHERE b = ? .."),
            ("SELECT $tag$cut off sec", "SELECT ? .."),
            ("SELECT 'it\\'s secret', b", "SELECT ? .."),
            ("SELECT 'a' 'b'", "SELECT ? ?"),
            ("", ""),
        ] {
            let shown = without_literals(text);
            assert!(!shown.contains("sec"), "{shown}");
            assert_eq!(shown, expected, "{text}");
        }
    }

    #[test]
    fn texts_that_differ_in_values_only_are_shown_alike() {
        let [one, other] = ["SELECT 1 WHERE a IN (1, 2)", "SELECT  22\nWHERE a IN (3, 4, 5, 6)"];
        assert_eq!(without_literals(one), without_literals(other));
    }
}
