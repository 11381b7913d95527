//! PostgreSQL's own programs through the proxy: dump and restore, base backups, streams of WAL. All of them unmodified,
//! in transaction mode.

use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use crate::support::{Cluster, Postgres, Proxy, ProxyConfig, RawClient, Role, eventually, programs};

/// A program that logs in as `app`.
fn command(program: &str, port: u16) -> Command {
    let mut command = Command::new(programs().path(program));
    command
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", port.to_string())
        .env("PGUSER", "app")
        .env("PGPASSWORD", "secret")
        .env("PGCONNECT_TIMEOUT", "15");
    command
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", errors(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}

/// A server with `app` as a role that may replicate, and logical decoding.
async fn replicating() -> Postgres {
    let primary = Postgres::builder(Role::Primary).setting("wal_level", "logical").start();
    primary.query("ALTER ROLE app REPLICATION").await;
    primary
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_database_is_dumped_and_restored() {
    let cluster = Cluster::start();
    let primary = &cluster.primary;
    // The three jobs and their leader take all four: nothing that they do may pin more.
    let proxy = Proxy::start(&ProxyConfig::of(&cluster).pool("primary", &["primary"], 4).to_toml());
    let port = proxy.port();
    run(command("pgbench", port).args(["--initialize", "--scale=1", "--quiet", "--foreign-keys", "app"]));
    let mut client = RawClient::app(port).await;
    client.ask("CREATE TABLE odd (a text, b bytea); INSERT INTO odd VALUES (E'tab\\t\\\\ \"q\" \u{fc}', '\\x00ff')").await;
    client.ask("CREATE VIEW seen AS SELECT a FROM odd; CREATE SEQUENCE counted START 7").await;
    client.ask("SELECT lo_from_bytea(4711, '\\x0102')").await;
    primary.query("CREATE DATABASE copy_one OWNER app").await;
    primary.query("CREATE DATABASE copy_two OWNER app").await;

    let folder = tempfile::tempdir().expect("a folder");
    let (plain, parts) = (folder.path().join("plain.sql"), folder.path().join("parts"));
    run(command("pg_dump", port).args(["--file", text(&plain), "app"]));
    run(command("psql", port).args(["-q", "-X", "-v", "ON_ERROR_STOP=1", "-f", text(&plain), "copy_one"]));
    // Several connections that share one snapshot: all of them must be on one server.
    run(command("pg_dump", port).args(["--format=directory", "--jobs=3", "--file", text(&parts), "app"]));
    run(command("pg_restore", port).args(["--jobs=3", "--exit-on-error", "--dbname=copy_two", text(&parts)]));

    let direct = |database: &str| {
        let dump = run(command("pg_dump", primary.port()).arg(database));
        // Comments and the key of \restrict differ from run to run.
        let differs = |line: &&str| line.starts_with("--") || line.starts_with('\\');
        let lines: Vec<&str> = dump.lines().filter(|line| !differs(line)).collect();
        lines.join("\n")
    };
    let original = direct("app");
    assert!(original.contains("4711") && original.contains("counted"));
    // Too long to be shown.
    assert!(direct("copy_one") == original && direct("copy_two") == original, "the copies differ");
}

#[tokio::test]
async fn psql_copies_and_repeats() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&ProxyConfig::primary_only(&primary).to_toml());
    let folder = tempfile::tempdir().expect("a folder");
    let (file, image) = (folder.path().join("rows"), folder.path().join("image"));
    let script = format!(
        "CREATE TABLE watched (a int);\n\
         SELECT format('INSERT INTO watched VALUES (%s)', n) FROM generate_series(1, 50) n \\gexec\n\
         \\copy watched TO '{file}'\n\\copy watched FROM '{file}'\n\\copy (SELECT 1) TO stdout\n\
         SELECT 'rows ' || count(*) FROM watched;\n\
         \\lo_import '{file}'\n\\set image :LASTOID\n\\lo_export :image '{image}'\n\\lo_unlink :image\n",
        file = file.display(),
        image = image.display(),
    );
    let path = folder.path().join("script.sql");
    std::fs::write(&path, script).expect("the folder is writable");
    let told =
        run(command("psql", proxy.port()).args(["-X", "-v", "ON_ERROR_STOP=1", "-f", text(&path), "app"]));
    assert!(told.contains("rows 100"), "{told}");
    let read = |path: &Path| std::fs::read(path).expect("it was written");
    assert_eq!(read(&file), read(&image), "a large object, there and back");
}

/// `\\watch` goes on until its statement fails.
#[tokio::test]
async fn psql_watches() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&ProxyConfig::primary_only(&primary).to_toml());
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("script.sql");
    let script = "CREATE SEQUENCE times;\n\
                  SELECT 'quotient ' || 300 / (4 - nextval('times')) \\watch 0.05\n\
                  SELECT 'afterwards';\n";
    std::fs::write(&path, script).expect("the folder is writable");
    let told = run(command("psql", proxy.port()).args(["-X", "-f", text(&path), "app"]));
    for line in ["quotient 100", "quotient 150", "quotient 300", "afterwards"] {
        assert!(told.contains(line), "{line}: {told}");
    }
}

#[tokio::test]
async fn a_base_backup_is_taken_through_the_proxy() {
    let primary = replicating().await;
    primary.query("CREATE TABLE saved AS SELECT 42 AS answer").await;
    let config = ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 3);
    let proxy = Proxy::start(&config.set("pools.primary", "max_pinned", 2).to_toml());
    let folder = tempfile::tempdir().expect("a folder");
    for method in ["stream", "fetch"] {
        let target = folder.path().join(method);
        let wal = format!("--wal-method={method}");
        run(command("pg_basebackup", proxy.port()).args([
            "--checkpoint=fast",
            "--no-sync",
            &wal,
            "-D",
            text(&target),
        ]));
        run(Command::new(programs().path("pg_verifybackup")).arg(&target));
    }
    let replication = r#"bulkhead_pool_pinned{pool="primary",server="primary",reason="replication"}"#;
    proxy.wait_for_metric(replication, 0.0).await;
    // Without the right, it is the server that says so.
    primary.query("ALTER ROLE app NOREPLICATION").await;
    let target = folder.path().join("refused");
    let refused =
        command("pg_basebackup", proxy.port()).args(["-D", text(&target)]).output().expect("it runs");
    assert!(errors(&refused).contains("must be superuser or replication role"), "{}", errors(&refused));
}

#[tokio::test]
async fn streams_of_wal_are_counted_and_end_with_the_proxy() {
    let primary = replicating().await;
    let config = ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 3);
    let config = config.set("pools.primary", "max_pinned", 2).set("listen", "shutdown_grace", "5s");
    let proxy = Proxy::start(&config.to_toml());
    let folder = tempfile::tempdir().expect("a folder");
    let (wal, changes) = (folder.path().join("wal"), folder.path().join("changes"));
    std::fs::create_dir(&wal).expect("the folder is writable");
    let mut receive = command("pg_receivewal", proxy.port());
    receive.args(["--no-loop", "-D", text(&wal)]).stderr(Stdio::piped());
    let mut receiving = Killed(receive.spawn().expect("it runs"));
    run(command("pg_recvlogical", proxy.port()).args([
        "-d",
        "app",
        "-S",
        "s",
        "--create-slot",
        "-P",
        "test_decoding",
    ]));
    let mut decode = command("pg_recvlogical", proxy.port());
    decode
        .args(["-d", "app", "-S", "s", "--start", "--no-loop", "-F", "1", "-f", text(&changes)])
        .stderr(Stdio::piped());
    let mut decoding = Killed(decode.spawn().expect("it runs"));

    let replication = r#"bulkhead_pool_pinned{pool="primary",server="primary",reason="replication"}"#;
    proxy.wait_for_metric(replication, 2.0).await;
    let mut client = RawClient::app(proxy.port()).await;
    client.ask("CREATE TABLE told (a int)").await;
    client.ask("INSERT INTO told VALUES (4711)").await;
    eventually("the change is decoded", Duration::from_secs(15), async || {
        let decoded = std::fs::read_to_string(&changes).unwrap_or_default();
        decoded.contains("table public.told: INSERT: a[integer]:4711").then_some(())
    })
    .await;
    // The bound holds for them as well.
    let third = command("pg_receivewal", proxy.port())
        .args(["--no-loop", "-D", text(&wal)])
        .output()
        .expect("it runs");
    assert!(errors(&third).contains("has 2 pinned connections"), "{}", errors(&third));

    proxy.signal(rustix::process::Signal::TERM);
    for child in [&mut receiving, &mut decoding] {
        let status = child.0.wait().expect("it ends");
        assert!(!status.success());
        let mut said = String::new();
        std::io::Read::read_to_string(child.0.stderr.as_mut().expect("piped"), &mut said).expect("text");
        assert!(said.contains("terminating connection due to administrator command"), "{said}");
    }
    assert!(proxy.wait(Duration::from_secs(10)).success());
    eventually("no sender of WAL is left", Duration::from_secs(10), async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'";
        (primary.value(sql).await == "0").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_replication_command_can_be_cancelled() {
    let primary = replicating().await;
    let proxy = Proxy::start(&ProxyConfig::primary_only(&primary).to_toml());
    let mut client = RawClient::open(proxy.port()).await;
    client.startup(&[("user", "app"), ("database", "app"), ("replication", "database")]).await;
    assert_eq!(client.authenticate("app", "secret").await, None);
    assert_eq!(RawClient::tags(&client.ask("IDENTIFY_SYSTEM").await), "TDCZ");
    // With replication=database, SQL is understood too.
    client.query("SELECT pg_sleep(20)").await;
    eventually("it sleeps", Duration::from_secs(10), async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND backend_type = 'walsender'";
        (primary.value(sql).await == "1").then_some(())
    })
    .await;
    let (pid, secret) = client.key().clone();
    RawClient::cancel(proxy.port(), pid, &secret).await;
    assert_eq!(client.read_error().await.expect("cancelled")[0], "57014");
    client.terminate().await;
    eventually("no sender of WAL is left", Duration::from_secs(10), async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'";
        (primary.value(sql).await == "0").then_some(())
    })
    .await;
}
