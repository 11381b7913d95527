//! Durations and sizes with their units. Refuses bare numbers: nobody remembers whether they are seconds.

use std::time::Duration;

use super::problem::{Wrong, shown};

const DURATIONS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// `500ms`, `2s`, `5m`, `1h`, `1d`.
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    with_unit(text, DURATIONS).map(Duration::from_millis).map_err(|number| match number {
        Some(number) => Wrong::new(
            format!("{} has no unit", shown(text)),
            format!("write \"{number}s\" for seconds or \"{number}ms\" for milliseconds"),
        ),
        None => Wrong::new(
            format!("{} is not a duration", shown(text)),
            "write a whole number and ms, s, m, h or d, such as \"500ms\" or \"5m\"",
        ),
    })
}

/// `64KiB`, `1MiB`, `16kB`; in bytes.
pub(super) fn size(text: &str) -> Result<usize, Wrong> {
    with_unit(text, SIZES).map(|bytes| bytes as usize).map_err(|number| match number {
        Some(number) => Wrong::new(
            format!("{} has no unit", shown(text)),
            format!("write \"{number}B\" for bytes or \"{number}KiB\" for 1024 bytes each"),
        ),
        None => Wrong::new(
            format!("{} is not a size", shown(text)),
            "write a whole number and B, kB, MB, GB, KiB, MiB or GiB, such as \"64KiB\"",
        ),
    })
}

/// The value in the smallest unit; else the number that lacks a unit, if it is one.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Result<u64, Option<u64>> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().map_err(|_| None)?;
    let unit = unit.trim();
    if unit.is_empty() {
        return Err(Some(number));
    }
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or(None)?;
    number.checked_mul(*factor).ok_or(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_units() {
        for (text, ms) in [("500ms", 500), ("2s", 2000), ("5m", 300_000), ("1 h", 3_600_000), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for (text, bytes) in [("64KiB", 65536), ("1MiB", 1 << 20), ("16kB", 16000), ("9B", 9)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in ["", "5", "s", "-1s", "1.5s", "5sec", "5 minutes", "99999999999999999999s", "1é"] {
            assert!(duration(text).is_err(), "{text}");
            assert!(size(text).is_err(), "{text}");
        }
        assert!(size("18446744073709551615GiB").is_err());
    }
}
