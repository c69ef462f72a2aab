//! `upload_degraded` and `download_degraded`: the line carries less than it did.

use super::baseline::{ENOUGH_DAYS, Week, median};
use super::event::{Direction, Finding, Kind, Severity};
use super::input::{Capacity, Thresholds};
use crate::household;
use crate::time::Monotonic;

const S: u64 = 1_000_000_000;
const HOUR_NS: u64 = 3600 * S;
const KEPT: usize = 32;
/// So many measurements make a baseline.
const ENOUGH: usize = 4;
/// What has been low for this long, and as often as makes a baseline, is how things are now, ns.
const PATIENCE_NS: u64 = 6 * HOUR_NS;
/// What was measured longer ago is not told beside what is measured now, seconds.
const LATEST_S: u32 = 86_400;
/// So many trains in a row, each of which says that the line is low, are told at once: unlike what is
/// read off a household's traffic, each is a measurement by itself.
const TRAINS: u8 = 3;
/// From the first of them to the last at least this, ns: a hiccup of a second is none.
const TRAINS_NS: u64 = S;

/// A line that was found to carry less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Low {
    first: Monotonic,
    last: Monotonic,
    /// Nobody knows from then on, unless it is measured again.
    until: Monotonic,
    /// Measurements that say so.
    count: usize,
}

/// One direction of a line. Rates are kept in kbit/s.
///
/// What it is held against is the median of the same hour of the last seven days where three of them
/// are known, else that of the last measurements that were not low.
#[derive(Clone, Debug)]
pub(crate) struct CapacityWatch {
    good: [u32; KEPT],
    next: u8,
    len: u8,
    /// The hour since a local midnight that is being measured, and what it has shown so far.
    hour: u64,
    hour_best: [u32; 4],
    hour_len: u32,
    by_hour: Week,
    /// What was measured last, 0 where nothing was, and when, seconds.
    latest: u32,
    latest_s: u32,
    low: Option<Low>,
    lowest: u32,
    told: bool,
    /// Low measurements in a row, where each stands for itself.
    row: Option<u8>,
}

impl CapacityWatch {
    /// Of what the line carries in the long run.
    pub(crate) const fn new() -> Self {
        Self::with(None)
    }

    /// Of packet trains: of what passes in bursts, so that the two have baselines of their own.
    pub(crate) const fn of_trains() -> Self {
        Self::with(Some(0))
    }

    const fn with(row: Option<u8>) -> Self {
        Self {
            good: [0; KEPT],
            next: 0,
            len: 0,
            hour: 0,
            hour_best: [0; 4],
            hour_len: 0,
            by_hour: Week::new(),
            latest: 0,
            latest_s: 0,
            low: None,
            lowest: u32::MAX,
            told: false,
            row,
        }
    }

    /// What is normal now, and whether that is of this hour of the day; `None` before enough was
    /// measured.
    fn baseline(&self, local_ns: Option<u64>) -> Option<(u32, bool)> {
        let of_hour = local_ns.and_then(|ns| self.by_hour.median(ns / HOUR_NS, ENOUGH_DAYS));
        if let Some(m) = of_hour {
            return Some((m, true));
        }
        let good = &self.good[..usize::from(self.len)];
        let recent = median(good).filter(|_| good.len() >= ENOUGH);
        recent.map(|m| (m, false))
    }

    /// One measurement. `local_ns` counts from a local midnight, where the time is known.
    pub(crate) fn step(
        &mut self,
        c: &Capacity,
        local_ns: Option<u64>,
        t: &Thresholds,
    ) -> Option<Result<Finding, (Kind, Monotonic)>> {
        let (at, up) = (c.at, c.up);
        let rate = kbps(c.rate_bps);
        if let Some(local_ns) = local_ns {
            self.end_hour(local_ns / HOUR_NS);
        }
        let base = self.baseline(local_ns);
        let share_of = |rate| base.map_or(1.0, |(b, _)| f64::from(rate) / f64::from(b.max(1)));
        let share = share_of(rate);
        if share < t.capacity
            && household::shared(c.others_bps, c.rate_bps)
            && share_of(kbps(c.rate_bps.saturating_add(c.others_bps))) >= t.capacity
        {
            // As much as ever: others had their part of it.
            return None;
        }
        (self.latest, self.latest_s) = (rate, seconds(at));
        if local_ns.is_some() {
            // Low or not: an hour that is slow every day is slow in its own baseline.
            self.hour_best[self.hour_len as usize % self.hour_best.len()] = rate;
            self.hour_len = self.hour_len.wrapping_add(1);
        }
        let stays = self.low.is_some_and(|low| {
            low.count + 1 >= ENOUGH && at.saturating_since(low.first) >= PATIENCE_NS
        });
        if share < t.capacity && stays {
            self.len = 0;
            self.next = 0;
            self.by_hour = Week::new();
        }
        if share >= t.capacity || stays {
            self.row = self.row.map(|_| 0);
            self.good[usize::from(self.next)] = rate;
            self.next = (self.next + 1) % KEPT as u8;
            self.len = (self.len + 1).min(KEPT as u8);
            return self.over(up);
        }
        let until = at.saturating_add(c.speaks_for_ns);
        let low = self.low.get_or_insert(Low {
            first: at,
            last: at,
            until,
            count: 0,
        });
        low.last = at;
        low.until = low.until.max(until);
        low.count += 1;
        let first = low.first;
        self.lowest = self.lowest.min(rate);
        let deep = share < t.capacity_deep;
        let needed_ns = if deep {
            t.capacity_deep_for_ns
        } else {
            t.capacity_for_ns
        };
        self.row = self.row.map(|n| if deep { n.saturating_add(1) } else { n });
        let lasted_ns = at.saturating_since(first);
        let in_a_row = self.row.is_some_and(|n| n >= TRAINS) && lasted_ns >= TRAINS_NS;
        if lasted_ns < needed_ns && !in_a_row && !self.told {
            return None;
        }
        self.told = true;
        let severity = if share < t.capacity_critical {
            Severity::Critical
        } else {
            Severity::Warning
        };
        let (base, of_hour) = base.unwrap_or((0, false));
        Some(Ok(Finding::new(kind(up), severity, first)
            .direction(Some(if up { Direction::Up } else { Direction::Down }))
            .number("measured_bps", u64::from(rate) * 1000)
            .number("lowest_bps", u64::from(self.lowest) * 1000)
            .number("baseline_bps", u64::from(base) * 1000)
            .word("baseline", if of_hour { "hour" } else { "recent" })))
    }

    /// What it carried when it was last measured, within a day before `now`, and what is normal for it, bit/s.
    pub(crate) fn figures(
        &self,
        now: Monotonic,
        local_ns: Option<u64>,
    ) -> Option<(u64, Option<u64>)> {
        let is_recent = seconds(now).saturating_sub(self.latest_s) <= LATEST_S;
        let bps = |kbps: u32| u64::from(kbps) * 1000;
        let base = self.baseline(local_ns).map(|(b, _)| bps(b));
        (self.latest > 0 && is_recent).then_some((bps(self.latest), base))
    }

    /// Once a second: ends what nobody can say any longer.
    pub(crate) fn each_second(&mut self, now: Monotonic, up: bool) -> Option<(Kind, Monotonic)> {
        if now < self.low?.until {
            return None;
        }
        self.over(up)?.err()
    }

    /// One measurement of before: it is part of the baseline, and nothing is told of it. To be given in
    /// the order of time, with times of one clock, and followed by [`CapacityWatch::end_past`].
    pub(crate) fn learn(&mut self, c: &Capacity, local_ns: Option<u64>, t: &Thresholds) {
        let _ = self.step(c, local_ns, t);
    }

    /// What was low before is to be seen again before it is told.
    pub(crate) fn end_past(&mut self) {
        let _ = self.over(true);
        // That was by another clock.
        self.latest = 0;
        self.row = self.row.map(|_| 0);
    }

    fn over(&mut self, up: bool) -> Option<Result<Finding, (Kind, Monotonic)>> {
        let Low { last, .. } = self.low.take()?;
        self.lowest = u32::MAX;
        core::mem::take(&mut self.told).then_some(Err((kind(up), last)))
    }

    fn end_hour(&mut self, hour: u64) {
        if hour == self.hour {
            return;
        }
        let n = (self.hour_len as usize).min(self.hour_best.len());
        self.by_hour
            .end(self.hour, hour, median(&self.hour_best[..n]));
        self.hour = hour;
        self.hour_len = 0;
    }
}

fn seconds(at: Monotonic) -> u32 {
    u32::try_from(at.as_nanos() / S).unwrap_or(u32::MAX)
}

fn kbps(bps: u64) -> u32 {
    u32::try_from(bps / 1000).unwrap_or(u32::MAX)
}

const fn kind(up: bool) -> Kind {
    if up {
        Kind::UploadDegraded
    } else {
        Kind::DownloadDegraded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MBIT: u64 = 1_000_000;

    fn upload(at: Monotonic, rate_bps: u64) -> Capacity {
        Capacity {
            at,
            up: true,
            rate_bps,
            by_train: false,
            others_bps: 0,
            speaks_for_ns: Capacity::MOMENT_NS,
        }
    }

    struct Told(CapacityWatch);

    impl Told {
        fn at(&mut self, s: u64, local_ns: Option<u64>, bps: u64) -> Option<Option<u64>> {
            let c = upload(Monotonic::from_nanos(s * S), bps);
            let told = self.0.step(&c, local_ns, &Thresholds::default());
            told.map(|t| t.ok().map(|f| f.start.as_nanos() / S))
        }
    }

    #[test]
    fn a_deep_fall_is_told_within_seconds_and_a_shallow_one_after_half_a_minute() {
        for (bps, seconds) in [(4 * MBIT, 6), (7 * MBIT, 30)] {
            let mut w = Told(CapacityWatch::new());
            for s in (0..30).step_by(3) {
                assert_eq!(w.at(s, None, 10 * MBIT), None);
            }
            let first = (30..120).step_by(3).find(|s| w.at(*s, None, bps).is_some());
            assert_eq!(first, Some(30 + seconds));
            // It is over when the line is well again, or when nobody knows any longer.
            let mut forgotten = w.0.clone();
            assert_eq!(w.at(130, None, 10 * MBIT), Some(None));
            let later = Monotonic::from_nanos(120 * S + Capacity::MOMENT_NS);
            let end = forgotten.each_second(later, true);
            assert!(end.is_some_and(
                |(k, at)| k == Kind::UploadDegraded && at.as_nanos() / S == first.unwrap()
            ));
            assert_eq!(forgotten.each_second(later, true), None);
        }
    }

    /// Evenings carry half, day after day: after three of them that is not news. A fall below what
    /// evenings carry is.
    #[test]
    fn an_hour_that_is_slow_every_day_is_held_against_itself() {
        let mut w = Told(CapacityWatch::new());
        let mut told = [0; 7];
        for day in 0..7u64 {
            for minute in 0..24 * 60 {
                let s = day * 86_400 + minute * 60;
                let evening = (20 * 60..21 * 60).contains(&minute);
                let bps = match (evening, day, minute) {
                    (true, 6, ..1240) => 2 * MBIT,
                    (true, ..) => 6 * MBIT,
                    (false, ..) => 10 * MBIT,
                };
                if minute % 7 == 0 && matches!(w.at(s, Some(s * S), bps), Some(Some(_))) {
                    told[day as usize] += 1;
                }
            }
        }
        assert!(told[0] > 0 && told[6] > 0, "{told:?}");
        assert_eq!(told[3..6], [0, 0, 0], "{told:?}");
    }

    /// Slow evenings of three months ago, and none that was measured since.
    #[test]
    fn evenings_of_long_ago_are_no_baseline() {
        let mut w = Told(CapacityWatch::new());
        let evening = 20 * 3600;
        let mut told = 0;
        for day in 0..100u64 {
            for s in [9 * 3600, 9 * 3600 + 60, evening, evening + 60] {
                let bps = if s < evening { 10 * MBIT } else { 5 * MBIT };
                if s < evening || !(7..97).contains(&day) {
                    let at = day * 86_400 + s;
                    let is_told = matches!(w.at(at, Some(at * S), bps), Some(Some(_)));
                    told += u64::from(is_told && day >= 97);
                }
            }
        }
        assert_eq!(told, 3);
    }

    /// Trains come seldom, and soon where one was low: three in a row are enough.
    #[test]
    fn three_low_trains_in_a_row_are_told_at_once() {
        let mut w = CapacityWatch::of_trains();
        let mut at = |ms: u64, bps: u64| {
            let c = upload(Monotonic::from_nanos(ms * 1_000_000), bps);
            let told = w.step(&c, None, &Thresholds::default());
            told.map(|t| t.is_ok())
        };
        for n in 0..10 {
            assert_eq!(at(n * 6000, 10 * MBIT), None);
        }
        // Two, and a good one between; three within less than a second; three.
        for (ms, bps) in [(60_000, 5), (60_700, 5), (61_400, 10), (66_000, 5)] {
            assert_eq!(at(ms, bps * MBIT), None, "{ms}");
        }
        assert_eq!(at(66_400, 5 * MBIT), None);
        assert_eq!(at(66_800, 5 * MBIT), None);
        assert_eq!(at(67_200, 5 * MBIT), Some(true));
        assert_eq!(at(73_000, 10 * MBIT), Some(false));
        // What is only a little low has to last.
        assert_eq!(at(79_000, 7 * MBIT), None);
        assert_eq!(at(90_000, 7 * MBIT), None);
        assert_eq!(at(110_000, 7 * MBIT), Some(true));
    }

    #[test]
    fn what_stays_low_becomes_normal() {
        let mut w = Told(CapacityWatch::new());
        for s in (0..3600).step_by(60) {
            w.at(s, None, 10 * MBIT);
        }
        for s in (3600..3600 + 7 * 3600).step_by(60) {
            w.at(s, None, 5 * MBIT);
        }
        assert_eq!(w.0.low, None);
        assert_eq!(w.at(40_000, None, 5 * MBIT), None);
    }

    /// A test an hour, of which each speaks until the next: the second low one is told, a good one ends it,
    /// and where none comes any more nobody knows.
    #[test]
    fn a_low_test_stays_until_the_next_says_otherwise() {
        const HOUR: u64 = 3600;
        let mut w = CapacityWatch::new();
        let at = |s: u64| Monotonic::from_nanos(s * S);
        let hour = |w: &mut CapacityWatch, n: u64, bps: u64| {
            let c = Capacity {
                speaks_for_ns: 8 * HOUR_NS,
                ..upload(at(n * HOUR), bps)
            };
            let told = w.step(&c, None, &Thresholds::default());
            let between = (1..60).find_map(|m| w.each_second(at(n * HOUR + m * 60), true));
            assert_eq!(between, None, "{n}");
            told.map(|t| t.map(|f| f.start).map_err(|(_, end)| end))
        };
        for n in 0..5 {
            assert_eq!(hour(&mut w, n, 10 * MBIT), None);
        }
        assert_eq!(hour(&mut w, 5, 4 * MBIT), None);
        assert_eq!(hour(&mut w, 6, 4 * MBIT), Some(Ok(at(5 * HOUR))));
        let mut silent = w.clone();
        assert_eq!(hour(&mut w, 7, 10 * MBIT), Some(Err(at(6 * HOUR))));
        assert_eq!(silent.each_second(at(14 * HOUR - 1), true), None);
        let end = silent.each_second(at(14 * HOUR), true);
        assert_eq!(end, Some((Kind::UploadDegraded, at(6 * HOUR))));
    }

    /// An hourly test of a line of 10 Mbit/s: found, of others meanwhile, both in Mbit/s.
    fn hourly(w: &mut CapacityWatch, hour: u64, (found, others): (u64, u64)) -> Option<bool> {
        let c = Capacity {
            others_bps: others * MBIT,
            speaks_for_ns: 8 * HOUR_NS,
            ..upload(Monotonic::from_nanos(hour * HOUR_NS), found * MBIT)
        };
        let local_ns = Some(hour * HOUR_NS);
        let told = w.step(&c, local_ns, &Thresholds::default());
        told.map(|t| t.is_ok())
    }

    #[test]
    fn a_low_test_while_others_upload_is_not_held_against_the_line_and_one_on_an_idle_line_is() {
        let known = || {
            let mut w = CapacityWatch::new();
            for hour in 0..8 {
                assert_eq!(hourly(&mut w, hour, (10, 0)), None);
            }
            w
        };
        let mut w = known();
        // As often and as long as makes what is low the new normal: that it does not become either.
        for hour in 8..20 {
            assert_eq!(hourly(&mut w, hour, (4, 6)), None, "{hour}");
        }
        assert_eq!((w.low, w.baseline(None)), (None, Some((10_000, false))));
        assert_eq!(hourly(&mut w, 20, (4, 0)), None);
        // One that says nothing, amid those that do, neither ends nor tells anything.
        assert_eq!(hourly(&mut w, 21, (4, 6)), None);
        assert_eq!(hourly(&mut w, 22, (4, 0)), Some(true));
        assert_eq!(hourly(&mut w, 23, (4, 6)), None);
        assert_eq!(hourly(&mut w, 24, (10, 0)), Some(false));
        // Still low with theirs; and what is theirs is too little to be why.
        for others in [3, 0] {
            let mut w = known();
            assert_eq!(hourly(&mut w, 8, (4, others)), None);
            assert_eq!(hourly(&mut w, 9, (4, others)), Some(true), "{others}");
        }
        let mut w = known();
        for hour in 8..10 {
            let c = Capacity {
                others_bps: 875_000,
                speaks_for_ns: 8 * HOUR_NS,
                ..upload(Monotonic::from_nanos(hour * HOUR_NS), 7_200_000)
            };
            let told = w.step(&c, None, &Thresholds::default());
            assert_eq!(told.is_some(), hour == 9);
        }
    }

    /// Two low tests that are far apart do not make a new normal, but four do.
    #[test]
    fn what_is_seldom_measured_is_told_before_it_becomes_normal() {
        let mut w = CapacityWatch::new();
        let told: [Option<bool>; 12] = core::array::from_fn(|n| {
            let n = n as u64;
            let bps = if n < 4 { 10 * MBIT } else { 5 * MBIT };
            let c = Capacity {
                speaks_for_ns: 48 * HOUR_NS,
                ..upload(Monotonic::from_nanos(n * 6 * HOUR_NS), bps)
            };
            let told = w.step(&c, None, &Thresholds::default());
            told.map(|t| t.is_ok())
        });
        let (low, over) = (Some(true), Some(false));
        let expected = [None, None, None, None, None, low, low, over];
        assert_eq!(told[..8], expected);
        assert_eq!(told[8..], [None; 4]);
    }

    /// What was measured before a restart makes the baseline after it, and tells nothing by itself.
    #[test]
    fn the_baseline_of_before_is_that_of_now() {
        let t = Thresholds::default();
        let mut w = CapacityWatch::new();
        for s in (0..30).step_by(3) {
            let bps = if s < 20 { 10 * MBIT } else { 4 * MBIT };
            w.learn(&upload(Monotonic::from_nanos(s * S), bps), None, &t);
        }
        w.end_past();
        assert_eq!(
            w.each_second(Monotonic::from_nanos(9 * HOUR_NS), true),
            None
        );
        // Monotonic time begins anew with each boot.
        let mut w = Told(w);
        let first = (0..30)
            .step_by(3)
            .find(|s| w.at(*s, None, 4 * MBIT).is_some());
        assert_eq!(first, Some(6));
        let unlearned = |s| Told(CapacityWatch::new()).at(s, None, 4 * MBIT);
        assert!((0..30).step_by(3).all(|s| unlearned(s).is_none()));
    }
}
