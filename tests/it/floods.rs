//! Servers that send more than anybody can keep, and clients that send what takes long to read.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{Message, Proxy, RawClient, Site, error_code, eventually, http_get};

/// What a server does when it is asked anything.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flood {
    Rows,
    EmptyRows,
    OneGiant,
    Notices,
    Parameters,
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u32 + 4).to_be_bytes();
    [&[tag][..], &len, body].concat()
}

/// Runs until the other side has enough. Counts what it takes.
async fn flood(stream: &mut TcpStream, flood: Flood, sent: &Mutex<usize>) -> std::io::Result<()> {
    let mut number = 0_u64;
    loop {
        let mut bytes = Vec::new();
        while bytes.len() < 64 * 1024 {
            number += 1;
            bytes.extend(match flood {
                Flood::Rows => {
                    let name = format!("function_{number:0>100}");
                    let column = |text: &str| [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat();
                    message(b'D', &[&[0, 2][..], &column("function"), &column(&name)].concat())
                }
                Flood::EmptyRows => message(b'D', &[0, 0]),
                Flood::OneGiant if number == 1 => {
                    vec![b'D', 0x3f, 0xff, 0xff, 0xf0, 0, 1, 0x3f, 0xff, 0xff, 0]
                }
                Flood::OneGiant => vec![b'x'; 64 * 1024],
                Flood::Notices => message(b'N', format!("SNOTICE\0C00000\0M{number}\0\0").as_bytes()),
                Flood::Parameters => message(b'S', format!("name_{number}\0{number:0>1000}\0").as_bytes()),
            });
        }
        stream.write_all(&bytes).await?;
        *sent.lock().expect("nobody panics") += bytes.len();
    }
}

async fn serve(mut stream: TcpStream, what: Flood, sent: Arc<Mutex<usize>>) -> std::io::Result<()> {
    let len = stream.read_u32().await?;
    let mut startup = vec![0; len as usize - 4];
    stream.read_exact(&mut startup).await?;
    let mut hello = message(b'R', &[0, 0, 0, 0]);
    for parameter in ["server_version\x0015.1\0", "is_superuser\0off\0", "client_encoding\0UTF8\0"] {
        hello.extend(message(b'S', parameter.as_bytes()));
    }
    hello.extend(message(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]));
    hello.extend(message(b'Z', b"I"));
    stream.write_all(&hello).await?;
    loop {
        let tag = stream.read_u8().await?;
        let len = stream.read_u32().await?;
        let mut body = vec![0; len as usize - 4];
        stream.read_exact(&mut body).await?;
        match tag {
            b'Q' if memchr::memmem::find(&body, b"pg_catalog.pg_is_in_recovery()").is_some() => {
                let mut answer = message(b'D', &[&[0, 1, 0, 0, 0, 1][..], b"f"].concat());
                answer.extend(message(b'C', b"SELECT 1\0"));
                answer.extend(message(b'Z', b"I"));
                stream.write_all(&answer).await?;
            }
            b'Q' => flood(&mut stream, what, &sent).await?,
            b'X' => return Ok(()),
            _ => {}
        }
    }
}

/// A server of that kind. Returns its port, and how much it could send so far.
async fn start(what: Flood) -> (u16, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let sent = Arc::new(Mutex::new(0));
    let count = Arc::clone(&sent);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, what, Arc::clone(&count)));
        }
    });
    (port, sent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_floods_our_questions_is_let_go() {
    for what in [Flood::Rows, Flood::EmptyRows, Flood::OneGiant, Flood::Notices, Flood::Parameters] {
        let (port, sent) = start(what).await;
        let toml = format!(
            "[listen]\naddress = \"{{listen}}\"\nhttp = \"{{http}}\"\n[servers.primary]\n\
             url = \"postgres://app:secret@127.0.0.1:{port}/app?sslmode=disable\"\n[auth]\nmethod = \"trust\"\n"
        );
        let proxy = Proxy::spawn(&toml, &[]);
        let told = async || proxy.log().contains("could not be read").then_some(());
        eventually(&format!("{what:?} are too many"), Duration::from_secs(60), told).await;
        let log = proxy.log();
        assert!(log.contains("takes more than") || log.contains("than can be kept"), "{what:?}: {log}");
        // What is on its way in sockets comes on top.
        let sent = *sent.lock().expect("nobody panics");
        assert!(sent < 200 << 20, "{what:?}: {sent}");
        let peak = proxy.peak_memory_bytes();
        assert!(peak < 400 << 20, "{what:?}: {peak}");
        let (status, _) = http_get(proxy.http_port(), "/healthz").await.expect("it lives");
        assert_eq!(status, 200, "{what:?}");
    }
}

fn error_of(messages: &[Message]) -> Option<[String; 2]> {
    let error = messages.iter().find(|message| message.tag == b'E')?;
    Some([error.field(b'C')?, error.field(b'H').unwrap_or_default()])
}

#[tokio::test]
async fn statements_of_one_client_take_so_many_bytes() {
    let site = Site::configured(|config| config.set("limits", "prepared_bytes_per_client", "64KiB"));
    let mut client = site.client().await;
    let text = format!("SELECT 1 /* {} */", "x".repeat(20_000));
    for name in ["a", "b", "c"] {
        client.parse(name, &text);
        assert_eq!(client.exchange().await, "1Z");
    }
    client.parse("d", &text);
    let [code, hint] = error_of(&client.finish().await).expect("one too many");
    assert_eq!(code, "53200");
    assert!(hint.contains("limits.prepared_bytes_per_client"), "{hint}");
    // Those that there are go on, and a closed one makes room.
    client.bind("", "a", &[]).execute("", 0);
    assert_eq!(error_code(&client.finish().await), None);
    client.close(b'S', "b").parse("d", &text);
    assert_eq!(client.exchange().await, "31Z");
    client.ask("DEALLOCATE ALL").await;
    for name in ["a", "b", "c"] {
        client.parse(name, &text);
        assert_eq!(client.exchange().await, "1Z", "{name}");
    }
}

/// What took the grammar's scanner seconds, by Query and by Parse.
const SLOW: [&str; 3] = ["/*/", "+", "DO $$ SET a        "];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_that_take_long_to_read_make_nobody_wait() {
    let site = Site::configured(|config| config.set("listen", "threads", 1));
    let mut sender = site.client().await;
    let mut other = site.client().await;
    assert_eq!(other.query_value("SELECT 1").await, "1");
    for unit in SLOW {
        let text = format!("SELECT 1 {}", unit.repeat(30_000 / unit.len()));
        let cpu = |proxy: &Proxy| {
            let (user, system) = proxy.cpu_seconds();
            user + system
        };
        let before = cpu(&site.proxy);
        sender.query(&text).await;
        sender.parse("", &text).sync();
        sender.flush().await;
        let began = Instant::now();
        assert_eq!(other.query_value("SELECT 1").await, "1");
        let waited = began.elapsed();
        sender.read_until_ready().await;
        sender.read_until_ready().await;
        // The server takes long as well, and longer for longer ones. In CPU time, so that a busy machine changes nothing.
        let took = cpu(&site.proxy) - before;
        assert!(took < 1.0, "{unit}: {took} s of CPU, the other one waited {waited:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_long_texts_at_once_leave_room_for_others() {
    let site =
        Site::configured(|config| config.set("listen", "threads", 1).pool("primary", &["primary"], 12));
    let mut senders = Vec::new();
    for number in 0..10 {
        let mut sender = site.client().await;
        for text in 0..4 {
            // Valid, long, and no two alike.
            let list = format!(",x{number}_{text}").repeat(20_000);
            sender.parse("", &format!("SELECT 1 AS a{list}")).sync();
        }
        senders.push(sender);
    }
    for sender in &mut senders {
        sender.flush().await;
    }
    let mut other = site.client().await;
    for _ in 0..20 {
        let answer = tokio::time::timeout(Duration::from_secs(5), other.query_value("SELECT 1")).await;
        assert_eq!(answer.expect("others are served meanwhile"), "1");
    }
    for sender in &mut senders {
        for _ in 0..4 {
            let answer = sender.read_until_ready().await;
            assert!(answer.iter().any(|message| matches!(message.tag, b'1' | b'E')), "it is answered");
        }
    }
    let mut again = RawClient::app(site.proxy.port()).await;
    eventually("all is well", Duration::from_secs(10), async || {
        (again.query_value("SELECT 1").await == "1").then_some(())
    })
    .await;
}
