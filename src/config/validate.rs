//! Makes a text into a [`Config`], or lists all that is wrong with it.
//!
//! Owns the bounds of each value and how values must fit together. Refuses to read files or to connect.

use std::{net::SocketAddr, time::Duration};

use toml::de::DeTable;

use super::{
    Auth, AuthMethod, Config, JobRules, Jobs, Limits, Listen, PRIMARY, Pool, Server, Workers,
    expand::Environment,
    file::{Located, Section},
    keys::nearest,
    problem::{Problems, Report, Wrong, shown},
    url::ServerUrl,
};

const MILLISECOND: Duration = Duration::from_millis(1);
const CONNECTIONS_MAX: usize = 100_000;

/// Reads a configuration's text. `file` is its name in messages; `known_presets` are the job presets that
/// the sql layer has.
pub fn parse(
    text: &str,
    file: &str,
    environment: Environment<'_>,
    known_presets: &[&str],
) -> Result<Config, Problems> {
    let report = Report::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().unwrap_or(0..0);
        report.add(&at, "", Wrong::new(format!("not TOML: {}", error.message()), ""));
    }
    let config = if errors.is_empty() {
        config(&Section::root(&report, environment, document.get_ref()), known_presets)
    } else {
        // What the parser makes of the rest would only mislead.
        None
    };
    match config {
        Some(config) => report.finish(file, config),
        None => Err(report.finish(file, ()).expect_err("no configuration without a problem")),
    }
}

/// `None` only after a problem was reported.
fn config(root: &Section<'_>, known_presets: &[&str]) -> Option<Config> {
    let listen = listen(&root.section("listen", "listen"));
    let limits = limits(&root.section("limits", "limits"));
    let auth = auth(&root.section("auth", "auth"));
    let jobs = jobs(&root.section("jobs", "jobs"), known_presets);
    let workers = workers(&root.section("workers", "workers"));
    let databases = databases(root);
    let servers = servers(root);
    let pools = pools(root, &servers, &jobs, &workers);
    let servers: Option<Vec<Server>> = servers.into_iter().map(|named| named.server).collect();
    Some(Config { listen, limits, auth, servers: servers?, pools, jobs, workers, databases })
}

fn listen(section: &Section<'_>) -> Listen {
    let default = Listen::default();
    let listen = Listen {
        address: section.parsed("address", default.address, address),
        http: section.parsed("http", default.http, |text| match text {
            "off" => Ok(None),
            _ => address(text).map(Some),
        }),
        threads: section.count("threads", default.threads, &(1..=256)),
        shutdown_grace: section.duration("shutdown_grace", default.shutdown_grace, Duration::ZERO),
    };
    if listen.http == Some(listen.address) && listen.address.port() != 0 {
        let message = format!("{} is the address for Postgres clients already", listen.address);
        section.problem("http", Wrong::new(message, "write another port, or \"off\""));
    }
    listen
}

fn address(text: &str) -> Result<SocketAddr, Wrong> {
    text.parse().map_err(|_| {
        let hint = match text.rsplit_once(':') {
            Some(("localhost", port)) => format!("write \"127.0.0.1:{port}\""),
            Some(("" | "*", port)) => format!("write \"0.0.0.0:{port}\" for all addresses"),
            None if text.parse::<std::net::IpAddr>().is_ok() => {
                format!("the port is missing: write \"{text}:6432\"")
            }
            _ => "write an IP address and a port, such as \"127.0.0.1:6432\" or \"[::1]:6432\"".to_owned(),
        };
        Wrong::new(format!("{} is not an address", shown(text)), hint)
    })
}

fn limits(section: &Section<'_>) -> Limits {
    let default = Limits::default();
    let second = Duration::from_secs(1);
    let bytes = 1 << 10..=1 << 30;
    let count = 1..=10_000_000;
    Limits {
        max_clients: section.count("max_clients", default.max_clients, &(1..=1_000_000)),
        login_timeout: section.duration("login_timeout", default.login_timeout, MILLISECOND),
        request_buffer: section.size("request_buffer", default.request_buffer, &bytes),
        statement_bytes: section.size("statement_bytes", default.statement_bytes, &bytes),
        verdict_cache: section.count("verdict_cache", default.verdict_cache, &count),
        prepared_per_client: section.count("prepared_per_client", default.prepared_per_client, &count),
        prepared_per_backend: section.count("prepared_per_backend", default.prepared_per_backend, &count),
        catalog_refresh: section.duration("catalog_refresh", default.catalog_refresh, second),
    }
}

fn auth(section: &Section<'_>) -> Auth {
    let default = Auth::default();
    let method = |text: &str| match text {
        "scram-sha-256" => Ok(AuthMethod::ScramSha256),
        "md5" => Ok(AuthMethod::Md5),
        "trust" => Ok(AuthMethod::Trust),
        _ => Err(Wrong::new(
            format!("{} is not a method", shown(text)),
            "write \"scram-sha-256\", \"md5\" or \"trust\"",
        )),
    };
    Auth {
        method: section.parsed("method", default.method, method),
        users_file: section.path_of_file("users_file"),
    }
}

fn values(texts: Vec<Located<String>>) -> Vec<String> {
    texts.into_iter().map(|text| text.value).collect()
}

fn jobs(section: &Section<'_>, known: &[&str]) -> Jobs {
    let presets = section.texts("presets");
    for preset in presets.iter().filter(|preset| !preset.value.is_empty()) {
        if !known.contains(&preset.value.as_str()) {
            let hint = match nearest(&preset.value, known) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("known presets: {}; others are described by [jobs.rules]", known.join(", ")),
            };
            let message = format!("no preset is called {}", shown(&preset.value));
            section.problem_at(&preset.at, "presets", Wrong::new(message, hint));
        }
    }
    let rules = section.section("rules", "jobs.rules");
    Jobs {
        presets: values(presets),
        schemas: values(section.texts("schemas")),
        rules: JobRules {
            schemas: values(rules.texts("schemas")),
            tables: values(rules.texts("tables")),
            functions: values(rules.texts("functions")),
            channels: values(rules.texts("channels")),
        },
    }
}

fn workers(section: &Section<'_>) -> Workers {
    Workers {
        application_names: values(section.texts("application_names")),
        users: values(section.texts("users")),
    }
}

fn databases(root: &Section<'_>) -> Vec<String> {
    if !root.has("databases") {
        return vec!["*".to_owned()];
    }
    let databases = values(root.texts("databases"));
    if databases.is_empty() {
        let hint = "write databases = [\"*\"] for any, or leave the key out";
        root.problem("databases", Wrong::new("no client could ask for any database", hint));
    }
    databases
}

/// A server's section, and the server unless its URL is wrong.
struct Named<'a> {
    name: String,
    section: Section<'a>,
    max_connections: Option<usize>,
    server: Option<Server>,
}

fn servers<'a>(root: &Section<'a>) -> Vec<Named<'a>> {
    let servers: Vec<_> =
        root.named("servers").into_iter().map(|(name, section)| server(name, section)).collect();
    if !servers.iter().any(|server| server.name == PRIMARY) {
        let hint = "write [servers.primary] and below it url = \"${DATABASE_URL}\"";
        root.problem("servers", Wrong::new("no server is called primary", hint));
    }
    servers
}

fn server(name: String, section: Section<'_>) -> Named<'_> {
    let max_connections = section
        .has("max_connections")
        .then(|| section.count("max_connections", CONNECTIONS_MAX, &(1..=CONNECTIONS_MAX)));
    if !section.has("url") {
        let hint = "write url = \"postgres://user:password@host:5432/database\", or \"${DATABASE_URL}\"";
        section.problem("url", Wrong::new("is missing", hint));
    }
    let url = section.parsed("url", None, |text| ServerUrl::parse(text).map(Some));
    let server = url.map(|url| Server {
        name: name.clone(),
        host: url.host,
        port: url.port,
        user: url.user,
        password: url.password,
        database: url.database,
        max_connections,
        ssl_mode: url.ssl_mode,
        connect_timeout: url.connect_timeout,
        application_name: url.application_name,
    });
    Named { name, section, max_connections, server }
}

/// The pools of the file, and those that exist without being written.
fn pools(root: &Section<'_>, servers: &[Named<'_>], jobs: &Jobs, workers: &Workers) -> Vec<Pool> {
    let mut pools: Vec<Pool> =
        root.named("pools").iter().map(|(name, section)| pool(name, section, servers)).collect();
    let wanted =
        [(PRIMARY, true), ("jobs", *jobs != Jobs::default()), ("workers", *workers != Workers::default())];
    for (name, wanted) in wanted {
        // A server of that name without its pool is more likely forgotten than meant: see `unused_servers`.
        let forgotten = name != PRIMARY && servers.iter().any(|server| server.name == name);
        if wanted && !forgotten && !pools.iter().any(|pool| pool.name == name) {
            let servers = position(servers, PRIMARY).into_iter().collect();
            pools.push(Pool { name: name.to_owned(), servers, ..Pool::default() });
        }
    }
    unused_servers(servers, &pools);
    budgets(servers, &pools);
    pools
}

fn pool(name: &str, section: &Section<'_>, servers: &[Named<'_>]) -> Pool {
    let default = Pool::default();
    let duration = |key, default| section.duration(key, default, Duration::ZERO);
    let timeout = |key, default| section.duration(key, default, MILLISECOND);
    let pool = Pool {
        name: name.to_owned(),
        servers: pool_servers(name, section, servers),
        max_connections: section.count("max_connections", default.max_connections, &(1..=CONNECTIONS_MAX)),
        min_connections: section.count("min_connections", default.min_connections, &(0..=CONNECTIONS_MAX)),
        max_waiting: section.count("max_waiting", default.max_waiting, &(0..=1_000_000)),
        wait_timeout: timeout("wait_timeout", default.wait_timeout),
        idle_timeout: duration("idle_timeout", default.idle_timeout),
        max_lifetime: duration("max_lifetime", default.max_lifetime),
        connect_timeout: timeout("connect_timeout", default.connect_timeout),
        check_after: duration("check_after", default.check_after),
        close_timeout: timeout("close_timeout", default.close_timeout),
    };
    if pool.min_connections > pool.max_connections {
        let message = format!(
            "{} is more than max_connections, which is {}",
            pool.min_connections, pool.max_connections
        );
        section.problem(
            "min_connections",
            Wrong::new(message, format!("write at most {}", pool.max_connections)),
        );
    }
    pool
}

fn position(servers: &[Named<'_>], name: &str) -> Option<usize> {
    servers.iter().position(|server| server.name == name)
}

/// The servers that a pool names, or those it has by its own name.
fn pool_servers(name: &str, section: &Section<'_>, servers: &[Named<'_>]) -> Vec<usize> {
    if !section.has("servers") {
        return default_servers(name, section, servers);
    }
    let texts = section.texts("servers");
    let mut positions = Vec::new();
    for text in &texts {
        match position(servers, &text.value) {
            Some(position) if positions.contains(&position) => {
                let wrong =
                    Wrong::new(format!("{} is named twice", shown(&text.value)), "name each server once");
                section.problem_at(&text.at, "servers", wrong);
            }
            Some(position) => positions.push(position),
            None => section.problem_at(&text.at, "servers", no_server(&text.value, servers)),
        }
    }
    let only_primary = matches!(name, PRIMARY | "workers");
    if only_primary && texts.iter().any(|text| text.value != PRIMARY)
        || texts.len() != 1 && name != "replicas"
    {
        let (message, hint) = match name {
            _ if only_primary => {
                (format!("the pool {name} is always on the primary"), "servers = [\"primary\"]")
            }
            _ if texts.is_empty() => ("names no server".to_owned(), "servers = [\"primary\"]"),
            _ => ("only the pool replicas may have several servers".to_owned(), "one server"),
        };
        section.problem("servers", Wrong::new(message, format!("write {hint}")));
    } else if texts.is_empty() {
        section.problem("servers", Wrong::new("names no server", "write servers = [\"replica_1\"]"));
    }
    positions
}

fn default_servers(name: &str, section: &Section<'_>, servers: &[Named<'_>]) -> Vec<usize> {
    let replicas = || (0..servers.len()).filter(|&i| servers[i].name.starts_with("replica")).collect();
    let found: Vec<usize> = match name {
        PRIMARY | "workers" => position(servers, PRIMARY).into_iter().collect(),
        "jobs" => position(servers, "jobs").or_else(|| position(servers, PRIMARY)).into_iter().collect(),
        "replicas" => replicas(),
        _ => Vec::new(),
    };
    // Without a primary there is one problem, and it is reported already.
    if found.is_empty()
        && (position(servers, PRIMARY).is_some() || !matches!(name, PRIMARY | "workers" | "jobs"))
    {
        section.problem(
            "servers",
            Wrong::new("is missing", "write servers = [\"NAME\"] with a name of [servers.NAME]"),
        );
    }
    found
}

fn no_server(name: &str, servers: &[Named<'_>]) -> Wrong {
    let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
    let hint = match nearest(name, &names) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("add [servers.{name}], or name one of: {}", names.join(", ")),
    };
    Wrong::new(format!("no server is called {}", shown(name)), hint)
}

fn unused_servers(servers: &[Named<'_>], pools: &[Pool]) {
    for (position, server) in servers.iter().enumerate() {
        if server.name == PRIMARY || pools.iter().any(|pool| pool.servers.contains(&position)) {
            continue;
        }
        let pool = match server.name.as_str() {
            "jobs" => "jobs",
            name if name.starts_with("replica") => "replicas",
            _ => "NAME",
        };
        let hint = format!("add [pools.{pool}] with servers = [\"{}\"], or remove this server", server.name);
        server.section.report(Wrong::new("no pool uses this server", hint));
    }
}

/// A server's bound must hold all of its pools at their largest.
fn budgets(servers: &[Named<'_>], pools: &[Pool]) {
    for (position, server) in servers.iter().enumerate() {
        let Some(bound) = server.max_connections else { continue };
        let here = || pools.iter().filter(|pool| pool.servers.contains(&position));
        let sum: usize = here().map(|pool| pool.max_connections).sum();
        if sum > bound {
            let list: Vec<_> = here().map(|pool| format!("{} {}", pool.name, pool.max_connections)).collect();
            let message = format!("{bound} is less than its pools may open: {} = {sum}", list.join(" + "));
            let hint = format!("write max_connections = {sum}, or lower those of the pools");
            server.section.problem("max_connections", Wrong::new(message, hint));
        }
    }
}
