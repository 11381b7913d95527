//! Where there are fewer file descriptors, or less memory, than clients would like.

use std::time::Duration;

use tokio::net::TcpStream;

use crate::support::{Postgres, Proxy, ProxyConfig, RawClient, Role};

/// So many more can come while there are no descriptors.
const COMERS: usize = 5;

#[tokio::test]
async fn without_descriptors_nothing_spins_and_those_who_wait_come_in_later() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 1).to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    assert_eq!(client.query_value("SELECT 1").await, "1");
    proxy.limit_descriptors(Some(proxy.open_descriptors()));
    let mut comers = Vec::new();
    for _ in 0..COMERS {
        comers.push(TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("the system takes it"));
    }
    proxy.wait_for_log("a connection could not be accepted").await;
    let (user, system) = proxy.cpu_seconds();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (later_user, later_system) = proxy.cpu_seconds();
    let spent = later_user + later_system - user - system;
    assert!(spent < 0.5, "{spent} s of 2 s");
    assert_eq!(proxy.log().matches("a connection could not be accepted").count(), 1, "{}", proxy.log());
    assert_eq!(client.query_value("SELECT 2").await, "2", "who is there is served");
    proxy.limit_descriptors(None);
    drop(comers);
    let mut late = RawClient::app(proxy.port()).await;
    assert_eq!(late.query_value("SELECT 3").await, "3");
}

#[tokio::test]
async fn clients_are_no_more_than_there_are_descriptors_for() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 20);
    let mut proxy = Proxy::start(&config.clone().set("limits", "max_clients", 150).to_toml());
    proxy.wait_for_metric("bulkhead_max_clients", 150.0).await;
    proxy.cap_descriptors(420);
    // 420 less 20 connections to servers, 100 clients that are being turned away, and 200 in reserve.
    proxy.reload(&config.set("limits", "max_clients", 151).to_toml());
    proxy.wait_for_metric("bulkhead_max_clients", 100.0).await;
    proxy.wait_for_log("until then limits.max_clients is 100").await;
}

#[tokio::test]
async fn unfinished_requests_of_all_clients_are_bounded() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary).set("limits", "request_buffer_total", "1MiB");
    let proxy = Proxy::start(&config.to_toml());
    let begin = |client: &mut RawClient| {
        // The beginning of a query of 450 KB, and 400 KB of it.
        let length = 450_000_u32.to_be_bytes();
        client.bytes(b"Q").bytes(&length).bytes(&vec![b' '; 400_000]);
    };
    let mut first = Vec::new();
    for _ in 0..2 {
        let mut client = RawClient::app(proxy.port()).await;
        begin(&mut client);
        client.flush().await;
        first.push(client);
    }
    // In steps of 64 KiB.
    let kept = "bulkhead_unfinished_request_bytes";
    proxy.wait_for_metric(kept, 2.0 * 7.0 * 65_536.0).await;
    let mut more = RawClient::app(proxy.port()).await;
    begin(&mut more);
    // It may be refused before it has sent all.
    more.try_flush().await;
    let refusal = more.try_read_message().await.expect("it is told");
    assert_eq!(refusal.field(b'C').as_deref(), Some("53200"), "{refusal:?}");
    // Those who came first are served, as are small requests.
    let mut small = RawClient::app(proxy.port()).await;
    assert_eq!(small.query_value("SELECT 1").await, "1");
    for client in &mut first {
        let mut rest = vec![b' '; 450_000 - 4 - 400_000 - 10];
        rest.extend_from_slice(b"SELECT 17\0");
        client.bytes(&rest).flush().await;
        let answer = client.read_until_ready().await;
        let row = answer.iter().find(|message| message.tag == b'D').expect("a row");
        assert_eq!(row.columns()[0].as_deref(), Some("17"));
    }
    proxy.wait_for_metric(kept, 0.0).await;
}
