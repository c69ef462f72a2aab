//! Whether a test found so little that another one is to say at once whether that is so.

use bufferbane_core::household;

use super::budget::Spent;

/// What is usual is the median of so many tests at the most, and at the least, a month's at the oldest.
const LAST: usize = 32;
const ENOUGH: usize = 4;

/// Whether the latest of the tests through one uplink to one reflector, the oldest first, found less than
/// `share` of what is usual, unlike the one of its direction before it: what stays low is known. One is not low where
/// others may be why.
pub(super) fn is_in_doubt<'a>(
    spent: impl DoubleEndedIterator<Item = &'a Spent>,
    share: f64,
) -> bool {
    let mut latest = spent.rev();
    let rates = |s: &Spent| Some((s.scheduled?, s.rate_bps?, s.others_bps));
    let Some((turn, found_bps, others_bps)) = latest.next().and_then(rates) else {
        return false;
    };
    let before: Vec<(u64, u64)> = latest
        .filter_map(rates)
        .filter(|(of, ..)| *of == turn)
        .map(|(_, found_bps, others_bps)| (found_bps, others_bps))
        .take(LAST)
        .collect();
    let Some(last) = before.first().copied() else {
        return false;
    };
    if before.len() < ENOUGH {
        return false;
    }
    let mut found: Vec<u64> = before.iter().map(|(found_bps, _)| *found_bps).collect();
    found.sort_unstable();
    let least_bps = share * found[found.len() / 2] as f64;
    let is_low = |(found_bps, others_bps): (u64, u64)| {
        let is_less = |bps: u64| (bps as f64) < least_bps;
        let is_alone = !household::shared(others_bps, found_bps);
        is_less(found_bps) && (is_alone || is_less(found_bps.saturating_add(others_bps)))
    };
    is_low((found_bps, others_bps)) && !is_low(last)
}

#[cfg(test)]
mod tests {
    use super::super::turn::Turn;
    use super::*;

    fn in_doubt(tests: &[(Turn, Option<u64>)]) -> bool {
        let alone: Vec<_> = tests.iter().map(|(turn, mbit)| (*turn, *mbit, 0)).collect();
        in_doubt_beside(&alone)
    }

    fn in_doubt_beside(tests: &[(Turn, Option<u64>, u64)]) -> bool {
        let spent: Vec<Spent> = tests
            .iter()
            .map(|(turn, mbit, others)| Spent {
                age_ns: None,
                interface: "eth0".into(),
                reflector: "vienna".into(),
                scheduled: Some(*turn),
                rate_bps: mbit.map(|m| m * 1_000_000),
                others_bps: others * 1_000_000,
                bytes: 1,
            })
            .collect();
        is_in_doubt(spent.iter(), 0.8)
    }

    #[test]
    fn the_first_low_test_of_its_direction_is_in_doubt_and_no_other() {
        use Turn::{Down, Udp, Up};
        let before = [
            (Up, Some(10)),
            (Down, Some(90)),
            (Up, Some(11)),
            (Up, Some(10)),
            (Down, Some(50)),
            (Up, Some(9)),
        ];
        let then = |more: &[(Turn, Option<u64>)]| in_doubt(&[&before[..], more].concat());
        assert!(then(&[(Up, Some(5))]) && then(&[(Up, Some(7))]));
        assert!(!then(&[(Up, Some(9))]) && !then(&[(Up, Some(30))]));
        // It was low again, or is well: both are known now.
        assert!(!then(&[(Up, Some(5)), (Up, Some(5))]));
        assert!(!then(&[(Up, Some(5)), (Up, Some(10))]));
        // And low once more after that.
        assert!(then(&[(Up, Some(5)), (Up, Some(10)), (Up, Some(5))]));
        // Of what is seldom measured nobody knows what is usual, nor is a chosen rate what a line can carry.
        assert!(!then(&[(Down, Some(5))]));
        assert!(!then(&[(Up, Some(5)), (Udp, None)]));
        assert!(!in_doubt(&[]));
    }

    #[test]
    fn a_test_that_was_low_because_others_used_the_line_is_not_in_doubt() {
        let well = [(Turn::Up, Some(10), 0); 4];
        let then = |more: &[(Turn, Option<u64>, u64)]| in_doubt_beside(&[&well[..], more].concat());
        assert!(!then(&[(Turn::Up, Some(5), 4)]));
        assert!(then(&[(Turn::Up, Some(5), 1)]) && then(&[(Turn::Up, Some(5), 0)]));
        // Of that before it nobody knew, either.
        assert!(then(&[(Turn::Up, Some(5), 4), (Turn::Up, Some(5), 0)]));
        assert!(!then(&[(Turn::Up, Some(5), 1), (Turn::Up, Some(5), 0)]));
    }
}
