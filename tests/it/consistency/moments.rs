//! Moments at which what is known of a write is easily lost: before its transaction ends, while Bulkhead or a replica
//! begins anew, and when the news of it comes another way.

use std::time::Duration;

use crate::support::{RawClient, eventually};

use super::{
    forms::{Form, How, named as form},
    reads::{Found, Read},
    session::Session,
    world::{KEY, Mode, World},
};

async fn find(session: &mut Session, form: &Form) -> Found {
    Read::Plain.run(session, form, KEY, "").await.expect("the statement is valid")
}

/// The session finds this version, at the primary.
async fn assert_seen(session: &mut Session, form: &Form, version: u64, when: &str) {
    let found = find(session, form).await;
    assert_eq!(found, Found { version, on_replica: false }, "`{}`, {when}", form.name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_counts_from_its_end() {
    let world = World::start(Mode::Tables, 1).await;
    let [mut writer, mut ender, mut reader] =
        [world.session(false).await, world.session(false).await, world.session(false).await];
    let forms = [
        "transaction",
        "savepoint",
        "read_first",
        "chain",
        "not_flushed_local",
        "cursor",
        "trigger_at_commit",
        "two_phase",
    ];
    for (version, name) in (1..).zip(forms) {
        let form = form(name);
        let How::Steps(steps, after) = form.how else { panic!("{name} has steps") };
        let (last, steps) = steps.split_last().expect("it has steps");
        for step in steps {
            writer.text(&form.fill(step, KEY, version)).await.expect("valid");
        }
        // Whatever was known before the end of the transaction, replicas have it all now.
        tokio::time::timeout(Duration::from_secs(3), world.wait_until_read(&mut reader, form)).await.ok();
        world.set_replay(false).await;
        // What is prepared, anybody may end.
        let last_session = if name == "two_phase" { &mut ender } else { &mut writer };
        last_session.text(&form.fill(last, KEY, version)).await.expect("valid");
        assert_seen(&mut reader, form, version, "after its transaction").await;
        for step in after {
            writer.text(step).await.expect("valid");
        }
        world.set_replay(true).await;
        world.wait_until_read(&mut reader, form).await;
    }
}

/// Its first statement says where it belongs, and reads another table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_sees_in_all_statements_what_was_written_before_it() {
    let world = World::start(Mode::Tables, 1).await;
    let (mut writer, mut reader) = (world.session(false).await, world.session(false).await);
    let form = form("update");
    for (version, begin) in [(1, "BEGIN READ ONLY"), (2, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")]
    {
        world.stand_still(&mut reader, form).await;
        writer.write(form, KEY, version).await.expect("valid");
        reader.text(begin).await.expect("valid");
        reader.text("SELECT count(*) FROM keys").await.expect("valid");
        let found = find(&mut reader, form).await;
        reader.text("COMMIT").await.expect("valid");
        assert_eq!(found.version, version, "{begin}, on a replica: {}", found.on_replica);
        world.set_replay(true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_begins_after_a_write_sees_it() {
    let world = World::start(Mode::Tables, 1).await;
    let (mut writer, mut reader) = (world.session(false).await, world.session(false).await);
    let form = form("update");
    world.stand_still(&mut reader, form).await;
    writer.write(form, KEY, 1).await.expect("valid");
    drop(writer);
    assert_seen(&mut world.session(false).await, form, 1, "in a new session").await;
    assert_seen(&mut world.session(true).await, form, 1, "in another").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_forgets_no_write() {
    let mut world = World::start(Mode::Tables, 1).await;
    let (mut writer, mut reader) = (world.session(false).await, world.session(false).await);
    let form = form("update");
    world.stand_still(&mut reader, form).await;
    writer.write(form, KEY, 1).await.expect("valid");
    let changed = world.config.clone().pool("replicas", &["replica_1", "replica_2"], 7);
    world.proxy.reload_to(&changed).await;
    assert_seen(&mut reader, form, 1, "after a reload").await;
    // One of them is new to it then.
    let less = changed.clone().pool("replicas", &["replica_1"], 7).remove("servers.replica_2");
    for changed in [less, changed] {
        world.proxy.reload_to(&changed).await;
        assert_seen(&mut reader, form, 1, "after a reload with other servers").await;
        assert_seen(&mut world.session(false).await, form, 1, "in a new session").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_begins_knows_of_no_write_and_trusts_no_replica_before() {
    let mut world = World::start(Mode::Tables, 1).await;
    let (mut writer, mut reader) = (world.session(false).await, world.session(false).await);
    let form = form("update");
    world.stand_still(&mut reader, form).await;
    writer.write(form, KEY, 1).await.expect("valid");
    world.proxy.kill();
    world.proxy.boot();
    let mut reader = world.session(false).await;
    // Until it has read the catalog, nothing is a read.
    for _ in 0..100 {
        let found = find(&mut reader, form).await;
        assert_eq!(found.version, 1, "on a replica: {}", found.on_replica);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    world.set_replay(true).await;
    world.wait_until_read(&mut reader, form).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_does_not_go_back_behind_what_the_primary_showed() {
    let world = World::start(Mode::Session, 1).await;
    let (mut other, form) = (world.session(false).await, form("update"));
    let looks: [(&str, &str, Option<&str>); 5] = [
        ("route=primary", "/* bulkhead: route=primary */ SELECT version FROM c_update", None),
        ("FOR UPDATE", "SELECT version FROM c_update WHERE key = 0 FOR UPDATE", None),
        ("RETURNING", "UPDATE c_update SET version = version RETURNING version", None),
        ("a transaction", "BEGIN; SELECT version FROM c_update; COMMIT", None),
        // It is there already: the other has written it.
        ("an error", "INSERT INTO c_update VALUES (0, 0)", Some("23505")),
    ];
    for (version, (what, sql, fails)) in (1..).zip(looks) {
        let (mut session, mut blind) = (world.session(false).await, world.session(false).await);
        world.stand_still(&mut session, form).await;
        other.write(form, KEY, version).await.expect("valid");
        let told = session.text(sql).await.err().map(|failed| failed.code);
        assert_eq!(told.as_deref(), fails, "{sql}");
        assert_seen(&mut session, form, version, &format!("after {what}")).await;
        // Whoever has seen nothing is promised nothing: replicas are read.
        let found = find(&mut blind, form).await;
        assert_eq!(found, Found { version: version - 1, on_replica: true }, "after {what}");
        world.set_replay(true).await;
        world.wait_until_read(&mut session, form).await;
    }
}

/// Whether it was done nobody knows; that is no reason to leave replicas alone for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_read_again_after_a_write_was_lost() {
    for name in ["lost", "lost_in_a_function"] {
        let world = World::start(Mode::Tables, 1).await;
        let mut reader = world.session(false).await;
        let form = form("lost");
        world.wait_until_read(&mut reader, form).await;
        let mut writer = world.session(true).await;
        let Session::Raw(raw, _) = &mut writer else { panic!("it is raw") };
        let lost = if name == "lost" {
            "UPDATE c_lost SET version = 1; SELECT pg_sleep(0.1)"
        } else {
            "DO $$ BEGIN UPDATE c_lost SET version = 1; PERFORM pg_sleep(0.1); END $$"
        };
        raw.query(lost).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        drop(writer);
        world.primary.wait_for_app_backends("state <> 'idle'", 0).await;
        // Not only the first read: each shows what may be new.
        let mut count = 0;
        let began = tokio::time::Instant::now();
        while count < 20 && began.elapsed() < Duration::from_secs(10) {
            count += usize::from(find(&mut reader, form).await.on_replica);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(count, 20, "{name}: reads of 10 s on replicas");
    }
}

/// A notification comes with the commit, and nobody but the server knows yet that it is done.
async fn listen_and_read(mode: Mode) {
    let world = World::start(mode, 1).await;
    let form = form("update");
    let mut writer = RawClient::app(world.proxy.port()).await;
    let mut reader = world.session(true).await;
    reader.text("LISTEN news").await.expect("valid");
    for version in 1..=5 {
        world.stand_still(&mut reader, form).await;
        let sql = format!(
            "BEGIN; UPDATE c_update SET version = {version}; NOTIFY news, '{version}'; COMMIT; SELECT pg_sleep(0.3)"
        );
        writer.query(&sql).await;
        let Session::Raw(raw, _) = &mut reader else { panic!("it is raw") };
        raw.expect("A").await;
        let found = find(&mut reader, form).await;
        assert_eq!(found.version, version, "{mode}, on a replica: {}", found.on_replica);
        writer.read_until_ready().await;
        world.set_replay(true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_shows_a_commit_to_whom_it_notifies() {
    listen_and_read(Mode::Tables).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_shows_a_commit_to_whom_it_notifies() {
    listen_and_read(Mode::Session).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strong_shows_a_commit_to_whom_it_notifies() {
    listen_and_read(Mode::Strong).await;
}

/// Statements that show what `c_update` holds at the primary, beside a plain read of it.
const LOOKS: [&str; 14] = [
    "/* bulkhead: route=primary */ SELECT version FROM c_update WHERE key = 0",
    "SELECT version FROM c_update WHERE key = 0 FOR UPDATE",
    "UPDATE c_update SET version = version RETURNING version",
    "BEGIN; SELECT version FROM c_update WHERE key = 0; COMMIT",
    "BEGIN; DECLARE c CURSOR FOR SELECT version FROM c_update WHERE key = 0; FETCH c; COMMIT",
    "INSERT INTO c_insert SELECT 9, version FROM c_update WHERE key = 0 RETURNING version",
    "UPDATE c_upsert SET version = u.version FROM c_update u WHERE u.key = 0 RETURNING u.version",
    "DELETE FROM c_insert USING c_update u WHERE u.key = 0 AND c_insert.key = 9 RETURNING u.version",
    "WITH w AS (UPDATE keys SET key = key RETURNING 1) SELECT version FROM c_update, (SELECT count(*) FROM w) n \
     WHERE key = 0",
    "SELECT version, nextval('looks') FROM c_update WHERE key = 0",
    "SELECT version FROM c_update, pg_catalog.pg_class WHERE key = 0 AND relname = 'c_update'",
    "PREPARE look AS SELECT version FROM c_update WHERE key = 0; EXECUTE look; DEALLOCATE look",
    "SELECT look_again()",
    "SET LOCAL work_mem = '1MB'; SELECT version FROM c_update WHERE key = 0",
];

/// What is committed shows, though its client has not been told: nobody who has seen it goes back behind it.
async fn look_and_read(mode: Mode) {
    let world = World::start(mode, 1).await;
    world
        .primary
        .query(
            "CREATE SEQUENCE looks; GRANT ALL ON SEQUENCE looks TO app; CREATE FUNCTION look_again() RETURNS bigint \
             LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT version FROM c_update WHERE key = 0); END'",
        )
        .await;
    let form = form("update");
    let mut wrong = Vec::new();
    for (version, sql) in (1..).zip(LOOKS) {
        let (mut writer, mut reader) = (RawClient::app(world.proxy.port()).await, world.session(false).await);
        world.stand_still(&mut reader, form).await;
        writer
            .query(&format!("BEGIN; UPDATE c_update SET version = {version}; COMMIT; SELECT pg_sleep(2)"))
            .await;
        let is_there = format!("SELECT version FROM c_update WHERE version = {version}");
        eventually("the write is committed", Duration::from_secs(2), async || {
            (!world.primary.query(&is_there).await.is_empty()).then_some(())
        })
        .await;
        let seen = reader.text(sql).await.unwrap_or_else(|failed| panic!("{sql}: {failed:?}"));
        let seen = seen.last().and_then(|row| row.first()).cloned();
        let found = find(&mut reader, form).await;
        if (seen.as_deref(), found.version) != (Some(&*version.to_string()), version) {
            wrong.push(format!("{sql}: {seen:?} and then {found:?} where {version} was written"));
        }
        writer.read_until_ready().await;
        world.set_replay(true).await;
    }
    assert!(wrong.is_empty(), "{mode}, {} of {}:\n{}", wrong.len(), LOOKS.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_does_not_go_back_behind_a_commit_that_showed_early() {
    look_and_read(Mode::Tables).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_does_not_go_back_behind_a_commit_that_showed_early() {
    look_and_read(Mode::Session).await;
}

/// A server sends what it has to say when that is a lot, whether or not the answer is at its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_in_the_middle_of_an_answer_counts() {
    let world = World::start(Mode::Tables, 1).await;
    let (mut reader, form) = (world.session(false).await, form("update"));
    let mut writer = RawClient::app(world.proxy.port()).await;
    let much = "SELECT repeat('x', 20000)";
    let late = "SELECT pg_sleep(1)";
    let update = "UPDATE c_update SET version = version + 1";
    for (version, is_pipeline) in [(1, false), (2, true)] {
        world.stand_still(&mut reader, form).await;
        if is_pipeline {
            for (sql, is_end) in [(update, true), (much, false), (late, true)] {
                writer.parse("", sql).bind("", "", &[]).execute("", 0);
                if is_end {
                    writer.sync();
                }
            }
            writer.flush().await;
        } else {
            writer.query(&format!("BEGIN; {update}; COMMIT; {much}; {late}")).await;
        }
        // The COMMIT, or what is a transaction by itself, is told when rows come.
        while writer.read_message().await.tag != b'D' {}
        assert_seen(&mut reader, form, version, "while the answer goes on").await;
        writer.read_until_ready().await;
        world.set_replay(true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_is_held_until_a_replica_has_caught_up() {
    let world = World::configured(1, |config| config.set("pools.replicas", "causal_wait", "4s")).await;
    let (mut writer, mut reader) = (world.session(false).await, world.session(false).await);
    let form = form("update");
    // Less than that.
    world.stand_still(&mut reader, form).await;
    writer.write(form, KEY, 1).await.expect("valid");
    let began = tokio::time::Instant::now();
    let resume = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.set_replay(true).await;
    };
    let (found, ()) = tokio::join!(find(&mut reader, form), resume);
    let took = began.elapsed();
    assert_eq!(found, Found { version: 1, on_replica: true }, "after {took:?}");
    assert!(took >= Duration::from_millis(290), "{took:?}");

    // And more: at the end the primary answers.
    world.stand_still(&mut reader, form).await;
    writer.write(form, KEY, 2).await.expect("valid");
    let began = tokio::time::Instant::now();
    assert_seen(&mut reader, form, 2, "at the end of causal_wait").await;
    let took = began.elapsed();
    let bound = Duration::from_millis(3_900)..Duration::from_secs(8);
    assert!(bound.contains(&took), "{took:?}");
    world.set_replay(true).await;
    eventually("replicas are read at once again", Duration::from_secs(10), async || {
        find(&mut reader, form).await.on_replica.then_some(())
    })
    .await;
}
