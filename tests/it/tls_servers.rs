//! TLS between Bulkhead and its servers: every `sslmode`, and each thing that can be wrong, told clearly at both ends.

use std::{fs, process::Command, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};

use crate::support::{Certificates, Login, Postgres, Proxy, RawClient, Role, eventually};

/// A proxy whose server's URL has these parameters, and gives up soon.
fn proxy(login: Login, host: &str, port: u16, parameters: &str) -> Proxy {
    proxy_with(login, host, port, parameters, &[])
}

fn proxy_with(login: Login, host: &str, port: u16, parameters: &str, environment: &[(&str, &str)]) -> Proxy {
    let url = login.url(port, "app").replace("127.0.0.1", host);
    let config = format!(
        "[listen]\naddress = \"{{listen}}\"\nhttp = \"{{http}}\"\n[servers.primary]\nurl = \"{url}?{parameters}\"\n\
         [pools.primary]\nwait_timeout = \"1s\"\n"
    );
    Proxy::start_with(&config, environment)
}

/// Whether the server sees TLS; or the error that the client gets.
async fn is_encrypted(proxy: &Proxy, login: Login) -> Result<String, String> {
    let (user, password) = login.credentials();
    let mut client = RawClient::open(proxy.port()).await;
    client.startup(&[("user", user), ("database", "app")]).await;
    if let Some(error) = client.authenticate(user, password).await {
        let field = |name| error.field(name).unwrap_or_default();
        return Err(format!("{} {} {}", field(b'C'), field(b'M'), field(b'H')));
    }
    Ok(client.query_value("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sslmode_does_what_it_does_in_libpq() {
    let certificates = Certificates::new();
    let both = Postgres::builder(Role::Primary).tls(&certificates).start();
    let only = Postgres::builder(Role::Primary).tls(&certificates).only_tls().start();
    let without = Postgres::start(Role::Primary);
    let ca = certificates.crt("ca");
    // Encrypted at a server that takes both; at one that insists; at one that has none.
    let cases = [
        ("sslmode=disable".to_owned(), [Some("f"), None, Some("f")]),
        ("sslmode=allow".to_owned(), [Some("f"), Some("t"), Some("f")]),
        (String::new(), [Some("t"), Some("t"), Some("f")]),
        ("sslmode=require".to_owned(), [Some("t"), Some("t"), None]),
        (format!("sslmode=verify-ca&sslrootcert={ca}"), [Some("t"), Some("t"), None]),
        (
            format!("sslmode=verify-full&sslrootcert={ca}&channel_binding=require"),
            [Some("t"), Some("t"), None],
        ),
        ("channel_binding=require".to_owned(), [Some("t"), Some("t"), None]),
    ];
    // While some wait in vain, the next ones start.
    let mut asked = JoinSet::new();
    for (parameters, expected) in cases {
        for (server, expected) in [&both, &only, &without].into_iter().zip(expected) {
            let proxy = proxy(Login::App, "127.0.0.1", server.port(), &parameters);
            let parameters = parameters.clone();
            asked.spawn(async move {
                let seen = is_encrypted(&proxy, Login::App).await;
                (proxy, seen, parameters, expected)
            });
        }
    }
    while let Some(asked) = asked.join_next().await {
        let (_proxy, seen, parameters, expected) = asked.expect("it is answered");
        match expected {
            Some(expected) => assert_eq!(seen.as_deref(), Ok(expected), "{parameters}"),
            None => drop(seen.expect_err(&parameters)),
        }
    }
    // The refusal of a server that insists, at both ends.
    let plain = proxy(Login::App, "127.0.0.1", only.port(), "sslmode=disable");
    let error = is_encrypted(&plain, Login::App).await.expect_err("not encrypted");
    assert!(
        error.contains("no encryption") && error.contains("sslmode=require in servers.primary.url"),
        "{error}"
    );
    plain.wait_for_log("no encryption").await;
    // md5 over TLS.
    let md5 = proxy(Login::Md5, "localhost", only.port(), &format!("sslmode=verify-full&sslrootcert={ca}"));
    assert_eq!(is_encrypted(&md5, Login::Md5).await.as_deref(), Ok("t"));
    let bound = proxy(Login::Md5, "localhost", only.port(), "sslmode=require&channel_binding=require");
    let error = is_encrypted(&bound, Login::Md5).await.expect_err("md5 cannot be bound");
    assert!(error.contains("channel_binding=require"), "{error}");
}

/// Lets the server show another certificate.
async fn show(server: &Postgres, certificates: &Certificates, name: &str) {
    for kind in ["crt", "key"] {
        let path = certificates.certificate(name).with_extension(kind);
        // Written over: owner and mode stay.
        fs::write(certificates.certificate("good").with_extension(kind), fs::read(path).expect("there"))
            .expect("ours");
    }
    server.query("SELECT pg_reload_conf()").await;
    let expected = fs::read(certificates.certificate(name)).expect("there");
    let shown = |port: u16| {
        let output = Command::new("openssl")
            .args(["s_client", "-starttls", "postgres", "-connect", &format!("127.0.0.1:{port}")])
            .stdin(std::process::Stdio::null())
            .output()
            .expect("openssl runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let line = String::from_utf8(expected).expect("text").lines().nth(1).expect("base64").to_owned();
    eventually("the server shows the certificate", Duration::from_secs(10), async || {
        shown(server.port()).contains(&line).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_wrong_certificate_is_named_at_both_ends() {
    let certificates = Certificates::new();
    let server = Postgres::builder(Role::Primary).tls(&certificates).only_tls().start();
    let ca = certificates.crt("ca");
    let full = format!("sslmode=verify-full&sslrootcert={ca}");
    let wrong_ca = format!("sslmode=verify-ca&sslrootcert={}", certificates.crt("other_ca"));
    let cases = [
        ("good", &wrong_ca, "not signed by an authority of sslrootcert="),
        ("wrong_host", &full, "is for db.example.com, not for \\\"localhost\\\""),
        ("expired", &full, "expired on"),
        ("future", &full, "is not valid before"),
        ("stranger", &full, "not signed by an authority of sslrootcert="),
    ];
    for (name, parameters, what) in cases {
        show(&server, &certificates, name).await;
        let proxy = proxy(Login::App, "localhost", server.port(), parameters);
        let error = is_encrypted(&proxy, Login::App).await.expect_err(name);
        assert!(error.starts_with("08006"), "{name}: {error}");
        assert!(error.contains(&what.replace('\\', "")), "{name}: {error}");
        eventually(what, Duration::from_secs(5), async || {
            proxy.log().replace('\\', "").contains(&what.replace('\\', "")).then_some(())
        })
        .await;
        // Who does not verify takes it, and verify-ca does not look at the name.
        if name == "wrong_host" {
            let weaker = self::proxy(
                Login::App,
                "localhost",
                server.port(),
                &format!("sslmode=verify-ca&sslrootcert={ca}"),
            );
            assert_eq!(is_encrypted(&weaker, Login::App).await.as_deref(), Ok("t"));
        }
    }
}

#[tokio::test]
async fn a_server_that_has_no_tls_or_speaks_something_else_is_told_apart() {
    let without = Postgres::start(Role::Primary);
    let none = proxy(Login::App, "127.0.0.1", without.port(), "sslmode=require");
    let error = is_encrypted(&none, Login::App).await.expect_err("no TLS");
    assert!(error.contains("does not offer TLS"), "{error}");

    // One that says yes and then talks nonsense, one that says neither, and one that says too much.
    for (answer, what) in [
        (&b"S"[..], "is not TLS"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "neither S nor N"),
        (b"Sand more", "before the TLS handshake"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 8];
                let _ = stream.read_exact(&mut request).await;
                let _ = stream.write_all(answer).await;
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(b"this is no handshake at all").await;
                let _ = stream.read(&mut [0; 1024]).await;
            }
        });
        let proxy = proxy(Login::App, "127.0.0.1", port, "sslmode=require");
        let error = is_encrypted(&proxy, Login::App).await.expect_err(what);
        assert!(error.contains(what), "{error}");
        proxy.wait_for_log(what).await;
        task.abort();
    }
}

#[tokio::test]
async fn direct_negotiation_is_clear_about_old_servers() {
    let certificates = Certificates::new();
    let server = Postgres::builder(Role::Primary).tls(&certificates).start();
    let proxy = proxy(Login::App, "127.0.0.1", server.port(), "sslmode=require&sslnegotiation=direct");
    // PostgreSQL 17 and later take it; those before hang up.
    match is_encrypted(&proxy, Login::App).await {
        Ok(encrypted) => assert_eq!(encrypted, "t"),
        Err(error) => assert!(error.contains("TLS"), "{error}"),
    }
}

#[tokio::test]
async fn our_certificate_opens_servers_that_ask_for_one() {
    let certificates = Certificates::new();
    let server = Postgres::builder(Role::Primary).tls(&certificates).only_client_certificates().start();
    let own = |name: &str| {
        format!("sslmode=require&sslcert={}&sslkey={}", certificates.crt(name), certificates.pem_key(name))
    };
    let right = proxy(Login::App, "127.0.0.1", server.port(), &own("client"));
    assert_eq!(is_encrypted(&right, Login::App).await.as_deref(), Ok("t"));
    let none = proxy(Login::App, "127.0.0.1", server.port(), "sslmode=require");
    let error = is_encrypted(&none, Login::App).await.expect_err("no certificate");
    assert!(error.contains("requires a valid client certificate"), "{error}");
    let stranger = proxy(Login::App, "127.0.0.1", server.port(), &own("client_stranger"));
    let error = is_encrypted(&stranger, Login::App).await.expect_err("another authority");
    assert!(error.contains("does not know the authority of the certificate shown to it"), "{error}");
}

#[tokio::test]
async fn the_systems_authorities_verify_the_name_too() {
    let certificates = Certificates::new();
    let server = Postgres::builder(Role::Primary).tls(&certificates).start();
    let (ca, other) = (certificates.crt("ca"), certificates.crt("other_ca"));
    let trusting = |file: &str, host: &str| {
        proxy_with(Login::App, host, server.port(), "sslrootcert=system", &[("SSL_CERT_FILE", file)])
    };
    assert_eq!(is_encrypted(&trusting(&ca, "localhost"), Login::App).await.as_deref(), Ok("t"));
    let error = is_encrypted(&trusting(&other, "localhost"), Login::App).await.expect_err("unknown");
    assert!(error.contains("the system's authorities"), "{error}");
    // The server's own certificate, trusted as it is.
    let pinned = format!("sslmode=verify-full&sslrootcert={}", certificates.crt("good"));
    let pinned = proxy(Login::App, "localhost", server.port(), &pinned);
    assert_eq!(is_encrypted(&pinned, Login::App).await.as_deref(), Ok("t"));
}

#[test]
fn check_finds_what_is_wrong_with_files() {
    let certificates = Certificates::new();
    let folder = crate::support::Scratch::new();
    let check = |tls: &str, parameters: &str| {
        let path = folder.path().join("x.toml");
        let text = format!(
            "[servers.primary]\nurl = \"postgres://u:hunter2@h/d?{parameters}\"\n[listen.tls]\n{tls}"
        );
        fs::write(&path, text).expect("the folder is writable");
        let output = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
            .arg("--config")
            .arg(&path)
            .arg("check")
            .output()
            .expect("bulkhead runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("hunter2"));
        (output.status.code(), said)
    };
    let pair = |certificate: &str, key: &str| {
        format!(
            "certificate = \"{}\"\nkey = \"{}\"\n",
            certificates.crt(certificate),
            certificates.pem_key(key)
        )
    };
    assert_eq!(check(&pair("good", "good"), "").0, Some(0));
    let cases = [
        (pair("good", "client"), String::new(), "listen.tls.key", "does not belong to the certificate"),
        (pair("missing", "good"), String::new(), "listen.tls.certificate", "cannot read"),
        (
            format!("certificate = \"{0}\"\nkey = \"{0}\"", certificates.pem_key("good")),
            String::new(),
            "listen.tls.certificate",
            "there is no certificate in",
        ),
        (pair("good", "missing"), String::new(), "listen.tls.key", "cannot read"),
        (
            String::new(),
            "sslmode=verify-ca&sslrootcert=/nowhere".to_owned(),
            "servers.primary.url (sslrootcert)",
            "cannot read",
        ),
        (
            String::new(),
            format!("sslcert={}&sslkey={}", certificates.crt("client"), certificates.pem_key("good")),
            "servers.primary.url (sslkey)",
            "does not belong",
        ),
    ];
    for (tls, parameters, key, what) in cases {
        let (code, said) = check(&tls, &parameters);
        assert_eq!(code, Some(64), "{said}");
        assert!(said.contains(key) && said.contains(what), "{said}");
    }
}
