//! Stretches of a chart without a curve: where nothing was recorded, and where nothing answered.

use super::data::{Column, Track};
use super::frame::Swatch;
use super::theme::Theme;
use crate::when::Range;

/// Why a stretch has no curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blank {
    /// Nothing was recorded.
    Unmeasured = 0,
    /// Probes were tried, and none was answered.
    Silent = 1,
}

/// The stretches without answers, and those without samples.
pub(super) fn blanks(range: Range, track: &Track, columns: &[Column]) -> Vec<(i64, i64, Blank)> {
    // A probe leaves at a random time within its slot, so two may be nearly two slots apart.
    let slack = track.info.interval_ns.saturating_mul(3);
    let mut blanks: Vec<(i64, i64, Blank)> = Vec::new();
    let mut put = |from: i64, to: i64, what: Blank| match blanks.last_mut() {
        Some(last) if last.2 == what && last.1 >= from => last.1 = to,
        _ => blanks.push((from, to, what)),
    };
    let mut end = range.from_ns;
    for c in columns {
        if c.from_ns > end.saturating_add_unsigned(if track.single { slack } else { 0 }) {
            put(end, c.from_ns, Blank::Unmeasured);
        }
        if !c.is_measured() {
            put(c.from_ns, c.to_ns, Blank::Unmeasured);
        } else if c.rtt.is_none() {
            put(c.from_ns, c.to_ns, Blank::Silent);
        }
        end = end.max(c.to_ns);
    }
    if range.to_ns > end.saturating_add_unsigned(slack) {
        put(end, range.to_ns, Blank::Unmeasured);
    }
    blanks
}

/// The stretches of columns that a curve may be drawn through: broken wherever a column has no
/// answer, and wherever columns are not next to each other.
pub(super) fn unbroken<'a>(
    track: &Track,
    columns: &'a [Column],
    has_value: fn(&Column) -> bool,
) -> Vec<&'a [Column]> {
    let slack = if track.single {
        track.info.interval_ns.saturating_mul(3)
    } else {
        0
    };
    let joined = |a: &Column, b: &Column| {
        has_value(a) && has_value(b) && b.from_ns <= a.to_ns.saturating_add_unsigned(slack)
    };
    columns
        .chunk_by(joined)
        .filter(|run| has_value(&run[0]))
        .collect()
}

/// Which kinds of blanks occur anywhere.
pub(super) fn kinds(
    tracks: &[Track],
    range: Range,
    columns: fn(&Track) -> &Vec<Column>,
) -> [bool; 2] {
    let mut found = [false; 2];
    for t in tracks {
        for (_, _, what) in blanks(range, t, columns(t)) {
            found[what as usize] = true;
        }
    }
    found
}

/// Adds what blanks look like.
pub(super) fn legend(found: [bool; 2], theme: Theme, legend: &mut Vec<(Swatch, &'static str)>) {
    if found[Blank::Silent as usize] {
        legend.push((Swatch::Box(theme.silent), "no answer"));
    }
    if found[Blank::Unmeasured as usize] {
        legend.push((Swatch::Box(theme.unmeasured), "not measured"));
    }
}
