//! Words for people: names and texts that come from outside, escaped and bounded; times; counts.

use std::{fmt::Write as _, time::Duration};

use super::facts::Who;

/// Characters of a name that are shown.
const NAME_CHARS: usize = 40;

/// Characters of a text that are shown.
const TEXT_CHARS: usize = 160;

/// Characters of an error that are shown.
const ERROR_CHARS: usize = 300;

/// A name in quotes.
pub(super) fn name(text: &str) -> String {
    format!("\"{}\"", shown(text, NAME_CHARS))
}

/// A statement, of which the literals have been taken out.
pub(super) fn statement(text: &str) -> String {
    shown(text, TEXT_CHARS)
}

/// A server's or system's error.
pub(super) fn error(text: &str) -> String {
    shown(text, ERROR_CHARS)
}

/// A client's names.
pub(super) fn who(who: &Who) -> String {
    if who.application_name.is_empty() {
        format!("user {} (no application_name)", name(&who.user))
    } else {
        format!("application {}, user {}", name(&who.application_name), name(&who.user))
    }
}

/// A text from outside: what is not plainly visible is written in digits, and what is long is cut.
pub(super) fn shown(text: &str, chars: usize) -> String {
    let mut out = String::new();
    for (at, c) in text.chars().enumerate() {
        if at >= chars {
            out.push_str("..");
            break;
        }
        if is_visible(c) {
            out.push(c);
        } else {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
    }
    out
}

/// Whether a character shows as what it is: none that controls a terminal, is invisible, or turns the direction of what
/// follows.
fn is_visible(c: char) -> bool {
    !c.is_control()
        && !matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// A time as people say it: `340 ms`, `4.2 s`, `12 min`, `5 h`.
pub(super) fn time(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..=9 => format!("{:.1} s", duration.as_secs_f64()),
        10..=179 => format!("{seconds} s"),
        180..=10_799 => format!("{} min", seconds / 60),
        10_800..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A span of times, `2.0 s to 12 s`.
pub(super) fn span(from: Duration, to: Duration) -> String {
    let (from, to) = (time(from), time(to));
    if from == to { to } else { format!("{from} to {to}") }
}

/// A count with its noun, of which the plural has an `s`.
pub(super) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Words for how many wait, `1 client waits`, `2 clients wait`; the noun's plural has an `s`, or is known.
pub(super) fn wait(number: usize, noun: &str) -> String {
    let counted =
        if number != 1 && noun == "process" { format!("{number} processes") } else { count(number, noun) };
    format!("{counted} wait{}", if number == 1 { "s" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_is_escaped_and_bounded() {
        for (text, expected) in [
            ("web", "\"web\""),
            ("\u{1b}[31mred\u{7}", "\"\\u{1b}[31mred\\u{7}\""),
            ("a\nb\tc\u{9b}2J", "\"a\\u{a}b\\u{9}c\\u{9b}2J\""),
            ("x\u{202e}gpj.exe\u{200b}", "\"x\\u{202e}gpj.exe\\u{200b}\""),
            ("zählwerk ✓", "\"zählwerk ✓\""),
        ] {
            assert_eq!(name(text), expected);
        }
        let long = name(&"ä".repeat(10_000));
        assert_eq!(long.chars().count(), NAME_CHARS + 4);
        assert!(statement(&"\u{0}".repeat(10_000)).len() < 2_000);
    }

    #[test]
    fn times_are_as_exact_as_they_are_useful() {
        for (milliseconds, expected) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (9_940, "9.9 s"),
            (12_500, "12 s"),
            (179_999, "179 s"),
            (180_000, "3 min"),
            (10_800_000, "3 h"),
            (172_800_000, "2 days"),
        ] {
            assert_eq!(time(Duration::from_millis(milliseconds)), expected);
        }
        assert_eq!(span(Duration::from_secs(1), Duration::from_secs(20)), "1.0 s to 20 s");
        assert_eq!(span(Duration::from_secs(20), Duration::from_secs(20)), "20 s");
    }
}
