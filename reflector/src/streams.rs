//! The streams thread: says which throughput tests there are, and moves those over TCP on a ring of its own, so
//! that they disturb no echo.
//!
//! The echo thread hands over orders as it opens them, and sends the reports on them. Datagrams of tests over UDP
//! pass through it, too, since they go where its sessions are; how many core limits. This thread
//! listens for TCP, silent to every address from which no test was granted; what begins with a good
//! token is counted or filled, everything else is closed.

mod connections;
mod granted;
mod leaving;
mod orders;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bufferbane_core::drop_reason::DropCounters;
use bufferbane_core::load::host::{Host, HostLimits, MAX_TESTS, Room};
use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::tcp::TcpListening;
use bufferbane_linux_io::{Bulk, StreamId, Waker, clock};
use rand_chacha::ChaCha20Rng;

use crate::allowance::Allowance;
use crate::config::Config;
use crate::mail::{Asked, News, Told};
use connections::Owned;
use granted::Granted;
use leaving::SentTests;

/// Streams that there is room for, of all tests and of those that have not shown a token yet.
const STREAMS: u16 = 256;
/// How often TCP is asked about the streams that this end sends on, ns.
const FACTS_NS: u64 = 100_000_000;
/// The thread comes by at least this often, ns.
const ROUND_NS: u64 = 1_000_000_000;
/// What other threads ask of it.
pub(crate) enum Command {
    /// To listen at these addresses and send reports by this waker's thread.
    Begin(Vec<SocketAddr>, Waker),
    /// Other clients and limits.
    Clients(Vec<Allowance>, HostLimits),
    /// To end.
    Stop,
}

/// The limits on tests in all.
pub(crate) fn limits(config: &Config) -> HostLimits {
    HostLimits {
        concurrent: config.limits.concurrent_tests,
        streams: config.limits.test_streams,
    }
}

/// What it counts, since the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct TestCounts {
    /// Tests that run now.
    pub(crate) running: u64,
    /// Tests that were granted.
    pub(crate) granted: u64,
    /// Orders that were told to wait.
    pub(crate) busy: u64,
    /// Orders that were refused.
    pub(crate) refused: u64,
    /// Bytes received through streams.
    pub(crate) received: u64,
    /// Bytes handed to the kernel for streams.
    pub(crate) sent: u64,
    /// TCP streams that were closed for want of a good token, by reason.
    pub(crate) drops: DropCounters,
    /// Why it does not listen; empty where it does.
    pub(crate) trouble: String,
}

/// What the thread begins with.
pub(crate) struct Ends {
    pub(crate) commands: Receiver<Command>,
    pub(crate) asked: Receiver<Asked>,
    pub(crate) told: SyncSender<Told>,
    pub(crate) news: SyncSender<News>,
    pub(crate) counts: Arc<Mutex<TestCounts>>,
}

/// See the module.
pub(crate) struct Streams {
    bulk: Bulk,
    /// Whether there is something to send: many a reflector never has a test.
    filled: bool,
    host: Host<Box<[Room]>>,
    ends: Ends,
    echo: Option<Waker>,
    clients: Vec<Allowance>,
    limits: HostLimits,
    owned: HashMap<StreamId, Owned>,
    granted: Granted,
    sent: SentTests,
    counts: TestCounts,
    rng: ChaCha20Rng,
}

impl Streams {
    /// Makes the ring; to be called on the thread that will [`Streams::run`].
    pub(crate) fn new(
        clients: Vec<Allowance>,
        limits: HostLimits,
        ends: Ends,
    ) -> Result<Self, String> {
        let rng = crate::random()?;
        let bulk = Bulk::new(STREAMS, |_| ()).map_err(|e| e.to_string())?;
        let room = std::iter::repeat_with(Room::default).take(MAX_TESTS);
        Ok(Self {
            bulk,
            filled: false,
            host: Host::new(limits, room.collect()),
            ends,
            echo: None,
            clients,
            limits,
            owned: HashMap::new(),
            granted: Granted::default(),
            sent: SentTests::default(),
            counts: TestCounts::default(),
            rng,
        })
    }

    pub(crate) fn waker(&self) -> Waker {
        self.bulk.waker()
    }

    /// Runs tests until it is told to stop.
    pub(crate) fn run(mut self) -> Result<(), String> {
        let mut events = Vec::new();
        let mut facts_at = Monotonic::ZERO;
        loop {
            let now = clock::now();
            let busy = self.host.running_tests() > 0;
            let round = if busy { FACTS_NS } else { ROUND_NS };
            let until = now.saturating_add(round);
            let until = self.host.poll_timeout().map_or(until, |t| t.min(until));
            self.bulk
                .wait(until, &mut events)
                .map_err(|e| e.to_string())?;
            let now = clock::now();
            for event in events.drain(..) {
                self.handle(now, event)?;
            }
            if !self.obey()? {
                return Ok(());
            }
            while let Ok(asked) = self.ends.asked.try_recv() {
                self.answer(clock::now(), &asked);
                facts_at = now;
            }
            self.host.handle_timeout(now);
            self.end_tests();
            if now >= facts_at {
                facts_at = now.saturating_add(FACTS_NS);
                self.ask_tcp();
                self.counts.running = self.host.running_tests() as u64;
                if let Ok(mut counts) = self.ends.counts.lock() {
                    counts.clone_from(&self.counts);
                }
            }
        }
    }

    /// Whether it is to go on.
    fn obey(&mut self) -> Result<bool, String> {
        loop {
            match self.ends.commands.recv_timeout(Duration::ZERO) {
                Ok(Command::Begin(listen, waker)) => {
                    self.echo = Some(waker);
                    self.listen(&listen);
                    // Who may connect changes with each test, and kernels ask for that one to set it.
                    crate::give_up(true)?;
                }
                Ok(Command::Clients(clients, limits)) => {
                    self.host.set_limits(limits);
                    let names = |c: &[Allowance]| c.iter().map(|a| a.name.clone()).collect();
                    let (old, new): (Vec<_>, Vec<_>) = (names(&self.clients), names(&clients));
                    if old != new {
                        // Clients have other numbers now: nobody's test goes on as another's.
                        self.host.end_all(clock::now());
                        // What they moved is told of those whose tests they were.
                        self.end_tests();
                    }
                    self.clients = clients;
                    self.limits = limits;
                }
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(false),
                Err(RecvTimeoutError::Timeout) => return Ok(true),
            }
        }
    }

    /// Listens; without that no test is granted.
    fn listen(&mut self, addresses: &[SocketAddr]) {
        for address in addresses {
            let listening = TcpListening::new(*address).map_err(|e| e.to_string());
            let listening = listening.and_then(|l| self.bulk.listen(l).map_err(|e| e.to_string()));
            if let Err(why) = listening {
                log::warn!("no throughput tests through {address}: {why}");
                self.counts.trouble = why;
            }
        }
    }
}
