//! What values must be, or had better be, beside each other.
//!
//! Owns the combinations that cannot work, which are refused, and those in which a value has no effect or does something
//! else than it says, which are warned of. Speaks only of what the file writes: two defaults always fit. Values by
//! themselves, and the budgets of servers, are looked at where they are read.

use std::time::Duration;

use super::{
    Config, Limits, Listen, PRIMARY, Pool, Server,
    file::Section,
    problem::{Wrong, shown_size},
};

/// A notification with the longest payload and channel that a server takes, and its header.
const NOTIFICATION_BYTES: usize = 8192;

/// Below this a peer is not looked at often enough to tell that it is silent.
const TCP_USER_TIMEOUT_LEAST: Duration = Duration::from_millis(1500);

/// Looks at all of it. `root` is what `config` was read from.
pub(super) fn check(root: &Section<'_>, config: &Config) {
    limits(&root.any_section("limits"), config);
    listen(&root.any_section("listen"), &config.listen);
    let jobs = root.any_section("jobs");
    if !config.jobs.schemas.is_empty() && config.jobs.presets.is_empty() && !config.jobs.auto {
        warn(
            &jobs,
            "schemas",
            "has no meaning without presets",
            "name presets, or write [jobs.rules] schemas",
        );
    }
    outbox(&jobs, config);
    let pools = root.any_section("pools");
    for one in &config.pools {
        pool(&pools.any_section(&one.name), one, config);
    }
    servers(&root.any_section("servers"), &config.servers);
}

/// Jobs that are enqueued on the primary need another server to go to.
fn outbox(jobs: &Section<'_>, config: &Config) {
    if !config.jobs.outbox.enabled {
        return;
    }
    let server = |name: &str| {
        let pool = config.pools.iter().find(|pool| pool.name == name)?;
        pool.servers.first().copied()
    };
    if server("jobs").is_none() || server("jobs") == server(PRIMARY) {
        let message = "needs pools.jobs on another server than pools.primary: on the same one, jobs are enqueued in \
                       any transaction anyway";
        let hint = "write [servers.jobs] with the job database's url, or leave outbox out";
        jobs.problem("outbox", Wrong::new(message, hint));
    }
    if config.jobs.presets.is_empty() {
        let hint = "write presets = [\"oban\"], or others: what is found at a server (\"auto\") is not installed by itself";
        jobs.problem("outbox", Wrong::new("needs presets by name", hint));
    }
}

fn warn(section: &Section<'_>, key: &str, message: impl Into<String>, hint: impl Into<String>) {
    section.warn(key, Wrong::new(message, hint));
}

fn limits(section: &Section<'_>, config: &Config) {
    let Limits {
        max_clients: _,
        login_timeout: _,
        request_buffer,
        request_buffer_total,
        statement_bytes,
        prepared_per_client: _,
        prepared_bytes_per_client,
        prepared_bytes: _,
        prepared_per_backend: _,
        verdict_cache: _,
        settings_per_client: _,
        catalog_refresh: _,
        notifications_per_client,
        tcp_user_timeout,
        orphan_timeout: _,
        listen_on_gap: _,
    } = config.limits;
    if request_buffer > request_buffer_total {
        let key = if section.has("request_buffer_total") { "request_buffer_total" } else { "request_buffer" };
        let message = format!(
            "one request may take {} (request_buffer), but all together only {} (request_buffer_total)",
            shown_size(request_buffer),
            shown_size(request_buffer_total)
        );
        let hint = format!("write request_buffer_total = \"{}\" or more", shown_size(request_buffer));
        section.problem(key, Wrong::new(message, hint));
    }
    if section.has("statement_bytes") && statement_bytes > request_buffer {
        let message = format!(
            "no statement of {} is ever classified: above request_buffer, which is {}, they stream through",
            shown_size(statement_bytes),
            shown_size(request_buffer)
        );
        let hint = format!("write at most \"{}\", or raise request_buffer", shown_size(request_buffer));
        section.problem("statement_bytes", Wrong::new(message, hint));
    }
    if notifications_per_client < NOTIFICATION_BYTES {
        let message = "is less than a single notification may take: its listener would be disconnected";
        let hint = format!("write \"{}\" or more", shown_size(NOTIFICATION_BYTES));
        section.problem("notifications_per_client", Wrong::new(message, hint));
    }
    if section.has("prepared_bytes_per_client") && prepared_bytes_per_client > request_buffer_total {
        let message = format!("is more than request_buffer_total, {}", shown_size(request_buffer_total));
        warn(section, "prepared_bytes_per_client", message, "write less: every client may take as much");
    }
    if !tcp_user_timeout.is_zero() && tcp_user_timeout < TCP_USER_TIMEOUT_LEAST {
        let message = format!("peers are looked at too seldom for that: it takes {TCP_USER_TIMEOUT_LEAST:?}");
        warn(section, "tcp_user_timeout", message, "write \"2s\" or more");
    }
    beside_pools(section, config);
}

/// Limits that pools make useless.
fn beside_pools(section: &Section<'_>, config: &Config) {
    let Limits { max_clients, login_timeout, .. } = config.limits;
    let primary = config.pools.iter().find(|pool| pool.name == PRIMARY);
    let waits = primary.map(|pool| pool.wait_timeout.max(pool.connect_timeout)).unwrap_or_default();
    if section.has("login_timeout") && login_timeout < waits {
        let message = format!(
            "a login that waits for the server, for up to {waits:?}, is cut off without a word before that"
        );
        warn(
            section,
            "login_timeout",
            message,
            "write more than wait_timeout and connect_timeout of pools.primary",
        );
    }
    let largest = config.pools.iter().map(|pool| pool.max_connections).max().unwrap_or_default();
    if section.has("max_clients") && max_clients < largest {
        let message =
            format!("fewer clients than a pool has connections ({largest}): they cannot all be used");
        warn(section, "max_clients", message, "raise it, or lower pools.*.max_connections");
    }
}

fn listen(section: &Section<'_>, listen: &Listen) {
    let usual = Listen::default().unix_socket_mode;
    if listen.unix_socket_mode != usual && listen.unix_socket_dir.is_none() {
        warn(
            section,
            "unix_socket_mode",
            "has no meaning without unix_socket_dir",
            "leave it out, or name a directory",
        );
    }
}

fn pool(section: &Section<'_>, pool: &Pool, config: &Config) {
    let Pool { wait_timeout, connect_timeout, idle_timeout, max_lifetime, check_after, .. } = *pool;
    if section.has("connect_timeout") && connect_timeout > wait_timeout {
        let message = format!(
            "{connect_timeout:?} is more than anybody waits (wait_timeout, {wait_timeout:?}): who waits for an attempt to \
             connect is refused before it is over, and of several hosts only those are tried that fit in there"
        );
        warn(section, "connect_timeout", message, "write less than wait_timeout");
    }
    let of_urls = pool.servers.iter().filter_map(|at| config.servers.get(*at));
    for server in of_urls.filter(|server| server.connect_timeout.is_some()) {
        if section.has("connect_timeout") {
            let message = format!("has no effect at servers.{}: its URL has a connect_timeout", server.name);
            warn(section, "connect_timeout", message, "write one of them");
        }
    }
    let login_timeout = config.limits.login_timeout;
    if section.has("wait_timeout") && pool.name == PRIMARY && wait_timeout > login_timeout {
        let message = format!(
            "a login that waits for the server is cut off without a word after limits.login_timeout, {login_timeout:?}"
        );
        warn(section, "wait_timeout", message, "raise limits.login_timeout above it");
    }
    let limited = |limit: Duration| !limit.is_zero();
    if section.has("idle_timeout")
        && limited(idle_timeout)
        && limited(max_lifetime)
        && idle_timeout >= max_lifetime
    {
        let message =
            format!("has no effect: connections are closed at the age of {max_lifetime:?} (max_lifetime)");
        warn(section, "idle_timeout", message, "write less than max_lifetime");
    }
    let ends = [(idle_timeout, "idle_timeout"), (max_lifetime, "max_lifetime")];
    let end = ends.into_iter().filter(|(limit, _)| limited(*limit)).min();
    if let Some((limit, key)) = end
        && section.has("check_after")
        && check_after >= limit
    {
        let message = format!("nothing is ever checked: connections are closed after {limit:?} ({key})");
        warn(section, "check_after", message, format!("write less than {key}"));
    }
    if section.has("max_waiting") && pool.max_waiting > config.limits.max_clients {
        let message = format!("so many cannot wait: limits.max_clients is {}", config.limits.max_clients);
        warn(section, "max_waiting", message, "write less than limits.max_clients");
    }
    if pool.min_connections > config.limits.max_clients {
        let message =
            format!("more than there may be clients (limits.max_clients, {})", config.limits.max_clients);
        warn(section, "min_connections", message, "write less");
    }
    if pool.max_pinned == 0 && limited(pool.pinned_idle_timeout) {
        let message = "nobody is pinned by intent: max_pinned is 0";
        warn(section, "pinned_idle_timeout", message, "it is of use for pins that are seen too late only");
    }
}

/// Two names for the same place are two budgets for one server.
fn servers(section: &Section<'_>, servers: &[Server]) {
    for (at, server) in servers.iter().enumerate() {
        let same = |other: &&Server| {
            other.hosts == server.hosts
                && other.database == server.database
                && other.session_attrs == server.session_attrs
        };
        if let Some(other) = servers[..at].iter().find(same) {
            let message = format!("is the same database at the same address as servers.{}", other.name);
            let hint = "its connections come on top of the others': put the pool on that server instead";
            warn(&section.any_section(&server.name), "url", message, hint);
        }
    }
}
