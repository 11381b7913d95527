//! What a session that uses two servers has on one of them only, and says nothing of when it uses it: portals, which SQL calls
//! cursors, and advisory locks. A statement that names such a thing goes to the server where it is.

use super::{
    Session, Stop,
    classify::Judge,
    held::Held,
    hold::Leased,
    reply::{self, Reply},
    request::Request,
    there::There,
};
use crate::{
    backend::{Broken, handover::NotReady},
    route::{Demand, PoolId},
    sql::{Class, Control, Effects, cursor_name, statement_ranges},
    wire::{
        TxStatus,
        client::{ClientMessage, Item, Parse},
    },
};

/// Words with which statements about cursors begin.
const WORDS: [&str; 4] = ["declare", "fetch", "move", "close"];

/// Statements that let go of everything of a kind, on each server.
const LETS_GO: [&str; 7] = [
    DISCARDS,
    "discard temp",
    "discard temporary",
    "discard sequences",
    "close all",
    "select pg_advisory_unlock_all()",
    "select pg_catalog.pg_advisory_unlock_all()",
];

const DISCARDS: &str = "discard all";

/// The cursor that a text is about, and whether it makes it. It is read only if it begins like one.
fn cursor_of(text: &[u8]) -> Option<(bool, String)> {
    let text = text.trim_ascii_start();
    let begins =
        |word: &str| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()));
    WORDS.iter().any(|word| begins(word)).then(|| cursor_name(text)).flatten()
}

/// The statements of a text that let go of everything of a kind.
fn lets_go(text: &[u8]) -> impl Iterator<Item = &'static str> {
    statement_ranges(text).into_iter().filter_map(|range| {
        let statement = String::from_utf8_lossy(&text[range]).to_ascii_lowercase();
        let words =
            statement.trim_matches(|c: char| c.is_ascii_whitespace() || c == ';').split_ascii_whitespace();
        let plain = words.collect::<Vec<_>>().join(" ");
        LETS_GO.into_iter().find(|known| *known == plain)
    })
}

impl<'a> Judge<'a> {
    /// The texts that a request runs.
    fn run_texts(self, request: Request) -> Vec<&'a [u8]> {
        if !request.is_extended() {
            return self.texts(request);
        }
        let (mut parsed, mut run): (Vec<Parse<'a>>, Vec<&[u8]>) = (Vec::new(), Vec::new());
        for framed in self.messages(request).flatten() {
            match framed.message {
                ClientMessage::Parse(parse) => parsed.push(parse),
                ClientMessage::Bind(bind) => {
                    let here = parsed.iter().rev().find(|parse| parse.name == bind.statement);
                    run.extend(here.map(|parse| parse.text).or_else(|| self.known_text(bind.statement)));
                }
                _ => {}
            }
        }
        run
    }

    /// The portals with names that a request makes.
    fn portals_made(self, request: Request) -> Vec<Box<[u8]>> {
        let made = |text: &[u8]| cursor_of(text).filter(|(makes, _)| *makes);
        let cursors = self.run_texts(request).into_iter().filter_map(made);
        let mut portals: Vec<Box<[u8]>> = cursors.map(|(_, name)| name.into_bytes().into()).collect();
        if request.is_extended() && request.bound_name().is_none() {
            for framed in self.messages(request).flatten() {
                if let ClientMessage::Bind(bind) = framed.message
                    && !bind.portal.is_empty()
                {
                    portals.push(bind.portal.into());
                }
            }
        }
        portals
    }

    /// The portal that a request uses and has not made.
    fn portal_used(self, request: Request) -> Option<Box<[u8]>> {
        let mut cursors = self.run_texts(request).into_iter().filter_map(cursor_of);
        if let Some((_, name)) = cursors.find(|(makes, _)| !makes) {
            return Some(name.into_bytes().into());
        }
        if !request.is_extended() {
            return None;
        }
        let mut bound: Vec<&[u8]> = Vec::new();
        for framed in self.messages(request).flatten() {
            let (ClientMessage::Execute { portal }
            | ClientMessage::Describe(Item::Portal(portal))
            | ClientMessage::Close(Item::Portal(portal))) = framed.message
            else {
                if let ClientMessage::Bind(bind) = framed.message {
                    bound.push(bind.portal);
                }
                continue;
            };
            if !portal.is_empty() && !bound.contains(&portal) {
                return Some(portal.into());
            }
        }
        None
    }
}

impl Held<'_> {
    /// Notes what the request, which is about to be sent, makes on its server.
    pub(super) fn note_there(&mut self, request: Request, demand: &Demand) {
        let effects = demand.verdict.effects;
        if effects.has(Effects::ADVISORY) && effects.has(Effects::LOCKS) {
            self.leased.there.note_locks();
        }
        for portal in self.judge().portals_made(request) {
            if let Some(beside) = self.across.as_mut().and_then(|across| across.beside.as_mut()) {
                beside.there.forget(&portal);
            }
            self.leased.there.note(&portal);
        }
    }
}

impl Session {
    /// The pool of the backend that has what a request is about which names no table; of a session that holds two.
    pub(super) fn pool_that_has(&self, request: Request, demand: &Demand) -> Option<PoolId> {
        let beside = self.hold.across.as_ref()?.beside.as_deref()?;
        let here = self.hold.backend()?;
        let verdict = &demand.verdict;
        if verdict.class != Class::Neutral || verdict.control != Control::None {
            return None;
        }
        let of = |is_there: &dyn Fn(&Leased) -> bool| {
            [here, beside].into_iter().find(|leased| is_there(leased)).map(|leased| leased.pool)
        };
        if verdict.effects.has(Effects::ADVISORY) && !verdict.effects.has(Effects::LOCKS) {
            let is_one = here.there.has_locks() != beside.there.has_locks();
            let unlocks = verdict.effects.has(Effects::ENDS_STATE) && is_one;
            return if unlocks { of(&|leased| leased.there.has_locks()) } else { None };
        }
        let portal = self.judge().portal_used(request)?;
        of(&|leased| leased.there.has(&portal))
    }

    /// Goes over to a backend of this pool for a request, as [`Self::cross`]. What lets go of everything of a kind does so on
    /// the other one as well, and first: who is told that it is done may rely on it.
    pub(super) async fn go_across(
        &mut self,
        request: Request,
        demand: &Demand,
        judged_at: u64,
        pool: PoolId,
    ) -> Result<(), Stop> {
        self.cross(request, demand, judged_at, pool).await?;
        let may_let_go = demand.verdict.effects.has(Effects::ENDS_STATE)
            && request.runs()
            && self.hold.is_both()
            && self.status() != TxStatus::Failed
            && !self.hold.is_amid_pipeline();
        if !may_let_go {
            return Ok(());
        }
        let texts: Vec<&str> = self.judge().run_texts(request).into_iter().flat_map(lets_go).collect();
        let discards = texts.contains(&DISCARDS);
        // Within a transaction it is an error, and does nothing.
        if texts.is_empty() || discards && self.status() != TxStatus::Idle {
            return Ok(());
        }
        self.let_go_beside(if discards { None } else { Some(texts.join("; ")) }).await
    }

    /// Has the backend beside let go of everything, or of what this says.
    async fn let_go_beside(&mut self, sql: Option<String>) -> Result<(), Stop> {
        let Some(beside) = self.hold.across.as_mut().and_then(|across| across.beside.as_mut()) else {
            return Ok(());
        };
        // What has become of what pins it is asked when the request is done.
        beside.left.effects |= Effects::ENDS_STATE;
        beside.there = There::default();
        let refused = match sql {
            None => match beside.reset().await {
                Ok(()) => return Ok(()),
                Err(NotReady::Refused(fields)) => Ok(Reply::from_server(&fields)),
                Err(NotReady::Broken(broken)) => Err(broken),
                Err(NotReady::Unclean) => Ok(reply::lost_synchronization()),
            },
            Some(sql) => match beside.ask(&sql).await {
                Ok(answer) => match answer.error {
                    None => return Ok(()),
                    Some(fields) => Ok(Reply::from_server(&fields)),
                },
                Err(broken) => Err(broken),
            },
        };
        match refused {
            Ok(reply) => Err(reply.into()),
            Err(broken) => self.lose_beside(broken),
        }
    }

    fn lose_beside(&mut self, broken: Broken) -> Result<(), Stop> {
        let reply = reply::transaction_lost(&broken, None);
        self.change_places();
        self.end_lease(broken)?;
        self.change_places();
        Err(reply.into())
    }
}
