//! The streams of a test, on a thread and a ring of their own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use bufferbane_core::load::arrivals::{Arrivals, Segments};
use bufferbane_core::load::bins::Bins;
use bufferbane_core::load::datagrams::Counted;
use bufferbane_core::load::guest::Grant;
use bufferbane_core::load::marks::Marks;
use bufferbane_core::load::write_token;
use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::tcp::{TcpFacts, TcpOptions, TcpSocket};
use bufferbane_linux_io::{Bulk, BulkEvent, Family, Role, StreamId, Waker, clock};

use crate::scout::Way;

/// The thread looks whether it is to end at least this often, ns.
const ROUND_NS: u64 = 100_000_000;
/// TCP is asked this often what has left and come, ns.
const LOOK_NS: u64 = 100_000_000;
/// Streams that are not there after this long fail the test, ns.
pub(super) const CONNECT_NS: u64 = 10_000_000_000;
/// How long is waited for the kernel to give the streams back, ns.
const CLOSE_NS: u64 = 1_000_000_000;

/// What to open.
pub(super) struct Plan {
    pub(super) to: SocketAddr,
    pub(super) way: Way,
    pub(super) grant: Grant,
    pub(super) up: u8,
    pub(super) down: u8,
    pub(super) dscp: [u8; 8],
    pub(super) congestion: String,
}

/// What others see while it runs.
#[derive(Default)]
pub(super) struct Seen {
    /// When the first stream carried, ns; 0: not yet.
    pub(super) begun_ns: AtomicU64,
    /// Bytes handed to the kernel so far.
    pub(super) sent: AtomicU64,
    /// Bytes received so far.
    pub(super) received: AtomicU64,
    /// What its streams up and down have carried so far, bytes of frames as an interface counts them.
    pub(super) frames: [AtomicU64; 2],
    stop: AtomicBool,
}

/// What the streams did.
#[derive(Default)]
pub(super) struct Carried {
    /// Bytes received here.
    pub(super) bins: Box<Bins>,
    /// In-band times of the streams that this end sends on: when, and how long, ns.
    pub(super) in_band: Vec<(u64, u64)>,
    /// What TCP says of these streams at the end, summed up; the round-trip time is the mean.
    pub(super) facts: TcpFacts,
    /// What was counted here of a test over UDP.
    pub(super) datagrams: Counted,
    /// Why it ended by itself.
    pub(super) trouble: Option<String>,
}

/// Streams that run.
pub(super) struct Flows {
    pub(super) seen: Arc<Seen>,
    waker: Waker,
    thread: Option<JoinHandle<Carried>>,
}

impl Flows {
    /// Begins to connect.
    pub(super) fn start(plan: Plan) -> Result<Self, String> {
        let seen = Arc::new(Seen::default());
        let (tell, told) = sync_channel(1);
        let thread_seen = seen.clone();
        let thread = std::thread::Builder::new()
            .name("streams".into())
            .spawn(move || {
                let streams = u16::from(plan.up) + u16::from(plan.down);
                let mut random = Ok(());
                let bulk = Bulk::new(streams, |b| random = getrandom::fill(b));
                match bulk {
                    Ok(bulk) => {
                        let _ = tell.send(Ok(bulk.waker()));
                        Running::new(plan, bulk, thread_seen).run()
                    }
                    Err(e) => {
                        let _ = tell.send(Err(e.to_string()));
                        Carried::default()
                    }
                }
            })
            .map_err(|e| format!("a thread: {e}"))?;
        let waker = told
            .recv()
            .map_err(|_| "the streams' thread ended at its start".to_owned())??;
        Ok(Self {
            seen,
            waker,
            thread: Some(thread),
        })
    }

    /// Whether it has ended by itself.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Resets all streams; gives what they did.
    pub(super) fn stop(mut self) -> Carried {
        self.end().unwrap_or_else(|| Carried {
            trouble: Some("the streams' thread panicked".into()),
            ..Carried::default()
        })
    }

    fn end(&mut self) -> Option<Carried> {
        self.seen.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
        self.thread.take()?.join().ok()
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

struct Running {
    plan: Plan,
    bulk: Bulk,
    seen: Arc<Seen>,
    /// By their number in the test.
    streams: Vec<StreamId>,
    marks: Vec<Marks>,
    /// Of each stream downward.
    arrivals: Vec<Arrivals>,
    look_at: Monotonic,
    carried: Carried,
}

impl Running {
    fn new(plan: Plan, bulk: Bulk, seen: Arc<Seen>) -> Self {
        let marks = (0..plan.up).map(|_| Marks::new()).collect();
        let arrivals = (0..plan.down).map(|_| Arrivals::new()).collect();
        Self {
            plan,
            bulk,
            seen,
            streams: Vec::new(),
            marks,
            arrivals,
            look_at: Monotonic::ZERO,
            carried: Carried::default(),
        }
    }

    fn run(mut self) -> Carried {
        if let Err(why) = self.carry() {
            self.carried.trouble = Some(why);
        }
        self.ask_tcp();
        self.look(clock::now());
        for arrivals in &mut self.arrivals {
            arrivals.finish(&mut self.carried.bins);
        }
        for stream in &self.streams {
            self.bulk.close(*stream);
        }
        let end = clock::now().saturating_add(CLOSE_NS);
        let mut events = Vec::new();
        while self.bulk.in_use() > 0 && clock::now() < end {
            let soon = clock::now().saturating_add(10_000_000);
            if self.bulk.wait(soon, &mut events).is_err() {
                break;
            }
            events.clear();
        }
        self.carried
    }

    fn carry(&mut self) -> Result<(), String> {
        self.connect()?;
        let begun = clock::now();
        let mut events = Vec::new();
        while !self.seen.stop.load(Ordering::Relaxed) {
            self.bulk
                .wait(clock::now().saturating_add(ROUND_NS), &mut events)
                .map_err(|e| e.to_string())?;
            let now = clock::now();
            for event in events.drain(..) {
                self.handle(event, now)?;
            }
            if now >= self.look_at {
                self.look_at = now.saturating_add(LOOK_NS);
                self.look(now);
            }
            let waited = now.saturating_since(begun);
            if self.seen.begun_ns.load(Ordering::Relaxed) == 0 && waited > CONNECT_NS {
                return Err(format!(
                    "TCP to {} is not answered: a firewall there, or on the way, lets it not pass, or a \
                     carrier's NAT gives it another address than UDP (tcp_prefix of [[interface]])",
                    self.plan.to
                ));
            }
        }
        Ok(())
    }

    fn connect(&mut self) -> Result<(), String> {
        let family = Family::of(&self.plan.to.ip());
        for number in 0..self.plan.up + self.plan.down {
            let of_way = number.checked_sub(self.plan.up).unwrap_or(number);
            let options = TcpOptions {
                interface: Some(self.plan.way.interface.clone()),
                source: self.plan.way.source,
                mark: self.plan.way.mark,
                dscp: self.plan.dscp[usize::from(of_way % 8)],
                congestion: self.plan.congestion.clone(),
            };
            let socket = TcpSocket::new(family, &options).map_err(|e| e.to_string())?;
            let stream = self.bulk.connect(socket, self.plan.to);
            self.streams.push(stream.map_err(|e| e.to_string())?);
        }
        Ok(())
    }

    fn handle(&mut self, event: BulkEvent, now: Monotonic) -> Result<(), String> {
        match event {
            BulkEvent::Connected(id) => {
                let number = self.number(id);
                let token = write_token(
                    self.plan.grant.handle,
                    &self.plan.grant.secret,
                    number as u8,
                );
                let role = if number < usize::from(self.plan.up) {
                    Role::Send
                } else {
                    Role::Receive
                };
                self.bulk
                    .begin(id, role, &token)
                    .map_err(|e| e.to_string())?;
            }
            BulkEvent::Sent {
                stream,
                bytes,
                offset,
            } => {
                self.begin(now);
                self.seen.sent.fetch_add(bytes, Ordering::Relaxed);
                let number = self.number(stream);
                if let Some(marks) = self.marks.get_mut(number) {
                    marks.handed_over(offset, now);
                }
            }
            BulkEvent::Received { stream, bytes } => {
                self.begin(now);
                self.seen.received.fetch_add(bytes, Ordering::Relaxed);
                let of_way = self.number(stream).checked_sub(usize::from(self.plan.up));
                if let Some(arrivals) = of_way.and_then(|n| self.arrivals.get_mut(n)) {
                    arrivals.take(now, bytes, &mut self.carried.bins);
                }
            }
            BulkEvent::Note { stream, received } => {
                let number = self.number(stream);
                if let Some(marks) = self.marks.get_mut(number)
                    && let Some(delay_ns) = marks.received(received, now)
                {
                    self.carried.in_band.push((now.as_nanos(), delay_ns));
                }
            }
            BulkEvent::Ended(_, errno) => {
                let why = match errno {
                    0 => "the reflector closed it".to_owned(),
                    e => std::io::Error::from_raw_os_error(e).to_string(),
                };
                return Err(format!("a stream to {} ended: {why}", self.plan.to));
            }
            BulkEvent::Arrived(..) | BulkEvent::Wake => {}
        }
        Ok(())
    }

    fn begin(&mut self, now: Monotonic) {
        if self.seen.begun_ns.load(Ordering::Relaxed) == 0 {
            self.seen.begun_ns.store(now.as_nanos(), Ordering::Relaxed);
            self.carried.bins.begin(now);
        }
    }

    fn number(&self, id: StreamId) -> usize {
        let mut streams = self.streams.iter();
        streams.position(|s| *s == id).unwrap_or(usize::MAX)
    }

    /// How many segments have come on each stream downward, and what all have carried.
    fn look(&mut self, now: Monotonic) {
        let header_bytes = header_bytes(&self.plan.to);
        let (up, down) = self
            .streams
            .split_at(self.marks.len().min(self.streams.len()));
        let (mut sent, mut received) = (0, 0);
        for facts in up.iter().filter_map(|s| self.bulk.facts(*s)) {
            sent += facts.bytes_out + header_bytes * u64::from(facts.segments_out);
        }
        for (stream, arrivals) in down.iter().zip(&mut self.arrivals) {
            if let Some(facts) = self.bulk.facts(*stream) {
                arrivals.look(now, segments(&facts));
                let frame_bytes = header_bytes + u64::from(facts.segment_bytes);
                received += frame_bytes * u64::from(facts.segments_in);
            }
        }
        for (told, bytes) in self.seen.frames.iter().zip([sent, received]) {
            told.store(bytes, Ordering::Relaxed);
        }
    }

    fn ask_tcp(&mut self) {
        let sent = self.streams.iter().take(usize::from(self.plan.up));
        let facts: Vec<TcpFacts> = sent.filter_map(|s| self.bulk.facts(*s)).collect();
        let rtt: u64 = facts.iter().map(|f| u64::from(f.rtt_us)).sum();
        self.carried.facts = TcpFacts {
            rtt_us: rtt.checked_div(facts.len() as u64).unwrap_or(0) as u32,
            cwnd_bytes: facts.iter().map(|f| f.cwnd_bytes).sum(),
            retransmits: facts.iter().map(|f| f.retransmits).sum(),
            ..TcpFacts::default()
        };
    }
}

/// Of Ethernet, IP and TCP with time stamps.
const fn header_bytes(to: &SocketAddr) -> u64 {
    14 + 20 + 12 + if to.is_ipv6() { 40 } else { 20 }
}

const fn segments(facts: &TcpFacts) -> Segments {
    Segments {
        all: facts.segments_in,
        out_of_order: facts.out_of_order,
        size: facts.segment_bytes,
    }
}
