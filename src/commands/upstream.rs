//! `bulkhead check --connect`: logs in to each server and compares what it finds with the configuration.
//!
//! Changes nothing at the servers. Each one has a bounded time, and all are asked at once.

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{task::JoinSet, time::timeout};

use crate::{
    backend::{Backend, Credentials, Identity, Server, search::connect},
    catalog::read_types,
    config::{Config, PRIMARY},
    socket::Socket,
    sql::{Catalog, Library, Rules},
    startup::{
        build::{rules, server_of},
        outbox::own_connections,
        reload::as_found,
    },
    threads::Home,
    types::{Known, drift},
};

/// Logging in and all questions to one server.
const SERVER_TIMEOUT: Duration = Duration::from_secs(15);
/// One login, unless the server's URL says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The limits of connections, as the server has them; `-1` stands for none.
const FACTS: &str = "SELECT pg_catalog.pg_backend_pid(), pg_catalog.current_setting('server_version'), \
 pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('max_connections'), \
 pg_catalog.current_setting('superuser_reserved_connections'), \
 coalesce(pg_catalog.current_setting('reserved_connections', true), '0'), \
 (SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname = current_user), \
 (SELECT datconnlimit FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()), \
 (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)";

/// May need a right that the user does not have.
const SYSTEM: &str = "SELECT system_identifier FROM pg_catalog.pg_control_system()";

/// Unqualified and qualified names of all tables.
const TABLES: &str = "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c \
 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
 WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')";

const PID: &str = "SELECT pg_catalog.pg_backend_pid()";

/// Everything that was found at the servers.
#[derive(Debug, Default)]
pub struct Report {
    /// A line for each server, aligned.
    pub table: String,
    /// A line for each thing that will not work.
    pub problems: Vec<String>,
    /// A line for each thing that may not work.
    pub warnings: Vec<String>,
    /// The primary's job libraries, as one would write them into a configuration that leaves them open.
    pub found: Option<String>,
}

/// The answers of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Facts {
    version: String,
    in_recovery: bool,
    max_connections: i64,
    reserved: i64,
    role_limit: i64,
    database_limit: i64,
    tls: bool,
    latency: Duration,
    system: Option<String>,
    /// Signs that the connection does not lead to the server itself.
    between: Between,
    /// The job tables that it has, by `schema.table`.
    job_tables: Vec<String>,
    /// The types that it has, if job statements may give them in the place of another server's.
    types: Known,
    libraries: Vec<Library>,
}

/// Something between Bulkhead and a server, as far as it shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Between {
    /// Nothing that can be seen.
    #[default]
    Nothing,
    /// Something that keeps each connection on one of the server's.
    Proxy(String),
    /// Something that does not.
    TransactionPooler(String),
}

/// Logs in to every server and compares what it finds with the configuration.
pub fn check(config: &Config) -> Result<Report, String> {
    let rules = rules(config).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error| error.to_string())?.block_on(ask_all(config, &rules)))
}

/// Asks all servers of the configuration.
async fn ask_all(config: &Config, rules: &Rules) -> Report {
    let numbers = Arc::default();
    let rules = Arc::new(rules.clone());
    let mut asked = JoinSet::new();
    for (at, server) in config.servers.iter().enumerate() {
        let limit = server.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        let server = server_of(server, &numbers, config.limits.tcp_user_timeout)
            .map(Arc::new)
            .map_err(|problem| problem.to_string());
        let rules = Arc::clone(&rules);
        let has_types = elsewhere(config).is_some_and(|(primary, jobs)| [primary, jobs].contains(&at));
        asked.spawn(async move {
            let server = match server {
                Ok(server) => server,
                Err(problem) => return (at, Err(problem)),
            };
            let found = timeout(SERVER_TIMEOUT, ask(&server, limit, &rules, has_types)).await;
            (at, found.unwrap_or_else(|_| Err(format!("no answer within {SERVER_TIMEOUT:?}"))))
        });
    }
    let mut found: Vec<Result<Facts, String>> = vec![Err("not asked".to_owned()); config.servers.len()];
    while let Some(joined) = asked.join_next().await {
        if let Ok((at, facts)) = joined {
            found[at] = facts;
        }
    }
    judge(config, &found)
}

// === Asking ===

async fn ask(server: &Arc<Server>, limit: Duration, rules: &Rules, has_types: bool) -> Result<Facts, String> {
    let (user, database) = (server.user.clone(), server.database.clone());
    let identity = Arc::new(Identity::new(database, user, Credentials::of_url()));
    let connect = async || {
        let connected = connect(server, &identity, Home(0), limit).await;
        connected.map_err(|error| error.to_string())
    };
    let mut backend = connect().await?;
    let started = Instant::now();
    let facts = rows_of(&mut backend, FACTS).await?;
    let latency = started.elapsed();
    let row = facts.first().ok_or("an answer without a row")?;
    let text = |at: usize| row.get(at).cloned().unwrap_or_default();
    let number = |at: usize| text(at).parse::<i64>().unwrap_or(-1);
    let superuser = text(8) == "t";
    let between = between(&mut backend, &text(0), connect).await;
    let system = rows_of(&mut backend, SYSTEM).await.ok().and_then(|rows| rows.into_iter().flatten().next());
    let tables = rows_of(&mut backend, TABLES).await?;
    let job_tables = tables
        .iter()
        .filter_map(|row| Some((row.first()?, row.get(1)?)))
        .filter(|(schema, table)| rules.is_job_table(schema, table))
        .map(|(schema, table)| format!("{schema}.{table}"))
        .collect();
    let types = if has_types { read_types(&mut backend).await? } else { Known::default() };
    let libraries = rows_of(&mut backend, Catalog::LIBRARIES).await?;
    let libraries = libraries.iter().filter_map(|row| Some((row.first()?, row.get(1)?)));
    let libraries = Catalog::from_rows(1, libraries).libraries().to_vec();
    Ok(Facts {
        libraries,
        version: text(1).split_whitespace().next().unwrap_or_default().to_owned(),
        in_recovery: text(2) == "t",
        max_connections: number(3),
        reserved: if superuser { 0 } else { number(4) + number(5) },
        role_limit: if superuser { -1 } else { number(6) },
        database_limit: if superuser { -1 } else { number(7) },
        tls: matches!(backend.socket, Socket::Tls(_)),
        latency,
        system,
        between,
        job_tables,
        types,
    })
}

/// Rows of a question whose names are those of PostgreSQL, whatever the server's settings say. Nothing is left behind:
/// there may be a pooler in between.
async fn rows_of(backend: &mut Backend, question: &str) -> Result<Vec<Vec<String>>, String> {
    let sql = format!(
        "BEGIN TRANSACTION READ ONLY;SET LOCAL search_path = pg_catalog, pg_temp;\
         SET LOCAL standard_conforming_strings = on;{question};COMMIT"
    );
    let found = rows(backend, &sql).await;
    if found.is_err() {
        rows(backend, "ROLLBACK").await?;
    }
    found
}

/// Rows as text; NULL is empty.
async fn rows(backend: &mut Backend, sql: &str) -> Result<Vec<Vec<String>>, String> {
    let answer = backend.ask(sql).await.map_err(|broken| broken.to_string())?;
    match answer.error {
        Some(error) => Err(error.to_string()),
        None => Ok(answer
            .rows
            .into_iter()
            .map(|row| row.into_iter().map(Option::unwrap_or_default).collect())
            .collect()),
    }
}

/// Looks for signs of a pooler. A pooler has a process id of its own for cancels, and one in transaction mode lends
/// the same server process to two open connections, or gives one connection another process while the first is busy.
async fn between<F>(one: &mut Backend, pid: &str, connect: F) -> Between
where
    F: AsyncFnOnce() -> Result<Box<Backend>, String>,
{
    let announced = one.cancel.process_id.to_string();
    let Ok(mut two) = connect().await else {
        return if announced == pid { Between::Nothing } else { Between::Proxy(other_pid(&announced, pid)) };
    };
    let pids = async {
        // Held: whoever lends processes out for a transaction cannot lend this one to the other connection.
        let begun = rows(&mut two, "BEGIN").await.and(rows(&mut two, PID).await)?;
        let during = rows(one, PID).await?;
        rows(&mut two, "ROLLBACK").await?;
        let pid = |rows: Vec<Vec<String>>| rows.into_iter().flatten().next().unwrap_or_default();
        Ok::<_, String>((pid(begun), pid(during)))
    };
    match pids.await {
        Ok((held, _)) if held == pid => Between::TransactionPooler(format!(
            "two open connections were served by the same server process ({pid})"
        )),
        Ok((_, during)) if during != pid => Between::TransactionPooler(format!(
            "one connection was served by two server processes ({pid}, then {during})"
        )),
        _ if announced != pid => Between::Proxy(other_pid(&announced, pid)),
        _ => Between::Nothing,
    }
}

fn other_pid(announced: &str, pid: &str) -> String {
    format!("the process id at login ({announced}) is not that of the server process ({pid})")
}

// === Judging ===

/// Compares what was found with the configuration. Pure.
fn judge(config: &Config, found: &[Result<Facts, String>]) -> Report {
    let mut report = Report::default();
    let primary = config.servers.iter().position(|server| server.name == PRIMARY);
    let primary = primary.and_then(|at| found[at].as_ref().ok());
    let mut lines = vec![
        ["server", "role", "version", "TLS", "latency", "connections", "between"].map(str::to_owned).to_vec(),
    ];
    for (at, (server, facts)) in config.servers.iter().zip(found).enumerate() {
        let here = || config.pools.iter().filter(|pool| pool.servers.contains(&at));
        let of_pools: i64 = here().map(|pool| pool.max_connections as i64).sum();
        // The health check has one, unless the server's bound leaves none.
        let of_all = of_pools + own_connections(config, at) as i64;
        let wanted = server.max_connections.map_or(of_all, |bound| (bound as i64).min(of_all));
        let facts = match facts {
            Ok(facts) => facts,
            Err(error) => {
                lines.push(
                    [&server.name, "-", "-", "-", "-", &format!("{wanted} of ?"), "-"]
                        .map(str::to_owned)
                        .to_vec(),
                );
                report.problems.push(format!("server \"{}\": {error}", server.name));
                continue;
            }
        };
        lines.push(line(&server.name, wanted, facts));
        let mut problem = |text: String| report.problems.push(format!("server \"{}\": {text}", server.name));
        for text in too_few(wanted, facts) {
            problem(text);
        }
        let is_replica = server.name != PRIMARY && here().any(|pool| pool.name == "replicas");
        if server.name == PRIMARY && facts.in_recovery {
            problem("is in recovery: it takes no writes".to_owned());
        }
        if is_replica && !facts.in_recovery {
            problem("is in the pool replicas and not in recovery: it follows no primary".to_owned());
        }
        if let Between::TransactionPooler(sign) = &facts.between {
            problem(format!(
                "is behind a pooler in transaction mode ({sign}): settings, prepared statements and locks would get \
                 lost; name the server itself in servers.{}.url, or set that pooler to session mode",
                server.name
            ));
        }
        if let Between::Proxy(sign) = &facts.between {
            report.warnings.push(format!(
                "server \"{}\": something stands in between ({sign}); it keeps connections apart, as it should",
                server.name
            ));
        }
        if let (true, Some(ours), Some(its)) =
            (is_replica, primary.and_then(|facts| facts.system.as_ref()), &facts.system)
            && ours != its
        {
            report.problems.push(format!(
                "server \"{}\": is no replica of the primary: its system identifier is {its}, the primary's {ours}",
                server.name
            ));
        }
    }
    jobs(config, found, &mut report);
    types(config, found, &mut report);
    report.found = primary.and_then(|facts| config.libraries_as_toml(&as_found(&facts.libraries)));
    report.table = align(&lines);
    report
}

fn line(name: &str, wanted: i64, facts: &Facts) -> Vec<String> {
    let free = facts.max_connections - facts.reserved;
    vec![
        name.to_owned(),
        if facts.in_recovery { "replica" } else { "primary" }.to_owned(),
        facts.version.clone(),
        if facts.tls { "yes" } else { "no" }.to_owned(),
        format!("{:.1} ms", facts.latency.as_secs_f64() * 1e3),
        format!("{wanted} of {free}"),
        match &facts.between {
            Between::Nothing => "nothing",
            Between::Proxy(_) => "a proxy",
            Between::TransactionPooler(_) => "a transaction pooler",
        }
        .to_owned(),
    ]
}

/// Bounds of the server that are below what the pools may open.
fn too_few(wanted: i64, facts: &Facts) -> Vec<String> {
    let Facts { max_connections, reserved, role_limit, database_limit, .. } = *facts;
    let mut found = Vec::new();
    if wanted > max_connections - reserved {
        found.push(format!(
            "its pools and the health check may open {wanted} connections, but it takes {} (max_connections {max_connections}, of which \
             {reserved} are reserved): lower pools.*.max_connections, or raise the server's",
            max_connections - reserved
        ));
    }
    for (limit, what) in [(role_limit, "its user"), (database_limit, "its database")] {
        if limit >= 0 && wanted > limit {
            found.push(format!("its pools and the health check may open {wanted} connections, but {what} may have only {limit}"));
        }
    }
    found
}

/// Whether the job tables are where job statements go.
fn jobs(config: &Config, found: &[Result<Facts, String>], report: &mut Report) {
    let Some(pool) = config.pools.iter().find(|pool| pool.name == "jobs") else { return };
    let at = pool.servers[0];
    let Ok(there) = &found[at] else { return };
    if !there.job_tables.is_empty() {
        return;
    }
    let name = &config.servers[at].name;
    let elsewhere: Vec<&str> = config
        .servers
        .iter()
        .zip(found)
        .filter(|(_, facts)| {
            facts.as_ref().is_ok_and(|facts| !facts.in_recovery && !facts.job_tables.is_empty())
        })
        .map(|(server, _)| server.name.as_str())
        .collect();
    if elsewhere.is_empty() {
        report.warnings.push(format!("server \"{name}\": has no job tables yet, nor has any other server"));
    } else {
        report.problems.push(format!(
            "server \"{name}\": job statements go there, but the job tables are on {} only: move them, or put \
             pools.jobs on that server",
            elsewhere.join(", ")
        ));
    }
}

/// The positions of the primary's server and of the jobs', if these are two.
fn elsewhere(config: &Config) -> Option<(usize, usize)> {
    let primary = config.servers.iter().position(|server| server.name == PRIMARY)?;
    let jobs = config.pools.iter().find(|pool| pool.name == "jobs")?.servers[0];
    (primary != jobs).then_some((primary, jobs))
}

/// Types of the job database that are not the primary's, from which clients learn them.
fn types(config: &Config, found: &[Result<Facts, String>], report: &mut Report) {
    let Some((primary, jobs)) = elsewhere(config) else { return };
    let (Ok(here), Ok(there)) = (&found[primary], &found[jobs]) else { return };
    let name = &config.servers[jobs].name;
    let lines = drift(&there.types, &here.types).into_iter().map(|line| format!("server \"{name}\": {line}"));
    report.warnings.extend(lines);
}

/// Columns of equal width.
fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut table = String::new();
    for line in lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(text, "{cell:width$}  ");
        }
        let _ = writeln!(table, "{}", text.trim_end());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[servers.primary]\nurl = \"postgres://u@h/d\"\n[servers.replica_1]\nurl = \"postgres://u@r/d\"\n\
        [servers.jobs]\nurl = \"postgres://u@j/d\"\n[pools.replicas]\n[pools.jobs]\n[jobs]\npresets = [\"oban\"]\n";

    fn facts(in_recovery: bool, job_tables: &[&str]) -> Facts {
        Facts {
            version: "15.1".to_owned(),
            in_recovery,
            max_connections: 100,
            reserved: 3,
            role_limit: -1,
            database_limit: -1,
            system: Some("7".to_owned()),
            job_tables: job_tables.iter().map(|name| (*name).to_owned()).collect(),
            ..Facts::default()
        }
    }

    /// Makes something wrong.
    type Change = fn(&mut [Facts; 3]);

    fn problems(found: [Facts; 3]) -> Vec<String> {
        let config = crate::config::parse(TEXT, "x", &|_| None, &["oban"]).expect("a valid text");
        judge(&config, &found.map(Ok)).problems
    }

    #[test]
    fn says_what_does_not_fit() {
        let jobs = || facts(false, &["public.oban_jobs"]);
        let well = || [facts(false, &[]), facts(true, &[]), jobs()];
        assert_eq!(problems(well()), Vec::<String>::new());
        let cases: [(Change, &str); 8] = [
            (|found| found[0].max_connections = 23, "21 connections, but it takes 20"),
            (|found| found[2].role_limit = 19, "but its user may have only 19"),
            (|found| found[2].database_limit = 5, "but its database may have only 5"),
            (|found| found[0].in_recovery = true, "it takes no writes"),
            (|found| found[1].in_recovery = false, "it follows no primary"),
            (|found| found[1].system = Some("8".to_owned()), "no replica of the primary"),
            (|found| found[1].between = Between::TransactionPooler("x".to_owned()), "transaction mode"),
            (|found| found.swap(0, 2), "the job tables are on primary only"),
        ];
        for (change, expected) in cases {
            let mut found = well();
            change(&mut found);
            let problems = problems(found);
            assert!(
                matches!(&problems[..], [problem] if problem.contains(expected)),
                "{expected}: {problems:?}"
            );
        }
    }
}
