//! The streams thread: throughput tests on a ring of their own, so that they disturb no echo.
//!
//! The echo thread hands over orders as it opens them, and sends the reports on them. This thread
//! listens for TCP, silent to every address from which no test was granted; what begins with a good
//! token is counted or filled, everything else is closed.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bufferbane_core::drop_reason::{DropCounters, DropReason};
use bufferbane_core::load::arrivals::Segments;
use bufferbane_core::load::datagrams::flows::{Figures, FlowPlan};
use bufferbane_core::load::host::{
    Admitted, Asker, Host, HostLimits, MAX_TESTS, SenderFacts, TestHandle,
};
use bufferbane_core::load::marks::Marks;
use bufferbane_core::session::reflector::OrderFrom;
use bufferbane_core::time::Monotonic;
use bufferbane_core::wire::load::{Order, Report, TOKEN_LEN, TestState};
use bufferbane_linux_io::admission::{self, Prefix};
use bufferbane_linux_io::tcp::{self, TcpListening};
use bufferbane_linux_io::{Bulk, BulkEvent, Family, Role, SocketId, StreamId, Waker, clock};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::allowance::Allowance;
use crate::config::Config;
use crate::datagrams::News;

/// Streams that there is room for, of all tests and of those that have not shown a token yet.
const STREAMS: u16 = 256;
/// Orders that wait between the threads, and reports.
pub(crate) const MAIL: usize = 64;
/// How often TCP is asked about the streams that this end sends on, ns.
const FACTS_NS: u64 = 100_000_000;
/// The thread comes by at least this often, ns.
const ROUND_NS: u64 = 1_000_000_000;
/// Addresses that are let in for a test, the latest: a client may move to another, and tests in all
/// are at most sixteen.
const ADDRESSES_PER_TEST: usize = 2;
/// With the prefix that each may have announced they fit the filter.
const _: () = assert!(MAX_TESTS * (ADDRESSES_PER_TEST + 1) <= admission::MAX_ADMITTED);

/// An order, and where its report goes.
pub(crate) struct Asked {
    pub(crate) from: OrderFrom,
    pub(crate) order: Order,
    pub(crate) way: Way,
    /// What the echo thread has counted of its test, if that is one over UDP.
    pub(crate) figures: Option<Figures>,
}

/// Where a datagram came from, and where it was received.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    pub(crate) socket: SocketId,
    pub(crate) peer: SocketAddr,
    pub(crate) local: Option<IpAddr>,
}

/// A report to be sealed and sent.
#[derive(Clone, Copy)]
pub(crate) struct Told {
    pub(crate) to: OrderFrom,
    pub(crate) report: Report,
    pub(crate) way: Way,
}

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

/// A stream that showed a good token.
struct Owned {
    admitted: Admitted,
    marks: Box<Marks>,
}

/// See the module.
pub(crate) struct Streams {
    bulk: Bulk,
    /// Whether there is something to send: many a reflector never has a test.
    filled: bool,
    /// Large, and this is handed over by value.
    host: Box<Host>,
    ends: Ends,
    echo: Option<Waker>,
    clients: Vec<Allowance>,
    limits: HostLimits,
    owned: HashMap<StreamId, Owned>,
    /// Who may connect, for which test.
    admitted: Vec<(TestHandle, IpAddr)>,
    /// What its client announced at its begin.
    announced: Vec<(TestHandle, Prefix)>,
    /// Tests over UDP that run: nobody connects for them.
    over_udp: Vec<TestHandle>,
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
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|e| format!("random numbers: {e}"))?;
        let rng = ChaCha20Rng::from_seed(seed);
        let bulk = Bulk::new(STREAMS, |_| ()).map_err(|e| e.to_string())?;
        Ok(Self {
            bulk,
            filled: false,
            host: Box::new(Host::new(limits)),
            ends,
            echo: None,
            clients,
            limits,
            owned: HashMap::new(),
            admitted: Vec::new(),
            announced: Vec::new(),
            over_udp: Vec::new(),
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
            if !self.obey() {
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

    fn obey(&mut self) -> bool {
        loop {
            match self.ends.commands.recv_timeout(Duration::ZERO) {
                Ok(Command::Begin(listen, waker)) => {
                    self.echo = Some(waker);
                    self.listen(&listen);
                    // Who may connect changes with each test, and kernels ask for that one to set it.
                    if let Err(why) = crate::give_up(true) {
                        log::warn!("no throughput tests: {why}");
                        return false;
                    }
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
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => return true,
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

    fn port_for(&self, way: &Way) -> Option<u16> {
        let family = Family::of(&way.peer.ip());
        let mut listeners = self.bulk.listeners().iter();
        let listener = listeners.find(|l| l.family() == family)?;
        Some(listener.local_addr().port())
    }

    fn answer(&mut self, now: Monotonic, asked: &Asked) {
        let client = asked.from.client;
        let Some(allowance) = self.clients.get(usize::from(client)) else {
            return;
        };
        let port = self.port_for(&asked.way);
        let asker = Asker {
            client,
            bytes_left: allowance.left(now),
            congestion_known: congestion(&asked.order.congestion)
                .is_some_and(|name| tcp::check_congestion(name).is_ok()),
            port: port.unwrap_or(0),
            max_rate_bps: allowance.max_rate_bps,
            proven: asked.from.proven,
            figures: asked.figures.clone(),
        };
        // Datagrams need no listener.
        if port.is_none() && asked.order.offer().is_none() {
            self.host.set_limits(HostLimits {
                concurrent: 0,
                ..self.limits
            });
        }
        let report = self
            .host
            .handle_order(now, &asker, &asked.order, &mut self.rng);
        self.host.set_limits(self.limits);
        let Ok(report) = report else { return };
        match TestState::from_u8(report.state) {
            Some(TestState::Granted) => {
                let test = TestHandle(report.handle.get());
                let entry = (test, asked.way.peer.ip());
                // What the test is, its first order said; this one may say anything.
                if let Some(plan) = self.host.flow(test) {
                    self.begin_over_udp(plan);
                } else if !self.admitted.contains(&entry) {
                    let of_test = |(t, _): &(TestHandle, _)| *t == test;
                    let others = self.admitted.iter().filter(|a| of_test(a)).count();
                    if others == 0 {
                        self.counts.granted += 1;
                        // A wider one than is allowed was refused.
                        let subnet = asked.order.announced().ok().flatten();
                        let prefix = subnet.and_then(|s| Prefix::new(s.address, s.prefix));
                        self.announced.extend(prefix.map(|p| (test, p)));
                    }
                    if others >= ADDRESSES_PER_TEST
                        && let Some(oldest) = self.admitted.iter().position(of_test)
                    {
                        self.admitted.remove(oldest);
                    }
                    self.admitted.push(entry);
                    self.admit();
                }
            }
            Some(TestState::Busy) => self.counts.busy += 1,
            Some(TestState::Refused) => self.counts.refused += 1,
            _ => {}
        }
        let told = Told {
            to: asked.from,
            report,
            way: asked.way,
        };
        // A report that finds no room is asked for again.
        if self.ends.told.try_send(told).is_ok()
            && let Some(waker) = &self.echo
        {
            waker.wake();
        }
    }

    /// Has the echo thread count and send the datagrams of a test, from its begin on.
    fn begin_over_udp(&mut self, plan: FlowPlan) {
        if self.over_udp.contains(&plan.test) {
            return;
        }
        self.over_udp.push(plan.test);
        self.counts.granted += 1;
        // Gone only when everything ends.
        let _ = self.ends.news.send(News::Begins(Box::new(plan)));
    }

    /// Lets those connect to whom a test was granted, and nobody else.
    fn admit(&self) {
        let addresses = self.admitted.iter().map(|(_, ip)| Prefix::only(*ip));
        let announced = self.announced.iter().map(|(_, prefix)| *prefix);
        let prefixes: Vec<Prefix> = addresses.chain(announced).collect();
        for listener in self.bulk.listeners() {
            if let Err(e) = admission::admit(listener, listener.family(), &prefixes) {
                log::error!("who may connect to {}: {e}", listener.local_addr());
            }
        }
    }

    fn handle(&mut self, now: Monotonic, event: BulkEvent) -> Result<(), String> {
        match event {
            BulkEvent::Arrived(stream, _, token) => self.arrived(now, stream, &token)?,
            BulkEvent::Sent {
                stream,
                bytes,
                offset,
            } => {
                if let Some(o) = self.owned.get_mut(&stream) {
                    o.marks.handed_over(offset, now);
                    self.host.sent(o.admitted.test, now, bytes);
                    self.counts.sent += bytes;
                }
            }
            BulkEvent::Received { stream, bytes } => {
                if let Some(o) = self.owned.get(&stream) {
                    self.host
                        .received(o.admitted.test, o.admitted.stream, now, bytes);
                    self.counts.received += bytes;
                }
            }
            BulkEvent::Note { stream, received } => {
                if let Some(o) = self.owned.get_mut(&stream)
                    && let Some(delay_ns) = o.marks.received(received, now)
                {
                    self.host.in_band(o.admitted.test, now, delay_ns);
                }
            }
            BulkEvent::Ended(stream, _) => drop(self.owned.remove(&stream)),
            BulkEvent::Connected(_) | BulkEvent::Wake => {}
        }
        Ok(())
    }

    fn arrived(
        &mut self,
        now: Monotonic,
        stream: StreamId,
        token: &[u8; TOKEN_LEN],
    ) -> Result<(), String> {
        let admitted = match self.host.admit(now, token) {
            Ok(admitted) => admitted,
            Err(reason) => {
                self.turn_away(stream, reason);
                return Ok(());
            }
        };
        let name = congestion(&admitted.congestion).unwrap_or_default();
        if let Err(e) = self.bulk.configure(stream, admitted.dscp, name) {
            log::warn!("a stream of a test: {e}");
            self.turn_away(stream, DropReason::Field);
            return Ok(());
        }
        let client = self.clients.get(usize::from(admitted.client));
        if let Some(rate_bps) = client.and_then(|c| c.max_rate_bps) {
            let share = rate_bps / 8 / u64::from(admitted.siblings.max(1));
            self.bulk.limit(stream, share.max(1));
        }
        let role = if admitted.up {
            Role::Receive
        } else {
            if !std::mem::replace(&mut self.filled, true) {
                self.bulk.fill(|bytes| self.rng.fill_bytes(bytes));
            }
            Role::Send
        };
        self.bulk
            .begin(stream, role, &[])
            .map_err(|e| e.to_string())?;
        let marks = Box::new(Marks::new());
        self.owned.insert(stream, Owned { admitted, marks });
        Ok(())
    }

    fn turn_away(&mut self, stream: StreamId, reason: DropReason) {
        self.counts.drops.count(reason);
        self.bulk.close(stream);
    }

    /// Closes the streams of tests that are over.
    fn end_tests(&mut self) {
        let mut ended = false;
        while let Some((test, client, bytes)) = self.host.poll_ended() {
            if let Some(place) = self.over_udp.iter().position(|t| *t == test) {
                self.over_udp.swap_remove(place);
                // Gone only when everything ends.
                let _ = self.ends.news.send(News::Ends(test));
                if let Some(waker) = &self.echo {
                    waker.wake();
                }
            }
            ended = true;
            let bulk = &mut self.bulk;
            self.owned.retain(|stream, owned| {
                let stays = owned.admitted.test != test;
                if !stays {
                    bulk.close(*stream);
                }
                stays
            });
            self.admitted.retain(|(t, _)| *t != test);
            self.announced.retain(|(t, _)| *t != test);
            // None are told of a test over UDP: what it moved was counted as it did.
            if bytes > 0
                && let Some(allowance) = self.clients.get(usize::from(client))
            {
                allowance.spend(clock::now(), bytes);
            }
        }
        if ended {
            self.admit();
        }
    }

    /// What TCP says of streams: of those that this end sends on, summed up for each test; of others, how
    /// much has come.
    fn ask_tcp(&mut self) {
        let now = clock::now();
        for (stream, owned) in self.owned.iter().filter(|(_, o)| o.admitted.up) {
            if let Some(facts) = self.bulk.facts(*stream) {
                let segments = Segments {
                    all: facts.segments_in,
                    out_of_order: facts.out_of_order,
                    size: facts.segment_bytes,
                };
                let Admitted { test, stream, .. } = owned.admitted;
                self.host.segments(test, stream, now, segments);
            }
        }
        let mut sums: HashMap<TestHandle, (u32, u32, u64, u32)> = HashMap::new();
        for (stream, owned) in self.owned.iter().filter(|(_, o)| !o.admitted.up) {
            if let Some(facts) = self.bulk.facts(*stream) {
                let sum = sums.entry(owned.admitted.test).or_default();
                sum.0 = sum.0.saturating_add(facts.retransmits);
                sum.1 = sum.1.saturating_add(facts.cwnd_bytes);
                sum.2 += u64::from(facts.rtt_us);
                sum.3 += 1;
            }
        }
        for (test, (retransmits, cwnd_bytes, rtt, n)) in sums {
            let facts = SenderFacts {
                retransmits,
                cwnd_bytes,
                rtt_us: u32::try_from(rtt / u64::from(n)).unwrap_or(u32::MAX),
            };
            self.host.set_facts(test, facts);
        }
    }
}

/// The name before the zeros, if it can be one.
fn congestion(bytes: &[u8; 16]) -> Option<&str> {
    let len = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let name = std::str::from_utf8(&bytes[..len]).ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (!name.is_empty() && name.chars().all(plain)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::congestion;

    #[test]
    fn only_what_can_be_a_name_is_asked_of_the_kernel() {
        let bytes = |s: &str| {
            let mut b = [0; 16];
            b[..s.len()].copy_from_slice(s.as_bytes());
            b
        };
        assert_eq!(congestion(&bytes("cubic")), Some("cubic"));
        assert_eq!(
            congestion(&bytes("sixteen_letters_")),
            Some("sixteen_letters_")
        );
        for bad in ["", "a b", "../x", "ü"] {
            assert_eq!(congestion(&bytes(bad)), None, "{bad}");
        }
    }
}
