//! For whom a promise is kept: sessions that ask for another one, that come by another pool, as another user, or past
//! Bulkhead.

use std::{fs, time::Duration};

use crate::support::{Login, ProxyConfig, Scratch, connect, eventually};

use super::{
    forms::{FORMS, Form, Kind, named},
    reads::{Found, READS, Read},
    session::Session,
    world::{KEY, Mode, World},
};

const UPDATE: &Form = &FORMS[0][0];

async fn find_with(session: &mut Session, hint: &str) -> Found {
    Read::Plain.run(session, UPDATE, KEY, hint).await.expect("the statement is valid")
}

async fn find(session: &mut Session) -> Found {
    find_with(session, "").await
}

fn at_primary(version: u64) -> Found {
    Found { version, on_replica: false }
}

fn on_replica(version: u64) -> Found {
    Found { version, on_replica: true }
}

/// Every form, read back in every form by the session that has written it, while replicas stand still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_sees_its_own_writes_in_every_form() {
    let world = World::start(Mode::Session, 1).await;
    let mut wrong = Vec::new();
    for form in FORMS.iter().copied().flatten().filter(|form| form.kind != Kind::Unknown) {
        let mut session = world.session(form.is_raw()).await;
        if form.kind != Kind::AtPrimary {
            world.stand_still(&mut session, form).await;
        }
        if let Err(failed) = session.write(form, KEY, 1).await {
            wrong.push(format!("{}: {failed:?}", form.name));
            continue;
        }
        for is_tidied in [false, true] {
            if is_tidied {
                session.tidy(form, KEY, 1).await.expect("nothing is in its way");
            }
            for read in READS.into_iter().filter(|read| read.fits(form) && read.fits_session(form.is_raw())) {
                // A transaction may still be open, in which none begins; or another table may be in front.
                if !is_tidied
                    && (matches!(read, Read::Transaction | Read::Snapshot | Read::Opened)
                        || form.name == "shadow")
                {
                    continue;
                }
                match read.run(&mut session, form, KEY, "").await {
                    Ok(found) if found == at_primary(1) => {}
                    other => wrong.push(format!("{}, tidied: {is_tidied}: {read:?}: {other:?}", form.name)),
                }
            }
        }
        world.set_replay(true).await;
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_promises_others_nothing() {
    let world = World::start(Mode::Session, 1).await;
    let (mut writer, mut other) = (world.session(false).await, world.session(false).await);
    world.stand_still(&mut other, UPDATE).await;
    writer.write(UPDATE, KEY, 1).await.expect("valid");
    assert_eq!(find(&mut writer).await, at_primary(1));
    assert_eq!(find(&mut other).await, on_replica(0));
    world.set_replay(true).await;
    assert_eq!(world.wait_until_read(&mut writer, UPDATE).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strong_sees_what_was_written_past_it_in_every_form() {
    let world = World::start(Mode::Strong, 1).await;
    let past = connect(&world.primary.url(Login::App)).await.expect("the primary accepts connections");
    let mut readers = [world.session(false).await, world.session(true).await];
    let mut wrong = Vec::new();
    for (version, read) in (1..).zip(READS) {
        let reader = &mut readers[usize::from(!read.fits_session(false))];
        world.stand_still(reader, UPDATE).await;
        past.batch_execute(&UPDATE.fill("UPDATE c_{f} SET version = {v} WHERE key = {k}", KEY, version))
            .await
            .expect("valid");
        match read.run(reader, UPDATE, KEY, "").await {
            Ok(found) if found == at_primary(version) => {}
            other => wrong.push(format!("{read:?}: {other:?}")),
        }
        world.set_replay(true).await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_leaves_other_tables_to_replicas() {
    let world = World::start(Mode::Tables, 1).await;
    let (mut writer, mut reader) = (world.session(false).await, world.session(false).await);
    let other = &FORMS[0][1];
    world.stand_still(&mut reader, other).await;
    writer.write(UPDATE, KEY, 1).await.expect("valid");
    for _ in 0..3 {
        assert_eq!(find(&mut writer).await, at_primary(1));
        let found = Read::Plain.run(&mut writer, other, KEY, "").await.expect("valid");
        assert_eq!(found, on_replica(0), "nobody has written `{}`", other.name);
    }
    world.set_replay(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_and_a_statement_ask_for_a_promise() {
    let world = World::start(Mode::Eventual, 1).await;
    let mut writer = world.session(false).await;
    let mut plain = world.session(false).await;
    let mut at_start = world.session_with(false, "-c bulkhead.consistency=tables").await;
    let mut set = world.session(false).await;
    world.stand_still(&mut plain, UPDATE).await;
    writer.write(UPDATE, KEY, 1).await.expect("valid");
    assert_eq!(find(&mut plain).await, on_replica(0), "nothing is promised");
    assert_eq!(find(&mut at_start).await, at_primary(1));
    for mode in ["tables", "strong"] {
        set.text(&format!("SET bulkhead.consistency = '{mode}'")).await.expect("valid");
        assert_eq!(find(&mut set).await, at_primary(1), "SET to {mode}");
        set.text("RESET bulkhead.consistency").await.expect("valid");
        let hint = format!("/* bulkhead: consistency={mode} */ ");
        assert_eq!(find_with(&mut plain, &hint).await, at_primary(1), "{hint}");
    }
    // For one statement only.
    let mut fresh = world.session(false).await;
    assert_eq!(find_with(&mut fresh, "/* bulkhead: consistency=eventual */ ").await, on_replica(0));
    assert_eq!(find_with(&mut at_start, "/* bulkhead: consistency=eventual */ ").await, on_replica(0));
    assert_eq!(find(&mut at_start).await, at_primary(1));
    // What is set in a transaction that is rolled back is not set.
    let mut undone = world.session(false).await;
    undone.text("BEGIN; SET bulkhead.consistency = 'tables'; ROLLBACK").await.expect("valid");
    assert_eq!(find(&mut undone).await, on_replica(0));
    world.set_replay(true).await;
}

/// Workers and jobs have pools of their own on the primary; whoever asks for a pool by the name of the database has that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_counts_by_whichever_pool_it_comes() {
    let world = World::configured(1, |config: ProxyConfig| {
        config
            .pool("workers", &["primary"], 4)
            .pool("jobs", &["primary"], 4)
            .set("workers", "application_names", vec!["worker-*"])
            .set("jobs.rules", "tables", vec!["b_trigger"])
    })
    .await;
    let url = |database: &str, name: &str| {
        format!("{}?application_name={name}", Login::App.url(world.proxy.port(), database))
    };
    let set = "UPDATE c_update SET version = version + 1";
    // The last is a job, by which a trigger writes another table.
    let ways = [
        ("app", "worker-1", set),
        ("app@primary", "plain", set),
        ("app@workers", "plain", set),
        ("app@jobs", "plain", set),
        ("app", "job", "UPDATE b_trigger SET version = version + 1"),
    ];
    let mut reader = world.session(false).await;
    for (database, name, sql) in ways {
        let form = if name == "job" { named("trigger") } else { UPDATE };
        let before = world.wait_until_read(&mut reader, form).await;
        world.stand_still(&mut reader, form).await;
        let writer = connect(&url(database, name)).await.expect("Bulkhead accepts connections");
        writer.batch_execute(sql).await.expect("valid");
        let found = Read::Plain.run(&mut reader, form, KEY, "").await.expect("valid");
        assert_eq!(found, at_primary(before + 1), "by {name} in {database}");
        world.set_replay(true).await;
        wait_for(&world, &mut reader, form, before + 1).await;
    }
    // And reads by any of them.
    let mut writer = world.session(false).await;
    world.stand_still(&mut reader, UPDATE).await;
    writer.text(set).await.expect("valid");
    let worker = connect(&url("app", "worker-2")).await.expect("Bulkhead accepts connections");
    let row = worker.query_one("SELECT version, quote_ident('x') FROM c_update", &[]).await.expect("valid");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, &str>(1)), (5, "x"));
    world.set_replay(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_counts_by_whichever_user() {
    let folder = Scratch::new();
    let users = folder.path().join("users");
    fs::write(&users, "\"app_two\" \"second\"\n").expect("the folder is writable");
    let users = users.to_str().expect("the path is text");
    let world = World::configured(1, |config| config.set("auth", "users_file", users)).await;
    let mut reader = world.session(false).await;
    world.stand_still(&mut reader, UPDATE).await;
    let other = connect(&world.proxy.url_of(Login::AppTwo)).await.expect("it is in the file");
    other.batch_execute("SET ROLE app; UPDATE c_update SET version = 1").await.expect("valid");
    assert_eq!(find(&mut reader).await, at_primary(1));
    world.set_replay(true).await;
    assert_eq!(world.wait_until_read(&mut reader, UPDATE).await, 1);
}

async fn wait_for(world: &World, reader: &mut Session, form: &Form, version: u64) {
    eventually("replicas have it", Duration::from_secs(10), async || {
        (world.wait_until_read(reader, form).await == version).then_some(())
    })
    .await;
}
