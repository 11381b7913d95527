//! What a backend's replies pass before anything else looks at them, where its numbers of types are not its session's.

use std::{fmt, pin::Pin, sync::Arc};

use crate::types::{Replies, TypeMap};

/// The filter of a backend.
#[derive(Debug)]
pub struct Filter {
    /// The filter itself.
    pub replies: Replies,
    /// The reading of the catalogs that the replies wait for.
    pub awaited: Option<Awaited>,
}

/// A reading of both catalogs, under way.
pub type Reading = Pin<Box<dyn Future<Output = Result<Arc<TypeMap>, String>> + Send + Sync>>;

/// A reading of the catalogs that replies wait for, because of a type that is not known.
pub struct Awaited {
    /// The type's number.
    pub number: u32,
    /// The reading.
    pub reading: Reading,
}

impl Filter {
    /// A filter that goes by these numbers.
    pub fn new(map: Arc<TypeMap>) -> Self {
        Self { replies: Replies::new(map), awaited: None }
    }

    /// The numbers that it goes by.
    pub fn map(&self) -> &TypeMap {
        self.replies.map()
    }
}

impl fmt::Debug for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Awaited").field("number", &self.number).finish_non_exhaustive()
    }
}
