//! Round trips per minute under load, after draft-ietf-ippm-responsiveness.
//!
//! The variant measured here: *loaded* is the in-band response of the streams that load the line
//! (from handing a byte to the kernel until the receiver's count of it is back on the same
//! connection), *foreign* is the round trip of separate UDP probes, in place of new TCP, TLS and
//! HTTP exchanges, and the number of streams is fixed instead of growing. Intervals of 1 s, moving
//! average over the last four, trimmed means and the rule of stability are the draft's.

use super::latency::trimmed_mean;

/// What reports call this variant.
pub const VARIANT: &str =
    "after draft-ietf-ippm-responsiveness; fixed streams and time, foreign over UDP";

/// Length of an interval, ns.
pub const INTERVAL_NS: u64 = 1_000_000_000;
/// Intervals that are looked at together (the draft's MAD).
pub const INTERVALS: usize = 4;
/// Stable below this ratio of standard deviation to value (the draft's SDT).
const STABLE: f64 = 0.05;

/// The result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Responsiveness {
    /// Round trips per minute.
    pub rpm: u32,
    /// Whether the last four values were within the draft's 5 % of each other.
    pub stable: bool,
}

/// Round trips per minute from trimmed means of both kinds, ns: the mean of both kinds' rates.
/// Of one kind alone it is that kind's.
#[must_use]
pub fn rpm(foreign_ns: Option<u64>, loaded_ns: Option<u64>) -> Option<u32> {
    let rate = |ns: u64| 60e9 / ns.max(1) as f64;
    let rpm = match (foreign_ns, loaded_ns) {
        (Some(f), Some(l)) => f64::midpoint(rate(f), rate(l)),
        (Some(one), None) | (None, Some(one)) => rate(one),
        (None, None) => return None,
    };
    Some(rpm as u32)
}

/// Evaluates a load phase from `begin_ns` to `end_ns`. `foreign` and `loaded` are (time, delay), ns;
/// `scratch` has room for the longer of both. For each of the last [`INTERVALS`] seconds there is one
/// value, over that second and the three before it; the last of them is the result.
pub fn evaluate(
    foreign: &[(u64, u64)],
    loaded: &[(u64, u64)],
    begin_ns: u64,
    end_ns: u64,
    scratch: &mut [u64],
) -> Option<Responsiveness> {
    let window = INTERVAL_NS * INTERVALS as u64;
    let mut mean = |values: &[(u64, u64)], to: u64| {
        let from = to.saturating_sub(window).max(begin_ns);
        let mut n = 0;
        for (_, delay) in values.iter().filter(|(at, _)| *at >= from && *at < to) {
            if let Some(place) = scratch.get_mut(n) {
                *place = *delay;
                n += 1;
            }
        }
        trimmed_mean(&mut scratch[..n])
    };
    let mut values = [0.0; INTERVALS];
    let mut count = 0;
    for back in 0..INTERVALS as u64 {
        let to = end_ns.saturating_sub(back * INTERVAL_NS);
        if to <= begin_ns {
            break;
        }
        let Some(value) = rpm(mean(foreign, to), mean(loaded, to)) else {
            break;
        };
        values[count] = f64::from(value);
        count += 1;
    }
    let current = *values[..count].first()?;
    let average = values[..count].iter().sum::<f64>() / count as f64;
    let squares: f64 = values[..count]
        .iter()
        .map(|v| (v - average) * (v - average))
        .sum();
    // The standard deviation is below 5 % of the value, without taking a root.
    let limit = STABLE * current;
    let stable = count == INTERVALS && squares / count as f64 <= limit * limit;
    Some(Responsiveness {
        rpm: current as u32,
        stable,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const S: u64 = 1_000_000_000;
    const MS: u64 = 1_000_000;

    fn series(delay: impl Fn(u64) -> u64) -> Vec<(u64, u64)> {
        (0..1000)
            .map(|i| (i * 10 * MS, delay(i * 10 * MS)))
            .collect()
    }

    #[test]
    fn both_kinds_count_half() {
        assert_eq!(rpm(Some(60 * MS), Some(120 * MS)), Some(750));
        assert_eq!(rpm(None, Some(120 * MS)), Some(500));
        assert_eq!(rpm(None, None), None);
    }

    #[test]
    fn steady_delay_is_stable() {
        let mut scratch = [0; 1000];
        let r = evaluate(
            &series(|_| 20 * MS),
            &series(|_| 60 * MS),
            0,
            10 * S,
            &mut scratch,
        );
        assert_eq!(
            r,
            Some(Responsiveness {
                rpm: 2000,
                stable: true
            })
        );
    }

    #[test]
    fn a_queue_that_still_grows_is_not() {
        let mut scratch = [0; 1000];
        let growing = series(|at| 10 * MS + at / 20);
        let r = evaluate(&growing, &growing, 0, 10 * S, &mut scratch).unwrap();
        assert!(!r.stable);
        // The last four seconds: delays of 310 to 510 ms, the top twentieth left out.
        assert!((146..=154).contains(&r.rpm), "{}", r.rpm);
        // Too short to tell.
        let r = evaluate(&growing, &growing, 0, 2 * S, &mut scratch).unwrap();
        assert!(!r.stable);
        assert_eq!(evaluate(&[], &[], 0, 2 * S, &mut scratch), None);
    }
}
