//! Who may use the console, and that it takes no place from anybody.

use std::process::Command;

use super::{Site, done, refused, table};
use crate::support::{Login, RawClient, Scratch, error_of, programs};

async fn login(port: u16, login: Login, database: &str) -> Result<RawClient, [String; 2]> {
    let tried = RawClient::try_login(port, login, &[("database", database)]).await;
    tried.map_err(|error| [error.field(b'C').unwrap_or_default(), error.field(b'M').unwrap_or_default()])
}

#[tokio::test]
async fn stats_users_may_look_and_others_may_not() {
    let site = Site::start();
    let port = site.proxy.port();
    for database in ["bulkhead", "pgbouncer"] {
        let mut looks = login(port, Login::AppTwo, database).await.expect("a stats user");
        assert!(!table(&mut looks, "SHOW POOLS").await.rows.is_empty());
        for sql in [
            "PAUSE",
            "RESUME primary",
            "KILL jobs",
            "RELOAD",
            "SHUTDOWN",
            "SET limits.max_clients = 1",
            "KILL_CLIENT 1",
            "RECONNECT",
            "WAIT_CLOSE",
            "DISABLE jobs",
            "ENABLE jobs",
        ] {
            let [code, message, hint] = refused(&mut looks, sql).await;
            assert_eq!(code, "42501", "{sql}: {message}");
            assert!(hint.contains("admin_users"), "{hint}");
        }
        assert_eq!(done(&mut looks, "SET extra_float_digits = 3").await, "SET");
        let [code, message] = login(port, Login::Md5, database).await.err().expect("no console user");
        assert_eq!(code, "42501", "{message}");
    }
    // The password is asked for before anything else is said.
    let mut wrong = RawClient::open(port).await;
    wrong.startup(&[("user", "app"), ("database", "pgbouncer")]).await;
    let error = wrong.authenticate("app", "wrong").await.expect("a wrong password");
    assert_eq!(error.field(b'C').as_deref(), Some("28P01"));
    // Nothing has changed.
    let mut client = site.client().await;
    assert_eq!(client.query_value("SELECT 1").await, "1");
}

#[tokio::test]
async fn a_full_house_locks_no_operator_out() {
    let site =
        Site::start_with(|config| config.set("limits", "max_clients", 3).set("console", "max_clients", 2));
    let port = site.proxy.port();
    let mut inside = Vec::new();
    while let Ok(client) = login(port, Login::App, "app").await {
        inside.push(client);
        assert!(inside.len() <= 3, "limits.max_clients is 3");
    }
    let (mut first, _second) = (site.console().await, site.console().await);
    let lists = table(&mut first, "SHOW LISTS").await;
    assert_eq!(lists.value(&[("list", "used_clients")], "items"), inside.len().to_string());
    let [code, message] = login(port, Login::App, "pgbouncer").await.err().expect("only two consoles");
    assert_eq!(code, "53300", "{message}");
    drop(first);
    // Its place is free once it is gone.
    crate::support::eventually("a place is free", std::time::Duration::from_secs(5), async || {
        login(port, Login::App, "pgbouncer").await.ok()
    })
    .await;
}

/// Over the Unix socket the operating system's user that Bulkhead runs as needs no password, on the console.
#[tokio::test]
async fn the_process_own_user_is_let_in_on_the_unix_socket() {
    let folder = Scratch::new();
    let dir = folder.path().display().to_string();
    let site = Site::start_with(|config| config.set("listen", "unix_socket_dir", dir.clone()));
    // The socket is there, and so is the proxy's port in its name.
    let psql = |host: &str, user: &str, database: &str, sql: &str| {
        let port = site.proxy.port().to_string();
        let output = Command::new(programs().path("psql"))
            .args(["-X", "-w", "-At", "-h", host, "-p", &port, "-U", user, "-d", database, "-c", sql])
            .env_remove("PGPASSWORD")
            .output()
            .expect("psql runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    for user in ["bulkhead", "pgbouncer"] {
        let (ok, text) = psql(&dir, user, "pgbouncer", "RELOAD");
        assert!(ok && text.contains("RELOAD"), "{text}");
        // By TCP a password is asked for, and on a database of clients' it is nobody.
        for (host, database) in [("127.0.0.1", "pgbouncer"), (dir.as_str(), "app")] {
            let (ok, text) = psql(host, user, database, "SELECT 1");
            assert!(!ok && text.contains("password"), "{text}");
        }
    }
    let (ok, text) = psql(&dir, "app_two", "pgbouncer", "SHOW VERSION");
    assert!(!ok && text.contains("password"), "{text}");
}

#[tokio::test]
async fn the_console_can_be_elsewhere_or_nowhere() {
    let site = Site::start_with(|config| config.set("console", "databases", vec!["office"]));
    let port = site.proxy.port();
    site.cluster.primary.query("CREATE DATABASE pgbouncer OWNER app").await;
    let mut office = login(port, Login::App, "office").await.expect("the console");
    table(&mut office, "SHOW VERSION").await;
    // A database like any other.
    let mut real = login(port, Login::App, "pgbouncer").await.expect("a database");
    assert_eq!(real.query_value("SELECT current_database()").await, "pgbouncer");
    assert!(error_of(&real.ask("SHOW POOLS").await).is_some());
}
