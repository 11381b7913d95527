//! A TCP relay that misbehaves on command. It runs on a thread of its own, so that a test which blocks does not stop it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::watch,
};

use super::trap::{Held, Opening, Place, Towards, Trap};

/// Passes bytes between its own port and another address.
pub(crate) struct Relay {
    port: u16,
    weather: watch::Sender<Weather>,
    open: Arc<AtomicUsize>,
    passage: Arc<Passage>,
    listener: std::net::TcpListener,
}

/// What passes, over all connections: towards the upstream, and back. And where it is held.
#[derive(Default)]
struct Passage {
    meters: [Meter; 2],
    trap: Trap,
    /// Both sides of each connection that is open, which has a number.
    sockets: Mutex<Vec<(usize, [socket2::Socket; 2])>>,
    connections: AtomicUsize,
}

impl Passage {
    fn sockets(&self) -> MutexGuard<'_, Vec<(usize, [socket2::Socket; 2])>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every connection that is open hears nothing any more.
    fn deafen(&self) {
        self.sockets().iter().flat_map(|(_, sides)| sides).for_each(|socket| set_deaf(socket, true));
    }
}

struct Meter {
    passed: AtomicUsize,
    /// So many bytes may pass yet; the next one ends its connection.
    left: AtomicI64,
}

impl Default for Meter {
    fn default() -> Self {
        Self { passed: AtomicUsize::new(0), left: AtomicI64::new(i64::MAX) }
    }
}

impl Meter {
    /// How many of these bytes may pass.
    fn take(&self, count: usize) -> usize {
        let left = self.left.load(Ordering::SeqCst);
        if left == i64::MAX {
            self.passed.fetch_add(count, Ordering::SeqCst);
            return count;
        }
        let allowed = usize::try_from(left).unwrap_or(0).min(count);
        // Once is enough: who connects again is served.
        let next = if allowed < count { i64::MAX } else { left - allowed as i64 };
        self.left.store(next, Ordering::SeqCst);
        allowed
    }
}

/// A connection was cut by its meter.
struct Spent;

/// What happens to connections. A change reaches those that are open, too.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent faults")]
struct Weather {
    /// Every run of bytes waits so long, in each direction.
    delay: Duration,
    /// Nothing passes, nothing is closed.
    stalled: bool,
    /// New connections are closed at once.
    refusing: bool,
    /// Whatever comes from either side is dropped before the system sees it.
    vanished: bool,
    /// Connections of an earlier generation are reset.
    generation: usize,
    /// The relay was dropped.
    over: bool,
}

impl Relay {
    /// Listens on a free port and passes everything on to a port of this machine.
    pub(crate) fn start(upstream_port: u16) -> Self {
        let calm = Weather {
            delay: Duration::ZERO,
            stalled: false,
            refusing: false,
            vanished: false,
            generation: 0,
            over: false,
        };
        let (weather, seen) = watch::channel(calm);
        let listener =
            std::net::TcpListener::bind("127.0.0.1:0").expect("the loopback interface has a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let open = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&open);
        let passage = Arc::new(Passage::default());
        let passed = Arc::clone(&passage);
        let listening = listener.try_clone().expect("a spare descriptor");
        let upstream = SocketAddr::from(([127, 0, 0, 1], upstream_port));
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(serve(listening, upstream, seen, count, passed));
        });
        Self { port, weather, open, passage, listener }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Delays everything by so much in each direction.
    pub(crate) fn delay(&self, by: Duration) {
        self.weather.send_modify(|weather| weather.delay = by);
    }

    /// Lets nothing pass (`true`), as when a cable is pulled: no side is told. `false` ends it; nothing was lost.
    pub(crate) fn stall(&self, stalled: bool) {
        self.weather.send_modify(|weather| weather.stalled = stalled);
    }

    /// Drops every packet of either side (`true`), as if the machine had gone: nothing is acknowledged, and nobody is
    /// told, from here on. Connections that were open then stay so for ever; `false` is for new ones.
    pub(crate) fn vanish(&self, vanished: bool) {
        self.weather.send_modify(|weather| weather.vanished = vanished);
        set_deaf(&SockRef::from(&self.listener), vanished);
        if vanished {
            self.passage.deafen();
        }
    }

    /// Resets all connections that are open; new ones work.
    pub(crate) fn cut(&self) {
        self.weather.send_modify(|weather| weather.generation += 1);
    }

    /// Counts what passes from now on.
    pub(crate) fn count(&self) {
        self.passage.meters.iter().for_each(|meter| meter.passed.store(0, Ordering::SeqCst));
    }

    /// Bytes towards the upstream and back since [`Self::count`].
    pub(crate) fn counted(&self) -> (usize, usize) {
        let [there, back] = &self.passage.meters;
        (there.passed.load(Ordering::SeqCst), back.passed.load(Ordering::SeqCst))
    }

    /// Lets so many bytes more pass in each direction, over all connections. Whatever comes then ends its connection,
    /// after what has passed was delivered; later ones are left alone. `None`: as many as there are.
    pub(crate) fn cut_after(&self, upstream: Option<usize>, client: Option<usize>) {
        for (meter, left) in self.passage.meters.iter().zip([upstream, client]) {
            meter.left.store(left.map_or(i64::MAX, |left| left as i64), Ordering::SeqCst);
        }
    }

    /// Holds what comes to this place next: its connection stands still there.
    pub(crate) fn set_trap(&self, place: Place) {
        self.passage.trap.set(place);
    }

    /// Whether something is held.
    pub(crate) fn holds(&self) -> bool {
        self.passage.trap.has_sprung()
    }

    /// Lets go what is held.
    pub(crate) fn release(&self, held: Held) {
        self.passage.trap.release(held);
    }

    /// Closes new connections at once (`true`), or accepts them again.
    pub(crate) fn refuse(&self, refusing: bool) {
        self.weather.send_modify(|weather| weather.refusing = refusing);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.weather.send_modify(|weather| weather.over = true);
    }
}

async fn serve(
    listener: std::net::TcpListener,
    upstream: SocketAddr,
    mut weather: watch::Receiver<Weather>,
    open: Arc<AtomicUsize>,
    passage: Arc<Passage>,
) {
    listener.set_nonblocking(true).expect("sockets can be non-blocking");
    let listener = TcpListener::from_std(listener).expect("inside a runtime");
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => accepted,
            // All connections are tasks of this runtime, which ends when this function does.
            _ = weather.wait_for(|weather| weather.over) => return,
        };
        let Ok((client, _)) = client else { continue };
        if weather.borrow().refusing {
            continue;
        }
        tokio::spawn(connection(client, upstream, weather.clone(), Arc::clone(&open), Arc::clone(&passage)));
    }
}

async fn connection(
    client: TcpStream,
    upstream: SocketAddr,
    mut weather: watch::Receiver<Weather>,
    open: Arc<AtomicUsize>,
    passage: Arc<Passage>,
) {
    let born = weather.borrow().generation;
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    for socket in [&client, &server] {
        socket.set_nodelay(true).ok();
        // Closing resets instead of saying goodbye; a goodbye is said by shutting down, below.
        socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO)).ok();
    }
    open.fetch_add(1, Ordering::SeqCst);
    let number = passage.connections.fetch_add(1, Ordering::SeqCst);
    let sides =
        [&client, &server].map(|socket| SockRef::from(socket).try_clone().expect("a spare descriptor"));
    passage.sockets().push((number, sides));
    if weather.borrow().vanished {
        // It has come in the same moment.
        passage.deafen();
    }
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let opening = Opening::default();
    let both = async {
        tokio::try_join!(
            pass(client_read, server_write, weather.clone(), (&passage, &opening), Towards::Upstream),
            pass(server_read, client_write, weather.clone(), (&passage, &opening), Towards::Client)
        )
    };
    let mut changes = weather.clone();
    tokio::select! {
        _ = both => (),
        _ = changes.wait_for(|now| now.generation != born) => (),
    }
    passage.sockets().retain(|(known, _)| *known != number);
    weather.mark_unchanged();
    open.fetch_sub(1, Ordering::SeqCst);
}

/// Has the system drop what comes for a socket before TCP sees it, by a filter that accepts nothing.
fn set_deaf(socket: &socket2::Socket, deaf: bool) {
    const RETURN: u16 = 0x06;
    let done = if deaf {
        socket.attach_filter(&[socket2::SockFilter::new(RETURN, 0, 0, 0)])
    } else {
        // There may be none.
        socket.detach_filter().or(Ok(()))
    };
    done.expect("sockets can be filtered");
}

/// One direction, until its end; then the other side is told.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    (passage, opening): (&Passage, &Opening),
    towards: Towards,
) -> Result<(), Spent> {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let Ok(now) = weather.wait_for(|now| !now.stalled).await.map(|now| *now) else { return Ok(()) };
        if !now.delay.is_zero() {
            tokio::time::sleep(now.delay).await;
        }
        if towards == Towards::Upstream {
            opening.hear(&buffer[..count]);
        }
        let allowed = passage.meters[towards as usize].take(count);
        let (first, rest) = match passage.trap.catch(opening, towards, &buffer[..allowed]) {
            Some(held) => buffer[..allowed].split_at(held),
            None => (&buffer[..allowed], [].as_slice()),
        };
        if to.write_all(first).await.is_err() {
            return Ok(());
        }
        if !rest.is_empty() {
            if passage.trap.released().await == Held::Lost {
                return Err(Spent);
            }
            if to.write_all(rest).await.is_err() {
                return Ok(());
            }
        }
        if allowed < count {
            to.shutdown().await.ok();
            // A reset would take away what was not read yet.
            tokio::time::sleep(Duration::from_millis(20)).await;
            return Err(Spent);
        }
    }
    to.shutdown().await.ok();
    Ok(())
}
