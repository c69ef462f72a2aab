//! One line (interface) under watch: what all of its series show together, and its load.

use heapless::Deque;

use super::cable::CableWatch;
use super::capacity::CapacityWatch;
use super::compare::Told;
use super::event::Direction;
use super::input::{Capacity, Load, LoadedWays, Probe, Thresholds};
use super::outage::{Near, Outages};
use super::queue::Busy;
use super::scale::Scales;
use crate::household::{Second, shared};
use crate::own_tests::OwnTests;
use crate::time::Monotonic;

const S: u64 = 1_000_000_000;
/// Seconds of load that are remembered: longer than samples are held.
const LOADS: usize = 24;
/// A load figure counts for probes of the two seconds before it and the one after, ns.
const BEFORE_NS: u64 = 2 * S;
const AFTER_NS: u64 = S;

/// A queue before the line that is as recent says which way another probe waits, ns.
const QUEUE_NS: u64 = 2 * S;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct LineWatch {
    pub(crate) outages: Outages,
    pub(crate) near: Near,
    pub(crate) told: Told,
    /// Whether delay varies on it, as any of its series shows.
    pub(crate) jittery: bool,
    pub(crate) up: CapacityWatch,
    pub(crate) down: CapacityWatch,
    pub(crate) up_trains: CapacityWatch,
    pub(crate) down_trains: CapacityWatch,
    pub(crate) cable: CableWatch,
    pub(crate) loads: Deque<(Monotonic, Load), LOADS>,
    /// Whether that is everybody's traffic.
    everybody: bool,
    /// When a queue was last seen by who knows directions, and which way it stood.
    queue: Option<(Monotonic, Direction)>,
    pub(crate) tests: OwnTests,
    /// What is much for it.
    pub(crate) scales: Scales,
}

impl LineWatch {
    pub(crate) fn new() -> Self {
        Self {
            outages: Outages::new(),
            near: Near::new(),
            told: Told::none(),
            jittery: false,
            up: CapacityWatch::new(),
            down: CapacityWatch::new(),
            cable: CableWatch::new(),
            up_trains: CapacityWatch::of_trains(),
            down_trains: CapacityWatch::of_trains(),
            loads: Deque::new(),
            everybody: false,
            queue: None,
            tests: OwnTests::new(),
            scales: Scales::new(),
        }
    }

    /// See [`super::Watch::handle_load`].
    pub(crate) fn load(&mut self, at: Monotonic, load: Load, everybody: bool) -> LoadedWays {
        let Load { up_bps, down_bps } = load;
        self.everybody = everybody;
        let ways = self.scales.add(&Second {
            at,
            up_bps,
            down_bps,
        });
        if ways.any() || everybody {
            if self.loads.is_full() {
                self.loads.pop_front();
            }
            let _ = self.loads.push_back((at, load));
        }
        ways
    }

    /// The way that a probe of a far target waited, to be asked in the order of time: its own, where that is known,
    /// else that of a queue that others have just seen.
    pub(crate) fn way(&mut self, probe: &Probe, t: &Thresholds) -> Option<Direction> {
        let Some(own) = probe.way() else {
            let (seen, way) = self.queue?;
            return (probe.sent.saturating_since(seen) <= QUEUE_NS).then_some(way);
        };
        let (up, down) = probe.queue_up_ns.zip(probe.queue_down_ns)?;
        if u64::from(up) + u64::from(down) > t.spike_ns {
            self.queue = Some((probe.sent, own));
        }
        Some(own)
    }

    /// What it carried when a probe was sent at `at`.
    pub(crate) fn busy(&self, at: Monotonic) -> Busy {
        let (from, to) = (at.saturating_sub(AFTER_NS), at.saturating_add(BEFORE_NS));
        let mut most: Option<Load> = None;
        for (_, l) in self.loads.iter().filter(|(t, _)| (from..=to).contains(t)) {
            let m = most.get_or_insert(*l);
            m.up_bps = m.up_bps.max(l.up_bps);
            m.down_bps = m.down_bps.max(l.down_bps);
        }
        let Some(load) = most else {
            return Busy::Unknown;
        };
        let ways = self.scales.loaded(load.up_bps, load.down_bps);
        Busy::Known {
            ways,
            load,
            everybody: self.everybody,
        }
    }

    /// A measured capacity: what it says of its direction. `local_ns` counts from a local midnight.
    pub(crate) fn capacity(
        &mut self,
        local_ns: Option<u64>,
        c: &Capacity,
        t: &Thresholds,
    ) -> Option<Result<super::event::Finding, (super::event::Kind, Monotonic)>> {
        self.measured(c);
        let other = Capacity { up: !c.up, ..*c };
        let other = self.capacity_watch(&other).figures(c.at, local_ns);
        let told = self.capacity_watch(c).step(c, local_ns, t)?;
        Some(told.map(|mut f| {
            let (bps, base_bps) = other.unzip();
            for (name, bps) in [
                ("other_bps", bps),
                ("other_baseline_bps", base_bps.flatten()),
            ] {
                if let Some(bps) = bps {
                    f = f.number(name, bps);
                }
            }
            f
        }))
    }

    /// A measured capacity of before: see [`CapacityWatch::learn`].
    pub(crate) fn past_capacity(&mut self, local_ns: Option<u64>, c: &Capacity, t: &Thresholds) {
        self.measured(c);
        self.capacity_watch(c).learn(c, local_ns, t);
    }

    /// There are no more of them.
    pub(crate) fn end_past(&mut self) {
        let Self {
            up,
            down,
            up_trains,
            down_trains,
            ..
        } = self;
        for watch in [up, down, up_trains, down_trains] {
            watch.end_past();
        }
    }

    /// What is much for it goes by what it can in the long run, not by what passes in a train, nor by what others leave
    /// of it.
    const fn measured(&mut self, c: &Capacity) {
        if !c.by_train && !shared(c.others_bps, c.rate_bps) {
            self.scales.measured(c.up, c.rate_bps);
        }
    }

    const fn capacity_watch(&mut self, c: &Capacity) -> &mut CapacityWatch {
        match (c.up, c.by_train) {
            (true, false) => &mut self.up,
            (false, false) => &mut self.down,
            (true, true) => &mut self.up_trains,
            (false, true) => &mut self.down_trains,
        }
    }
}
