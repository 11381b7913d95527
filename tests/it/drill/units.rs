//! What each kind of client does, one unit of work at a time, and what it was told of that.

use crate::support::{Message, RawClient, values};

use super::{
    ledger::Told,
    session::{Refusal, Session},
};

/// A kind of client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// INSERT by a simple Query.
    Simple,
    /// INSERT by a statement that was prepared by name.
    Prepared,
    /// BEGIN, two INSERTs, COMMIT, each by itself; the COMMIT takes a while.
    Transaction,
    /// Two INSERTs in one implicit transaction, with a Flush between them.
    Pipeline,
    /// COPY FROM STDIN.
    Copy,
    /// INSERT into the job database.
    Job,
    /// A proven read.
    Read,
    /// LISTEN, and NOTIFY to itself.
    Listen,
    /// INSERT from a temporary table, which pins it.
    Pinned,
}

pub(super) const KINDS: [Kind; 9] = [
    Kind::Simple,
    Kind::Prepared,
    Kind::Transaction,
    Kind::Pipeline,
    Kind::Copy,
    Kind::Job,
    Kind::Read,
    Kind::Listen,
    Kind::Pinned,
];

/// What one unit came to.
pub(super) struct Outcome {
    pub(super) told: Told,
    /// What the client saw in place of success.
    pub(super) refusal: Option<Refusal>,
    /// What must never be, in words.
    pub(super) wrong: Option<String>,
}

/// Selects the parts of a unit, which takes a few milliseconds, so that faults meet statements that run.
const PARTS: &str =
    "SELECT '{key}', p, current_setting('application_name') FROM generate_series({parts}) p, pg_sleep(0.004)";

fn insert(table: &str, key: &str, parts: &str) -> String {
    format!("INSERT INTO {table} {}", PARTS.replace("{key}", key).replace("{parts}", parts))
}

impl From<Result<(), Refusal>> for Outcome {
    /// Of a request that is one transaction.
    fn from(result: Result<(), Refusal>) -> Self {
        let Err(refusal) = result else { return Self { told: Told::Done, refusal: None, wrong: None } };
        let told = if refusal.is_unknown() { Told::Unknown } else { Told::NotRun };
        Self { told, refusal: Some(refusal), wrong: None }
    }
}

impl Outcome {
    /// Refused before anything had asked for the commit.
    fn before_commit(refusal: Refusal) -> Self {
        Self { told: Told::NotRun, refusal: Some(refusal), wrong: None }
    }

    fn wrong(mut self, what: String) -> Self {
        self.wrong = Some(what);
        self
    }
}

impl Kind {
    /// As the table has it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Simple => "autocommit",
            Self::Prepared => "prepared",
            Self::Transaction => "transaction",
            Self::Pipeline => "pipeline",
            Self::Copy => "`COPY`",
            Self::Job => "job",
            Self::Read => "read",
            Self::Listen => "`LISTEN`",
            Self::Pinned => "pinned",
        }
    }

    /// Whether its units are rows.
    pub(super) fn is_writer(self) -> bool {
        !matches!(self, Self::Read | Self::Listen)
    }

    /// Of its `application_name` and keys.
    pub(super) fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// What a session says first; a channel has the name of its client.
    pub(super) async fn set_up(self, session: &mut Session, name: &str) -> Result<(), Refusal> {
        match self {
            Self::Prepared => {
                let sql = insert("drill_rows", "{key}", "1, 2").replace("'{key}'", "$1::text");
                session.say().parse("enter", &sql).describe(b'S', "enter").sync();
                session.exchange("Parse").await.map(|_| ())
            }
            Self::Listen => session.ask(&format!("LISTEN {name}")).await.map(|_| ()),
            Self::Pinned => {
                session.ask("CREATE TEMP TABLE mine AS SELECT generate_series(1, 2) p").await.map(|_| ())
            }
            _ => Ok(()),
        }
    }

    /// One unit of work under this key.
    pub(super) async fn work(self, session: &mut Session, name: &str, key: &str) -> Outcome {
        match self {
            Self::Simple => session.ask(&insert("drill_rows", key, "1, 2")).await.map(|_| ()).into(),
            Self::Prepared => {
                session.say().bind("", "enter", &[Some(key)]).execute("", 0).sync();
                session.exchange("Bind").await.map(|_| ()).into()
            }
            Self::Transaction => transaction(session, key).await,
            Self::Pipeline => pipeline(session, key).await,
            Self::Copy => copy(session, name, key).await,
            Self::Job => session.ask(&insert("drill_jobs", key, "1, 2")).await.map(|_| ()).into(),
            Self::Read => read(session).await,
            Self::Listen => notify(session, name, key).await,
            Self::Pinned => pinned(session, key).await,
        }
    }
}

async fn transaction(session: &mut Session, key: &str) -> Outcome {
    let statements =
        ["BEGIN".to_owned(), insert("drill_rows", key, "1, 1"), insert("drill_slow", key, "2, 2")];
    for statement in statements {
        if let Err(refusal) = session.ask(&statement).await {
            if !refusal.ended {
                // It may end with the transaction; the next unit finds out.
                session.ask("ROLLBACK").await.ok();
            }
            return Outcome::before_commit(refusal);
        }
    }
    match session.ask("COMMIT").await {
        Ok(answer) if answer.iter().any(|message| message.body.starts_with(b"ROLLBACK")) => {
            Outcome::from(Ok(())).wrong("COMMIT rolled back, and no error was told before".to_owned())
        }
        Ok(_) => Ok(()).into(),
        Err(refusal) => Err(refusal).into(),
    }
}

async fn pipeline(session: &mut Session, key: &str) -> Outcome {
    let unit = |client: &mut RawClient, parts| {
        client.parse("", &insert("drill_rows", key, parts)).bind("", "", &[]).execute("", 0);
    };
    unit(session.say(), "1, 1");
    session.say().flush_message();
    if let Err(refusal) = session.exchange_until("Flush", b'C').await {
        if !refusal.ended {
            session.say().sync();
            session.exchange("Sync").await.ok();
        }
        return Outcome::before_commit(refusal);
    }
    unit(session.say(), "2, 2");
    session.say().sync();
    session.exchange("pipeline").await.map(|_| ()).into()
}

async fn copy(session: &mut Session, name: &str, key: &str) -> Outcome {
    session.say().message(b'Q', b"COPY drill_rows (key, part, who) FROM STDIN\0");
    if let Err(refusal) = session.exchange_until("COPY", b'G').await {
        if !refusal.ended {
            session.exchange("the end of COPY").await.ok();
        }
        return Outcome::before_commit(refusal);
    }
    session.say().message(b'd', format!("{key}\t1\t{name}\n").as_bytes());
    session.say().try_flush().await;
    tokio::time::sleep(std::time::Duration::from_millis(4)).await;
    session.say().message(b'd', format!("{key}\t2\t{name}\n").as_bytes()).message(b'c', &[]);
    session.exchange("CopyDone").await.map(|_| ()).into()
}

async fn read(session: &mut Session) -> Outcome {
    match session.ask("SELECT word FROM drill_known ORDER BY part").await {
        Ok(answer) if values(&answer) == ["one", "two"] => Ok(()).into(),
        Ok(answer) => Outcome::from(Ok(())).wrong(format!("a read found {:?}", values(&answer))),
        Err(refusal) => Err(refusal).into(),
    }
}

async fn notify(session: &mut Session, name: &str, key: &str) -> Outcome {
    let is_own = |message: &Message| {
        message.tag == b'A' && message.body.windows(key.len()).any(|window| window == key.as_bytes())
    };
    let answer = match session.ask(&format!("NOTIFY {name}, '{key}'")).await {
        Ok(answer) => answer,
        Err(refusal) => return Err(refusal).into(),
    };
    match answer.iter().filter(|message| is_own(message)).count() {
        1 => Ok(()).into(),
        // Its session ends next, and it is told why.
        0 => match session.exchange_until("the missing notification", b'A').await {
            Ok(_) => Outcome::from(Ok(())).wrong("its notification came after the answer".to_owned()),
            Err(refusal) if refusal.code == "57P01" => Err(refusal).into(),
            Err(refusal) => Outcome::from(Err(refusal)).wrong("its notification did not come".to_owned()),
        },
        count => Outcome::from(Ok(())).wrong(format!("its notification came {count} times")),
    }
}

async fn pinned(session: &mut Session, key: &str) -> Outcome {
    let sql = format!(
        "INSERT INTO drill_rows SELECT '{key}', p, current_setting('application_name') FROM mine, pg_sleep(0.004)"
    );
    let outcome: Outcome = session.ask(&sql).await.map(|_| ()).into();
    match &outcome.refusal {
        Some(refusal) if refusal.code == "42P01" => outcome.wrong("its temporary table is gone".to_owned()),
        _ => outcome,
    }
}
