//! What a new configuration changes: typed for those who carry it out, in words for the log.
//!
//! Pure. Refuses to show passwords, and to judge what can be changed while running except by name
//! ([`NEEDS_RESTART`]).

mod logs;
mod shown;

use super::{
    AcceptorSettings, Auth, Config, ConnectorSettings, Console, JobRules, Jobs, Limits, Listen, Metrics,
    Outbox, Pool, Reads, Server, Workers,
};

use shown::{hosts, list, optional, path, server_names, shown};

/// Keys that are read at the start only: sockets are bound, threads and shared statements' places are made once.
pub const NEEDS_RESTART: &[&str] = &[
    "listen.address",
    "listen.unix_socket_dir",
    "listen.unix_socket_mode",
    "listen.http",
    "listen.threads",
    "limits.prepared_bytes",
];

/// All that differs between two configurations. Empty if nothing does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// In the order of the file: servers and pools by their new places, those that are gone at the end.
    pub changes: Vec<Change>,
    lists_all: bool,
}

/// One difference. `Display` is a line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A key has another value.
    Key {
        /// The key as written in the file, such as `pools.jobs.max_connections`.
        key: String,
        /// The value until now.
        from: String,
        /// The value from now on.
        to: String,
    },
    /// The URL of a server has another password.
    Password {
        /// The server's name.
        server: String,
    },
    /// A key that is a secret, and this one's name, has another value, or none any more.
    Secret(&'static str),
    /// A server is at another address: as if it were another server.
    Moved {
        /// The server's name.
        server: String,
        /// Host and port until now.
        from: String,
        /// Host and port from now on.
        to: String,
    },
    /// A server is new.
    ServerAdded {
        /// The name in the file.
        server: String,
        /// Host and port.
        at: String,
    },
    /// A server is gone.
    ServerRemoved {
        /// The name in the file.
        server: String,
    },
    /// A pool is new.
    PoolAdded {
        /// The name in the file.
        pool: String,
        /// The servers' names.
        servers: Vec<String>,
        /// The bound of connections on each server.
        max_connections: usize,
    },
    /// A pool is gone.
    PoolRemoved {
        /// The name in the file.
        pool: String,
    },
}

impl Diff {
    /// The changes that make `new` of `old`.
    pub fn of(old: &Config, new: &Config) -> Self {
        Self::compare(old, new, false)
    }

    fn compare(old: &Config, new: &Config, lists_all: bool) -> Self {
        let mut diff = Self { lists_all, ..Self::default() };
        diff.keys("", &[("databases", list(&old.databases), list(&new.databases))]);
        diff.listen(&old.listen, &new.listen);
        diff.limits(&old.limits, &new.limits);
        diff.auth(&old.auth, &new.auth);
        diff.jobs(&old.jobs, &new.jobs);
        diff.workers(&old.workers, &new.workers);
        diff.console(&old.console, &new.console);
        diff.statistics(&old.statistics, &new.statistics);
        diff.log(&old.log, &new.log);
        diff.metrics(&old.metrics, &new.metrics);
        diff.servers(old, new);
        diff.pools(old, new);
        diff
    }

    /// Every key of a configuration that is no secret, and its value, as changes are told.
    pub fn values(config: &Config) -> Vec<(String, String)> {
        let key = |change| match change {
            Change::Key { key, to, .. } => Some((key, to)),
            _ => None,
        };
        Self::compare(config, config, true).changes.into_iter().filter_map(key).collect()
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes that only a restart can make.
    pub fn needs_restart(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(
            |change| matches!(change, Change::Key { key, .. } if NEEDS_RESTART.contains(&key.as_str())),
        )
    }

    /// Compares values that are shown as they are.
    fn keys(&mut self, section: &str, values: &[(&str, String, String)]) {
        for (key, from, to) in values {
            if from != to || self.lists_all {
                let key = if section.is_empty() { (*key).to_owned() } else { format!("{section}.{key}") };
                self.changes.push(Change::Key { key, from: from.clone(), to: to.clone() });
            }
        }
    }

    // Each section is taken apart as a whole: a key that is added and forgotten here does not compile.

    fn listen(&mut self, old: &Listen, new: &Listen) {
        let show = |listen: &Listen| {
            let Listen {
                address,
                unix_socket_dir,
                unix_socket_mode,
                http,
                http_token: _,
                threads,
                shutdown_grace,
                tls: _,
            } = listen;
            let http = http.map_or_else(|| "off".to_owned(), |address| address.to_string());
            let dir =
                unix_socket_dir.as_ref().map_or_else(|| "none".to_owned(), |dir| dir.display().to_string());
            let mode = format!("{unix_socket_mode:04o}");
            [address.to_string(), dir, mode, http, threads.to_string(), shown(shutdown_grace)]
        };
        let keys = ["address", "unix_socket_dir", "unix_socket_mode", "http", "threads", "shutdown_grace"];
        self.section("listen", keys, show(old), show(new));
        if old.http_token != new.http_token {
            self.changes.push(Change::Secret("listen.http_token"));
        }
        let show = |settings: &AcceptorSettings| {
            let AcceptorSettings { mode, certificate, key, client_ca, client_certificates } = settings;
            [
                shown(mode),
                path(certificate.as_ref()),
                path(key.as_ref()),
                path(client_ca.as_ref()),
                shown(client_certificates),
            ]
        };
        let names = ["mode", "certificate", "key", "client_ca", "client_certificates"];
        self.section("listen.tls", names, show(&old.tls), show(&new.tls));
    }

    fn limits(&mut self, old: &Limits, new: &Limits) {
        let show = |limits: &Limits| {
            let Limits {
                max_clients,
                login_timeout,
                orphan_timeout,
                request_buffer,
                request_buffer_total,
                statement_bytes,
                verdict_cache,
                prepared_per_client,
                prepared_bytes_per_client,
                prepared_bytes,
                prepared_per_backend,
                settings_per_client,
                catalog_refresh,
                notifications_per_client,
                tcp_user_timeout,
                listen_on_gap,
            } = limits;
            [
                max_clients.to_string(),
                shown(login_timeout),
                shown(orphan_timeout),
                format!("{request_buffer}B"),
                format!("{request_buffer_total}B"),
                format!("{statement_bytes}B"),
                verdict_cache.to_string(),
                prepared_per_client.to_string(),
                format!("{prepared_bytes_per_client}B"),
                format!("{prepared_bytes}B"),
                prepared_per_backend.to_string(),
                format!("{settings_per_client}B"),
                shown(catalog_refresh),
                format!("{notifications_per_client}B"),
                shown(tcp_user_timeout),
                listen_on_gap.name().to_owned(),
            ]
        };
        let names = [
            "max_clients",
            "login_timeout",
            "orphan_timeout",
            "request_buffer",
            "request_buffer_total",
            "statement_bytes",
            "verdict_cache",
            "prepared_per_client",
            "prepared_bytes_per_client",
            "prepared_bytes",
            "prepared_per_backend",
            "settings_per_client",
            "catalog_refresh",
            "notifications_per_client",
            "tcp_user_timeout",
            "listen_on_gap",
        ];
        self.section("limits", names, show(old), show(new));
    }

    fn auth(&mut self, old: &Auth, new: &Auth) {
        let show = |Auth { method, users_file, reprove_after }: &Auth| {
            [method.name().to_owned(), path(users_file.as_ref()), shown(reprove_after)]
        };
        self.section("auth", ["method", "users_file", "reprove_after"], show(old), show(new));
    }

    fn jobs(&mut self, old: &Jobs, new: &Jobs) {
        let ddl = |Jobs { ddl_on_both, .. }: &Jobs| [if *ddl_on_both { "both" } else { "jobs" }.to_owned()];
        self.section("jobs", ["ddl"], ddl(old), ddl(new));
        let show = |Jobs { auto: _, presets, schemas, rules, ddl_on_both: _, outbox: _ }: &Jobs| {
            let JobRules { schemas: rule_schemas, tables, functions, channels } = rules;
            [presets, schemas, rule_schemas, tables, functions, channels].map(|texts| list(texts))
        };
        let names =
            ["presets", "schemas", "rules.schemas", "rules.tables", "rules.functions", "rules.channels"];
        self.section("jobs", names, show(old), show(new));
        let show = |Outbox { enabled, batch, poll, keep }: &Outbox| {
            [enabled.to_string(), batch.to_string(), shown(poll), shown(keep)]
        };
        let names = ["outbox", "outbox_batch", "outbox_poll", "outbox_keep"];
        self.section("jobs", names, show(&old.outbox), show(&new.outbox));
    }

    fn workers(&mut self, old: &Workers, new: &Workers) {
        let show = |workers: &Workers| {
            let Workers { application_names, users, comment_tags, job_window } = workers;
            [list(application_names), list(users), list(comment_tags.patterns()), shown(job_window)]
        };
        let names = ["application_names", "users", "comment_tags", "job_window"];
        self.section("workers", names, show(old), show(new));
    }

    fn console(&mut self, old: &Console, new: &Console) {
        let show = |console: &Console| {
            let Console { databases, admin_users, stats_users, max_clients, pause_timeout, like } = console;
            let [databases, admins, stats] = [databases, admin_users, stats_users].map(|texts| list(texts));
            let like = like.name().to_owned();
            [databases, admins, stats, max_clients.to_string(), shown(pause_timeout), like]
        };
        let names =
            ["databases", "admin_users", "stats_users", "max_clients", "pause_timeout", "pgbouncer_version"];
        self.section("console", names, show(old), show(new));
    }

    fn metrics(&mut self, old: &Metrics, new: &Metrics) {
        let show = |Metrics { pgbouncer_names }: &Metrics| [pgbouncer_names.to_string()];
        self.section("metrics", ["pgbouncer_names"], show(old), show(new));
    }

    fn servers(&mut self, old: &Config, new: &Config) {
        for server in &new.servers {
            match old.servers.iter().find(|other| other.name == server.name) {
                Some(before) => self.server(before, server),
                None => self
                    .changes
                    .push(Change::ServerAdded { server: server.name.clone(), at: hosts(&server.hosts) }),
            }
        }
        let gone = |server: &&Server| !new.servers.iter().any(|other| other.name == server.name);
        let removed = old.servers.iter().filter(gone);
        self.changes.extend(removed.map(|server| Change::ServerRemoved { server: server.name.clone() }));
    }

    fn server(&mut self, old: &Server, new: &Server) {
        let Server {
            name,
            hosts: places,
            session_attrs,
            user,
            password,
            database,
            max_connections,
            weight,
            tls,
            connect_timeout,
            application_name,
            require_auth,
        } = new;
        if old.hosts != *places {
            let (from, to) = (hosts(&old.hosts), hosts(places));
            self.changes.push(Change::Moved { server: name.clone(), from, to });
        }
        if old.password != *password {
            self.changes.push(Change::Password { server: name.clone() });
        }
        let section = format!("servers.{name}");
        self.server_tls(&section, &old.tls, tls);
        self.keys(
            &section,
            &[
                (
                    "url (target_session_attrs)",
                    old.session_attrs.name().to_owned(),
                    session_attrs.name().to_owned(),
                ),
                ("url (user)", shown(&old.user), shown(user)),
                ("url (database)", shown(&old.database), shown(database)),
                (
                    "url (connect_timeout)",
                    optional(old.connect_timeout.as_ref()),
                    optional(connect_timeout.as_ref()),
                ),
                (
                    "url (application_name)",
                    optional(old.application_name.as_ref()),
                    optional(application_name.as_ref()),
                ),
                ("url (require_auth)", old.require_auth.to_string(), require_auth.to_string()),
                ("weight", old.weight.to_string(), weight.to_string()),
                (
                    "max_connections",
                    optional(old.max_connections.as_ref()),
                    optional(max_connections.as_ref()),
                ),
            ],
        );
    }

    fn server_tls(&mut self, section: &str, old: &ConnectorSettings, new: &ConnectorSettings) {
        let show = |settings: &ConnectorSettings| {
            let ConnectorSettings { mode, roots, certificate, key, negotiation, channel_binding } = settings;
            let (certificate, key) = (path(certificate.as_ref()), path(key.as_ref()));
            [
                shown(mode),
                optional(roots.as_ref()),
                certificate,
                key,
                shown(negotiation),
                shown(channel_binding),
            ]
        };
        let names = [
            "url (sslmode)",
            "url (sslrootcert)",
            "url (sslcert)",
            "url (sslkey)",
            "url (sslnegotiation)",
            "url (channel_binding)",
        ];
        self.section(section, names, show(old), show(new));
    }

    fn pools(&mut self, old: &Config, new: &Config) {
        for pool in &new.pools {
            match old.pools.iter().find(|other| other.name == pool.name) {
                Some(before) => self.pool((before, old), (pool, new)),
                None => self.changes.push(Change::PoolAdded {
                    pool: pool.name.clone(),
                    servers: server_names(pool, new),
                    max_connections: pool.max_connections,
                }),
            }
        }
        let gone = |pool: &&Pool| !new.pools.iter().any(|other| other.name == pool.name);
        let removed = old.pools.iter().filter(gone);
        self.changes.extend(removed.map(|pool| Change::PoolRemoved { pool: pool.name.clone() }));
    }

    fn pool(&mut self, (old, old_config): (&Pool, &Config), (new, new_config): (&Pool, &Config)) {
        let show = |pool: &Pool, config: &Config| {
            let Pool {
                name: _,
                servers: _,
                max_connections,
                min_connections,
                max_waiting,
                wait_timeout,
                idle_timeout,
                max_lifetime,
                connect_timeout,
                check_after,
                close_timeout,
                mode,
                max_pinned,
                pinned_idle_timeout,
                reads: _,
            } = pool;
            let [max, min, waiting, pinned] =
                [max_connections, min_connections, max_waiting, max_pinned].map(usize::to_string);
            let durations = [
                wait_timeout,
                idle_timeout,
                max_lifetime,
                connect_timeout,
                check_after,
                close_timeout,
                pinned_idle_timeout,
            ];
            let [wait, idle, lifetime, connect, check, close, pinned_idle] = durations.map(shown);
            [
                list(&server_names(pool, config)),
                max,
                min,
                waiting,
                wait,
                idle,
                lifetime,
                connect,
                check,
                close,
                format!("{mode:?}").to_lowercase(),
                pinned,
                pinned_idle,
            ]
        };
        let names = [
            "servers",
            "max_connections",
            "min_connections",
            "max_waiting",
            "wait_timeout",
            "idle_timeout",
            "max_lifetime",
            "connect_timeout",
            "check_after",
            "close_timeout",
            "mode",
            "max_pinned",
            "pinned_idle_timeout",
        ];
        let section = format!("pools.{}", new.name);
        self.section(&section, names, show(old, old_config), show(new, new_config));
        self.reads(&section, old.reads, new.reads);
    }

    fn reads(&mut self, section: &str, old: Reads, new: Reads) {
        let show = |reads: Reads| {
            let Reads { consistency, causal_wait, sample_interval, max_lag, max_lag_bytes } = reads;
            let [wait, interval, lag] =
                [causal_wait, sample_interval, max_lag].map(|duration| shown(&duration));
            [consistency.name().to_owned(), wait, interval, lag, max_lag_bytes.to_string()]
        };
        let names = ["consistency", "causal_wait", "sample_interval", "max_lag", "max_lag_bytes"];
        self.section(section, names, show(old), show(new));
    }

    fn section<const N: usize>(
        &mut self,
        section: &str,
        names: [&str; N],
        old: [String; N],
        new: [String; N],
    ) {
        let values: Vec<_> =
            names.into_iter().zip(old).zip(new).map(|((name, from), to)| (name, from, to)).collect();
        self.keys(section, &values);
    }
}

#[cfg(test)]
mod tests;
