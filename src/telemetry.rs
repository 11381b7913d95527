//! Logs: to standard error, by level. `BULKHEAD_LOG` (or `RUST_LOG`) takes the filters of `tracing-subscriber`;
//! the default is `info`.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts logging. Called once.
pub fn start() {
    let filter = EnvFilter::try_from_env("BULKHEAD_LOG")
        .or_else(|_| EnvFilter::try_from_default_env())
        .unwrap_or_else(|_| EnvFilter::new("info"));
    // Fails only if a test has set a subscriber already; then that one is to be used.
    let colours = std::io::stderr().is_terminal();
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    let _ = log.try_init();
}
