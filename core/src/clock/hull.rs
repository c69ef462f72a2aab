//! The lower convex hull of a few points, and the edge of it that fits best.

/// A point: when (s), and how much (ns).
pub(super) type Point = (f64, f64);

/// A line that no point lies under.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line {
    /// Its rise, ns per second.
    pub(super) slope: f64,
    /// Where it passes: through this point.
    pub(super) through: Point,
}

impl Line {
    /// Its height at time `t`.
    pub(super) fn at(&self, t: f64) -> f64 {
        self.through.1 + self.slope * (t - self.through.0)
    }
}

/// Of all lines that no point lies under, the one with the smallest sum of distances to the points:
/// the edge of their lower hull above the mean of their times (Moon, Skelly and Towsley 1999; Zhang,
/// Liu and Xia 2002). `points` are in the order of time; at most `N` are looked at. `None` where there
/// are fewer than two different times.
pub(super) fn supporting_line<const N: usize>(
    points: impl Iterator<Item = Point> + Clone,
) -> Option<Line> {
    let mut hull: heapless::Vec<Point, N> = heapless::Vec::new();
    let (mut sum, mut count) = (0.0, 0.0);
    for p in points.take(N) {
        sum += p.0;
        count += 1.0;
        if hull.last().is_some_and(|q| q.0 == p.0) {
            if hull.last().is_some_and(|q| q.1 <= p.1) {
                continue;
            }
            hull.pop();
        }
        while let [.., a, b] = hull[..] {
            // `b` is on or above the chord from `a` to `p`.
            if (b.1 - a.1) * (p.0 - a.0) < (p.1 - a.1) * (b.0 - a.0) {
                break;
            }
            hull.pop();
        }
        // There is room for all that are taken.
        let _ = hull.push(p);
    }
    let mean = sum / count;
    let edge = hull
        .windows(2)
        .find(|e| e[1].0 >= mean)
        .or_else(|| hull.windows(2).next_back())?;
    Some(Line {
        slope: (edge[1].1 - edge[0].1) / (edge[1].0 - edge[0].0),
        through: edge[0],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// Tries the line through each pair of points.
    fn naive(points: &[Point]) -> Option<f64> {
        let mean = points.iter().map(|p| p.0).sum::<f64>() / points.len() as f64;
        let mut best: Option<f64> = None;
        for a in points {
            for b in points.iter().filter(|b| b.0 > a.0) {
                let line = Line {
                    slope: (b.1 - a.1) / (b.0 - a.0),
                    through: *a,
                };
                if points.iter().all(|p| p.1 - line.at(p.0) >= -1e-6) {
                    let height = line.at(mean);
                    best = Some(best.map_or(height, |h| h.max(height)));
                }
            }
        }
        best
    }

    proptest! {
        #[test]
        fn no_line_under_all_points_fits_better(
            steps in proptest::collection::vec((0u32..4, 0u32..1000), 0..60),
        ) {
            let mut t = 0.0;
            let points: Vec<Point> = steps
                .iter()
                .map(|(gap, v)| {
                    t += f64::from(*gap);
                    (t, f64::from(*v))
                })
                .collect();
            let found = supporting_line::<64>(points.iter().copied());
            let mean = points.iter().map(|p| p.0).sum::<f64>() / points.len() as f64;
            prop_assert_eq!(found.is_some(), naive(&points).is_some());
            if let (Some(line), Some(best)) = (found, naive(&points)) {
                prop_assert!((line.at(mean) - best).abs() < 1e-6, "{} {}", line.at(mean), best);
                for p in &points {
                    prop_assert!(p.1 - line.at(p.0) >= -1e-6);
                }
            }
        }
    }
}
