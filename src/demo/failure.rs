//! Why there was no demonstration.

use std::{
    error::Error as _, fmt, fmt::Write as _, fs, io, path::Path, path::PathBuf, process::ExitStatus,
    time::Duration,
};

use super::programs::Missing;

/// Lines of each log that a failure shows.
const LOG_LINES: usize = 15;

/// What went wrong, and the ends of the servers' logs.
#[derive(Debug)]
pub struct DemoError {
    failure: Failure,
    logs: String,
}

impl DemoError {
    /// A failure, and what the logs in `folder` say, before the folder goes.
    pub(super) fn new(failure: Failure, folder: Option<&Path>) -> Self {
        Self { failure, logs: folder.map(ends_of_logs).unwrap_or_default() }
    }

    /// Whether something that is needed is not installed.
    pub fn is_missing(&self) -> bool {
        matches!(self.failure, Failure::Missing(_))
    }
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.failure, self.logs)
    }
}

impl std::error::Error for DemoError {}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Missing(#[from] Missing),
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{} cannot be run: {error}", program.display())]
    Program { program: PathBuf, error: io::Error },
    #[error("{} has failed: {status}", program.display())]
    Ended { program: PathBuf, status: ExitStatus },
    #[error("the server `{0}` has ended by itself")]
    Died(&'static str),
    #[error("{what} was not ready after {} s", within.as_secs())]
    NotReady { what: String, within: Duration },
    #[error("the server `{at}`: {}", with_source(error))]
    Sql { at: &'static str, error: tokio_postgres::Error },
    #[error("{0}")]
    System(#[from] io::Error),
}

/// The library's errors say little without what caused them.
fn with_source(error: &tokio_postgres::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// The last lines of every log in the folder, each with its name.
fn ends_of_logs(folder: &Path) -> String {
    let mut logs: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some(entry.path()).filter(|path| path.extension().is_some_and(|it| it == "log")))
        .collect();
    logs.sort();
    let mut text = String::new();
    for path in logs {
        let log = fs::read(&path).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ");
        if !end.is_empty() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            write!(text, "\n\nthe end of {name}:\n  {end}").expect("a String takes any text");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_ends_of_the_logs() {
        let folder = tempfile::tempdir().expect("a folder");
        let lines: Vec<String> = (1..=20).map(|number| format!("line {number}")).collect();
        fs::write(folder.path().join("primary.log"), lines.join("\n")).expect("writable");
        fs::write(folder.path().join("jobs.log"), "").expect("writable");
        fs::write(folder.path().join("bulkhead.toml"), "password").expect("writable");
        let text = DemoError::new(Failure::Died("primary"), Some(folder.path())).to_string();
        assert!(
            text.starts_with(
                "the server `primary` has ended by itself\n\nthe end of primary.log:\n  line 6\n"
            ),
            "{text}"
        );
        assert!(text.ends_with("\n  line 20") && !text.contains("jobs.log"), "{text}");
        assert!(!text.contains("password"), "{text}");
    }
}
