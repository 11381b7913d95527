//! The live page in a real Chromium: `make check-page`. Not a part of `make test`, since Chromium is 300 MB.

use std::process::Command;

use crate::support::{Postgres, Proxy, ProxyConfig, RawClient, Role};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/drivers/page.mjs");

#[tokio::test]
#[ignore = "needs Chromium and Node: make check-page"]
async fn chromium_shows_who_waits_and_runs_no_name() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 1);
    let config = config.set("limits", "catalog_refresh", "1h");
    let proxy = Proxy::start(&config.set("pools.primary", "wait_timeout", "90s").to_toml());
    let mut holds = RawClient::app(proxy.port()).await;
    holds.ask("SET application_name = '<img src=x onerror=alert(1)>'").await;
    holds.ask("BEGIN").await;
    holds.query_value("SELECT 1").await;
    let mut waits = RawClient::app(proxy.port()).await;
    waits.query("SELECT 2").await;
    let url = format!("http://127.0.0.1:{}/", proxy.http_port());
    let script =
        move || Command::new("node").arg(SCRIPT).arg(url).args(std::env::var("BULKHEAD_PICTURES")).output();
    let output = tokio::task::spawn_blocking(script).await.expect("no panic").expect("node is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
