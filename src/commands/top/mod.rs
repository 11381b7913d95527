//! `bulkhead top`: what the live page shows, in a terminal. Asks `/api/v1` once a second, and only looks.
//!
//! | file | what it holds |
//! |---|---|
//! | `asking` | a thread that asks, so that keys are answered while it waits |
//! | `view` | what is drawn, out of what was told; no I/O |
//! | `contents` | the tables of each tab |
//! | `sheet` | how a table fits into the terminal |

mod asking;
mod contents;
mod sheet;
mod view;

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::TryRecvError,
    },
    time::Duration,
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};
use tokio::signal::unix::{SignalKind, signal};

use asking::Asking;
use view::{Tab, View};

/// How long a key is waited for before it is looked at whether there is news, or an end.
const LOOK: Duration = Duration::from_millis(100);

/// How long after a signal the terminal may still be read.
const GRACE: Duration = Duration::from_secs(1);

/// Where Bulkhead is asked if nothing is said.
pub const DEFAULT_URL: &str = "http://127.0.0.1:9930";

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// The URL leads nowhere.
    #[error("{url:?} is not the URL of a Bulkhead: {why}; write http://HOST:PORT, as listen.http says")]
    Url {
        /// The URL as given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is no terminal, or it fails.
    #[error("the terminal cannot be used: {0}")]
    Terminal(#[from] io::Error),
}

/// Shows the Bulkhead at this URL until `q`, Ctrl-C or a signal. The terminal is left as it was found, also by a panic.
pub fn run(url: &str) -> Result<(), TopError> {
    let address = address(url)?;
    let is_over = Arc::new(AtomicBool::new(false));
    follow_signals(&is_over)?;
    let asking = Asking::start(address, Arc::clone(&is_over));
    let mut terminal = ratatui::try_init()?;
    let shown = show(&mut terminal, &asking, View::new(url), &is_over);
    let was_ended = is_over.swap(true, Ordering::Relaxed);
    // A terminal that is gone is neither restored nor told why.
    let restored = ratatui::try_restore();
    if was_ended || restored.is_err() { Ok(()) } else { Ok(shown?) }
}

/// The address that a URL names.
fn address(url: &str) -> Result<SocketAddr, TopError> {
    let wrong = |why: String| TopError::Url { url: url.to_owned(), why };
    let rest =
        url.strip_prefix("http://").ok_or_else(|| wrong("it does not begin with http://".to_owned()))?;
    let place = rest.split('/').next().unwrap_or_default();
    let mut found = place.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    found.next().ok_or_else(|| wrong("it names no address".to_owned()))
}

/// Notes SIGTERM, SIGHUP and SIGINT, on a thread of its own that ends with the process, and ends the process if nobody else does.
#[expect(clippy::exit, reason = "the thread that would return does not any more")]
fn follow_signals(is_over: &Arc<AtomicBool>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let kinds = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()];
    let [mut terminate, mut hangup, mut interrupt] = {
        let _inside = runtime.enter();
        let [one, two, three] = kinds.map(signal);
        [one?, two?, three?]
    };
    let is_over = Arc::clone(is_over);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            // Cancel safe: the first one ends it.
            tokio::select! {
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        is_over.store(true, Ordering::Relaxed);
        std::thread::sleep(GRACE);
        // Who reads keys from a terminal that is gone reads its end for ever.
        let _ = ratatui::try_restore();
        std::process::exit(0);
    })?;
    Ok(())
}

/// Draws, and obeys keys, until it is over.
fn show(
    terminal: &mut DefaultTerminal,
    asking: &Asking,
    mut view: View,
    is_over: &AtomicBool,
) -> io::Result<()> {
    let mut is_new = true;
    while !is_over.load(Ordering::Relaxed) {
        if is_new {
            terminal.draw(|frame| view.draw(frame))?;
        }
        is_new = event::poll(LOOK)?;
        if is_new && !obey(&event::read()?, &mut view, asking) {
            return Ok(());
        }
        loop {
            match asking.news.try_recv() {
                Ok(told) => {
                    view.tell(told);
                    is_new = true;
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }
    Ok(())
}

/// Does what a key says. False if it says that this is the end.
fn obey(event: &Event, view: &mut View, asking: &Asking) -> bool {
    let Event::Key(key) = event else { return true };
    if key.kind == KeyEventKind::Release {
        return true;
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return false,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
        KeyCode::Up | KeyCode::Char('k') => view.scroll(-1),
        KeyCode::Down | KeyCode::Char('j') => view.scroll(1),
        KeyCode::PageUp => view.scroll(-10),
        KeyCode::PageDown => view.scroll(10),
        KeyCode::Tab | KeyCode::Right => view.turn(1),
        KeyCode::BackTab | KeyCode::Left => view.turn(-1),
        KeyCode::Char(letter) => {
            if let Some(tab) = Tab::of(letter) {
                view.tab = tab;
                view.scroll(-10_000);
            }
        }
        _ => {}
    }
    asking.wants(view.tab.path());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_an_address() {
        assert_eq!(address("http://127.0.0.1:1/x").expect("an address").to_string(), "127.0.0.1:1");
        assert_eq!(address("http://[::1]:1").expect("an address").to_string(), "[::1]:1");
        for wrong in
            ["127.0.0.1:1", "https://127.0.0.1:1", "http://", "http://127.0.0.1", "http://nowhere.invalid:1"]
        {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
