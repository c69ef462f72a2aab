//! One test from its first probe to its last.

use std::sync::atomic::Ordering;

use bufferbane_core::load::guest::{Guest, GuestState, Wish};
use bufferbane_core::load::latency::Spread;
use bufferbane_core::load::phases::{Phase, PhaseTimes, Phases};
use bufferbane_core::time::Monotonic;
use bufferbane_core::wire::load::EndReason;
use bufferbane_linux_io::{clock, tcp};
use bufferbane_store::LoadTest;
use rand_chacha::ChaCha12Rng;
use rand_core::Rng;

use super::datagrams::{Datagrams, FIRST_NS};
use super::drops::{Departures, Dropped};
use super::evaluate;
use super::fail_over::OTHERS;
use super::flows::{CONNECT_NS, Carried, Flows, Plan};
use super::loading::Loading;
use super::meter::Meter;
use super::others::Others;
use super::prober::Prober;
use super::spec::{Patience, Spec};
use super::{Path, Progress};

/// Whoever asked hears this often how far it is, ns.
const PROGRESS_NS: u64 = 200_000_000;
/// A reflector that does not answer at all is given up after this, ns.
const SESSION_NS: u64 = 5_000_000_000;
/// Once latency is back, the last probes may come, and the last figures be fetched, for this long, ns.
const SETTLE_NS: u64 = 5_000_000_000;
/// Whoever is cut off while the session begins waits this long for it, to be able to end it, ns.
const WELCOME_NS: u64 = 500_000_000;
/// The most that a test takes beside its load, with reflectors that are asked in vain before, ns.
pub(super) const BESIDE_LOAD_NS: u64 = {
    let phases = PhaseTimes::with_load(0);
    let first_byte_ns = if CONNECT_NS > FIRST_NS {
        CONNECT_NS
    } else {
        FIRST_NS
    };
    let until_load_ns = phases.idle_ns + first_byte_ns;
    OTHERS as u64 * (Patience::WithOthers.turn_ns() + until_load_ns)
        + Patience::Alone.turn_ns()
        + until_load_ns
        + phases.recovery_ns
        + SETTLE_NS
};

/// A test under way.
struct Test<'a> {
    spec: &'a Spec,
    prober: Prober,
    guest: Guest,
    phases: Option<Phases>,
    flows: Option<Flows>,
    /// Until the end: what is on its way when the load ends is counted, too.
    datagrams: Option<Datagrams>,
    /// From when on they may leave.
    departures: Option<Departures>,
    /// Of a test of streams in one direction.
    others: Option<Others>,
    /// From the first stream to the end of the test, with the recovery.
    loading: Option<Loading>,
    carried: Option<Carried>,
    idle_rtt: Option<Spread>,
    meter: Meter,
    /// What the load has sent up and received so far: what counts for budgets.
    moved_bytes: u64,
    /// Whether the streams were ended because they had moved all that they may.
    cut_short: bool,
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
        let moved = test.moved_bytes;
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
            // Whatever comes of it, it was cut off.
            let _ = test.await_session(rng);
            test.abandon();
            return Err("it was cut off".into());
        }
        let (guest, datagrams) = (&mut test.guest, test.datagrams.as_mut());
        test.prober.step(rng, guest, datagrams)?;
        let now = clock::now();
        if test.guest.state() == GuestState::Silent
            || (!test.prober.is_answering()
                && test.phases.is_none()
                && now.saturating_since(begun) > SESSION_NS)
        {
            return Err(format!(
                "the reflector {} does not answer through {}; bbtool doctor says what to look at",
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

/// Why the reflector refuses a test, and what helps.
fn refused(path: &Path, reason: EndReason) -> String {
    match (reason, path.tcp_prefix) {
        (EndReason::Prefix, Some(prefix)) => format!(
            "tcp_prefix {prefix} does not hold the address at which it sees {}, and it allows this client no such prefix; \
             a prefix of one uplink belongs into the [[interface]] of that one, and other addresses than that of the \
             probes have to be allowed there (tcp_prefixes of [[client]])",
            path.interface
        ),
        _ => reason.as_str().to_owned(),
    }
}

impl<'a> Test<'a> {
    fn new(spec: &'a Spec, rng: &mut ChaCha12Rng) -> Result<Self, String> {
        let prober = Prober::new(spec, rng)?;
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
            // Datagrams come from where probes do.
            prefix: spec.path.tcp_prefix.filter(|_| spec.offer.is_none()),
            offer: spec.offer,
        };
        Ok(Self {
            spec,
            prober,
            guest: Guest::new(wish, rng.next_u64(), clock::now()),
            phases: None,
            flows: None,
            datagrams: None,
            departures: None,
            others: None,
            loading: None,
            carried: None,
            idle_rtt: None,
            meter: Meter::default(),
            moved_bytes: 0,
            cut_short: false,
        })
    }

    /// Goes on to the next phase where it is time to.
    fn turn(&mut self, now: Monotonic) -> Result<Phase, String> {
        match self.guest.state() {
            GuestState::Refused(reason) => {
                let why = refused(&self.spec.path, reason);
                return Err(format!("the reflector refuses the test: {why}"));
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
            self.idle_rtt = Spread::of(&mut self.prober.probes.rtts(phases.begun(), now));
            self.loading = Some(Loading::begin(&self.spec.orders, &self.spec.path.interface));
            self.begin_load(now)?;
        }
        if is_loaded && self.carried.is_none() {
            let (begun, sent, received) = self.moved();
            if let Some(begun) = begun {
                phases.loaded(begun);
            }
            let arrived = self.guest.received();
            self.meter.add(now, arrived, received);
            // What still stands in a queue was sent.
            self.moved_bytes = arrived.max(sent).saturating_add(received);
            let most = self.spec.most_bytes;
            let used_up = most.is_some_and(|most| self.moved_bytes >= most);
            let has_ended = self.flows.as_ref().is_some_and(Flows::has_ended);
            let ends = has_ended || phases.must_end_load(now) || used_up;
            self.look_at_others(now, ends);
            if ends {
                self.cut_short = used_up && !phases.must_end_load(now);
                self.end_load(now)?;
                phases.unloaded(clock::now());
            }
        }
        let back = phases
            .load_end()
            .is_some_and(|end| self.back_after(end).is_some());
        let phase = phases.advance(now, back);
        self.phases = Some(phases);
        Ok(phase)
    }

    /// Opens the streams, or has both ends send datagrams.
    fn begin_load(&mut self, now: Monotonic) -> Result<(), String> {
        let grant = self.guest.grant().cloned().ok_or("there is no grant")?;
        if let Some(offer) = self.spec.offer {
            let dscp = self.spec.dscp[0];
            self.prober.drops.begin_load();
            self.departures = Some(Departures::look(self.spec.path.index));
            self.datagrams = Some(Datagrams::new(offer, &grant, dscp, now));
            self.guest.load(now, true);
            return Ok(());
        }
        if self.spec.loads() != (true, true) {
            self.others = Some(Others::new(&self.spec.path));
        }
        let mut to = self.spec.path.remote;
        to.set_port(grant.port);
        self.flows = Some(Flows::start(Plan {
            to,
            way: self.spec.path.way(),
            grant,
            up: self.spec.up,
            down: self.spec.down,
            dscp: self.spec.dscp,
            congestion: self.spec.congestion.clone(),
        })?);
        Ok(())
    }

    /// What others carry is looked at some times a second, and when the load ends.
    fn look_at_others(&mut self, now: Monotonic, ends: bool) {
        let (Some(others), Some(flows)) = (&mut self.others, &self.flows) else {
            return;
        };
        if ends || others.is_due(now) {
            let probes = self.prober.probes.as_slice().len() as u64;
            let probes_bytes = probes * self.prober.frame_bytes();
            let frames = flows.seen.frames.each_ref();
            others.look(
                now,
                frames.map(|f| f.load(Ordering::Relaxed) + probes_bytes),
            );
        }
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

    fn back_after(&self, end: Monotonic) -> Option<u64> {
        self.prober.probes.back_after(end, self.idle_rtt?)
    }

    /// Whether every figure that will come has come.
    fn is_settled(&self) -> bool {
        let load_end = self.phases.and_then(|p| p.load_end());
        let end_ns = load_end.map_or(u64::MAX, Monotonic::as_nanos);
        self.guest.is_over() && self.prober.probes.are_over(end_ns)
    }

    /// A session that is about to begin would be kept by the reflector for minutes.
    fn await_session(&mut self, rng: &mut ChaCha12Rng) -> Result<(), String> {
        let until = clock::now().saturating_add(WELCOME_NS);
        while self.prober.is_joining() && clock::now() < until {
            self.prober.step(rng, &mut self.guest, None)?;
        }
        Ok(())
    }

    /// Ends everything at once; the reflector hears of it if it can.
    fn abandon(&mut self) {
        drop((self.flows.take(), self.datagrams.take()));
        let now = clock::now();
        self.guest.stop(now);
        if let Some(order) = self.guest.poll_order(now) {
            self.prober.ask_last(&order);
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
            rtt_ns: self.prober.probes.latest_rtt_ns(),
        }
    }

    fn result(&mut self) -> Result<LoadTest, String> {
        let mut carried = self.carried.take().ok_or("no stream ever ran")?;
        if let Some(datagrams) = &self.datagrams {
            *carried.bins = datagrams.bins().clone();
            carried.datagrams = datagrams.counted();
        }
        let phases = self.phases.ok_or("no phase ever began")?;
        let recovery_ns = phases.load_end().and_then(|end| self.back_after(end));
        let taken = evaluate::Taken {
            spec: self.spec,
            phases: &phases,
            probes: self.prober.probes.as_slice(),
            pings: self
                .prober
                .pings
                .as_ref()
                .map_or(&[], |p| p.probes.as_slice()),
            guest: &self.guest,
            carried: &carried,
            dropped: Dropped {
                leaving_here: self.departures.as_ref().and_then(Departures::dropped),
                leaving_reflector: self.guest.sender_drops().map(u64::from),
                ..self.prober.drops.since_load()
            },
            others: self.others.as_ref(),
            recovery_ns,
            cut_short: self.cut_short,
        };
        evaluate::evaluate(&taken)
    }
}
