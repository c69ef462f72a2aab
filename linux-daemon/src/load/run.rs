//! One test from its first probe to its last.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;

use bufferbane_core::flight::{LossSlot, Slot};
use bufferbane_core::limits::{MAX_DATAGRAM, RECEIVE_RECORD_BITS};
use bufferbane_core::load::guest::{Guest, GuestState, Wish};
use bufferbane_core::load::latency::{Spread, back_after};
use bufferbane_core::load::phases::{Phase, PhaseTimes, Phases};
use bufferbane_core::packet::{RecvMeta, SendOutcome, SendToken};
use bufferbane_core::sample::{Observation, SeriesIndex};
use bufferbane_core::session::client::{Client, SessionEvent, StreamConfig};
use bufferbane_core::time::{ClockSource, Monotonic, Stamp};
use bufferbane_core::wire::header::{Kind as Message, Prefix};
use bufferbane_core::wire::load::Offer;
use bufferbane_linux_io::{
    Engine, EngineOptions, Event, Family, ProbeSocket, SocketId, Transmit, clock, tcp,
};
use bufferbane_store::{Instead, LoadTest};
use rand_chacha::ChaCha12Rng;
use rand_core::Rng;

use super::datagrams::Datagrams;
use super::drops::Drops;
use super::evaluate::{self, Probe};
use super::flows::{CONNECT_NS, Carried, Flows, Plan};
use super::meter::Meter;
use super::{Kind, Path, Progress};
use crate::recorder::Order;

/// Probes are sent this often, ns: 100 a second.
const INTERVAL_NS: u64 = 10_000_000;
/// Bytes of UDP payload of each.
const SIZE: u16 = 128;
/// A probe without an answer after this long is lost, ns: buffers of two seconds exist.
const TIMEOUT_NS: u64 = 4_000_000_000;
/// A transmit stamp that has not come after this long will not come, ns.
const STAMP_PATIENCE_NS: u64 = 4_000_000_000;
/// Everything is looked at this often, ns.
const TICK_NS: u64 = 20_000_000;
/// Whoever asked hears this often how far it is, ns.
const PROGRESS_NS: u64 = 200_000_000;
/// A reflector that does not answer at all is given up after this, ns.
const SESSION_NS: u64 = 5_000_000_000;
/// How long a test waits for its turn, ns.
const TURN_NS: u64 = 120_000_000_000;
/// The same where another reflector may make it, ns: longer than one that does not answer is waited for.
const TURN_WITH_OTHERS_NS: u64 = 8_000_000_000;
/// Other reflectors than the last that are waited for, at most, when the time that a test takes is reckoned.
const OTHERS: u64 = 4;
/// Latency is back when the round trip is no more than this above its idle 90th percentile, ns.
const BACK_ABOVE_NS: u64 = 5_000_000;
/// And has been for this long, ns.
const BACK_FOR_NS: u64 = 200_000_000;
/// Once latency is back, the last probes may come, and the last figures be fetched, for this long, ns.
const SETTLE_NS: u64 = 5_000_000_000;
/// The most that a test takes beside its load, ns.
pub(super) const BESIDE_LOAD_NS: u64 = {
    let phases = PhaseTimes::with_load(0);
    OTHERS * TURN_WITH_OTHERS_NS
        + TURN_NS
        + phases.idle_ns
        + CONNECT_NS
        + phases.recovery_ns
        + SETTLE_NS
};

/// UDP payload of a datagram of a test over UDP, bytes: every path of IPv6 carries it whole, and it may
/// leave in one send with others.
pub(super) const DATAGRAM_SIZE: u16 = 1200;
/// How many may leave in one send.
const DATAGRAMS_AT_ONCE: usize = 32;
/// The receive buffer asked for, bytes: what comes in 30 ms at 1 Gbit/s.
const RECEIVE_BUFFER: usize = 4 << 20;

/// How long a reflector is waited for that others test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// There is no other.
    Alone,
    /// Another may do it.
    WithOthers,
}

impl Patience {
    const fn turn_ns(self) -> u64 {
        match self {
            Self::Alone => TURN_NS,
            Self::WithOthers => TURN_WITH_OTHERS_NS,
        }
    }
}

/// What is to be tested.
pub(super) struct Spec {
    pub(super) path: Path,
    pub(super) kind: Kind,
    /// TCP streams.
    pub(super) up: u8,
    pub(super) down: u8,
    /// Datagrams in place of streams.
    pub(super) offer: Option<Offer>,
    pub(super) dscp: [u8; 8],
    pub(super) load_ns: u64,
    pub(super) congestion: String,
    pub(super) asked_by: &'static str,
    pub(super) patience: Patience,
    /// Reflectors that were asked before this one.
    pub(super) instead_of: Vec<Instead>,
    /// Once it has moved so much, both ways, its streams are ended.
    pub(super) most_bytes: Option<u64>,
    /// The recorder hears from when to when the interface is loaded.
    pub(super) orders: SyncSender<Order>,
}

impl Spec {
    /// Whether there is load upward, and downward.
    pub(super) fn loads(&self) -> (bool, bool) {
        let (up, down) = self.offer.map_or((0, 0), |o| (o.up_bps, o.down_bps));
        (self.up > 0 || up > 0, self.down > 0 || down > 0)
    }
}

type Session = Client<Vec<Slot>, Vec<LossSlot>>;

/// A test under way.
struct Test<'a> {
    spec: &'a Spec,
    engine: Engine,
    socket: SocketId,
    client: Session,
    guest: Guest,
    /// Tokens of datagrams whose stamps are awaited, by key, and since when.
    tokens: HashMap<u32, (SendToken, Monotonic)>,
    next_key: u32,
    /// By number.
    probes: Vec<Probe>,
    phases: Option<Phases>,
    flows: Option<Flows>,
    /// Until the end: what is on its way when the load ends is counted, too.
    datagrams: Option<Datagrams>,
    drops: Drops,
    /// From the first stream to the end of the test, with the recovery.
    loading: Option<Loading>,
    carried: Option<Carried>,
    idle_rtt: Option<Spread>,
    meter: Meter,
    /// Whether the streams were ended because they had moved all that they may.
    cut_short: bool,
}

/// While this lives, the recorder takes the interface for loaded: however a test ends, that ends too.
struct Loading {
    orders: SyncSender<Order>,
    interface: String,
}

impl Loading {
    fn begin(orders: &SyncSender<Order>, interface: &str) -> Self {
        let (orders, interface) = (orders.clone(), interface.to_owned());
        // The recorder is gone only when everything ends.
        let _ = orders.send(Order::LoadBegins(interface.clone(), clock::now()));
        Self { orders, interface }
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        let interface = std::mem::take(&mut self.interface);
        let _ = self.orders.send(Order::LoadEnds(interface, clock::now()));
    }
}

/// Why a test has no result.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) why: String,
    /// What it moved nevertheless, bytes.
    pub(super) moved: u64,
    /// Whether that is the reflector's matter, before it had moved anything: another one may do.
    pub(super) elsewhere: bool,
}

/// Runs a test until it is done or `ended` says that it is not wanted any more.
pub(super) fn run(
    spec: &Spec,
    rng: &mut ChaCha12Rng,
    ended: &dyn Fn() -> bool,
    tell: &mut dyn FnMut(Progress),
) -> Result<LoadTest, Failed> {
    let nothing = |why| Failed {
        why,
        moved: 0,
        elsewhere: false,
    };
    if spec.offer.is_none() {
        tcp::check_congestion(&spec.congestion).map_err(|e| nothing(e.to_string()))?;
    }
    let mut test = Test::new(spec, rng).map_err(nothing)?;
    drive(&mut test, rng, ended, tell).map_err(|why| {
        let moved = test.meter.total();
        Failed {
            why,
            moved,
            elsewhere: moved == 0 && !ended(),
        }
    })
}

fn drive(
    test: &mut Test<'_>,
    rng: &mut ChaCha12Rng,
    ended: &dyn Fn() -> bool,
    tell: &mut dyn FnMut(Progress),
) -> Result<LoadTest, String> {
    let spec = test.spec;
    let begun = clock::now();
    let mut told = Monotonic::ZERO;
    let mut settle_until = None;
    loop {
        if ended() {
            test.abandon();
            return Err("it was cut off".into());
        }
        test.step(rng)?;
        let now = clock::now();
        if test.guest.state() == GuestState::Silent
            || (!test.client.is_answering()
                && test.phases.is_none()
                && now.saturating_since(begun) > SESSION_NS)
        {
            return Err(format!(
                "the reflector {} does not answer through {}",
                spec.path.reflector, spec.path.interface
            ));
        }
        if test.phases.is_none() && now.saturating_since(begun) > spec.patience.turn_ns() {
            let why = if test.guest.state() == GuestState::Waiting {
                "is busy with other tests"
            } else {
                "does not answer what it is asked"
            };
            test.abandon();
            return Err(format!("the reflector {} {why}", spec.path.reflector));
        }
        if now.saturating_since(told) >= PROGRESS_NS {
            told = now;
            tell(test.progress(now, begun));
        }
        let phase = test.turn(now)?;
        if phase == Phase::Done {
            // Of datagrams, what was on its way has come by now.
            test.guest.stop(now);
            let until = *settle_until.get_or_insert(now.saturating_add(SETTLE_NS));
            if test.is_settled() || now >= until {
                return test.result();
            }
        }
    }
}

impl<'a> Test<'a> {
    fn new(spec: &'a Spec, rng: &mut ChaCha12Rng) -> Result<Self, String> {
        let options = EngineOptions {
            sockets: 2,
            send_slot_bytes: DATAGRAMS_AT_ONCE * usize::from(DATAGRAM_SIZE),
            ..EngineOptions::prober()
        };
        let mut engine = Engine::new(&options).map_err(|e| e.to_string())?;
        let socket = ProbeSocket::udp(Family::of(&spec.path.remote.ip()))
            .interface(&spec.path.interface)
            .receive_buffer(RECEIVE_BUFFER)
            .join_sends(spec.offer.is_some())
            .build()
            .map_err(|e| e.to_string())?;
        let socket = engine.add_socket(socket).map_err(|e| e.to_string())?;
        let now = clock::now();
        let mut client = Client::new(spec.path.key.clone(), now, rng);
        let config = StreamConfig {
            series: SeriesIndex(0),
            size: SIZE,
            interval_ns: INTERVAL_NS,
            spread_permille: 800,
            timeout_ns: TIMEOUT_NS,
        };
        let slots = vec![Slot::default(); 2 * (TIMEOUT_NS / INTERVAL_NS) as usize];
        let losses = vec![LossSlot::default(); RECEIVE_RECORD_BITS];
        // The first stream of a client is never one too many.
        let _ = client.add_stream(config, now, slots, losses, rng);
        let mut congestion = [0; 16];
        let name = spec.congestion.as_bytes();
        let len = name.len().min(congestion.len());
        congestion[..len].copy_from_slice(&name[..len]);
        let wish = Wish {
            streams_up: spec.up,
            streams_down: spec.down,
            time_ms: u32::try_from(spec.load_ns / 1_000_000).unwrap_or(u32::MAX),
            dscp: spec.dscp,
            congestion,
            prefix: spec.path.tcp_prefix,
            offer: spec.offer,
        };
        Ok(Self {
            spec,
            engine,
            socket,
            client,
            guest: Guest::new(wish, rng.next_u64(), now),
            tokens: HashMap::new(),
            next_key: 0,
            probes: Vec::new(),
            phases: None,
            flows: None,
            datagrams: None,
            drops: Drops::default(),
            loading: None,
            carried: None,
            idle_rtt: None,
            meter: Meter::default(),
            cut_short: false,
        })
    }

    /// Sends what is due, and takes what comes until the next tick.
    fn step(&mut self, rng: &mut ChaCha12Rng) -> Result<(), String> {
        let now = clock::now();
        self.client.handle_timeout(now);
        self.expire_tokens(now);
        let mut datagram = [0; MAX_DATAGRAM];
        while let Some((len, token)) = self.client.poll_transmit(now, rng, &mut datagram) {
            self.send(token, &datagram[..len]);
        }
        if self.client.is_answering() {
            self.guest.handle_timeout(now);
            if let Some(order) = self.guest.poll_order(now)
                && let Some(datagram) = self.client.write_order(&order)
            {
                let transmit = Transmit::new(self.socket, self.spec.path.remote, self.key());
                // One that finds no room is asked again.
                let _ = self.engine.outbox().send(&transmit, &datagram);
            }
        }
        if let Some(datagrams) = &mut self.datagrams {
            let transmit = Transmit::new(self.socket, self.spec.path.remote, 0);
            let mut outbox = self.engine.outbox();
            datagrams.send_due(now, &transmit, &mut self.next_key, &mut outbox);
        }
        let tick = now.saturating_add(TICK_NS);
        let until = [
            self.client.poll_timeout(),
            self.guest.poll_timeout(),
            self.datagrams.as_ref().and_then(Datagrams::poll_timeout),
        ];
        let until = until.into_iter().flatten().fold(tick, Monotonic::min);
        let Self {
            engine,
            client,
            guest,
            tokens,
            datagrams,
            drops,
            ..
        } = self;
        let mut copy = [0; 2048];
        engine
            .wait(until, &mut |_, event| match event {
                Event::Received { meta, bytes, .. } => {
                    if drops.arrived(meta.socket_drops) {
                        client.handle_own_drops();
                    }
                    if let Some(datagram) = copy.get_mut(..bytes.len()) {
                        datagram.copy_from_slice(bytes);
                        match datagrams {
                            Some(d) if Prefix::kind_of(datagram) == Ok(Message::Load) => {
                                d.receive(meta.at.at, datagram);
                            }
                            _ => receive(client, guest, &meta, datagram),
                        }
                    }
                }
                Event::TxStamp { key, stamp, .. } => {
                    if let Some((token, _)) = tokens.remove(&key) {
                        client.handle_sent(token, SendOutcome::Stamped(stamp));
                    }
                }
                Event::Sent {
                    key,
                    errno: Some(errno),
                    ..
                } => {
                    if let Some((token, _)) = tokens.remove(&key) {
                        client.handle_sent(token, SendOutcome::Failed(errno));
                    } else if let Some(datagrams) = datagrams {
                        datagrams.failed(key);
                    }
                }
                Event::Sent { errno: None, .. } | Event::SocketError { .. } | Event::Wake => {}
            })
            .map_err(|e| e.to_string())?;
        while let Some(observation) = self.client.poll_observation() {
            let (Observation::New(s) | Observation::Revised(s)) = observation;
            if let Some(probe) = self.probes.get_mut(s.seq as usize) {
                probe.take(&s);
            }
        }
        while let Some(event) = self.client.poll_event() {
            if let SessionEvent::RemoteDrops(more) = event {
                self.drops.at_reflector(more);
            }
        }
        Ok(())
    }

    fn key(&mut self) -> u32 {
        let key = self.next_key;
        self.next_key = key.wrapping_add(1);
        key
    }

    fn send(&mut self, token: SendToken, datagram: &[u8]) {
        let key = self.key();
        let transmit = Transmit::new(self.socket, self.spec.path.remote, key);
        let now = clock::now();
        if token.stream().is_some() {
            self.probes
                .resize_with(token.seq() as usize + 1, Probe::default);
            self.probes[token.seq() as usize].handed_ns = now.as_nanos();
        }
        match self.engine.outbox().send(&transmit, datagram) {
            Ok(()) => drop(self.tokens.insert(key, (token, now))),
            Err(_) => self
                .client
                .handle_sent(token, SendOutcome::Failed(nix::libc::ENOBUFS)),
        }
        // At once: what a probe waits before it leaves the host is part of the delay.
        let _ = self.engine.outbox().flush();
    }

    fn expire_tokens(&mut self, now: Monotonic) {
        let old = |since: &Monotonic| now.saturating_since(*since) > STAMP_PATIENCE_NS;
        let expired: Vec<u32> = self
            .tokens
            .iter()
            .filter(|(_, (_, since))| old(since))
            .map(|(key, _)| *key)
            .collect();
        for key in expired {
            if let Some((token, _)) = self.tokens.remove(&key) {
                self.client.handle_sent(token, SendOutcome::NoStamp);
            }
        }
    }

    /// Goes on to the next phase where it is time to.
    fn turn(&mut self, now: Monotonic) -> Result<Phase, String> {
        match self.guest.state() {
            GuestState::Refused(reason) => {
                return Err(format!(
                    "the reflector refuses the test: {}",
                    reason.as_str()
                ));
            }
            GuestState::Ended(reason) if self.carried.is_none() => {
                return Err(format!("the reflector ended the test: {}", reason.as_str()));
            }
            GuestState::Granted if self.phases.is_none() => {
                let times = PhaseTimes::with_load(self.spec.load_ns);
                self.phases = Some(Phases::new(times, now));
            }
            _ => {}
        }
        let Some(mut phases) = self.phases else {
            return Ok(Phase::Idle);
        };
        if self.datagrams.as_ref().is_some_and(|d| d.is_missing(now)) {
            self.abandon();
            return Err("none of the reflector's datagrams arrives".into());
        }
        let is_loaded = self.loading.is_some();
        if phases.may_load(now) && !is_loaded {
            self.idle_rtt = Spread::of(&mut self.rtts(phases.begun(), now));
            self.loading = Some(Loading::begin(&self.spec.orders, &self.spec.path.interface));
            self.begin_load(now)?;
        }
        if is_loaded && self.carried.is_none() {
            let (begun, sent, received) = self.moved();
            if let Some(begun) = begun {
                phases.loaded(begun);
            }
            self.meter
                .add(now, self.guest.received().max(sent), received);
            let most = self.spec.most_bytes;
            let used_up = most.is_some_and(|most| self.meter.total() >= most);
            let has_ended = self.flows.as_ref().is_some_and(Flows::has_ended);
            if has_ended || phases.must_end_load(now) || used_up {
                self.cut_short = used_up && !phases.must_end_load(now);
                self.end_load(now)?;
                phases.unloaded(clock::now());
            }
        }
        let back = phases.load_end().is_some_and(|end| self.is_back(end));
        let phase = phases.advance(now, back);
        self.phases = Some(phases);
        Ok(phase)
    }

    /// Opens the streams, or has both ends send datagrams.
    fn begin_load(&mut self, now: Monotonic) -> Result<(), String> {
        let grant = self.guest.grant().cloned().ok_or("there is no grant")?;
        if let Some(offer) = self.spec.offer {
            let dscp = self.spec.dscp[0];
            self.drops.begin_load();
            self.datagrams = Some(Datagrams::new(offer, &grant, dscp, now));
            self.guest.load(now, true);
            return Ok(());
        }
        let mut to = self.spec.path.remote;
        to.set_port(grant.port);
        self.flows = Some(Flows::start(Plan {
            to,
            interface: self.spec.path.interface.clone(),
            grant,
            up: self.spec.up,
            down: self.spec.down,
            dscp: self.spec.dscp,
            congestion: self.spec.congestion.clone(),
        })?);
        Ok(())
    }

    /// Since when there is load, and what was sent and received so far, bytes.
    fn moved(&self) -> (Option<Monotonic>, u64, u64) {
        if let Some(d) = &self.datagrams {
            return (d.begun(), d.sent_bytes(), d.bins().total());
        }
        self.flows.as_ref().map_or((None, 0, 0), |flows| {
            let begun_ns = flows.seen.begun_ns.load(Ordering::Relaxed);
            (
                (begun_ns > 0).then(|| Monotonic::from_nanos(begun_ns)),
                flows.seen.sent.load(Ordering::Relaxed),
                flows.seen.received.load(Ordering::Relaxed),
            )
        })
    }

    fn end_load(&mut self, now: Monotonic) -> Result<(), String> {
        if let Some(datagrams) = &mut self.datagrams {
            datagrams.stop();
            self.guest.load(now, false);
            self.carried = Some(Carried::default());
            return Ok(());
        }
        let Some(flows) = self.flows.take() else {
            return Ok(());
        };
        let carried = flows.stop();
        self.guest.stop(clock::now());
        if let Some(why) = &carried.trouble {
            self.abandon();
            return Err(why.clone());
        }
        self.carried = Some(carried);
        Ok(())
    }

    /// Round-trip times of the answered probes that were sent in a stretch.
    fn rtts(&self, from: Monotonic, to: Monotonic) -> Vec<u64> {
        let (from, to) = (from.as_nanos(), to.as_nanos());
        self.probes
            .iter()
            .filter(|p| (from..to).contains(&p.handed_ns))
            .filter_map(Probe::rtt_ns)
            .collect()
    }

    fn is_back(&self, end: Monotonic) -> bool {
        self.back_after(end).is_some()
    }

    fn back_after(&self, end: Monotonic) -> Option<u64> {
        let idle = self.idle_rtt?;
        let samples = self
            .probes
            .iter()
            .filter_map(|p| Some((p.handed_ns, p.rtt_ns()?)));
        let threshold_ns = idle.p90.saturating_add(BACK_ABOVE_NS);
        back_after(samples, end.as_nanos(), threshold_ns, BACK_FOR_NS)
    }

    /// Whether every figure that will come has come.
    fn is_settled(&self) -> bool {
        let load_end = self.phases.and_then(|p| p.load_end());
        let end_ns = load_end.map_or(u64::MAX, Monotonic::as_nanos);
        let open = |p: &&Probe| !p.is_over();
        let mut loaded = self.probes.iter().filter(|p| p.handed_ns < end_ns);
        self.guest.is_over() && !loaded.any(|p| open(&p))
    }

    /// Ends everything at once; the reflector hears of it if it can.
    fn abandon(&mut self) {
        drop((self.flows.take(), self.datagrams.take()));
        self.guest.stop(clock::now());
        if let Some(order) = self.guest.poll_order(clock::now())
            && let Some(datagram) = self.client.write_order(&order)
        {
            let transmit = Transmit::new(self.socket, self.spec.path.remote, self.key());
            let mut outbox = self.engine.outbox();
            let _ = outbox.send(&transmit, &datagram);
            let _ = outbox.flush();
        }
    }

    fn progress(&self, now: Monotonic, begun: Monotonic) -> Progress {
        let waits_for = match self.guest.state() {
            _ if self.phases.is_some() => None,
            GuestState::Waiting => Some("the reflector, which others test"),
            _ => Some("an answer of the reflector"),
        };
        let (phase, since, phase_ns) = match self.phases {
            None => ("waiting", begun, self.spec.patience.turn_ns()),
            Some(p) => match p.phase() {
                Phase::Idle => ("idle", p.begun(), p.times().idle_ns),
                Phase::Load => ("load", p.load().unwrap_or(p.begun()), p.times().load_ns),
                Phase::Recovery | Phase::Done => (
                    "recovery",
                    p.load_end().unwrap_or(p.begun()),
                    p.times().recovery_ns,
                ),
            },
        };
        let (up, down) = self.meter.rates();
        let (loads_up, loads_down) = self.spec.loads();
        let loaded = phase == "load";
        Progress {
            phase,
            waits_for,
            elapsed_ns: now.saturating_since(since),
            phase_ns,
            up_bps: up.filter(|_| loaded && loads_up),
            down_bps: down.filter(|_| loaded && loads_down),
            rtt_ns: self.probes.iter().rev().find_map(Probe::rtt_ns),
        }
    }

    fn result(&mut self) -> Result<LoadTest, String> {
        let mut carried = self.carried.take().ok_or("no stream ever ran")?;
        if let Some(datagrams) = &self.datagrams {
            *carried.bins = datagrams.bins().clone();
            carried.datagrams = datagrams.counts();
        }
        let phases = self.phases.ok_or("no phase ever began")?;
        let recovery_ns = phases.load_end().and_then(|end| self.back_after(end));
        let taken = evaluate::Taken {
            spec: self.spec,
            phases: &phases,
            probes: &self.probes,
            guest: &self.guest,
            carried: &carried,
            dropped: self.drops.since_load(),
            recovery_ns,
            cut_short: self.cut_short,
        };
        evaluate::evaluate(&taken)
    }
}

fn receive(client: &mut Session, guest: &mut Guest, meta: &RecvMeta, datagram: &mut [u8]) {
    let now = clock::now();
    if Prefix::kind_of(datagram) == Ok(Message::Report) {
        if let Ok(report) = client.open_report(now, datagram) {
            // One that answers no order of this test is no concern of it.
            let _ = guest.handle_report(now, &report);
        }
        return;
    }
    // A receive stamp of the kernel is older than now; without one, now is what there is.
    let at = if meta.at.at > now {
        Stamp { at: now, ..meta.at }
    } else {
        meta.at
    };
    // What is none of ours is dropped.
    let _ = client.handle_reply(now, &RecvMeta { at, ..*meta }, datagram);
}

impl Probe {
    fn take(&mut self, s: &bufferbane_core::sample::Sample) {
        self.status = Some(s.status);
        // The kernel stamps what leaves behind the host's own queue: how long the probe stood there
        // is part of its delay.
        let own_ns = if s.tx_clock >= ClockSource::Kernel {
            s.sent.as_nanos().saturating_sub(self.handed_ns)
        } else {
            0
        };
        let own = i64::try_from(own_ns).unwrap_or(i64::MAX);
        self.rtt = s.rtt_ns.map(|r| r.saturating_add(own_ns));
        self.up = s.raw_up_ns.map(|u| u.saturating_add(own));
        self.down = s.raw_down_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorder_hears_when_loading_begins_and_that_it_ended() {
        let (orders, told) = std::sync::mpsc::sync_channel(2);
        drop(Loading::begin(&orders, "eth0"));
        let (Ok(Order::LoadBegins(a, from)), Ok(Order::LoadEnds(b, to))) =
            (told.recv(), told.recv())
        else {
            panic!("both are told, in order");
        };
        assert_eq!((a.as_str(), b.as_str()), ("eth0", "eth0"));
        assert!(from <= to);
    }
}
