//! Makes a sequence with a fault shorter, as long as it fails alike.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use super::world::{Fault, Place, Step, World};

/// Shorter sequences that are tried; each takes a new proxy.
const TRIES: usize = 20;

/// It need not be the shortest one.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn shrink(
    world: &mut World,
    place: Place,
    mut steps: Vec<Step>,
    mut fault: Fault,
) -> (Vec<Step>, Fault) {
    steps.truncate(fault.step + 1);
    let mut run = steps.len() / 2;
    let mut tries = TRIES;
    let end = Instant::now() + PATIENCE;
    while run > 0 && tries > 0 {
        let mut at = 0;
        while at < steps.len() && tries > 0 && Instant::now() < end {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + run).min(steps.len()));
            if fewer.is_empty() {
                break;
            }
            tries -= 1;
            let mut stage = world.stage(place).await;
            match world.take(&mut stage, &fewer).await {
                Err(same) if same.kind == fault.kind => {
                    fewer.truncate(same.step + 1);
                    (steps, fault) = (fewer, same);
                }
                _ => at += run,
            }
        }
        run /= 2;
    }
    (steps, fault)
}

pub(super) fn tell(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        match step {
            Step::Leave(attacker) => writeln!(text, "  {attacker}: leaves"),
            Step::Attack(attack) => {
                let start = if attack.as_tenant { " as t1" } else { "" };
                let tongue = attack.way().tongue.unwrap_or(attack.tongue);
                let (attacker, way, how) = (attack.attacker, attack.way().name, attack.how);
                writeln!(text, "  {attacker}: {way}, {how:?}, {tongue}{start}")
            }
        }
        .expect("text takes text");
    }
    text
}
