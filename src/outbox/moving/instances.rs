//! Running instances that hold job statements back during the pause, and read their configuration again behind it: by
//! their consoles.

use std::time::Duration;

use tokio::{task::JoinSet, time::timeout};
use tokio_postgres::{Client, NoTls};

/// Logging in at a console.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// RELOAD and RESUME.
const ORDER_TIMEOUT: Duration = Duration::from_secs(30);

/// Consoles of instances.
#[derive(Default)]
pub struct Instances {
    urls: Vec<String>,
    consoles: Vec<Client>,
    /// The clients' connections, which end with this.
    connections: JoinSet<Result<(), tokio_postgres::Error>>,
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

    /// Logs in at all of them, before anybody is kept waiting.
    pub(super) async fn reach(&mut self) -> Result<(), String> {
        self.consoles.clear();
        self.connections.abort_all();
        for (at, url) in self.urls.iter().enumerate() {
            let connected = timeout(CONNECT_TIMEOUT, tokio_postgres::connect(url, NoTls)).await;
            let which = format!("the console of instance {} of {}", at + 1, self.urls.len());
            let (client, connection) = match connected {
                Ok(Ok(made)) => made,
                Ok(Err(error)) => return Err(format!("{which} cannot be reached: {}", whole(&error))),
                Err(_) => return Err(format!("{which} does not answer within {CONNECT_TIMEOUT:?}")),
            };
            self.connections.spawn(connection);
            self.consoles.push(client);
        }
        Ok(())
    }

    /// Has all of them hold job statements, once those that run have ended. Gives up after `limit`.
    pub(super) async fn pause(&self, limit: Duration) -> Result<(), String> {
        for console in &self.consoles {
            match timeout(limit, console.batch_execute("PAUSE jobs")).await {
                Ok(Ok(())) => {}
                // By one that was killed.
                Ok(Err(error)) if whole(&error).contains("already paused") => {}
                Ok(Err(error)) => return Err(format!("an instance does not pause: {}", whole(&error))),
                Err(_) => return Err(format!("job statements of an instance do not end within {limit:?}")),
            }
        }
        Ok(())
    }

    /// Has all of them go on.
    pub(super) async fn resume(&mut self) {
        // A PAUSE that still waits is given up with its connection; behind that, another one is needed.
        if !self.consoles.is_empty() && self.reach().await.is_ok() {
            for console in &self.consoles {
                // That one is not paused is no failure.
                let _ = timeout(ORDER_TIMEOUT, console.batch_execute("RESUME jobs")).await;
            }
        }
    }

    /// Has all of them read their configuration again and go on; what did not work.
    pub(super) async fn reload(&mut self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.consoles.is_empty()
            && let Err(problem) = self.reach().await
        {
            problems.push(problem);
        }
        for console in &self.consoles {
            match timeout(ORDER_TIMEOUT, console.batch_execute("RELOAD")).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => problems.push(format!("an instance does not reload: {}", whole(&error))),
                Err(_) => problems.push(format!("an instance does not reload within {ORDER_TIMEOUT:?}")),
            }
            let _ = timeout(ORDER_TIMEOUT, console.batch_execute("RESUME jobs")).await;
        }
        problems
    }
}

fn whole(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}
