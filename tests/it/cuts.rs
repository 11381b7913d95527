//! The connection to the server is cut after each number of bytes, in either direction, while something is under way:
//! what the client was told agrees with what the server did.
//!
//! Told that it was done, it was; told that it was rolled back, it was. Only what says itself that the outcome is unknown
//! may be either. And the session, if it goes on, goes on in good order.

use crate::support::{Login, Message, Postgres, Proxy, ProxyConfig, RawClient, Relay, Role};

/// Of what is sent to the server every so many bytes are tried: in the middle of a message one is like another.
const STRIDE: usize = 4;

struct Site {
    _primary: Postgres,
    relay: Relay,
    proxy: Proxy,
    observer: RawClient,
}

impl Site {
    async fn start() -> Self {
        let primary = Postgres::start(Role::Primary);
        let mut observer = RawClient::login(primary.port(), Login::Trust, "app").await;
        observer.ask("CREATE TABLE cut (a int)").await;
        let relay = Relay::start(primary.port());
        let config = ProxyConfig::primary_only(&primary)
            .set("servers.primary", "url", Login::Trust.url(relay.port(), "app"))
            .set("auth", "method", "trust")
            .pool("primary", &["primary"], 1)
            .set("pools.primary", "wait_timeout", "20s")
            .set("pools.primary", "close_timeout", "200ms");
        let proxy = Proxy::start(&config.to_toml());
        Self { _primary: primary, relay, proxy, observer }
    }

    /// Rows in the table, once nobody works on it any more.
    async fn rows(&mut self) -> usize {
        let others = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app_trust' \
            AND pid <> pg_backend_pid() AND (state <> 'idle' OR backend_xid IS NOT NULL)";
        while self.observer.query_value(others).await != "0" {}
        self.observer.query_value("SELECT count(*) FROM cut").await.parse().expect("a number")
    }
}

/// What the client was told of what it asked for last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Done,
    /// It has failed, and nothing of it is there.
    Undone,
    Unknown,
}

/// Reads to the next ReadyForQuery, or the end.
async fn hear(client: &mut RawClient) -> (Told, Vec<Message>) {
    let mut answer = Vec::new();
    while let Some(message) = client.try_read_message().await {
        let is_last = message.tag == b'Z';
        answer.push(message);
        if is_last {
            break;
        }
    }
    (judge(&answer), answer)
}

fn judge(answer: &[Message]) -> Told {
    let is_over = answer.last().is_some_and(|message| message.tag == b'Z');
    let error = answer.iter().find(|message| message.tag == b'E');
    let says_unknown = |error: &Message| {
        [b'M', b'D'].into_iter().filter_map(|field| error.field(field)).any(|text| text.contains("unknown"))
    };
    match error {
        Some(error) if says_unknown(error) => Told::Unknown,
        Some(_) => Told::Undone,
        None if is_over => Told::Done,
        None => Told::Unknown,
    }
}

/// One way of writing a row: what comes before the cut may begin, and what comes from then on.
struct Phase {
    before: &'static [&'static str],
    act: for<'a> fn(&'a mut RawClient) -> std::pin::Pin<Box<dyn Future<Output = Told> + 'a>>,
}

/// Where the connection is cut.
#[derive(Clone, Copy, Debug)]
enum Cut {
    ToServer(usize),
    ToProxy(usize),
}

/// Runs the phase without a cut to learn how long it is, and then with each cut.
async fn try_every_cut(phase: Phase) {
    let mut site = Site::start().await;
    let (to_server, to_proxy) = {
        let mut client = prepare(&site, &phase).await;
        site.relay.count();
        assert_eq!((phase.act)(&mut client).await, Told::Done, "nothing is cut");
        site.relay.counted()
    };
    assert_eq!(site.rows().await, 1, "nothing is cut");
    let cuts = (0..to_server).step_by(STRIDE).map(Cut::ToServer).chain((0..to_proxy).map(Cut::ToProxy));
    let mut seen = [0; 3];
    for cut in cuts {
        site.observer.ask("TRUNCATE cut").await;
        let mut client = prepare(&site, &phase).await;
        match cut {
            Cut::ToServer(bytes) => site.relay.cut_after(Some(bytes), None),
            Cut::ToProxy(bytes) => site.relay.cut_after(None, Some(bytes)),
        }
        let told = (phase.act)(&mut client).await;
        site.relay.cut_after(None, None);
        let rows = site.rows().await;
        match told {
            Told::Done => assert_eq!(rows, 1, "{cut:?}: the client was told that it is done"),
            Told::Undone => assert_eq!(rows, 0, "{cut:?}: the client was told that nothing is there"),
            Told::Unknown => assert!(rows <= 1, "{cut:?}: done twice"),
        }
        seen[told as usize] += 1;
        drop(client);
        // The next one, who gets another connection, is served.
        let mut next = RawClient::login(site.proxy.port(), Login::Trust, "app").await;
        assert_eq!(next.query_value("SELECT 1").await, "1", "{cut:?}");
    }
    assert!(seen[1] + seen[2] > 0, "no cut was noticed: {seen:?}");
}

async fn prepare(site: &Site, phase: &Phase) -> RawClient {
    let mut client = RawClient::login(site.proxy.port(), Login::Trust, "app").await;
    // Whoever was here before has left: the connection is there, and has no settings to be changed.
    client.query_value("SELECT 1").await;
    for sql in phase.before {
        client.ask(sql).await;
    }
    client
}

/// After an error in a transaction it is to be ended, whatever the client is told.
async fn end(client: &mut RawClient, told: Told, answer: &[Message]) -> Told {
    if answer.last().is_some_and(|message| message.tag == b'Z' && message.body[0] != b'I') {
        client.query("ROLLBACK").await;
        hear(client).await;
    }
    told
}

#[tokio::test]
async fn a_statement() {
    try_every_cut(Phase {
        before: &[],
        act: |client| {
            Box::pin(async move {
                client.query("INSERT INTO cut VALUES (1)").await;
                hear(client).await.0
            })
        },
    })
    .await;
}

#[tokio::test]
async fn an_extended_statement() {
    try_every_cut(Phase {
        before: &[],
        act: |client| {
            Box::pin(async move {
                client.parse("s", "INSERT INTO cut VALUES (1)").bind("", "s", &[]).execute("", 0).sync();
                client.flush().await;
                let (told, answer) = hear(client).await;
                if told != Told::Done && answer.last().is_some_and(|message| message.tag == b'Z') {
                    // Its Parse has failed with it: the name is free, unless it was told to be taken.
                    let parsed = answer.iter().any(|message| message.tag == b'1');
                    client.parse("s", "SELECT 1").sync().flush().await;
                    let (again, answer) = hear(client).await;
                    assert_eq!(again != Told::Done, parsed, "{answer:?}");
                }
                told
            })
        },
    })
    .await;
}

#[tokio::test]
async fn a_commit() {
    try_every_cut(Phase {
        before: &["BEGIN", "INSERT INTO cut VALUES (1)"],
        act: |client| {
            Box::pin(async move {
                client.query("COMMIT").await;
                let (told, answer) = hear(client).await;
                assert!(answer.iter().all(|message| message.tag != b'C' || &message.body[..] == b"COMMIT\0"));
                end(client, told, &answer).await
            })
        },
    })
    .await;
}

#[tokio::test]
async fn a_transaction_from_its_first_statement_on() {
    try_every_cut(Phase {
        before: &["BEGIN"],
        act: |client| {
            Box::pin(async move {
                client.query("INSERT INTO cut VALUES (1)").await;
                let (first, answer) = hear(client).await;
                if first != Told::Done {
                    let is_open = answer.last().is_some_and(|message| message.tag == b'Z');
                    assert!(first == Told::Undone || !is_open, "no COMMIT was sent: {answer:?}");
                    return end(client, first, &answer).await;
                }
                client.query("COMMIT").await;
                let (told, answer) = hear(client).await;
                end(client, told, &answer).await
            })
        },
    })
    .await;
}

#[tokio::test]
async fn a_pipeline() {
    try_every_cut(Phase {
        before: &[],
        act: |client| {
            Box::pin(async move {
                client
                    .parse("", "INSERT INTO cut VALUES (1)")
                    .bind("", "", &[])
                    .execute("", 0)
                    .flush_message();
                client.flush().await;
                let mut first = Vec::new();
                while let Some(message) = client.try_read_message().await {
                    first.push(message);
                    if matches!(first.last().map(|message| message.tag), Some(b'C' | b'E')) {
                        break;
                    }
                }
                client.sync().try_flush().await;
                let (told, _) = hear(client).await;
                if first.iter().any(|message| message.tag == b'E') { judge(&first) } else { told }
            })
        },
    })
    .await;
}

#[tokio::test]
async fn a_copy() {
    try_every_cut(Phase {
        before: &[],
        act: |client| {
            Box::pin(async move {
                client.query("COPY cut FROM STDIN").await;
                match client.try_read_message().await {
                    Some(message) if message.tag == b'G' => {}
                    Some(message) if message.tag == b'E' => return Told::Unknown,
                    _ => return Told::Unknown,
                }
                client.message(b'd', b"1\n").message(b'c', b"").try_flush().await;
                hear(client).await.0
            })
        },
    })
    .await;
}
