//! What the steps that send a request may touch: the session's parts side by side, and its backend as a fact.

use super::{
    Client, Own, UnderWay, View, classify::Judge, hold::Leased, start::Who, transaction::LocalTransaction,
};
use crate::wire::TxStatus;

/// A session that sends a request to the backend that it holds.
#[derive(Debug)]
pub(super) struct Sending<'s> {
    pub(super) client: &'s mut Client,
    pub(super) who: &'s Who,
    pub(super) view: &'s View,
    pub(super) own: &'s mut Own,
    pub(super) transaction: &'s mut LocalTransaction,
    pub(super) leased: &'s mut Leased,
    pub(super) under_way: &'s mut UnderWay,
}

impl Sending<'_> {
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
}
