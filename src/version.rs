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
