//! Whole servers that end, restart, freeze or fall behind.

use std::time::Duration;

use crate::support::{Stop, values};

use super::{
    Bound, Fault, Group, JOB, LISTEN, LOST, PINNED, PIPELINE, READ, TOLD, TRANSACTION, WRITERS, pause,
};
use crate::drill::stage::{Shape, Stage, WAIT_TIMEOUT};

/// As long as servers are frozen.
const FROZEN: u64 = 1200;

pub(in crate::drill) static SERVERS: Group = Group {
    shape: Shape::Replicated,
    faults: &[
        Fault {
            name: "primary restarted (fast)",
            bring: |stage| Box::pin(async { restarted(stage, Stop::Fast) }),
            own: "",
            sees: TOLD,
            bound: Bound::Wait,
        },
        Fault {
            name: "primary restarted (immediate)",
            bring: |stage| Box::pin(async { restarted(stage, Stop::Immediate) }),
            own: "",
            sees: LOST,
            bound: Bound::Wait,
        },
        Fault {
            name: "primary killed (-9) and started",
            bring: |stage| Box::pin(async { killed(stage) }),
            own: "",
            sees: LOST,
            bound: Bound::Wait,
        },
        Fault {
            name: "primary down for longer than `wait_timeout`",
            bring: |stage| Box::pin(down(stage)),
            own: "",
            sees: TOLD,
            bound: Bound::Wait,
        },
        Fault {
            name: "primary frozen (SIGSTOP)",
            bring: |stage| Box::pin(frozen(stage)),
            own: "",
            sees: &[],
            bound: Bound::Pause(FROZEN),
        },
        Fault {
            name: "replica restarted (fast)",
            bring: |stage| Box::pin(async { replica_restarted(stage) }),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "replica killed (-9), down for 1 s",
            bring: |stage| Box::pin(replica_killed(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "replica frozen (SIGSTOP)",
            bring: |stage| Box::pin(replica_frozen(stage)),
            own: "",
            sees: &[],
            bound: Bound::Pause(FROZEN),
        },
        Fault {
            name: "replay on the replica paused",
            bring: |stage| Box::pin(replay_paused(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "replica cancels a read (recovery conflict)",
            bring: |stage| Box::pin(conflict(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "job database down for longer than `wait_timeout`",
            bring: |stage| Box::pin(jobs_down(stage)),
            own: "",
            sees: &[(JOB, "57P01 08006 08006†")],
            bound: Bound::Wait,
        },
        Fault {
            name: "all servers killed (-9) and started",
            bring: |stage| Box::pin(async { all_killed(stage) }),
            own: "",
            sees: &[
                (WRITERS, "08006"),
                (TRANSACTION, "08007"),
                (PIPELINE, "08006†"),
                (JOB, "08006 08006† 53300"),
                (READ, "08006"),
                (LISTEN, "08006 08006† 57P01†"),
                (PINNED, "08006 08006†"),
            ],
            bound: Bound::Wait,
        },
    ],
};

fn restarted(stage: &mut Stage, how: Stop) {
    stage.primary().stop(how);
    stage.primary().boot();
}

fn killed(stage: &mut Stage) {
    stage.primary().kill();
    stage.primary().boot();
}

async fn down(stage: &mut Stage) {
    stage.primary().stop(Stop::Fast);
    tokio::time::sleep(WAIT_TIMEOUT + Duration::from_millis(300)).await;
    stage.primary().boot();
}

async fn frozen(stage: &mut Stage) {
    stage.primary().pause();
    pause(FROZEN).await;
    stage.primary().resume();
}

fn replica_restarted(stage: &mut Stage) {
    stage.replica().restart();
}

async fn replica_killed(stage: &mut Stage) {
    stage.replica().kill();
    pause(1000).await;
    stage.replica().boot();
}

async fn replica_frozen(stage: &mut Stage) {
    stage.replica().pause();
    pause(FROZEN).await;
    stage.replica().resume();
}

async fn replay_paused(stage: &mut Stage) {
    stage.replica().set_replay(false).await;
    stage.units(20).await;
    stage.replica().set_replay(true).await;
}

/// A read that is cancelled is run once more, on the primary.
async fn conflict(stage: &mut Stage) {
    let repeats = "bulkhead_repeats_total{reason=\"conflict\"}";
    let before = stage.proxy.metric(repeats).await.unwrap_or(0.0);
    stage.replica().query("ALTER SYSTEM SET max_standby_streaming_delay = '20ms'").await;
    stage.replica().query("SELECT pg_reload_conf()").await;
    let mut reader = stage.client().await;
    let sql = "SELECT count(*) FROM drill_known, generate_series(1, 3000000) n";
    stage.begin_read_on_replica(&mut reader, sql, "generate_series").await;
    stage.primary().query("BEGIN; LOCK TABLE drill_known; COMMIT").await;
    let answer = reader.read_until_ready().await;
    assert_eq!(values(&answer), ["6000000"], "{:?}", answer.first());
    assert!(stage.proxy.metric(repeats).await > Some(before), "it was cancelled");
    stage.replica().query("ALTER SYSTEM RESET max_standby_streaming_delay").await;
    stage.replica().query("SELECT pg_reload_conf()").await;
}

async fn jobs_down(stage: &mut Stage) {
    stage.cluster.jobs.stop(Stop::Fast);
    tokio::time::sleep(WAIT_TIMEOUT + Duration::from_millis(300)).await;
    stage.cluster.jobs.boot();
}

fn all_killed(stage: &mut Stage) {
    let servers = [&stage.cluster.primary, &stage.cluster.replica, &stage.cluster.jobs];
    for server in servers {
        server.kill();
    }
    for server in servers {
        server.boot();
    }
}
