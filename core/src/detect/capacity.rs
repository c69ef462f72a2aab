//! `upload_degraded` and `download_degraded`: the line carries less than it did.

use super::baseline::median;
use super::event::{Direction, Finding, Kind, Severity};
use super::input::Thresholds;
use crate::time::Monotonic;

const KEPT: usize = 32;
/// So many measurements make a baseline.
const ENOUGH: usize = 4;

/// One direction of a line. Rates are kept in kbit/s.
#[derive(Clone, Debug)]
pub(crate) struct CapacityWatch {
    good: [u32; KEPT],
    next: usize,
    len: usize,
    low: Option<(Monotonic, Monotonic)>,
    lowest: u32,
    told: bool,
}

impl CapacityWatch {
    pub(crate) const fn new() -> Self {
        Self {
            good: [0; KEPT],
            next: 0,
            len: 0,
            low: None,
            lowest: u32::MAX,
            told: false,
        }
    }

    /// One measurement; `other_bps` is the baseline of the other direction.
    pub(crate) fn step(
        &mut self,
        at: Monotonic,
        up: bool,
        rate_bps: u64,
        t: &Thresholds,
    ) -> Option<Result<Finding, (Kind, Monotonic)>> {
        let kind = if up {
            Kind::UploadDegraded
        } else {
            Kind::DownloadDegraded
        };
        let rate = u32::try_from(rate_bps / 1000).unwrap_or(u32::MAX);
        let base = median(&self.good[..self.len]).filter(|_| self.len >= ENOUGH);
        let share = base.map_or(1.0, |b| f64::from(rate) / f64::from(b.max(1)));
        if share >= t.capacity {
            self.good[self.next] = rate;
            self.next = (self.next + 1) % KEPT;
            self.len = (self.len + 1).min(KEPT);
            let (_, last) = self.low.take()?;
            self.lowest = u32::MAX;
            return core::mem::take(&mut self.told).then_some(Err((kind, last)));
        }
        let first = self.low.map_or(at, |(first, _)| first);
        self.low = Some((first, at));
        self.lowest = self.lowest.min(rate);
        if at.saturating_since(first) < t.capacity_for_ns {
            return None;
        }
        self.told = true;
        let severity = if share < t.capacity_critical {
            Severity::Critical
        } else {
            Severity::Warning
        };
        Some(Ok(Finding::new(kind, severity, first)
            .direction(Some(if up { Direction::Up } else { Direction::Down }))
            .number("measured_bps", u64::from(rate) * 1000)
            .number("lowest_bps", u64::from(self.lowest) * 1000)
            .number("baseline_bps", u64::from(base.unwrap_or(0)) * 1000)))
    }
}
