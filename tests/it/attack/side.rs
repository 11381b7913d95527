//! One connection of an attacker or a victim, straight or through the proxy, and what a session looks at.

use std::{fmt::Write, time::Duration};

use tokio::time::timeout;

use super::{hows::Exchange, ways::LONG_NAMES};
use crate::support::{Random, RawClient, error_code, values};

/// No answer within this is a fault.
const PATIENCE: Duration = Duration::from_secs(12);

/// A moment in which a cancel may come.
const CANCEL_WITHIN_MS: u64 = 3;

/// What is sent to whoever asks for COPY data.
const COPY_DATA: &[u8] = b"3\n";

/// The statement of an attacker that was there before the attack and must be there afterwards.
const MINE: &[u8] = b"SELECT 46, $1::int";

/// The columns of a look, with what answers them.
const COLUMNS: &[(&str, &str)] = &[
    ("app.tenant", "coalesce(current_setting('app.tenant', true), '')"),
    ("app.name", "md5(coalesce(current_setting('app.name', true), ''))"),
    ("search_path", "current_setting('search_path')"),
    ("work_mem", "current_setting('work_mem')"),
    ("role", "current_setting('role')"),
    ("user", "current_user::text"),
    ("session_user", "session_user::text"),
    ("statement_timeout", "current_setting('statement_timeout')"),
    ("read only", "current_setting('default_transaction_read_only')"),
    ("strings", "current_setting('standard_conforming_strings')"),
    ("exit_on_error", "current_setting('exit_on_error')"),
    ("encoding", "current_setting('client_encoding')"),
    ("time zone", "current_setting('TimeZone')"),
    ("place", "to_regclass('place')::text"),
    ("rows", "(SELECT string_agg(v, ',' ORDER BY v) FROM public.secrets)"),
    ("locks", "(SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory')"),
    (
        "temporary",
        "(SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class WHERE relnamespace = pg_my_temp_schema())",
    ),
    ("prepared", "(SELECT string_agg(name, ',' ORDER BY name) FROM pg_prepared_statements WHERE from_sql)"),
    ("cursors", "(SELECT string_agg(name, ',') FROM pg_cursors WHERE is_holdable)"),
    ("slept", "pg_sleep(0.002)"),
];

/// The columns that a replica can answer.
const READ_COLUMNS: &[&str] =
    &["app.tenant", "app.name", "search_path", "work_mem", "role", "user", "strings", "rows"];

pub(super) struct Side {
    port: u16,
    client: Option<RawClient>,
    status: u8,
}

/// What was said to an exchange.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    pub(super) codes: Vec<String>,
    pub(super) values: Vec<String>,
    /// `closed` or `no answer`.
    pub(super) ended: Option<&'static str>,
}

/// Which look: a read goes to a replica if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Look {
    All,
    Read,
}

impl Look {
    pub(super) fn names(self) -> Vec<String> {
        let long = LONG_NAMES.iter().map(|name| format!("name of {} bytes", name.len()));
        self.columns().map(|(name, _)| name.to_owned()).chain(long).collect()
    }

    pub(super) fn text(self) -> String {
        let mut text = String::from("SELECT ");
        self.columns().for_each(|(_, sql)| write!(text, "{sql}, ").expect("text takes text"));
        let long = LONG_NAMES.map(|name| format!("coalesce(current_setting('{name}', true), '')"));
        text + &long.join(", ")
    }

    fn columns(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let asked = move |(name, _): &&(&str, &str)| self == Self::All || READ_COLUMNS.contains(name);
        COLUMNS.iter().filter(asked).copied()
    }
}

impl Heard {
    /// The columns of a look, or why there are none.
    pub(super) fn seen(&self) -> Vec<String> {
        match (self.ended, self.codes.first()) {
            (Some(ended), _) => vec![ended.to_owned()],
            (None, Some(code)) => vec![code.clone()],
            (None, None) => self.values.clone(),
        }
    }
}

impl Side {
    pub(super) async fn login(port: u16, parameters: &[(&str, &str)]) -> Self {
        Self::try_login(port, parameters).await.unwrap_or_else(|| panic!("{parameters:?} is refused"))
    }

    /// A session, if there is a place for it.
    pub(super) async fn try_login(port: u16, parameters: &[(&str, &str)]) -> Option<Self> {
        let mut client = RawClient::open(port).await;
        client.startup(parameters).await;
        let refused = client.authenticate("app", "secret").await;
        refused.is_none().then_some(Self { port, client: Some(client), status: b'I' })
    }

    /// Prepares what must stay.
    pub(super) async fn prepared(mut self) -> Self {
        let mut prepare = Exchange::default();
        prepare.parse(b"mine", MINE).parse(b"look", Look::All.text().as_bytes()).sync();
        let heard = self.exchange(&prepare, &mut Random::new(0)).await;
        assert!(heard.codes.is_empty(), "{heard:?}");
        self
    }

    pub(super) fn is_open(&self) -> bool {
        self.client.is_some()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.status == b'I'
    }

    pub(super) async fn ask(&mut self, text: &str) -> Heard {
        self.exchange(&Exchange::query(text.as_bytes()), &mut Random::new(0)).await
    }

    /// Uses what it has prepared when it came.
    pub(super) async fn use_mine(&mut self) -> Heard {
        let mut exchange = Exchange::default();
        exchange.bind(b"mine", &[b"7".to_vec()]).execute().sync();
        self.exchange(&exchange, &mut Random::new(0)).await
    }

    /// Sends a look without waiting for its answer.
    pub(super) async fn begin_look(&mut self, look: Look, prepared: bool) {
        let mut exchange = Exchange::default();
        if prepared && look == Look::All {
            exchange.bind(b"look", &[]).execute().sync();
        } else {
            exchange = Exchange::query(look.text().as_bytes());
        }
        self.send(&exchange).await;
    }

    /// Sends without waiting for an answer.
    pub(super) async fn send(&mut self, exchange: &Exchange) {
        if let Some(client) = &mut self.client {
            client.bytes(&exchange.bytes).try_flush().await;
        }
    }

    pub(super) async fn look(&mut self, look: Look) -> Heard {
        self.begin_look(look, false).await;
        self.hear(1).await
    }

    pub(super) async fn exchange(&mut self, exchange: &Exchange, random: &mut Random) -> Heard {
        let port = self.port;
        let Some(client) = &mut self.client else {
            return Heard { ended: Some("closed"), ..Heard::default() };
        };
        client.bytes(&exchange.bytes).try_flush().await;
        if exchange.abandoned {
            tokio::time::sleep(random.pause(CANCEL_WITHIN_MS)).await;
            self.client = None;
            return Heard::default();
        }
        if exchange.cancelled {
            let (pid, secret) = client.key().clone();
            let pause = random.pause(CANCEL_WITHIN_MS);
            let cancel = async {
                tokio::time::sleep(pause).await;
                RawClient::cancel(port, pid, &secret).await;
            };
            return tokio::join!(self.hear(exchange.readies), cancel).0;
        }
        self.hear(exchange.readies).await
    }

    /// Reads up to so many ReadyForQuery.
    pub(super) async fn hear(&mut self, mut readies: usize) -> Heard {
        let mut heard = Heard::default();
        let Some(client) = &mut self.client else { return Heard { ended: Some("closed"), ..heard } };
        while readies > 0 {
            let message = match timeout(PATIENCE, client.try_read_message()).await {
                Ok(Some(message)) => message,
                other => {
                    heard.ended = Some(if other.is_ok() { "closed" } else { "no answer" });
                    self.client = None;
                    self.status = b'I';
                    return heard;
                }
            };
            match message.tag {
                b'Z' => {
                    readies -= 1;
                    self.status = message.body.first().copied().unwrap_or_default();
                }
                b'E' => heard.codes.extend(error_code(std::slice::from_ref(&message))),
                b'D' => heard.values.extend(values(std::slice::from_ref(&message))),
                b'G' => _ = client.message(b'd', COPY_DATA).message(b'c', b"").try_flush().await,
                _ => {}
            }
        }
        heard
    }

    /// Says goodbye and waits until the other side has closed.
    pub(super) async fn leave(mut self) {
        let Some(mut client) = self.client.take() else { return };
        client.message(b'X', b"").try_flush().await;
        while let Ok(Some(_)) = timeout(PATIENCE, client.try_read_message()).await {}
    }
}
