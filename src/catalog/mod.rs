//! The catalog snapshots that classification goes by: one of each database that clients use.
//!
//! A snapshot is read when the first client of its database comes, at once after definitions have changed through
//! here, and looked at again every `catalog_refresh` for what has changed past us. From the end of a change that went
//! through here until its reading has begun and ended nothing is known of the database: its statements go to the
//! primary, unproven. What only adds tables and the like leaves the rest as it is known: whoever creates and drops them in
//! a loop is nobody else's trouble. Readings are made on at most half of the time, so that whoever changes definitions in
//! a loop keeps one connection half busy at most.
//!
//! Where the job database is another server, the types of both are read as well (`types`): they have other numbers there.
//!
//! A database that nobody uses is not read, and soon forgotten. One that cannot be read is tried again ever more
//! rarely.

mod catalogs;
mod database;
mod latest;
mod question;
mod reader;
mod reading;
mod type_reader;
mod types;

pub use catalogs::Catalogs;
pub use database::{DatabaseCatalog, Defining};
pub use question::{read_catalog, read_types};
pub use reader::Source;
