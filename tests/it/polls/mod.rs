//! Futures of the library are dropped after each number of polls: no place is lost by it, nobody who waits is forgotten, and
//! a connection that was in the middle of something is closed.

mod pool;
mod session;

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bulkhead::backend::{Credentials, HostPort, Identity, Server, SessionAttrs};
use std::sync::Arc;

use crate::support::Postgres;

/// What must come, comes within this.
const SOON: Duration = Duration::from_secs(10);

/// No future here needs as many polls.
const POLLS_MAX: usize = 2_000;

/// When a future is dropped.
#[derive(Clone, Copy, Debug)]
enum When {
    /// After its last poll, before anything has come for it.
    AtOnce,
    /// When something has come, before it has seen that.
    Woken,
}

/// A future that is polled so often, and then dropped: then there is no output.
struct Limited<F> {
    future: Option<Pin<Box<F>>>,
    left: usize,
    when: When,
}

impl<F: Future> Limited<F> {
    fn new(future: F, polls: usize, when: When) -> Self {
        Self { future: Some(Box::pin(future)), left: polls, when }
    }
}

impl<F: Future> Future for Limited<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let left = self.left;
        let Some(future) = self.future.as_mut().filter(|_| left > 0) else {
            self.future = None;
            return Poll::Ready(None);
        };
        let polled = future.as_mut().poll(cx);
        self.left = left - 1;
        match polled {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.left == 0 && matches!(self.when, When::AtOnce) => {
                self.future = None;
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Tries a case, which tells whether its future came to its end, with each number of polls until it has; how many that
/// were.
#[expect(clippy::print_stderr, reason = "the test runner shows it when it is asked to")]
async fn at_every_poll(what: &str, case: impl AsyncFn(usize, When) -> bool) -> usize {
    let mut most = 0;
    for when in [When::AtOnce, When::Woken] {
        let mut polls = 0;
        while !case(polls, when).await {
            polls += 1;
            assert!(polls < POLLS_MAX, "{what}: it does not end");
        }
        eprintln!("{what}: dropped {when:?} after 0 to {} polls, done after {polls}", polls - 1);
        most = most.max(polls);
    }
    most
}

/// The server as the library is told of it.
fn server(primary: &Postgres) -> Arc<Server> {
    Arc::new(Server {
        name: "primary".to_owned(),
        hosts: vec![HostPort { host: "127.0.0.1".to_owned(), port: primary.port() }],
        session_attrs: SessionAttrs::Any,
        tls: bulkhead::auth::tls::Connector::default(),
        user: "app_trust".to_owned(),
        secret: None,
        database: "app".to_owned(),
        require_auth: bulkhead::auth::RequireAuth::default(),
        application_name: None,
        numbers: Arc::default(),
        traffic: Arc::default(),
        in_use: Arc::default(),
        tcp_user_timeout: Duration::ZERO,
    })
}

fn identity(database: &str) -> Arc<Identity> {
    let credentials = Credentials { is_url_user: true, ..Credentials::default() };
    Arc::new(Identity::new(database, "app_trust", credentials))
}
