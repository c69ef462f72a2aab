//! `route_change`: packets take another number of hops than they did for long.

use super::baseline::Sketch;
use super::event::{Direction, Finding, Kind, Severity};
use super::input::Probe;
use crate::time::Monotonic;

/// So many in a row make a new path.
const ENOUGH: u16 = 5;
/// So many in a row made the old one worth the name.
const ESTABLISHED: u32 = 60;
/// So many RTTs after the change have a median that tells the step.
const AFTER: usize = 4;

#[derive(Clone, Debug)]
struct Way {
    now: Option<u8>,
    for_probes: u32,
    established: bool,
    candidate: u8,
    since: Monotonic,
    times: u16,
}

impl Way {
    const fn new() -> Self {
        Self {
            now: None,
            for_probes: 0,
            established: false,
            candidate: 0,
            since: Monotonic::ZERO,
            times: 0,
        }
    }

    /// The TTL before, where this one confirms that it has changed.
    fn step(&mut self, at: Monotonic, ttl: u8) -> Option<u8> {
        let now = *self.now.get_or_insert(ttl);
        if ttl == now {
            self.for_probes = self.for_probes.saturating_add(1);
            self.times = 0;
            return None;
        }
        if self.times == 0 || self.candidate != ttl {
            (self.candidate, self.since, self.times) = (ttl, at, 0);
            // Load balancing that mixes two paths never establishes one.
            self.established = self.for_probes >= ESTABLISHED;
            self.for_probes = 0;
        }
        self.times += 1;
        if self.times < ENOUGH {
            return None;
        }
        let established = core::mem::take(&mut self.established);
        self.now = Some(ttl);
        self.for_probes = self.times.into();
        self.times = 0;
        established.then_some(now)
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Routes {
    up: Way,
    down: Way,
    after: Sketch,
}

impl Routes {
    pub(crate) const fn new() -> Self {
        Self {
            up: Way::new(),
            down: Way::new(),
            after: Sketch::new(),
        }
    }

    /// One answered probe; `normal_ns` is the RTT of the path so far.
    pub(crate) fn step(&mut self, probe: &Probe, normal_ns: Option<u32>) -> Option<Finding> {
        if self.up.times == 0 && self.down.times == 0 && self.after.len() > 0 {
            self.after = Sketch::new();
        }
        let up = probe.ttl_up.and_then(|t| self.up.step(probe.sent, t));
        let down = probe.ttl_down.and_then(|t| self.down.step(probe.sent, t));
        if self.up.times > 0 || self.down.times > 0 || up.is_some() || down.is_some() {
            self.after.add(probe.rtt_ns.unwrap_or(0));
        }
        let (way, before, ttl, since) = match (up, down) {
            (Some(b), None) => (Direction::Up, b, probe.ttl_up, self.up.since),
            (None, Some(b)) => (Direction::Down, b, probe.ttl_down, self.down.since),
            (Some(_), Some(b)) => (Direction::Both, b, probe.ttl_down, self.down.since),
            (None, None) => return None,
        };
        let mut f = Finding::new(Kind::RouteChange, Severity::Info, since)
            .direction(Some(way))
            .number("ttl_before", before.into())
            .number("ttl_after", ttl.unwrap_or(0).into());
        let after = self.after.median().filter(|_| self.after.len() >= AFTER);
        if let (Some(a), Some(b)) = (after, normal_ns) {
            f = f
                .number("rtt_before_ns", b.into())
                .number("rtt_after_ns", a.into());
        }
        Some(f)
    }
}
