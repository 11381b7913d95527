//! Makes a failing case smaller: first without whole sessions, then without runs of steps, as long as it fails alike.

use super::difference::{Difference, Stage, Step};

/// Runs of a smaller case; each takes up to a second.
const TRIES: usize = 60;

pub(super) async fn shrink(stage: &mut impl Stage, difference: Difference) -> Difference {
    let mut best = difference;
    let kind = best.kind();
    let mut tries = TRIES;
    // The sessions that matter are often the one that fails, alone.
    let alone = best.steps.last().map_or(0, |step| step.session);
    let own: Vec<_> = best.steps.iter().filter(|step| step.session == alone).cloned().collect();
    try_steps(stage, &mut best, &kind, own, &mut tries).await;
    for session in 0..best.size.sessions {
        let fewer: Vec<_> = best.steps.iter().filter(|step| step.session != session).cloned().collect();
        if fewer.len() == best.steps.len() {
            continue;
        }
        try_steps(stage, &mut best, &kind, fewer, &mut tries).await;
    }
    let mut run = best.steps.len().div_ceil(2);
    while run > 0 {
        let mut at = 0;
        let mut any = false;
        while at < best.steps.len() {
            let mut fewer = best.steps.clone();
            fewer.drain(at..(at + run).min(best.steps.len()));
            if try_steps(stage, &mut best, &kind, fewer, &mut tries).await {
                any = true;
            } else {
                at += run;
            }
        }
        if run > 1 || !any {
            run /= 2;
        }
    }
    best
}

/// Whether these steps fail alike; they are the best then.
async fn try_steps(
    stage: &mut impl Stage,
    best: &mut Difference,
    kind: &str,
    steps: Vec<Step>,
    tries: &mut usize,
) -> bool {
    if *tries == 0 || steps.is_empty() {
        return false;
    }
    *tries -= 1;
    match stage.replay(&steps, best.size).await {
        Err(smaller) if smaller.kind() == kind && smaller.is_refusal() == best.is_refusal() => {
            *best = smaller;
            true
        }
        _ => false,
    }
}
