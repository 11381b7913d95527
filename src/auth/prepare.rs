//! A password's bytes as PostgreSQL prepares them before hashing (`pg_saslprep`).
//!
//! Owns the differences between PostgreSQL and the RFCs; refuses to fail: what SASLprep prohibits is used
//! as it is, since that is how PostgreSQL stored it.

use std::borrow::Cow;

use stringprep::tables;
use unicode_normalization::UnicodeNormalization;

/// The text to hash. Never empty unless `password` is.
///
/// Written out, because [`stringprep::saslprep`] differs: RFC 4013 prohibits characters of the *output* of
/// normalization, PostgreSQL those of its *input*. So U+0341 (normalizes to U+0301) is prohibited there, and
/// U+2135 (normalizes to a Hebrew letter) may stand beside a Latin one.
pub(super) fn prepare(password: &str) -> Cow<'_, str> {
    // PostgreSQL takes ASCII as it is, control characters included.
    if password.is_ascii() {
        return Cow::Borrowed(password);
    }
    let mapped = || {
        // U+200B is in both tables: PostgreSQL makes it a space.
        let space = |c| if tables::non_ascii_space_character(c) { ' ' } else { c };
        password.chars().map(space).filter(|&c| !tables::commonly_mapped_to_nothing(c))
    };
    // Nothing left (say, of soft hyphens only) is prohibited as well.
    if mapped().next().is_none() || mapped().any(prohibited) || mixes_directions(mapped) {
        return Cow::Borrowed(password);
    }
    Cow::Owned(mapped().nfkc().collect())
}

fn prohibited(c: char) -> bool {
    tables::ascii_control_character(c)
        || tables::non_ascii_control_character(c)
        || tables::private_use(c)
        || tables::non_character_code_point(c)
        || tables::inappropriate_for_plain_text(c)
        || tables::inappropriate_for_canonical_representation(c)
        || tables::change_display_properties_or_deprecated(c)
        || tables::tagging_character(c)
        || tables::unassigned_code_point(c)
}

/// RFC 3454, section 6: right-to-left text has no left-to-right letter, and begins and ends as such.
fn mixes_directions<I: Iterator<Item = char>>(text: impl Fn() -> I) -> bool {
    let ends_right_to_left =
        || text().next().is_some_and(tables::bidi_r_or_al) && text().last().is_some_and(tables::bidi_r_or_al);
    text().any(tables::bidi_r_or_al) && (text().any(tables::bidi_l) || !ends_right_to_left())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepares_as_postgres_does() {
        let cases = [
            ("pencil", "pencil"),
            ("tab\there", "tab\there"),
            ("I\u{ad}X", "IX"),
            ("\u{aa}", "a"),
            ("\u{2135}x", "\u{5d0}x"),
            ("\u{fb3b}", "\u{5db}\u{5bc}"),
            ("pässwörd ①²", "pässwörd 12"),
            ("a\u{a0}b", "a b"),
            ("\u{200b}é", " é"),
            // Prohibited: taken as they are.
            ("é\u{7}", "é\u{7}"),
            ("\u{ad}", "\u{ad}"),
            ("e\u{341}", "e\u{341}"),
            ("\u{627}1", "\u{627}1"),
            ("", ""),
        ];
        for (password, expected) in cases {
            assert_eq!(prepare(password), expected, "{password:?}");
        }
    }
}
