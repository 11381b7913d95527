//! What a session goes by: the configuration and the definitions of its database.

use std::sync::Arc;

use super::{hold::Leased, kinds::DEFINES, left::Left};
use crate::{
    backend::Identity,
    catalog::DatabaseCatalog,
    shared::{Current, Snapshot},
    sql::Effects,
};

/// The session's view of the world: the configuration when it last looked, and the definitions of its database.
#[derive(Debug)]
pub(super) struct View {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) live: Arc<Current>,
    pub(super) catalog: Arc<DatabaseCatalog>,
}

/// Effects that are noted when their transaction has ended.
const NOTED: Effects = DEFINES.with(Effects::DROPS).with(Effects::CHANGES_DEFAULTS);

impl View {
    /// The view of an identity's sessions on what is in force.
    pub(super) fn new(live: Arc<Current>, snapshot: Arc<Snapshot>, identity: &Arc<Identity>) -> Self {
        Self { catalog: snapshot.catalogs.of(identity), live, snapshot }
    }

    /// Definitions may have changed: classification and shared statements must follow.
    pub(super) fn note_definitions(&self, left: &mut Left) {
        if left.has_nothing_noted() && !left.effects.has(NOTED) {
            return;
        }
        let is_proven = !left.effects.has(Effects::UNPROVEN) && left.judged_at == self.catalog.changes();
        let added = left.take_added();
        if left.effects.has(Effects::DDL) || left.effects.has(Effects::ADDS) && !is_proven {
            self.snapshot.catalogs.changed(&self.catalog);
        } else if left.effects.has(Effects::ADDS) {
            self.snapshot.catalogs.added(&self.catalog, &added);
        } else if left.effects.has(Effects::DROPS) {
            self.snapshot.catalogs.dropped();
        }
        if left.effects.has(Effects::CHANGES_DEFAULTS) {
            self.snapshot.renew_backends();
        }
        left.effects = left.effects.without(NOTED);
    }

    /// The transaction of what is held has ended: notes what its texts may have done to anything but the backend.
    pub(super) fn note_traces(&self, leased: &mut Leased) {
        let left = &mut leased.left;
        if left.judged_at != self.catalog.changes() {
            // Something else may have run than what was judged.
            left.effects |= Effects::UNPROVEN;
        }
        if left.effects.has(Effects::OPAQUE) && left.effects.has(Effects::UNPROVEN) {
            self.snapshot.catalogs.doubt(&self.catalog);
        }
        left.has_defined();
        if left.effects.has(DEFINES) {
            // They may be temporary by the search path alone.
            left.noted().has_new_objects = true;
        }
        self.note_definitions(left);
        if left.effects.has(Effects::UNPROVEN) {
            // Whatever is found and carried: another session gets it only after a reset.
            leased.is_suspect = true;
        }
    }
}
