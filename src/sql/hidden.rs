//! Whether a text that is not parsed may set a parameter that the server does not list: one with a dot in its name.
//! What it sets otherwise the server can be asked for.

use super::catalog::Catalog;

/// So many bytes of one piece are looked at again with the next one.
const OVERLAP: usize = 512;

/// Looks for what may set such a parameter in a text that comes in pieces.
#[derive(Debug, Default)]
pub struct HiddenSearch {
    end: Vec<u8>,
}

impl HiddenSearch {
    /// Whether it is in the next piece, or where that meets the one before.
    pub fn finds(&mut self, catalog: &Catalog, piece: &[u8]) -> bool {
        self.end.extend_from_slice(piece);
        let found = may_set_hidden(&self.end) || catalog.hides_settings_of(&self.end);
        self.end.drain(..self.end.len().saturating_sub(OVERLAP));
        found
    }
}

/// Looks for `set_config`, and for `SET`, `SET SESSION` or `SET LOCAL` before a name with a dot, wherever they stand.
pub(super) fn may_set_hidden(text: &[u8]) -> bool {
    memchr::memchr2_iter(b's', b'S', text).any(|at| {
        let from_here = &text[at..];
        let Some(rest) = strip(from_here, b"set") else { return false };
        if at > 0 && is_name(text[at - 1]) {
            return false;
        }
        strip(rest, b"_config").is_some() || sets_name_with_dot(rest)
    })
}

fn sets_name_with_dot(rest: &[u8]) -> bool {
    let mut name = rest.trim_ascii_start();
    if name.len() == rest.len() {
        return false;
    }
    for scope in [&b"session"[..], b"local"] {
        if let Some(after) =
            strip(name, scope).filter(|after| after.first().is_some_and(u8::is_ascii_whitespace))
        {
            name = after.trim_ascii_start();
        }
    }
    let end = name.iter().position(|byte| !is_name(*byte) && *byte != b'"').unwrap_or(name.len());
    end > 0 && name[end..].trim_ascii_start().first() == Some(&b'.')
}

fn strip<'t>(text: &'t [u8], word: &[u8]) -> Option<&'t [u8]> {
    let (head, rest) = text.split_at_checked(word.len())?;
    head.eq_ignore_ascii_case(word).then_some(rest)
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_wherever_the_text_is_cut() {
        let rows = [("program", "computes BEGIN EXECUTE 'SET ' || x; END")];
        let catalog = Catalog::from_rows(1, rows);
        for what in ["SELECT set_config('a.b', 'c', false)", "SET SESSION app.x = 1", "CALL Computes('x')"] {
            let text = format!("{};{what};{}", "x ".repeat(700), "y ".repeat(700));
            for cut in 0..text.len() {
                let (one, two) = text.as_bytes().split_at(cut);
                let mut search = HiddenSearch::default();
                assert!(search.finds(&catalog, one) | search.finds(&catalog, two), "{what} cut at {cut}");
            }
        }
        let mut search = HiddenSearch::default();
        let plain = "INSERT INTO t VALUES ('".to_owned() + &"offset ".repeat(9000);
        assert!(!plain.as_bytes().chunks(999).any(|piece| search.finds(&catalog, piece)));
    }

    #[test]
    fn names_with_a_dot_are_found_and_others_are_not() {
        for text in [
            "SELECT Set_Config('a', 'b', false)",
            "set app.user = 1",
            "INSERT INTO t VALUES (1); SET SESSION \"app\" . x TO 2",
            "x;SET\nLOCAL a.b = 1",
        ] {
            assert!(may_set_hidden(text.as_bytes()), "{text}");
        }
        for text in [
            "INSERT INTO t VALUES ('set')",
            "UPDATE t SET a = 1.5, b = c.d",
            "SET work_mem = '1MB'",
            "SELECT offset.a FROM sets",
            "set",
            "reset app.user",
        ] {
            assert!(!may_set_hidden(text.as_bytes()), "{text}");
        }
    }
}
