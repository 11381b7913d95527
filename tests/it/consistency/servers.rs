//! Servers that come back as others than they were: behind what they have shown, as another host, or on another timeline.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::{Login, Postgres, eventually};

use super::{
    forms::{Form, named},
    reads::Read,
    session::Session,
    world::{KEY, Mode, World, set_delay},
};

/// For so long nothing that is older is read: longer than any server goes without being asked.
const WATCHED: Duration = Duration::from_secs(4);

/// Reads until a version is found, through connections that are lost.
async fn until_found(world: &World, form: &Form, version: u64) {
    eventually("it is found", Duration::from_secs(10), async || {
        let mut session = Session::open(world.proxy.port(), false).await.ok()?;
        let found = Read::Plain.run(&mut session, form, KEY, "").await.ok()?;
        (found.version == version).then_some(())
    })
    .await;
}

/// None of the sessions finds anything else than this version for a while, nor does one that begins where that is
/// promised. What is sent on a connection that was lost fails, once.
async fn watch(world: &World, mode: Mode, sessions: &mut [Session], form: &Form, version: u64, when: &str) {
    let began = Instant::now();
    let mut answered = 0;
    while began.elapsed() < WATCHED {
        let mut fresh = Vec::new();
        if mode != Mode::Session {
            fresh.extend(Session::open(world.proxy.port(), false).await.ok());
        }
        for session in sessions.iter_mut().chain(&mut fresh) {
            let Ok(found) = Read::Plain.run(session, form, KEY, "").await else { continue };
            answered += 1;
            let (at, place) = (began.elapsed(), found.on_replica);
            assert_eq!(found.version, version, "{mode}, {when}, after {at:?}, on a replica: {place}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(answered > 20, "{mode}, {when}: {answered} reads");
}

/// Servers are asked where they are so seldom that a read comes first.
async fn seldom_asked(mode: Mode) -> World {
    World::configured(1, |config| {
        let config = config.set("pools.replicas", "consistency", mode.to_string());
        // A strong read waits until they are.
        let interval = if mode == Mode::Strong { "50ms" } else { "2s" };
        config.set("pools.replicas", "sample_interval", interval)
    })
    .await
}

/// A replica that crashes begins at what it had on its disk, which may be less than it has shown.
async fn crash_behind(mode: Mode) {
    let world = seldom_asked(mode).await;
    let form = named("update");
    let mut writer = world.session(false).await;
    let mut readers = [world.session(false).await, world.session(true).await];
    // What they begin at.
    world.primary.query("CHECKPOINT").await;
    world.heal().await;
    for replica in &world.replicas {
        replica.query("CHECKPOINT").await;
    }
    writer.write(form, KEY, 1).await.expect("valid");
    world.heal().await;
    for reader in &mut readers {
        eventually("it is read on a replica", Duration::from_secs(10), async || {
            (world.wait_until_read(reader, form).await == 1).then_some(())
        })
        .await;
    }
    for replica in &world.replicas {
        set_delay(replica, 3_600_000).await;
        replica.kill();
        replica.boot();
        assert_eq!(replica.value("SELECT version FROM c_update WHERE key = 0").await, "0", "it is behind");
    }
    watch(&world, mode, &mut readers, form, 1, "replicas have come back behind").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_does_not_read_a_replica_that_comes_back_behind() {
    crash_behind(Mode::Tables).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_does_not_go_back_on_a_replica_that_comes_back_behind() {
    crash_behind(Mode::Session).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strong_does_not_read_a_replica_that_comes_back_behind() {
    crash_behind(Mode::Strong).await;
}

fn ports(servers: &[&Postgres]) -> Vec<u16> {
    servers.iter().map(|server| server.port()).collect()
}

/// One replica of the configuration has two hosts, of which the second is behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_host_in_place_of_a_replica_is_not_read_before_it_has_all() {
    for mode in [Mode::Tables, Mode::Session] {
        let mut world = seldom_asked(mode).await;
        let [one, two] = &world.replicas[..] else { panic!("two") };
        let url = Login::App.url_of_hosts(&ports(&[one, two]), "");
        let config = world.config.clone().set("servers.replica_1", "url", url);
        let config = config.remove("servers.replica_2").pool("replicas", &["replica_1"], 10);
        world.proxy.reload_to(&config).await;
        let form = named("update");
        let (mut writer, mut reader) = (world.session(false).await, world.session(false).await);
        world.wait_until_read(&mut reader, form).await;
        let [one, two] = &world.replicas[..] else { panic!("two") };
        two.set_replay(false).await;
        writer.write(form, KEY, 1).await.expect("valid");
        one.wait_for_replay(&world.primary).await;
        eventually("it is read on the first host", Duration::from_secs(10), async || {
            (world.wait_until_read(&mut reader, form).await == 1).then_some(())
        })
        .await;
        one.kill();
        let mut readers = [reader];
        watch(&world, mode, &mut readers, form, 1, "on another host").await;
    }
}

/// The first replica becomes the primary; the second is left with what it had, on the old timeline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_of_the_old_timeline_is_not_read() {
    let mut world = World::start(Mode::Tables, 1).await;
    let url = Login::App
        .url_of_hosts(&ports(&[&world.primary, &world.replicas[0]]), "?target_session_attrs=read-write");
    let config = world.config.clone().set("servers.primary", "url", url);
    let config = config.remove("servers.replica_1").pool("replicas", &["replica_2"], 10);
    world.proxy.reload_to(&config).await;
    let form = named("update");
    let mut reader = world.session(false).await;
    world.wait_until_read(&mut reader, form).await;
    world.primary.kill();
    world.replicas[0].promote().await;
    let mut writer = eventually("the new primary takes writes", Duration::from_secs(15), async || {
        let mut writer = Session::open(world.proxy.port(), false).await.ok()?;
        writer.write(form, KEY, 1).await.ok().map(|()| writer)
    })
    .await;
    until_found(&world, form, 1).await;
    let mut readers = [reader, world.session(false).await];
    watch(&world, Mode::Tables, &mut readers, form, 1, "after a promotion").await;
    writer.write(form, KEY, 2).await.expect("valid");
    watch(&world, Mode::Tables, &mut readers, form, 2, "after another write").await;
}
