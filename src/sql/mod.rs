//! Pure: SQL text in, [`Verdict`] out. No sockets, no clocks, no I/O.
//!
//! ```text
//! text -> key (lexer) -> cache -> verdict            a fraction of a microsecond
//!                          | miss
//!                          v
//!                   parse -> judge -> verdict        microseconds, once for each shape of text
//!                              ^   ^
//!                          Rules   Catalog
//! ```
//!
//! `recent` spares the lexer the texts that a thread has seen lately, and those that differ from them in literals only.
//!
//! [`Classifier`] is the way in. [`Rules`] say what a job object is, a [`Catalog`] says what functions and
//! relations of one database do. [`explain()`] gives the reasons in words.
//!
//! Whether a text leaves nothing on its backend beyond what the session carries is proven or not
//! ([`Effects::UNPROVEN`]); there is no third. `prove` proves what a query names, node by node, `definitions` what other
//! statements do. `proof` knows of one database what may be named: it is the closure of who reaches what, from what the
//! server's catalog says (`proof_*.sql`), the audited lists of built-in functions (`audit/*.txt`) and the bodies of
//! functions (`bodies`, `plpgsql`), and `additions` what was made since the catalog was read. Names stand for the worst of all objects of that name, so that neither `search_path`
//! nor temporary objects matter; what is not known, or not read to its end, is not proven.
//!
//! Which tables a statement reaches ([`Verdict::tables`]) comes from the same rows (`reach`): what is not proven reaches
//! all.

mod additions;
mod audit;
mod bodies;
mod cache;
mod catalog;
mod consistency;
mod definitions;
mod explain;
mod functions;
mod glob;
mod hidden;
mod hint;
mod judge;
mod key;
mod lexer;
mod libraries;
mod names;
mod normal;
mod objects;
mod outgoing;
mod parse;
mod plpgsql;
mod presets;
mod programs;
mod proof;
mod prove;
mod query;
mod quote;
mod reach;
mod reading;
mod recent;
mod renames;
mod replicas;
mod rows;
mod rules;
mod seen;
mod setting;
mod shown;
mod statements;
mod tables;
mod tags;
mod targets;
mod text_id;
mod used;
mod utility;
mod verdict;

#[cfg(test)]
mod tests;

pub use cache::{Classifier, Miss};
pub use catalog::Catalog;
pub use consistency::Consistency;
pub use explain::{Explanation, explain};
pub use glob::Glob;
pub use hidden::HiddenSearch;
pub use libraries::Library;
pub use normal::normal;
pub use outgoing::Outgoing;
pub use presets::{Calls, Function, Maker, Notify, Parent, Relayed};
pub use quote::{quote_literal, quote_name};
pub use reading::Reading;
pub use renames::{RenamedAway, renamed_away};
pub use replicas::NOT_ON_REPLICAS;
pub use rules::{Custom, Rules, UnknownPreset};
pub use setting::is_carried_name;
pub use shown::without_literals;
pub use statements::{
    Deallocate, StatementName, added_names, cursor_name, deallocate_target, listened_channels, reset_names,
    setting_names, statement_names, statement_ranges,
};
pub use tables::Tables;
pub use tags::Tags;
pub use text_id::TextId;
pub use verdict::{AccessMode, Class, Control, Effects, Hint, Reason, Verdict};
