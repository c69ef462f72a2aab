//! How fast the far end's clock gains on ours, from the smallest delays of many buckets.

use super::hull::{Line, Point, supporting_line};

/// Buckets that are remembered.
const BUCKETS: usize = 64;
/// Length of the first buckets, s: whenever all are in use, neighbours are joined, until they have
/// [`LONGEST_S`]; then the oldest give way. So the first estimate is there after seconds, and later
/// ones rest on half an hour.
const FIRST_S: f64 = 1.0;
const LONGEST_S: f64 = 32.0;
/// With fewer buckets than this there is no estimate.
const FEWEST: usize = 6;
/// What two stamps of one bucket are believed to, ns: the least error of a rate over a span.
const STAMP_NS: f64 = 10_000.0;

/// The smallest delays of a bucket, each where it was.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    up: Point,
    down: Point,
}

/// A rate of the far end's clock against ours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    /// ns gained per second: parts per billion.
    pub(super) slope: f64,
    /// How far it may be off, likewise.
    pub(super) error: f64,
}

/// Remembers the smallest delays, and fits a line under them.
#[derive(Clone, Debug)]
pub(super) struct Skew {
    buckets: [Bucket; BUCKETS],
    first: usize,
    len: usize,
    length_s: f64,
    /// When the present bucket began; it is the last of `buckets`.
    began: f64,
    rate: Option<Rate>,
}

impl Skew {
    pub(super) const fn new() -> Self {
        Self {
            buckets: [Bucket {
                up: (0.0, 0.0),
                down: (0.0, 0.0),
            }; BUCKETS],
            first: 0,
            len: 0,
            length_s: FIRST_S,
            began: 0.0,
            rate: None,
        }
    }

    /// The rate, as far as it is known.
    pub(super) const fn rate(&self) -> Option<Rate> {
        self.rate
    }

    /// Begins anew, for instance because the clock has stepped; what was known of its rate is
    /// believed to `error` from now on.
    pub(super) fn restart(&mut self, rate: Option<Rate>) {
        *self = Self {
            rate,
            ..Self::new()
        };
    }

    /// A probe at `t` took `up` and `down` by two clocks.
    pub(super) fn add(&mut self, t: f64, up: f64, down: f64) {
        let slope = self.rate.map_or(0.0, |r| r.slope);
        if self.len > 0 && t < self.began + self.length_s {
            let last = self.at(self.len - 1);
            let b = &mut self.buckets[last];
            keep_lower(&mut b.up, (t, up), slope);
            keep_lower(&mut b.down, (t, down), -slope);
            return;
        }
        self.fit();
        if self.len == BUCKETS {
            if self.length_s < LONGEST_S {
                self.join(slope);
            } else {
                self.first = (self.first + 1) % BUCKETS;
                self.len -= 1;
            }
        }
        let next = self.at(self.len);
        self.buckets[next] = Bucket {
            up: (t, up),
            down: (t, down),
        };
        self.len += 1;
        self.began = t;
    }

    fn at(&self, i: usize) -> usize {
        (self.first + i) % BUCKETS
    }

    fn join(&mut self, slope: f64) {
        for i in 0..BUCKETS / 2 {
            let mut joined = self.buckets[self.at(2 * i)];
            let later = self.buckets[self.at(2 * i + 1)];
            keep_lower(&mut joined.up, later.up, slope);
            keep_lower(&mut joined.down, later.down, -slope);
            let to = self.at(i);
            self.buckets[to] = joined;
        }
        self.len = BUCKETS / 2;
        self.length_s *= 2.0;
    }

    /// What one direction gains the other loses. Where they do not agree, one of them has a queue:
    /// the one whose minima lie further from their line.
    fn fit(&mut self) {
        if self.len < FEWEST {
            return;
        }
        let each = || (0..self.len).map(|i| self.buckets[self.at(i)]);
        let up = Fit::of(each().map(|b| b.up));
        let down = Fit::of(each().map(|b| b.down));
        let (Some(up), Some(down)) = (up, down) else {
            return;
        };
        let (heavy_up, heavy_down) = (up.weight(), down.weight());
        let whole = heavy_up + heavy_down;
        let slope = (up.line.slope * heavy_up - down.line.slope * heavy_down) / whole;
        let span_s = up.span_s.min(down.span_s).max(FIRST_S);
        let apart = (up.line.slope + down.line.slope).abs() * heavy_up.min(heavy_down) / whole;
        let error = (up.rest_ns.min(down.rest_ns) + STAMP_NS) / span_s + apart;
        // A short new window does not throw away what a long one had found.
        if self.rate.is_none_or(|r| error <= r.error) || self.len >= BUCKETS / 4 {
            self.rate = Some(Rate { slope, error });
        }
    }
}

struct Fit {
    line: Line,
    /// Mean distance of the points from the line.
    rest_ns: f64,
    span_s: f64,
}

impl Fit {
    fn of(points: impl Iterator<Item = Point> + Clone) -> Option<Self> {
        let line = supporting_line::<BUCKETS>(points.clone())?;
        let (mut sum, mut count, mut span) = (0.0, 0.0, (f64::MAX, f64::MIN));
        for p in points {
            sum += p.1 - line.at(p.0);
            count += 1.0;
            span = (p.0.min(span.0), p.0.max(span.1));
        }
        Some(Self {
            line,
            rest_ns: sum / count,
            span_s: span.1 - span.0,
        })
    }

    fn weight(&self) -> f64 {
        let scale = self.rest_ns + STAMP_NS;
        1.0 / (scale * scale)
    }
}

fn keep_lower(kept: &mut Point, new: Point, slope: f64) {
    if new.1 - slope * (new.0 - kept.0) < kept.1 {
        *kept = new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_found_within_seconds_and_survives_a_queue_in_one_direction() {
        let mut skew = Skew::new();
        let true_slope = 37_000.0;
        for i in 0..80_000u32 {
            let t = f64::from(i) * 0.05;
            let noise = f64::from(i * 7919 % 100) * 1_000.0;
            let queue = if t > 600.0 && t < 900.0 {
                80e6 + noise * 300.0
            } else {
                0.0
            };
            skew.add(t, true_slope * t + noise + queue, noise - true_slope * t);
            if t > 30.0 {
                let rate = skew.rate().unwrap();
                assert!(
                    (rate.slope - true_slope).abs() < 2.0 * rate.error + 50.0,
                    "{t}: {rate:?}"
                );
            }
        }
        let rate = skew.rate().unwrap();
        assert!(rate.error < 300.0, "{rate:?}");
    }
}
