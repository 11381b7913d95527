//! The harness itself, straight against Postgres: when one of these fails, look here before anywhere else.

use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use crate::support::{Cluster, Login, Postgres, RawClient, Relay, Role, Stop, connect, eventually, oban};

#[tokio::test]
async fn a_cluster_replicates() {
    let cluster = Cluster::start();
    cluster.primary.query("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id").await;
    cluster.wait_for_replay().await;
    assert_eq!(cluster.replica.value("SELECT count(*) FROM t").await, "1000");

    let replica = connect(&cluster.replica.url(Login::App)).await.expect("the replica lets app in");
    let refused = replica.execute("CREATE TABLE u (id int)", &[]).await.expect_err("a replica is read-only");
    assert_eq!(refused.code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION));

    let identifier = "SELECT system_identifier FROM pg_control_system()";
    let primary = cluster.primary.value(identifier).await;
    assert_eq!(primary, cluster.replica.value(identifier).await);
    assert_ne!(primary, cluster.jobs.value(identifier).await);
}

#[tokio::test]
async fn a_replica_falls_behind_catches_up_and_is_promoted() {
    let cluster = Cluster::start();
    cluster.replica.set_replay(false).await;
    cluster.primary.query("CREATE TABLE t ()").await;
    assert_eq!(cluster.replica.value("SELECT to_regclass('t')").await, "");
    cluster.replica.set_replay(true).await;
    cluster.wait_for_replay().await;
    assert_eq!(cluster.replica.value("SELECT to_regclass('t')").await, "t");

    cluster.primary.kill();
    cluster.replica.promote().await;
    cluster.replica.query("CREATE TABLE u ()").await;
}

#[tokio::test]
async fn every_login_works() {
    let primary = Postgres::start(Role::Primary);
    for login in [Login::App, Login::AppTwo, Login::Md5, Login::Trust, Login::Admin] {
        let client =
            connect(&primary.url(login)).await.unwrap_or_else(|error| panic!("{login:?}: {error:?}"));
        client
            .batch_execute("BEGIN; CREATE TABLE t (); ROLLBACK")
            .await
            .unwrap_or_else(|error| panic!("{login:?}: {error:?}"));
    }
    let wrong = Login::App.url(primary.port(), "app").replace("secret", "wrong");
    let refused = connect(&wrong).await.expect_err("a wrong password is refused");
    assert_eq!(refused.code(), Some(&SqlState::INVALID_PASSWORD));
}

#[tokio::test]
async fn a_killed_server_recovers_its_data() {
    let primary = Postgres::builder(Role::Primary).max_connections(7).setting("work_mem", "5MB").start();
    assert_eq!(primary.value("SHOW max_connections").await, "7");
    primary.query("CREATE TABLE t AS SELECT 1 AS id").await;
    let client = connect(&primary.url(Login::App)).await.expect("the server accepts connections");
    primary.kill();
    client.simple_query("SELECT 1").await.expect_err("the server is gone");
    connect(&primary.url(Login::App)).await.expect_err("nobody listens");
    primary.boot();
    assert_eq!(primary.value("SELECT count(*) FROM t").await, "1");
    assert!(primary.log().contains("was not properly shut down"), "{}", primary.log());

    let client = connect(&primary.url(Login::App)).await.expect("the server accepts connections");
    primary.stop(Stop::Fast);
    let error = client.simple_query("SELECT 1").await.expect_err("the server has stopped");
    assert!(error.is_closed() || error.code() == Some(&SqlState::ADMIN_SHUTDOWN), "{error:?}");
    primary.boot();
    primary.restart();
    assert_eq!(primary.value("SHOW work_mem").await, "5MB");
}

#[tokio::test]
async fn a_paused_server_answers_later() {
    let primary = Postgres::start(Role::Primary);
    let client = connect(&primary.url(Login::App)).await.expect("the server accepts connections");
    primary.pause();
    let answer = client.simple_query("SELECT 1");
    let answer = tokio::time::timeout(Duration::from_millis(200), answer).await;
    assert!(answer.is_err(), "a frozen server answered");
    primary.resume();
    client.simple_query("SELECT 1").await.expect("the server goes on");
}

#[tokio::test]
async fn a_relay_delays_stalls_cuts_and_refuses() {
    let primary = Postgres::start(Role::Primary);
    let relay = Relay::start(primary.port());
    let url = Login::App.url(relay.port(), "app");
    let client = connect(&url).await.expect("the relay passes everything");
    assert_eq!(relay.open(), 1);

    relay.delay(Duration::from_millis(50));
    let before = Instant::now();
    client.simple_query("SELECT 1").await.expect("late is not lost");
    assert!(before.elapsed() >= Duration::from_millis(100), "{:?}", before.elapsed());
    relay.delay(Duration::ZERO);

    relay.stall(true);
    let stalled = tokio::time::timeout(Duration::from_millis(200), client.simple_query("SELECT 1")).await;
    assert!(stalled.is_err(), "a stalled relay passed something");
    relay.stall(false);
    client.simple_query("SELECT 1").await.expect("nothing was lost");

    relay.cut();
    client.simple_query("SELECT 1").await.expect_err("the connection was reset");
    eventually("the relay has closed", Duration::from_secs(5), async || (relay.open() == 0).then_some(()))
        .await;
    relay.refuse(true);
    connect(&url).await.expect_err("the relay refuses");
    relay.refuse(false);
    connect(&url).await.expect("the relay accepts again");
}

#[tokio::test]
async fn a_raw_client_speaks_the_protocol() {
    let primary = Postgres::start(Role::Primary);
    for login in [Login::App, Login::Md5, Login::Trust] {
        let mut client = RawClient::login(primary.port(), login, "app").await;
        assert!(client.parameter("server_version").is_some());
        assert_eq!(client.query_value("SELECT 1 + 1").await, "2");

        client.parse("s", "SELECT $1::int + 1").bind("", "s", &[Some("41")]).execute("", 0).sync();
        client.flush().await;
        assert_eq!(RawClient::tags(&client.read_until_ready().await), "12DCZ");

        client.query("SELEC").await;
        let error = client.read_message().await;
        assert_eq!((error.tag, error.field(b'C').as_deref()), (b'E', Some("42601")));
        assert_eq!(client.read_until_ready().await.last().map(|m| m.body[0]), Some(b'I'));

        client.query("SELECT pg_sleep(60)").await;
        let (pid, secret) = client.key().clone();
        // The server may not have begun the statement yet, and would then ignore the request.
        eventually("the statement is cancelled", Duration::from_secs(10), async || {
            RawClient::cancel(primary.port(), pid, &secret).await;
            tokio::time::timeout(Duration::from_millis(100), client.peek()).await.ok()
        })
        .await;
        let answer = client.read_until_ready().await;
        let error = answer.iter().find(|message| message.tag == b'E').expect("the statement has failed");
        assert_eq!(error.field(b'C').as_deref(), Some("57014"));
    }
}

#[tokio::test]
async fn a_load_of_jobs_completes_them() {
    let cluster = Cluster::start();
    oban::install(&cluster.primary).await;
    oban::install(&cluster.jobs).await;
    let oid = "SELECT 'oban_job_state'::regtype::oid";
    assert_ne!(cluster.primary.value(oid).await, cluster.jobs.value(oid).await, "OIDs must differ");

    oban::enqueue(&cluster.jobs, 50).await;
    let load = oban::Load::start(&cluster.jobs.url(Login::App), 4, Duration::from_millis(1)).await;
    eventually("all jobs are done", Duration::from_secs(20), async || (load.completed() == 50).then_some(()))
        .await;
    let report = load.stop().await;
    assert_eq!(report.errors, 0);
    let states = cluster.jobs.query("SELECT state, count(*) FROM oban_jobs GROUP BY state").await;
    assert_eq!(states, [[Some("completed".to_owned()), Some("50".to_owned())]]);
}
