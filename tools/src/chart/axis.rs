//! Marks on axes.

use jiff::tz::TimeZone;

use super::text;
use crate::when::{Step, ticks};

/// Smallest gap between two labels on a time axis, as a share of the font's size.
const LABEL_GAP: f64 = 1.6;

/// A scale from values to a place between 0 (bottom) and 1 (top).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scale {
    /// From zero to this.
    Linear(f64),
    /// From one to another, both above zero.
    Log(f64, f64),
}

impl Scale {
    /// One that shows values from `low` to `high`, most of them near `typical`: logarithmic where a
    /// linear one would press them to the ground.
    pub(crate) fn for_values(low: f64, typical: f64, high: f64) -> Self {
        if low > 0.0 && high > 10.0 * typical {
            let mut low = round_to_125(low * 0.95, false);
            let high = round_to_125(high * 1.05, true);
            // More than five powers of ten would leave no room for what matters.
            low = low.max(high / 1e5);
            Self::Log(low, high)
        } else {
            Self::Linear(high.max(f64::MIN_POSITIVE) * 1.08)
        }
    }

    /// Where `value` is; what is outside is at the edge.
    pub(crate) fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear(high) => (value / high).clamp(0.0, 1.0),
            Self::Log(low, high) => {
                ((value.max(low) / low).ln() / (high / low).ln()).clamp(0.0, 1.0)
            }
        }
    }

    /// Values to mark, about `count` of them.
    pub(crate) fn marks(self, count: usize) -> Vec<f64> {
        let count = count.max(2);
        match self {
            Self::Linear(high) => {
                let step = round_to_125(high / count as f64, true);
                (0..)
                    .map(|i| f64::from(i) * step)
                    .take_while(|v| *v <= high * 1.000_001)
                    .collect()
            }
            Self::Log(low, high) => {
                let decades = |of: &[f64]| -> Vec<f64> {
                    let first = low.log10().floor() as i32;
                    let last = high.log10().ceil() as i32;
                    (first..=last)
                        .flat_map(|e| of.iter().map(move |m| m * 10f64.powi(e)))
                        .filter(|v| (low * 0.999..=high * 1.001).contains(v))
                        .collect()
                };
                [&[1.0, 2.0, 5.0][..], &[1.0, 3.0], &[1.0]]
                    .into_iter()
                    .map(decades)
                    .find(|marks| marks.len() <= count + 1)
                    .unwrap_or_else(|| decades(&[1.0]))
            }
        }
    }
}

/// The nearest 1, 2 or 5 times a power of ten above (or below) `value`.
fn round_to_125(value: f64, up: bool) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|s| s * power);
    if up {
        steps
            .into_iter()
            .find(|s| *s >= value * 0.999_999)
            .unwrap_or(10.0 * power)
    } else {
        steps
            .into_iter()
            .rev()
            .find(|s| *s <= value * 1.000_001)
            .unwrap_or(power)
    }
}

/// Times to mark between two, with their labels, none of which touches another on an axis `width`
/// pixels wide.
pub(crate) fn time_marks(
    from_ns: i64,
    to_ns: i64,
    width: f64,
    size: f64,
    zone: &TimeZone,
) -> Vec<(i64, String)> {
    let span = to_ns.abs_diff(from_ns).max(1) as f64;
    for step in Step::ALL {
        // Far too fine: not worth listing.
        if span / step.about_ns() > width / 8.0 {
            continue;
        }
        let marks: Vec<(i64, String)> = ticks(from_ns, to_ns, step, zone)
            .into_iter()
            .map(|t| (t, step.label(t, zone)))
            .collect();
        let fits = marks.windows(2).all(|pair| {
            let gap = pair[1].0.abs_diff(pair[0].0) as f64 / span * width;
            let halves = pair.iter().map(|(_, l)| text::width(l, size) / 2.0);
            gap >= halves.sum::<f64>() + size * LABEL_GAP
        });
        if fits {
            return marks;
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn marks_are_round() {
        assert_eq!(Scale::Linear(43.2).marks(5), [0.0, 10.0, 20.0, 30.0, 40.0]);
        let Scale::Log(low, high) = Scale::for_values(4.2, 5.0, 812.0) else {
            panic!("not logarithmic");
        };
        assert_eq!((low, high), (2.0, 1000.0));
        assert_eq!(Scale::Log(low, high).marks(4), [10.0, 100.0, 1000.0]);
        assert_eq!(
            Scale::Log(low, high).marks(6),
            [3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]
        );
    }

    proptest! {
        #[test]
        fn every_scale_has_a_few_marks_within_it(
            low in 1e-4f64..1e3, typical in 1.0f64..10.0, high in 1.0f64..1e4, count in 2usize..9,
        ) {
            let (typical, high) = (low * typical, low * typical * high);
            let scale = Scale::for_values(low, typical, high);
            let marks = scale.marks(count);
            prop_assert!(!marks.is_empty() && marks.len() <= count.max(7) + 2, "{marks:?}");
            prop_assert!(marks.windows(2).all(|m| m[0] < m[1]));
            prop_assert!((0.0..=1.0).contains(&scale.place(high)));
            prop_assert!(scale.place(high) >= scale.place(typical));
        }

        #[test]
        fn times_are_marked_without_touching(span_s in 1i64..40_000_000, width in 200f64..1600.0) {
            let from = 1_777_000_000_123_456_789;
            let to = from + span_s * 1_000_000_000;
            let marks = time_marks(from, to, width, 12.0, &TimeZone::UTC);
            prop_assert!(marks.len() < 60);
            for pair in marks.windows(2) {
                let gap = (pair[1].0 - pair[0].0) as f64 / (to - from) as f64 * width;
                let need = (text::width(&pair[0].1, 12.0) + text::width(&pair[1].1, 12.0)) / 2.0;
                prop_assert!(gap > need);
            }
        }
    }
}
