//! `bulkhead check --connect` against real servers, and against a real pooler in front of one.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use crate::support::{
    Cluster, Login, Postgres, Proxy, ProxyConfig, Role, Running, Scratch, connect, eventually, free_port,
    oban,
};

/// Exit code and output of `check --connect` with a configuration.
fn check(config: &ProxyConfig) -> (Option<i32>, String) {
    let folder = Scratch::new();
    let file = folder.path().join("bulkhead.toml");
    let text = config.to_toml().replace("{listen}", "127.0.0.1:6432").replace("{http}", "127.0.0.1:9930");
    fs::write(&file, text).expect("a writable folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    let output = command.arg("--config").arg(&file).args(["check", "--connect"]).output().expect("it runs");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(!text.contains("secret"), "{text}");
    (output.status.code(), text)
}

#[tokio::test]
async fn servers_that_fit_are_shown() {
    let cluster = Cluster::start();
    oban::install(&cluster.jobs).await;
    let (code, text) = check(&ProxyConfig::of(&cluster));
    assert_eq!(code, Some(0), "{text}");
    for (server, role) in [("primary ", "primary"), ("replica_1 ", "replica"), ("jobs ", "primary")] {
        let line =
            text.lines().find(|line| line.starts_with(server)).unwrap_or_else(|| panic!("{server}: {text}"));
        assert!(line.contains(role) && line.contains("11 of 97") && line.ends_with("nothing"), "{line}");
    }
}

#[tokio::test]
async fn what_does_not_fit_is_a_problem() {
    let cluster = Cluster::start();
    oban::install(&cluster.primary).await;
    cluster.jobs.query("ALTER ROLE app CONNECTION LIMIT 9").await;
    let config = ProxyConfig::of(&cluster)
        .pool("primary", &["primary"], 98)
        .set("servers.gone", "url", format!("postgres://app:secret@127.0.0.1:{}/app", free_port()))
        .pool("reports", &["gone"], 5);
    let (code, text) = check(&config);
    assert_eq!(code, Some(64), "{text}");
    for part in [
        "server \"primary\": its pools and the health check may open 99 connections, but it takes 97",
        "server \"jobs\": its pools and the health check may open 11 connections, but its user may have only 9",
        "server \"jobs\": job statements go there, but the job tables are on primary only",
        "server \"gone\": ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // The roles exchanged: a replica in place of the primary, and the other way round.
    let config = ProxyConfig::primary_only(&cluster.replica)
        .set("servers.replica_1", "url", cluster.primary.url(Login::App))
        .pool("replicas", &["replica_1"], 5);
    let (code, text) = check(&config);
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("takes no writes") && text.contains("follows no primary"), "{text}");
}

#[tokio::test]
async fn job_libraries_that_are_found_are_told_as_one_would_write_them() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary);
    let (code, text) = check(&config);
    assert_eq!((code, text.contains("presets")), (Some(0), false), "{text}");
    oban::install(&primary).await;
    let (code, text) = check(&config);
    let written = "[jobs]\npresets = [\"oban\"]\n\n[pools.primary]\nmax_connections = 8\n\n[pools.jobs]\nmax_connections = 2\n";
    assert!(code == Some(0) && text.contains(written), "{text}");
    let named = config.set("jobs", "presets", vec!["oban"]).pool("primary", &["primary"], 8).pool(
        "jobs",
        &["primary"],
        2,
    );
    let (code, text) = check(&named);
    assert_eq!((code, text.contains("presets")), (Some(0), false), "{text}");
}

/// PgBouncer, where it is installed or has been built for the benchmark.
fn pgbouncer() -> Option<PathBuf> {
    let built = PathBuf::from(env!("CARGO_BIN_EXE_bulkhead")).parent()?.parent()?.join("pgbouncer/pgbouncer");
    [built, PathBuf::from("/usr/sbin/pgbouncer")].into_iter().find(|path| path.exists())
}

fn start_pgbouncer(program: &Path, folder: &Path, server: &Postgres, mode: &str) -> (Running, u16) {
    let port = free_port();
    let users = folder.join("users.txt");
    fs::write(&users, "\"app\" \"secret\"\n").expect("a writable folder");
    let text = format!(
        "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = {mode}\n\
         ignore_startup_parameters = extra_float_digits\n",
        server.port(),
        users.display()
    );
    let file = folder.join(format!("{mode}.ini"));
    fs::write(&file, text).expect("a writable folder");
    let owner = crate::support::programs().owner;
    for path in [folder, &users, &file] {
        if let Some(owner) = owner {
            std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid)).expect("root may");
        }
    }
    let arguments = [file.to_str().expect("text")];
    let log = folder.join(format!("{mode}.log"));
    (Running::start(program, &arguments, &[], owner, &log).expect("it runs"), port)
}

#[tokio::test]
async fn a_pooler_in_front_of_a_server_is_seen() {
    let Some(program) = pgbouncer() else { return };
    let server = Postgres::start(Role::Primary);
    let folder = Scratch::new();
    for (mode, expected, shown) in [
        ("transaction", Some(64), "is behind a pooler in transaction mode"),
        ("session", Some(0), "something stands in between"),
    ] {
        let (_pooler, port) = start_pgbouncer(&program, folder.path(), &server, mode);
        let url = Login::App.url(port, "app");
        eventually("the pooler serves", Duration::from_secs(10), async || connect(&url).await.ok()).await;
        let config = ProxyConfig::primary_only(&server).set("servers.primary", "url", url.clone());
        let (code, text) = check(&config);
        assert_eq!(code, expected, "{mode}: {text}");
        assert!(text.contains(shown), "{mode}: {text}");
    }
}

/// What a start would refuse, a check finds; and what everybody on the machine can read.
#[test]
fn a_check_reads_the_users_file_and_looks_who_else_can() {
    let folder = Scratch::new();
    let (file, users) = (folder.path().join("bulkhead.toml"), folder.path().join("users"));
    let text = format!(
        "[listen]\naddress = \"127.0.0.1:0\"\nhttp = \"off\"\n[auth]\nusers_file = \"{}\"\n\
         [servers.primary]\nurl = \"postgres://app:secret@127.0.0.1:1/app\"\n",
        users.display()
    );
    let run = |text: &str, mode: u32, arguments: &[&str]| {
        fs::write(&file, text).expect("a writable folder");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("our own");
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
        let output = command.arg("--config").arg(&file).args(arguments).output().expect("it runs");
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("secret"), "{said}");
        (output.status.code(), said)
    };
    let (code, said) = run(&text, 0o600, &["check"]);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("cannot read the users file"), "{said}");
    fs::write(&users, "\"a\" \"secret\"\nnonsense\n\"a\" \"b\"\n").expect("a writable folder");
    let (code, said) = run(&text, 0o600, &["check"]);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains(":2: expected") && said.contains("already on line 1"), "{said}");
    let (_, refused) = run(&text, 0o600, &[]);
    assert!(refused.contains(":2: expected"), "a start says the same: {refused}");

    fs::write(&users, "\"a\" \"secret\"\n").expect("a writable folder");
    for (own, others, warned) in [(0o600, 0o600, 0), (0o644, 0o600, 1), (0o640, 0o604, 1), (0o644, 0o644, 2)]
    {
        fs::set_permissions(&users, fs::Permissions::from_mode(others)).expect("our own");
        let (code, said) = run(&text, own, &["check"]);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(said.matches("warning: everybody on this machine can read").count(), warned, "{said}");
    }
}

/// `bulkhead keys | head` ends quietly.
#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    let output = command.arg("keys").stdout(writer).stderr(Stdio::piped()).output();
    let output = output.expect("bulkhead runs");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Clients learn types from the primary: what is not the same there is listed.
#[tokio::test]
async fn types_that_are_not_the_primarys_are_listed() {
    let cluster = Cluster::start();
    for server in [&cluster.primary, &cluster.jobs] {
        oban::install(server).await;
        server.query("CREATE TYPE same AS ENUM ('a'); CREATE TYPE app_only_there AS (a int)").await;
    }
    cluster.primary.query("CREATE TYPE of_the_application AS ENUM ('a')").await;
    cluster.jobs.query("ALTER TYPE oban_job_state ADD VALUE 'suspended' AFTER 'available'").await;
    cluster.jobs.query("ALTER TYPE app_only_there ADD ATTRIBUTE b text; CREATE DOMAIN note AS text").await;
    let (code, text) = check(&ProxyConfig::of(&cluster));
    assert_eq!(code, Some(0), "{text}");
    for part in [
        "server \"jobs\": type public.oban_job_state has the labels 'available', 'suspended', 'scheduled'",
        "server \"jobs\": type public.app_only_there has the attributes a integer, b text, and a integer on the primary",
        "server \"jobs\": type public.note is missing on the primary",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("of_the_application") && !text.contains("same"), "{text}");
    // The same in the log of one that serves, once.
    let proxy = Proxy::start(&ProxyConfig::of(&cluster).to_toml());
    proxy.wait_for_log("types of the job database are not the primary's").await;
    let log = proxy.log();
    assert!(log.contains("type public.note is missing on the primary"), "{log}");
    assert_eq!(log.matches("types of the job database are not the primary's").count(), 1, "{log}");
}
