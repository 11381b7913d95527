//! Hints: `/* bulkhead: route=primary */` or `-- bulkhead: route=read` at the head of a text.

use super::{
    lexer::{Kind, Lexer},
    rules::Rules,
    verdict::Hint,
};

/// The first comment of a text, if it stands at its head and speaks to us.
pub(super) fn comment(text: &[u8]) -> Option<&[u8]> {
    let start = text.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let rest = &text[start..];
    if !(rest.starts_with(b"/*") || rest.starts_with(b"--")) {
        return None;
    }
    let token = Lexer::new(rest).next().filter(|token| token.kind == Kind::Comment)?;
    let comment = &rest[..token.end];
    inside(comment).starts_with(b"bulkhead:").then_some(comment)
}

/// The target asked for; unknown ones are ignored.
pub(super) fn read(text: &[u8], rules: &Rules) -> Option<Hint> {
    let inside = inside(comment(text)?);
    let wish = inside.strip_prefix(b"bulkhead:")?.trim_ascii();
    rules.target(wish.strip_prefix(b"route=")?.trim_ascii())
}

fn inside(comment: &[u8]) -> &[u8] {
    let inside = match comment {
        [b'/', b'*', inside @ .., b'*', b'/'] | [_, _, inside @ ..] => inside,
        other => other,
    };
    inside.trim_ascii()
}
