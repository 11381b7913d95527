//! Running instances that hold job statements back during the pause, and read their configuration again behind it: by
//! their consoles.
//!
//! Those that somebody else has paused stay so: only what a move has paused, this run or one that was killed, goes on by it.

use std::{collections::BTreeSet, time::Duration};

use tokio::{task::JoinSet, time::timeout};
use tokio_postgres::{Client, Config, Error, NoTls, SimpleQueryMessage, config::Host, error::SqlState};

/// Logging in at a console.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// RELOAD and RESUME.
const ORDER_TIMEOUT: Duration = Duration::from_secs(30);

/// Consoles of instances.
#[derive(Default)]
pub struct Instances {
    urls: Vec<String>,
    consoles: Vec<Console>,
    /// Instances that a move has paused, by where they are.
    paused: BTreeSet<String>,
    /// The clients' connections, which end with this.
    connections: JoinSet<Result<(), Error>>,
}

/// A connection to one.
struct Console {
    /// Host and port, by which it is noted.
    place: String,
    client: Client,
}

impl Instances {
    /// Instances whose consoles have these URLs: of a database that is a console, and a user of `console.admin_users`.
    pub fn new(urls: Vec<String>) -> Self {
        Self { urls, ..Self::default() }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.urls.len()
    }

    /// Notes that these were paused by a move before.
    pub(super) fn remember(&mut self, paused: Vec<String>) {
        self.paused = paused.into_iter().collect();
    }

    /// Instances that a move has paused, and that were not told to go on.
    pub(super) fn paused(&self) -> Vec<String> {
        self.paused.iter().cloned().collect()
    }

    pub(super) fn any_paused(&self) -> bool {
        !self.paused.is_empty()
    }

    /// Logs in at all of them, before anybody is kept waiting.
    pub(super) async fn reach(&mut self) -> Result<(), String> {
        self.consoles.clear();
        self.connections.abort_all();
        for (at, url) in self.urls.iter().enumerate() {
            let which = format!("the console of instance {} of {}", at + 1, self.urls.len());
            let config: Config = url.parse().map_err(|error| format!("{which} has no URL: {error}"))?;
            let (client, connection) = match timeout(CONNECT_TIMEOUT, config.connect(NoTls)).await {
                Ok(Ok(made)) => made,
                Ok(Err(error)) => return Err(format!("{which} cannot be reached: {}", whole(&error))),
                Err(_) => return Err(format!("{which} does not answer within {CONNECT_TIMEOUT:?}")),
            };
            self.connections.spawn(connection);
            self.consoles.push(Console { place: place(&config), client });
        }
        Ok(())
    }

    /// Instances that a move has paused already, or is to pause: all that nobody else has.
    pub(super) async fn to_be_paused(&self) -> Result<Vec<String>, String> {
        let mut all = self.paused.clone();
        for console in &self.consoles {
            if !console.is_paused().await? {
                all.insert(console.place.clone());
            }
        }
        Ok(all.into_iter().collect())
    }

    /// Has all of them hold job statements, once those that run have ended. Gives up after `limit`.
    pub(super) async fn pause(&mut self, limit: Duration) -> Result<(), String> {
        for console in &self.consoles {
            match timeout(limit, console.client.batch_execute("PAUSE jobs")).await {
                Ok(Ok(())) => {
                    self.paused.insert(console.place.clone());
                }
                // By somebody else; or by an earlier run, which is remembered.
                Ok(Err(error)) if error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => {}
                Ok(Err(error)) => return Err(format!("an instance does not pause: {}", whole(&error))),
                Err(_) => {
                    // Given up with its connection, which may come too late.
                    self.paused.insert(console.place.clone());
                    return Err(format!("job statements of an instance do not end within {limit:?}"));
                }
            }
        }
        Ok(())
    }

    /// Has those go on that a move has paused.
    pub(super) async fn resume(&mut self) {
        // A PAUSE that still waits is given up with its connection; behind that, another one is needed.
        if self.any_paused() && self.reach().await.is_ok() {
            self.let_go().await;
        }
    }

    async fn let_go(&mut self) {
        for console in &self.consoles {
            if !self.paused.contains(&console.place) {
                continue;
            }
            let resumed = timeout(ORDER_TIMEOUT, console.client.batch_execute("RESUME jobs")).await;
            // That one is not paused is no failure.
            if let Ok(resumed) = resumed
                && resumed.as_ref().err().is_none_or(|error| error.code().is_some())
            {
                self.paused.remove(&console.place);
            }
        }
    }

    /// Has all of them read their configuration again, and those go on that a move has paused; what did not work.
    pub(super) async fn reload(&mut self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.consoles.is_empty()
            && let Err(problem) = self.reach().await
        {
            problems.push(problem);
        }
        for console in &self.consoles {
            match timeout(ORDER_TIMEOUT, console.client.batch_execute("RELOAD")).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => problems.push(format!("an instance does not reload: {}", whole(&error))),
                Err(_) => problems.push(format!("an instance does not reload within {ORDER_TIMEOUT:?}")),
            }
        }
        self.let_go().await;
        problems.extend(self.paused.iter().map(|place| {
            format!("the instance at {place} is paused still: RESUME jobs at its console has it go on")
        }));
        problems
    }
}

impl Console {
    /// Whether its pool of jobs is paused.
    async fn is_paused(&self) -> Result<bool, String> {
        let asked = timeout(ORDER_TIMEOUT, self.client.simple_query("SHOW DATABASES")).await;
        let rows = match asked {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => return Err(format!("an instance does not tell: {}", whole(&error))),
            Err(_) => return Err(format!("an instance does not tell within {ORDER_TIMEOUT:?}")),
        };
        Ok(rows.iter().any(|message| match message {
            SimpleQueryMessage::Row(row) => {
                row.get("name") == Some("jobs") && row.get("paused").is_some_and(|paused| paused != "0")
            }
            _ => false,
        }))
    }
}

/// Host and port of a URL.
fn place(config: &Config) -> String {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        #[cfg(unix)]
        Some(Host::Unix(path)) => path.display().to_string(),
        None => String::new(),
    };
    format!("{host}:{}", config.get_ports().first().copied().unwrap_or(5432))
}

fn whole(error: &Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_noted_without_its_password() {
        let place_of = |url: &str| place(&url.parse().expect("a URL"));
        assert_eq!(place_of("postgres://admin:secret@10.0.0.7:6432/bulkhead"), "10.0.0.7:6432");
        assert_eq!(place_of("host=/run/bulkhead user=admin"), "/run/bulkhead:5432");
    }
}
