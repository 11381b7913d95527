//! Tables and sequences that were made since a snapshot was read, by statements that were proven: what else is known of
//! the database goes on to hold.
//!
//! Why that is so. A proof goes by names, each of which stands for the worst of all objects of that name, and it knows
//! who reaches what. A statement that adds ([`Effects::ADDS`](super::Effects::ADDS)) makes nothing but
//!
//! * a table, with its row type, their array type, indexes, constraints and sequences, whose every type, default, check,
//!   generated column, index and source (LIKE, AS) is proven. It is no heir or partition of another table and refers to
//!   none, so whoever used another table before does not reach it;
//! * a sequence, a schema with nothing in it, or an index of columns by the operator classes of their types, which the
//!   types reach already.
//!
//! So what is added reaches nothing that is in doubt. Under its own name it is no worse than what is known, in whatever
//! schema of the path it hides what: whoever names it, be it in a text, a cast or the body of a function, runs no code by
//! it. A verdict that was given before stays right for a text that runs after. What is not proven by the snapshot alone is
//! what names something new: that is what this module is for. A relation of an added name is known to be there and to run
//! nothing (`Proof::proves_added`). As a standby may not have it yet, texts that may name it are no reads.
//!
//! None of that holds if something else was defined in the same transaction, or since the statement was judged, or if
//! anything in its transaction is not proven: then the whole snapshot is in doubt. Whoever notes additions sees to it.

use std::{collections::HashSet, sync::Arc};

use foldhash::fast::RandomState;

use super::{
    lexer::{Kind, Lexer},
    names::{NAME_BYTES, cut, folded},
};

/// Of a longer name the server may cut off what is behind, when it makes names of indexes and sequences of it.
const NAME_BYTES_KEPT: usize = 26;

/// Names that were added, of which it knows the texts.
#[derive(Clone, Debug, Default)]
pub(super) struct Additions(Option<Arc<Names>>);

#[derive(Debug)]
struct Names {
    epoch: u64,
    whole: HashSet<Box<str>, RandomState>,
    /// The same, cut, with what stands before an underscore in names made of them.
    beginnings: HashSet<Box<str>, RandomState>,
    /// Those that are not looked for among words: they have other characters.
    odd: Vec<Box<str>>,
}

impl Additions {
    pub(super) fn new(epoch: u64, names: impl IntoIterator<Item = Box<str>>) -> Self {
        let whole: HashSet<Box<str>, RandomState> = names.into_iter().collect();
        if whole.is_empty() {
            return Self(None);
        }
        let beginnings = whole.iter().map(|name| beginning(name).trim_start_matches('_').into()).collect();
        let odd = whole.iter().filter(|name| !name.bytes().all(is_plain)).cloned().collect();
        Self(Some(Arc::new(Names { epoch, whole, beginnings, odd })))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn epoch(&self) -> u64 {
        self.0.as_ref().map_or(0, |names| names.epoch)
    }

    /// Whether a relation of this name was added.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.as_ref().is_some_and(|names| names.whole.contains(name))
    }

    /// Whether a text may name what was added, or what came with it (`x_pkey`, `x_id_seq`, the type `_x`), perhaps within
    /// a literal.
    #[inline]
    pub(super) fn may_be_named_in(&self, text: &[u8]) -> bool {
        self.0.as_ref().is_some_and(|names| names.may_be_named_in(text))
    }
}

impl Names {
    fn may_be_named_in(&self, text: &[u8]) -> bool {
        Lexer::new(text).any(|token| {
            let raw = &text[token.start..token.end];
            match token.kind {
                Kind::Word | Kind::Quoted => self.may_be(&folded(text, token)),
                Kind::Text => self.are_in_literal(raw),
                // A name or literal by code points, perhaps.
                Kind::Exotic | Kind::Broken => true,
                _ => false,
            }
        })
    }

    fn may_be(&self, name: &str) -> bool {
        let cut = cut(name);
        if self.whole.contains(cut) || self.odd.iter().any(|odd| cut.contains(beginning(odd))) {
            return true;
        }
        let name = cut.trim_start_matches('_');
        let ends = name.bytes().enumerate().filter(|(_, byte)| *byte == b'_').map(|(at, _)| at);
        let kept = name.len().min(NAME_BYTES_KEPT);
        ends.chain([name.len(), kept])
            .any(|end| name.get(..end).is_some_and(|beginning| self.beginnings.contains(beginning)))
    }

    fn are_in_literal(&self, literal: &[u8]) -> bool {
        let mut words = literal.split(|byte| !is_plain(byte.to_ascii_lowercase()));
        self.odd.iter().any(|odd| memchr::memmem::find(literal, beginning(odd).as_bytes()).is_some())
            || words.any(|word| {
                std::str::from_utf8(word)
                    .is_ok_and(|word| !word.is_empty() && self.may_be(&word.to_ascii_lowercase()))
            })
    }
}

/// What is left of a name in those that the server makes of it.
fn beginning(name: &str) -> &str {
    let fits = |at: &usize| *at <= NAME_BYTES_KEPT && name.is_char_boundary(*at);
    let end = (0..=name.len().min(NAME_BYTES)).rev().find(fits).unwrap_or(0);
    &name[..end]
}

/// What a name without quotes is made of.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'$')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_name_them() {
        let long = "a".repeat(60);
        let names = ["items", "My \"Table", "été", "_x", &long];
        let additions = Additions::new(7, names.map(Into::into));
        let beginning = format!("SELECT nextval('{}_id_seq')", "a".repeat(30));
        for text in [
            "SELECT * FROM items",
            "SELECT * FROM a.\"items\"",
            "SELECT ITEMS FROM t",
            "SELECT '{}'::_items",
            "SELECT '{}'::items[]",
            "SELECT nextval('public.Items_id_seq')",
            "SELECT 'items'::regclass",
            "SELECT * FROM U&\"it\\0065ms\"",
            "TABLE \"My \"\"Table\"",
            "SELECT * FROM été",
            "SELECT * FROM _x, __x",
            "SELECT x(y)",
            "SELECT '\"été\"'::regclass",
            &format!("TABLE {long}bbbbbbbb"),
            &beginning,
        ] {
            assert!(additions.may_be_named_in(text.as_bytes()), "{text}");
        }
        for text in [
            "SELECT * FROM item, itemsx",
            "SELECT 'itemized'",
            "SELECT * FROM \"Table\" -- items",
            "SELECT 1, $1, 'a'",
        ] {
            assert!(!additions.may_be_named_in(text.as_bytes()), "{text}");
        }
        assert!(!Additions::default().may_be_named_in(b"SELECT * FROM items"));
    }
}
