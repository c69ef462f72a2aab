//! One series under watch: its detectors, and what they find.

use super::compare::Trouble;
use super::edge::Edge;
use super::event::{Direction, Finding, Kind};
use super::input::{PastHour, Probe, Role, SeriesFacts, Thresholds};
use super::jitter::Jitter;
use super::ledger::Ledger;
use super::losses::Losses;
use super::mixed::Mixed;
use super::outage::Outages;
use super::peak::Peak;
use super::periodic::Periodic;
use super::queue::{Busy, Queues};
use super::route::Routes;
use super::settle::Settle;
use crate::time::Monotonic;

/// A gateway with a larger floor is not near, ns.
const NEAR_NS: u32 = 2_000_000;
/// Jitter that was seen this much after a comparison began still lasts, ns.
const RECENT_NS: u64 = 30_000_000_000;
/// So many answers tell a floor.
const FLOOR_OF: u32 = 20;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    facts: SeriesFacts,
    pub(crate) settle: Settle,
    pub(crate) losses: Losses,
    mixed: Mixed,
    queues: Queues,
    jitter: Jitter,
    periodic: Periodic,
    routes: Routes,
    peak: Peak,
    floor_ns: u32,
    answers: u32,
    well_since: Monotonic,
    /// When each trouble was last over.
    ended: [Edge; 3],
    dead_before: bool,
}

impl Watched {
    pub(crate) fn new(facts: SeriesFacts, t: &Thresholds, now: Monotonic) -> Self {
        Self {
            facts,
            settle: Settle::new(),
            losses: Losses::new(t, facts.interval_ns),
            mixed: Mixed::default(),
            queues: Queues::new(t, facts.interval_ns),
            jitter: Jitter::new(t, facts.interval_ns),
            periodic: Periodic::new(facts.interval_ns),
            routes: Routes::new(),
            peak: Peak::new(),
            floor_ns: u32::MAX,
            answers: 0,
            well_since: now,
            ended: [now.into(); 3],
            dead_before: false,
        }
    }

    /// Other thresholds from now on.
    pub(crate) const fn set(&mut self, t: &Thresholds) {
        self.losses.set(t);
        self.queues.set(t);
        self.jitter.set(t);
    }

    /// It answered in an earlier run.
    pub(crate) const fn recall(&mut self) {
        self.losses.recall();
    }

    /// So was an hour of an earlier run.
    pub(crate) fn recall_hour(&mut self, hour: &PastHour) {
        self.peak.recall(hour);
    }

    pub(crate) const fn facts(&self) -> &SeriesFacts {
        &self.facts
    }

    pub(crate) const fn line(&self) -> u8 {
        self.facts.line
    }

    /// Whether it goes beyond the access line, or to its far end.
    pub(crate) const fn is_far(&self) -> bool {
        match self.facts.role {
            Role::Far => true,
            Role::Modem => false,
            Role::Gateway { private: false } => true,
            Role::Gateway { private: true } | Role::House => {
                self.answers >= FLOOR_OF && self.floor_ns >= NEAR_NS
            }
        }
    }

    /// Whether it is a host in the house that nothing else is reached through.
    pub(crate) fn is_in_house(&self) -> bool {
        self.facts.role == Role::House && !self.is_far()
    }

    /// It is known by now to stand for something else.
    pub(crate) const fn set_role(&mut self, role: Role) {
        self.facts.role = role;
    }

    /// Since when nothing has been wrong with it.
    pub(crate) const fn well_since(&self) -> Monotonic {
        self.well_since
    }

    pub(crate) fn trouble_since(&self, trouble: Trouble) -> Option<Edge> {
        match trouble {
            Trouble::Dead => self.losses.dead_since().map(Edge::from),
            Trouble::Loss => self.losses.rate.since(),
            Trouble::Slow => {
                let grain_ns = self.facts.interval_ns;
                let high = self.queues.high_since().map(|at| Edge { at, grain_ns });
                match (high, self.jitter.since()) {
                    (Some(a), Some(b)) => Some(a.earlier(b)),
                    (a, b) => a.or(b),
                }
            }
        }
    }

    /// Whether the trouble was seen since `long`, where it is known to be over only much later.
    pub(crate) fn is_current(&self, trouble: Trouble, long: Monotonic) -> bool {
        trouble != Trouble::Slow
            || self.queues.high_since().is_some()
            || self.jitter.last_hit() > Some(long.saturating_add(RECENT_NS))
    }

    pub(crate) const fn trouble_ended(&self, trouble: Trouble) -> Edge {
        self.ended[trouble as usize]
    }

    /// Whether its own probes vanish from some size on, and smaller ones do not.
    pub(crate) fn loses_only_large(&self) -> bool {
        self.facts.size == 0 && self.mixed.only_large_are_lost()
    }

    /// Whether its delay varies without standing high.
    pub(crate) fn is_jittery(&self) -> bool {
        self.jitter.since().is_some() && self.queues.high_since().is_none()
    }

    /// How much longer its probes take than is normal, ns.
    pub(crate) fn excess_ns(&self) -> Option<u32> {
        self.queues.excess_ns()
    }

    /// The share of losses, or of large differences of delay, over the last `seconds`.
    pub(crate) fn rate(
        &mut self,
        trouble: Trouble,
        now: Monotonic,
        seconds: u64,
    ) -> super::chance::Rate {
        match trouble {
            Trouble::Slow => self.jitter.rate(now, seconds),
            Trouble::Dead | Trouble::Loss => self.losses.rate.last(now, seconds),
        }
    }

    /// One settled probe, with what the line carried, the way that it waited, and whether delay varies on the line.
    /// `local_ns` counts from a local midnight, where the time is known.
    pub(crate) fn step(
        &mut self,
        me: u8,
        probe: &Probe,
        (busy, way, jittery): (Busy, Option<Direction>, bool),
        local_ns: Option<u64>,
        t: &Thresholds,
        ledger: &mut Ledger,
    ) {
        let line = self.facts.line;
        if !probe.in_test {
            self.losses.step(probe);
            self.mixed.step(probe);
            let dead = self.losses.dead_since().is_some();
            if core::mem::replace(&mut self.dead_before, dead) && !dead {
                self.ended[Trouble::Dead as usize] = probe.sent.into();
            }
        }
        let (ended, grain_ns) = (&mut self.ended, self.facts.interval_ns);
        let mut tell = |told| tell_delay(ledger, (line, me), grain_ns, told, ended);
        if probe.in_test {
            let p = &mut self.periodic;
            self.queues.step(probe, (busy, way), false, t, p, &mut tell);
            return;
        }
        let Some(rtt_ns) = probe.rtt_ns.filter(|_| probe.answered()) else {
            return;
        };
        self.answers = self.answers.saturating_add(1);
        self.floor_ns = self.floor_ns.min(rtt_ns);
        let normal_ns = self.queues.baseline.level_ns();
        if let Some(change) = self.routes.step(probe, normal_ns) {
            let at = change.start;
            // Delay is another one on another path: that is not a spike.
            if self.queues.restart() {
                tell(Err((Kind::LatencySpike, at)));
            }
            ledger.happened(line, me, change, at);
            return;
        }
        let p = &mut self.periodic;
        self.queues
            .step(probe, (busy, way), jittery, t, p, &mut tell);
        let loaded = self.queues.is_loaded();
        self.jitter.step(probe, loaded, t);
        if let Some(local_ns) = local_ns
            && !loaded
        {
            let queues = probe.queue_up_ns.zip(probe.queue_down_ns);
            self.peak.step(local_ns, rtt_ns, queues, busy.is_idle());
        }
    }

    /// Probing ends: what waits is judged by what was seen. Whether there is more to tell than there is room for.
    pub(crate) fn finish(
        &mut self,
        me: u8,
        now: Monotonic,
        outages: &Outages,
        t: &Thresholds,
        ledger: &mut Ledger,
    ) -> bool {
        while let Some((burst, end)) = self.losses.settle_all(now, outages, t, &mut self.periodic) {
            ledger.happened(self.facts.line, me, burst, end);
            if !ledger.has_room() {
                return true;
            }
        }
        false
    }

    /// Once a second, when everything up to `now` has been seen.
    pub(crate) fn each_second(
        &mut self,
        me: u8,
        now: Monotonic,
        local_ns: Option<u64>,
        outages: &Outages,
        t: &Thresholds,
        ledger: &mut Ledger,
    ) {
        let line = self.facts.line;
        while let Some((burst, end)) = self.losses.settle(now, outages, t, &mut self.periodic) {
            ledger.happened(line, me, burst, end);
        }
        let before = Trouble::ALL.map(|t| self.trouble_since(t));
        let beside = ledger.edges(line, Kind::PacketLoss);
        if let Some((told, end)) = self.losses.each_second(now, beside) {
            ledger.raise(line, me, told);
            if let Some(end) = end {
                self.ended[Trouble::Loss as usize] = end;
                ledger.clear(line, me, Kind::PacketLoss, end);
            }
        }
        let beside = ledger.edges(line, Kind::HighJitter);
        if let Some(told) = self.jitter.each_second(now, beside, t) {
            if let Err(end) = told {
                self.ended[Trouble::Slow as usize] = end;
            }
            tell(ledger, line, me, Kind::HighJitter, told);
        }
        if let Some(told) = self.periodic.each_second(now) {
            tell(ledger, line, me, Kind::PeriodicLoss, told);
        }
        if let Some(local_ns) = local_ns
            && let Some(told) = self.peak.each_second(now, local_ns, t)
        {
            tell(ledger, line, me, Kind::PeakHourCongestion, told);
        }
        let (ended, grain_ns) = (&mut self.ended, self.facts.interval_ns);
        self.queues.each_second(now, t, &mut |told| {
            tell_delay(ledger, (line, me), grain_ns, told, ended);
        });
        let troubled = before.iter().any(Option::is_some)
            || Trouble::ALL
                .iter()
                .any(|t| self.trouble_since(*t).is_some());
        if troubled || !self.losses.is_alive() {
            self.well_since = now;
        }
    }
}

/// What stands high shows in each probe: its edges are known to one.
fn tell_delay(
    ledger: &mut Ledger,
    (line, me): (u8, u8),
    grain_ns: u64,
    told: Result<Finding, (Kind, Monotonic)>,
    ended: &mut [Edge; 3],
) {
    match told {
        Ok(f) => ledger.raise(line, me, f.grain(grain_ns)),
        Err((kind, at)) => {
            let end = Edge { at, grain_ns };
            if kind == Kind::LatencySpike {
                ended[Trouble::Slow as usize] = end;
            }
            ledger.clear(line, me, kind, end);
        }
    }
}

fn tell<E: Into<Edge>>(
    ledger: &mut Ledger,
    line: u8,
    me: u8,
    kind: Kind,
    told: Result<Finding, E>,
) {
    match told {
        Ok(f) => ledger.raise(line, me, f),
        Err(end) => ledger.clear(line, me, kind, end),
    }
}
