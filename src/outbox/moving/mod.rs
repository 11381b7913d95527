//! The tables of a job library, moved from the primary to the job database, or back, while workers run.
//!
//! ```text
//!  prepare   tables that the target lacks are made; the target's tables refuse whoever writes; the source's note the keys of rows that change
//!  copy      rows go over, in the order of their keys
//!  follow    rows of noted keys go over as they are now, again and again
//!  switch    the pause: nobody writes, the last rows go over, both sides' rows are compared;
//!            the source refuses whoever writes, is emptied, and commits: from here on the jobs are there
//!  open      the target takes writes
//!  moved
//! ```
//!
//! What is done is told by the servers: the step by a table on the primary, and whether the switch has happened by the
//! source itself, which has committed it, or not. So whoever comes after one that was killed goes on where that one was.
//! Each commit of the target precedes that of the source which forgets what was carried over; carrying rows over twice
//! changes nothing. At no moment do both sides take a worker's write.
//!
//! Going back, rows come into tables beside the primary's own, from which a relay may be taking jobs; they go into these
//! when the switch has happened.
//!
//! | file | owns |
//! |---|---|
//! | `mover` | the steps, in order |
//! | `prepare` | the first step: what is in the way, and what is to be made |
//! | `schema` | tables that the target lacks |
//! | `ends` | saying what will be done, and taking away what a move has made |
//! | `switch` | the pause, its bound, and what is compared |
//! | `carry` | bringing rows over |
//! | `fence` | who may write: triggers that refuse, and triggers and references that rest meanwhile |
//! | `texts` | the statements for one table |
//! | `catalog` | the tables, and why some cannot be moved |
//! | `state` | the step, on the primary |
//! | `instances` | running instances that hold job statements during the pause |

mod carry;
mod catalog;
mod ends;
mod fence;
mod instances;
mod mover;
mod prepare;
mod schema;
mod sides;
mod state;
mod switch;
mod texts;

pub use instances::Instances;
pub use mover::{Mover, Options};
pub use sides::MoveError;
pub use state::{Direction, State, Step, read as read_state};
