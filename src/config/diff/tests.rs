//! What a reload says of two configurations.

use super::*;

const BASE: &str = r#"
    [servers.primary]
    url = "postgres://app:SECRET@db:5432/app"
    [servers.replica_1]
    url = "postgres://app:SECRET@r1:5432/app"
    [pools.primary]
    [pools.replicas]
    [jobs]
    presets = ["oban"]
"#;

fn config(text: &str) -> Config {
    super::super::parse(text, "test", &|_| None, &["oban", "solid_queue"])
        .unwrap_or_else(|problems| panic!("{problems}"))
}

/// The lines for the base with some of its text replaced.
fn lines(replace: &str, with: &str) -> Vec<String> {
    assert!(BASE.contains(replace), "{replace}");
    let diff = Diff::of(&config(BASE), &config(&BASE.replacen(replace, with, 1)));
    diff.changes.iter().map(Change::to_string).collect()
}

#[test]
fn equal_configurations_do_not_differ() {
    assert!(Diff::of(&config(BASE), &config(BASE)).is_empty());
    // Another order is no other configuration, nor is a default that is written out.
    let same = BASE
        .replace("[pools.primary]\n", "")
        .replace("[jobs]", "[limits]\nmax_clients = 10000\n[pools.primary]\nmax_connections = 20\n[jobs]");
    assert_eq!(Diff::of(&config(BASE), &config(&same)), Diff::default());
}

#[test]
fn each_change_is_a_line() {
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "[pools.primary]",
            "[pools.primary]\nmax_connections = 8\nwait_timeout = \"500ms\"",
            &[
                "pools.primary.max_connections: 20 -> 8",
                "pools.primary.wait_timeout: 5s -> 500ms",
                "pools.primary.max_pinned: 15 -> 6",
            ],
        ),
        ("app:SECRET@db", "app:OTHER@db", &["servers.primary.url: another password"]),
        ("app:SECRET@db", "new:SECRET@db", &["servers.primary.url (user): \"app\" -> \"new\""]),
        ("@r1:5432", "@r2:5433", &["servers.replica_1: moved from r1:5432 to r2:5433"]),
        (
            "[pools.primary]",
            "[servers.replica_2]\nurl = \"postgres://app@[::1]/app\"\n[pools.primary]",
            &[
                "servers.replica_2: added, at [::1]:5432",
                "pools.replicas.servers: [\"replica_1\"] -> [\"replica_1\", \"replica_2\"]",
            ],
        ),
        (
            "[pools.primary]",
            "[pools.batch]\nservers = [\"primary\"]\nmax_connections = 3",
            &["pools.batch: added, up to 3 connections to [\"primary\"]"],
        ),
        (
            "presets = [\"oban\"]",
            "presets = [\"solid_queue\"]\nrules.tables = [\"x_*\"]",
            &["jobs.presets: [\"oban\"] -> [\"solid_queue\"]", "jobs.rules.tables: [] -> [\"x_*\"]"],
        ),
        ("[jobs]\n    presets = [\"oban\"]", "", &["jobs.presets: [\"oban\"] -> []", "pools.jobs: removed"]),
        (
            "[jobs]",
            "[workers]\nusers = [\"w\"]\n[jobs]",
            &["workers.users: [] -> [\"w\"]", "pools.workers: added, up to 20 connections to [\"primary\"]"],
        ),
        (
            "[jobs]",
            "[auth]\nmethod = \"md5\"\nusers_file = \"u.txt\"\n[jobs]",
            &["auth.method: scram-sha-256 -> md5", "auth.users_file: none -> u.txt"],
        ),
        (
            "[jobs]",
            "[limits]\nmax_clients = 5\nrequest_buffer = \"2MiB\"\n[jobs]",
            &["limits.max_clients: 10000 -> 5", "limits.request_buffer: 1048576B -> 2097152B"],
        ),
        (
            "\n    [servers.primary]",
            "databases = [\"app\"]\n[servers.primary]\nmax_connections = 99",
            &["databases: [\"*\"] -> [\"app\"]", "servers.primary.max_connections: none -> 99"],
        ),
    ];
    for (replace, with, expected) in cases {
        assert_eq!(lines(replace, with), *expected, "{replace} -> {with}");
    }
}

#[test]
fn a_server_and_its_pool_are_removed() {
    let small = BASE
        .replace("[servers.replica_1]\n", "")
        .replace("        url = \"postgres://app:SECRET@r1:5432/app\"\n", "")
        .replace("[pools.replicas]", "");
    let diff = Diff::of(&config(BASE), &config(&small));
    let lines: Vec<_> = diff.changes.iter().map(Change::to_string).collect();
    assert_eq!(lines, ["servers.replica_1: removed", "pools.replicas: removed"]);
    assert!(
        Diff::of(&config(&small), &config(BASE))
            .changes
            .iter()
            .any(|change| { matches!(change, Change::PoolAdded { pool, .. } if pool == "replicas") })
    );
}

#[test]
fn what_needs_a_restart_is_named() {
    let new = format!(
        "[listen]\naddress = \"127.0.0.1:7000\"\nunix_socket_dir = \"/run\"\nunix_socket_mode = \"0700\"\nhttp = \"off\"\nthreads = 99\nshutdown_grace = \"1s\"\n[limits]\nprepared_bytes = \"1MiB\"\n{BASE}"
    );
    let diff = Diff::of(&config(BASE), &config(&new));
    let names: Vec<_> = diff
        .needs_restart()
        .map(|change| match change {
            Change::Key { key, .. } => key.as_str(),
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(names, NEEDS_RESTART);
    assert_eq!(diff.changes.len(), 7, "shutdown_grace changes live");
}

#[test]
fn passwords_are_never_shown() {
    let new = BASE.replace("SECRET", "CONFIDENTIAL");
    let diff = Diff::of(&config(BASE), &config(&new));
    assert_eq!(diff.changes.len(), 2);
    let shown = format!("{diff:?} {}", diff.changes.iter().map(Change::to_string).collect::<String>());
    assert!(!shown.contains("SECRET") && !shown.contains("CONFIDENTIAL"), "{shown}");
}
