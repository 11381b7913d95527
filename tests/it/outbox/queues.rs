//! Functions of a library that has a table for each queue, as pgmq does: its names and shapes, in as few words as they allow.

use super::{
    LONG, Yard, bulkhead,
    functions::{say, texts},
};
use crate::support::{RawClient, error_of, eventually, short};

const ITEM: &str = "INSERT INTO items VALUES ('a')";

const SCHEMA: &str = "
    GRANT CREATE ON DATABASE app TO app;
    SET ROLE app;
    CREATE SCHEMA pgmq;
    CREATE TABLE pgmq.meta (queue_name text PRIMARY KEY, created_at timestamptz NOT NULL DEFAULT now());
    CREATE FUNCTION pgmq.create(queue_name text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        EXECUTE format('CREATE TABLE pgmq.%I (msg_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, read_ct int NOT NULL '
            'DEFAULT 0, enqueued_at timestamptz NOT NULL DEFAULT now(), vt timestamptz NOT NULL, message jsonb, headers jsonb)',
            'q_' || lower(queue_name));
        EXECUTE format('CREATE TABLE pgmq.%I (msg_id bigint PRIMARY KEY, message jsonb)', 'a_' || lower(queue_name));
        INSERT INTO pgmq.meta VALUES (queue_name);
    END $$;
    CREATE FUNCTION pgmq.drop_queue(queue_name text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        EXECUTE format('DROP TABLE pgmq.%I, pgmq.%I', 'q_' || queue_name, 'a_' || queue_name);
        DELETE FROM pgmq.meta AS m WHERE m.queue_name = drop_queue.queue_name;
    END $$;
    CREATE FUNCTION pgmq.send_batch(queue_name text, msgs jsonb[], delay int DEFAULT 0) RETURNS SETOF bigint LANGUAGE plpgsql AS $$
    BEGIN
        RETURN QUERY EXECUTE format('INSERT INTO pgmq.%I (vt, message) SELECT clock_timestamp() + make_interval(secs => $2), '
            'unnest($1) RETURNING msg_id', 'q_' || lower(queue_name)) USING msgs, delay;
    END $$;
    CREATE FUNCTION pgmq.send(queue_name text, msg jsonb, delay int DEFAULT 0) RETURNS SETOF bigint LANGUAGE sql AS
        $$ SELECT * FROM pgmq.send_batch(queue_name, ARRAY[msg], delay) $$;
    CREATE FUNCTION pgmq.pop(queue_name text) RETURNS SETOF jsonb LANGUAGE plpgsql AS $$
    BEGIN
        RETURN QUERY EXECUTE format('DELETE FROM pgmq.%1$I WHERE msg_id = (SELECT msg_id FROM pgmq.%1$I ORDER BY 1 LIMIT 1 '
            'FOR UPDATE SKIP LOCKED) RETURNING message', 'q_' || lower(queue_name));
    END $$;
    CREATE TABLE items (name text);
    RESET ROLE;
";

async fn yard() -> Yard {
    let mut yard = Yard::bare();
    yard.library.preset = "pgmq";
    yard.library.table = "pgmq.q_mails";
    yard.library.waits_in = "pgmq.q_mails";
    for server in [&yard.primary, &yard.jobs] {
        server.query(SCHEMA).await;
    }
    yard.jobs.query("SET ROLE app; SELECT pgmq.create('mails'); DROP TABLE items").await;
    yard
}

#[tokio::test]
async fn messages_come_with_their_commit_and_keep_their_numbers() {
    let yard = yard().await;
    let config = yard.config().set("auth", "method", "trust");
    let (code, text) = bulkhead(&config, &["jobs", "plan"]);
    assert!(code == Some(0) && text.contains("SELECT \"pgmq\".\"create\"('mails')"), "{text}");
    assert_eq!(yard.primary.value("SELECT count(*) FROM pgmq.meta").await, "0", "a plan changes nothing");
    let (code, text) = bulkhead(&config, &["jobs", "init"]);
    assert_eq!(code, Some(0), "{text}");
    let proxy = yard.bulkhead(&config).await;
    let mut client = RawClient::app(proxy.port()).await;

    let mut expected = Vec::new();
    say(&mut client, &["BEGIN", ITEM]).await;
    let id = say(&mut client, &["SELECT pgmq.send('mails', '{\"n\": 1}')"]).await.concat();
    expected.push(vec![id, "{\"n\": 1}".to_owned()]);
    let undone = "SELECT pgmq.send(queue_name => 'mails', msg => '{\"n\": \"undone\"}')";
    say(&mut client, &["SAVEPOINT a", undone, "ROLLBACK TO a"]).await;
    let ids =
        say(&mut client, &["SELECT * FROM pgmq.send_batch('mails', ARRAY['[2]', '[3]']::jsonb[], 3600)"])
            .await;
    expected.extend(ids.into_iter().zip(["[2]", "[3]"]).map(|(id, message)| vec![id, message.to_owned()]));
    assert_eq!(yard.jobs.value("SELECT count(*) FROM pgmq.q_mails").await, "0");
    say(&mut client, &["COMMIT"]).await;
    say(&mut client, &["BEGIN", ITEM, undone, "ROLLBACK"]).await;
    // Before the rest of its transaction, and alone.
    say(&mut client, &["BEGIN"]).await;
    let id = say(&mut client, &["SELECT pgmq.send('mails', '\"first\"')"]).await.concat();
    expected.push(vec![id, "\"first\"".to_owned()]);
    say(&mut client, &[ITEM, "COMMIT"]).await;
    let id = say(&mut client, &["SELECT pgmq.send('mails', '\"alone\"')"]).await.concat();
    expected.push(vec![id, "\"alone\"".to_owned()]);
    yard.wait_until_empty().await;
    expected.sort_unstable();
    let all = "SELECT msg_id::text, message FROM pgmq.q_mails ORDER BY msg_id::text COLLATE \"C\"";
    eventually("all have come", LONG, async || (texts(yard.jobs.query(all).await) == expected).then_some(()))
        .await;
    let later = "SELECT string_agg(message::text, ' ' ORDER BY msg_id) FROM pgmq.q_mails WHERE vt > now() + interval '59 min'";
    assert_eq!(yard.jobs.value(later).await, "[2] [3]");
    assert_eq!(yard.primary.value("SELECT count(*) FROM items").await, "2");

    // What takes messages is not part of it.
    for call in ["pop('mails')", "create('another')", "drop_queue('mails')"] {
        say(&mut client, &["BEGIN", ITEM]).await;
        let [code, message, _] = error_of(&client.ask(&format!("SELECT pgmq.{call}")).await).expect(call);
        assert!(code == "0A000" && message.contains("live on different servers"), "{call}: {code} {message}");
        assert_eq!(short(&client.ask("COMMIT").await), "ROLLBACK I");
    }
    assert_eq!(yard.primary.value("SELECT count(*) FROM bulkhead.refused").await, "0");
}

#[tokio::test]
async fn numbers_of_both_sides_never_meet() {
    let yard = yard().await;
    let config = yard.config().set("auth", "method", "trust");
    let (code, text) = bulkhead(&config, &["jobs", "init"]);
    assert_eq!(code, Some(0), "{text}");
    let proxy = yard.bulkhead(&config).await;
    let mut tasks = Vec::new();
    for writer in 0..4 {
        let mut client = RawClient::app(proxy.port()).await;
        tasks.push(tokio::spawn(async move {
            let mut told = Vec::new();
            for n in 0..25 {
                let send = format!("SELECT pgmq.send('mails', '\"{writer}/{n}\"')");
                let mut statements = vec![send.as_str()];
                if writer % 2 == 0 {
                    statements.splice(0..0, ["BEGIN", ITEM]);
                }
                told.push(vec![say(&mut client, &statements).await.concat(), format!("\"{writer}/{n}\"")]);
                if writer % 2 == 0 {
                    say(&mut client, &["COMMIT"]).await;
                }
            }
            told
        }));
    }
    let mut told = Vec::new();
    for task in tasks {
        told.extend(task.await.expect("no writer fails"));
    }
    yard.wait_until_empty().await;
    told.sort_unstable();
    let all = "SELECT msg_id::text, message FROM pgmq.q_mails ORDER BY msg_id::text COLLATE \"C\"";
    eventually("all have come", LONG, async || (texts(yard.jobs.query(all).await) == told).then_some(()))
        .await;
    assert_eq!(yard.primary.value("SELECT count(*) FROM bulkhead.refused").await, "0");
}

#[tokio::test]
async fn a_queue_is_the_primary_s_once_it_is_installed() {
    let yard = yard().await;
    let config = yard.config().set("auth", "method", "trust");
    let (code, text) = bulkhead(&config, &["jobs", "init"]);
    assert_eq!(code, Some(0), "{text}");
    let proxy = yard.bulkhead(&config).await;
    let mut client = RawClient::app(proxy.port()).await;
    // Through Bulkhead it is made where the jobs are.
    say(&mut client, &["SELECT pgmq.create('later')"]).await;
    let is_there = "SELECT to_regclass('pgmq.q_later') IS NOT NULL";
    assert_eq!([yard.primary.value(is_there).await, yard.jobs.value(is_there).await], ["f", "t"]);
    let send = "SELECT pgmq.send('later', '1')";
    say(&mut client, &["BEGIN", ITEM]).await;
    let [code, message, _] = error_of(&client.ask(send).await).expect("the primary does not have it");
    assert!(code == "42P01" && message.contains("pgmq.q_later"), "{code} {message}");
    say(&mut client, &["ROLLBACK"]).await;
    let (code, text) = bulkhead(&config, &["jobs", "init"]);
    assert!(code == Some(0) && text.contains("create\"('later')") && !text.contains("'mails'"), "{text}");
    let id = say(&mut client, &["BEGIN", ITEM, send]).await.concat();
    assert_eq!(id.parse::<i64>().map(|id| id % 2), Ok(1), "{id}");
    say(&mut client, &["COMMIT"]).await;
    let message = "SELECT msg_id FROM pgmq.q_later";
    eventually("it came", LONG, async || {
        (yard.jobs.query(message).await == [[Some(id.clone())]]).then_some(())
    })
    .await;

    // One that is gone on both sides is forgotten, and another one of its name is no other's ledger.
    for server in [&yard.primary, &yard.jobs] {
        server.query("SET ROLE app; SELECT pgmq.drop_queue('later')").await;
    }
    let (code, text) = bulkhead(&config, &["jobs", "init"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = bulkhead(&config, &["jobs", "verify"]);
    assert_eq!(code, Some(0), "{text}");
    for server in [&yard.primary, &yard.jobs] {
        let known = "SELECT string_agg(source_table, ' ') FROM bulkhead.outbox";
        assert_eq!(server.value(known).await, "pgmq.q_mails");
    }
    let ledger = "SELECT count(*) FROM bulkhead.relayed WHERE source_table = 'pgmq.q_later'";
    assert_eq!(yard.jobs.value(ledger).await, "0");
    // One that is gone in the job database only is told of.
    yard.jobs.query("SET ROLE app; SELECT pgmq.drop_queue('mails')").await;
    let (code, text) = bulkhead(&config, &["jobs", "init"]);
    assert!(code == Some(64) && text.contains("pgmq.q_mails is on the primary, and missing"), "{text}");
    yard.jobs.query("SET ROLE app; SELECT pgmq.create('mails')").await;
    let (code, text) = bulkhead(&config, &["jobs", "init"]);
    assert_eq!(code, Some(0), "{text}");

    drop(proxy);
    let (code, text) = bulkhead(&config, &["jobs", "undo"]);
    assert_eq!(code, Some(0), "{text}");
    let left = "SELECT string_agg(seqrelid::regclass || ' by ' || seqincrement, ' ') FROM pg_sequence \
        UNION ALL SELECT count(*)::text FROM pg_namespace WHERE nspname = 'bulkhead'";
    for server in [&yard.primary, &yard.jobs] {
        assert_eq!(texts(server.query(left).await), [["pgmq.q_mails_msg_id_seq by 1"], ["0"]]);
    }
}
