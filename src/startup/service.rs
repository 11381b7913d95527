//! The service manager (systemd): sockets that it passes, what it is told, and its watchdog.
//!
//! Without one (`NOTIFY_SOCKET`, `LISTEN_FDS` and `WATCHDOG_USEC` are not set) nothing of this does anything.
//!
//! Sockets that are passed (`LISTEN_FDS`, of a `.socket` unit) take the place of the configuration's: the one with
//! `FileDescriptorName=http` is used instead of `listen.http`; any others, TCP or Unix, are for Postgres clients
//! and used instead of both `listen.address` and `listen.unix_socket_dir`. A passed socket's file is its unit's: it is
//! not removed at the end.

use std::{fmt::Write as _, io, net::TcpListener, os::unix::net::UnixListener, time::Duration};

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::{
    shared::{Current, Snapshot},
    threads::Spawner,
};

/// The name of a passed socket that serves HTTP.
const HTTP_NAME: &str = "http";

/// How often the service manager's status line is brought up to date.
const STATUS_ROUND: Duration = Duration::from_secs(10);

/// Sockets that the service manager passed. All empty without one.
#[derive(Debug, Default)]
pub struct Inherited {
    /// For Postgres clients.
    pub tcp: Vec<TcpListener>,
    /// For Postgres clients.
    pub unix: Vec<UnixListener>,
    /// For `/metrics` and the like.
    pub http: Option<TcpListener>,
}

impl Inherited {
    /// Takes them over. To be called once, before there are threads: it clears variables of the environment.
    pub fn take() -> io::Result<Self> {
        // The library takes sockets for ours if no process is named; systemd always names one.
        if std::env::var_os("LISTEN_PID").is_none() {
            return Ok(Self::default());
        }
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut passed = ListenFd::from_env();
        let mut inherited = Self::default();
        let mut names = names.split(':');
        for at in 0..passed.len() {
            let is_http = names.next() == Some(HTTP_NAME);
            if let Ok(Some(listener)) = passed.take_unix_listener(at) {
                if is_http {
                    return Err(io::Error::other("the socket named http is a Unix socket; it must be TCP"));
                }
                listener.set_nonblocking(true)?;
                inherited.unix.push(listener);
            } else if let Some(listener) = passed.take_tcp_listener(at)? {
                listener.set_nonblocking(true)?;
                if is_http && inherited.http.is_none() {
                    inherited.http = Some(listener);
                } else {
                    inherited.tcp.push(listener);
                }
            }
        }
        Ok(inherited)
    }
}

/// Clients can connect now: at the start, and at the end of a reload.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// A reload begins; [`ready`] ends it.
pub fn reloading() {
    // systemd (`Type=notify-reload`) wants to know when, by the monotonic clock.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// Bulkhead is going down. Waiting for clients may take up to `grace`.
pub fn stopping(grace: Duration) {
    let longer = u32::try_from((grace + Duration::from_secs(5)).as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(longer)]);
}

fn tell(news: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(news) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}

/// Keeps the status line up to date until `stop`.
pub async fn keep_status(current: std::sync::Arc<Current>, stop: CancellationToken) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let mut told = String::new();
    loop {
        let status = status(&current.load());
        if status != told {
            tell(&[NotifyState::Status(&status)]);
            told = status;
        }
        tokio::select! {
            // Cancel safe, both.
            () = tokio::time::sleep(STATUS_ROUND) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Clients and pools in one line.
fn status(shared: &Snapshot) -> String {
    let mut status = format!("{} of {} clients", shared.clients(), shared.limits.max_clients);
    for pool in &shared.pools {
        let figures = pool.members.iter().map(|member| member.figures());
        let (mut leased, mut bound, mut waiting) = (0, 0, 0);
        for figures in figures {
            leased += figures.leased;
            bound += figures.max_connections;
            waiting += figures.waiting;
        }
        let _ = write!(status, "; {}: {leased} of {bound} busy, {waiting} waiting", pool.name);
    }
    status
}

/// Tells the watchdog that all threads are well, twice as often as it asks for, until `stop`. A thread that does not
/// run a trivial task in time is not well: then nothing is said, and the service manager restarts the program.
pub async fn feed_watchdog(spawner: Spawner, stop: CancellationToken) {
    let Some(within) = sd_notify::watchdog_enabled() else { return };
    let round = within / 2;
    loop {
        let started = tokio::time::Instant::now();
        if spawner.is_well(round).await {
            tell(&[NotifyState::Watchdog]);
        }
        tokio::select! {
            // Cancel safe, both.
            () = tokio::time::sleep_until(started + round) => {}
            () = stop.cancelled() => return,
        }
    }
}
