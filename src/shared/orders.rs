//! Orders of operators to the program itself: what the console wants of whoever started it.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

/// Orders that may wait: there are no more consoles than that which could each give one.
const WAITING_MAX: usize = 16;

/// The wish of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To read the configuration again.
    Reload,
    /// To go on with another value of a key, as if the configuration said so.
    Set {
        /// The key, such as `pools.jobs.max_connections`.
        key: String,
        /// The value, as it would be written in the file, without quotes.
        value: String,
    },
    /// To go down.
    End(End),
}

/// How to go down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At once: whoever is in is cut off.
    Now,
    /// When transactions have ended, within `listen.shutdown_grace`.
    Drained,
    /// When clients have left by themselves; nobody else is let in.
    Left,
}

/// The outcome of an order: what has changed, or what is wrong, a line for each.
pub type Outcome = Result<Vec<String>, Vec<String>>;

/// An order, and where its outcome is waited for.
#[derive(Debug)]
pub struct Order {
    /// The wish.
    pub wish: Wish,
    /// Takes the outcome.
    pub to: oneshot::Sender<Outcome>,
}

/// Orders on their way.
#[derive(Debug)]
pub struct Orders {
    to: mpsc::Sender<Order>,
    from: Mutex<Option<mpsc::Receiver<Order>>>,
}

impl Default for Orders {
    fn default() -> Self {
        let (to, from) = mpsc::channel(WAITING_MAX);
        Self { to, from: Mutex::new(Some(from)) }
    }
}

impl Orders {
    /// Gives an order, and waits for what becomes of it; `None` if nobody follows orders any more.
    pub async fn give(&self, wish: Wish) -> Option<Outcome> {
        let (to, outcome) = oneshot::channel();
        self.to.send(Order { wish, to }).await.ok()?;
        outcome.await.ok()
    }

    /// The receiving end, for whoever follows the orders; `None` if somebody has it already.
    pub fn follow(&self) -> Option<mpsc::Receiver<Order>> {
        self.from.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
