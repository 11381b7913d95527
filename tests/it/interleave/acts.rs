//! A step of a session: what it sends at once, and how the next one is chosen.

use super::statements::{self, Leaves, choose, fill, statement};
use crate::support::{Random, RawClient};

/// What a session does in one step.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Connects with these startup parameters, after leaving if it was there.
    Login(Vec<(&'static str, &'static str)>),
    /// A Query.
    Query(String),
    /// Messages of the extended protocol in one write. Ends with Sync.
    Messages(Vec<Piece>),
}

#[derive(Clone, Debug)]
pub(super) enum Piece {
    Parse(&'static str, String),
    /// Portal, statement, values.
    Bind(&'static str, &'static str, Vec<String>),
    DescribeStatement(&'static str),
    DescribePortal(&'static str),
    Execute(&'static str, i32),
    CloseStatement(&'static str),
    ClosePortal(&'static str),
    Flush,
    Sync,
}

use Piece::{
    Bind, ClosePortal, CloseStatement, DescribePortal, DescribeStatement, Execute, Flush, Parse, Sync,
};

/// Names of protocol-level statements. Not those that SQL's PREPARE gives: through the proxy they are two kinds.
const NAMES: &[&str] = &["", "", "m1", "m2"];
const PORTALS: &[&str] = &["", "", "c1", "c2"];

/// Texts worth preparing: with parameters, with results that settings and definitions change.
const PREPARED: &[&str] = &[
    "SELECT $1::text",
    "SELECT set_config('work_mem', $1, false)",
    "SELECT set_config('app.a{n}', $1, true)",
    "SELECT timestamptz '2024-01-02 03:04+00', $1::text",
    "SELECT * FROM place WHERE $1::text <> ''",
    "SELECT generate_series(1, 7), $1::text",
    "SELECT pg_try_advisory_xact_lock(hashtext($1))",
    "INSERT INTO shared (who, key) VALUES ({i}, $1) RETURNING key",
    "SELECT $1::int / 0",
];

/// What a session may do next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chance {
    pub(super) session: usize,
    pub(super) most: Leaves,
    pub(super) in_transaction: bool,
    /// What the statements that the session has prepared may leave.
    pub(super) prepared: Leaves,
    /// Whether both sides know the same unnamed statement, or none. After an error that has skipped a Parse of it, the
    /// server has the one from before that; the proxy has none.
    pub(super) unnamed: bool,
}

impl Act {
    /// How it is sent; the number of ReadyForQuery it is answered with.
    pub(super) fn write(&self, client: &mut RawClient) -> usize {
        match self {
            Self::Login(_) => 0,
            Self::Query(sql) => {
                client.message(b'Q', format!("{sql}\0").as_bytes());
                1
            }
            Self::Messages(pieces) => {
                for piece in pieces {
                    piece.write(client);
                }
                pieces.iter().filter(|piece| matches!(piece, Sync)).count()
            }
        }
    }

    /// A random one, and what it may leave.
    pub(super) fn random(random: &mut Random, chance: Chance) -> (Self, Leaves) {
        match random.below(20) {
            0..8 => {
                let (sql, leaves) = next(random, chance);
                (Self::Query(sql), leaves)
            }
            8..11 => {
                let mut leaves = Leaves::Nothing;
                let mut texts: Vec<String> = Vec::new();
                for _ in 0..2 + random.below(3) {
                    let (sql, left) = next(random, chance);
                    leaves = leaves.max(left);
                    texts.push(sql);
                    if texts.last().is_some_and(|sql| resets(sql)) {
                        break;
                    }
                }
                (Self::Query(texts.join("; ")), leaves)
            }
            11..14 => {
                let (sql, leaves) = next(random, chance);
                (Self::Messages(unnamed(sql)), leaves)
            }
            14..16 => {
                let (sql, leaves) = statement(random, chance.session, chance.most);
                // Executed once more among other messages it would break the protocol.
                if sql.contains("FROM STDIN") || sql.contains("DISCARD ALL") || sql.contains("DEALLOCATE ALL")
                {
                    return (Self::Query(sql), leaves);
                }
                (Self::Messages(named(random, sql)), leaves)
            }
            16..19 => pipeline(random, chance),
            _ if chance.prepared > chance.most => Self::random(random, chance),
            _ => {
                let mut list = pieces(random, chance);
                avoid_unnamed(&mut list, chance.unnamed);
                if chance.in_transaction {
                    avoid_unbound(&mut list);
                }
                (Self::Messages(list), chance.prepared)
            }
        }
    }

    /// Whether it ends in a Parse of the unnamed statement, unless that is skipped.
    pub(super) fn parses_unnamed(&self) -> bool {
        matches!(self, Self::Messages(list) if list.iter().any(|piece| matches!(piece, Parse("", _))))
    }

    /// Ends what holds a backend in the model.
    pub(super) fn freeing(random: &mut Random, in_transaction: bool, lasting: bool) -> Self {
        if in_transaction {
            let sql = *choose(random, &["COMMIT", "ROLLBACK", "END", "ABORT"]);
            if random.below(2) == 0 {
                Self::Query(sql.to_owned())
            } else {
                Self::Messages(unnamed(sql.to_owned()))
            }
        } else if lasting || random.below(3) == 0 {
            Self::login(random)
        } else {
            Self::Query("DISCARD ALL".to_owned())
        }
    }

    pub(super) fn login(random: &mut Random) -> Self {
        const STARTUPS: &[&[(&str, &str)]] = &[
            // A name with a dot that was never set would be an error here and the value '' there: a backend
            // never forgets one.
            &[("options", "-c app.b=")],
            &[("application_name", "app1"), ("app.b", "startup")],
            &[("options", "-c app.b=x -c work_mem=5MB -c search_path=two,public")],
            &[("DateStyle", "German"), ("TimeZone", "Asia/Tokyo"), ("app.b", "y")],
            &[
                ("client_encoding", "LATIN1"),
                ("options", "-c app.a1=start -c app.b=z -c bytea_output=escape"),
            ],
            &[("options", "-c default_transaction_read_only=on -c role=reader -c app.b=")],
        ];
        Self::Login(choose(random, STARTUPS).to_vec())
    }
}

fn next(random: &mut Random, chance: Chance) -> (String, Leaves) {
    // Most of what is said outside of a transaction about cursors and savepoints fails at once.
    for _ in 0..2 {
        let (sql, leaves) = statement(random, chance.session, chance.most);
        let inside = ["SAVEPOINT", "ROLLBACK TO", "RELEASE", "DECLARE", "FETCH", "MOVE", "SELECT lo"];
        if chance.in_transaction || !inside.iter().any(|word| sql.starts_with(word)) {
            return (sql, leaves);
        }
    }
    statement(random, chance.session, chance.most)
}

fn unnamed(sql: String) -> Vec<Piece> {
    vec![Parse("", sql), Bind("", "", Vec::new()), DescribePortal(""), Execute("", 0), Sync]
}

fn named(random: &mut Random, sql: String) -> Vec<Piece> {
    let name = *choose(random, &NAMES[2..]);
    let run = [Bind("", name, Vec::new()), DescribePortal(""), Execute("", 0), Sync];
    let mut list = Vec::new();
    if random.below(2) == 0 {
        list.push(CloseStatement(name));
    }
    list.push(Parse(name, sql));
    if random.below(2) == 0 {
        list.push(DescribeStatement(name));
    }
    if random.below(2) == 0 {
        list.push(Sync);
    }
    list.extend(run);
    list
}

/// Whether a statement returns settings to what the session began with. What follows it in the same request would see
/// the server's own: the proxy sets those of the session when the request has succeeded.
fn resets(sql: &str) -> bool {
    let starts = ["RESET", "SET SESSION AUTHORIZATION", "DISCARD ALL"];
    starts.iter().any(|start| sql.starts_with(start)) || sql.ends_with("TO DEFAULT")
}

/// Several statements up to one Sync or two.
fn pipeline(random: &mut Random, chance: Chance) -> (Act, Leaves) {
    let mut list = Vec::new();
    let mut leaves = Leaves::Nothing;
    for _ in 0..2 + random.below(3) {
        let (sql, left) = statement(random, chance.session, chance.most);
        // A Parse behind the end of all statements, in one request with it, is ended with them by the proxy.
        if sql.contains("FROM STDIN") || sql.contains("DISCARD ALL") || sql.contains("DEALLOCATE ALL") {
            continue;
        }
        leaves = leaves.max(left);
        if sql == "SELEKT" {
            // What the proxy cannot read may do anything, unless the server says that it cannot read it either. Behind
            // another error it does not.
            leaves = Leaves::LastingPin;
        }
        let mut part = if random.below(3) == 0 { named(random, sql) } else { unnamed(sql) };
        if random.below(3) > 0 {
            part.pop();
        }
        let ends = part.iter().any(|piece| matches!(piece, Parse(_, sql) if resets(sql)));
        list.extend(part);
        if ends {
            break;
        }
    }
    list.push(Sync);
    (Act::Messages(list), leaves)
}

/// Messages that belong together less well: statements and portals that may be there from before.
fn pieces(random: &mut Random, chance: Chance) -> Vec<Piece> {
    let session = chance.session;
    let mut list = Vec::new();
    for _ in 0..=random.below(5) {
        let (name, portal) = (*choose(random, NAMES), *choose(random, PORTALS));
        match random.below(9) {
            0..2 => list.push(Parse(name, fill(choose::<&str>(random, PREPARED), random, session))),
            2..4 => list.push(Bind(portal, name, vec![format!("{}00", random.below(5))])),
            4 => list.push(Bind(portal, name, Vec::new())),
            // In a failed transaction a statement that this backend has not been given yet cannot be described.
            5 if chance.in_transaction => list.push(DescribePortal(portal)),
            5 => list.extend([DescribeStatement(name), DescribePortal(portal)]),
            6 => list.push(Execute(portal, random.below(4) as i32)),
            7 => list.push(CloseStatement(name)),
            _ => list.push(ClosePortal(portal)),
        }
        if random.below(8) == 0 {
            list.push(Sync);
        }
    }
    if random.below(2) == 0 {
        let (name, portal) = (*choose(random, NAMES), *choose(random, PORTALS));
        let sql = fill(choose::<&str>(random, PREPARED), random, session);
        list.extend([Parse(name, sql), Bind(portal, name, vec![format!("{}00", random.below(5))])]);
        list.extend([Execute(portal, 2), Execute(portal, 2), DescribePortal(portal)]);
    }
    list.push(Sync);
    list
}

/// Names another statement where it is not known which one is the unnamed one.
fn avoid_unnamed(list: &mut [Piece], mut known: bool) {
    for piece in list {
        match piece {
            Parse("", _) => known = true,
            Bind(_, name, _) | DescribeStatement(name) if name.is_empty() && !known => *name = "m1",
            // What was parsed may have been skipped.
            Sync => known = false,
            _ => {}
        }
    }
}

/// Names another portal than the unnamed one before that is bound. It may be the one of a BEGIN, which the server keeps
/// and the proxy has never made.
fn avoid_unbound(list: &mut [Piece]) {
    for piece in list {
        match piece {
            Bind("", ..) => return,
            DescribePortal(portal) | Execute(portal, _) | ClosePortal(portal) if portal.is_empty() => {
                *portal = "c1";
            }
            _ => {}
        }
    }
}

impl Piece {
    fn write(&self, client: &mut RawClient) {
        match self {
            Parse(name, sql) => client.parse(name, sql),
            Bind(portal, name, values) => {
                let values: Vec<_> = values.iter().map(|value| Some(value.as_str())).collect();
                client.bind(portal, name, &values)
            }
            DescribeStatement(name) => client.describe(b'S', name),
            DescribePortal(name) => client.describe(b'P', name),
            Execute(portal, rows) => client.execute(portal, *rows),
            CloseStatement(name) => client.close(b'S', name),
            ClosePortal(name) => client.close(b'P', name),
            Flush => client.flush_message(),
            Sync => client.sync(),
        };
    }
}

/// A statement about channels.
pub(super) fn about_channels(random: &mut Random, session: usize) -> Act {
    Act::Query(fill(choose::<&str>(random, statements::CHANNELS), random, session))
}
