//! Living through changes of the configuration: SIGHUP loads it again, checks all of it, and puts it in force as a
//! whole, or leaves everything as it was.
//!
//! Owns the snapshot in force, the pools that are drained because they were taken out, and the keepers of both.
//! What is read from disk is read off the runtime's threads; what is changed is changed in one go, without a wait in
//! between.

use std::{
    fmt::Display,
    path::PathBuf,
    sync::{Arc, Weak, atomic::Ordering},
};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    StartError,
    build::{Built, Draft, Files},
    descriptors, secrets, service,
    signals::{Signals, Wish},
    telemetry::LogControl,
};
use crate::{
    auth::Users,
    catalog::Source,
    config::{self, Config, FoundLibrary, LoadError, Override, diff::Diff},
    pool::{self, ServerPool},
    seldom::Seldom,
    shared::{
        Current,
        orders::{self, Order, Outcome},
    },
    sql::{Library, Rules},
    threads::Spawner,
};

/// Users whose change is logged by name in one reload; of the others only how many there are.
const USERS_NAMED: usize = 20;

/// Changes that one line tells.
const CHANGES_TOLD: usize = 50;

/// Where the configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The file that was named, if one was.
    pub path: Option<PathBuf>,
}

impl Origin {
    /// Reads the configuration; blocks. The environment is the process's own: nobody can change it from outside.
    pub fn load(&self) -> Result<Config, LoadError> {
        self.load_with(&[])
    }

    /// The same as [`Origin::load`], with other values of these keys.
    fn load_with(&self, overrides: &[Override]) -> Result<Config, LoadError> {
        let presets: Vec<&str> = Rules::preset_names().collect();
        config::load_with(self.path.as_deref(), &config::process_environment, &presets, overrides)
    }
}

/// The configuration in force, and what carries out the next one.
pub(crate) struct Running {
    origin: Origin,
    built: Arc<Built>,
    /// The configuration as it was read, without what was found.
    written: Config,
    /// The job libraries of the primary's database.
    libraries: watch::Receiver<Vec<Library>>,
    current: Arc<Current>,
    /// Taken out, and perhaps still in use.
    draining: Vec<Weak<ServerPool>>,
    /// Values that operators have set since the configuration was read.
    overrides: Vec<Override>,
    /// Orders of operators.
    orders: Option<mpsc::Receiver<Order>>,
    /// What was warned of when the configuration was last read.
    warned: Vec<String>,
    /// The log, to be changed.
    log: LogControl,
    /// Why the last reload was refused; empty if it was not.
    refused: Vec<String>,
    /// Lines that say that nothing is new.
    repeats: Seldom,
    catalog_source: watch::Sender<Source>,
    /// For what pools do for themselves.
    spawner: Spawner,
    /// For keepers.
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A new configuration that is valid, and what it changes, in words.
struct Prepared {
    draft: Draft,
    /// The configuration as it was read, without what was found.
    written: Config,
    changes: Vec<String>,
    warnings: Vec<String>,
}

/// Why a reload was refused: a line for each problem.
struct Refused(Vec<String>);

impl Running {
    /// Puts the first configuration in force.
    pub(crate) fn start(
        (config, origin, log): (Config, Origin, LogControl),
        files: Files,
        spawner: Spawner,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, StartError> {
        let written = config.clone();
        let draft = Draft::new(config, files, None, &[], &spawner)?;
        let (built, unkept) = draft.carry_out(None);
        let (catalog_source, source) = watch::channel(built.catalog_source());
        let shared = Arc::clone(&built.shared);
        shared.metrics.reloads.succeeded();
        tasks.spawn(Arc::clone(&shared.catalogs).keep(source, stop.clone()));
        let orders = shared.orders.follow();
        let libraries = shared.catalogs.libraries();
        let current = Arc::new(Current::new(shared));
        let running = Self {
            origin,
            written,
            libraries,
            built: Arc::new(built),
            current,
            draining: Vec::new(),
            overrides: Vec::new(),
            orders,
            warned: Vec::new(),
            log,
            refused: Vec::new(),
            repeats: Seldom::default(),
            catalog_source,
            spawner,
            tasks,
            stop,
        };
        running.keep(unkept);
        Ok(running)
    }

    /// This was warned of, and is not to be again.
    pub(crate) fn has_warned(&mut self, of: Vec<String>) {
        self.warned = of;
    }

    /// Where the snapshot in force is found.
    pub(crate) fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current)
    }

    /// The configuration in force.
    pub(crate) fn config(&self) -> &Config {
        &self.built.config
    }

    /// Reloads whenever somebody asks for it, and follows what job libraries are found, one after the other, until somebody
    /// asks for the end, and says for which.
    pub(crate) async fn reload_until_end(&mut self, signals: &mut Signals) -> orders::End {
        loop {
            let order = tokio::select! {
                // Cancel safe: signals that were not received are merged into the next one.
                wish = signals.next() => match wish {
                    Wish::Reload => Some((orders::Wish::Reload, None)),
                    Wish::End => return orders::End::Drained,
                    Wish::Turn => {
                        self.log.turn();
                        continue;
                    }
                },
                // Cancel safe.
                order = next_order(self.orders.as_mut()) => Some((order.wish, Some(order.to))),
                // Cancel safe: a change that was not seen is seen next time.
                Ok(()) = self.libraries.changed() => None,
            };
            let change = async {
                if let Some((wish, to)) = order {
                    self.obey(wish, to).await
                } else {
                    self.follow_libraries().await;
                    None
                }
            };
            let end = tokio::select! {
                // Cancel safe: until its last step, which does not wait, nothing has been changed.
                end = change => end,
                // Cancel safe: as above.
                () = signals.end() => Some(orders::End::Drained),
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Follows an order, and tells whoever gave it what has become of it; the end, if that is what was ordered.
    async fn obey(
        &mut self,
        wish: orders::Wish,
        to: Option<oneshot::Sender<Outcome>>,
    ) -> Option<orders::End> {
        if let orders::Wish::End(how) = wish {
            // Whoever gave the order may have left.
            let _ = to.map(|to| to.send(Ok(Vec::new())));
            return Some(how);
        }
        service::reloading();
        let outcome = self.read_again(wish).await;
        service::ready();
        let _ = to.map(|to| to.send(outcome));
        None
    }

    /// Reads the configuration again; or goes on with another value of one of its keys, until it is read again.
    async fn read_again(&mut self, wish: orders::Wish) -> Outcome {
        let overrides: Vec<Override> = match wish {
            orders::Wish::Set { key, value } => {
                let others = self.overrides.iter().filter(|other| other.key != key).cloned();
                others.chain([Override { key: key.clone(), value }]).collect()
            }
            orders::Wish::Reload | orders::Wish::End(_) => Vec::new(),
        };
        let outcome = self.reload(overrides.clone()).await;
        if outcome.is_ok() {
            self.overrides = overrides;
        }
        outcome
    }

    /// Loads the configuration and puts it in force as a whole, or logs all that is wrong and changes nothing.
    async fn reload(&mut self, overrides: Vec<Override>) -> Outcome {
        let origin = self.origin.clone();
        match self.prepared(move || origin.load_with(&overrides)).await {
            Ok(prepared) => {
                let changes = prepared.changes.clone();
                self.put_in_force(prepared);
                Ok(changes)
            }
            Err(refused) => {
                let problems = refused.0.clone();
                self.refuse(refused);
                Err(problems)
            }
        }
    }

    /// Puts the configuration in force again by the libraries that there are now, if it leaves them open.
    async fn follow_libraries(&mut self) {
        let found = self.libraries.borrow_and_update().clone();
        let Some(text) = self.written.libraries_as_toml(&as_found(&found)) else {
            // Perhaps there were some.
            let written = self.written.clone();
            if written.jobs != self.built.config.jobs {
                self.follow(written, "the tables of job libraries are gone").await;
            }
            return;
        };
        for Library { preset, schema, .. } in &found {
            tracing::info!(preset, schema, "the tables of a job library were found");
        }
        let what = format!(
            "jobs get what they would by: {}",
            text.trim_end().replace("\n\n", "\n").replace('\n', "; ")
        );
        self.follow(self.written.clone(), &what).await;
    }

    async fn follow(&mut self, written: Config, what: &str) {
        match self.prepared(move || Ok(written)).await {
            Ok(prepared) if prepared.changes.is_empty() => {}
            Ok(prepared) => {
                self.replace(prepared);
                tracing::info!("{what}");
            }
            Err(Refused(problems)) => {
                let problems = problems.join("; ");
                tracing::error!(problems, "the configuration does not fit the job libraries that were found");
            }
        }
    }

    async fn prepared(
        &self,
        load: impl FnOnce() -> Result<Config, LoadError> + Send + 'static,
    ) -> Result<Prepared, Refused> {
        let (origin, before) = (self.origin.clone(), Arc::clone(&self.built));
        let (spawner, draining) = (self.spawner.clone(), self.still_draining());
        let found = self.libraries.borrow().clone();
        let prepare = move || prepare(load, &found, &origin, &before, &draining, &spawner);
        tokio::task::spawn_blocking(prepare)
            .await
            .unwrap_or_else(|error| Err(Refused(vec![format!("reading the configuration failed: {error}")])))
    }

    fn refuse(&mut self, Refused(problems): Refused) {
        let reloads = &self.built.shared.metrics.reloads;
        reloads.failed.fetch_add(1, Ordering::Relaxed);
        reloads.last_failed.store(true, Ordering::Relaxed);
        if self.refused == problems {
            if let Some(left_out) = self.repeats.is_time() {
                let problems = problems.len();
                tracing::error!(problems, left_out, "reload failed as the one before: nothing was changed");
            }
            return;
        }
        for problem in &problems {
            tracing::error!(problem, "the configuration cannot be reloaded");
        }
        tracing::error!(problems = problems.len(), "reload failed: nothing was changed");
        self.refused = problems;
    }

    /// Puts what is prepared in force; returns the changes.
    fn replace(&mut self, Prepared { draft, written, changes, warnings }: Prepared) -> Vec<String> {
        for warning in warnings.iter().filter(|warning| !self.warned.contains(warning)) {
            tracing::warn!("{warning}");
        }
        self.warned = warnings;
        self.written = written;
        let before = Arc::clone(&self.built);
        let (built, unkept) = draft.carry_out(Some(&before));
        self.built = Arc::new(built);
        self.log.follow(&before.config.log, &self.built.config.log);
        self.current.replace(&self.built.shared);
        self.catalog_source.send_replace(self.built.catalog_source());
        self.keep(unkept);
        self.drain_what_is_gone(&before);
        self.built.shared.listeners.look();
        changes
    }

    fn put_in_force(&mut self, prepared: Prepared) {
        let changes = self.replace(prepared);
        let reloads = &self.built.shared.metrics.reloads;
        reloads.ok.fetch_add(1, Ordering::Relaxed);
        reloads.succeeded();
        let is_mended = !std::mem::take(&mut self.refused).is_empty();
        if !changes.is_empty() || is_mended {
            let what = told(&changes);
            tracing::info!(changes = changes.len(), what, "reloaded: the configuration is in force");
        } else if let Some(left_out) = self.repeats.is_time() {
            tracing::info!(changes = 0, left_out, "reloaded: nothing has changed; files were read again");
        }
    }

    fn keep(&self, pools: Vec<Arc<ServerPool>>) {
        for pool in pools {
            self.tasks.spawn(pool::keep(pool, self.stop.clone()));
        }
    }

    fn drain_what_is_gone(&mut self, before: &Built) {
        let is_member = |built: &Built, pool: &Arc<ServerPool>| {
            built.shared.pools.iter().flat_map(|pool| &pool.members).any(|member| Arc::ptr_eq(member, pool))
        };
        // Some have come back.
        self.draining.retain(|pool| pool.upgrade().is_some_and(|pool| !is_member(&self.built, &pool)));
        for pool in before.shared.pools.iter().flat_map(|pool| &pool.members) {
            if !is_member(&self.built, pool) {
                // A pool whose server is at another address now is another one of the same name.
                let has_moved = self.built.shared.pool_named(&pool.name).is_some();
                if has_moved {
                    pool.send_on();
                } else {
                    pool.drain();
                }
                self.draining.push(Arc::downgrade(pool));
            }
        }
    }

    fn still_draining(&self) -> Vec<Arc<ServerPool>> {
        self.draining.iter().filter_map(Weak::upgrade).collect()
    }
}

/// The next order of an operator.
///
/// Cancel safe.
async fn next_order(orders: Option<&mut mpsc::Receiver<Order>>) -> Order {
    if let Some(orders) = orders
        && let Some(order) = orders.recv().await
    {
        return order;
    }
    std::future::pending().await
}

/// Reads, checks and compares; blocks, and changes nothing.
fn prepare(
    load: impl FnOnce() -> Result<Config, LoadError>,
    found: &[Library],
    origin: &Origin,
    before: &Built,
    draining: &[Arc<ServerPool>],
    spawner: &Spawner,
) -> Result<Prepared, Refused> {
    let written = load().map_err(|error| match error {
        LoadError::Problems(problems) => Refused(problems.lines()),
        other => lines(&other),
    })?;
    let mut config = written.clone().with_libraries(&as_found(found));
    let shortage = descriptors::fit(&mut config, descriptors::raise_limit());
    let warnings = warnings(&config, origin, shortage);
    let diff = Diff::of(&before.config, &config);
    let restart: Vec<String> =
        diff.needs_restart().map(|change| format!("{change}: needs a restart")).collect();
    if !restart.is_empty() {
        return Err(Refused(restart));
    }
    let files = Files::read(&config).map_err(|error| lines(&error))?;
    let draft = Draft::new(config, files, Some(before), draining, spawner).map_err(|error| lines(&error))?;
    let mut changes: Vec<String> = diff.changes.iter().map(ToString::to_string).collect();
    changes.extend(changed_users(&before.shared.identities.users, draft.users()));
    Ok(Prepared { draft, written, changes, warnings })
}

/// The found libraries, in the words of the configuration.
pub fn as_found(libraries: &[Library]) -> Vec<FoundLibrary<'_>> {
    let found = libraries.iter().map(|Library { preset, schema, is_own }| FoundLibrary {
        preset,
        schema,
        is_own: *is_own,
    });
    found.collect()
}

/// What a configuration is warned of: what it says, who can read it, and that there are too few file descriptors.
pub fn warnings(config: &Config, origin: &Origin, shortage: Option<String>) -> Vec<String> {
    let exposed = secrets::exposed(config, origin.path.as_deref());
    shortage.into_iter().chain(exposed).chain(config.warnings.lines()).collect()
}

/// Changes in one line, the first of them if they are many.
fn told(changes: &[String]) -> String {
    let more = changes.len().saturating_sub(CHANGES_TOLD);
    let told = changes[..changes.len() - more].join("; ");
    if more > 0 { format!("{told}; and {more} more") } else { told }
}

fn lines(error: &impl Display) -> Refused {
    Refused(error.to_string().lines().map(str::to_owned).collect())
}

/// What happened to users, a line for each as long as there are few.
fn changed_users(before: &Users, now: &Users) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, user) in now.iter() {
        match before.get(name) {
            None => lines.push(format!("user {name:?}: added")),
            Some(known) if known.verifier() != user.verifier() => {
                lines.push(format!("user {name:?}: another password"));
            }
            Some(_) => {}
        }
    }
    let removed = before.iter().filter(|(name, _)| now.get(name).is_none());
    lines.extend(removed.map(|(name, _)| format!("user {name:?}: removed")));
    lines.sort_unstable();
    if lines.len() > USERS_NAMED {
        let more = lines.len() - USERS_NAMED;
        lines.truncate(USERS_NAMED);
        lines.push(format!("{more} more users: added, removed, or with another password"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Secret, Verifier};

    #[test]
    fn users_are_compared_without_their_passwords() {
        let users = |text: &str| Users::parse(text.as_bytes()).expect("well-formed");
        let before = users("\"a\" \"SECRET\"\n\"b\" \"SECRET\"\n\"c\" \"SECRET\"\n");
        let now = users("\"a\" \"SECRET\"\n\"b\" \"OTHER\"\n\"d\" \"SECRET\"\n");
        let expected = ["user \"b\": another password", "user \"c\": removed", "user \"d\": added"];
        assert_eq!(changed_users(&before, &now), expected);
        assert_eq!(changed_users(&now, &now), [""; 0]);
        let mut many = Users::default();
        (0..50).for_each(|n| many.insert(&format!("u{n}"), Verifier::Plain(Secret::new("SECRET"))));
        let lines = changed_users(&Users::default(), &many);
        assert_eq!(lines.len(), USERS_NAMED + 1);
        assert!(lines.last().is_some_and(|last| last.starts_with("30 more users")), "{lines:?}");
    }
}
