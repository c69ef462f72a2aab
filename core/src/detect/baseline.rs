//! What is normal for a series: medians of minutes, of hours, and of the same hour of other days.

use crate::time::Monotonic;

const MINUTE_NS: u64 = 60_000_000_000;
const HOUR_NS: u64 = 60 * MINUTE_NS;
/// Values kept to take a median of.
const KEPT: usize = 64;
/// Days whose hours are remembered.
pub(crate) const DAYS: usize = 7;
/// So many of them make what is normal at an hour.
pub(crate) const ENOUGH_DAYS: usize = 3;
/// Trouble that lasts longer than this is the new normal, ns.
const PATIENCE_NS: u64 = 6 * HOUR_NS;

/// What the same hour of the last seven days was like, each 0 where it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Week([[u32; DAYS]; 24]);

impl Week {
    pub(crate) const fn new() -> Self {
        Self([[0; DAYS]; 24])
    }

    fn slot(&mut self, hour: u64) -> &mut u32 {
        &mut self.0[(hour % 24) as usize][(hour / 24 % DAYS as u64) as usize]
    }

    /// The hour `ended` was so, and those from then to `next` nobody knows: what their places hold is a week old, and more.
    pub(crate) fn end(&mut self, ended: u64, next: u64, value: Option<u32>) {
        let week = 24 * DAYS as u64;
        for hour in ended.max(next.saturating_sub(week))..next {
            *self.slot(hour) = 0;
        }
        if next.saturating_sub(ended) <= week {
            *self.slot(ended) = value.unwrap_or(0);
        }
    }

    /// The median of those days of `hour` that are known, where they are so many.
    pub(crate) fn median(&self, hour: u64, at_least: usize) -> Option<u32> {
        let mut known = [0; DAYS];
        let mut n = 0;
        for v in self.0[(hour % 24) as usize].into_iter().filter(|v| *v > 0) {
            known[n] = v;
            n += 1;
        }
        median(&known[..n]).filter(|_| n >= at_least)
    }
}

/// The median of many values from an even selection of at most 64 of them.
#[derive(Clone, Debug)]
pub(crate) struct Sketch {
    kept: [u32; KEPT],
    len: u8,
    /// Every so many values one is kept.
    stride: u32,
    seen: u32,
}

impl Sketch {
    pub(crate) const fn new() -> Self {
        Self {
            kept: [0; KEPT],
            len: 0,
            stride: 1,
            seen: 0,
        }
    }

    pub(crate) fn add(&mut self, value: u32) {
        let turn = self.seen.is_multiple_of(self.stride);
        self.seen = self.seen.wrapping_add(1);
        if !turn {
            return;
        }
        if usize::from(self.len) == KEPT {
            for n in 0..KEPT / 2 {
                self.kept[n] = self.kept[2 * n];
            }
            self.len = (KEPT / 2) as u8;
            self.stride = self.stride.saturating_mul(2);
        }
        self.kept[usize::from(self.len)] = value;
        self.len += 1;
    }

    pub(crate) const fn len(&self) -> usize {
        self.len as usize
    }

    pub(crate) fn median(&self) -> Option<u32> {
        median(&self.kept[..self.len()])
    }

    /// What this share of the values is below, 0 to 1.
    pub(crate) fn quantile(&self, share: f64) -> Option<u32> {
        let mut sorted = self.kept;
        let sorted = sorted.get_mut(..self.len())?;
        sorted.sort_unstable();
        let n = (share.clamp(0.0, 1.0) * sorted.len() as f64) as usize;
        sorted.get(n).or(sorted.last()).copied()
    }
}

/// The median of at most [`KEPT`] values.
pub(crate) fn median(values: &[u32]) -> Option<u32> {
    let mut sorted = [0; KEPT];
    let n = values.len().min(KEPT);
    let sorted = sorted.get_mut(..n)?;
    sorted.copy_from_slice(values.get(..n)?);
    sorted.sort_unstable();
    sorted.get(n / 2).copied()
}

/// The median of the last so many values that are there.
#[derive(Clone, Debug)]
pub(crate) struct Recent<const N: usize> {
    values: [u32; N],
    next: usize,
    len: usize,
}

impl<const N: usize> Recent<N> {
    pub(crate) const fn new() -> Self {
        Self {
            values: [0; N],
            next: 0,
            len: 0,
        }
    }

    pub(crate) fn add(&mut self, value: u32) {
        self.values[self.next] = value;
        self.next = (self.next + 1) % N;
        self.len = (self.len + 1).min(N);
    }

    pub(crate) fn median(&self) -> Option<u32> {
        median(&self.values[..self.len])
    }
}

/// The robust recent normal of a series at an hour of the day, ns: the median of that hour on the
/// last seven days where three of them are known, else of the hours of the last day, else of the
/// minutes so far. Minutes of trouble do not count until it has lasted six hours.
#[derive(Clone, Debug)]
pub(crate) struct Baseline {
    minute: Sketch,
    minute_at: u64,
    troubled: bool,
    troubled_since: Option<Monotonic>,
    minutes: Recent<60>,
    hour: Sketch,
    hour_at: u64,
    last_hours: Recent<24>,
    by_hour: Week,
    level_ns: Option<u32>,
}

impl Baseline {
    pub(crate) const fn new() -> Self {
        Self {
            minute: Sketch::new(),
            minute_at: 0,
            troubled: false,
            troubled_since: None,
            minutes: Recent::new(),
            hour: Sketch::new(),
            hour_at: 0,
            last_hours: Recent::new(),
            by_hour: Week::new(),
            level_ns: None,
        }
    }

    /// One value at `at`; whether it belongs to trouble that is being told.
    pub(crate) fn add(&mut self, at: Monotonic, value_ns: u32, troubled: bool) {
        let minute = at.as_nanos() / MINUTE_NS;
        if minute != self.minute_at {
            self.end_minute(at);
            self.minute_at = minute;
        }
        if troubled {
            self.troubled = true;
            let since = *self.troubled_since.get_or_insert(at);
            // A level that has stayed this long is how things are now.
            if at.saturating_since(since) < PATIENCE_NS {
                return;
            }
        } else if self.troubled_since.is_some() && !self.troubled {
            self.troubled_since = None;
        }
        self.minute.add(value_ns);
        if self.level_ns.is_none() && self.minute.len() >= 20 {
            self.level_ns = self.minute.median();
        }
    }

    /// What is normal now; `None` before there were 20 values or a minute.
    pub(crate) const fn level_ns(&self) -> Option<u32> {
        self.level_ns
    }

    /// Begins anew: the path has changed.
    pub(crate) fn restart(&mut self) {
        *self = Self::new();
    }

    fn end_minute(&mut self, at: Monotonic) {
        let m = core::mem::replace(&mut self.minute, Sketch::new()).median();
        let patience_over = self
            .troubled_since
            .is_some_and(|s| at.saturating_since(s) >= PATIENCE_NS);
        let good = !self.troubled || patience_over;
        self.troubled = false;
        let hour = at.as_nanos() / HOUR_NS;
        if hour != self.hour_at {
            self.end_hour(hour);
        }
        if patience_over && m.is_some() {
            // From here on this is how things are: what was before counts no longer.
            self.minutes = Recent::new();
            self.last_hours = Recent::new();
            self.hour = Sketch::new();
            self.by_hour = Week::new();
            self.troubled_since = None;
        }
        if let Some(m) = m.filter(|_| good) {
            self.minutes.add(m);
            self.hour.add(m);
        }
        self.level_ns = self
            .by_hour
            .median(hour, ENOUGH_DAYS)
            .or_else(|| self.last_hours.median())
            .or_else(|| self.minutes.median())
            .or(self.level_ns);
    }

    fn end_hour(&mut self, hour: u64) {
        let ended = self.hour_at;
        self.hour_at = hour;
        let sketch = core::mem::replace(&mut self.hour, Sketch::new());
        // Half an hour of good minutes speaks for an hour.
        let spoken = sketch.median().filter(|_| sketch.len() >= 30);
        self.by_hour.end(ended, hour, spoken);
        if let Some(m) = spoken {
            self.last_hours.add(m);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Monotonic {
        Monotonic::from_nanos(s * 1_000_000_000)
    }

    #[test]
    fn an_hour_of_trouble_does_not_become_normal() {
        let mut b = Baseline::new();
        for s in 0..7200 {
            b.add(at(s), 20_000_000 + (s % 7) as u32, false);
        }
        for s in 7200..10_800 {
            b.add(at(s), 200_000_000, true);
        }
        let level = b.level_ns().unwrap();
        assert!((20_000_000..20_000_010).contains(&level), "{level}");
    }

    #[test]
    fn an_hour_is_held_against_itself_for_seven_days_and_no_longer() {
        let mut week = Week::new();
        let evening = |day: u64| 24 * day + 20;
        let mut hour = 0;
        for day in 0..4 {
            week.end(hour, evening(day), None);
            week.end(evening(day), evening(day) + 1, Some(7));
            hour = evening(day) + 1;
        }
        let before = week;
        let known = |day: u64, at_least| {
            let mut week = before;
            week.end(hour, evening(day), None);
            week.median(20, at_least)
        };
        assert_eq!((known(4, 4), known(7, 4)), (Some(7), Some(7)));
        assert_eq!((known(8, 4), known(8, 3)), (None, Some(7)));
        assert_eq!((known(10, 2), known(10, 1)), (None, Some(7)));
        assert_eq!((known(11, 1), known(400, 1)), (None, None));
        // Measured again, but nothing that speaks for it.
        week.end(hour, evening(7), None);
        week.end(evening(7), evening(7) + 1, None);
        assert_eq!((week.median(20, 4), week.median(20, 3)), (None, Some(7)));
    }

    #[test]
    fn what_stays_becomes_normal() {
        let mut b = Baseline::new();
        for s in 0..7200 {
            b.add(at(s), 20_000_000, false);
        }
        for s in 7200..7200 + 8 * 3600 {
            let troubled = b.level_ns().unwrap() < 50_000_000;
            b.add(at(s), 90_000_000, troubled);
        }
        assert_eq!(b.level_ns(), Some(90_000_000));
    }

    #[test]
    fn a_sketch_keeps_the_median_of_many() {
        let mut s = Sketch::new();
        for n in 0..10_000u32 {
            s.add(n * 7919 % 1000);
        }
        assert!((400..600).contains(&s.median().unwrap()), "{s:?}");
    }
}
