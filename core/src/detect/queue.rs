//! `latency_spike` and `bufferbloat`: delay that stands above its baseline, without and with load.

use super::baseline::{Baseline, Recent};
use super::event::{Direction, Finding, Kind, Severity};
use super::input::{Load, LoadedWays, Probe, Thresholds};
use super::periodic::{Cluster, Periodic, together_ns};
use super::sustained::{Change, Sustained};
use crate::time::Monotonic;

const S: u64 = 1_000_000_000;
/// Delay under load has to stand for this long, ns.
const BLOAT_FOR_NS: u64 = S;
/// Whether delay varies is judged over ten seconds and more: what stands high is told after this, ns.
const JUDGED_NS: u64 = 15 * S;
/// Where delay varies, what is this many times the threshold is high all the same.
const JITTERY: u64 = 5;

/// Delay that did not stand high for this part of what is one spike may be another.
const LULL: u64 = 4;

/// What the line carried when a probe was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    /// Not known: others use the line past this host.
    Unknown,
    /// So much.
    Known {
        /// The ways that this is much for.
        ways: LoadedWays,
        load: Load,
        /// Whether it is everybody's traffic, so that little of it is an idle line.
        everybody: bool,
    },
}

impl Busy {
    /// Whether load may be why something happens in a direction.
    const fn explains(self, direction: Option<Direction>) -> bool {
        match self {
            Self::Unknown => false,
            Self::Known { ways, .. } => ways.explain(direction),
        }
    }

    /// Whether it surely carried next to nothing.
    pub(crate) const fn is_idle(self) -> bool {
        match self {
            Self::Unknown => false,
            Self::Known {
                ways, everybody, ..
            } => everybody && !ways.any(),
        }
    }
}

/// So many RTTs tell what delay is like now.
const RECENT: usize = 16;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Queues {
    pub(crate) baseline: Baseline,
    spike: Sustained,
    bloat: Sustained,
    idle_ns: u32,
    load: Busy,
    /// The way that the last probe of a spike waited.
    way: Option<Direction>,
    rate_bps: (u64, u64),
    /// When delay last stood high for a moment, and after how long that is another one, ns.
    blip: Monotonic,
    apart_ns: u64,
    /// Whether delay varied when it was last looked at.
    jittery: bool,
    /// The spike that lasts and has not been told yet, and how high it is, ns.
    untold: Option<(Finding, u32)>,
    /// The latest RTTs that were not of a test, ns.
    recent: Recent<RECENT>,
}

impl Queues {
    pub(crate) const fn new(t: &Thresholds, interval_ns: u64) -> Self {
        // Three slots, or a second of a fast series.
        let gap_ns = if interval_ns > S {
            3 * interval_ns + S / 2
        } else {
            3 * S
        };
        Self {
            baseline: Baseline::new(),
            spike: Sustained::new(t.spike_for_ns, gap_ns),
            bloat: Sustained::new(BLOAT_FOR_NS, gap_ns),
            idle_ns: 0,
            load: Busy::Unknown,
            way: None,
            rate_bps: (0, 0),
            blip: Monotonic::ZERO,
            apart_ns: together_ns(interval_ns),
            jittery: false,
            untold: None,
            recent: Recent::new(),
        }
    }

    /// Other thresholds from now on.
    pub(crate) const fn set(&mut self, t: &Thresholds) {
        self.spike.set(t.spike_for_ns);
    }

    /// How much longer probes take than is normal, ns: those of a spike while it lasts, else the latest.
    pub(crate) fn excess_ns(&self) -> Option<u32> {
        if self.spike.is_active() {
            return self.spike.excess.median();
        }
        let (now, normal) = (self.recent.median()?, self.baseline.level_ns()?);
        Some(now.saturating_sub(normal))
    }

    /// Since when delay has been high without load.
    pub(crate) fn high_since(&self) -> Option<Monotonic> {
        self.spike.since().filter(|_| self.untold.is_none())
    }

    /// Whether delay is high because of load, so that its variation says nothing else.
    pub(crate) const fn is_loaded(&self) -> bool {
        self.bloat.is_active() || self.load.explains(None)
    }

    /// Begins anew on another path; whether a spike was being told.
    pub(crate) fn restart(&mut self) -> bool {
        self.baseline.restart();
        self.recent = Recent::new();
        self.spike.stop() && self.untold.take().is_none()
    }

    /// One answered probe, with what the line carried and the way that it waited. Where delay is `jittery`, single
    /// values far above normal are part of that,
    /// and only what is much higher is a spike.
    pub(crate) fn step(
        &mut self,
        probe: &Probe,
        (load, way): (Busy, Option<Direction>),
        jittery: bool,
        t: &Thresholds,
        periodic: &mut Periodic,
        told: &mut dyn FnMut(Result<Finding, (Kind, Monotonic)>),
    ) {
        let Some(rtt_ns) = probe.rtt_ns else { return };
        self.load = load;
        self.jittery = jittery;
        let at = probe.sent;
        let queues = probe.queue_up_ns.zip(probe.queue_down_ns);
        let loaded = probe.in_test || load.explains(way);
        if !probe.in_test {
            self.recent.add(rtt_ns);
        }
        let base = self.baseline.level_ns();
        let excess = base.map_or(0, |b| rtt_ns.saturating_sub(b));
        let high = base.is_some_and(|b| {
            let at_least_ns = if jittery {
                JITTERY * t.spike_ns
            } else {
                t.spike_ns
            };
            u64::from(excess) > at_least_ns && f64::from(rtt_ns) > t.spike_factor * f64::from(b)
        });
        let bloated = u64::from(excess) > t.bloat_ns;
        if !loaded {
            self.baseline
                .add(at, rtt_ns, high || bloated || self.spike.is_active());
        }
        if loaded && bloated {
            self.idle_ns = base.unwrap_or(0);
            if let Busy::Known { load, .. } = load {
                let (up, down) = self.rate_bps;
                self.rate_bps = (up.max(load.up_bps), down.max(load.down_bps));
            }
            let change = self.bloat.hit(at, excess, queues);
            self.tell_bloat(change, t, told);
        } else {
            let change = self.bloat.miss(at);
            self.tell_bloat(change, t, told);
        }
        if !loaded && high {
            let since_ns = at.saturating_since(self.blip);
            if since_ns > self.apart_ns {
                periodic.add(Cluster::spike(at, way));
            } else if since_ns > self.apart_ns / LULL {
                periodic.again(at);
            }
            self.blip = at;
            self.way = way;
            let change = self.spike.hit(at, excess, queues);
            self.tell_spike(change, t, told);
        } else if !loaded {
            let change = self.spike.miss(at);
            self.tell_spike(change, t, told);
        }
    }

    /// Once a second: ends what no probe shows any longer, and brings its figures up to date.
    pub(crate) fn each_second(
        &mut self,
        now: Monotonic,
        t: &Thresholds,
        told: &mut dyn FnMut(Result<Finding, (Kind, Monotonic)>),
    ) {
        let change = self.spike.quiet(now);
        self.tell_spike(change, t, told);
        let change = self.bloat.quiet(now);
        self.tell_bloat(change, t, told);
        if let Some(since) = self.spike.since() {
            let finding = self.spike_finding(since);
            if self.untold.is_none() {
                told(Ok(finding));
            } else {
                let excess_ns = self.spike.excess.median().unwrap_or(0);
                self.untold = Some((finding, excess_ns));
                let judged = now.saturating_since(since) >= JUDGED_NS;
                if judged && !self.tell_untold(t, told) {
                    self.spike.stop();
                }
            }
        }
        if let Some(since) = self.bloat.since() {
            told(Ok(self.bloat_finding(since, t)));
        }
    }

    fn tell_spike(
        &mut self,
        change: Option<Change>,
        t: &Thresholds,
        told: &mut dyn FnMut(Result<Finding, (Kind, Monotonic)>),
    ) {
        match change {
            Some(Change::Began(since)) => {
                let excess_ns = self.spike.excess.median().unwrap_or(0);
                self.untold = Some((self.spike_finding(since), excess_ns));
            }
            Some(Change::Ended(at)) if self.tell_untold(t, told) => {
                told(Err((Kind::LatencySpike, at)));
            }
            Some(Change::Ended(_)) | None => {}
        }
    }

    /// Tells what has begun, if it has not been told, and unless it only looks so because delay varies:
    /// whether it is told now.
    fn tell_untold(
        &mut self,
        t: &Thresholds,
        told: &mut dyn FnMut(Result<Finding, (Kind, Monotonic)>),
    ) -> bool {
        let Some((finding, excess_ns)) = self.untold.take() else {
            return true;
        };
        let varies = self.jittery && u64::from(excess_ns) <= JITTERY * t.spike_ns;
        if !varies {
            told(Ok(finding));
        }
        !varies
    }

    fn tell_bloat(
        &mut self,
        change: Option<Change>,
        t: &Thresholds,
        told: &mut dyn FnMut(Result<Finding, (Kind, Monotonic)>),
    ) {
        match change {
            Some(Change::Began(since)) => told(Ok(self.bloat_finding(since, t))),
            Some(Change::Ended(at)) => {
                self.rate_bps = (0, 0);
                told(Err((Kind::Bufferbloat, at)));
            }
            None => {}
        }
    }

    fn spike_finding(&self, since: Monotonic) -> Finding {
        let load = match self.load {
            load if load.explains(self.way) => "loaded",
            Busy::Known {
                everybody: true, ..
            } => "idle",
            Busy::Known { .. } | Busy::Unknown => "unknown",
        };
        Finding::new(Kind::LatencySpike, Severity::Warning, since)
            .direction(self.spike.direction())
            .number("baseline_ns", self.baseline.level_ns().unwrap_or(0).into())
            .number("excess_ns", self.spike.excess.median().unwrap_or(0).into())
            .number("peak_excess_ns", self.spike.peak_ns.into())
            .word("load", load)
    }

    fn bloat_finding(&self, since: Monotonic, t: &Thresholds) -> Finding {
        let increase_ns = u64::from(self.bloat.excess.median().unwrap_or(0));
        let severity = if increase_ns > t.bloat_critical_ns {
            Severity::Critical
        } else {
            Severity::Warning
        };
        let direction = self.bloat.direction();
        let rate_bps = match direction {
            Some(Direction::Down) => self.rate_bps.1,
            Some(Direction::Up) => self.rate_bps.0,
            _ => self.rate_bps.0.max(self.rate_bps.1),
        };
        let bytes = u128::from(increase_ns) * u128::from(rate_bps) / 8_000_000_000;
        Finding::new(Kind::Bufferbloat, severity, since)
            .direction(direction)
            .number("idle_ns", self.idle_ns.into())
            .number("loaded_ns", u64::from(self.idle_ns) + increase_ns)
            .number("queue_ns", increase_ns)
            .number("queue_bytes", bytes as u64)
            .number("rate_bps", rate_bps)
            .word("grade", grade(increase_ns))
    }
}

/// The grade of an increase of latency under load, as DSLReports gives it.
const fn grade(increase_ns: u64) -> &'static str {
    match increase_ns / 1_000_000 {
        0..5 => "A+",
        5..30 => "A",
        30..60 => "B",
        60..200 => "C",
        200..400 => "D",
        _ => "F",
    }
}
