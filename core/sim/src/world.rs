//! The world: events in the order of true time.

use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;

use bufferbane_core::awaited::{Awaited, Place};
use bufferbane_core::clock::{Change, FloorEstimator, Queueing};
use bufferbane_core::flight::{LossSlot, Slot};
use bufferbane_core::packet::{RecvMeta, SendOutcome, SendToken};
use bufferbane_core::sample::{Observation, Sample, SeriesIndex, Status};
use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_core::session::client::{Client, SessionEvent, StreamConfig};
use bufferbane_core::session::record::StreamRecord;
use bufferbane_core::session::reflector::{KeyEntry, Reflector, Session};
use bufferbane_core::time::{ClockSource, Monotonic, Stamp};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::clock::{Clock, ClockChange};
use crate::link::{Link, LinkPlan};
use crate::{MS, S};

/// What happens in a world.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The way up.
    pub up: LinkPlan,
    /// The way down.
    pub down: LinkPlan,
    /// Length of a probe slot, ns.
    pub interval_ns: u64,
    /// Bytes of a probe.
    pub size: u16,
    /// How much the client's clock gains, ns per second.
    pub client_drift_ppb: i64,
    /// How much the reflector's does.
    pub reflector_drift_ppb: i64,
    /// What is done to the client's clock, which leaps ahead at most: it is a monotonic one.
    pub client_clock: Vec<ClockChange>,
    /// What is done to the reflector's.
    pub reflector_clock: Vec<ClockChange>,
    /// True times at which the reflector is restarted, ns.
    pub restarts: Vec<u64>,
    /// True times, ns, while which the reflector's host is overloaded: nine in ten datagrams find its
    /// socket full, and are dropped and counted.
    pub reflector_deaf: Vec<Range<u64>>,
    /// The same of the client's.
    pub client_deaf: Vec<Range<u64>>,
    /// Share of transmit stamps that never come, per million, at both ends.
    pub stamp_missing_ppm: u32,
    /// Share that come late, by up to 400 ms.
    pub stamp_late_ppm: u32,
    /// Share that come a second time, up to a minute later and with another time.
    pub stamp_double_ppm: u32,
}

impl Default for Plan {
    /// A quiet line, probed once a second.
    fn default() -> Self {
        Self {
            up: LinkPlan::default(),
            down: LinkPlan::default(),
            interval_ns: S,
            size: 128,
            client_drift_ppb: 0,
            reflector_drift_ppb: 0,
            client_clock: Vec::new(),
            reflector_clock: Vec::new(),
            restarts: Vec::new(),
            reflector_deaf: Vec::new(),
            client_deaf: Vec::new(),
            stamp_missing_ppm: 0,
            stamp_late_ppm: 0,
            stamp_double_ppm: 0,
        }
    }
}

/// What really became of one probe.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// What the client's clock showed when it left.
    pub tx_shown_ns: u64,
    /// Whether the client was told.
    pub tx_told: bool,
    /// When it arrived at the reflector, true time.
    pub arrived: Vec<u64>,
    /// What the reflector's clock showed when it arrived and when the echo left.
    pub remote_shown_ns: Option<(u64, u64)>,
    /// What the client's clock showed at each arrival of an echo.
    pub echoed_shown_ns: Vec<u64>,
    /// Whether it, or its echo, got over the line and was dropped by a socket that was full: the
    /// reflector's, the client's.
    pub dropped: (bool, bool),
    /// How often the reflector had been restarted when it was sent.
    pub run: usize,
    /// Whether a clock was set while its host had it in hand: the client's between its making and its
    /// leaving, the reflector's between its arrival and its echo's leaving.
    pub set_in_hand: (bool, bool),
    /// When it left, true time.
    pub left_ns: u64,
    /// How long the first copy of it that arrived, and the first of the echo, were in queues.
    pub waited_ns: (Option<u64>, Option<u64>),
    /// When its echo left, true time.
    echo_left_ns: u64,
}

/// What was said of one probe's queueing delay when its sample was taken in.
#[derive(Clone, Copy, Debug)]
pub struct Said {
    /// The probe.
    pub seq: u64,
    /// What was said.
    pub queueing: Option<Queueing>,
    /// Whether both ends' kernels had stamped it, so that its delays are exact.
    pub exact: bool,
}

enum Happening {
    /// The client may have something to do.
    Wake,
    /// A datagram reaches the reflector; of this probe, unless it is a knock.
    Request(Option<u64>, Vec<u8>),
    /// A datagram reaches the client.
    Echo(Option<u64>, Vec<u8>),
    /// The client's driver has waited long enough for a stamp.
    GiveUp,
    /// The client hears of a transmit stamp, by its key.
    Told(u32, Stamp),
    /// The reflector hears of one, of its run.
    RemoteTold(usize, u32, Stamp),
    /// The reflector is restarted.
    Restart,
}

type TestClient = Client<Vec<Slot>, Vec<LossSlot>>;
/// How long a driver waits for a transmit stamp, ns.
const STAMP_PATIENCE_NS: u64 = 500 * MS;
/// Datagrams of an end that can wait for their stamps: few, so that places are taken anew while second
/// stamps for those before are still to come.
const AWAITED: usize = 8;

type Awaiting = Awaited<Vec<Option<Place<SendToken>>>>;
type TestReflector = Reflector<Vec<KeyEntry>, Vec<Session>, Vec<StreamRecord>>;

/// See the module.
pub struct World {
    plan: Plan,
    rng: ChaCha8Rng,
    now_ns: u64,
    order: u64,
    /// (true time, order, index into `happenings`), the earliest on top.
    queue: BinaryHeap<std::cmp::Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    client_clock: Clock,
    reflector_clock: Clock,
    client: TestClient,
    reflector: TestReflector,
    /// What waits for its stamp at either end, as their drivers keep it.
    client_awaits: Awaiting,
    reflector_awaits: Awaiting,
    up: Link,
    down: Link,
    run: usize,
    /// What the sockets of reflector and client have dropped, as they count it; and what of that the
    /// client has noticed of its own.
    drops: (u32, u32),
    drops_noticed: u32,
    wake_at_ns: u64,
    /// What really became of each probe, by number.
    pub truth: Vec<Truth>,
    /// The samples as they were first reported.
    pub first: Vec<Sample>,
    /// The last word on each probe, by number.
    pub last: BTreeMap<u64, Sample>,
    /// What was said at once of queueing delay.
    pub said: Vec<Said>,
    /// What was noticed of clocks and routes.
    pub changes: Vec<Change>,
    floors: FloorEstimator,
    /// Session events.
    pub events: Vec<SessionEvent>,
    /// Bytes that the reflector received and sent.
    pub bytes: (u64, u64),
    /// Transmit stamps that were told a second time, to client and reflector.
    pub doubled: (u64, u64),
}

impl World {
    /// A world that `seed` determines in every detail.
    #[must_use]
    pub fn new(plan: Plan, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let client_clock = Clock::new(
            rng.next_u64() % (1000 * S),
            plan.client_drift_ppb,
            &plan.client_clock,
        );
        let key = PresharedKey {
            id: KeyId([7; 8]),
            secret: Secret::new([9; 32]),
        };
        let begin = Monotonic::from_nanos(client_clock.read(0));
        let mut client = Client::new(key, begin, &mut rng);
        let config = StreamConfig {
            series: SeriesIndex(0),
            size: plan.size,
            interval_ns: plan.interval_ns,
            spread_permille: 800,
            timeout_ns: 3 * S,
        };
        let in_flight = (4 * S / plan.interval_ns) as usize + 16;
        let slots = vec![Slot::default(); 2 * in_flight];
        let added = client.add_stream(
            config,
            begin,
            slots,
            vec![LossSlot::default(); 8192],
            &mut rng,
        );
        debug_assert!(added.is_ok());
        let (up, down) = (Link::new(plan.up.clone()), Link::new(plan.down.clone()));
        let (reflector, reflector_clock) = start_reflector(&plan, &mut rng);
        let mut world = Self {
            rng,
            now_ns: 0,
            order: 0,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            client_clock,
            reflector_clock,
            client,
            reflector,
            client_awaits: nothing_awaited(),
            reflector_awaits: nothing_awaited(),
            up,
            down,
            run: 0,
            drops: (0, 0),
            drops_noticed: 0,
            wake_at_ns: u64::MAX,
            truth: Vec::new(),
            first: Vec::new(),
            last: BTreeMap::new(),
            said: Vec::new(),
            changes: Vec::new(),
            floors: FloorEstimator::new(),
            events: Vec::new(),
            bytes: (0, 0),
            doubled: (0, 0),
            plan,
        };
        for at in world.plan.restarts.clone() {
            world.at(at, Happening::Restart);
        }
        world.at(0, Happening::Wake);
        world
    }

    /// Lets true time pass until `end_ns`.
    pub fn run_until(&mut self, end_ns: u64) {
        while let Some(&std::cmp::Reverse((at, order))) = self.queue.peek() {
            if at > end_ns {
                break;
            }
            self.queue.pop();
            self.now_ns = at;
            if let Some(happening) = self.happenings.remove(&order) {
                self.happen(happening);
            }
            self.serve_client();
        }
        self.now_ns = end_ns;
    }

    fn at(&mut self, at_ns: u64, happening: Happening) {
        self.queue.push(std::cmp::Reverse((at_ns, self.order)));
        self.happenings.insert(self.order, happening);
        self.order += 1;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Wake => self.wake_at_ns = u64::MAX,
            // What has waited too long is looked for whenever the client is served.
            Happening::GiveUp => {}
            Happening::Request(seq, bytes) => self.reflect(seq, bytes),
            Happening::Echo(seq, mut bytes) => {
                if is_deaf(&self.plan.client_deaf, self.now_ns, &mut self.rng) {
                    self.drops.1 += 1;
                    if let Some(seq) = seq {
                        self.truth[seq as usize].dropped.1 = true;
                    }
                    return;
                }
                let shown_ns = self.client_clock.read(self.now_ns);
                if let Some(seq) = seq {
                    let truth = &mut self.truth[seq as usize];
                    truth.echoed_shown_ns.push(shown_ns);
                    let floor_ns = self.down.floor_ns(truth.echo_left_ns, bytes.len());
                    let waited_ns = self.now_ns - truth.echo_left_ns - floor_ns;
                    truth.waited_ns.1.get_or_insert(waited_ns);
                }
                let meta = meta(shown_ns, ([203, 0, 113, 1], 9876), self.drops.1);
                if self.drops_noticed != self.drops.1 {
                    self.drops_noticed = self.drops.1;
                    self.client.handle_own_drops();
                }
                let now = Monotonic::from_nanos(shown_ns);
                // What is not used is counted by the client; the check looks at samples.
                let _ = self.client.handle_reply(now, &meta, &mut bytes);
            }
            Happening::Told(key, stamp) => {
                if let Some(token) = self.client_awaits.take(key) {
                    self.client.handle_sent(token, SendOutcome::Stamped(stamp));
                }
            }
            Happening::RemoteTold(run, key, stamp) => {
                if run == self.run
                    && let Some(token) = self.reflector_awaits.take(key)
                {
                    let outcome = SendOutcome::Stamped(stamp);
                    self.reflector.handle_sent(token, outcome);
                }
            }
            Happening::Restart => {
                self.run += 1;
                self.reflector_awaits = nothing_awaited();
                (self.reflector, self.reflector_clock) = start_reflector(&self.plan, &mut self.rng);
            }
        }
    }

    fn reflect(&mut self, seq: Option<u64>, mut bytes: Vec<u8>) {
        if is_deaf(&self.plan.reflector_deaf, self.now_ns, &mut self.rng) {
            self.drops.0 += 1;
            if let Some(seq) = seq {
                self.truth[seq as usize].dropped.0 = true;
            }
            return;
        }
        let shown_ns = self.reflector_clock.read(self.now_ns);
        let meta = meta(shown_ns, ([192, 0, 2, 1], 4000), self.drops.0);
        let dwell_ns = 20_000 + self.rng.next_u64() % 300_000;
        let now = Monotonic::from_nanos(shown_ns + dwell_ns);
        let mut out = [0; 1500];
        self.bytes.0 += bytes.len() as u64;
        let answer = self
            .reflector
            .handle_request(now, &meta, &mut bytes, &mut out, &mut self.rng);
        if let Some(seq) = seq {
            let truth = &mut self.truth[seq as usize];
            truth.arrived.push(self.now_ns);
            let floor_ns = self.up.floor_ns(truth.left_ns, bytes.len());
            let waited_ns = self.now_ns - truth.left_ns - floor_ns;
            truth.waited_ns.0.get_or_insert(waited_ns);
        }
        let Ok(answer) = answer else { return };
        self.bytes.1 += answer.len as u64;
        // The kernel takes a little longer than the program thinks.
        let left_ns = self.now_ns + dwell_ns + 5_000 + self.rng.next_u64() % 50_000;
        let left_shown_ns = self.reflector_clock.read(left_ns);
        if let Some(seq) = seq {
            let truth = &mut self.truth[seq as usize];
            truth.remote_shown_ns = Some((shown_ns, left_shown_ns));
            truth.echo_left_ns = left_ns;
            truth.set_in_hand.1 = self.reflector_clock.is_set_in(self.now_ns..left_ns);
        }
        if let Some(token) = answer.token {
            let (run, key) = (self.run, self.reflector_awaits.next_key());
            if let Some(given_up) = self.reflector_awaits.insert(token, now) {
                self.reflector.handle_sent(given_up, SendOutcome::NoStamp);
            }
            for (told_ns, off_ns) in self.stamps_told(left_ns) {
                self.doubled.1 += u64::from(off_ns > 0);
                let stamp = Stamp::kernel(Monotonic::from_nanos(left_shown_ns + off_ns));
                self.at(told_ns, Happening::RemoteTold(run, key, stamp));
            }
        }
        for at in self.down.pass(left_ns, answer.len, &mut self.rng) {
            self.at(at, Happening::Echo(seq, out[..answer.len].to_vec()));
        }
    }

    /// When a transmit stamp is told, and how much it is off: never, once, or a second time.
    fn stamps_told(&mut self, left_ns: u64) -> Vec<(u64, u64)> {
        let mut chance = |ppm: u32| ppm > 0 && self.rng.next_u32() % 1_000_000 < ppm;
        if chance(self.plan.stamp_missing_ppm) {
            return Vec::new();
        }
        let late = chance(self.plan.stamp_late_ppm);
        let doubled = chance(self.plan.stamp_double_ppm);
        let told_ns = left_ns
            + if late {
                self.rng.next_u64() % (400 * MS)
            } else {
                10_000
            };
        let mut told = vec![(told_ns, 0)];
        if doubled {
            // At once, or when another datagram has its place.
            let most_ns = [MS, 60 * S][self.rng.next_u32() as usize % 2];
            let again_ns = told_ns + 1 + self.rng.next_u64() % most_ns;
            told.push((again_ns, 500_000 + self.rng.next_u64() % (50 * MS)));
        }
        told
    }

    fn serve_client(&mut self) {
        let shown_ns = self.client_clock.read(self.now_ns);
        let now = Monotonic::from_nanos(shown_ns);
        while let Some(token) = self.client_awaits.take_expired(now, STAMP_PATIENCE_NS) {
            self.client.handle_sent(token, SendOutcome::NoStamp);
        }
        self.client.handle_timeout(now);
        let mut out = [0; 1500];
        while let Some((len, token)) = self.client.poll_transmit(now, &mut self.rng, &mut out) {
            self.transmit(token, &out[..len]);
        }
        while let Some(o) = self.client.poll_observation() {
            let (Observation::New(s) | Observation::Revised(s)) = o;
            if let Observation::New(s) = o {
                self.first.push(s);
                self.learn(&s);
            }
            if s.status != Status::Duplicate {
                self.last.insert(s.seq, s);
            }
        }
        while let Some(e) = self.client.poll_event() {
            self.events.push(e);
        }
        if let Some(next) = self.client.poll_timeout() {
            let at = self.client_clock.when(next.as_nanos()).max(self.now_ns + 1);
            if at < self.wake_at_ns {
                self.wake_at_ns = at;
                self.at(at, Happening::Wake);
            }
        }
    }

    fn learn(&mut self, s: &Sample) {
        self.floors.on_sample(s);
        while self.floors.poll_update().is_some() {}
        while let Some(change) = self.floors.poll_change() {
            self.changes.push(change);
        }
        if s.status == Status::Ok {
            let kernel = ClockSource::Kernel;
            self.said.push(Said {
                seq: s.seq,
                queueing: self.floors.queueing(s),
                exact: s.tx_clock == kernel && s.remote_tx_clock == kernel,
            });
        }
    }

    fn transmit(&mut self, token: SendToken, bytes: &[u8]) {
        let left_ns = self.now_ns + 1_000 + self.rng.next_u64() % 100_000;
        let shown_ns = self.client_clock.read(left_ns);
        let seq = token.stream().map(|_| token.seq());
        let told = self.stamps_told(left_ns);
        if seq.is_some() {
            self.truth.push(Truth {
                tx_shown_ns: shown_ns,
                tx_told: !told.is_empty(),
                run: self.run,
                set_in_hand: (self.client_clock.is_set_in(self.now_ns..left_ns), false),
                left_ns,
                ..Truth::default()
            });
        }
        let key = self.client_awaits.next_key();
        let now = Monotonic::from_nanos(self.client_clock.read(self.now_ns));
        if let Some(given_up) = self.client_awaits.insert(token, now) {
            self.client.handle_sent(given_up, SendOutcome::NoStamp);
        }
        if told.is_empty() {
            // However slowly its clock runs.
            let at_ns = left_ns + STAMP_PATIENCE_NS + MS;
            self.at(at_ns, Happening::GiveUp);
        }
        for (told_ns, off_ns) in told {
            self.doubled.0 += u64::from(off_ns > 0);
            let stamp = Stamp::kernel(Monotonic::from_nanos(shown_ns + off_ns));
            self.at(told_ns, Happening::Told(key, stamp));
        }
        for at in self.up.pass(left_ns, bytes.len(), &mut self.rng) {
            self.at(at, Happening::Request(seq, bytes.to_vec()));
        }
    }
}

fn nothing_awaited() -> Awaiting {
    Awaited::new((0..AWAITED).map(|_| None).collect())
}

fn start_reflector(plan: &Plan, rng: &mut ChaCha8Rng) -> (TestReflector, Clock) {
    let key = PresharedKey {
        id: KeyId([7; 8]),
        secret: Secret::new([9; 32]),
    };
    let reflector = Reflector::new(
        vec![KeyEntry::new(key, 0, 1000, 4)],
        vec![Session::default(); 4],
        vec![StreamRecord::default(); 4],
        1000,
        rng,
    );
    (
        reflector,
        Clock::new(
            rng.next_u64() % (1_000_000 * S),
            plan.reflector_drift_ppb,
            &plan.reflector_clock,
        ),
    )
}

/// Whether a socket that is full at these times drops what arrives now.
fn is_deaf(times: &[Range<u64>], now_ns: u64, rng: &mut ChaCha8Rng) -> bool {
    times.iter().any(|t| t.contains(&now_ns)) && !rng.next_u32().is_multiple_of(10)
}

fn meta(shown_ns: u64, from: ([u8; 4], u16), socket_drops: u32) -> RecvMeta {
    RecvMeta {
        at: Stamp {
            at: Monotonic::from_nanos(shown_ns),
            clock: ClockSource::Kernel,
        },
        from: from.into(),
        to: None,
        ttl: Some(60),
        tos: Some(0),
        socket_drops,
        truncated: false,
    }
}
