//! A request that runs one statement which the session has prepared: Bind of the unnamed portal, what is asked of that, Sync.
//! Drivers send it more than anything else. It is read once, and goes to the backend with one name replaced, where all that
//! its way could depend on is settled already; where anything is not, it goes the way of any other request.

use std::ops::Range;

use super::{
    classify::{Judge, Unjudged},
    request::Request,
    rewrite::Rewriting,
};
use crate::{backend::statements::Known, route::Demand, sql::Effects, wire::message};

/// Effects of a statement by which values that are bound, or other statements, decide about a request.
const DEPENDS: Effects = Effects::BOUND_SETTING.with(Effects::BIND_DECIDES).with(Effects::NAMES_STATEMENT);

impl Judge<'_> {
    /// The demand of a request that runs the statement of this name, and nothing else; `None` if it depends on more.
    pub(super) fn bound_demand(self, name: Range<usize>, unjudged: &mut Unjudged) -> Option<Demand> {
        let verdict = self.known_verdict_or_note(self.inbox.get(name)?, unjudged)?;
        (!verdict.effects.has(DEPENDS)).then(|| Demand::of(verdict))
    }

    /// Checks that the request demands the same on the way of all others, unless the catalog has changed meanwhile. For tests.
    pub(super) fn check_bound_demand(self, request: Request, demand: &Demand) {
        let other = self.extended_demand(request, &mut Unjudged::default()).expect("it is well formed");
        let again = request.bound_name().and_then(|name| self.bound_demand(name, &mut Unjudged::default()));
        assert!(other == *demand || again.as_ref() != Some(demand), "{demand:?}, {other:?}");
    }
}

impl Rewriting<'_> {
    /// Writes a request that runs the statement of this name to `out`, for the backend, if the statement is there as the
    /// client was told, and nothing is to be noted of its replies. Otherwise nothing is written.
    pub(super) fn write_bound(
        &mut self,
        messages: &[u8],
        name: Range<usize>,
        effects: Effects,
        out: &mut Vec<u8>,
    ) -> bool {
        let leased = &mut *self.leased;
        let is_settled = leased.types.is_none()
            && !leased.protocol.is_open()
            && !leased.left.may_discard
            && !effects.has(Effects::DISCARDS)
            && !leased.statements.has_surplus(self.view.snapshot.limits.prepared_per_backend);
        let Some((id, told, true)) = self.own.named(&messages[name.clone()]).filter(|_| is_settled) else {
            return false;
        };
        let Known::There(shape) = leased.statements.touch(id) else { return false };
        if !told.is_told() || !told.fits(shape) {
            return false;
        }
        message::bind_other(out, messages, name, &id);
        true
    }

    /// Checks that the request would have become the same on the way of all others. For tests.
    pub(super) fn check_bound(
        &mut self,
        messages: &[u8],
        request: Request,
        effects: Effects,
        written: &[u8],
    ) {
        let mut out = Vec::new();
        let rewritten = self.rewrite(messages, request, effects, &mut out).expect("it is written");
        assert_eq!(out, written);
        assert!(rewritten.passes(), "{rewritten:?}");
    }
}
