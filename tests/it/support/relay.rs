//! A TCP relay that misbehaves on command. It runs on a thread of its own, so that a test which blocks does not stop it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::watch,
};

/// Passes bytes between its own port and another address.
pub(crate) struct Relay {
    port: u16,
    weather: watch::Sender<Weather>,
    open: Arc<AtomicUsize>,
}

/// What happens to connections. A change reaches those that are open, too.
#[derive(Clone, Copy, Debug)]
struct Weather {
    /// Every run of bytes waits so long, in each direction.
    delay: Duration,
    /// Nothing passes, nothing is closed.
    stalled: bool,
    /// New connections are closed at once.
    refusing: bool,
    /// Connections of an earlier generation are reset.
    generation: usize,
    /// The relay was dropped.
    over: bool,
}

impl Relay {
    /// Listens on a free port and passes everything on to a port of this machine.
    pub(crate) fn start(upstream_port: u16) -> Self {
        let calm =
            Weather { delay: Duration::ZERO, stalled: false, refusing: false, generation: 0, over: false };
        let (weather, seen) = watch::channel(calm);
        let listener =
            std::net::TcpListener::bind("127.0.0.1:0").expect("the loopback interface has a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let open = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&open);
        let upstream = SocketAddr::from(([127, 0, 0, 1], upstream_port));
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(serve(listener, upstream, seen, count));
        });
        Self { port, weather, open }
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

    /// Resets all connections that are open; new ones work.
    pub(crate) fn cut(&self) {
        self.weather.send_modify(|weather| weather.generation += 1);
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
        tokio::spawn(connection(client, upstream, weather.clone(), Arc::clone(&open)));
    }
}

async fn connection(
    client: TcpStream,
    upstream: SocketAddr,
    mut weather: watch::Receiver<Weather>,
    open: Arc<AtomicUsize>,
) {
    let born = weather.borrow().generation;
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    for socket in [&client, &server] {
        socket.set_nodelay(true).ok();
        // Closing resets instead of saying goodbye; a goodbye is said by shutting down, below.
        socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO)).ok();
    }
    open.fetch_add(1, Ordering::SeqCst);
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let both = async {
        tokio::join!(
            pass(client_read, server_write, weather.clone()),
            pass(server_read, client_write, weather.clone())
        )
    };
    let mut changes = weather.clone();
    tokio::select! {
        _ = both => (),
        _ = changes.wait_for(|now| now.generation != born) => (),
    }
    weather.mark_unchanged();
    open.fetch_sub(1, Ordering::SeqCst);
}

/// One direction, until its end; then the other side is told.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut weather: watch::Receiver<Weather>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let Ok(now) = weather.wait_for(|now| !now.stalled).await.map(|now| *now) else { return };
        if !now.delay.is_zero() {
            tokio::time::sleep(now.delay).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    to.shutdown().await.ok();
}
