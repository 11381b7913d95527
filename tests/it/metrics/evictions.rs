//! What bounded memories throw out is counted, each for itself.

use crate::support::{Login, Postgres, Proxy, ProxyConfig, RawClient, Role, error_of};

/// The counts of these memories.
async fn evicted<const N: usize>(proxy: &Proxy, caches: [&str; N]) -> [u64; N] {
    let mut counts = [0; N];
    for (cache, count) in caches.into_iter().zip(&mut counts) {
        let sample = format!("bulkhead_cache_evictions_total{{cache=\"{cache}\"}}");
        *count = proxy.metric(&sample).await.expect("it is there from the start") as u64;
    }
    counts
}

/// Sends texts of these numbers, each of them prepared by name as well.
async fn send(client: &mut RawClient, numbers: std::ops::Range<u32>) {
    for number in numbers {
        client.ask(&format!("SELECT 1 AS plain_{number}")).await;
        let name = format!("s{number}");
        client.parse(&name, &format!("SELECT 1 AS prepared_{number}")).bind("", &name, &[]).execute("", 0);
        client.close(b'S', &name);
        assert_eq!(error_of(&client.finish().await), None);
    }
}

#[tokio::test]
async fn what_makes_room_for_others_is_counted_by_memory() {
    const OF_TEXTS: [&str; 5] =
        ["verdicts", "prepared_statements", "server_statements", "query_texts", "query_statistics"];
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary)
        .pool("primary", &["primary"], 1)
        .set("console", "admin_users", vec!["app"])
        .set("limits", "verdict_cache", 100)
        .set("limits", "prepared_per_backend", 20)
        .set("statistics", "queries", 50);
    let mut proxy = Proxy::start(&config.to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    for _ in 0..10 {
        send(&mut client, 0..5).await;
    }
    assert_eq!(evicted(&proxy, OF_TEXTS).await, [0; 5], "everything has its place");
    send(&mut client, 5..205).await;
    let counts = evicted(&proxy, OF_TEXTS).await;
    let [verdicts, shared, on_server, texts, statistics] = counts;
    // Of 410 texts 205 are prepared. A memory may keep a few less than its bound.
    for (count, sent, bound) in [
        (verdicts, 410, 100),
        (shared, 205, 100),
        (on_server, 205, 20),
        (texts, 410, 50),
        (statistics, 410, 50),
    ] {
        assert!((sent - bound..sent).contains(&count), "{counts:?}");
    }
    assert_eq!(evicted(&proxy, ["identities", "catalogs"]).await, [0; 2]);

    // Counters only grow: neither a reset of statistics nor another memory for verdicts begins them anew.
    let mut console = RawClient::login(proxy.port(), Login::App, "bulkhead").await;
    console.ask("RESET QUERIES").await;
    proxy.reload_to(&config.set("limits", "verdict_cache", 10_000)).await;
    send(&mut client, 0..5).await;
    assert_eq!(evicted(&proxy, OF_TEXTS).await[..2], counts[..2]);
    assert!(evicted(&proxy, OF_TEXTS).await[4] >= statistics);
}
