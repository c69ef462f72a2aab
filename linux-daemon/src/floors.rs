//! The floor of each series' delays, learned from its samples as they are recorded: what queueing
//! delay per direction is above.

use std::collections::HashMap;

use bufferbane_core::clock::{Change, FloorEstimator, Queueing, Update};
use bufferbane_core::sample::{Sample, SeriesIndex};
use bufferbane_core::time::Monotonic;
use bufferbane_store::SeriesInfo;

/// Changes of one reflector that several streams see within this are one, ns; slow streams see it as
/// much later as they are slow.
const SAME_NS: u64 = 10_000_000_000;

/// What one sample taught.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    /// For the store, in this order.
    pub(crate) updates: Vec<Update>,
    /// Worth telling.
    pub(crate) changes: Vec<Change>,
    /// Queueing delay of the sample.
    pub(crate) queueing: Option<Queueing>,
}

/// An estimator for each series whose far end tells when packets came and went.
#[derive(Debug, Default)]
pub(crate) struct Floors {
    estimators: HashMap<SeriesIndex, Box<FloorEstimator>>,
    /// When the clock of a reflector, by interface and name, was last seen to be set.
    steps: HashMap<(String, String), Monotonic>,
}

impl Floors {
    /// A sample that is recorded.
    pub(crate) fn learn(&mut self, info: &SeriesInfo, sample: &Sample) -> Learned {
        let known = self.estimators.get_mut(&sample.series);
        let estimator = match known {
            Some(e) => e,
            None if sample.raw_up_ns.is_some() => self.estimators.entry(sample.series).or_default(),
            None => return Learned::default(),
        };
        estimator.on_sample(sample);
        let mut learned = Learned {
            queueing: estimator.queueing(sample),
            ..Learned::default()
        };
        learned
            .updates
            .extend(std::iter::from_fn(|| estimator.poll_update()));
        while let Some(change) = estimator.poll_change() {
            if let Change::ClockStep { at, .. } = change {
                let key = (info.interface.clone(), info.target.clone());
                let same_ns = SAME_NS.max(info.interval_ns.saturating_mul(3));
                let before = self.steps.insert(key, at);
                if before.is_some_and(|b| at.signed_since(b).unsigned_abs() <= same_ns) {
                    continue;
                }
            }
            learned.changes.push(change);
        }
        learned
    }

    /// The series is no longer probed, or another gets its index.
    pub(crate) fn forget(&mut self, series: SeriesIndex) {
        self.estimators.remove(&series);
    }
}
