//! What operators do to Bulkhead: reloads, stops, kills; and what they do to the catalog.

use std::time::Duration;

use crate::support::{Login, Signal};

use super::{ALL, Bound, Fault, Group, LISTEN, pause};
use crate::drill::stage::{SOON, Shape, Stage};

pub(in crate::drill) static OPERATORS: Group = Group {
    shape: Shape::Replicated,
    faults: &[
        Fault {
            name: "reload: pools grow and shrink",
            bring: |stage| Box::pin(resized(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "reload of a wrong file",
            bring: |stage| Box::pin(wrong_file(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "reload takes the replicas away, and back",
            bring: |stage| Box::pin(without_replicas(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "reload takes away the pool that a client is bound to",
            bring: |stage| Box::pin(without_pool(stage)),
            own: "3D000",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "reload changes the URL of the primary",
            bring: |stage| Box::pin(another_url(stage)),
            own: "",
            sees: &[(LISTEN, "57P01†")],
            bound: Bound::Wait,
        },
        Fault {
            name: "catalog cannot be read",
            bring: |stage| Box::pin(unreadable(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "Bulkhead stopped (SIGTERM) and started",
            bring: |stage| Box::pin(async { stopped(stage) }),
            own: "",
            sees: &[(ALL, "57P01† closed†")],
            bound: Bound::Wait,
        },
        Fault {
            name: "Bulkhead killed (-9) and started",
            bring: |stage| Box::pin(async { killed(stage) }),
            own: "",
            sees: &[(ALL, "closed†")],
            bound: Bound::Wait,
        },
        Fault {
            name: "Bulkhead frozen for 1 s (SIGSTOP)",
            bring: |stage| Box::pin(frozen(stage)),
            own: "",
            sees: &[],
            bound: Bound::Pause(1000),
        },
    ],
};

async fn resized(stage: &mut Stage) {
    for less in [4, 1, 3, 0] {
        let places = stage.places - less;
        stage.reconfigure(|config| config.set("pools.primary", "max_connections", places)).await;
        stage.units(10).await;
    }
    stage.restore().await;
}

async fn wrong_file(stage: &mut Stage) {
    let wrong = stage.config.clone().set("pools.primary", "wait_timeout", "soon").to_toml();
    for text in ["this is no TOML", &wrong] {
        stage.proxy.reload_in_vain(text).await;
        stage.units(10).await;
    }
    stage.restore().await;
}

async fn without_replicas(stage: &mut Stage) {
    stage.reconfigure(|config| config.remove("pools.replicas").remove("servers.replica_1")).await;
    stage.units(20).await;
    stage.restore().await;
    stage.units(20).await;
}

async fn without_pool(stage: &mut Stage) {
    stage.reconfigure(|config| config.pool("extra", &["primary"], 2)).await;
    let mut client = stage.client_with(&[("database", "app@extra")]).await;
    assert_eq!(client.query_value("SELECT 1").await, "1");
    stage.restore().await;
    client.query("SELECT 2").await;
    stage.told(&mut client).await;
}

/// Past the relay, and back.
async fn another_url(stage: &mut Stage) {
    let straight = stage.cluster.primary.url(Login::App);
    stage.reconfigure(|config| config.set("servers.primary", "url", straight)).await;
    stage.units(20).await;
    stage.restore().await;
    stage.units(20).await;
}

/// By a right that everybody has by default. A new function makes it worth reading.
async fn unreadable(stage: &mut Stage) {
    let before = stage.proxy.log().len();
    let change = "CREATE OR REPLACE FUNCTION drill_other() RETURNS int LANGUAGE sql AS 'SELECT 1'";
    stage.primary().query(&format!("REVOKE SELECT ON pg_proc FROM PUBLIC; {change}")).await;
    eventually_logged(stage, before, "the catalog could not be read").await;
    stage.units(20).await;
    stage.primary().query("GRANT SELECT ON pg_proc TO PUBLIC").await;
    stage.healed();
    eventually_logged(stage, before, "the catalog can be read again").await;
}

async fn eventually_logged(stage: &Stage, before: usize, text: &str) {
    crate::support::eventually(&format!("the log says {text}"), SOON, async || {
        stage.proxy.log()[before..].contains(text).then_some(())
    })
    .await;
}

fn stopped(stage: &mut Stage) {
    stage.proxy.signal(Signal::TERM);
    stage.proxy.wait(Duration::from_secs(10));
    stage.proxy.boot();
}

fn killed(stage: &mut Stage) {
    stage.proxy.kill();
    stage.proxy.boot();
}

async fn frozen(stage: &mut Stage) {
    stage.proxy.signal(Signal::STOP);
    pause(1000).await;
    stage.proxy.signal(Signal::CONT);
}
