//! Pure: SQL text in, [`Verdict`] out. No sockets, no clocks, no I/O.
mod verdict;
pub use verdict::{Class, Control, Effects, Hint, Reason, Verdict};
