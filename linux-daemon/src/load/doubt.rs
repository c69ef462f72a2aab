//! Whether a test found so little that another one is to say at once whether that is so.

use super::budget::Spent;

/// What is usual is the median of so many tests at the most, and at the least, a month's at the oldest.
const LAST: usize = 32;
const ENOUGH: usize = 4;

/// Whether the latest of the tests through one uplink to one reflector, the oldest first, found less than
/// `share` of what is usual, unlike the one of its direction before it: what stays low is known.
pub(super) fn is_in_doubt<'a>(
    spent: impl DoubleEndedIterator<Item = &'a Spent>,
    share: f64,
) -> bool {
    let mut latest = spent.rev();
    let rate = |s: &Spent| Some((s.scheduled?, s.rate_bps?));
    let Some((turn, found_bps)) = latest.next().and_then(rate) else {
        return false;
    };
    let mut before: Vec<u64> = latest
        .filter_map(rate)
        .filter(|(of, _)| *of == turn)
        .map(|(_, bps)| bps)
        .take(LAST)
        .collect();
    let Some(last_bps) = before.first().copied() else {
        return false;
    };
    if before.len() < ENOUGH {
        return false;
    }
    before.sort_unstable();
    let usual_bps = before[before.len() / 2] as f64;
    let is_low = |bps: u64| (bps as f64) < share * usual_bps;
    is_low(found_bps) && !is_low(last_bps)
}

#[cfg(test)]
mod tests {
    use super::super::turn::Turn;
    use super::*;

    fn in_doubt(tests: &[(Turn, Option<u64>)]) -> bool {
        let spent: Vec<Spent> = tests
            .iter()
            .map(|(turn, mbit)| Spent {
                age_ns: None,
                interface: "eth0".into(),
                reflector: "vienna".into(),
                scheduled: Some(*turn),
                rate_bps: mbit.map(|m| m * 1_000_000),
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
}
