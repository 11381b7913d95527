//! Commands that change something: pools that pause and go on, sessions that end, the configuration, the program itself.

use std::{sync::Arc, time::Duration};

use super::{
    client::{Console, Stopped},
    command::Command,
    own, reply, show,
    table::{Columns, Rows},
};
use crate::{
    pool::{Pool, ServerPool},
    session::reply::Reply,
    shared::{
        Snapshot,
        card::Purpose,
        connections::Connections,
        orders::{End, Wish},
    },
    why,
};

/// How often it is looked at whether what is waited for has come about.
const LOOK: Duration = Duration::from_millis(20);

/// The result of a command.
pub(super) enum Outcome {
    /// Rows, which are made as they are sent.
    Rows(Columns, Rows),
    /// No rows: the command is done, and there may be something to add.
    Done(Option<Notice>),
}

/// Words beside the result.
#[derive(Debug)]
pub(super) struct Notice {
    pub(super) message: String,
    pub(super) detail: String,
}

impl Notice {
    fn new(message: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { message: message.into(), detail: detail.into() }
    }
}

/// The pools that a command is about: the one of this name, or all.
fn pools<'s>(snapshot: &'s Snapshot, name: Option<&str>) -> Result<Vec<&'s Pool>, Reply> {
    let Some(name) = name else { return Ok(snapshot.pools.iter().collect()) };
    let found: Vec<&Pool> = snapshot.pools.iter().filter(|pool| pool.name == name).collect();
    if found.is_empty() {
        let known: Vec<&str> = snapshot.pools.iter().map(|pool| pool.name.as_str()).collect();
        return Err(reply::no_such_pool(name, &known));
    }
    Ok(found)
}

fn members<'p>(pools: &[&'p Pool]) -> impl Iterator<Item = &'p Arc<ServerPool>> + use<'p> {
    pools.iter().flat_map(|pool| &pool.members).collect::<Vec<_>>().into_iter()
}

impl Console {
    /// Carries a command out.
    pub(super) async fn execute(&mut self, command: &Command) -> Result<Outcome, Stopped> {
        if let Some(name) = command.for_admins() {
            if !self.is_admin() {
                return Err(reply::admins_only(name).into());
            }
            self.log(name, command);
        }
        let snapshot = self.snapshot();
        Ok(match command {
            Command::Show(show::Show::Help) => {
                Outcome::Done(Some(Notice::new("Console usage", show::help())))
            }
            Command::Show(show::Show::Fds) => {
                let hint = "SHOW SOCKETS tells of connections. A restart by SHUTDOWN WAIT_FOR_CLIENTS lets clients leave \
                            by themselves.";
                return Err(
                    reply::not_supported("sockets are not handed over to another process", hint).into()
                );
            }
            Command::Show(show::Show::Why) => {
                Outcome::Rows(own::why_columns(), own::why(&why::report(&snapshot).await))
            }
            Command::Show(show) => {
                let columns = show.columns(self.like).unwrap_or_else(|| Columns::new("", &[]));
                Outcome::Rows(columns, show.rows(&snapshot, self.like))
            }
            Command::Ignored { .. } | Command::Begin | Command::Commit | Command::Rollback => {
                Outcome::Done(None)
            }
            Command::Set { key, value } => {
                self.order("SET", Wish::Set { key: key.clone(), value: value.clone() }).await?
            }
            Command::Reload => self.order("RELOAD", Wish::Reload).await?,
            Command::Pause(name) => self.pause(&snapshot, name.as_deref()).await?,
            Command::Resume(name) => resume(&snapshot, name.as_deref())?,
            Command::Reconnect(name) => reconnect(&snapshot, name.as_deref())?,
            Command::Kill(name) => kill(&snapshot, name.as_deref())?,
            Command::WaitClose(name) => {
                // That it is there is said at once.
                pools(&snapshot, name.as_deref())?;
                self.wait_until(name.as_deref(), |member| !member.has_old_generation()).await?;
                Outcome::Done(None)
            }
            Command::Disable(name) => set_disabled(&snapshot, name, true)?,
            Command::Enable(name) => set_disabled(&snapshot, name, false)?,
            Command::KillClient(id) => match id.parse() {
                Ok(number) if snapshot.process.kill(number) => Outcome::Done(None),
                _ => return Err(reply::no_such_client(id).into()),
            },
            Command::ResetQueries => {
                snapshot.queries.reset();
                snapshot.slow.reset();
                Outcome::Done(None)
            }
            Command::Shutdown(how) => self.shut_down(*how).await?,
        })
    }

    /// Gives an order to the program, and says what has changed.
    async fn order(&mut self, command: &str, wish: Wish) -> Result<Outcome, Stopped> {
        let is_set = matches!(wish, Wish::Set { .. });
        let snapshot = self.snapshot();
        match snapshot.orders.give(wish).await {
            None => Err(reply::going_down().into()),
            Some(Err(problems)) => Err(reply::refused(command, &problems).into()),
            Some(Ok(changes)) if changes.is_empty() => {
                Ok(Outcome::Done(Some(Notice::new("nothing has changed", ""))))
            }
            Some(Ok(changes)) => {
                let message = if is_set {
                    "in force until the configuration is read again; the file was not changed"
                } else {
                    "the configuration is in force"
                };
                Ok(Outcome::Done(Some(Notice::new(message, changes.join("\n")))))
            }
        }
    }

    async fn shut_down(&mut self, how: End) -> Result<Outcome, Stopped> {
        match self.snapshot().orders.give(Wish::End(how)).await {
            Some(_) => Ok(Outcome::Done(None)),
            None => Err(reply::going_down().into()),
        }
    }

    /// Pauses pools, and waits until all of their connections are closed. Pools that are paused already are left so.
    async fn pause(&mut self, snapshot: &Snapshot, name: Option<&str>) -> Result<Outcome, Stopped> {
        let newly = pause(snapshot, name)?;
        let waited = self.wait_until(name, ServerPool::is_quiet).await;
        if let Err(stopped) = waited {
            // Whoever gives up, or goes, leaves nothing paused behind.
            let current = self.snapshot();
            for pool in current.pools.iter().filter(|pool| newly.contains(&pool.name)) {
                pool.members.iter().for_each(|member| {
                    member.resume();
                });
            }
            tracing::warn!(pools = newly.join(", "), "a PAUSE was given up: the pools go on");
            return Err(match stopped {
                Stopped::Cancelled => reply::cancelled(": the pools go on").into(),
                other => other,
            });
        }
        Ok(Outcome::Done(None))
    }

    /// Waits until `is_so` holds for all members of the pools that a command is about, or until the client gives up.
    async fn wait_until(
        &mut self,
        name: Option<&str>,
        is_so: impl Fn(&ServerPool) -> bool,
    ) -> Result<(), Stopped> {
        self.begin_wait();
        loop {
            let snapshot = self.snapshot();
            let chosen: Vec<&Pool> =
                snapshot.pools.iter().filter(|pool| name.is_none_or(|name| pool.name == name)).collect();
            if members(&chosen).all(|member| is_so(member)) {
                self.end_wait();
                return Ok(());
            }
            if let Err(stopped) = self.look_while_waiting() {
                self.end_wait();
                return Err(stopped);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn log(&self, name: &'static str, command: &Command) {
        let ((user, peer), object) = (self.who(), command.object());
        tracing::info!(user, peer, ?object, "the console was given {name}");
    }
}

/// Pauses pools, and gives the names of those that were not paused before; an error if there are none.
pub(super) fn pause(snapshot: &Snapshot, name: Option<&str>) -> Result<Vec<String>, Reply> {
    let chosen = pools(snapshot, name)?;
    let limit = snapshot.console.pause_timeout;
    let newly: Vec<String> = chosen
        .iter()
        .filter(|pool| {
            // Every member, and not only up to the first.
            let newly = pool.members.iter().filter(|member| member.pause(limit)).count();
            newly > 0
        })
        .map(|pool| pool.name.clone())
        .collect();
    if newly.is_empty() {
        let names: Vec<&str> = chosen.iter().map(|pool| pool.name.as_str()).collect();
        let message = format!("already paused: {}", names.join(", "));
        return Err(reply::wrong_state(message, "RESUME goes on."));
    }
    Ok(newly)
}

/// Has connections of pools made anew as they come back.
pub(super) fn reconnect(snapshot: &Snapshot, name: Option<&str>) -> Result<Outcome, Reply> {
    members(&pools(snapshot, name)?).for_each(ServerPool::renew);
    Ok(Outcome::Done(None))
}

pub(super) fn resume(snapshot: &Snapshot, name: Option<&str>) -> Result<Outcome, Reply> {
    let chosen = pools(snapshot, name)?;
    let resumed = members(&chosen).filter(|member| member.resume()).count();
    if resumed == 0 {
        let what =
            name.map_or_else(|| "no pool".to_owned(), |name| format!("pool \"{name}\" is not paused:"));
        let message =
            if name.is_some() { what.trim_end_matches(':').to_owned() } else { format!("{what} is paused") };
        return Err(reply::wrong_state(message, "SHOW DATABASES tells which pools are paused."));
    }
    Ok(Outcome::Done(None))
}

/// Ends the sessions that hold connections of the pools, or can use no other pool, and leaves the pools paused.
fn kill(snapshot: &Snapshot, name: Option<&str>) -> Result<Outcome, Reply> {
    let chosen = pools(snapshot, name)?;
    let limit = snapshot.console.pause_timeout;
    members(&chosen).for_each(|member| {
        member.pause(limit);
    });
    let is_chosen = |pool: &str| chosen.iter().any(|known| known.name == pool);
    let connections = Connections::of(snapshot);
    let mut killed = 0;
    for client in connections.clients.iter().filter(|client| client.card().purpose != Purpose::Console) {
        let holds = connections
            .held_by(client)
            .is_some_and(|at| is_chosen(&snapshot.pool(connections.backends[at].0).name));
        let is_bound = client.card().bound.as_ref().is_some_and(|pool| is_chosen(pool));
        if name.is_none() || holds || is_bound {
            killed += usize::from(snapshot.process.kill(client.id));
        }
    }
    Ok(Outcome::Done(Some(Notice::new(
        format!("{killed} clients are disconnected; the pools are paused"),
        "",
    ))))
}

fn set_disabled(snapshot: &Snapshot, name: &str, is_disabled: bool) -> Result<Outcome, Reply> {
    let chosen = pools(snapshot, Some(name))?;
    members(&chosen).for_each(|member| member.set_disabled(is_disabled));
    Ok(Outcome::Done(None))
}
