//! The three Postgres servers: a primary, its streaming replica, and a job database on a server of its own.
//!
//! They listen on the loopback interface only, with passwords made for this run, and do not wait for the disk: their
//! data goes with the folder.

use std::{ffi::OsStr, fmt::Write as _, fs, future::Future, net::TcpListener, path::PathBuf, time::Duration};

use tokio_postgres::{Client, Config, NoTls};

use super::{
    Failure,
    folder::Folder,
    machines::{Machine, Machines},
    process::{Farewell, Launch, Running},
    programs::Programs,
    schema,
};

/// The role and the database of the application.
pub(super) const APP: &str = "app";
/// The server that is the users' own.
const PRIMARY: &str = "primary";
const SUPERUSER: &str = "postgres";
/// From a server's start until it takes connections, on a slow machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// Somebody may take a free port before its server does.
const PORT_TRIES: u32 = 5;

/// Passwords of one run.
#[derive(Debug)]
pub(super) struct Passwords {
    pub(super) superuser: String,
    pub(super) app: String,
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub(super) struct Postgres {
    pub(super) name: &'static str,
    pub(super) port: u16,
    process: Running,
}

/// What starting servers takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup<'a> {
    pub(super) programs: &'a Programs,
    pub(super) folder: &'a Folder,
    pub(super) passwords: &'a Passwords,
    pub(super) machines: &'a Machines,
}

/// The servers; the replica ends first, because without its primary it would only complain.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) replica: Postgres,
    pub(super) primary: Postgres,
    pub(super) jobs: Postgres,
}

impl Servers {
    /// Starts all three with the application's tables, and the job tables on both primary and job database.
    pub(super) async fn start(setup: Setup<'_>) -> Result<Self, Failure> {
        // The replica begins as a copy of the primary, so it has nothing to fetch but what comes after.
        let pair = async {
            setup.init(PRIMARY).await?;
            setup.copy(PRIMARY, "replica").await
        };
        tokio::try_join!(pair, setup.init("jobs"))?;
        let (primary, jobs) = tokio::try_join!(setup.boot(PRIMARY, None), setup.boot("jobs", None))?;
        let replica = setup.boot("replica", Some(primary.port)).await?;
        let app = [schema::APPLICATION, schema::JOBS].concat();
        tokio::try_join!(setup.fill(&primary, &app), setup.fill(&jobs, schema::JOBS))?;
        setup.wait_for_replay(&primary, &replica).await?;
        Ok(Self { replica, primary, jobs })
    }

    /// The name of a server that has ended by itself, if one has.
    pub(super) fn ended(&mut self) -> Option<&'static str> {
        let servers = [&mut self.primary, &mut self.replica, &mut self.jobs];
        servers
            .into_iter()
            .find_map(|server| matches!(server.process.ended(), Ok(Some(_))).then_some(server.name))
    }
}

impl Setup<'_> {
    /// Makes a server's data folder.
    async fn init(self, name: &str) -> Result<(), Failure> {
        let password_file =
            self.folder.write(&format!("{name}.password"), &self.passwords.superuser, self.programs.owner)?;
        let data = self.folder.join(name);
        let password_option = format!("--pwfile={}", password_file.display());
        let options =
            ["--no-sync", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--wal-segsize=1"];
        let mut arguments: Vec<&OsStr> = options.iter().map(OsStr::new).collect();
        let user = format!("--username={SUPERUSER}");
        arguments.extend([
            OsStr::new(&user),
            OsStr::new(&password_option),
            OsStr::new("-D"),
            data.as_os_str(),
        ]);
        self.run("initdb", name, &arguments).await
    }

    async fn copy(self, from: &str, to: &str) -> Result<(), Failure> {
        let (from, target) = (self.folder.join(from), self.folder.join(to));
        self.run("cp", to, &[OsStr::new("-R"), from.as_os_str(), target.as_os_str()]).await
    }

    async fn run(self, program: &str, server: &str, arguments: &[&OsStr]) -> Result<(), Failure> {
        let launch = Launch {
            program: &self.programs.path(program),
            arguments,
            owner: self.programs.owner,
            log: &self.log(server),
            farewell: Farewell::Kill,
            on: None,
        };
        launch.run().await
    }

    fn log(self, server: &str) -> PathBuf {
        self.folder.join(&format!("{server}.log"))
    }

    async fn boot(self, name: &'static str, primary_port: Option<u16>) -> Result<Postgres, Failure> {
        for _ in 0..PORT_TRIES {
            if let Some(server) = self.try_boot(name, free_port()?, primary_port).await? {
                return Ok(server);
            }
        }
        Err(Failure::Died(name))
    }

    /// `None` if it has ended instead: mostly because its port was taken.
    async fn try_boot(
        self,
        name: &'static str,
        port: u16,
        primary_port: Option<u16>,
    ) -> Result<Option<Postgres>, Failure> {
        let data = self.folder.join(name);
        let file = |inside: &str| format!("{name}/{inside}");
        let owner = self.programs.owner;
        self.folder.write(&file("postgresql.conf"), &self.settings(port, primary_port), owner)?;
        if primary_port.is_some() {
            self.folder.write(&file("standby.signal"), "", owner)?;
        }
        let launch = Launch {
            program: &self.programs.path("postgres"),
            arguments: &[OsStr::new("-D"), data.as_os_str()],
            owner,
            log: &self.log(name),
            farewell: Farewell::Quit,
            on: Some((self.machines, if name == PRIMARY { Machine::Users } else { Machine::Workers })),
        };
        let mut process = launch.start()?;
        let lock = data.join("postmaster.pid");
        let ready = within(START_TIMEOUT, &format!("the {name} server"), async || {
            if process.ended().map_err(Failure::System)?.is_some() {
                return Ok(Some(false));
            }
            // The server writes into the last line of its lock file how far it is.
            let text = fs::read_to_string(&lock).unwrap_or_default();
            let mut lines = text.lines().map(str::trim);
            let is_own = lines.next() == Some(&process.pid().to_string());
            Ok((is_own && lines.nth(6) == Some("ready")).then_some(true))
        })
        .await?;
        Ok(ready.then_some(Postgres { name, port, process }))
    }

    fn settings(self, port: u16, primary_port: Option<u16>) -> String {
        let mut text = format!("port = {port}\n");
        // The number of connections is the one that `initdb` ran with: a replica refuses to have fewer.
        text.push_str(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nmax_connections = 100\n\
             shared_buffers = '32MB'\nfsync = off\nfull_page_writes = off\nwal_keep_size = '256MB'\n\
             hot_standby = on\nwal_retrieve_retry_interval = '100ms'\npassword_encryption = 'scram-sha-256'\n\
             timezone = 'UTC'\nlog_timezone = 'UTC'\nlog_line_prefix = '%m [%p] %u@%d '\n",
        );
        if let Some(primary) = primary_port {
            let password = &self.passwords.superuser;
            writeln!(
                text,
                "primary_conninfo = 'host=127.0.0.1 port={primary} user={SUPERUSER} password={password}'"
            )
            .expect("a String takes any text");
        }
        text
    }

    /// Makes the application's role and database, and tables in it.
    async fn fill(self, server: &Postgres, tables: &str) -> Result<(), Failure> {
        let role = format!("CREATE ROLE {APP} LOGIN PASSWORD '{}'", self.passwords.app);
        let database = format!("CREATE DATABASE {APP} OWNER {APP}");
        self.ask(server, SUPERUSER, async |client| {
            client.batch_execute(&role).await?;
            client.batch_execute(&database).await
        })
        .await?;
        let as_app = format!("SET ROLE {APP}; {tables}");
        self.ask(server, APP, async |client| client.batch_execute(&as_app).await).await
    }

    /// Waits until the replica has the tables.
    async fn wait_for_replay(self, primary: &Postgres, replica: &Postgres) -> Result<(), Failure> {
        let position: String = self
            .ask(primary, APP, async |client| {
                Ok(client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await?.get(0))
            })
            .await?;
        let has_replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn");
        within(START_TIMEOUT, "the replica's first data", async || {
            let caught_up: Option<bool> = self
                .ask(replica, SUPERUSER, async |client| {
                    Ok(client.query_one(&has_replayed, &[]).await?.get(0))
                })
                .await?;
            Ok((caught_up == Some(true)).then_some(()))
        })
        .await
    }

    /// Asks a server straight, as its superuser.
    async fn ask<T>(
        self,
        server: &Postgres,
        database: &str,
        question: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Failure> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(server.port).user(SUPERUSER).password(&self.passwords.superuser);
        config.dbname(database).connect_timeout(START_TIMEOUT);
        let failed = |error| Failure::Sql { at: server.name, error };
        let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
        driven(connection, question(&client)).await.map_err(failed)
    }
}

/// Drives a connection while its client works. Dropped, it closes the connection.
pub(super) async fn driven<T>(
    connection: impl Future<Output = Result<(), tokio_postgres::Error>>,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, tokio_postgres::Error> {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        result = work.as_mut() => result,
        ended = connection => match ended {
            // The client's own calls report that their connection has gone.
            Ok(()) => work.await,
            Err(error) => Err(error),
        },
    }
}

/// A port of this machine that nobody listens on. Whoever uses it must be ready to find it taken after all.
pub(super) fn free_port() -> Result<u16, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    Ok(listener.map_err(Failure::System)?.port())
}

/// Asks `probe` until it answers or fails.
pub(super) async fn within<T>(
    limit: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    let asked = async {
        loop {
            if let Some(answer) = probe().await? {
                return Ok(answer);
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let late = |_| Failure::NotReady { what: what.to_owned(), within: limit };
    tokio::time::timeout(limit, asked).await.map_err(late)?
}
