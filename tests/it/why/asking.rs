//! Asking itself: when all is well, when nobody is there, what it takes, and what it never shows.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use super::{comes_first, command, console, named, report, site, waiting};
use crate::support::{Cluster, Proxy, ProxyConfig, Scratch, connect, eventually, free_port, http_get, oban};

#[tokio::test]
async fn all_is_well() {
    let cluster = Cluster::start();
    oban::install(&cluster.primary).await;
    oban::install(&cluster.jobs).await;
    cluster.wait_for_replay().await;
    let proxy = Proxy::start(&super::patient(ProxyConfig::of(&cluster)).to_toml());
    let client = connect(&proxy.url()).await.expect("it serves");
    client.simple_query("SELECT count(*) FROM oban_jobs").await.expect("it serves");
    eventually("all is well", Duration::from_secs(10), async || {
        (report(&proxy).await["well"] == true).then_some(())
    })
    .await;
    // With some traffic, too.
    for _ in 0..20 {
        client.simple_query("SELECT count(*) FROM pg_class").await.expect("it serves");
        let report = report(&proxy).await;
        assert_eq!(
            (&report["well"], &report["findings"]),
            (&true.into(), &serde_json::json!([])),
            "{report}"
        );
    }
    let (code, page, errors) = command(&proxy, &[]);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{page}");
    assert!(page.starts_with("well: nothing keeps users waiting\n"), "{page}");
    for figure in
        ["clients: 1 of ", "pool \"jobs\": 0 of 10 in use, nobody waits", "server \"replica_1\": up, "]
    {
        assert!(page.contains(figure), "{figure}\n{page}");
    }
    let (code, json, _) = command(&proxy, &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, &json["well"]), (Some(0), &true.into()));
    let rows = console(&proxy).await;
    let first = rows.iter().find(|message| message.tag == b'D').expect("a row").columns();
    assert_eq!((first[3].as_deref(), first[0].as_deref()), (Some("well"), None));
}

#[test]
fn nobody_is_there_to_be_asked() {
    let folder = Scratch::new();
    let file = folder.path().join("bulkhead.toml");
    let why = |text: &str| {
        fs::write(&file, text).expect("a writable folder");
        let output =
            Command::new(env!("CARGO_BIN_EXE_bulkhead")).arg("--config").arg(&file).arg("why").output();
        let output = output.expect("it runs");
        assert!(output.stdout.is_empty());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let config = |http: &str| {
        format!(
            "[listen]\nhttp = \"{http}\"\n[servers.primary]\nurl = \"postgres://app:secret@127.0.0.1:1/app\"\n[pools.primary]\nservers = [\"primary\"]\n"
        )
    };
    let (code, error) = why(&config(&format!("127.0.0.1:{}", free_port())));
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("bulkhead cannot be asked: http://127.0.0.1:"), "{error}");
    let (code, error) = why(&config("off"));
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("listen.http is \"off\"") && error.contains("SHOW WHY"), "{error}");
    let (code, error) = why("[nonsense");
    assert_eq!(code, Some(2), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[tokio::test]
async fn an_instance_that_hangs_is_not_waited_for_long() {
    let site = site(2, |config| config);
    site.proxy.signal(crate::support::Signal::STOP);
    let began = Instant::now();
    let (code, page, error) = command(&site.proxy, &[]);
    site.proxy.signal(crate::support::Signal::CONT);
    assert_eq!((code, page.as_str()), (Some(2), ""), "{error}");
    assert!(error.contains("does not answer"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_question_takes_no_place_of_clients() {
    // The pool may take all places that the server's bound leaves.
    let site = site(1, |config| config.set("servers.primary", "max_connections", 1));
    let mut slow = named(&site, "report").await;
    slow.query("SELECT pg_sleep(60)").await;
    site.primary.wait_for_app_backends("wait_event = 'PgSleep'", 1).await;
    let _last = waiting(&site).await;
    let found =
        comes_first(&site.proxy, "pool_full", &["pool \"primary\" is full of running statements", "1 of 1"])
            .await;
    assert!(found.contains("1 x application \"report\", user \"app\", class read, running for"), "{found}");
    assert!(!found.contains("pg_sleep"), "nobody could tell the text: {found}");
    let report = report(&site.proxy).await;
    let unknown = report["unknown"][0].as_str().expect("something is not known");
    assert!(unknown.contains("servers.primary.max_connections leaves no place"), "{unknown}");
    let count = site.primary.value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'").await;
    assert_eq!(count, "1");
}

#[tokio::test]
async fn many_may_ask_at_once_and_few_connections_are_opened() {
    let site = site(2, |config| config);
    let watch = async {
        let mut most = 0;
        for _ in 0..100 {
            let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bulkhead why'";
            most = most.max(site.primary.value(count).await.parse().unwrap_or(0));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        most
    };
    let mut asking = JoinSet::new();
    for _ in 0..20 {
        asking.spawn(http_get(site.proxy.http_port(), "/api/v1/why"));
    }
    let ask = async {
        let mut asked = 0;
        while let Some(answer) = asking.join_next().await {
            let (status, text) = answer.expect("no panic").expect("it answers HTTP");
            assert_eq!(status, 200, "{text}");
            asked += 1;
        }
        asked
    };
    let (most, asked) = tokio::join!(watch, ask);
    assert!(most <= 1, "{most} at once");
    assert_eq!(asked, 20);
}

#[tokio::test]
async fn what_clients_say_of_themselves_is_shown_escaped_and_bounded() {
    let site = site(2, |config| config);
    let name = format!("\u{1b}[2J\u{7}\r\nroot\u{202e}{}", "x".repeat(2_000));
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = named(&site, &name).await;
        client
            .query("SELECT pg_sleep(60), 'topsecret', $$topsecret$$, E'\u{1b}[31mtopsecret' AS \"\u{1b}[31m\" -- topsecret")
            .await;
        clients.push(client);
    }
    site.primary.wait_for_app_backends("wait_event = 'PgSleep'", 2).await;
    let _last = waiting(&site).await;
    let found = comes_first(&site.proxy, "pool_full", &["is full of running statements"]).await;
    let (_, json, _) = command(&site.proxy, &["--json"]);
    let shown: String = console(&site.proxy)
        .await
        .iter()
        .filter(|message| message.tag == b'D')
        .flat_map(|message| message.columns().into_iter().flatten().collect::<Vec<_>>())
        .collect();
    for (what, text) in
        [("finding", found.replace('\n', " ")), ("JSON", json.replace('\n', " ")), ("console", shown)]
    {
        assert!(!text.contains(|c: char| c.is_control() || c == '\u{202e}'), "{what}: {text:?}");
        assert!(!text.contains("topsecret"), "{what}: {text}");
        assert!(text.contains("u{1b}[2J"), "{what}: {text}");
        assert!(text.len() < 8_000, "{what}: {} bytes", text.len());
    }
}
