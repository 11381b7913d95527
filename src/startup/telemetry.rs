//! Logs: to standard error, by level. `BULKHEAD_LOG` (or `RUST_LOG`) takes the filters of `tracing-subscriber`;
//! the default is `info`.
//!
//! Whatever a line says, it is one line: names of users and texts of servers are written by others, and what is not
//! printable in them is escaped. That is done here, for every field of every line.

use std::{
    fmt::{self, Write},
    io::IsTerminal as _,
    sync::Arc,
};

use tracing_subscriber::{
    EnvFilter, Layer as _, field::MakeExt as _, filter::LevelFilter, fmt::format::debug_fn,
    layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::admin::{Events, KeepEvents};

/// Starts logging, and gives what keeps the last lines. Called once.
pub fn start() -> Arc<Events> {
    let filter = EnvFilter::try_from_env("BULKHEAD_LOG")
        .or_else(|_| EnvFilter::try_from_default_env())
        .unwrap_or_else(|_| EnvFilter::new("info"));
    // Fails only if a test has set a subscriber already; then that one is to be used.
    let colours = std::io::stderr().is_terminal();
    let fields = debug_fn(|writer, field, value| {
        let mut line = OneLine(writer);
        match field.name() {
            "message" => write!(line, "{value:?}"),
            name => write!(line, "{name}={value:?}"),
        }
    });
    let log = tracing_subscriber::fmt::layer()
        .fmt_fields(fields.delimited(" "))
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_filter(filter);
    let events = Arc::new(Events::default());
    let keep = KeepEvents(Arc::clone(&events)).with_filter(LevelFilter::INFO);
    let _ = tracing_subscriber::registry().with(log).with(keep).try_init();
    events
}

/// Passes text on with everything escaped that could end a line, begin a new one, or change how others are shown.
pub struct OneLine<W>(pub W);

impl<W: Write> Write for OneLine<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_unprintable) {
            let (before, after) = rest.split_at(at);
            self.0.write_str(before)?;
            let mut characters = after.chars();
            characters
                .next()
                .into_iter()
                .try_for_each(|character| write!(self.0, "{}", character.escape_default()))?;
            rest = characters.as_str();
        }
        self.0.write_str(rest)
    }
}

/// Control characters, the separators of lines and paragraphs, and what turns the direction of text.
fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_one_line() {
        for (text, written) in [
            ("plain, ä and 字", "plain, ä and 字"),
            ("a\nINFO forged\r\tb", "a\\nINFO forged\\r\\tb"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("\u{202e}x\u{2028}\u{85}", "\\u{202e}x\\u{2028}\\u{85}"),
            ("", ""),
        ] {
            let mut out = OneLine(String::new());
            out.write_str(text).expect("text takes text");
            assert_eq!(out.0, written);
        }
    }
}
