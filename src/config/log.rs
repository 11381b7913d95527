//! What is counted and what is logged.

use std::time::Duration;

/// `[statistics]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Statements that are counted; zero for none.
    pub queries: usize,
    /// Bytes of a text that are kept.
    pub query_bytes: usize,
    /// Requests that take this long are kept; zero for none.
    pub slow_statement: Duration,
    /// How many of them.
    pub slow_statements: usize,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Lines from this level on are logged.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
    /// Requests that take this long are logged; zero for none.
    pub slow_statement: Duration,
    /// How many of a hundred of these.
    pub slow_sample_percent: usize,
    /// Whether their literals and bound values are logged as well.
    pub slow_values: bool,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A text for people (the default).
    Text,
    /// An object of JSON.
    Json,
}

impl LogFormat {
    /// The name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// The weight of lines from which on they are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Failures.
    Error,
    /// Things that somebody should look after.
    Warn,
    /// Events that concern all (the default).
    Info,
    /// Events of each session.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// Every level.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            queries: 500,
            query_bytes: 1 << 10,
            slow_statement: Duration::from_secs(1),
            slow_statements: 100,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Text,
            slow_statement: Duration::ZERO,
            slow_sample_percent: 100,
            slow_values: false,
        }
    }
}
