//! `high_jitter`: the 95th percentile of IPDV is above a threshold when more than a twentieth of all
//! neighbours differ by more than it.

use super::baseline::Sketch;
use super::edge::{Beside, Edge};
use super::event::{Direction, Finding, Kind, Severity};
use super::input::{Probe, Thresholds};
use super::rate::{Change, RateWatch};
use crate::time::Monotonic;

/// Share of neighbours that may differ by more than the 95th percentile.
const ABOVE: f64 = 0.05;
const S: u64 = 1_000_000_000;
const MINUTE_S: u64 = 60;

#[derive(Clone, Copy, Debug)]
struct Before {
    sent: Monotonic,
    rtt_ns: u32,
    up_ns: Option<i64>,
    down_ns: Option<i64>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Jitter {
    interval_ns: u64,
    before: Option<Before>,
    rate: RateWatch,
    /// The same above the higher threshold.
    worst: RateWatch,
    /// Of large differences: how many lay upward, and how many downward.
    up: u64,
    down: u64,
    peak_ns: u32,
    /// Large differences, ns.
    large: Sketch,
}

impl Jitter {
    pub(crate) fn new(t: &Thresholds, interval_ns: u64) -> Self {
        // One late probe differs from both of its neighbours.
        let rate = RateWatch::new(ABOVE, 1.0, t.jitter_over_ns / S, interval_ns).hits_each(2.0);
        Self {
            interval_ns,
            before: None,
            worst: rate.clone(),
            rate,
            up: 0,
            down: 0,
            peak_ns: 0,
            large: Sketch::new(),
        }
    }

    /// Other thresholds from now on.
    pub(crate) const fn set(&mut self, t: &Thresholds) {
        let over_s = t.jitter_over_ns / S;
        self.rate.set(ABOVE, 1.0, over_s);
        self.worst.set(ABOVE, 1.0, over_s);
    }

    pub(crate) fn since(&self) -> Option<Edge> {
        self.rate.since()
    }

    /// The share of large differences over the last `seconds`.
    pub(crate) fn rate(&mut self, now: Monotonic, seconds: u64) -> super::chance::Rate {
        self.rate.last(now, seconds)
    }

    /// The latest large difference.
    pub(crate) fn last_hit(&self) -> Option<Monotonic> {
        self.rate.last_hit()
    }

    /// One answered probe; whether its delay stands high because of load.
    pub(crate) fn step(&mut self, probe: &Probe, loaded: bool, t: &Thresholds) {
        let Some(rtt_ns) = probe.rtt_ns else { return };
        let now = Before {
            sent: probe.sent,
            rtt_ns,
            up_ns: probe.raw_up_ns,
            down_ns: probe.raw_down_ns,
        };
        let Some(before) = self.before.replace(now).filter(|b| {
            // Neighbours only: offsets within slots make them up to two slots apart.
            now.sent.saturating_since(b.sent) < 2 * self.interval_ns
        }) else {
            return;
        };
        if loaded {
            return;
        }
        let ipdv_ns = rtt_ns.abs_diff(before.rtt_ns);
        let hit = u64::from(ipdv_ns) > t.jitter_ns;
        self.rate.add(probe.sent, probe.sent, hit);
        let is_worst = u64::from(ipdv_ns) > t.jitter_critical_ns;
        self.worst.add(probe.sent, probe.sent, is_worst);
        if !hit {
            return;
        }
        if self.up + self.down > 4000 {
            // Old ones count less and less.
            (self.up, self.down) = (self.up / 2, self.down / 2);
        }
        self.peak_ns = self.peak_ns.max(ipdv_ns);
        self.large.add(ipdv_ns);
        let change = |a: Option<i64>, b: Option<i64>| a.zip(b).map(|(a, b)| a.abs_diff(b));
        if let (Some(up), Some(down)) = (
            change(now.up_ns, before.up_ns),
            change(now.down_ns, before.down_ns),
        ) {
            self.up += u64::from(up >= down);
            self.down += u64::from(down > up);
        }
    }

    /// Once a second. Others know so much of it.
    pub(crate) fn each_second(
        &mut self,
        now: Monotonic,
        beside: Beside,
        t: &Thresholds,
    ) -> Option<Result<Finding, Edge>> {
        if self.rate.since().is_none() && (now.as_nanos() / 1_000_000_000).is_multiple_of(60) {
            // What was counted before does not belong to trouble that begins now.
            (self.up, self.down) = (self.up / 4, self.down / 4);
            self.large = Sketch::new();
        }
        let worse = match self.worst.each_second(now, now, Beside::default()) {
            Some(Change::High { rate, .. }) => Some(rate.share()),
            Some(Change::Over(_)) | None => None,
        };
        let (since, share, within_s) = match self.rate.each_second(now, now, beside) {
            Some(Change::Over(end)) => {
                self.peak_ns = 0;
                self.large = Sketch::new();
                self.worst.settle(end.at);
                return Some(Err(end));
            }
            Some(Change::High {
                since,
                rate,
                within_s,
                ..
            }) => {
                let share = match self.worst.since() {
                    // It may have begun before the rest was sure.
                    Some(_) => self.worst.last(now, within_s).share(),
                    None => rate.share(),
                };
                (since, worse.unwrap_or(share), within_s)
            }
            None => (self.rate.since()?, worse?, MINUTE_S),
        };
        let (severity, p95_above_ns) = if self.worst.since().is_some() {
            (Severity::Critical, t.jitter_critical_ns)
        } else {
            (Severity::Warning, t.jitter_ns)
        };
        let mut f = Finding::new(Kind::HighJitter, severity, since.at)
            .grain(since.grain_ns)
            .direction(Direction::of_weights(self.up, self.down))
            .number("p95_above_ns", p95_above_ns)
            .number("peak_ns", self.peak_ns.into())
            .ratio("share", share);
        if let Some(p95_ns) = self.p95_ns(now, within_s) {
            f = f.number("p95_ns", p95_ns.max(p95_above_ns));
        }
        Some(Ok(f))
    }

    /// What one in twenty neighbours differs by, ns: of those that differ much, all others being below.
    fn p95_ns(&mut self, now: Monotonic, within_s: u64) -> Option<u64> {
        let large = self.rate.last(now, within_s).share();
        let below = 1.0 - ABOVE / large.max(ABOVE);
        self.large.quantile(below).map(u64::from)
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::Value;
    use super::*;
    use crate::sample::{Sample, SeriesIndex, Status};

    /// Delay that varies by 20 ms becomes one that varies by 60 ms ten minutes later.
    #[test]
    fn what_becomes_worse_is_told_again() {
        const MS: u64 = 1_000_000;
        let t = Thresholds::default();
        let mut jitter = Jitter::new(&t, 100 * MS);
        let mut told = std::vec::Vec::new();
        for n in 0..18_000u64 {
            let sent = Monotonic::from_nanos(n * 100 * MS);
            let more_ns = match n {
                3000..9000 => 20 * MS,
                9000..12_000 => 60 * MS,
                _ => 0,
            };
            let mut sample = Sample::lost(SeriesIndex(0), n, sent, 64);
            sample.status = Status::Ok;
            sample.rtt_ns = Some(20 * MS + if n % 8 == 0 { more_ns } else { 0 });
            jitter.step(&Probe::of(&sample), false, &t);
            if n % 10 == 9
                && let Some(news) = jitter.each_second(sent, Beside::default(), &t)
            {
                told.push(
                    news.map(|f| f.severity)
                        .map_err(|end| end.at.as_nanos() / (100 * MS)),
                );
            }
        }
        // The last late one, and the one after it, which differs as much.
        let over = Err(11_993);
        assert_eq!(told, [Ok(Severity::Warning), Ok(Severity::Critical), over]);
    }

    /// Of eight probes one is 60 ms late and one is 20 ms late: the share is that of the former where these are told.
    #[test]
    fn the_share_is_that_above_the_threshold_that_is_told() {
        const MS: u64 = 1_000_000;
        let t = Thresholds::default();
        let mut jitter = Jitter::new(&t, 100 * MS);
        let mut now = Monotonic::ZERO;
        for n in 0..1200u64 {
            now = Monotonic::from_nanos(n * 100 * MS);
            let late_ns = match n % 8 {
                _ if n < 600 => 0,
                1 => 60 * MS,
                5 => 20 * MS,
                _ => 0,
            };
            let mut sample = Sample::lost(SeriesIndex(0), n, now, 64);
            sample.status = Status::Ok;
            sample.rtt_ns = Some(20 * MS + late_ns);
            jitter.step(&Probe::of(&sample), false, &t);
        }
        // What is worse was sure a second before the rest.
        assert!(
            jitter
                .worst
                .each_second(now, now, Beside::default())
                .is_some()
        );
        let finding = jitter
            .each_second(now, Beside::default(), &t)
            .unwrap()
            .unwrap();
        assert_eq!(finding.severity, Severity::Critical);
        let value = |name| finding.values.iter().find(|(n, _)| *n == name).unwrap().1;
        let critical = Value::Number(t.jitter_critical_ns);
        assert_eq!(value("p95_above_ns"), critical);
        assert_eq!(value("p95_ns"), Value::Number(60 * MS));
        let Value::Ratio(share) = value("share") else {
            panic!("{finding:?}");
        };
        assert!((0.2..0.3).contains(&share), "{share}");
    }

    /// Differences of up to 100 ms, evenly, in every third probe: of those that differ by a third of that one in twenty
    /// neighbours is above 92 ms, as each late one makes two.
    #[test]
    fn the_95th_percentile_is_what_was_measured() {
        const MS: u64 = 1_000_000;
        let t = Thresholds::default();
        let mut jitter = Jitter::new(&t, 100 * MS);
        let mut told = None;
        for n in 0..3000u64 {
            let sent = Monotonic::from_nanos(n * 100 * MS);
            // In no order that neighbours could have.
            let late_ns = n / 3 * 37 % 100 * MS;
            let mut sample = Sample::lost(SeriesIndex(0), n, sent, 64);
            sample.status = Status::Ok;
            sample.rtt_ns = Some(20 * MS + if n % 3 == 0 { late_ns } else { 0 });
            jitter.step(&Probe::of(&sample), false, &t);
            if n % 10 == 9
                && let Some(Ok(f)) = jitter.each_second(sent, Beside::default(), &t)
            {
                told = Some(f);
            }
        }
        let told = told.unwrap();
        let number = |name| match told.values.iter().find(|(n, _)| *n == name) {
            Some((_, Value::Number(ns))) => *ns / MS,
            _ => 0,
        };
        assert_eq!(number("p95_above_ns"), 30);
        assert!((85..99).contains(&number("p95_ns")), "{told:?}");
        assert!(number("peak_ns") >= number("p95_ns"));
    }
}
