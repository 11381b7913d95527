//! What each endpoint tells: fields and their types, and that the values are true.

use serde_json::Value as Json;

use super::{SOON, get};
use crate::support::{Cluster, Login, Postgres, Proxy, ProxyConfig, RawClient, Role, Stop, eventually};

/// Endpoints and their fields: a path, and the types that its value may have. `0` is the first of a list, a name
/// the one of that name; it must be there.
const SHAPES: [(&str, &str); 10] = [
    (
        "health",
        "level:string summary:string version:string clients:number max_clients:number status:string reasons:array \
         servers.0.name:string servers.0.role:string servers.0.state:string servers.0.state_seconds:number|null \
         pools.0.name:string pools.0.server:string pools.0.state:string pools.0.active:number pools.0.idle:number \
         pools.0.waiting:number pools.0.max_connections:number",
    ),
    (
        "pools",
        "pools.primary.name:string pools.primary.mode:string pools.primary.state:string pools.primary.is_quiet:boolean \
         pools.primary.max_connections:number pools.primary.active:number pools.primary.idle:number pools.primary.connecting:number \
         pools.primary.closing:number pools.primary.waiting:number pools.primary.max_waiting:number \
         pools.primary.longest_wait_seconds:number pools.primary.wait_p50_seconds:number|null \
         pools.primary.wait_p95_seconds:number|null pools.primary.pinned:number pools.primary.max_pinned:number \
         pools.primary.held_by.0.user:string pools.primary.held_by.0.application_name:string \
         pools.primary.held_by.0.connections:number pools.primary.held_by.0.longest_seconds:number \
         pools.primary.waiting_for_it.0.user:string pools.primary.waiting_for_it.0.database:string \
         pools.primary.waiting_for_it.0.waiting:number pools.primary.waiting_for_it.0.longest_wait_seconds:number \
         pools.primary.servers.0.server:string pools.primary.servers.0.state:string pools.primary.servers.0.max_connections:number \
         pools.primary.servers.0.active:number pools.primary.servers.0.idle:number pools.primary.servers.0.waiting:number",
    ),
    (
        "servers",
        "servers.0.name:string servers.0.role:string servers.0.state:string servers.0.state_seconds:number|null \
         servers.0.in_recovery:boolean|null servers.0.last_check_seconds:number|null \
         servers.0.unreachable_seconds:number|null servers.0.last_error:string|null servers.0.host:string|null \
         servers.0.host_seconds:number|null servers.0.rivals:array servers.0.open_connections:number \
         servers.primary.replica:null servers.replica_1.replica.serves_reads:boolean servers.replica_1.replica.lag_seconds:number \
         servers.replica_1.replica.lag_bytes:number servers.replica_1.replica.why_not:string|null",
    ),
    (
        "clients",
        "total:number offset:number limit:number clients.0.id:number clients.0.user:string clients.0.database:string \
         clients.0.state:string clients.0.application_name:string clients.0.wait:number clients.0.wait_us:number \
         clients.0.addr:string clients.0.port:number clients.0.connect_time:string clients.0.request_time:string",
    ),
    (
        "events",
        "events.0.id:number events.0.at_seconds:number events.0.level:string events.0.message:string \
         events.0.fields:object",
    ),
    (
        "pins",
        "pins.0.pool:string pins.0.server:string pins.0.reason:string pins.0.pinned:number pins.0.max_pinned:number",
    ),
    (
        "reasons",
        "reasons.0.pool:string reasons.0.class:string reasons.0.reason:string reasons.0.requests:number \
         reasons.0.meaning:string",
    ),
    (
        "queries",
        "evicted:number left_out:number queries.0.query:string queries.0.database:string queries.0.user:string \
         queries.0.pool:string queries.0.class:string queries.0.reason:string queries.0.calls:number \
         queries.0.errors:number queries.0.rows:number queries.0.total_time_us:number queries.0.max_time_us:number \
         queries.0.p95_time_us:number queries.0.wait_time_us:number queries.0.pins:number \
         queries.0.pinned_by:string|null queries.0.on_replica:number queries.0.on_primary:array \
         queries.0.not_on_replica:string|null",
    ),
    (
        "slow",
        "slow.0.ended_at:number slow.0.time_us:number slow.0.wait_time_us:number slow.0.query:string \
         slow.0.database:string slow.0.user:string slow.0.application_name:string slow.0.pool:string \
         slow.0.class:string slow.0.rows:number slow.0.failed:boolean",
    ),
    ("why", "well:boolean findings:array figures:array unknown:array took_ms:number"),
];

fn type_of(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    }
}

/// A value within JSON.
fn at<'j>(json: &'j Json, path: &str) -> &'j Json {
    path.split('.').fold(json, |json, part| {
        if let Ok(number) = part.parse::<usize>() {
            return &json[number];
        }
        let of_name = || json.as_array()?.iter().find(|item| item["name"] == part);
        json.get(part).or_else(of_name).unwrap_or_else(|| panic!("no {part} of {path} in {json}"))
    })
}

/// Two connections of which one waits for the other's.
async fn one_waits(proxy: &Proxy, name: &str) -> [RawClient; 2] {
    let mut holds = RawClient::app(proxy.port()).await;
    holds.ask(&format!("SET application_name = '{name}'")).await;
    holds.ask("BEGIN").await;
    holds.ask("INSERT INTO t VALUES (1)").await;
    holds.ask("SELECT pg_sleep(0.02)").await;
    let mut waits = RawClient::app(proxy.port()).await;
    waits.query("INSERT INTO t VALUES (2)").await;
    [holds, waits]
}

async fn table(primary: &Postgres) {
    primary.query("CREATE TABLE t (a int); ALTER TABLE t OWNER TO app").await;
}

#[tokio::test]
async fn each_endpoint_has_its_fields_and_types() {
    let cluster = Cluster::start();
    table(&cluster.primary).await;
    let config =
        ProxyConfig::of(&cluster).set("limits", "catalog_refresh", "1h").pool("primary", &["primary"], 1);
    let proxy = Proxy::start(&config.set("statistics", "slow_statement", "10ms").to_toml());
    let _clients = one_waits(&proxy, "shapes").await;
    eventually("somebody waits", SOON, async || {
        let told = get(&proxy, "/api/v1/pools").await.json();
        at(&told, "pools.primary.waiting").as_u64().filter(|waiting| *waiting > 0)
    })
    .await;
    for (endpoint, shape) in SHAPES {
        let told = get(&proxy, &format!("/api/v1/{endpoint}")).await;
        assert_eq!(told.status, 200, "{endpoint}: {told:?}");
        assert!(told.head.contains("content-type: application/json"), "{endpoint}: {told:?}");
        let json = told.json();
        for field in shape.split_whitespace() {
            let (path, types) = field.split_once(':').expect("a path and types");
            let found = type_of(at(&json, path));
            assert!(types.split('|').any(|known| known == found), "{endpoint} {path} is {found}: {json}");
        }
        // HEAD has the same head and no body.
        let head = super::ask(&proxy, &format!("HEAD /api/v1/{endpoint}"), "").await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{endpoint}");
    }
    let page = get(&proxy, "/api/v1/queries?limit=1").await.json();
    assert_eq!(page["queries"].as_array().map(Vec::len), Some(1), "{page}");
    assert_eq!(get(&proxy, "/api/v1/slow?limit=x").await.status, 400);
}

#[tokio::test]
async fn who_waits_for_whom_is_told() {
    let primary = Postgres::start(Role::Primary);
    table(&primary).await;
    // Nobody else asks for the one connection.
    let config = ProxyConfig::primary_only(&primary).set("limits", "catalog_refresh", "1h");
    let config = config.pool("primary", &["primary"], 1).set("pools.primary", "wait_timeout", "30s");
    let proxy = Proxy::start(&config.to_toml());
    let [mut holds, mut waits] = one_waits(&proxy, "the culprit").await;
    let health = eventually("it is called full", SOON, async || {
        let told = get(&proxy, "/api/v1/health").await.json();
        (told["level"] == "critical").then_some(told)
    })
    .await;
    let summary = health["summary"].as_str().expect("text");
    assert!(summary.starts_with("Pool primary is full: 1 of 1 in use, "), "{summary}");
    let pool = &get(&proxy, "/api/v1/pools").await.json()["pools"][0];
    assert_eq!(pool["state"], "waiting");
    assert_eq!(pool["held_by"][0]["application_name"], "the culprit");
    assert_eq!(pool["waiting_for_it"][0]["user"], "app");
    let clients = get(&proxy, "/api/v1/clients?limit=1").await.json();
    assert_eq!((&clients["total"], &clients["clients"][0]["state"]), (&2.into(), &"waiting".into()));
    let second = get(&proxy, "/api/v1/clients?limit=1&offset=1").await.json();
    assert_eq!(second["clients"][0]["application_name"], "the culprit");
    assert_eq!(get(&proxy, "/api/v1/clients?offset=2").await.json()["clients"], serde_json::json!([]));
    let events = eventually("it is an event", SOON, async || {
        let told = get(&proxy, "/api/v1/events").await.json();
        (told["events"][0]["message"] == "clients wait for the pool").then_some(told)
    })
    .await;
    assert_eq!(events["events"][0]["fields"]["pool"], "primary", "{events}");
    holds.ask("COMMIT").await;
    assert_eq!(waits.read_error().await, None);
    waits.settle().await;
    let health = get(&proxy, "/api/v1/health").await.json();
    assert_eq!((&health["level"], &health["summary"]), (&"ok".into(), &"All well".into()), "{health}");
    let pool = &get(&proxy, "/api/v1/pools").await.json()["pools"][0];
    assert!(pool["wait_p95_seconds"].as_f64().is_some_and(|p95| p95 > 0.1), "{pool}");
}

#[tokio::test]
async fn a_server_that_goes_and_comes_is_an_event() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&ProxyConfig::primary_only(&primary).to_toml());
    let messages = async || {
        let told = get(&proxy, "/api/v1/events").await.json();
        let all = told["events"].as_array().expect("a list").iter();
        all.filter_map(|event| event["message"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let has = async |what: &str| {
        eventually(what, SOON, async || {
            messages().await.iter().any(|message| message.contains(what)).then_some(())
        })
        .await;
    };
    has("ready for clients").await;
    let mut client = RawClient::app(proxy.port()).await;
    primary.stop(Stop::Immediate);
    client.query("SELECT 1").await;
    has("the server cannot be reached").await;
    let health = eventually("it is critical", SOON, async || {
        let told = get(&proxy, "/api/v1/health").await.json();
        (told["level"] == "critical").then_some(told)
    })
    .await;
    assert!(
        health["summary"]
            .as_str()
            .is_some_and(|summary| summary.starts_with("Server \"primary\" cannot serve")),
        "{health}"
    );
    primary.boot();
    has("the server can be reached again").await;
}

#[tokio::test]
async fn hostile_names_stay_names() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&ProxyConfig::primary_only(&primary).to_toml());
    let name = "<img src=x onerror=alert(1)>\"&";
    let mut client = RawClient::login(proxy.port(), Login::App, "app").await;
    client.ask(&format!("SET application_name = '{name}'")).await;
    client.ask("BEGIN").await;
    client.query_value("SELECT 1").await;
    for path in ["/api/v1/clients", "/api/v1/pools"] {
        let told = get(&proxy, path).await;
        assert!(told.head.contains("x-content-type-options: nosniff"), "{told:?}");
        let json = told.json();
        let found =
            if path.ends_with("clients") { &json["clients"][0] } else { &json["pools"][0]["held_by"][0] };
        assert_eq!(found["application_name"], name, "{json}");
    }
    // The page holds no text of clients, and lets nothing inline run.
    for path in ["/", "/page.js", "/page.css", "/icon.svg"] {
        let told = get(&proxy, path).await;
        assert_eq!(told.status, 200, "{path}");
        assert!(
            told.head.contains("content-security-policy: default-src 'self'; base-uri 'none'"),
            "{told:?}"
        );
        assert!(!told.head.contains("access-control-"), "{told:?}");
        assert!(!told.body.contains(name), "{path}");
    }
}
