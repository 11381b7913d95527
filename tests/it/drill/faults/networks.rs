//! Networks that cut, stall, lose and delay.

use super::{
    ALL, Bound, Fault, Group, JOB, LISTEN, LOST, PINNED, PIPELINE, READ, TRANSACTION, WRITERS, pause,
};
use crate::drill::stage::{Shape, Stage};

pub(in crate::drill) static NETWORKS: Group = Group {
    shape: Shape::Replicated,
    faults: &[
        Fault {
            name: "connections to the primary reset",
            bring: |stage| Box::pin(reset(stage)),
            own: "",
            sees: LOST,
            bound: Bound::Wait,
        },
        Fault {
            name: "primary unreachable for 0.5 s (reset, then refused)",
            bring: |stage| Box::pin(refused(stage)),
            own: "",
            sees: &[
                (WRITERS, "08006 53300"),
                (TRANSACTION, "08007"),
                (PIPELINE, "08006†"),
                (LISTEN, "08006 08006† 53300 57P01†"),
                (PINNED, "08006 08006† 53300"),
            ],
            bound: Bound::Wait,
        },
        Fault {
            name: "a request cut in the middle",
            bring: |stage| Box::pin(request_cut(stage)),
            own: "",
            sees: LOST,
            bound: Bound::Wait,
        },
        Fault {
            name: "an answer cut in the middle",
            bring: |stage| Box::pin(answer_cut(stage)),
            own: "",
            // In the middle of a message that the client has a part of, nothing can be said.
            sees: &[
                (WRITERS, "08006 closed†"),
                (TRANSACTION, "08007"),
                (PIPELINE, "08006†"),
                (LISTEN, "08006 08006† 57P01† closed†"),
                (PINNED, "08006 08006† closed†"),
            ],
            bound: Bound::Wait,
        },
        Fault {
            name: "network to the primary stalls for 1 s",
            bring: |stage| Box::pin(stalled(stage)),
            own: "",
            sees: &[],
            bound: Bound::Pause(1000),
        },
        Fault {
            name: "network to the primary slow (50 ms each way)",
            bring: |stage| Box::pin(slow(stage)),
            own: "",
            sees: &[],
            bound: Bound::Wait,
        },
        Fault {
            name: "packets to and from the primary vanish",
            bring: |stage| Box::pin(vanished(stage)),
            own: "",
            sees: &[
                (WRITERS, "08006 53300"),
                (TRANSACTION, "08007"),
                (PIPELINE, "08006†"),
                (LISTEN, "08006 08006† 53300 57P01†"),
                (PINNED, "08006 08006† 53300"),
            ],
            bound: Bound::Answer,
        },
        Fault {
            name: "packets to and from the replica vanish",
            bring: |stage| Box::pin(replica_vanished(stage)),
            own: "",
            sees: &[(READ, "08006 53300")],
            bound: Bound::Silence,
        },
        Fault {
            name: "connections to the job database reset",
            bring: |stage| Box::pin(jobs_reset(stage)),
            own: "",
            sees: &[(JOB, "08006 08006†")],
            bound: Bound::Wait,
        },
        Fault {
            name: "connections of clients reset",
            bring: |stage| Box::pin(clients_reset(stage)),
            own: "",
            sees: &[(ALL, "closed†")],
            bound: Bound::Wait,
        },
        Fault {
            name: "network to the clients stalls for 1 s",
            bring: |stage| Box::pin(clients_stalled(stage)),
            own: "",
            sees: &[],
            bound: Bound::Pause(1000),
        },
    ],
};

async fn reset(stage: &mut Stage) {
    stage.relays.primary.cut();
    stage.healed();
    stage.units(10).await;
}

async fn refused(stage: &mut Stage) {
    stage.relays.primary.refuse(true);
    stage.relays.primary.cut();
    pause(500).await;
    stage.relays.primary.refuse(false);
}

/// Somewhere in what is sent next.
async fn request_cut(stage: &mut Stage) {
    let after = stage.random.below(700) as usize;
    stage.relays.primary.cut_after(Some(after), None);
    stage.units(30).await;
}

async fn answer_cut(stage: &mut Stage) {
    let after = stage.random.below(300) as usize;
    stage.relays.primary.cut_after(None, Some(after));
    stage.units(30).await;
}

async fn stalled(stage: &mut Stage) {
    stage.relays.primary.stall(true);
    pause(1000).await;
    stage.relays.primary.stall(false);
}

async fn slow(stage: &mut Stage) {
    stage.relays.primary.delay(std::time::Duration::from_millis(50));
    stage.units(20).await;
    stage.relays.primary.delay(std::time::Duration::ZERO);
}

/// For good: the connections that were open then are never of use again.
async fn vanished(stage: &mut Stage) {
    stage.relays.primary.vanish(true);
    pause(2500).await;
    let all = stage.primary().query("SELECT pid FROM pg_stat_activity WHERE usename = 'app'").await;
    stage.stranded = all.into_iter().flatten().flatten().collect();
    stage.relays.primary.vanish(false);
}

async fn replica_vanished(stage: &mut Stage) {
    stage.relays.replica.vanish(true);
    pause(2500).await;
    stage.relays.replica.vanish(false);
}

async fn jobs_reset(stage: &mut Stage) {
    stage.relays.jobs.cut();
    stage.healed();
    stage.units(10).await;
}

async fn clients_reset(stage: &mut Stage) {
    stage.relays.clients.cut();
    stage.healed();
    stage.units(10).await;
}

async fn clients_stalled(stage: &mut Stage) {
    stage.relays.clients.stall(true);
    pause(1000).await;
    stage.relays.clients.stall(false);
}
