//! A share that has become too high, and since when: `packet_loss` and `high_jitter`.
//!
//! Raised only when the lower end of its 95 % interval is above the threshold; the window grows to an
//! hour until it can be. A window shorter than the time that the threshold is of counts where its hits
//! alone are above the threshold over that time: of trouble that is dense and short, the whole time's
//! hits look like a cluster, which proves little. Begin and end are the hits between which the rate was
//! high.

use super::chance::{Rate, RateWindow, Z95};
use super::edge::{Beside, Edge};
use super::event::Severity;
use super::marks::{Marks, Rates};
use crate::time::Monotonic;

/// Windows that are tried, seconds.
const WINDOWS_S: [u64; 6] = [10, 20, 60, 180, 600, 3540];
/// A window shorter than the time of the thresholds is of so many trials at least: how much hits cluster
/// cannot be seen in fewer, and a few pairs of losses would be proof.
const LEAST_IN_SHORT: f64 = 100.0;
/// Log likelihood ratio at which it is certain that the trouble has ended.
const CERTAIN: f64 = 14.0;
/// A minute is calm if no trouble was found for this many minutes after it.
const CALM_MINUTES: u64 = 5;
const MINUTE_NS: u64 = 60_000_000_000;

/// What changed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// It is high, since then, this bad; as measured over the last `within_s` seconds, and the lower bound of
    /// the share.
    High {
        since: Edge,
        severity: Severity,
        rate: Rate,
        at_least: f64,
        within_s: u64,
    },
    /// It was high until then.
    Over(Edge),
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct RateWatch {
    threshold: f64,
    critical: f64,
    /// The thresholds are of so many seconds.
    over_s: u64,
    window: RateWindow,
    /// When the first trial in the window was made that was no hit.
    counted: Option<Monotonic>,
    marks: Marks,
    /// Hits and trials while nothing was wrong.
    quiet: (f64, f64),
    since: Option<Edge>,
    severity: Option<Severity>,
    /// Nothing before this is looked at: it belongs to trouble that has ended.
    settled: Monotonic,
    per_ns: f64,
    /// So many hits are made by one thing.
    hits_each: f64,
}

impl RateWatch {
    /// Shares of trials, `interval_ns` apart, over `over_s` seconds.
    pub(crate) fn new(threshold: f64, critical: f64, over_s: u64, interval_ns: u64) -> Self {
        Self {
            threshold,
            critical,
            over_s,
            window: RateWindow::default(),
            counted: None,
            marks: Marks::default(),
            quiet: (0.0, 0.0),
            since: None,
            severity: None,
            settled: Monotonic::ZERO,
            per_ns: 1.0 / interval_ns.max(1) as f64,
            hits_each: 1.0,
        }
    }

    /// Other thresholds from now on; trouble that is known stays until it is over.
    pub(crate) const fn set(&mut self, threshold: f64, critical: f64, over_s: u64) {
        (self.threshold, self.critical, self.over_s) = (threshold, critical, over_s);
    }

    /// One thing that happens makes so many hits, which tell no more than one.
    pub(crate) const fn hits_each(mut self, hits: f64) -> Self {
        self.hits_each = hits;
        self
    }

    /// Where one thing makes several hits, these are differences to the probe before, up to two slots ago.
    fn late_ns(&self) -> u64 {
        (2.0 * (self.hits_each - 1.0) / self.per_ns) as u64
    }

    /// An edge of trouble whose hits are those since `since`, and how often these come.
    fn edge(&self, at: Monotonic, since: Monotonic, quiet: f64) -> (Edge, Rates) {
        let grain_ns = self.marks.apart_ns(since).max((1.0 / self.per_ns) as u64);
        let high = (1.0 / grain_ns as f64).max(2.0 * quiet);
        (Edge { at, grain_ns }, Rates { high, quiet })
    }

    /// A trial at `at` that was a hit or not, as is known `now`.
    pub(crate) fn add(&mut self, now: Monotonic, at: Monotonic, hit: bool) {
        self.window.add(now, at, u32::from(hit), 1);
        if hit {
            self.marks.add(at);
        } else {
            self.counted.get_or_insert(at);
        }
    }

    pub(crate) const fn since(&self) -> Option<Edge> {
        self.since
    }

    /// From when on trials are counted, however far windows go back; `now` where there are none yet.
    pub(crate) fn counted_from(&self, now: Monotonic) -> Monotonic {
        self.counted.unwrap_or(now)
    }

    /// The latest hit.
    pub(crate) fn last_hit(&self) -> Option<Monotonic> {
        self.marks.latest()
    }

    /// The share over the last `seconds`.
    pub(crate) fn last(&mut self, now: Monotonic, seconds: u64) -> Rate {
        let mut rate = self.window.last(now, seconds);
        rate.clustering = rate.clustering.max(self.hits_each);
        rate
    }

    /// Hits per ns that are nothing unusual.
    fn quiet_per_ns(&self) -> f64 {
        let share = (self.quiet.0 + 0.5) / (self.quiet.1 + 2000.0);
        share.clamp(1e-5, self.threshold / 3.0) * self.per_ns
    }

    /// What so many hits within `seconds` are of all trials of the time that the thresholds are of; 1
    /// where the window is not shorter.
    fn share_over(&self, hits: f64, seconds: u64) -> f64 {
        if seconds >= self.over_s {
            return 1.0;
        }
        hits / (self.per_ns * self.over_s as f64 * 1e9)
    }

    /// The end of trouble whose rate has come down to what is not trouble, if not to what is usual: a
    /// rate that was raised near the usual one cannot be told from it by its hits alone.
    fn sunk(&mut self, now: Monotonic, since: Monotonic, known: Monotonic) -> Option<Monotonic> {
        if !is_minute(now) {
            return None;
        }
        let lasted_s = now.saturating_since(since) / 1_000_000_000;
        let threshold = self.threshold;
        let calm = WINDOWS_S
            .into_iter()
            .filter(|s| *s >= 180 && *s < lasted_s)
            .any(|s| self.window.last(now, s).is_below(threshold));
        if calm {
            self.marks.split(since, known)
        } else {
            None
        }
    }

    /// What was up to `end` has been told.
    pub(crate) fn settle(&mut self, end: Monotonic) {
        self.since = None;
        self.severity = None;
        // Windows go back further than the end.
        self.window = RateWindow::default();
        self.counted = None;
        self.settled = Monotonic::from_nanos(end.as_nanos() + 1);
    }

    /// To be called once a second; hits are known up to `known`, and others know so much of it.
    pub(crate) fn each_second(
        &mut self,
        now: Monotonic,
        known: Monotonic,
        beside: Beside,
    ) -> Option<Change> {
        let quiet_per_ns = self.quiet_per_ns();
        if let Some(Edge { at: since, .. }) = self.since {
            let end = self.marks.offset(since, known, quiet_per_ns, CERTAIN);
            if let Some(end) = end.or_else(|| self.sunk(now, since, known)) {
                let (mut told, rates) = self.edge(end, since, quiet_per_ns);
                let theirs = beside.end.filter(|e| since < e.at);
                if let Some(e) = theirs.filter(|e| told.is_vague_beside(*e)) {
                    let at = self.marks.end_beside(e, rates, self.late_ns());
                    told = Edge { at, ..e };
                }
                self.settle(end);
                return Some(Change::Over(told));
            }
        } else if is_minute(now) {
            // Trouble that is about to be found must not count as calm.
            let calm = self.window.minute_before(now, CALM_MINUTES);
            let (hits, all) = (self.quiet.0 + calm.hits, self.quiet.1 + calm.all);
            // A day of a 50 ms stream: older calm counts less and less.
            let keep = if all > 2e6 { 0.5 } else { 1.0 };
            self.quiet = (hits * keep, all * keep);
        }
        let mut found: Option<(Severity, Rate, f64, u64)> = None;
        for seconds in WINDOWS_S {
            if seconds > 60 && !is_minute(now) {
                continue;
            }
            let rate = self.last(now, seconds);
            if seconds < self.over_s && rate.all < LEAST_IN_SHORT {
                continue;
            }
            if rate.hits < 3.0 * self.hits_each || !rate.is_above(self.threshold) {
                continue;
            }
            let low = rate.bounds(Z95).0;
            let enough = low.min(self.share_over(rate.hits, seconds));
            let severity = if enough > self.critical {
                Severity::Critical
            } else if enough > self.threshold {
                Severity::Warning
            } else {
                continue;
            };
            if found.is_none_or(|(s, ..)| severity > s) {
                found = Some((severity, rate, low, seconds));
            }
        }
        let (severity, rate, low, within_s) = found?;
        if let Some(since) = self.since {
            if self.severity >= Some(severity) {
                return None;
            }
            self.severity = Some(severity);
            return Some(Change::High {
                since,
                severity,
                rate,
                at_least: low,
                within_s,
            });
        }
        let begin = self.marks.onset(self.settled, known, quiet_per_ns)?;
        let (mut since, rates) = self.edge(begin, begin, quiet_per_ns);
        if let Some(b) = beside.begin.filter(|b| since.is_vague_beside(*b)) {
            let at = self.marks.begin_beside(b, rates);
            // What begins later here than elsewhere is part of it all the same.
            if at < b.at || begin < b.at {
                since = Edge { at, ..b };
            }
        }
        // The trouble may be over already while it still is in a long window.
        self.since = Some(since);
        self.severity = Some(severity);
        Some(Change::High {
            since,
            severity,
            rate,
            at_least: low,
            within_s,
        })
    }
}

/// Long windows change by whole minutes only.
const fn is_minute(now: Monotonic) -> bool {
    now.as_nanos() % MINUTE_NS < 1_000_000_000
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::{Rng, SeedableRng};

    use super::*;

    const S: u64 = 1_000_000_000;

    /// One trial a second, of which one in fifty is a hit as ever, but for ten in a row: that is over some
    /// time later, and was when the ten were.
    #[test]
    fn a_rate_raised_near_the_usual_one_ends() {
        let mut watch = RateWatch::new(0.05, 1.0, 10, S);
        let (mut begun, mut ended) = (None, None);
        for s in 0..9000u64 {
            let now = Monotonic::from_nanos(s * S);
            let in_a_row = (5003..5013).contains(&s);
            watch.add(now, now, in_a_row || s % 50 == 25);
            match watch.each_second(now, now, Beside::default()) {
                Some(Change::High { since, .. }) => begun = Some(since.at.as_nanos() / S),
                Some(Change::Over(end)) => ended = Some(end.at.as_nanos() / S),
                None => {}
            }
        }
        assert_eq!(begun, Some(5003));
        assert_eq!(ended, Some(5012));
    }

    /// Six hits of ten that three things make are three, and may be chance.
    #[test]
    fn hits_that_come_in_pairs_count_half() {
        let raised = |each: f64, hits: u64| {
            let mut watch = RateWatch::new(0.05, 1.0, 10, S).hits_each(each);
            (0..1200u64).any(|s| {
                let now = Monotonic::from_nanos(s * S);
                watch.add(now, now, (1000..1000 + hits).contains(&s));
                watch.each_second(now, now, Beside::default()).is_some()
            })
        };
        assert!(raised(1.0, 9) && !raised(2.0, 9));
        assert!(raised(2.0, 60));
    }

    /// What series are compared by knows it, too: twelve hits of sixty may be six of thirty.
    #[test]
    fn a_rate_that_is_compared_is_no_surer_than_one_that_is_told() {
        let bounds = |each: f64| {
            let mut watch = RateWatch::new(0.05, 1.0, 10, S).hits_each(each);
            for s in 0..60u64 {
                let now = Monotonic::from_nanos(s * S);
                watch.add(now, now, s % 5 == 0);
            }
            watch.last(Monotonic::from_nanos(59 * S), 60).bounds(Z95)
        };
        assert_eq!(bounds(2.0), super::super::chance::wilson(6.0, 30.0, Z95));
        assert!(bounds(1.0).0 > bounds(2.0).0);
    }

    /// Ten pings of which half are lost, in pairs that are far apart, prove little.
    #[test]
    fn a_few_trials_in_a_short_time_prove_nothing() {
        let mut watch = RateWatch::new(0.01, 0.02, 60, S);
        for s in 0..400u64 {
            let now = Monotonic::from_nanos(s * S);
            watch.add(now, now, [300, 301, 304, 307, 308].contains(&s));
            let told = watch.each_second(now, now, Beside::default());
            assert!(told.is_none() || s >= 359, "{s}: {told:?}");
        }
    }

    /// When trouble was found, and its begin: one in five of 40 trials a second hits for so long. What of it
    /// hits is told together each `told_s` seconds.
    fn found(trouble_s: u64, seed: u64, told_s: u64) -> Option<(u64, u64)> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut watch = RateWatch::new(0.01, 0.02, 60, S / 40);
        let mut untold = std::vec::Vec::new();
        for n in 0..400 * 40 {
            let now = Monotonic::from_nanos(n * (S / 40));
            let bad = (300..300 + trouble_s).contains(&(n / 40));
            if bad && rng.next_u32() % 5 == 0 {
                untold.push(now);
            } else {
                watch.add(now, now, false);
            }
            if n % (40 * told_s) == 40 * told_s - 1 {
                for at in untold.drain(..) {
                    watch.add(now, at, true);
                }
            }
            if n % 40 == 39
                && let Some(Change::High { since, .. }) =
                    watch.each_second(now, now, Beside::default())
            {
                return Some((n / 40, since.at.as_nanos() / S));
            }
        }
        None
    }

    /// The minute's share is five times the threshold, but all of it lies in a quarter of the minute.
    #[test]
    fn much_for_a_short_time_is_found_and_a_moment_is_not() {
        for seed in 0..50 {
            for told_s in [1, 5] {
                let (at_s, since_s) = found(15, seed, told_s).expect("it is found");
                assert!((303..320).contains(&at_s), "{seed}: {at_s}");
                assert!((300..302).contains(&since_s), "{seed}: {since_s}");
                assert_eq!(found(2, seed, told_s), None, "{seed}");
            }
        }
    }
}
