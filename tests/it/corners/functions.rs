//! FunctionCall, the fast path, and large objects by it.

use super::talk::{Pair, Talk};

const INT4PL: u32 = 177;
const INT4DIV: u32 = 154;
const UPPER: u32 = 871;
const LO_CREATE: u32 = 715;
const LO_OPEN: u32 = 952;
const LO_CLOSE: u32 = 953;
const LOREAD: u32 = 954;
const LOWRITE: u32 = 955;
const LO_LSEEK: u32 = 956;
const LO_UNLINK: u32 = 964;

/// A FunctionCall's body: arguments and result in one format, 0 for text and 1 for binary.
fn call(oid: u32, format: u8, arguments: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = oid.to_be_bytes().to_vec();
    body.extend([0, 1, 0, format]);
    body.extend((arguments.len() as u16).to_be_bytes());
    for argument in arguments {
        match argument {
            Some(value) => {
                body.extend((value.len() as u32).to_be_bytes());
                body.extend_from_slice(value);
            }
            None => body.extend((-1_i32).to_be_bytes()),
        }
    }
    body.extend([0, format]);
    body
}

async fn run(talk: &mut Talk<'_>, oid: u32, format: u8, arguments: &[Option<&[u8]>]) {
    talk.client.message(b'F', &call(oid, format, arguments));
    talk.exchange(1).await;
}

async fn run_binary(talk: &mut Talk<'_>, oid: u32, arguments: &[&[u8]]) {
    let arguments: Vec<_> = arguments.iter().map(|value| Some(*value)).collect();
    run(talk, oid, 1, &arguments).await;
}

fn int(value: i32) -> [u8; 4] {
    value.to_be_bytes()
}

#[tokio::test]
async fn functions_are_called_as_on_the_server() {
    let mut site = Pair::start().await;
    for transaction in ["", "BEGIN", "BEGIN; SELECT 1/0", "BEGIN ISOLATION LEVEL SERIALIZABLE"] {
        site.same(&format!("in {transaction:?}"), async |talk| {
            for (oid, format, arguments) in [
                (INT4PL, 0, &[Some(&b"40"[..]), Some(b"2")][..]),
                (INT4PL, 1, &[Some(&[0, 0, 0, 40]), Some(&[0, 0, 0, 2])]),
                (INT4PL, 1, &[Some(&[0, 0, 0, 40]), None]),
                (UPPER, 0, &[Some(b"text")]),
                // Wrong: too few arguments, too short, no number, no such function, division by zero.
                (INT4PL, 1, &[Some(&[0, 0, 0, 40])]),
                (INT4PL, 1, &[Some(&[0]), Some(&[0, 0, 0, 2])]),
                (INT4PL, 0, &[Some(b"x"), Some(b"2")]),
                (1, 0, &[Some(b"2")]),
                (INT4DIV, 0, &[Some(b"1"), Some(b"0")]),
            ] {
                talk.ask(transaction).await;
                run(talk, oid, format, arguments).await;
                talk.ask("SELECT 1").await;
                talk.ask("ROLLBACK").await;
            }
        })
        .await;
    }
    site.same("in a pipeline", async |talk| {
        let (good, bad) =
            (call(INT4PL, 0, &[Some(b"1"), Some(b"2")]), call(INT4DIV, 0, &[Some(b"1"), Some(b"0")]));
        for body in [&good, &bad] {
            talk.unit("INSERT INTO t VALUES (100)").message(b'F', body);
            talk.exchange(1).await;
            talk.unit("SELECT count(*) FROM t").sync();
            talk.exchange(1).await;
            talk.client.parse("s", "SELECT 's'").sync().message(b'F', body).bind("", "s", &[]).execute("", 0);
            talk.client.sync();
            talk.exchange(3).await;
            talk.client.close(b'S', "s").sync();
            talk.exchange(1).await;
            talk.ask("TRUNCATE t").await;
        }
        talk.unit("SELECT 1/0").message(b'F', &good).sync();
        talk.exchange(1).await;
        talk.client
            .message(b'F', &good)
            .message(b'F', &bad)
            .message(b'F', &good)
            .message(b'Q', b"SELECT 1\0");
        talk.exchange(4).await;
    })
    .await;
    site.finish().await;
}

#[tokio::test]
async fn large_objects_by_function_calls() {
    let mut site = Pair::start().await;
    let read_write = int(0x2_0000 | 0x4_0000);
    for end in ["COMMIT", "ROLLBACK"] {
        site.same(&format!("written and read, {end}"), async |talk| {
            talk.ask("BEGIN").await;
            run_binary(talk, LO_CREATE, &[&int(777_777)]).await;
            run_binary(talk, LO_OPEN, &[&int(777_777), &read_write]).await;
            run_binary(talk, LOWRITE, &[&int(0), &vec![b'x'; 100_000]]).await;
            run_binary(talk, LO_LSEEK, &[&int(0), &int(5), &int(0)]).await;
            run_binary(talk, LOREAD, &[&int(0), &int(10)]).await;
            run_binary(talk, LO_CLOSE, &[&int(0)]).await;
            run_binary(talk, LO_CLOSE, &[&int(0)]).await;
            talk.ask(end).await;
            talk.ask("BEGIN").await;
            run_binary(talk, LO_OPEN, &[&int(777_777), &read_write]).await;
            run_binary(talk, LOREAD, &[&int(0), &int(200_000)]).await;
            talk.ask("COMMIT").await;
            // Outside of a transaction a descriptor lives as long as the call.
            run_binary(talk, LO_OPEN, &[&int(777_777), &read_write]).await;
            run_binary(talk, LOREAD, &[&int(0), &int(10)]).await;
            run_binary(talk, LO_UNLINK, &[&int(777_777)]).await;
        })
        .await;
    }
    site.finish().await;
}
