//! How a session begins: what the door knows of a client that was let in.

use std::sync::Arc;

use super::{Client, Hold, Own, Session, UnderWay, View};
use crate::{
    backend::{Identity, Settings},
    route::PoolId,
    shared::{Current, Snapshot, cancels::CancelKey},
    sql::Reading,
    threads::Home,
};

/// The client's identity: fixed when it was let in, but for what a reload changes of it.
#[derive(Debug)]
pub(super) struct Who {
    pub(super) identity: Arc<Identity>,
    pub(super) home: Home,
    /// The key that cancels this session.
    pub(super) key: CancelKey,
    /// The settings that the client asked for at startup: where RESET goes back to.
    pub(super) startup: Arc<Settings>,
    pub(super) is_worker: bool,
    /// The pool that everything goes to (`dbname=app@jobs`).
    pub(super) bound: Option<PoolId>,
}

/// Everything that a session starts with.
pub(crate) struct Start {
    /// The client's identity to servers.
    pub(crate) identity: Arc<Identity>,
    /// The settings that the client asked for.
    pub(crate) startup: Arc<Settings>,
    /// How the server reads its texts.
    pub(crate) reading: Reading,
    /// The pool that it asked for.
    pub(crate) bound: Option<PoolId>,
}

impl Start {
    /// The session of this client.
    pub(crate) fn into_session(
        self,
        client: Client,
        key: CancelKey,
        snapshot: Arc<Snapshot>,
        live: Arc<Current>,
        home: Home,
    ) -> Box<Session> {
        let Self { identity, startup, reading, bound } = self;
        let is_worker = snapshot.is_worker(&identity.user, startup.get("application_name"));
        let who = Who { identity, home, key, startup, is_worker, bound };
        let mut own = Own::new(&who.startup, reading, &snapshot);
        if bound.is_some_and(|pool| snapshot.is_jobs_elsewhere(pool)) {
            own.statements.get_or_insert_default().are_elsewhere = true;
        }
        who.key.has_settings(&own.settings);
        let under_way = UnderWay::new(&snapshot);
        let view = View::new(live, snapshot, &who.identity);
        let mut session = Box::new(Session { client, who, view, own, hold: Hold::default(), under_way });
        session.note_begin();
        session
    }
}
