//! Hints: `/* bulkhead: route=primary */` or `-- bulkhead: consistency=strong` at the head of a text.

use super::{
    consistency::Consistency,
    lexer::{Kind, Lexer},
    rules::Rules,
    tags::inside,
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

/// What a comment asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// `route=..`
    pub(super) route: Option<Hint>,
    /// `consistency=..`
    pub(super) consistency: Option<Consistency>,
}

/// The wishes of a text's first comment; unknown ones are ignored.
pub(super) fn read(text: &[u8], rules: &Rules) -> Wishes {
    let mut wishes = Wishes::default();
    let Some(list) = comment(text).and_then(|comment| inside(comment).strip_prefix(b"bulkhead:")) else {
        return wishes;
    };
    for wish in list.split(|byte| *byte == b',' || byte.is_ascii_whitespace()) {
        if let Some(target) = wish.strip_prefix(b"route=") {
            wishes.route = rules.target(target);
        } else if let Some(name) = wish.strip_prefix(b"consistency=") {
            wishes.consistency = std::str::from_utf8(name).ok().and_then(Consistency::named);
        }
    }
    wishes
}
