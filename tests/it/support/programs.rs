//! The installation of PostgreSQL that the tests use.

use std::{ops::Deref, process::Command, sync::OnceLock};

pub(crate) use bulkhead::demo::programs::Owner;
use bulkhead::demo::programs::Programs as Installation;

/// An installation of PostgreSQL.
#[derive(Debug)]
pub(crate) struct Programs {
    installation: Installation,
    /// What `postgres --version` says; part of the key of the cached data folder.
    pub(crate) version: String,
}

/// The installation that all tests use: `BULKHEAD_TEST_PG_BIN`, or the newest one found.
pub(crate) fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let found = Installation::find("BULKHEAD_TEST_PG_BIN");
        let installation = found.expect("PostgreSQL's initdb and postgres are installed: run `make setup`");
        let output = Command::new(installation.bin.join("postgres")).arg("--version").output();
        let output = output.expect("postgres runs");
        Programs { version: String::from_utf8_lossy(&output.stdout).trim().to_owned(), installation }
    })
}

impl Programs {
    /// The major version, such as 15.
    pub(crate) fn major(&self) -> u32 {
        let number =
            self.version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        let major = number.and_then(|word| word.split(|c: char| !c.is_ascii_digit()).next());
        major.and_then(|digits| digits.parse().ok()).expect("postgres --version names a version")
    }
}

impl Deref for Programs {
    type Target = Installation;

    fn deref(&self) -> &Installation {
        &self.installation
    }
}
