//! From a text to statements of words: what PgBouncer's commands are made of, and comments.

use crate::session::reply::Reply;

use super::reply;

/// Statements that one text may have.
pub(super) const STATEMENTS_MAX: usize = 100;

/// A word of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// The text, without quotes.
    pub(super) text: String,
    /// Whether it was written in quotes: then it is no keyword.
    pub(super) is_quoted: bool,
}

/// One statement of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) words: Vec<Word>,
    /// The statement as it was written.
    pub(super) text: String,
}

impl Word {
    /// Whether it is this keyword.
    pub(super) fn is(&self, keyword: &str) -> bool {
        !self.is_quoted && self.text.eq_ignore_ascii_case(keyword)
    }
}

/// The statements of a text; empty ones are left out.
pub(super) fn statements(text: &str) -> Result<Vec<Statement>, Reply> {
    let mut found = Vec::new();
    let (mut words, mut rest, mut begin) = (Vec::new(), text, text);
    let mut end = |words: &mut Vec<Word>, text: &str| {
        if words.is_empty() {
            return Ok(());
        }
        if found.len() >= STATEMENTS_MAX {
            return Err(reply::too_many_statements(STATEMENTS_MAX));
        }
        found.push(Statement { words: std::mem::take(words), text: text.trim().to_owned() });
        Ok(())
    };
    while let Some(next) = rest.chars().next() {
        if let Some(behind) = comment(rest)? {
            rest = behind;
        } else if next.is_whitespace() {
            rest = &rest[next.len_utf8()..];
        } else if next == ';' {
            end(&mut words, &begin[..begin.len() - rest.len()])?;
            rest = &rest[1..];
            begin = rest;
        } else if next == '\'' || next == '"' {
            let (text, behind) = quoted(&rest[1..], next)?;
            words.push(Word { text, is_quoted: true });
            rest = behind;
        } else {
            let len = if is_of_word(next) {
                rest.find(|c| !is_of_word(c)).unwrap_or(rest.len())
            } else {
                next.len_utf8()
            };
            words.push(Word { text: rest[..len].to_owned(), is_quoted: false });
            rest = &rest[len..];
        }
    }
    end(&mut words, begin)?;
    Ok(found)
}

/// Letters of words: names of keys have dots, and values are written without quotes, such as `-1`.
fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || "_.-$@:/%+".contains(c)
}

/// The text behind the comment that it begins with, if there is one.
fn comment(text: &str) -> Result<Option<&str>, Reply> {
    if text.starts_with("--") {
        return Ok(Some(text.find('\n').map_or("", |end| &text[end..])));
    }
    let Some(inside) = text.strip_prefix("/*") else { return Ok(None) };
    let end = inside.find("*/").ok_or_else(reply::unterminated)?;
    Ok(Some(&inside[end + 2..]))
}

/// A text in quotes, of which the first is gone, and what is behind it. Two quotes stand for one.
fn quoted(text: &str, quote: char) -> Result<(String, &str), Reply> {
    let mut unquoted = String::new();
    let mut rest = text;
    loop {
        let at = rest.find(quote).ok_or_else(reply::unterminated)?;
        unquoted.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.strip_prefix(quote) {
            Some(behind) => {
                unquoted.push(quote);
                rest = behind;
            }
            None => return Ok((unquoted, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<String>> {
        let statements = statements(text).expect("it is well formed");
        let shown = |word: Word| if word.is_quoted { format!("<{}>", word.text) } else { word.text };
        statements.into_iter().map(|statement| statement.words.into_iter().map(shown).collect()).collect()
    }

    #[test]
    fn texts_are_taken_apart() {
        assert_eq!(words("SHOW pools"), [["SHOW", "pools"]]);
        assert_eq!(
            words(" ;; show\tpools ; -- x;y\n /* ; */ reload;"),
            [vec!["show", "pools"], vec!["reload"]]
        );
        assert_eq!(words("SET a.b='x''y'"), [["SET", "a.b", "=", "<x'y>"]]);
        assert_eq!(words("pause \"a\"\"b\""), [["pause", "<a\"b>"]]);
        assert_eq!(words("SET x = -1"), [["SET", "x", "=", "-1"]]);
        assert_eq!(words(""), [[""; 0]; 0]);
    }

    #[test]
    fn texts_are_kept_as_they_were_written() {
        let texts: Vec<String> =
            statements("SHOW  Pools ; x").expect("fine").into_iter().map(|one| one.text).collect();
        assert_eq!(texts, ["SHOW  Pools", "x"]);
    }

    #[test]
    fn what_does_not_end_is_refused() {
        for text in ["'", "show 'x", "\"a\"\"", "/* x"] {
            assert_eq!(&*statements(text).expect_err("no end").code, "42601", "{text}");
        }
        let many = "x;".repeat(STATEMENTS_MAX + 1);
        assert_eq!(&*statements(&many).expect_err("too many").code, "54000");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = statements(&text);
        }
    }
}
