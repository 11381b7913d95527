//! Types that have other numbers (OIDs) on the job database than on the primary: which number stands for which, and
//! the messages in which they stand.
//!
//! A client learns types from the primary's catalog, and the job database's numbers of the same types are others. So
//! what a job backend says is put into the primary's numbers before anything else looks at it, and what is sent to it,
//! into its own:
//!
//! | message | what stands in it | where it is translated |
//! |---|---|---|
//! | RowDescription | each column's type; its table, and its number in that | [`Replies`] |
//! | ParameterDescription | each parameter's type | [`Replies`] |
//! | DataRow | in binary format: an array's element type, a record's type of each field, nested | [`Replies`] |
//! | Parse | parameter types | [`localize_parses`] |
//! | Bind | binary values, as in a DataRow | [`localize_values`] |
//!
//! A number takes the place of another of the same length, so no message becomes longer, and none has to be kept: of
//! what the server sends, a description is held until it is whole, and of a row the few bytes in which a number may
//! stand. Rows whose columns contain no such number are passed by without being looked at.
//!
//! Not translated: values of the types `oid` and `reg*`, which are data; COPY in binary format; FunctionCall, whose
//! function is a number too; a Parse too long to be kept.
//!
//! Pure: who reads the two catalogs, and when, is [`crate::catalog`]'s.

mod drift;
mod known;
mod map;
mod replies;
mod requests;
mod value;

pub use drift::drift;
pub use known::{Known, QUERY};
pub use map::{TypeMap, Untold};
pub use replies::{Replies, Stop, parameters_hash};
pub use requests::{Unsaid, declared, localize_parses, localize_values, unsaid_type};

/// The first number that is not PostgreSQL's own: below it the same number is the same type on every server.
const FIRST_USER_NUMBER: u32 = 16_384;
