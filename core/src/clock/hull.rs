//! The lower convex hull of a few points.

/// A point: when (s), and how much (ns).
pub(super) type Point = (f64, f64);

/// A line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line {
    /// Its rise, ns per second.
    pub(super) slope: f64,
    /// Where it passes: through this point.
    pub(super) through: Point,
}

impl Line {
    /// The one through two points, in whichever order; `None` where they are at the same time.
    pub(super) fn through(a: Point, b: Point) -> Option<Self> {
        let slope = (b.1 - a.1) / (b.0 - a.0);
        slope.is_finite().then_some(Self { slope, through: a })
    }

    /// Its height at time `t`.
    pub(super) fn at(&self, t: f64) -> f64 {
        self.through.1 + self.slope * (t - self.through.0)
    }
}

/// The corners of the lower convex hull of `points`, which are in the order of time; at most `N` are
/// looked at. Of points at the same time only the lowest counts.
pub(super) fn lower_hull<const N: usize>(
    points: impl Iterator<Item = Point>,
) -> heapless::Vec<Point, N> {
    let mut hull: heapless::Vec<Point, N> = heapless::Vec::new();
    for p in points.take(N) {
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
    hull
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn no_point_lies_under_a_hull_and_its_corners_are_points(
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
            let hull = lower_hull::<64>(points.iter().copied());
            prop_assert_eq!(hull.is_empty(), points.is_empty());
            prop_assert!(hull.iter().all(|c| points.contains(c)));
            let edges: Vec<Line> = hull
                .windows(2)
                .map(|e| Line::through(e[0], e[1]).unwrap())
                .collect();
            for line in &edges {
                for p in &points {
                    prop_assert!(p.1 - line.at(p.0) >= -1e-6, "{:?} under {:?}", p, line);
                }
            }
            // It bends one way only, and spans all of them.
            prop_assert!(edges.windows(2).all(|e| e[0].slope < e[1].slope));
            prop_assert_eq!(hull.first().map(|c| c.0), points.first().map(|p| p.0));
            prop_assert_eq!(hull.last().map(|c| c.0), points.last().map(|p| p.0));
        }
    }
}
