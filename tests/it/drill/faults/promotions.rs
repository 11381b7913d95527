//! A standby takes over. The primary waits for it with every commit, as it must where nothing may be lost.

use super::{Bound, Fault, Group, LISTEN, PINNED, PIPELINE, READ, TRANSACTION, WRITERS};
use crate::drill::stage::{Shape, Stage};

pub(in crate::drill) static PROMOTIONS: Group = Group {
    shape: Shape::Paired,
    faults: &[
        Fault {
            name: "primary killed (-9), its standby promoted",
            bring: |stage| Box::pin(killed(stage)),
            own: "",
            sees: &[
                (WRITERS, "08006"),
                (TRANSACTION, "08007"),
                (PIPELINE, "08006†"),
                (READ, "08006"),
                (LISTEN, "08006 08006† 57P01†"),
                (PINNED, "08006 08006†"),
            ],
            bound: Bound::Hosts,
        },
        Fault {
            name: "standby promoted while the primary goes on",
            bring: |stage| Box::pin(rival(stage)),
            own: "",
            sees: &[
                (WRITERS, "08006 53300"),
                (TRANSACTION, "08007"),
                (PIPELINE, "08006†"),
                (READ, "08006 53300"),
                (LISTEN, "08006 08006† 53300 57P01†"),
                (PINNED, "08006† 53300"),
            ],
            bound: Bound::Hosts,
        },
        Fault {
            name: "primary set read-only, its standby promoted",
            bring: |stage| Box::pin(handed_over(stage)),
            own: "",
            sees: &[
                (WRITERS, "25006 08006"),
                (TRANSACTION, "08007"),
                (PIPELINE, "08006†"),
                (READ, "08006"),
                (LISTEN, "08006 08006† 57P01†"),
                (PINNED, "25006 08006†"),
            ],
            bound: Bound::Hosts,
        },
    ],
};

async fn killed(stage: &mut Stage) {
    stage.cluster.primary.kill();
    promote(stage).await;
}

async fn rival(stage: &mut Stage) {
    promote(stage).await;
}

async fn handed_over(stage: &mut Stage) {
    stage.cluster.primary.query("ALTER SYSTEM SET default_transaction_read_only = on").await;
    stage.cluster.primary.query("SELECT pg_reload_conf()").await;
    promote(stage).await;
}

async fn promote(stage: &mut Stage) {
    stage.cluster.replica.promote().await;
    stage.is_promoted = true;
}
