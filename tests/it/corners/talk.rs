//! A conversation that is written down, so that two of them can be compared.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use bytes::Buf;
use tokio::time::timeout;

use crate::support::{Login, Message, Postgres, Proxy, ProxyConfig, RawClient, Role};

/// A message that takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(5);

/// The database for what goes through the proxy, and the one for what does not.
const PROXIED: &str = "app";
const DIRECT: &str = "app_two";

/// What every script begins with: a table of ten rows.
const TABLES: &str = "CREATE TABLE t (a int PRIMARY KEY, b text)";
const ROWS: &str = "TRUNCATE t; INSERT INTO t SELECT n, 'row ' || n FROM generate_series(1, 10) n";

/// A server, and a proxy with one connection to it.
pub(super) struct Pair {
    pub(super) primary: Postgres,
    pub(super) proxy: Proxy,
    /// One who puts the table in order in each database.
    owners: [RawClient; 2],
    intruder: Option<Intruder>,
    differences: String,
}

impl Pair {
    pub(super) async fn start() -> Self {
        Self::configured(|config| config).await
    }

    pub(super) async fn configured(change: impl Fn(ProxyConfig) -> ProxyConfig) -> Self {
        let primary = Postgres::start(Role::Primary);
        let mut owners = [login(primary.port(), DIRECT).await, login(primary.port(), PROXIED).await];
        for owner in &mut owners {
            owner.ask(TABLES).await;
        }
        // Logins without passwords cost nothing.
        let config = ProxyConfig::primary_only(&primary)
            .set("servers.primary", "url", primary.url(Login::Trust))
            .set("auth", "method", "trust")
            .pool("primary", &["primary"], 1)
            .set("pools.primary", "wait_timeout", "3s");
        let proxy = Proxy::start(&change(config).to_toml());
        let intruder = Some(Intruder::login(proxy.port()).await);
        Self { primary, proxy, owners, intruder, differences: String::new() }
    }

    /// A client of the proxy.
    pub(super) async fn client(&self) -> RawClient {
        login(self.proxy.port(), PROXIED).await
    }

    /// A client of the proxy, or of the server itself.
    pub(super) async fn client_of(&self, port: u16) -> RawClient {
        login(port, PROXIED).await
    }

    /// Runs a script on both sides and notes where they differ.
    pub(super) async fn same(&mut self, what: &str, script: impl AsyncFn(&mut Talk<'_>)) {
        let mut told = Vec::new();
        let sides = [(self.primary.port(), DIRECT), (self.proxy.port(), PROXIED)];
        for (owner, (port, database)) in self.owners.iter_mut().zip(sides) {
            owner.ask(ROWS).await;
            let client = login(port, database).await;
            let intruder = self.intruder.as_mut().filter(|_| port == self.proxy.port());
            let mut talk = Talk { client, owner, port, said: Vec::new(), intruder, status: b'I' };
            talk.intrude().await;
            script(&mut talk).await;
            talk.client.terminate().await;
            // It is over when the connection is: nobody's locks are in the way of what comes next.
            while let Ok(Some(_)) = timeout(PATIENCE, talk.client.try_read_message()).await {}
            told.push(talk.said);
        }
        assert!(!told[0].is_empty(), "{what}: nothing was said, so nothing was compared");
        if told[0] != told[1] {
            let at = told[0].iter().zip(&told[1]).take_while(|(direct, proxied)| direct == proxied).count();
            let same = told[0][..at].join("\n    ");
            let rest = |said: &[String]| said[at..].join("\n      ");
            write!(
                self.differences,
                "\n{what}\n  both:\n    {same}\n  then directly:\n      {}\n  and through the proxy:\n      {}\n",
                rest(&told[0]),
                rest(&told[1])
            )
            .expect("text takes text");
        }
    }

    /// Fails with all differences, and unless the pool has come to rest.
    pub(super) async fn finish(self) {
        assert!(self.differences.is_empty(), "{}", self.differences);
        self.calm().await;
    }

    /// Waits until nobody holds or waits for a connection.
    pub(super) async fn calm(&self) {
        for state in ["active", "connecting", "closing"] {
            let sample =
                format!("bulkhead_pool_connections{{pool=\"primary\",server=\"primary\",state=\"{state}\"}}");
            self.proxy.wait_for_metric(&sample, 0.0).await;
        }
        self.proxy.wait_for_metric("bulkhead_pool_waiting{pool=\"primary\",server=\"primary\"}", 0.0).await;
    }
}

async fn login(port: u16, database: &str) -> RawClient {
    RawClient::login(port, Login::Trust, database).await
}

/// Another session, with a statement and a portal of the same names.
struct Intruder(RawClient);

impl Intruder {
    async fn login(port: u16) -> Self {
        let mut client = login(port, PROXIED).await;
        client.parse("s", "SELECT $1::text, current_setting('work_mem')").sync().flush().await;
        client.read_until_ready().await;
        Self(client)
    }

    /// Uses the backend; what was told if that went wrong.
    async fn intrude(&mut self) -> Option<String> {
        let client = &mut self.0;
        client.bind("p", "s", &[Some("mine")]).execute("p", 0).parse("", "SELECT 'nobody''s'").sync();
        client.flush().await;
        let answer = client.read_until_ready().await;
        let told: Vec<_> = answer.iter().map(told).collect();
        let well =
            told.len() == 5 && told[1] == "D \\x00\\x02\\x00\\x00\\x00\\x04mine\\x00\\x00\\x00\\x034MB";
        (!well).then(|| format!("the other session is told {told:?}"))
    }
}

/// A conversation.
pub(super) struct Talk<'a> {
    pub(super) client: RawClient,
    /// Somebody else in the same database.
    owner: &'a mut RawClient,
    port: u16,
    said: Vec<String>,
    intruder: Option<&'a mut Intruder>,
    status: u8,
}

impl Talk<'_> {
    /// Sends what is pending and hears up to as many ReadyForQuery.
    pub(super) async fn exchange(&mut self, readies: usize) {
        self.client.try_flush().await;
        for _ in 0..readies {
            while self.hear().await.is_some_and(|tag| tag != b'Z') {}
        }
        self.intrude().await;
    }

    /// Sends what is pending and hears messages up to one with this tag, or an error.
    pub(super) async fn hear_to(&mut self, tag: u8) {
        self.client.try_flush().await;
        while self.hear().await.is_some_and(|heard| heard != tag && heard != b'E') {}
    }

    /// Sends a Query and hears its answer.
    pub(super) async fn ask(&mut self, sql: &str) {
        self.client.query(sql).await;
        self.exchange(1).await;
    }

    /// Sends what is pending and one statement by the extended protocol, with its Sync.
    pub(super) async fn run(&mut self, sql: &str) {
        self.unit(sql).sync();
        self.exchange(1).await;
    }

    /// Appends one statement without a Sync.
    pub(super) fn unit(&mut self, sql: &str) -> &mut RawClient {
        self.client.parse("", sql).bind("", "", &[]).describe(b'P', "").execute("", 0)
    }

    /// Waits until somebody else sees that this is true.
    pub(super) async fn wait_until(&mut self, sql: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.owner.ask(sql).await.iter().all(|message| message.tag != b'D') {
            if Instant::now() > deadline {
                self.said.push(format!("waited in vain: {sql}"));
                return;
            }
        }
    }

    /// Somebody else runs this, past the proxy.
    pub(super) async fn others(&mut self, sql: &str) {
        let answer = self.owner.ask(sql).await;
        assert!(answer.iter().all(|message| message.tag != b'E'), "`{sql}`: {answer:?}");
    }

    /// Cancels what the conversation runs.
    pub(super) async fn cancel(&mut self) {
        let (pid, secret) = self.client.key().clone();
        RawClient::cancel(self.port, pid, &secret).await;
    }

    /// Says goodbye and logs in again, with startup parameters.
    pub(super) async fn again(&mut self, parameters: &[(&str, &str)]) {
        self.client.terminate().await;
        let database = if self.intruder.is_some() { PROXIED } else { DIRECT };
        let (user, password) = Login::Trust.credentials();
        self.client = RawClient::open(self.port).await;
        self.client.startup(&[&[("user", user), ("database", database)], parameters].concat()).await;
        if let Some(error) = self.client.authenticate(user, password).await {
            self.said.push(told(&error));
        }
    }

    /// Nobody can use the backend in between from here on: the session keeps it.
    pub(super) fn alone(&mut self) {
        self.intruder = None;
    }

    /// Between two transactions the other session uses the backend.
    async fn intrude(&mut self) {
        if let Some(intruder) = self.intruder.as_deref_mut().filter(|_| self.status == b'I')
            && let Some(wrong) = intruder.intrude().await
        {
            self.said.push(wrong);
            self.intruder = None;
        }
    }

    /// The tag of the next message.
    async fn hear(&mut self) -> Option<u8> {
        loop {
            let message = match timeout(PATIENCE, self.client.try_read_message()).await {
                Ok(Some(message)) => message,
                Ok(None) => {
                    self.said.push("closed".to_owned());
                    return None;
                }
                Err(_) => {
                    self.said.push("no answer".to_owned());
                    return None;
                }
            };
            if message.tag == b'S' {
                continue;
            }
            if message.tag == b'Z' {
                self.status = message.body[0];
            }
            self.said.push(told(&message));
            return Some(message.tag);
        }
    }
}

/// A message as a line, without what must differ.
fn told(message: &Message) -> String {
    match message.tag {
        b'E' | b'N' => {
            let fields = b"SVCMDHPpqWstcdn".iter().filter_map(|field| {
                message.field(*field).map(|text| format!(" {}={text}", char::from(*field)))
            });
            format!("{}{}", char::from(message.tag), fields.collect::<String>())
        }
        b'T' => format!("T{}", columns(message)),
        tag => format!("{} {}", char::from(tag), message.body.escape_ascii()),
    }
}

/// A RowDescription without the numbers of tables.
fn columns(message: &Message) -> String {
    let mut body = message.body.clone();
    let mut text = String::new();
    for _ in 0..body.get_u16() {
        let length = body.iter().position(|byte| *byte == 0).expect("names end with a zero");
        let name = body.split_to(length);
        body.advance(1);
        let of_table = body.get_u32() != 0;
        let rest = body.split_to(14);
        write!(text, " {}({of_table} {})", name.escape_ascii(), rest.escape_ascii())
            .expect("text takes text");
    }
    text
}
