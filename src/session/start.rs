//! How a session begins: what the door knows of a client that was let in.

use std::sync::Arc;

use super::{Client, Hold, Live, Own, Session, UnderWay, View, cancels::CancelKey, shared::Shared};
use crate::{
    backend::{Home, Identity, Settings},
    route::PoolId,
    sql::Reading,
};

/// Who the client is: fixed when it was let in, but for what a reload changes of it.
#[derive(Debug)]
pub(super) struct Who {
    pub(super) identity: Arc<Identity>,
    pub(super) home: Home,
    /// The key that cancels this session.
    pub(super) key: CancelKey,
    /// What the client asked for at startup: where RESET goes back to.
    pub(super) startup: Arc<Settings>,
    pub(super) is_worker: bool,
    /// The pool that everything goes to (`dbname=app@jobs`).
    pub(super) bound: Option<PoolId>,
}

/// Everything that a session starts with.
pub(super) struct Start {
    /// Who the client is to servers.
    pub(super) identity: Arc<Identity>,
    /// What it asked for.
    pub(super) startup: Arc<Settings>,
    /// How the server reads its texts.
    pub(super) reading: Reading,
    /// The pool that it asked for.
    pub(super) bound: Option<PoolId>,
}

impl Start {
    /// The session of this client.
    pub(super) fn into_session(
        self,
        client: Client,
        key: CancelKey,
        shared: Arc<Shared>,
        live: Arc<Live>,
        home: Home,
    ) -> Box<Session> {
        let Self { identity, startup, reading, bound } = self;
        let is_worker = shared.is_worker(&identity.user, startup.get("application_name"));
        let who = Who { identity, home, key, startup, is_worker, bound };
        let own = Own::new(&who.startup, reading, &shared);
        let under_way = UnderWay::new(&shared);
        let view = View::new(live, shared, &who.identity);
        Box::new(Session { client, who, view, own, hold: Hold::default(), under_way })
    }
}
