//! Names: as a text writes them, as the server keeps them, as `quote_ident` writes them.

use super::lexer::{Kind, Token};

/// The length of a name, `NAMEDATALEN` less one: the server cuts longer ones.
pub(super) const NAME_BYTES: usize = 63;

/// An identifier as PostgreSQL reads it, ASCII only being folded.
pub(super) fn folded(text: &[u8], token: Token) -> String {
    let raw = String::from_utf8_lossy(&text[token.start..token.end]);
    match token.kind {
        Kind::Quoted => raw[1..raw.len() - 1].replace("\"\"", "\""),
        _ => raw.to_ascii_lowercase(),
    }
}

/// The part of a name that the server keeps.
pub(super) fn cut(name: &str) -> &str {
    let fits = |at: &usize| *at <= NAME_BYTES && name.is_char_boundary(*at);
    &name[..(0..=name.len().min(NAME_BYTES)).rev().find(fits).unwrap_or(0)]
}

/// A name as `quote_ident` writes it, a blank, and the rest.
pub(super) fn split_name(program: &str) -> Option<(String, &str)> {
    let Some(quoted) = program.strip_prefix('"') else {
        let (name, rest) = program.split_once(' ')?;
        return Some((name.to_owned(), rest));
    };
    let mut rest = quoted;
    let mut name = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, after)),
        }
    }
}
