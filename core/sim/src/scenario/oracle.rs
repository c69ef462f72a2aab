//! What could be known at best of when scattered loss began and ended: by somebody who has the whole series before
//! them, and knows both rates and about when it was.
//!
//! A loss by chance right before it, or none for long after its begin, deceives this one too, so it says how many edges
//! may be off.

use bufferbane_core::detect::SeriesSet;

use super::line::Run;
use super::spec::{Effect, What};
use crate::S;

/// What is looked at before and after, ns.
pub(super) const AROUND_NS: u64 = 120 * S;

/// Begin and end of the `event`th expected event by what `series` lost, ns; `None` where it is no scattered loss.
pub(super) fn edges(run: &Run, event: usize, series: SeriesSet) -> Option<(u64, u64)> {
    let of_it = |e: &&Effect| e.makes == Some(event);
    let effect = run.scenario.effects.iter().find(of_it)?;
    let What::Loss { up, down } = effect.what else {
        return None;
    };
    let (usual, then) = (
        run.scenario.background_loss.max(1e-6),
        1.0 - (1.0 - up) * (1.0 - down),
    );
    // How much each probe speaks for the higher rate.
    let (if_lost, if_answered) = ((then / usual).ln(), ((1.0 - then) / (1.0 - usual)).ln());
    let (from, to) = (effect.from_ns - AROUND_NS, effect.to_ns + AROUND_NS);
    let middle = effect.from_ns.midpoint(effect.to_ns);
    let (mut sum, mut least, mut most) = (0.0, f64::MAX, f64::MIN);
    let (mut begin, mut end, mut last_lost) = (None, None, None);
    for loss in &run.history {
        let (at, lost) = (loss.at_ns, loss.lost);
        if !(from..to).contains(&at) || !series.contains(loss.series) {
            continue;
        }
        if at < middle && sum < least {
            (least, begin) = (sum, None);
        }
        if lost {
            begin = begin.or(Some(at));
            last_lost = Some(at);
        }
        sum += if lost { if_lost } else { if_answered };
        if at >= middle && sum > most {
            (most, end) = (sum, last_lost);
        }
    }
    begin.zip(end)
}
