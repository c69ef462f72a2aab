//! The probes of a test: what became of each, and what their round trips say meanwhile.

use bufferbane_core::load::latency::{Spread, back_after};
use bufferbane_core::sample::{Sample, Status};
use bufferbane_core::time::{ClockSource, Monotonic};

/// Latency is back when the round trip is no more than this above its idle 90th percentile, ns.
const BACK_ABOVE_NS: u64 = 5_000_000;
/// And has been for this long, ns.
const BACK_FOR_NS: u64 = 200_000_000;

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
    /// Whether nothing more will become known, but perhaps the direction of a loss.
    const fn is_over(&self) -> bool {
        self.status.is_some() || self.handed_ns == 0
    }

    pub(super) fn is_lost(&self) -> bool {
        self.status.is_some_and(Status::is_lost)
    }

    fn take(&mut self, s: &Sample) {
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

/// All of them, by number.
#[derive(Debug, Default)]
pub(super) struct Probes(Vec<Probe>);

impl Probes {
    /// Probe `number` is handed to the kernel.
    pub(super) fn handed(&mut self, number: u64, now: Monotonic) {
        self.0.resize_with(number as usize + 1, Probe::default);
        self.0[number as usize].handed_ns = now.as_nanos();
    }

    /// This became of one of them.
    pub(super) fn take(&mut self, s: &Sample) {
        if let Some(probe) = self.0.get_mut(s.seq as usize) {
            probe.take(s);
        }
    }

    pub(super) fn as_slice(&self) -> &[Probe] {
        &self.0
    }

    /// The latest round-trip time, ns.
    pub(super) fn latest_rtt_ns(&self) -> Option<u64> {
        self.0.iter().rev().find_map(|p| p.rtt)
    }

    /// Round-trip times of the answered ones that were sent in a stretch, ns.
    pub(super) fn rtts(&self, from: Monotonic, to: Monotonic) -> Vec<u64> {
        let (from, to) = (from.as_nanos(), to.as_nanos());
        self.0
            .iter()
            .filter(|p| (from..to).contains(&p.handed_ns))
            .filter_map(|p| p.rtt)
            .collect()
    }

    /// How long after the end of the load the round trip was back at what it was `idle`, ns.
    pub(super) fn back_after(&self, end: Monotonic, idle: Spread) -> Option<u64> {
        let samples = self.0.iter().filter_map(|p| Some((p.handed_ns, p.rtt?)));
        let threshold_ns = idle.p90.saturating_add(BACK_ABOVE_NS);
        back_after(samples, end.as_nanos(), threshold_ns, BACK_FOR_NS)
    }

    /// Whether it is known what became of each that was sent before `end_ns`.
    pub(super) fn are_over(&self, end_ns: u64) -> bool {
        let mut before = self.0.iter().filter(|p| p.handed_ns < end_ns);
        before.all(Probe::is_over)
    }
}
