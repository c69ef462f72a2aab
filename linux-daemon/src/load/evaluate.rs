//! What a test's probes and streams say.

use bufferbane_core::load::bins::{mean_bps, quantile_bps};
use bufferbane_core::load::guest::Guest;
use bufferbane_core::load::latency::Spread;
use bufferbane_core::load::phases::Phases;
use bufferbane_core::load::responsiveness;
use bufferbane_core::sample::Status;
use bufferbane_core::time::Monotonic;
use bufferbane_core::wire::load::{BIN_NS, Offer};
use bufferbane_store::{
    Datagrams, Direction, LoadTest, LoadedDelay, Percentiles, ProbeBin, Protocol, TestWay,
};

use super::flows::Carried;
use super::run::Spec;

/// What became of one probe of the test.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Probe {
    /// When it was handed to the kernel, ns.
    pub(super) handed_ns: u64,
    pub(super) status: Option<Status>,
    pub(super) rtt: Option<u64>,
    /// Of two clocks that are not synchronised: only differences mean something, ns.
    pub(super) up: Option<i64>,
    pub(super) down: Option<i64>,
}

impl Probe {
    pub(super) fn rtt_ns(&self) -> Option<u64> {
        self.rtt
    }

    /// Whether nothing more will become known, but perhaps the direction of a loss.
    pub(super) const fn is_over(&self) -> bool {
        self.status.is_some() || self.handed_ns == 0
    }

    fn is_lost(&self) -> bool {
        self.status.is_some_and(Status::is_lost)
    }
}

/// All that was taken down.
pub(super) struct Taken<'a> {
    pub(super) spec: &'a Spec,
    pub(super) phases: &'a Phases,
    pub(super) probes: &'a [Probe],
    pub(super) guest: &'a Guest,
    pub(super) carried: &'a Carried,
    pub(super) recovery_ns: Option<u64>,
    pub(super) cut_short: bool,
}

/// A stretch of time, ns.
#[derive(Clone, Copy)]
struct Stretch {
    from: u64,
    to: u64,
}

impl Stretch {
    const fn holds(self, at: u64) -> bool {
        at >= self.from && at < self.to
    }
}

/// The result of a test that went through all its phases.
pub(super) fn evaluate(t: &Taken<'_>) -> Result<LoadTest, String> {
    let load = t.phases.load().map(Monotonic::as_nanos);
    let end = t.phases.load_end().map(Monotonic::as_nanos);
    let (load, end) = load.zip(end).ok_or("no stream ever carried anything")?;
    let ramp_ns = t.phases.ramp_ns();
    let begun = t.phases.begun().as_nanos();
    let idle = Stretch {
        from: begun,
        to: begun + t.phases.times().idle_ns,
    };
    let steady = Stretch {
        from: load + ramp_ns,
        to: end,
    };
    let rtt = delay(t.probes, idle, steady, |p| p.rtt)
        .ok_or("too few probes came back to say anything of latency")?;
    // The floor of a direction is the fastest probe of the whole test.
    let floor = |of: fn(&Probe) -> Option<i64>| t.probes.iter().filter_map(of).min();
    let (up_floor, down_floor) = (floor(|p| p.up), floor(|p| p.down));
    let up = |p: &Probe| above(p.up, up_floor);
    let down = |p: &Probe| above(p.down, down_floor);

    let mut ways = Vec::new();
    let (loads_up, loads_down) = t.spec.loads();
    if loads_up {
        let facts = t.carried.facts;
        let way = Way {
            direction: Direction::Up,
            streams: t.spec.up,
            bytes: t.guest.received(),
            bins: t.guest.bins(),
            retransmits: facts.retransmits,
            cwnd_bytes: facts.cwnd_bytes,
            rtt_us: facts.rtt_us,
            lost: Status::LostUp,
            datagrams: t.spec.offer.map(|o| datagrams_up(t, &o)),
        };
        ways.push(way.describe(t, idle, steady, load, &up));
    }
    if loads_down {
        let facts = t.guest.facts();
        let way = Way {
            direction: Direction::Down,
            streams: t.spec.down,
            bytes: t.carried.bins.total(),
            bins: t.carried.bins.as_slice(),
            retransmits: facts.retransmits,
            cwnd_bytes: facts.cwnd_bytes,
            rtt_us: facts.rtt_us,
            lost: Status::LostDown,
            datagrams: t.spec.offer.map(|o| datagrams_down(t, &o)),
        };
        ways.push(way.describe(t, idle, steady, load, &down));
    }

    // Of datagrams that leave as they do anyway, nobody waits for an answer.
    let rpm = t.spec.offer.is_none().then(|| responsiveness(t, load, end));
    let rpm = rpm.flatten();
    let last = t.probes.iter().map(|p| p.handed_ns).max().unwrap_or(end);
    Ok(LoadTest {
        boot: 0,
        start_ns: begun,
        end_ns: last.max(end),
        load_start_ns: load,
        load_end_ns: end,
        ramp_ns,
        interface: t.spec.path.interface.clone(),
        reflector: t.spec.path.reflector.clone(),
        kind: t.spec.kind.as_str().to_owned(),
        protocol: match t.spec.offer {
            Some(_) => Protocol::Udp,
            None => Protocol::Tcp,
        },
        asked_by: t.spec.asked_by.to_owned(),
        congestion: match t.spec.offer {
            Some(_) => String::new(),
            None => t.spec.congestion.clone(),
        },
        cut_short: t.cut_short,
        instead_of: t.spec.instead_of.clone(),
        ways,
        rtt,
        rpm: rpm.map(|r| r.rpm),
        rpm_stable: rpm.is_some_and(|r| r.stable),
        rpm_variant: responsiveness::VARIANT.to_owned(),
        recovery_ns: t.recovery_ns,
        probes: probe_bins(t.probes, begun, &up, &down),
    })
}

/// How far a delay lies above the floor of its direction, ns.
fn above(delay: Option<i64>, floor: Option<i64>) -> Option<u64> {
    u64::try_from(delay?.checked_sub(floor?)?).ok()
}

/// What is known of one direction beside the probes.
struct Way<'a> {
    direction: Direction,
    streams: u8,
    bytes: u64,
    bins: &'a [u32],
    retransmits: u32,
    cwnd_bytes: u32,
    rtt_us: u32,
    lost: Status,
    datagrams: Option<Datagrams>,
}

/// What the reflector counted of what left here.
fn datagrams_up(t: &Taken<'_>, offer: &Offer) -> Datagrams {
    let (sent, counted) = (t.carried.datagrams.sent, t.guest.counted());
    let received = u64::from(counted.datagrams);
    Datagrams {
        offered_bps: offer.up_bps,
        size: offer.size,
        sent,
        received,
        lost: sent.saturating_sub(received),
        reordered: counted.overtaken.into(),
        duplicated: counted.again.into(),
    }
}

/// What was counted here of what left the reflector.
fn datagrams_down(t: &Taken<'_>, offer: &Offer) -> Datagrams {
    let (sent, counted) = (u64::from(t.guest.counted().sent), t.carried.datagrams);
    Datagrams {
        offered_bps: offer.down_bps,
        size: offer.size,
        sent,
        received: counted.received,
        lost: sent.saturating_sub(counted.received),
        reordered: counted.overtaken,
        duplicated: counted.again,
    }
}

impl Way<'_> {
    fn describe(
        &self,
        t: &Taken<'_>,
        idle: Stretch,
        steady: Stretch,
        load: u64,
        of: &dyn Fn(&Probe) -> Option<u64>,
    ) -> TestWay {
        // Whole bins within the steady part.
        let first = ((steady.from - load).div_ceil(BIN_NS) as usize).min(self.bins.len());
        let last = (((steady.to - load) / BIN_NS) as usize).clamp(first, self.bins.len());
        let mut bins = self.bins[first..last].to_vec();
        let mean_bps = mean_bps(&bins).unwrap_or(0);
        let delay = delay(t.probes, idle, steady, of).unwrap_or_default();
        let increase_ns = delay.increase.p50;
        let queue = u128::from(increase_ns) * u128::from(mean_bps) / 8_000_000_000;
        let lost = t
            .probes
            .iter()
            .filter(|p| steady.holds(p.handed_ns) && p.status == Some(self.lost));
        TestWay {
            direction: self.direction,
            streams: self.streams,
            bytes: self.bytes,
            mean_bps,
            p10_bps: quantile_bps(&mut bins, 0.1).unwrap_or(0),
            p90_bps: quantile_bps(&mut bins, 0.9).unwrap_or(0),
            retransmits: self.retransmits.into(),
            cwnd_bytes: self.cwnd_bytes.into(),
            rtt_us: self.rtt_us.into(),
            bins: self.bins.to_vec(),
            delay,
            queue_bytes: u64::try_from(queue).unwrap_or(u64::MAX),
            grade: delay.grade().as_str().to_owned(),
            lost: lost.count() as u64,
            datagrams: self.datagrams,
        }
    }
}

/// A delay in both stretches; `None` where either has no probe that knows it.
fn delay(
    probes: &[Probe],
    idle: Stretch,
    steady: Stretch,
    of: impl Fn(&Probe) -> Option<u64>,
) -> Option<LoadedDelay> {
    let spread = |stretch: Stretch| {
        let mut values: Vec<u64> = probes
            .iter()
            .filter(|p| stretch.holds(p.handed_ns))
            .filter_map(&of)
            .collect();
        Spread::of(&mut values)
    };
    let (idle, loaded) = (spread(idle)?, spread(steady)?);
    Some(LoadedDelay {
        idle: percentiles(idle),
        loaded: percentiles(loaded),
        increase: percentiles(loaded.above(idle)),
    })
}

const fn percentiles(s: Spread) -> Percentiles {
    Percentiles {
        p50: s.p50,
        p90: s.p90,
        p99: s.p99,
    }
}

fn responsiveness(t: &Taken<'_>, load: u64, end: u64) -> Option<responsiveness::Responsiveness> {
    let foreign: Vec<(u64, u64)> = t
        .probes
        .iter()
        .filter_map(|p| Some((p.handed_ns, p.rtt?)))
        .filter(|(at, _)| *at >= load && *at < end)
        .collect();
    let mut loaded = t.carried.in_band.clone();
    for (i, units) in t.guest.in_band().iter().enumerate() {
        if *units > 0 {
            let at = load + i as u64 * BIN_NS + BIN_NS / 2;
            loaded.push((at, u64::from(*units) * 100_000));
        }
    }
    let mut scratch = vec![0; foreign.len().max(loaded.len())];
    responsiveness::evaluate(&foreign, &loaded, load, end, &mut scratch)
}

/// Medians of probes that were sent in the same 100 ms.
fn probe_bins(
    probes: &[Probe],
    begun: u64,
    up: &dyn Fn(&Probe) -> Option<u64>,
    down: &dyn Fn(&Probe) -> Option<u64>,
) -> Vec<ProbeBin> {
    let of_bin = |p: &Probe| Some((p.handed_ns.checked_sub(begun)? / BIN_NS) as usize);
    let last = probes.iter().filter_map(of_bin).max();
    let mut bins: Vec<Vec<Probe>> = vec![Vec::new(); last.map_or(0, |l| l + 1)];
    for probe in probes {
        if let Some(bin) = of_bin(probe).and_then(|i| bins.get_mut(i)) {
            bin.push(*probe);
        }
    }
    let median = |bin: &[Probe], of: &dyn Fn(&Probe) -> Option<u64>| {
        let mut values: Vec<u64> = bin.iter().filter_map(of).collect();
        Spread::of(&mut values).map(|s| s.p50)
    };
    bins.iter()
        .map(|bin| ProbeBin {
            up_ns: median(bin, up),
            down_ns: median(bin, down),
            rtt_ns: median(bin, &|p| p.rtt),
            lost: bin.iter().filter(|p| p.is_lost()).count() as u32,
        })
        .collect()
}
