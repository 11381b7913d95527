//! What was built, from what, and with what; `build.rs` finds it out.

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit, or `unknown`: only release builds within a git checkout know it, or those that are told by the
/// variable `BULKHEAD_COMMIT`.
pub const COMMIT: &str = env!("BULKHEAD_COMMIT");
/// The compiler.
pub const RUSTC: &str = env!("BULKHEAD_RUSTC");
/// The platform.
pub const TARGET: &str = env!("BULKHEAD_TARGET");
/// The major version of PostgreSQL whose grammar reads statements.
pub const GRAMMAR: &str = "18";

/// A version of PgBouncer whose console ours is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PgBouncer {
    /// 1.25
    #[default]
    V1_25,
    /// 1.26, which counts clients' logins: `SHOW STATS` and its kin have a column more.
    V1_26,
}

impl PgBouncer {
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::V1_25, Self::V1_26];

    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1_25 => "1.25",
            Self::V1_26 => "1.26",
        }
    }

    /// The release that clients of the console are told.
    pub const fn release(self) -> &'static str {
        match self {
            Self::V1_25 => "1.25.2",
            Self::V1_26 => "1.26.0",
        }
    }
}

/// All of it, for `--version`.
pub const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit      ",
    env!("BULKHEAD_COMMIT"),
    "\ncompiler    ",
    env!("BULKHEAD_RUSTC"),
    "\nplatform    ",
    env!("BULKHEAD_TARGET"),
    "\ngrammar     PostgreSQL 18"
);
