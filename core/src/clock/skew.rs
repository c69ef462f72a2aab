//! How fast the far end's clock gains on ours, from the smallest delays of many buckets.

use super::hull::{Line, Point, lower_hull};

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
/// What is further above a line than this is rather a queue, ns.
const QUEUE_NS: f64 = 200_000.0;
/// So many times as bad as above it is what lies below a line.
const BELOW: f64 = 4.0;
/// The last buckets, which tell whether the rate has changed, and the change that matters, ppb.
const RECENT: usize = 8;
const OTHER_PPB: f64 = 1_000.0;
/// What a rate that nothing confirms loses in worth, ppb per second.
const AGE_PPB_PER_S: f64 = 1.0;

/// The smallest delays of a bucket, each where it was.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    up: Point,
    down: Point,
    /// Whether one of its probes met a direction without a queue.
    free: bool,
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
                free: false,
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

    /// A probe at `t` took `up` and `down` by two clocks, on a route whose smallest round trip is
    /// `rtt`; `free` is whether one of the two had no queue, as far as that is known. Minima of a
    /// bucket that lie within `free_ns` of a line had none either.
    pub(super) fn add(
        &mut self,
        (t, up, down): (f64, f64, f64),
        free: bool,
        rtt: f64,
        free_ns: f64,
    ) {
        let slope = self.rate.map_or(0.0, |r| r.slope);
        if self.len > 0 && t < self.began + self.length_s {
            let last = self.at(self.len - 1);
            let b = &mut self.buckets[last];
            keep_lower(&mut b.up, (t, up), slope);
            keep_lower(&mut b.down, (t, down), -slope);
            b.free |= free;
            return;
        }
        self.fit(rtt, free_ns);
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
            free,
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
            joined.free |= later.free;
            let to = self.at(i);
            self.buckets[to] = joined;
        }
        self.len = BUCKETS / 2;
        self.length_s *= 2.0;
    }

    fn fit(&mut self, rtt: f64, free_ns: f64) {
        let Some((mut new, free)) = self.fit_last(self.len, rtt, free_ns) else {
            return;
        };
        if self.len >= 2 * RECENT
            && let Some((recent, _)) = self.fit_last(RECENT, rtt, free_ns)
            && (recent.slope - new.slope).abs() > new.error + 3.0 * recent.error + OTHER_PPB
        {
            // The clocks run at another rate now, which has nothing to do with the one before.
            self.first = self.at(self.len - RECENT);
            self.len = RECENT;
            new = recent;
            self.rate = None;
        }
        let Some(known) = &mut self.rate else {
            self.rate = Some(new);
            return;
        };
        known.error += AGE_PPB_PER_S * self.length_s;
        // A short new window does not throw away what a long one had found, unless it knows better.
        let wrong = (new.slope - known.slope).abs() > new.error + known.error;
        if new.error <= known.error || (wrong && free >= BUCKETS / 4) {
            *known = new;
        }
    }

    /// The rate that the last `count` buckets show, and how many of them met a free direction.
    fn fit_last(&self, count: usize, rtt: f64, free_ns: f64) -> Option<(Rate, usize)> {
        if count < FEWEST {
            return None;
        }
        let buckets = || (self.len - count..self.len).map(|i| self.buckets[self.at(i)]);
        let line = common_line(buckets, rtt)?;
        let (mut rest_ns, mut free, mut span) = (0.0, 0, (f64::MAX, f64::MIN));
        for b in buckets() {
            let (up, down) = b.above(&line, rtt);
            let (t, least) = if up < down {
                (b.up.0, up)
            } else {
                (b.down.0, down)
            };
            if b.free && least <= free_ns {
                rest_ns += least.max(0.0);
                free += 1;
                span = (t.min(span.0), t.max(span.1));
            }
        }
        let error = (rest_ns / free as f64 + STAMP_NS) / (span.1 - span.0).max(FIRST_S);
        let slope = line.slope;
        (free >= FEWEST).then_some((Rate { slope, error }, free))
    }
}

impl Bucket {
    /// How far its smallest delays lie above what `line`, the floor upward, leaves of them.
    fn above(&self, line: &Line, rtt: f64) -> (f64, f64) {
        (
            self.up.1 - line.at(self.up.0),
            self.down.1 - (rtt - line.at(self.down.0)),
        )
    }

    fn cost(&self, line: &Line, rtt: f64) -> f64 {
        let (up, down) = self.above(line, rtt);
        cost_of(up) + cost_of(down)
    }
}

/// What speaks against a line that leaves a smallest delay so far above it: little more for a queue
/// of seconds than for one of a millisecond; and much for one that lies below it, which cannot be.
fn cost_of(above_ns: f64) -> f64 {
    if above_ns < 0.0 {
        -BELOW * above_ns
    } else {
        above_ns * QUEUE_NS / (above_ns + QUEUE_NS)
    }
}

/// The line that fits best as the floor upward: each smallest delay upward lies above it, and each
/// smallest delay downward above the rest of the round trip. In a queue that stands in one
/// direction it runs along the other; a queue in both says next to nothing. What costs least touches
/// two points: two neighbours of one direction's hull, or one of each.
fn common_line<I: Iterator<Item = Bucket> + Clone>(
    buckets: impl Fn() -> I,
    rtt: f64,
) -> Option<Line> {
    let up = lower_hull::<BUCKETS>(buckets().map(|b| b.up));
    let down = lower_hull::<BUCKETS>(buckets().map(|b| b.down));
    let from_down = |p: Point| (p.0, rtt - p.1);
    let edges_up = up.windows(2).map(|e| (e[0], e[1]));
    let edges_down = down.windows(2).map(|e| (from_down(e[0]), from_down(e[1])));
    let across = up
        .iter()
        .flat_map(|a| down.iter().map(move |b| (*a, from_down(*b))));
    let mut best: Option<(f64, Line)> = None;
    for (a, b) in edges_up.chain(edges_down).chain(across) {
        let Some(line) = Line::through(a, b) else {
            continue;
        };
        let mut cost = 0.0;
        for bucket in buckets() {
            cost += bucket.cost(&line, rtt);
            if best.is_some_and(|(least, _)| cost >= least) {
                break;
            }
        }
        if best.is_none_or(|(least, _)| cost < least) {
            best = Some((cost, line));
        }
    }
    best.map(|(_, line)| line)
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
            let (up, down) = (true_slope * t + noise + queue, noise - true_slope * t);
            skew.add((t, up, down), true, 0.0, 250_000.0);
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

    /// Both floors rise, one after the other, and what is full breathes: no rate of clocks.
    #[test]
    fn queues_in_both_directions_leave_the_rate_alone() {
        for begin in [15.0, 60.0, 400.0] {
            let mut skew = Skew::new();
            let slope = -20_000.0;
            let (mut sure, mut at_end) = (None, None);
            for i in 0..20_000u32 {
                let t = f64::from(i) * 0.05;
                let noise = |salt: u32| f64::from((i * 7919 + salt) % 100) * 1_000.0;
                let stands = |from: f64, ns: f64| {
                    let breath = 1.0 + 0.02 * ((t - from) % 7.0);
                    if t > from && t < begin + 200.0 {
                        ns * breath
                    } else {
                        0.0
                    }
                };
                let up = slope * t + noise(0) + stands(begin, 120e6);
                let down = noise(31) - slope * t + stands(begin + 90.0, 80e6);
                if t < begin + 90.0 {
                    sure = skew.rate();
                } else if t < begin + 199.0 {
                    at_end = skew.rate();
                }
                let free = t < begin + 90.0 || t > begin + 200.0;
                skew.add((t, up, down), free, 0.0, 250_000.0);
            }
            for rate in [sure, at_end, skew.rate()] {
                let rate = rate.unwrap();
                assert!((rate.slope - slope).abs() < 1_000.0, "{begin}: {rate:?}");
            }
        }
    }
}
