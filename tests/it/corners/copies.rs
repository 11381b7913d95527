//! COPY: in the extended protocol, failing by either side, cancelled, and data where none is expected.

use super::talk::{Pair, Talk};
use crate::support::{RawClient, Say};

/// The COPY of this database has got something.
const HAS_A_ROW: &str =
    "SELECT FROM pg_stat_progress_copy WHERE datname = current_database() AND tuples_processed > 0";

/// Begins to copy into the table, in one of two ways, and hears that the server waits for data.
async fn begin(talk: &mut Talk<'_>, extended: bool, end: u8) {
    let sql = "COPY t FROM STDIN";
    if extended {
        talk.client.parse("s", sql).bind("p", "s", &[]).describe(b'P', "p").execute("p", 0).message(end, b"");
    } else {
        talk.client.message(b'Q', b"COPY t FROM STDIN\0");
    }
    talk.hear_to(b'G').await;
}

/// Hears the end of it, and that everything is as it should be.
async fn end(talk: &mut Talk<'_>, extended: bool) {
    if extended {
        talk.client.sync();
    }
    talk.exchange(1).await;
    talk.ask("SELECT a FROM t WHERE a >= 100").await;
    talk.ask("ROLLBACK").await;
    talk.client.close(b'S', "s").sync();
    talk.exchange(1).await;
    talk.ask("SELECT a FROM t WHERE a >= 100").await;
}

#[tokio::test]
async fn data_goes_in_and_fails_as_on_the_server() {
    let mut site = Pair::start().await;
    for (way, extended, sync) in [("Query", false, b'S'), ("Flush", true, b'H'), ("Sync", true, b'S')] {
        for transaction in ["", "BEGIN"] {
            let what = |what: &str| format!("{what}, by {way}, in {transaction:?}");
            site.same(&what("data and its end"), async |talk| {
                talk.ask(transaction).await;
                begin(talk, extended, sync).await;
                talk.client.message(b'd', b"100\tx\n10").message(b'd', b"1\ty\n").message(b'c', b"");
                end(talk, extended).await;
            })
            .await;
            site.same(&what("no data"), async |talk| {
                talk.ask(transaction).await;
                begin(talk, extended, sync).await;
                talk.client.message(b'c', b"");
                end(talk, extended).await;
            })
            .await;
            site.same(&what("Flush and Sync in the middle"), async |talk| {
                talk.ask(transaction).await;
                begin(talk, extended, sync).await;
                talk.client.message(b'd', b"100\tx\n").sync().flush_message().message(b'd', b"101\ty\n");
                talk.client.sync().message(b'c', b"");
                end(talk, extended).await;
            })
            .await;
            site.same(&what("CopyFail"), async |talk| {
                talk.ask(transaction).await;
                begin(talk, extended, sync).await;
                talk.client.message(b'd', b"100\tx\n").message(b'f', b"no more\0");
                end(talk, extended).await;
            })
            .await;
            site.same(&what("bad data"), async |talk| {
                talk.ask(transaction).await;
                begin(talk, extended, sync).await;
                talk.client.message(b'd', b"x\ty\n").message(b'd', b"100\tx\n").message(b'c', b"");
                end(talk, extended).await;
            })
            .await;
            site.same(&what("an error that comes with the last row"), async |talk| {
                talk.ask(transaction).await;
                begin(talk, extended, sync).await;
                talk.client.message(b'd', b"100\tx\n1\tsame key\n").message(b'c', b"");
                end(talk, extended).await;
            })
            .await;
            site.same(&what("cancelled"), async |talk| {
                talk.ask(transaction).await;
                begin(talk, extended, sync).await;
                talk.client.message(b'd', b"100\tx\n").flush().await;
                talk.wait_until(HAS_A_ROW).await;
                talk.cancel().await;
                // The server notices with the next message.
                talk.client.message(b'd', b"101\tx\n");
                talk.hear_to(b'E').await;
                talk.client.message(b'd', b"102\tx\n").message(b'c', b"");
                end(talk, extended).await;
            })
            .await;
            site.same(&what("out, cancelled in the middle"), async |talk| {
                talk.ask(transaction).await;
                // The server sends a row when the next one fills its buffer.
                let sql = "COPY (SELECT repeat('x', 9000), pg_sleep(n / 2 * 60) FROM generate_series(0, 2) n) TO STDOUT";
                if extended {
                    talk.client.parse("s", sql).bind("p", "s", &[]).execute("p", 0).message(sync, b"");
                } else {
                    talk.client.message(b'Q', format!("{sql}\0").as_bytes());
                }
                talk.hear_to(b'd').await;
                talk.cancel().await;
                if extended && sync == b'S' {
                    talk.client.message(b'Q', b"SELECT 'next'\0");
                    talk.exchange(2).await;
                } else {
                    end(talk, extended).await;
                }
            })
            .await;
        }
    }
    site.finish().await;
}

#[tokio::test]
async fn what_comes_around_a_copy_is_answered_as_on_the_server() {
    let mut site = Pair::start().await;
    site.same("a pipeline around it", async |talk| {
        talk.unit("INSERT INTO t VALUES (100)");
        talk.unit("COPY t FROM STDIN").message(b'd', b"101\tx\n").message(b'c', b"");
        talk.unit("SELECT count(*) FROM t");
        talk.unit("COPY (SELECT 1) TO STDOUT");
        talk.unit("SELECT 2").sync();
        talk.exchange(1).await;
        talk.unit("INSERT INTO t VALUES (102)");
        talk.unit("COPY t FROM STDIN").message(b'd', b"103\tx\n").message(b'f', b"no\0");
        talk.unit("SELECT 2").sync();
        talk.unit("SELECT count(*) FROM t").sync();
        talk.exchange(2).await;
        talk.unit("SELECT 1/0");
        talk.unit("COPY t FROM STDIN").message(b'd', b"104\tx\n").message(b'c', b"").sync();
        talk.exchange(1).await;
        talk.ask("SELECT count(*) FROM t").await;
    })
    .await;
    site.same("by a name prepared before, so that the request is changed on its way", async |talk| {
        talk.client.parse("s", "COPY t FROM STDIN").sync();
        talk.exchange(1).await;
        for number in [b"100", b"101"] {
            talk.client.bind("", "s", &[]).execute("", 0).sync();
            talk.hear_to(b'G').await;
            talk.client.message(b'd', &[&number[..], b"\tx\n"].concat()).message(b'c', b"").sync();
            talk.exchange(1).await;
        }
        talk.ask("SELECT a, b FROM t WHERE a >= 100").await;
    })
    .await;
    site.same("in one text with others", async |talk| {
        talk.client.message(b'Q', b"INSERT INTO t VALUES (100); COPY t FROM STDIN; SELECT 1/0\0");
        talk.hear_to(b'G').await;
        talk.client.message(b'd', b"101\tx\n").message(b'c', b"");
        talk.exchange(1).await;
        talk.client.message(b'Q', b"COPY t FROM STDIN; COPY (SELECT 1) TO STDOUT; COPY t FROM STDIN\0");
        talk.hear_to(b'G').await;
        talk.client.message(b'd', b"102\tx\n").message(b'c', b"");
        talk.hear_to(b'G').await;
        talk.client.message(b'f', b"no\0");
        talk.exchange(1).await;
        talk.ask("SELECT count(*) FROM t").await;
        talk.ask("BEGIN").await;
        talk.client.message(b'Q', b"COPY t FROM STDIN; COMMIT\0");
        talk.hear_to(b'G').await;
        talk.client.message(b'd', b"103\tx\n").message(b'c', b"");
        talk.exchange(1).await;
        talk.ask("SELECT count(*) FROM t").await;
    })
    .await;
    site.same("data where no COPY runs", async |talk| {
        talk.client.message(b'd', b"100\tx\n").message(b'c', b"").message(b'f', b"no\0");
        talk.ask("SELECT 1").await;
        talk.ask("BEGIN").await;
        talk.client.message(b'c', b"").message(b'd', &vec![b'x'; 3 << 20]);
        talk.ask("SELECT 2").await;
        talk.unit("SELECT 3").message(b'd', b"x").message(b'f', b"no\0");
        talk.unit("SELECT 4").flush_message().message(b'c', b"").sync();
        talk.exchange(1).await;
        talk.unit("SELECT 1/0").message(b'd', b"x");
        talk.unit("SELECT 5").message(b'c', b"").sync();
        talk.exchange(1).await;
        talk.client.message(b'd', b"x");
        talk.ask("ROLLBACK").await;
        talk.client.message(b'd', b"x").sync();
        talk.exchange(1).await;
    })
    .await;
    site.finish().await;
}

#[tokio::test]
async fn copies_of_other_formats_and_those_that_cannot_be_are_as_on_the_server() {
    let mut site = Pair::start().await;
    site.same("what cannot be copied", async |talk| {
        for sql in [
            "COPY no_such_table FROM STDIN",
            "COPY t (nothing) TO STDOUT",
            "COPY (SELECT 1/(a - 5) FROM t ORDER BY a) TO STDOUT",
            "COPY t FROM STDIN (FORMAT nonsense)",
        ] {
            talk.client.message(b'Q', format!("{sql}\0").as_bytes()).message(b'd', b"1\n").message(b'c', b"");
            talk.exchange(1).await;
            talk.unit(sql).message(b'd', b"1\n").message(b'c', b"").sync();
            talk.exchange(1).await;
            talk.ask("SELECT count(*) FROM t").await;
        }
    })
    .await;
    site.same("binary, and with a header", async |talk| {
        talk.ask("COPY t TO STDOUT (FORMAT binary)").await;
        talk.client.message(b'Q', b"COPY t FROM STDIN (FORMAT binary)\0");
        talk.hear_to(b'G').await;
        talk.client.message(b'd', b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        talk.client.message(b'd', b"\0\x02\0\0\0\x04\0\0\0\x64\0\0\0\x01x\xff\xff").message(b'c', b"");
        talk.exchange(1).await;
        talk.client.message(b'Q', b"COPY t FROM STDIN (FORMAT csv, HEADER match)\0");
        talk.hear_to(b'G').await;
        talk.client.message(b'd', b"b,a\n").message(b'c', b"");
        talk.exchange(1).await;
        talk.ask("SELECT a, b FROM t WHERE a >= 100").await;
    })
    .await;
    site.finish().await;
}

/// The server then ends the connection, and says why in two messages.
#[tokio::test]
async fn a_message_that_copy_does_not_expect_ends_the_session_only() {
    let site = Pair::start().await;
    for (tag, body) in [(b'Q', &b"SELECT 1\0"[..]), (b'P', b"\0SELECT 1\0\0\0"), (b'E', b"\0\0\0\0\0")] {
        for port in [site.primary.port(), site.proxy.port()] {
            let mut client = site.client_of(port).await;
            client.query("COPY t FROM STDIN").await;
            assert_eq!(client.read_message().await.tag, b'G');
            client.message(b'd', b"100\tx\n").message(tag, body);
            client.try_flush().await;
            let error = client.read_message().await;
            assert_eq!(error.field(b'C').as_deref(), Some("08P01"), "{error:?}");
            while let Some(message) = client.try_read_message().await {
                assert_eq!(message.field(b'C').as_deref(), Some("08P01"), "{message:?}");
            }
        }
        let mut next = site.client().await;
        assert_eq!(next.query_value("SELECT count(*) FROM t WHERE a >= 100").await, "0");
    }
    site.finish().await;
}

/// What drivers do that take COPY for any statement: they go on with their next message.
#[tokio::test]
async fn a_driver_that_does_not_know_copy_is_told_so() {
    let mut site = Pair::start().await;
    site.same("in one packet with the next statement", async |talk| {
        talk.unit("COPY t FROM STDIN");
        talk.unit("SELECT 5").sync();
        talk.exchange(2).await;
    })
    .await;
    site.finish().await;
}

/// The same where the server waits for data already: it ends the connection, and its words but for the place are known.
#[tokio::test]
async fn a_driver_that_does_not_send_the_data_is_told_so() {
    fn copy_now(client: &mut RawClient) -> &mut RawClient {
        client.message(b'Q', b"COPY t FROM STDIN\0")
    }
    fn unit<'a>(client: &'a mut RawClient, sql: &str) -> &'a mut RawClient {
        client.parse("", sql).bind("", "", &[]).execute("", 0)
    }
    let forms: [(Say, Say); 7] = [
        (
            |client| {
                unit(client, "COPY t FROM STDIN").sync();
            },
            |client| {
                unit(client, "SELECT 5").sync();
            },
        ),
        (
            |client| {
                unit(client, "COPY t FROM STDIN").sync();
            },
            |client| {
                client.message(b'Q', b"SELECT 5\0");
            },
        ),
        (
            |client| {
                unit(client, "COPY t FROM STDIN").flush_message();
            },
            |client| {
                client.close(b'S', "a").sync();
            },
        ),
        (
            |client| {
                copy_now(client);
            },
            |client| {
                client.message(b'Q', b"SELECT 5\0");
            },
        ),
        (
            |client| {
                copy_now(client);
            },
            |client| {
                unit(client, "SELECT 5").sync();
            },
        ),
        (
            |client| {
                copy_now(client);
            },
            |client| {
                client.sync().message(b'F', b"\0");
            },
        ),
        (
            |client| {
                copy_now(client).message(b'Q', b"SELECT 5\0");
            },
            |_| {},
        ),
    ];
    let site = Pair::start().await;
    for begin in ["", "BEGIN"] {
        for (number, (first, then)) in forms.iter().enumerate() {
            let mut told = Vec::new();
            for port in [site.primary.port(), site.proxy.port()] {
                let mut client = site.client_of(port).await;
                client.ask(begin).await;
                first(&mut client);
                client.flush().await;
                while client.read_message().await.tag != b'G' {}
                then(&mut client);
                client.try_flush().await;
                let mut said = Vec::new();
                while let Some(message) = client.try_read_message().await {
                    said.push([b'S', b'C', b'M'].map(|field| message.field(field).unwrap_or_default()));
                }
                told.push(said);
            }
            assert_eq!(told[0].len(), 2, "{begin:?}, form {number}");
            assert_eq!(told[0], told[1], "{begin:?}, form {number}");
        }
    }
    let mut next = site.client().await;
    assert_eq!(next.query_value("SELECT count(*) FROM t").await, "0");
    site.finish().await;
}
