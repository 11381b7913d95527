//! Settings that Bulkhead sends in front of a request, and what makes them fail: then the request must not run under
//! those of the session before.

use super::{
    hows::Exchange,
    side::{Heard, Side},
};
use crate::support::{Random, RawClient, Site};

const SECRETS: &str = "CREATE TABLE secrets (tenant text, v text); \
    INSERT INTO secrets SELECT 't' || n, 'secret of t' || n FROM generate_series(1, 5) n; \
    ALTER TABLE secrets ENABLE ROW LEVEL SECURITY; GRANT SELECT ON secrets TO PUBLIC; \
    CREATE POLICY own ON secrets USING (tenant = current_setting('app.tenant', true))";

const READ: &str = "SELECT v FROM secrets";

/// A session with a tenant.
async fn tenant(place: &Site, encoding: &str, tenant: &str) -> Side {
    let parameters = [("user", "app"), ("database", "app"), ("client_encoding", encoding)];
    let mut side = Side::login(place.proxy.port(), &parameters).await;
    let set = side.ask(&format!("SET app.tenant = '{tenant}'")).await;
    assert_eq!(set.codes, [""; 0]);
    side
}

async fn victims(site: &Site, encoding: &str) -> Vec<Side> {
    let mut victims = Vec::new();
    for number in 1..=3 {
        victims.push(tenant(site, encoding, &format!("t{number}")).await);
    }
    victims
}

/// Every connection is used by a victim, all at the same time.
async fn use_all(victims: &mut [Side]) {
    for victim in victims.iter_mut() {
        victim.send(&Exchange::query(b"SELECT v FROM secrets, pg_sleep(0.001)")).await;
    }
    for (number, victim) in victims.iter_mut().enumerate() {
        let heard = victim.hear(1).await;
        let own = [format!("secret of t{}", number + 1)];
        assert_eq!(heard.seen(), own);
    }
}

async fn bind(side: &mut Side, name: &str, value: &[u8]) -> Heard {
    let mut exchange = Exchange::default();
    exchange.parse(b"", format!("SELECT length(set_config('{name}', $1, false))").as_bytes());
    exchange.bind(b"", &[value.to_vec()]).execute().sync();
    side.exchange(&exchange, &mut Random::new(0)).await
}

/// Foreign rows of a tenant that has none; errors are counted.
fn foreign(heard: &Heard, errors: &mut u32, seen: &mut Vec<String>) {
    *errors += u32::from(!heard.codes.is_empty() || heard.ended.is_some());
    seen.extend(heard.values.iter().cloned());
}

#[tokio::test]
async fn a_value_whose_bytes_end_a_string_elsewhere_is_applied_or_nothing_runs() {
    for (encoding, value) in [
        ("GBK", &b"\xe4\xb8\xad\x5c"[..]),
        ("BIG5", b"\xe4\xb8\xad\x5c"),
        ("SJIS", b"\xe4\xb8\x81\x5c"),
        ("GB18030", b"\xe4\xb8\xad\x5c"),
        ("GBK", b"\x81\x5c' '"),
    ] {
        let site = Site::with_objects(SECRETS, 3).await;
        let mut others = victims(&site, encoding).await;
        let mut attacker = tenant(&site, encoding, "t99").await;
        bind(&mut attacker, "app.name", value).await;
        let (mut errors, mut seen) = (0, Vec::new());
        for _ in 0..15 {
            use_all(&mut others).await;
            foreign(&attacker.ask(READ).await, &mut errors, &mut seen);
        }
        assert!(seen.is_empty(), "{encoding}: rows of others: {seen:?}");
        assert_eq!(errors, 0, "{encoding}: a value that the server has taken can be carried");
        let hex = "SELECT encode(convert_to(current_setting('app.name'), 'UTF8'), 'hex')";
        let direct_parameters = [("user", "app"), ("database", "app"), ("client_encoding", encoding)];
        let mut direct = Side::login(site.primary.port(), &direct_parameters).await;
        bind(&mut direct, "app.name", value).await;
        assert_eq!(attacker.ask(hex).await.values, direct.ask(hex).await.values, "{encoding}");
    }
}

#[tokio::test]
async fn a_large_value_after_one_with_a_short_timeout_is_applied_or_nothing_runs() {
    let site = Site::with_objects(SECRETS, 3).await;
    let mut attacker = tenant(&site, "UTF8", "t99").await;
    bind(&mut attacker, "app.blob", &vec![b'x'; 1_000_000]).await;
    let mut others = victims(&site, "UTF8").await;
    let (mut errors, mut seen) = (0, Vec::new());
    for timeout in [1, 2, 3, 5] {
        for victim in &mut others {
            victim.ask(&format!("SET statement_timeout = {timeout}")).await;
        }
        for _ in 0..10 {
            for victim in &mut others {
                victim.ask(READ).await;
            }
            foreign(&attacker.ask(READ).await, &mut errors, &mut seen);
        }
    }
    assert!(seen.is_empty(), "rows of others: {seen:?}");
    assert_eq!(errors, 0, "the timeout is not the attacker's");
}

#[tokio::test]
async fn a_cancel_that_comes_during_a_preamble_lets_nothing_run() {
    let site = Site::with_objects(SECRETS, 3).await;
    let mut others = victims(&site, "UTF8").await;
    let mut random = Random::new(3);
    let parameters = [("user", "app"), ("database", "app")];
    let mut client = RawClient::open(site.proxy.port()).await;
    client.startup(&parameters).await;
    assert!(client.authenticate("app", "secret").await.is_none());
    client.ask("SET app.tenant = 't99'").await;
    let blob = "x".repeat(1_000_000);
    client.parse("", "SELECT length(set_config('app.blob', $1, false))");
    client.bind("", "", &[Some(&blob)]).execute("", 0).finish().await;
    let (port, (pid, secret)) = (site.proxy.port(), client.key().clone());
    let mut foreign = Vec::new();
    for _ in 0..200 {
        use_all(&mut others).await;
        client.query(READ).await;
        let pause = random.pause(8);
        let cancel = async {
            tokio::time::sleep(pause).await;
            RawClient::cancel(port, pid, &secret).await;
        };
        let (answer, ()) = tokio::join!(client.read_until_ready(), cancel);
        foreign.extend(crate::support::values(&answer));
        let code = crate::support::error_code(&answer);
        assert!(matches!(code.as_deref(), None | Some("57014")), "{code:?}");
    }
    assert!(foreign.is_empty(), "{} reads of 200 saw rows of others: {:?}", foreign.len(), foreign.first());
}
