//! The columns of every SHOW: names, order and types as PgBouncer 1.25 has them; and values that are true.

use super::{Site, done, table};
use crate::support::{Login, Postgres, Proxy, ProxyConfig, RawClient, Role, eventually};

const TEXT: u32 = 25;
const INT4: u32 = 23;
const INT8: u32 = 20;
const NUMERIC: u32 = 1700;

/// What is shown, and its columns: a letter for the type, and the name.
const SHOWS: [(&str, &str); 24] = [
    ("VERSION", "s:version"),
    (
        "POOLS",
        "s:database s:user i:cl_active i:cl_waiting i:cl_active_cancel_req i:cl_waiting_cancel_req i:sv_active \
         i:sv_active_cancel i:sv_being_canceled i:sv_idle i:sv_used i:sv_tested i:sv_login i:maxwait i:maxwait_us \
         s:pool_mode s:load_balance_hosts",
    ),
    (
        "STATS",
        "s:database N:total_server_assignment_count N:total_xact_count N:total_query_count N:total_received \
         N:total_sent N:total_xact_time N:total_query_time N:total_wait_time N:total_client_parse_count \
         N:total_server_parse_count N:total_bind_count N:avg_server_assignment_count N:avg_xact_count \
         N:avg_query_count N:avg_recv N:avg_sent N:avg_xact_time N:avg_query_time N:avg_wait_time \
         N:avg_client_parse_count N:avg_server_parse_count N:avg_bind_count",
    ),
    (
        "STATS_TOTALS",
        "s:database N:server_assignment_count N:xact_count N:query_count N:bytes_received N:bytes_sent N:xact_time \
         N:query_time N:wait_time N:client_parse_count N:server_parse_count N:bind_count",
    ),
    (
        "STATS_AVERAGES",
        "s:database N:server_assignment_count N:xact_count N:query_count N:bytes_received N:bytes_sent N:xact_time \
         N:query_time N:wait_time N:avg_client_parse_count N:avg_server_parse_count N:avg_bind_count",
    ),
    ("TOTALS", "s:name N:value"),
    (
        "DATABASES",
        "s:name s:host i:port s:database s:force_user i:pool_size i:min_pool_size i:reserve_pool_size \
         i:server_lifetime s:pool_mode s:load_balance_hosts i:max_connections i:current_connections \
         i:max_client_connections i:current_client_connections i:paused i:disabled",
    ),
    ("LISTS", "s:list i:items"),
    ("CLIENTS", SOCKET),
    ("SERVERS", SOCKET),
    ("SOCKETS", SOCKET_AND_POSITIONS),
    ("ACTIVE_SOCKETS", SOCKET_AND_POSITIONS),
    (
        "USERS",
        "s:name s:pool_size s:reserve_pool_size s:pool_mode i:max_user_connections i:current_connections \
         i:max_user_client_connections i:current_client_connections",
    ),
    ("CONFIG", "s:key s:value s:default s:changeable"),
    ("STATE", "s:key s:value"),
    ("MEM", "s:name i:size i:used i:free i:memtotal"),
    ("PEERS", "i:peer_id s:host i:port i:pool_size"),
    ("PEER_POOLS", "i:peer_id i:cl_active_cancel_req i:cl_waiting_cancel_req i:sv_active_cancel i:sv_login"),
    ("DNS_HOSTS", "s:hostname q:ttl s:addrs"),
    ("DNS_ZONES", "s:zonename q:serial i:count"),
    // Ours, one for all.
    ("REASONS", "s:pool s:class s:reason q:requests s:meaning"),
    ("ROUTES", "s:requests s:pool s:servers s:when"),
    ("CAUSAL", "s:server s:role q:now q:last_write q:voided q:has i:lag_ms q:lag_bytes s:consistency"),
    (
        "JOBS",
        "s:pool s:server s:elsewhere s:ddl s:outbox q:waiting q:lag_ms q:relayed q:conflicts q:refused s:trouble",
    ),
];

const SOCKET: &str = "s:type s:user s:database s:replication s:state s:addr i:port s:local_addr i:local_port \
                      s:connect_time s:request_time i:wait i:wait_us i:close_needed s:ptr s:link i:remote_pid s:tls \
                      s:application_name i:prepared_statements i:id";

const SOCKET_AND_POSITIONS: &str = "s:type s:user s:database s:replication s:state s:addr i:port s:local_addr \
                                    i:local_port s:connect_time s:request_time i:wait i:wait_us i:close_needed s:ptr \
                                    s:link i:remote_pid s:tls s:application_name i:prepared_statements i:id \
                                    i:recv_pos i:pkt_pos i:pkt_remain i:send_pos i:send_remain i:pkt_avail \
                                    i:send_avail";

/// The names of `SHOW TOTALS`, once with `total_` in front and once with `avg_`: those in PgBouncer's source.
const TOTALS: &str = "server_assignment_count xact_count query_count client_bytes server_bytes xact_time query_time \
                      wait_time ps_client_parse_count ps_server_parse_count ps_bind_count";

fn both(names: &str) -> Vec<String> {
    let of = |what: &str| names.split(' ').map(|name| format!("{what}_{name}")).collect::<Vec<_>>();
    [of("total"), of("avg")].concat()
}

fn first_column(shown: &super::Table) -> Vec<&str> {
    shown.rows.iter().filter_map(|row| row[0].as_deref()).collect()
}

fn letter(oid: u32) -> char {
    match oid {
        TEXT => 's',
        INT4 => 'i',
        INT8 => 'q',
        NUMERIC => 'N',
        other => panic!("type {other}"),
    }
}

/// The columns are these, and each row has a value for each.
fn check(show: &str, shown: &super::Table, expected: &str) {
    let columns: Vec<String> =
        shown.columns.iter().map(|(name, oid)| format!("{}:{name}", letter(*oid))).collect();
    assert_eq!(columns.join(" "), expected.split_whitespace().collect::<Vec<_>>().join(" "), "{show}");
    for row in &shown.rows {
        assert_eq!(row.len(), shown.columns.len(), "{show}");
    }
}

/// PgBouncer 1.26 counts logins: a column behind the totals, and one behind the averages. Nothing else is another one.
#[tokio::test]
async fn columns_of_1_26_are_there_by_option() {
    let mut site = Site::start();
    let mut before = site.console().await;
    let config = Site::config(&site.cluster, &site.folder);
    site.proxy.reload_to(&config.set("console", "pgbouncer_version", "1.26")).await;
    let _clients = [site.client().await, site.client().await];
    let _worker = RawClient::login(site.proxy.port(), Login::App, "app@jobs").await;
    let refused = RawClient::try_login(site.proxy.port(), Login::App, &[("database", "app@nothing")]).await;
    assert!(refused.is_err());

    let mut console = site.console().await;
    assert!(console.query_value("SHOW VERSION").await.starts_with("PgBouncer 1.26.0 (Bulkhead "));
    for (show, expected) in SHOWS {
        let bind = |average: &str| format!("N:{average}bind_count");
        let login = |average: &str| format!("N:{average}bind_count N:{average}client_login_count");
        let expected = match show {
            "STATS" => ["total_", "avg_"]
                .iter()
                .fold(expected.to_owned(), |text, average| text.replace(&bind(average), &login(average))),
            "STATS_TOTALS" => expected.replace(&bind(""), &login("")),
            "STATS_AVERAGES" => expected.replace(&bind("avg_"), &login("avg_")),
            _ => expected.to_owned(),
        };
        check(show, &table(&mut console, &format!("SHOW {show}")).await, &expected);
    }
    let stats = table(&mut console, "SHOW STATS").await;
    assert_eq!(stats.columns.len(), 25);
    let logins = |pool: &str| stats.value(&[("database", pool)], "total_client_login_count");
    assert_eq!([logins("primary"), logins("jobs"), logins("replicas")], ["2", "1", "0"]);
    let totals = table(&mut console, "SHOW TOTALS").await;
    assert_eq!(first_column(&totals), both(&format!("{TOTALS} client_login_count")));
    assert_eq!(totals.value(&[("name", "total_client_login_count")], "value"), "3");

    // A console that was open goes on as it began: a client was told columns when it prepared.
    assert_eq!(table(&mut before, "SHOW STATS").await.columns.len(), 23);
    assert!(before.query_value("SHOW server_version").await.starts_with("1.25.2/"));
}

#[tokio::test]
async fn every_show_has_its_columns() {
    let site = Site::start();
    let mut console = site.console().await;
    for (show, expected) in SHOWS {
        let shown = table(&mut console, &format!("SHOW {show};")).await;
        check(show, &shown, expected);
    }
    for show in ["HEALTH", "SERVERS HEALTH", "PINS", "REPLICAS", "LISTENERS"] {
        table(&mut console, &format!("show {}", show.to_lowercase())).await;
    }
    let lists = table(&mut console, "SHOW LISTS").await;
    let expected = "databases users peers pools peer_pools free_clients used_clients login_clients free_servers \
                    used_servers dns_names dns_zones dns_queries dns_pending";
    assert_eq!(first_column(&lists), expected.split_whitespace().collect::<Vec<_>>());
    let totals = table(&mut console, "SHOW TOTALS").await;
    assert_eq!(first_column(&totals), both(TOTALS));
    assert_eq!(done(&mut console, "SHOW HELP").await, "SHOW");
}

#[tokio::test]
async fn figures_are_those_of_pools_and_sessions() {
    let site = Site::start();
    let mut console = site.console().await;
    let (mut holder, mut idle) = (site.client().await, site.client().await);
    holder.ask("BEGIN").await;
    holder.ask("SET LOCAL application_name = 'holder'; CREATE TABLE held (a int)").await;
    idle.ask("SELECT 1").await;
    // Its connection is given back behind the answer.
    idle.settle().await;

    let pools = table(&mut console, "SHOW POOLS").await;
    let of = [("database", "primary"), ("user", "app")];
    assert_eq!(pools.value(&of, "cl_active"), "2");
    assert_eq!((pools.value(&of, "sv_active").as_str(), pools.value(&of, "cl_waiting").as_str()), ("1", "0"));
    assert_eq!(pools.value(&of, "pool_mode"), "transaction");
    assert_eq!(pools.value(&[("database", "replicas"), ("user", "app")], "sv_idle"), "1", "the read");
    assert_eq!(pools.value(&[("database", "jobs"), ("user", "app")], "cl_active"), "0");

    let clients = table(&mut console, "SHOW CLIENTS").await;
    let sessions = [("type", "C"), ("user", "app"), ("database", "app")];
    let active = [&sessions[..], &[("state", "active")]].concat();
    assert_eq!(clients.value(&active, "addr"), "127.0.0.1");
    assert_eq!(clients.value(&active, "local_port"), site.proxy.port().to_string());
    assert!(clients.value(&[&sessions[..], &[("state", "idle")]].concat(), "link").is_empty());
    assert_eq!(clients.value(&[("database", "pgbouncer")], "state"), "idle");

    let servers = table(&mut console, "SHOW SERVERS").await;
    let link = clients.value(&active, "link");
    let server = [("type", "S"), ("ptr", link.as_str())];
    assert_eq!(servers.value(&server, "database"), "app@primary");
    assert_eq!(servers.value(&server, "link"), clients.value(&active, "ptr"));
    let pid = holder.query_value("SELECT pg_backend_pid()").await;
    assert_eq!(servers.value(&server, "remote_pid"), pid);
    assert_eq!(servers.value(&server, "port"), site.cluster.primary.port().to_string());

    let databases = table(&mut console, "SHOW DATABASES").await;
    let primary = [("name", "primary")];
    assert_eq!(databases.value(&primary, "database"), "app");
    assert_eq!(databases.value(&primary, "pool_size"), "10");
    assert_eq!(databases.value(&primary, "port"), site.cluster.primary.port().to_string());
    assert_eq!(databases.value(&primary, "current_client_connections"), "2");
    assert_eq!(databases.value(&primary, "paused"), "0");
    let config = table(&mut console, "SHOW CONFIG").await;
    assert_eq!(config.value(&[("key", "pools.primary.max_connections")], "value"), "10");
    assert_eq!(config.value(&[("key", "listen.address")], "changeable"), "no");
    let text = format!("{config:?}");
    assert!(!text.contains("secret"), "no password is shown: {text}");
}

#[tokio::test]
async fn what_was_done_is_counted() {
    let server = Postgres::start(Role::Primary);
    // Nothing of Bulkhead's own is done meanwhile: the catalog has been read, and nothing is defined.
    let config = ProxyConfig::primary_only(&server).set("console", "admin_users", vec!["app"]);
    let proxy = Proxy::start(&config.set("limits", "catalog_refresh", "1h").to_toml());
    let mut console = RawClient::login(proxy.port(), Login::App, "pgbouncer").await;
    let mut client = RawClient::app(proxy.port()).await;
    let primary = [("database", "primary")];
    let number = |table: &super::Table, column: &str| -> u64 {
        table.value(&primary, column).parse().expect("a whole number")
    };
    client.ask("CREATE TABLE counted (a text)").await;
    let read = r#"bulkhead_requests_total{class="read",pool="primary",reason="read_only"}"#;
    eventually("the table is known", std::time::Duration::from_secs(20), async || {
        client.ask("SELECT a FROM counted").await;
        proxy.metric(read).await.filter(|count| *count > 0.0)
    })
    .await;
    client.settle().await;
    let before = table(&mut console, "SHOW STATS_TOTALS").await;
    for _ in 0..10 {
        client.ask("INSERT INTO counted VALUES (repeat('x', 1000))").await;
    }
    client.ask("BEGIN").await;
    for _ in 0..5 {
        client.ask("SELECT a, pg_sleep(0.01) FROM counted LIMIT 1 FOR UPDATE").await;
    }
    client.ask("COMMIT").await;
    // Pinned: transactions are counted though the server connection stays.
    client.ask("SELECT pg_advisory_lock(1)").await;
    for _ in 0..3 {
        client.ask("INSERT INTO counted VALUES ('pinned')").await;
    }
    client.ask("SELECT pg_advisory_unlock(1)").await;
    // What a connection has carried is counted when it is given back, behind the answer.
    client.settle().await;
    let after = table(&mut console, "SHOW STATS_TOTALS").await;
    let grown = |column: &str| number(&after, column) - number(&before, column);
    assert_eq!(grown("server_assignment_count"), 10 + 1 + 1);
    assert_eq!(grown("xact_count"), 12 + 4, "the pinned session's, but for its first");
    // BEGIN is not sent by itself, COMMIT is.
    assert_eq!(grown("query_count"), 10 + 5 + 1 + 5);
    let bytes = (grown("bytes_received"), grown("bytes_sent"));
    assert!((500..20_000).contains(&bytes.0) && (5_000..50_000).contains(&bytes.1), "{bytes:?}");
    assert!(grown("xact_time") >= 50_000 && grown("query_time") >= 50_000, "in microseconds: {after:?}");
    assert!(grown("xact_time") < 60_000_000, "{after:?}");
    let stats = table(&mut console, "SHOW STATS").await;
    for column in ["xact_count", "query_count"] {
        assert_eq!(number(&stats, &format!("total_{column}")), number(&after, column), "nothing since then");
    }
    let reasons = table(&mut console, "SHOW REASONS").await;
    let written: u64 = reasons
        .rows
        .iter()
        .filter(|row| row[0].as_deref() == Some("primary") && row[1].as_deref() == Some("write"))
        .map(|row| row[3].as_deref().and_then(|count| count.parse::<u64>().ok()).expect("a count"))
        .sum();
    assert!(written >= 15, "{reasons:?}");
}

#[tokio::test]
async fn where_requests_go_and_why_is_shown() {
    let site = Site::start();
    let mut console = site.console().await;
    let routes = table(&mut console, "SHOW ROUTES").await;
    for (kind, pool) in [("write", "primary"), ("read", "replicas"), ("job", "jobs"), ("worker", "primary")] {
        assert_eq!(routes.value(&[("requests", kind)], "pool"), pool, "{kind}");
    }
    let mut client = site.client().await;
    client.ask("CREATE TABLE told (a int)").await;
    eventually("the replica has it", std::time::Duration::from_secs(10), async || {
        client.ask("SELECT count(*) FROM told").await;
        let causal = table(&mut console, "SHOW CAUSAL").await;
        let number = |server: &str, column: &str| -> u64 {
            causal.value(&[("server", server)], column).parse().expect("a number")
        };
        assert_eq!(causal.rows.len(), 2, "the primary and its replica");
        (number("replica_1", "has") > number("replica_1", "last_write")
            && number("primary", "last_write") > 0)
            .then_some(())
    })
    .await;
    let jobs = table(&mut console, "SHOW JOBS").await;
    assert_eq!(jobs.value(&[("pool", "jobs")], "outbox"), "off");
    assert_eq!(jobs.value(&[("pool", "jobs")], "elsewhere"), "yes");
}
