//! Makes a text into a [`Config`], or lists all that is wrong with it.
//!
//! Owns the bounds of each value and how values must fit together. Refuses to read files or to connect.

use std::{net::SocketAddr, ops::RangeInclusive, time::Duration};

use toml::de::DeTable;

use super::{
    AcceptorSettings, Auth, AuthMethod, ClientCertificates, ClientMode, Config, Console, JobRules, Jobs,
    Limits, Listen, ListenOnGap, Log, LogFormat, LogLevel, Metrics, Outbox, PgBouncer, Secret, Server,
    Statistics, Tags, Workers,
    expand::Environment,
    file::{Located, Section},
    fits,
    keys::nearest,
    pools::pools,
    problem::{Problems, Report, Wrong, shown},
    servers::{MILLISECOND, servers},
};

/// What Linux takes for the address of a Unix socket (`sun_path`), without the zero at its end.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The length of a bearer token: one that can be guessed is none.
const HTTP_TOKEN_CHARACTERS: RangeInclusive<usize> = 16..=256;

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
    // The first error counts: those behind it are mostly its echo.
    if let Some(error) = errors.first() {
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
        Some(config) => {
            let (config, warnings) = report.finish(file, config)?;
            Ok(Config { warnings, ..config })
        }
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
    let console = console(&root.section("console", "console"));
    let statistics = statistics(&root.section("statistics", "statistics"));
    let log = log(&root.section("log", "log"));
    let metrics = metrics(&root.section("metrics", "metrics"));
    let servers = servers(root);
    let pools = pools(root, &servers, &jobs, &workers);
    let servers: Option<Vec<Server>> = servers.into_iter().map(|named| named.server).collect();
    let warnings = Problems::default();
    let config = Config {
        listen,
        limits,
        auth,
        servers: servers?,
        pools,
        jobs,
        workers,
        databases,
        console,
        statistics,
        log,
        metrics,
        warnings,
    };
    fits::check(root, &config);
    Some(config)
}

fn listen(section: &Section<'_>) -> Listen {
    let default = Listen::default();
    let listen = Listen {
        address: section.parsed("address", default.address, address),
        unix_socket_dir: section.path_of_file("unix_socket_dir"),
        unix_socket_mode: section.parsed("unix_socket_mode", default.unix_socket_mode, mode),
        http: section.parsed("http", default.http, |text| match text {
            "off" => Ok(None),
            _ => address(text).map(Some),
        }),
        http_token: section.parsed("http_token", default.http_token, |text| http_token(text).map(Some)),
        threads: section.count("threads", default.threads, &(1..=256)),
        shutdown_grace: section.duration("shutdown_grace", default.shutdown_grace, Duration::ZERO),
        tls: client_tls(&section.section("tls", "listen.tls")),
    };
    if let Some(dir) = &listen.unix_socket_dir {
        let length = dir.as_os_str().len() + "/.s.PGSQL.65535".len();
        if length > SOCKET_PATH_BYTES_MAX && !dir.as_os_str().is_empty() {
            let longest = SOCKET_PATH_BYTES_MAX - "/.s.PGSQL.65535".len();
            let hint = format!("write the path of a directory in at most {longest} bytes");
            section.problem("unix_socket_dir", Wrong::new("is too long for a socket's address", hint));
        }
    }
    if listen.http == Some(listen.address) && listen.address.port() != 0 {
        let message = format!("{} is the address for Postgres clients already", listen.address);
        section.problem("http", Wrong::new(message, "write another port, or \"off\""));
    }
    listen
}

/// A bearer token. What is wrong is said without it.
fn http_token(text: &str) -> Result<Secret, Wrong> {
    let is_fit =
        HTTP_TOKEN_CHARACTERS.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    let (least, most) = (HTTP_TOKEN_CHARACTERS.start(), HTTP_TOKEN_CHARACTERS.end());
    if is_fit {
        return Ok(Secret::new(text));
    }
    Err(Wrong::new(
        format!("is no token of {least} to {most} letters, digits and signs"),
        "write \"${BULKHEAD_HTTP_TOKEN}\", and set that to the output of: openssl rand -hex 32",
    ))
}

fn client_tls(section: &Section<'_>) -> AcceptorSettings {
    let certificate = section.path_of_file("certificate");
    let key = section.path_of_file("key");
    let client_ca = section.path_of_file("client_ca");
    let usual = if certificate.is_some() { ClientMode::Prefer } else { ClientMode::Disable };
    let mode = section.parsed("mode", usual, |text| match text {
        "disable" => Ok(ClientMode::Disable),
        "allow" | "prefer" => Ok(ClientMode::Prefer),
        "require" => Ok(ClientMode::Require),
        "verify-ca" | "verify-full" => Err(Wrong::new(
            format!("{} is not a mode here", shown(text)),
            "write mode = \"require\", client_ca = \"FILE\" and client_certificates = \"require\"",
        )),
        _ => Err(Wrong::new(
            format!("{} is not a mode", shown(text)),
            "write \"disable\", \"allow\", \"prefer\" or \"require\"",
        )),
    });
    let client_certificates =
        section.parsed("client_certificates", ClientCertificates::Optional, |text| match text {
            "optional" => Ok(ClientCertificates::Optional),
            "require" => Ok(ClientCertificates::Require),
            _ => Err(Wrong::new(
                format!("{} is neither \"optional\" nor \"require\"", shown(text)),
                "write \"optional\" (a certificate that is shown must be valid) or \"require\"",
            )),
        });
    match (&certificate, &key) {
        (Some(_), None) => section
            .problem("key", Wrong::new("is missing", "write key = \"FILE\", the certificate's private key")),
        (None, Some(_)) => {
            section.problem("certificate", Wrong::new("is missing", "write certificate = \"FILE\""));
        }
        (None, None) if mode != ClientMode::Disable => {
            let hint = "write certificate = \"FILE\" and key = \"FILE\", or mode = \"disable\"";
            section.problem("mode", Wrong::new("TLS needs a certificate", hint));
        }
        _ => {}
    }
    if client_certificates == ClientCertificates::Require && client_ca.is_none() {
        let hint = "write client_ca = \"FILE\", the authorities of clients' certificates";
        section
            .problem("client_certificates", Wrong::new("no authority is named that would sign them", hint));
    }
    if client_certificates == ClientCertificates::Require && mode != ClientMode::Require {
        let hint = "write mode = \"require\": a client without TLS shows no certificate";
        section.problem("client_certificates", Wrong::new("clients may still come without TLS", hint));
    }
    AcceptorSettings { mode, certificate, key, client_ca, client_certificates }
}

/// Permissions as `chmod` takes them.
fn mode(text: &str) -> Result<u32, Wrong> {
    let octal = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && !text.starts_with('+'));
    octal.ok_or_else(|| {
        Wrong::new(
            format!("{} is not a mode", shown(text)),
            "write it in octal: \"0777\" for everybody, \"0770\" for user and group, \"0700\" for the user",
        )
    })
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
        orphan_timeout: section.duration("orphan_timeout", default.orphan_timeout, MILLISECOND),
        request_buffer: section.size("request_buffer", default.request_buffer, &bytes),
        request_buffer_total: section.size(
            "request_buffer_total",
            default.request_buffer_total,
            &(1 << 16..=1 << 40),
        ),
        statement_bytes: section.size("statement_bytes", default.statement_bytes, &bytes),
        verdict_cache: section.count("verdict_cache", default.verdict_cache, &count),
        prepared_per_client: section.count("prepared_per_client", default.prepared_per_client, &count),
        prepared_bytes_per_client: section.size(
            "prepared_bytes_per_client",
            default.prepared_bytes_per_client,
            &bytes,
        ),
        prepared_bytes: section.size("prepared_bytes", default.prepared_bytes, &bytes),
        prepared_per_backend: section.count("prepared_per_backend", default.prepared_per_backend, &count),
        settings_per_client: section.size("settings_per_client", default.settings_per_client, &bytes),
        catalog_refresh: section.duration("catalog_refresh", default.catalog_refresh, second),
        notifications_per_client: section.size(
            "notifications_per_client",
            default.notifications_per_client,
            &bytes,
        ),
        tcp_user_timeout: section.duration("tcp_user_timeout", default.tcp_user_timeout, Duration::ZERO),
        listen_on_gap: section.parsed("listen_on_gap", default.listen_on_gap, |text| match text {
            "disconnect" => Ok(ListenOnGap::Disconnect),
            "warn" => Ok(ListenOnGap::Warn),
            _ => Err(Wrong::new(format!("{} is neither", shown(text)), "write \"disconnect\" or \"warn\"")),
        }),
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
        reprove_after: section.duration("reprove_after", default.reprove_after, Duration::ZERO),
    }
}

fn statistics(section: &Section<'_>) -> Statistics {
    let default = Statistics::default();
    Statistics {
        queries: section.count("queries", default.queries, &(0..=100_000)),
        query_bytes: section.size("query_bytes", default.query_bytes, &(64..=64 << 10)),
        slow_statement: section.duration("slow_statement", default.slow_statement, Duration::ZERO),
        slow_statements: section.count("slow_statements", default.slow_statements, &(0..=10_000)),
    }
}

fn log(section: &Section<'_>) -> Log {
    let default = Log::default();
    let level = |text: &str| {
        LogLevel::ALL.into_iter().find(|level| level.name() == text).ok_or_else(|| {
            let hint = "write \"error\", \"warn\", \"info\", \"debug\" or \"trace\"";
            Wrong::new(format!("{} is not a level", shown(text)), hint)
        })
    };
    let format = |text: &str| match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(Wrong::new(format!("{} is neither", shown(text)), "write \"text\" or \"json\"")),
    };
    Log {
        level: section.parsed("level", default.level, level),
        format: section.parsed("format", default.format, format),
        slow_statement: section.duration("slow_statement", default.slow_statement, Duration::ZERO),
        slow_sample_percent: section.count("slow_sample_percent", default.slow_sample_percent, &(0..=100)),
        slow_values: section.flag("slow_values", default.slow_values),
    }
}

fn values(texts: Vec<Located<String>>) -> Vec<String> {
    texts.into_iter().map(|text| text.value).collect()
}

/// In place of the names of presets: those of the libraries that are found.
const AUTO: &str = "auto";

fn jobs(section: &Section<'_>, known: &[&str]) -> Jobs {
    let presets = if section.is_list("presets") || !section.has("presets") {
        section.texts("presets")
    } else {
        section.text("presets").into_iter().collect()
    };
    let auto = !section.has("presets") || presets.iter().any(|preset| preset.value == AUTO);
    if let Some(preset) = presets.iter().find(|preset| preset.value == AUTO)
        && presets.len() > 1
    {
        let wrong =
            Wrong::new("\"auto\" stands alone: it is all that are found", "write \"auto\" or the names");
        section.problem_at(&preset.at, "presets", wrong);
    }
    let presets: Vec<_> = presets.into_iter().filter(|preset| preset.value != AUTO).collect();
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
        auto,
        presets: values(presets),
        schemas: values(section.texts("schemas")),
        rules: JobRules {
            schemas: values(rules.texts("schemas")),
            tables: values(rules.texts("tables")),
            functions: values(rules.texts("functions")),
            channels: values(rules.texts("channels")),
        },
        ddl_on_both: section.parsed("ddl", outbox(section).enabled, ddl),
        outbox: outbox(section),
    }
}

fn ddl(text: &str) -> Result<bool, Wrong> {
    match text {
        "both" => Ok(true),
        "jobs" => Ok(false),
        _ => Err(Wrong::new(
            format!("{} is no place for definitions", shown(text)),
            "write \"both\" or \"jobs\"",
        )),
    }
}

fn outbox(section: &Section<'_>) -> Outbox {
    let default = Outbox::default();
    Outbox {
        enabled: section.flag("outbox", default.enabled),
        batch: section.count("outbox_batch", default.batch, &(1..=100_000)),
        poll: section.duration("outbox_poll", default.poll, Duration::from_millis(10)),
        keep: section.duration("outbox_keep", default.keep, Duration::from_secs(60)),
    }
}

fn workers(section: &Section<'_>) -> Workers {
    let default = Workers::default();
    let tags = section.texts("comment_tags");
    for tag in &tags {
        if let Err(pattern) = Tags::new(std::slice::from_ref(&tag.value)) {
            let message = format!("{} is no tag", shown(&pattern));
            section.problem_at(
                &tag.at,
                "comment_tags",
                Wrong::new(message, "write KEY=VALUE, such as \"job=*\""),
            );
        }
    }
    Workers {
        application_names: values(section.texts("application_names")),
        users: values(section.texts("users")),
        comment_tags: Tags::new(&values(tags)).unwrap_or_default(),
        job_window: section.duration("job_window", default.job_window, Duration::ZERO),
    }
}

fn console(section: &Section<'_>) -> Console {
    let default = Console::default();
    let databases = section.texts("databases");
    for database in databases.iter().filter(|database| database.value.contains(['*', '?'])) {
        let message = format!("{} is no name of a database", shown(&database.value));
        let hint = "write the names that are the console, or [] for none";
        section.problem_at(&database.at, "databases", Wrong::new(message, hint));
    }
    Console {
        databases: if section.has("databases") { values(databases) } else { default.databases },
        admin_users: values(section.texts("admin_users")),
        stats_users: values(section.texts("stats_users")),
        max_clients: section.count("max_clients", default.max_clients, &(1..=100)),
        pause_timeout: section.duration("pause_timeout", default.pause_timeout, MILLISECOND),
        like: section.parsed("pgbouncer_version", default.like, pgbouncer_version),
    }
}

fn pgbouncer_version(text: &str) -> Result<PgBouncer, Wrong> {
    let known = PgBouncer::ALL.into_iter().find(|version| version.name() == text);
    known.ok_or_else(|| {
        Wrong::new(
            format!("{} is no version whose columns the console has", shown(text)),
            "write \"1.25\" or \"1.26\"",
        )
    })
}

fn metrics(section: &Section<'_>) -> Metrics {
    let default = Metrics::default();
    Metrics { pgbouncer_names: section.flag("pgbouncer_names", default.pgbouncer_names) }
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
