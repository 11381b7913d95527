//! Pure: what a request demands, where its session stands, and which pools there are give the target.

use crate::sql::{Class, Control, Effects, Hint, NOT_ON_REPLICAS, Reason, Verdict};

/// A pool's position among all pools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PoolId(pub u8);

/// Which pools there are, and what they are for.
#[derive(Clone, Debug)]
pub struct Routes {
    /// Writes, and everything that is not proven to belong elsewhere.
    pub primary: PoolId,
    /// Reads.
    pub replicas: Option<PoolId>,
    /// Job statements.
    pub jobs: Option<PoolId>,
    /// What workers send besides job statements.
    pub workers: Option<PoolId>,
    /// Whether the jobs' pool is on another server than the primary's: then no statement and no transaction can
    /// use both.
    pub jobs_elsewhere: bool,
    /// Whether definitions of job objects are made on both servers then.
    pub defines_on_both: bool,
}

/// What a request asks for: the verdicts of its statements taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The strongest class.
    pub verdict: Verdict,
    /// How many statements the request runs or prepares.
    pub statements: u16,
    /// Job objects and application objects are named in one statement, or in several of the request.
    pub mixed: bool,
    /// How many of the statements the grammar refuses.
    pub unread: u16,
    /// The effects of all others.
    pub read_effects: Effects,
    /// The BEGIN that comes first, if nothing behind it concerns the transaction.
    pub begins: Control,
}

impl Demand {
    /// Of a request that has no statement.
    pub fn none() -> Self {
        let verdict = Verdict::new(Class::Neutral, Reason::Empty);
        let (read_effects, begins) = (Effects::NONE, Control::None);
        Self { verdict, statements: 0, mixed: false, unread: 0, read_effects, begins }
    }

    /// Of one statement.
    pub fn of(verdict: Verdict) -> Self {
        // Of several statements in one text, one may name job objects and another one the application's.
        let mixed =
            verdict.class == Class::Job && verdict.effects.has(Effects::MIXED.with(Effects::APP_OBJECTS));
        let is_unread = verdict.reason == Reason::Unparsed;
        let read_effects = if is_unread { Effects::NONE } else { verdict.effects };
        let begins =
            if let Control::Begin { .. } = verdict.control { verdict.control } else { Control::None };
        Self { verdict, statements: 1, mixed, unread: u16::from(is_unread), read_effects, begins }
    }

    /// Whether it adds jobs, or notifies of them, and does nothing else with job objects: it may run where the
    /// application's tables are if jobs are relayed from there.
    pub fn adds_jobs(&self) -> bool {
        self.verdict.class == Class::Job && !self.verdict.effects.has(Effects::JOB_SIDE)
    }

    /// Whether the server waits for all others to leave the database that it names.
    pub fn wants_database(&self) -> bool {
        self.verdict.effects.has(Effects::WANTS_DATABASE)
    }

    /// Whether it takes, changes or ends jobs, as workers do, beyond adding some.
    pub fn works_on_jobs(&self) -> bool {
        let effects = self.verdict.effects;
        self.verdict.reason == Reason::JobObject
            && effects.has(Effects::JOB_SIDE)
            && effects.has(Effects::JOB_WRITES)
            && !effects.has(Effects::JOB_DDL)
    }

    /// Adds another statement of the same request: the strongest class wins.
    pub fn add(&mut self, verdict: Verdict) {
        if self.statements == 0 {
            *self = Self::of(verdict);
            return;
        }
        let (jobs, other) = (self.verdict.class == Class::Job, verdict.class == Class::Job);
        let names_application = |verdict: Verdict| verdict.effects.has(Effects::APP_OBJECTS);
        self.mixed |= verdict.effects.has(Effects::MIXED)
            || (jobs && names_application(verdict))
            || (other && names_application(self.verdict));
        let beside_jobs = self.verdict.beside_jobs(&verdict);
        let effects = self.verdict.effects.with(verdict.effects).with(beside_jobs).without(Effects::WITHIN);
        let stronger = if verdict.class > self.verdict.class { verdict } else { self.verdict };
        let control = self.verdict.control.and(verdict.control);
        if verdict.control != Control::None {
            self.begins = Control::None;
        }
        let hint = self.verdict.hint.or(verdict.hint);
        let consistency = self.verdict.consistency.or(verdict.consistency);
        let is_worker = self.verdict.is_worker || verdict.is_worker;
        let tables = self.verdict.tables_with(&verdict);
        self.verdict = Verdict { control, effects, hint, consistency, is_worker, tables, ..stronger };
        self.statements = self.statements.saturating_add(1);
        if verdict.reason == Reason::Unparsed {
            self.unread = self.unread.saturating_add(1);
        } else {
            self.read_effects |= verdict.effects;
        }
    }
}

/// Where a session stands; by default at its beginning.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts, not states of one thing")]
pub struct Standing {
    /// The pool whose lease the session holds, if any.
    pub held: Option<PoolId>,
    /// The held lease's server is the one of the jobs' pool, and another than the primary's.
    pub held_is_jobs_server: bool,
    /// The session holds a lease of the other one of these two servers as well.
    pub holds_both: bool,
    /// Jobs may be added on the primary's server now.
    pub relays: bool,
    /// A transaction was begun that may write, and not opened on any server yet.
    pub begun_read_write: bool,
    /// The request itself begins a transaction, which a standby can run.
    pub begins_on_standby: bool,
    /// A worker sends it.
    pub is_worker: bool,
    /// The session asked for a target (`SET bulkhead.route`).
    pub asked: Option<Hint>,
    /// The pool that the session is bound to (`dbname=app@jobs`).
    pub bound: Option<PoolId>,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To the backend that the session holds.
    Held,
    /// To a pool.
    Pool(PoolId),
    /// To this pool's server, while a backend is held of the other one that the session uses; or it concerns both.
    Across(PoolId),
    /// To this pool, with the READ ONLY transaction that it is part of: that is on a replica, which cannot run it.
    Onward(PoolId),
    /// Nowhere, for this reason.
    Nowhere(Misplaced),
}

/// Why a request has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misplaced {
    /// Job objects and application objects are used, which live on different servers.
    Torn,
    /// An advisory lock is to be taken in a transaction that is on a replica, where nobody else would meet it.
    LockOnReplica,
    /// A transaction that is on a replica is to leave state there, and the session could not write as long as it is there.
    StateOnReplica,
}

impl Routes {
    /// Where a request goes.
    pub fn target(&self, demand: &Demand, standing: Standing) -> Target {
        if let Some(pool) = standing.bound {
            return if standing.held.is_some() { Target::Held } else { Target::Pool(pool) };
        }
        let verdict = demand.verdict;
        let hint = verdict.hint.or(standing.asked);
        let adds_jobs = standing.relays && demand.adds_jobs();
        if demand.mixed && self.jobs_elsewhere && hint.is_none() && !adds_jobs {
            return Target::Nowhere(Misplaced::Torn);
        }
        if let Some(held) = standing.held {
            if hint.is_none() && Some(held) == self.replicas && !self.fits_replica(&verdict) {
                return match misplaced_on_replica(verdict.effects) {
                    Some(why) if standing.holds_both => Target::Nowhere(why),
                    None if standing.holds_both => self.on_held(demand, adds_jobs, held, standing),
                    _ => Target::Onward(self.own(standing)),
                };
            }
            // What ends a transaction on two servers concerns both, whatever was asked for.
            let ends_both = standing.holds_both && verdict.control != Control::None;
            let is_plain = !self.jobs_elsewhere || hint.is_some() && !ends_both;
            return if is_plain { Target::Held } else { self.on_held(demand, adds_jobs, held, standing) };
        }
        Target::Pool(match hint {
            Some(Hint::Pool(pool)) => PoolId(pool),
            Some(Hint::Primary) => self.primary,
            Some(Hint::Read) => self.replicas.unwrap_or(self.primary),
            Some(Hint::Job) => self.jobs.unwrap_or(self.primary),
            None if demand.mixed && adds_jobs => self.own(standing),
            None => self.by_class(verdict, standing),
        })
    }

    /// Whether a request defines job objects and nothing else, on both servers.
    pub fn defines_on_both(&self, demand: &Demand) -> bool {
        // Jobs would be added on both, and relayed.
        self.defines(demand) && !demand.verdict.effects.has(Effects::JOB_ADDS)
    }

    /// Whether a request defines job objects that are to be on both servers, and names no other tables; it may add jobs.
    pub fn defines(&self, demand: &Demand) -> bool {
        let verdict = &demand.verdict;
        self.jobs_elsewhere
            && self.defines_on_both
            && verdict.class == Class::Job
            && verdict.effects.has(Effects::JOB_DDL)
            && !demand.mixed
    }

    /// Whether what is part of a READ ONLY transaction on a replica is run there, or goes on to the job database from there.
    fn fits_replica(&self, verdict: &Verdict) -> bool {
        match verdict.class {
            Class::Read | Class::Neutral => !verdict.effects.has(NOT_ON_REPLICAS),
            Class::Write => false,
            Class::Job => self.jobs_elsewhere,
        }
    }

    fn on_held(&self, demand: &Demand, adds_jobs: bool, held: PoolId, standing: Standing) -> Target {
        let verdict = demand.verdict;
        let is_job = verdict.class == Class::Job;
        let names_application = verdict.effects.has(Effects::APP_OBJECTS) && (!is_job || demand.mixed);
        match standing.held_is_jobs_server {
            true if names_application => Target::Across(self.own(standing)),
            false if is_job && !adds_jobs => Target::Across(self.jobs.unwrap_or(self.primary)),
            // What names no object belongs where the application's own is, whichever was used last.
            _ if standing.holds_both
                && verdict.class == Class::Neutral
                && verdict.control == Control::None =>
            {
                if demand.statements > 0 {
                    Target::Across(self.own(standing))
                } else {
                    Target::Held
                }
            }
            _ if standing.holds_both => Target::Across(held),
            _ => Target::Held,
        }
    }

    /// The pool of what is neither a job's nor a user's read.
    fn own(&self, standing: Standing) -> PoolId {
        if standing.is_worker { self.workers.unwrap_or(self.primary) } else { self.primary }
    }

    fn by_class(&self, verdict: Verdict, standing: Standing) -> PoolId {
        let own = self.own(standing);
        // A BEGIN in front of the reads of one request may leave a transaction open that writes later.
        let begins = verdict.control != Control::None && !standing.begins_on_standby;
        let may_write = standing.begun_read_write || begins || verdict.effects.has(NOT_ON_REPLICAS);
        match verdict.class {
            Class::Job => self.jobs.unwrap_or(own),
            Class::Read if !may_write && !standing.is_worker => self.replicas.unwrap_or(own),
            Class::Read | Class::Write | Class::Neutral => own,
        }
    }
}

/// Why a transaction that is on a replica may not do this there, if the server itself would not refuse it.
pub fn misplaced_on_replica(effects: Effects) -> Option<Misplaced> {
    let ends_locks = effects.has(Effects::ENDS_STATE) && !effects.has(Effects::LOCKS);
    if effects.has(Effects::ADVISORY) && !ends_locks {
        return Some(Misplaced::LockOnReplica);
    }
    effects.has(NOT_ON_REPLICAS.without(Effects::ADVISORY)).then_some(Misplaced::StateOnReplica)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::AccessMode;

    const PRIMARY: PoolId = PoolId(0);
    const REPLICAS: PoolId = PoolId(1);
    const JOBS: PoolId = PoolId(2);
    const WORKERS: PoolId = PoolId(3);

    fn routes(jobs_elsewhere: bool) -> Routes {
        let (replicas, jobs, workers) = (Some(REPLICAS), Some(JOBS), Some(WORKERS));
        Routes { primary: PRIMARY, replicas, jobs, workers, jobs_elsewhere, defines_on_both: true }
    }

    fn verdict(class: Class) -> Verdict {
        let effects = match class {
            Class::Neutral | Class::Job => Effects::NONE,
            Class::Read | Class::Write => Effects::APP_OBJECTS,
        };
        Verdict { effects, ..Verdict::new(class, Reason::ReadOnly) }
    }

    const FREE: Standing = Standing {
        held: None,
        held_is_jobs_server: false,
        holds_both: false,
        relays: false,
        begun_read_write: false,
        begins_on_standby: false,
        is_worker: false,
        asked: None,
        bound: None,
    };

    #[test]
    fn each_class_has_its_pool() {
        let routes = routes(true);
        let target = |class, standing| routes.target(&Demand::of(verdict(class)), standing);
        assert_eq!(target(Class::Write, FREE), Target::Pool(PRIMARY));
        assert_eq!(target(Class::Read, FREE), Target::Pool(REPLICAS));
        assert_eq!(target(Class::Job, FREE), Target::Pool(JOBS));
        assert_eq!(target(Class::Neutral, FREE), Target::Pool(PRIMARY));
        let worker = Standing { is_worker: true, ..FREE };
        assert_eq!(target(Class::Write, worker), Target::Pool(WORKERS));
        assert_eq!(target(Class::Read, worker), Target::Pool(WORKERS));
        assert_eq!(target(Class::Job, worker), Target::Pool(JOBS));
        let tagged = Verdict { is_worker: true, ..verdict(Class::Neutral) };
        let mut demand = Demand::of(verdict(Class::Write));
        demand.add(tagged);
        assert!(demand.verdict.is_worker, "one of its statements says so");
        let begun = Standing { begun_read_write: true, ..FREE };
        assert_eq!(target(Class::Read, begun), Target::Pool(PRIMARY));
        let begins = Verdict { control: Control::Other, ..verdict(Class::Read) };
        assert_eq!(routes.target(&Demand::of(begins), FREE), Target::Pool(PRIMARY));
        let on_standby = Standing { begins_on_standby: true, ..FREE };
        assert_eq!(routes.target(&Demand::of(begins), on_standby), Target::Pool(REPLICAS));
        let begun = Standing { begun_read_write: true, ..on_standby };
        assert_eq!(routes.target(&Demand::of(begins), begun), Target::Pool(PRIMARY), "serializable");
        let writes = Verdict { control: Control::Other, ..verdict(Class::Write) };
        assert_eq!(routes.target(&Demand::of(writes), on_standby), Target::Pool(PRIMARY));
    }

    #[test]
    fn a_read_that_ties_its_session_goes_to_the_primary() {
        let routes = routes(true);
        for effect in [Effects::LOCKS, Effects::ADVISORY, Effects::LISTENS, Effects::OPAQUE_SETTINGS] {
            let mut demand = Demand::of(Verdict { effects: effect, ..verdict(Class::Neutral) });
            demand.add(verdict(Class::Read));
            assert_eq!(demand.verdict.class, Class::Read);
            assert_eq!(routes.target(&demand, FREE), Target::Pool(PRIMARY), "{effect:?}");
            let on_standby = Standing { begins_on_standby: true, ..FREE };
            assert_eq!(routes.target(&demand, on_standby), Target::Pool(PRIMARY), "{effect:?}");
        }
        let mut demand = Demand::of(Verdict { effects: Effects::SETS, ..verdict(Class::Neutral) });
        demand.add(verdict(Class::Read));
        assert_eq!(routes.target(&demand, FREE), Target::Pool(REPLICAS), "a setting is carried");
    }

    #[test]
    fn what_no_replica_runs_goes_on_to_the_primary() {
        let routes = routes(false);
        let of = |class, effects| Demand::of(Verdict { effects, ..verdict(class) });
        let on = |held| Standing { held: Some(held), ..FREE };
        let state =
            [Effects::ADVISORY, Effects::PREPARES, Effects::HOLDS_CURSOR, Effects::SEEDS, Effects::LISTENS];
        let of_state = state.map(|effects| of(Class::Neutral, effects));
        for demand in of_state.into_iter().chain([of(Class::Write, Effects::NONE)]) {
            assert_eq!(routes.target(&demand, on(REPLICAS)), Target::Onward(PRIMARY), "{demand:?}");
            let worker = Standing { is_worker: true, ..on(REPLICAS) };
            assert_eq!(routes.target(&demand, worker), Target::Onward(WORKERS), "{demand:?}");
            assert_eq!(routes.target(&demand, on(PRIMARY)), Target::Held, "{demand:?}");
            let wanted = Standing { asked: Some(Hint::Read), ..on(REPLICAS) };
            assert_eq!(routes.target(&demand, wanted), Target::Held, "it was asked for: {demand:?}");
        }
        for effects in [Effects::NONE, Effects::SETS, Effects::LOCAL, Effects::ENDS_STATE] {
            assert_eq!(routes.target(&of(Class::Neutral, effects), on(REPLICAS)), Target::Held);
        }
        assert_eq!(routes.target(&of(Class::Read, Effects::NONE), on(REPLICAS)), Target::Held);
    }

    #[test]
    fn no_hint_ends_a_transaction_on_one_of_two_servers() {
        let routes = routes(true);
        let both = Standing { held: Some(PRIMARY), holds_both: true, asked: Some(Hint::Primary), ..FREE };
        let of = |control| Demand::of(Verdict { control, ..verdict(Class::Neutral) });
        assert_eq!(routes.target(&of(Control::Commit), both), Target::Across(PRIMARY));
        assert_eq!(routes.target(&of(Control::None), both), Target::Held);
        assert_eq!(routes.target(&of(Control::Commit), Standing { holds_both: false, ..both }), Target::Held);
    }

    #[test]
    fn beside_a_job_database_nothing_goes_on() {
        let routes = routes(true);
        let both = Standing { held: Some(REPLICAS), holds_both: true, ..FREE };
        let of = |effects| Demand::of(Verdict { effects, ..verdict(Class::Neutral) });
        let target = |effects| routes.target(&of(effects), both);
        assert_eq!(target(Effects::ADVISORY), Target::Nowhere(Misplaced::LockOnReplica));
        let unlocks = Effects::ADVISORY.with(Effects::ENDS_STATE);
        assert_eq!(target(unlocks), Target::Across(PRIMARY));
        assert_eq!(target(Effects::PREPARES), Target::Nowhere(Misplaced::StateOnReplica));
    }

    #[test]
    fn two_servers_are_never_mixed() {
        let mut demand = Demand::of(verdict(Class::Job));
        demand.add(verdict(Class::Read));
        assert_eq!(routes(true).target(&demand, FREE), Target::Nowhere(Misplaced::Torn));
        assert_eq!(routes(false).target(&demand, FREE), Target::Pool(JOBS));
        let on_primary = Standing { held: Some(PRIMARY), ..FREE };
        let job = Verdict { effects: Effects::JOB_SIDE, ..verdict(Class::Job) };
        assert_eq!(routes(true).target(&Demand::of(job), on_primary), Target::Across(JOBS));
        assert_eq!(routes(false).target(&Demand::of(job), on_primary), Target::Held);
        let on_jobs = Standing { held: Some(JOBS), held_is_jobs_server: true, ..FREE };
        assert_eq!(routes(true).target(&Demand::of(verdict(Class::Write)), on_jobs), Target::Across(PRIMARY));
        assert_eq!(routes(true).target(&Demand::of(verdict(Class::Neutral)), on_jobs), Target::Held);
    }

    #[test]
    fn jobs_are_added_where_the_transaction_is() {
        let relayed = Standing { relays: true, ..FREE };
        let adds = Demand::of(verdict(Class::Job));
        assert_eq!(routes(true).target(&adds, relayed), Target::Pool(JOBS));
        let on_primary = Standing { held: Some(PRIMARY), ..relayed };
        assert_eq!(routes(true).target(&adds, on_primary), Target::Held);
        let unrelayed = Standing { relays: false, ..on_primary };
        assert_eq!(routes(true).target(&adds, unrelayed), Target::Across(JOBS));
        let mut mixed = adds;
        mixed.add(verdict(Class::Write));
        assert_eq!(routes(true).target(&mixed, relayed), Target::Pool(PRIMARY));
        let on_jobs = Standing { held: Some(JOBS), held_is_jobs_server: true, ..relayed };
        assert_eq!(routes(true).target(&mixed, on_jobs), Target::Across(PRIMARY));
        assert_eq!(routes(true).target(&mixed, FREE), Target::Nowhere(Misplaced::Torn));
        let commits = Verdict { control: Control::Commit, ..verdict(Class::Neutral) };
        let on_both = Standing { holds_both: true, ..on_primary };
        assert_eq!(routes(true).target(&Demand::of(commits), on_both), Target::Across(PRIMARY));
        assert_eq!(routes(true).target(&Demand::of(commits), on_primary), Target::Held);
    }

    #[test]
    fn the_strongest_class_of_a_request_wins() {
        let mut demand = Demand::none();
        for class in [Class::Neutral, Class::Read, Class::Write, Class::Read] {
            demand.add(verdict(class));
        }
        assert_eq!((demand.verdict.class, demand.statements), (Class::Write, 4));
    }

    #[test]
    fn a_begin_counts_where_it_comes_first_and_nothing_ends_it() {
        let begin = Verdict {
            control: Control::Begin { access: AccessMode::ReadOnly, serializable: false },
            ..verdict(Class::Neutral)
        };
        let commit = Verdict { control: Control::Commit, ..verdict(Class::Neutral) };
        let begins = |verdicts: &[Verdict]| {
            let mut demand = Demand::none();
            for verdict in verdicts {
                demand.add(*verdict);
            }
            demand.begins
        };
        let read = verdict(Class::Read);
        assert_eq!(begins(&[begin]), begin.control);
        assert_eq!(begins(&[begin, read, read]), begin.control);
        for others in [&[read][..], &[read, begin], &[begin, read, commit], &[begin, begin], &[commit, read]]
        {
            assert_eq!(begins(others), Control::None, "{others:?}");
        }
    }

    #[test]
    fn a_bound_session_stays_in_its_pool() {
        let bound = Standing { bound: Some(JOBS), ..FREE };
        for class in Class::ALL {
            assert_eq!(routes(true).target(&Demand::of(verdict(class)), bound), Target::Pool(JOBS));
            let holding = Standing { held: Some(JOBS), held_is_jobs_server: true, ..bound };
            assert_eq!(routes(true).target(&Demand::of(verdict(class)), holding), Target::Held);
        }
        let mut hinted = verdict(Class::Read);
        hinted.hint = Some(Hint::Primary);
        assert_eq!(routes(true).target(&Demand::of(hinted), bound), Target::Pool(JOBS));
    }

    #[test]
    fn hints_win() {
        let mut hinted = verdict(Class::Write);
        hinted.hint = Some(Hint::Pool(2));
        assert_eq!(routes(true).target(&Demand::of(hinted), FREE), Target::Pool(JOBS));
        let asked = Standing { asked: Some(Hint::Primary), ..FREE };
        assert_eq!(routes(true).target(&Demand::of(verdict(Class::Read)), asked), Target::Pool(PRIMARY));
    }
}
