//! Logs: to standard error, by level, as text or JSON. `[log]` says how; at the start `BULKHEAD_LOG` (or `RUST_LOG`) comes
//! first, which takes the filters of `tracing-subscriber`. A reload, the console and SIGUSR1 change the level later on.
//!
//! Whatever a line says, it is one line: names of users and texts of servers are written by others, and what is not
//! printable in them is escaped. That is done here, for every field of every line.

use std::{
    fmt::{self, Debug, Write},
    io::IsTerminal as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    field::MakeExt as _,
    filter::LevelFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Writer, debug_fn},
        time::{FormatTime as _, SystemTime},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt as _,
};

use crate::{
    admin::{Events, KeepEvents},
    config::{Log, LogFormat, LogLevel},
};

/// Changes the log while the program runs.
pub struct LogControl {
    set_filter: Box<dyn Fn(EnvFilter) + Send + Sync>,
    is_json: Arc<AtomicBool>,
    level: Mutex<Level>,
}

/// The level in force.
#[derive(Clone, Copy, Debug)]
struct Level {
    configured: LogLevel,
    /// A signal has asked for the other one of two.
    is_turned: bool,
}

/// Starts logging, and gives what changes it and what keeps its last lines. Called once.
pub fn start(config: &Log) -> (LogControl, Arc<Events>) {
    let environment = EnvFilter::try_from_env("BULKHEAD_LOG").or_else(|_| EnvFilter::try_from_default_env());
    let filter = environment.unwrap_or_else(|_| filter(config.level));
    let is_json = Arc::new(AtomicBool::new(config.format == LogFormat::Json));
    let fields = debug_fn(|writer, field, value| {
        let mut line = OneLine(writer);
        match field.name() {
            "message" => write!(line, "{value:?}"),
            name => write!(line, "{name}={value:?}"),
        }
    });
    let colours = std::io::stderr().is_terminal();
    let text = tracing_subscriber::fmt::format().with_ansi(colours);
    let (filter, handle) = reload::Layer::new(filter);
    let log = tracing_subscriber::fmt::layer()
        .fmt_fields(fields.delimited(" "))
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .event_format(Lines { text, is_json: Arc::clone(&is_json) })
        .with_filter(filter);
    let events = Arc::new(Events::default());
    let keep = KeepEvents(Arc::clone(&events)).with_filter(LevelFilter::INFO);
    // Fails only if a test has set a subscriber already; then that one is to be used.
    let _ = tracing_subscriber::registry().with(log).with(keep).try_init();
    let set_filter = Box::new(move |filter| {
        // It fails when nothing is logged any more.
        let _ = handle.reload(filter);
    });
    let level = Mutex::new(Level { configured: config.level, is_turned: false });
    (LogControl { set_filter, is_json, level }, events)
}

/// Lines of this level: those of other libraries only from `info` on.
fn filter(level: LogLevel) -> EnvFilter {
    match level {
        LogLevel::Debug | LogLevel::Trace => EnvFilter::new(format!("info,bulkhead={}", level.name())),
        level => EnvFilter::new(level.name()),
    }
}

impl LogControl {
    /// The configuration says something else than before.
    pub fn follow(&self, before: &Log, now: &Log) {
        self.is_json.store(now.format == LogFormat::Json, Ordering::Relaxed);
        if before.level != now.level {
            let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
            *level = Level { configured: now.level, is_turned: false };
            (self.set_filter)(filter(now.level));
        }
    }

    /// Goes over to `debug`, and back to the configured level the next time; to `info` where that is `debug` or more.
    pub fn turn(&self) {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        level.is_turned = !level.is_turned;
        let now = level.in_force();
        drop(level);
        (self.set_filter)(filter(now));
        tracing::info!(level = now.name(), "SIGUSR1: the level of the log was changed");
    }
}

impl Level {
    const fn in_force(self) -> LogLevel {
        match (self.is_turned, self.configured) {
            (false, level) => level,
            (true, LogLevel::Debug | LogLevel::Trace) => LogLevel::Info,
            (true, _) => LogLevel::Debug,
        }
    }
}

impl Debug for LogControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogControl").field("level", &self.level).finish_non_exhaustive()
    }
}

/// Lines of either form.
struct Lines {
    text: Format,
    is_json: Arc<AtomicBool>,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if !self.is_json.load(Ordering::Relaxed) {
            return self.text.format_event(context, to, event);
        }
        let metadata = event.metadata();
        write!(to, "{{\"timestamp\":\"")?;
        SystemTime.format_time(&mut to)?;
        write!(to, "\",\"level\":\"{}\",\"target\":", metadata.level())?;
        write!(to, "{}", Json(metadata.target()))?;
        let mut fields = JsonFields { message: String::new(), others: String::new() };
        event.record(&mut fields);
        writeln!(to, ",\"message\":{},\"fields\":{{{}}}}}", Json(&fields.message), fields.others)
    }
}

/// The fields of a line, as JSON.
struct JsonFields {
    message: String,
    others: String,
}

impl JsonFields {
    fn add(&mut self, field: &Field, value: impl fmt::Display) {
        let comma = if self.others.is_empty() { "" } else { "," };
        // Text takes text.
        let _ = write!(self.others, "{comma}{}:{value}", Json(field.name()));
    }
}

impl Visit for JsonFields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Json(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        if field.name() == "message" {
            self.message = value;
        } else {
            self.add(field, Json(&value));
        }
    }
}

/// A text as JSON writes it, with everything escaped that is not printable.
struct Json<'t>(&'t str);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for character in self.0.chars() {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                // All of them have numbers of 16 bits.
                _ if is_unprintable(character) => write!(f, "\\u{:04x}", u32::from(character))?,
                _ => f.write_char(character)?,
            }
        }
        f.write_char('"')
    }
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
            let json = Json(text).to_string();
            assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), text);
            assert!(!json.contains(is_unprintable), "{json}");
        }
    }

    #[test]
    fn a_signal_turns_the_level_and_turns_it_back() {
        for (configured, turned) in [
            (LogLevel::Info, LogLevel::Debug),
            (LogLevel::Warn, LogLevel::Debug),
            (LogLevel::Debug, LogLevel::Info),
            (LogLevel::Trace, LogLevel::Info),
        ] {
            assert_eq!(Level { configured, is_turned: false }.in_force(), configured);
            assert_eq!(Level { configured, is_turned: true }.in_force(), turned);
        }
    }
}
