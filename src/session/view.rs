//! What a session goes by: the configuration and the definitions of its database.

use std::sync::Arc;

use crate::{
    backend::Identity,
    catalog::DatabaseCatalog,
    shared::{Live, Shared, attention::Call},
};

/// What the session goes by: the configuration in force when it last looked, and the definitions of its database.
#[derive(Debug)]
pub(super) struct View {
    pub(super) shared: Arc<Shared>,
    pub(super) live: Arc<Live>,
    pub(super) catalog: Arc<DatabaseCatalog>,
    /// The last call for attention that it has followed.
    pub(super) attended: Call,
}

impl View {
    /// The view of an identity's sessions on what is in force.
    pub(super) fn new(live: Arc<Live>, shared: Arc<Shared>, identity: &Arc<Identity>) -> Self {
        Self { catalog: shared.catalogs.of(identity), live, attended: shared.attention.last(), shared }
    }
}
