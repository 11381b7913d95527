//! `bulkhead jobs move`: a job library's tables to the job database, and back, while workers run.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use super::sides::{CONNECT_TIMEOUT, JobsError, SILENCE, all_rules, places};
use crate::{
    config::Config,
    outbox::moving::{Instances, MoveError, Mover, Options},
    startup::build::server_of,
};

pub use crate::outbox::moving::Direction;

/// The things that may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Move the tables, or go on with that.
    Move,
    /// Print what that would do.
    Plan,
    /// Take a move away that has not switched.
    Abort,
    /// Take away what one has left.
    Finish,
}

/// The command's arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The thing to do.
    pub act: Act,
    /// Which way.
    pub direction: Direction,
    /// How long everybody may be kept waiting.
    pub max_pause: Duration,
    /// URLs of consoles of instances that hold job statements meanwhile.
    pub consoles: Vec<String>,
}

/// Pauses that may be asked for: behind the longest, a question's own bound would come first.
const PAUSES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(20);

/// Carries it out, and tells what is done as it is done.
pub fn run(config: &Config, request: Request, tell: &mut dyn FnMut(&str)) -> Result<(), JobsError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if !PAUSES.contains(&request.max_pause) {
        let (least, most) = (PAUSES.start(), PAUSES.end());
        return Err(JobsError::Unfit(format!("--max-pause is to be between {least:?} and {most:?}")));
    }
    let rules = all_rules(config)?;
    let places = places(config)?;
    let made = |at: usize| {
        let server = server_of(&config.servers[at], &Arc::default(), config.limits.tcp_user_timeout);
        server.map(Arc::new).map_err(|problem| JobsError::Unfit(problem.to_string()))
    };
    let options = Options {
        direction: request.direction,
        max_pause: request.max_pause,
        has_outbox: config.jobs.outbox.enabled,
    };
    let limit = |at: usize| config.servers[at].connect_timeout.unwrap_or(CONNECT_TIMEOUT);
    let mut mover = Mover {
        servers: [made(places[0])?, made(places[1])?],
        connect_timeout: limit(places[0]).max(limit(places[1])),
        silence: SILENCE,
        rules: &rules,
        options,
        instances: Instances::new(request.consoles),
        tell,
    };
    let done = runtime.block_on(async {
        match request.act {
            Act::Move => mover.run().await,
            Act::Plan => mover.plan().await,
            Act::Abort => mover.abort().await,
            Act::Finish => mover.finish().await,
        }
    });
    done.map_err(|error| match error {
        MoveError::Refused(why) => JobsError::Unfit(why),
        MoveError::Failed(failure) => JobsError::Server(failure),
    })
}
