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
    let between = if track.single { slack } else { 0 };
    let mut blanks: Vec<(i64, i64, Blank)> = Vec::new();
    // `near`: what follows the last one within so much, with no answer between, goes on with it.
    let mut put = |from: i64, to: i64, what: Blank, near: u64| match blanks.last_mut() {
        Some(last) if last.2 == what && last.1.saturating_add_unsigned(near) >= from => {
            last.1 = last.1.max(to);
        }
        _ => blanks.push((from, to, what)),
    };
    let mut end = range.from_ns;
    let mut is_silent = false;
    for c in columns {
        if c.from_ns > end.saturating_add_unsigned(between) {
            put(end, c.from_ns, Blank::Unmeasured, 0);
            is_silent = false;
        }
        if !c.is_measured() {
            put(c.from_ns, c.to_ns, Blank::Unmeasured, 0);
        } else if c.rtt.is_none() {
            let near = if is_silent { between } else { 0 };
            put(c.from_ns, c.to_ns, Blank::Silent, near);
        }
        is_silent = c.is_measured() && c.rtt.is_none();
        end = end.max(c.to_ns);
    }
    if range.to_ns > end.saturating_add_unsigned(slack) {
        put(end, range.to_ns, Blank::Unmeasured, 0);
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

#[cfg(test)]
mod tests {
    use bufferbane_core::stats::summary::Summary;
    use bufferbane_store::{SeriesInfo, SeriesKind};

    use super::super::data::Levels;
    use super::*;

    const S: i64 = 1_000_000_000;

    /// A probe a second that leaves within its slot, answered or not.
    fn probe(slot: i64, within_ns: i64, answered: bool) -> Column {
        let from_ns = slot * S + within_ns;
        Column {
            from_ns,
            to_ns: from_ns + S,
            sent: 1,
            lost: [0, 0, u64::from(!answered)],
            rtt: answered.then(Levels::default),
            ..Column::default()
        }
    }

    #[test]
    fn an_outage_of_single_probes_is_one_stretch_and_an_answer_ends_it() {
        let track = Track {
            info: SeriesInfo {
                interface: "eth0".into(),
                interface_kind: "wired".into(),
                target: "isp".into(),
                kind: SeriesKind::Icmp,
                family: 4,
                dscp: 0,
                size: 64,
                interval_ns: S.unsigned_abs(),
                address: "192.0.2.1".into(),
            },
            fine: Vec::new(),
            single: true,
            coarse: Vec::new(),
            whole: Summary::new(),
            cells: Vec::new(),
            cell_ns: 0,
        };
        let columns = [
            probe(0, 0, true),
            probe(1, 0, false),
            // Half a slot after the end of the one before.
            probe(2, 500_000_000, false),
            probe(3, 0, false),
            probe(4, 0, true),
            probe(5, 0, false),
            probe(6, 0, true),
        ];
        let range = Range {
            from_ns: 0,
            to_ns: 7 * S,
            begin_typed: true,
        };
        let found = blanks(range, &track, &columns);
        let silent = |from: i64, to: i64| (from, to, Blank::Silent);
        assert_eq!(found, [silent(S, 4 * S), silent(5 * S, 6 * S)]);
    }
}
