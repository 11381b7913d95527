//! Values of a hundred megabytes pass in both directions, and the proxy's memory never shows it.

use super::talk::Pair;
use crate::support::RawClient;

const GIANT: usize = 100 << 20;

/// What the proxy may grow at its peak.
const BOUND: u64 = 12 << 20;

#[tokio::test]
async fn giants_pass_without_being_held() {
    let site = Pair::start().await;
    let mut client = site.client().await;
    client.query_value("SELECT 'warm'").await;
    let before = site.proxy.peak_memory_bytes();
    let grown = |what: &str| {
        let grown = site.proxy.peak_memory_bytes() - before;
        assert!(grown < BOUND, "{what}: {grown} bytes more than before");
    };
    let value = "v".repeat(GIANT);

    // As a parameter.
    client.parse("s", "SELECT length($1)").sync().bind("", "s", &[Some(&value)]).execute("", 0).sync();
    client.flush().await;
    client.read_until_ready().await;
    let answer = client.read_until_ready().await;
    assert_eq!(answer[1].columns(), [Some(GIANT.to_string())]);
    grown("a parameter");
    // As a row.
    let row = client.query_value(&format!("SELECT repeat('v', {GIANT})")).await;
    assert!(row == value, "a row of {} bytes", row.len());
    grown("a row");
    // As one message of COPY data, in and out.
    client.query("COPY t (a, b) FROM STDIN").await;
    assert_eq!(client.read_message().await.tag, b'G');
    client.message(b'd', format!("100\t{value}\n").as_bytes()).message(b'c', b"").flush().await;
    assert_eq!(RawClient::tags(&client.read_until_ready().await), "CZ");
    grown("COPY in");
    let out = client.ask("COPY (SELECT b FROM t) TO STDOUT").await;
    assert_eq!((RawClient::tags(&out).as_str(), out[1].body.len()), ("HdcCZ", GIANT + 1));
    grown("COPY out");
    site.finish().await;
}
