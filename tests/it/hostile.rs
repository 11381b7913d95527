//! Clients that mean no good, or do not know what they do: the program lives, others are served, nothing leaks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use crate::support::{
    Login, Postgres, Proxy, ProxyConfig, Random, RawClient, Role, Scratch, connect, eventually,
};

/// Streams of bytes that are thrown at the program.
const STREAMS: u64 = 10_000;

/// How many are thrown at once.
const AT_ONCE: u64 = 16;

/// Nobody needs a password, so that logging in costs nothing.
fn open_door(primary: &Postgres) -> ProxyConfig {
    ProxyConfig::primary_only(primary).pool("primary", &["primary"], 5).set("auth", "method", "trust")
}

async fn wait_until_calm(proxy: &Proxy) {
    for state in ["active", "connecting", "closing"] {
        let sample =
            format!("bulkhead_pool_connections{{pool=\"primary\",server=\"primary\",state=\"{state}\"}}");
        proxy.wait_for_metric(&sample, 0.0).await;
    }
    proxy.wait_for_metric("bulkhead_clients", 0.0).await;
    proxy.wait_for_metric("bulkhead_pool_waiting{pool=\"primary\",server=\"primary\"}", 0.0).await;
}

#[tokio::test]
async fn half_open_connections_keep_nobody_out() {
    let primary = Postgres::start(Role::Primary);
    let config = open_door(&primary).set("limits", "login_timeout", "2s").set("limits", "max_clients", 150);
    let proxy = Proxy::start(&config.to_toml());
    let mut startup = Vec::new();
    startup.extend_from_slice(&200_u32.to_be_bytes());
    startup.extend_from_slice(&(3_u32 << 16).to_be_bytes());
    startup.extend_from_slice(b"user\0app\0database\0app\0application_name\0slow");
    startup.resize(199, b'x');

    let began = Instant::now();
    let mut slow = JoinSet::new();
    let port = proxy.port();
    for number in 0..200_usize {
        let startup = startup.clone();
        slow.spawn(async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it is accepted");
            let mut answer = [0; 1];
            // A byte now and then; half of them have asked for encryption first.
            if number % 2 == 0 {
                stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await.expect("it is open");
                stream.read_exact(&mut answer).await.expect("encryption is declined");
            }
            for byte in startup {
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
                match timeout(Duration::from_millis(100), stream.read(&mut answer)).await {
                    Err(_) => {}
                    Ok(Ok(0) | Err(_)) => return,
                    Ok(Ok(_)) => panic!("there is nothing to say to a slow client"),
                }
            }
            panic!("the slow client was let go on to the end");
        });
    }
    let mut served = 0;
    while began.elapsed() < Duration::from_millis(1500) {
        let client = connect(&proxy.url()).await.expect("others are let in meanwhile");
        client.simple_query("SELECT 1").await.expect("others are served");
        served += 1;
    }
    assert!(served > 5, "only {served} were served");
    while let Some(ended) = timeout(Duration::from_secs(10), slow.join_next()).await.expect("all are closed")
    {
        ended.expect("slow clients see their connection closed");
    }
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    wait_until_calm(&proxy).await;
    assert!(proxy.metric("bulkhead_client_login_failures_total").await >= Some(200.0));
}

#[tokio::test]
async fn more_clients_than_allowed_are_refused() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&open_door(&primary).set("limits", "max_clients", 3).to_toml());
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(RawClient::app(proxy.port()).await);
    }
    let error = connect(&proxy.url()).await.expect_err("the fourth is refused");
    let error = error.as_db_error().expect("an answer");
    assert_eq!((error.code().code(), error.message()), ("53300", "sorry, too many clients already: 3"));
    assert_eq!(clients[0].query_value("SELECT 1").await, "1");
    // A cancel is no client.
    let (pid, secret) = clients[1].key().clone();
    clients[1].query("SELECT pg_sleep(20)").await;
    eventually("the statement is cancelled", Duration::from_secs(10), async || {
        RawClient::cancel(proxy.port(), pid, &secret).await;
        timeout(Duration::from_millis(100), clients[1].peek()).await.ok()
    })
    .await;
    assert_eq!(clients[1].read_error().await.map(|[code, ..]| code).as_deref(), Some("57014"));
    clients.pop().expect("three").terminate().await;
    eventually("there is room again", Duration::from_secs(10), async || connect(&proxy.url()).await.ok())
        .await;
}

/// Asks for values that nobody else asks for, and gets its own and nothing else.
async fn witness(port: u16, number: u64, stop: Arc<AtomicBool>) -> u64 {
    // Another user than the one whose statements fill the pool: the queue serves them by turns.
    let mut client = RawClient::login(port, Login::AppTwo, "app").await;
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let unique = format!("witness {number} turn {turn}");
        if turn % 2 == 0 {
            assert_eq!(client.query_value(&format!("SELECT '{unique}'")).await, unique);
            continue;
        }
        client.parse("", "SELECT $1::text").bind("", "", &[Some(&unique)]).execute("", 0).sync();
        client.flush().await;
        let answer = client.read_until_ready().await;
        assert_eq!(RawClient::tags(&answer), "12DCZ", "{answer:?}");
        assert_eq!(answer[2].columns(), [Some(unique)]);
    }
    turn
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// A sensible message, or at least one with a right length.
fn sensible(random: &mut Random) -> Vec<u8> {
    let texts = [
        "SELECT 1",
        "SELECT 'someone else''s'",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "SELECT 1; SELECT 2",
        "SET application_name = 'x'",
        "COPY pg_class TO STDOUT",
        "COPY junk FROM STDIN",
        "INSERT INTO junk VALUES (1)",
        "SELEC",
        "",
        "DEALLOCATE ALL",
        "PREPARE p AS SELECT 1",
        "CREATE TEMP TABLE x (id int)",
        "SELECT pg_sleep(0.01)",
        "LISTEN junk",
        "SELECT 1/0",
    ];
    let text = texts[random.below(texts.len() as u64) as usize];
    let name = ["", "s", "t"][random.below(3) as usize];
    match random.below(12) {
        0..=3 => message(b'Q', format!("{text}\0").as_bytes()),
        4 => message(b'P', format!("{name}\0{text}\0\0\0").as_bytes()),
        5 => message(b'B', format!("{name}\0{name}\0\0\0\0\0\0\0").as_bytes()),
        6 => message(b'E', format!("{name}\0\0\0\0\0").as_bytes()),
        7 => message(b'D', format!("{}{name}\0", ["S", "P"][random.below(2) as usize]).as_bytes()),
        8 => message(b'C', format!("{}{name}\0", ["S", "P"][random.below(2) as usize]).as_bytes()),
        9 => message([b'S', b'H'][random.below(2) as usize], b""),
        10 => message([b'd', b'c', b'f'][random.below(3) as usize], b"1\n\0"),
        _ => {
            let count = random.below(40) as usize;
            let body = random.bytes(count);
            message(random.next() as u8, &body)
        }
    }
}

/// Sensible messages, of which some bytes were changed, lost or added.
fn mutated(random: &mut Random) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..=random.below(8)).flat_map(|_| sensible(random)).collect();
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len() as u64) as usize;
        match random.below(4) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at + 1),
            _ => bytes.insert(at, random.next() as u8),
        }
    }
    bytes
}

fn startup_packet() -> Vec<u8> {
    let mut body = (3_u32 << 16).to_be_bytes().to_vec();
    body.extend_from_slice(b"user\0app\0database\0app\0\0");
    let mut packet = (body.len() as u32 + 4).to_be_bytes().to_vec();
    packet.extend_from_slice(&body);
    packet
}

/// Throws one stream at the program: before login, after it, or instead of it. What it answers is read for a moment,
/// as a client that never reads is another test's business.
async fn throw(port: u16, mut random: Random) {
    let mut bytes = startup_packet();
    match random.below(4) {
        // After login.
        0 | 1 => bytes.extend(mutated(&mut random)),
        2 => {
            let count = random.below(300) as usize;
            bytes.extend(random.bytes(count));
        }
        // Instead of it.
        _ => {
            if random.below(2) == 0 {
                let count = random.below(100) as usize;
                bytes = random.bytes(count);
            } else {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.next() as u8;
            }
        }
    }
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else {
        panic!("the program is gone");
    };
    let cut = random.below(bytes.len() as u64 + 1) as usize;
    for part in [&bytes[..cut], &bytes[cut..]] {
        if stream.write_all(part).await.is_err() {
            return;
        }
    }
    let mut answer = [0; 4096];
    let mut patience = Duration::from_millis(15);
    while let Ok(Ok(1..)) = timeout(patience, stream.read(&mut answer)).await {
        patience = Duration::from_millis(3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_streams_of_nonsense_harm_nobody() {
    let primary = Postgres::start(Role::Primary);
    primary.query("CREATE TABLE junk (id int); ALTER TABLE junk OWNER TO app").await;
    let folder = Scratch::new();
    let users = folder.path().join("users.txt");
    std::fs::write(&users, "\"app_two\" \"second\"\n").expect("the folder is writable");
    let config = open_door(&primary).set("limits", "login_timeout", "1s").set(
        "auth",
        "users_file",
        users.to_str().expect("the path is text"),
    );
    let proxy = Proxy::start(&config.to_toml());
    let stop = Arc::new(AtomicBool::new(false));
    let mut witnesses = JoinSet::new();
    for number in 0..3 {
        witnesses.spawn(witness(proxy.port(), number, Arc::clone(&stop)));
    }
    let mut throwers = JoinSet::new();
    let port = proxy.port();
    for thrower in 0..AT_ONCE {
        throwers.spawn(async move {
            for stream in (thrower..STREAMS).step_by(AT_ONCE as usize) {
                throw(port, Random::new(stream)).await;
            }
        });
    }
    while let Some(ended) = throwers.join_next().await {
        ended.expect("the program takes every stream");
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(turns) = witnesses.join_next().await {
        let turns = turns.expect("a witness gets its own answers only");
        assert!(turns > 100, "only {turns} turns");
    }
    assert!(proxy.is_running());
    let log = proxy.log();
    assert!(!log.contains("panicked"), "{log}");
    wait_until_calm(&proxy).await;
    let client = connect(&proxy.url()).await.expect("clients are let in");
    client.simple_query("SELECT 1").await.expect("statements run");
}

/// A client that asks for much and reads nothing holds its own connection, and no memory of ours.
#[tokio::test]
async fn a_client_that_does_not_read_costs_little() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&open_door(&primary).to_toml());
    let mut deaf = RawClient::app(proxy.port()).await;
    deaf.query_value("SELECT 1").await;
    let before = proxy.memory_bytes().1;
    deaf.query("SELECT repeat('x', 1000) FROM generate_series(1, 300000)").await;
    let blocked =
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event = 'ClientWrite'";
    eventually("the server is held back", Duration::from_secs(10), async || {
        (primary.value(blocked).await == "1").then_some(())
    })
    .await;
    let grown = proxy.memory_bytes().1.saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more");
    assert_eq!(RawClient::app(proxy.port()).await.query_value("SELECT 2").await, "2", "others are served");
    drop(deaf);
    wait_until_calm(&proxy).await;
}
