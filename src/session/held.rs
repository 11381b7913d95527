//! What the steps that need a backend may touch: the session's parts side by side, and its backend as a fact. They are
//! given it, and none of them asks whether there is one: whoever calls them knows, or has looked.

use super::{
    Client, Own, Session, UnderWay, View,
    classify::Judge,
    hold::{Across, Hold, Leased},
    start::Who,
    transaction::LocalTransaction,
};
use crate::wire::TxStatus;

/// A session and the backend that it holds.
#[derive(Debug)]
pub(super) struct Held<'s> {
    pub(super) client: &'s mut Client,
    pub(super) who: &'s Who,
    pub(super) view: &'s View,
    pub(super) own: &'s mut Own,
    pub(super) transaction: &'s mut LocalTransaction,
    pub(super) across: &'s mut Option<Box<Across>>,
    pub(super) leased: &'s mut Leased,
    pub(super) under_way: &'s mut UnderWay,
}

impl Session {
    /// The session with its backend, for steps between a checkout and the backend's return: what is neither answered nor
    /// refused has one.
    #[inline]
    pub(super) fn held(&mut self) -> Held<'_> {
        self.held_if_any().expect("what is neither answered nor refused has its backend")
    }

    /// The session with its backend, if it holds one: between requests, and behind replies with which it may have been given back.
    #[inline]
    pub(super) fn held_if_any(&mut self) -> Option<Held<'_>> {
        let Self { client, who, view, own, hold: Hold { transaction, leased, across }, under_way } = self;
        let leased = leased.as_deref_mut()?;
        Some(Held { client, who, view, own, transaction, across, leased, under_way })
    }
}

impl Held<'_> {
    /// The judge of the session's requests.
    pub(super) fn judge(&self) -> Judge<'_> {
        let reading = self.leased.protocol.reading();
        Judge { inbox: &self.client.inbox, view: self.view, own: self.own, reading }
    }

    /// The transaction status that the client is told.
    pub(super) fn status(&self) -> TxStatus {
        self.transaction.status_with(self.leased.protocol.status())
    }

    /// Whether the client's Sync is still to come for what was sent last.
    pub(super) fn is_amid_pipeline(&self) -> bool {
        self.leased.protocol.is_open()
    }

    /// Whether the session holds a backend of both servers.
    pub(super) fn is_both(&self) -> bool {
        self.across.as_ref().is_some_and(|across| across.is_both())
    }
}
