//! `peak_hour_congestion`: the evening is worse than the night, day after day, while the household
//! does not use the line.

use super::baseline::{DAYS, Sketch, median};
use super::event::{Direction, Finding, Kind, Severity};
use super::input::{PastHour, Thresholds};
use crate::time::Monotonic;

const MINUTE_NS: u64 = 60_000_000_000;
const HOUR_NS: u64 = 60 * MINUTE_NS;
/// Night, local hours.
const NIGHT: core::ops::Range<usize> = 3..6;
/// An hour is busy at this many times the night's delay, and this much above it.
const RATIO: f64 = 1.3;
const ABOVE_NS: u32 = 5_000_000;
/// An hour counts with at least so many good minutes.
const MINUTES: usize = 15;

/// Delay of an hour, ns; 0 where it is not known.
#[derive(Clone, Copy, Debug, Default)]
struct Hour {
    rtt_ns: u32,
    up_ns: u32,
    down_ns: u32,
}

/// A local day.
#[derive(Clone, Copy, Debug)]
struct Day {
    /// Days since the local clock's first midnight.
    number: u64,
    hours: [Hour; 24],
    /// Probes of which it was known that the line was idle, and others.
    idle: (u32, u32),
}

impl Day {
    const fn new(number: u64) -> Self {
        let hour = Hour {
            rtt_ns: 0,
            up_ns: 0,
            down_ns: 0,
        };
        Self {
            number,
            hours: [hour; 24],
            idle: (0, 0),
        }
    }

    /// Whether the counters showed that the house was idle when its probes were sent.
    const fn was_idle(&self) -> bool {
        let (known, other) = self.idle;
        known > 0 && other <= known / 20
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Peak {
    minute_at: u64,
    minute: [Sketch; 3],
    hour_at: Option<u64>,
    hour: [Sketch; 3],
    days: [Day; DAYS],
    told: Option<Monotonic>,
}

impl Peak {
    pub(crate) const fn new() -> Self {
        Self {
            minute_at: 0,
            minute: [const { Sketch::new() }; 3],
            hour_at: None,
            hour: [const { Sketch::new() }; 3],
            days: [const { Day::new(0) }; DAYS],
            told: None,
        }
    }

    /// What is known of a day: nothing of one that was too long ago.
    fn day(&self, number: u64) -> Option<&Day> {
        let day = &self.days[(number % DAYS as u64) as usize];
        (day.number == number).then_some(day)
    }

    /// Room for what becomes known of a day; another one that had its place is a week ago.
    fn day_mut(&mut self, number: u64) -> &mut Day {
        let day = &mut self.days[(number % DAYS as u64) as usize];
        if day.number != number {
            *day = Day::new(number);
        }
        day
    }

    /// An hour of before this run. To be told in the order of time, and before the first probe.
    pub(crate) fn recall(&mut self, h: &PastHour) {
        let day = self.day_mut(h.local_hour / 24);
        day.hours[(h.local_hour % 24) as usize] = Hour {
            rtt_ns: h.rtt_ns.max(1),
            up_ns: h.queues_ns.0,
            down_ns: h.queues_ns.1,
        };
        let (known, other) = &mut day.idle;
        let count = if h.idle { known } else { other };
        *count = count.saturating_add(h.probes);
    }

    /// One answered probe of an idle line (or one whose load is not known). `local_ns` counts from a
    /// local midnight.
    pub(crate) fn step(
        &mut self,
        local_ns: u64,
        rtt_ns: u32,
        queues_ns: Option<(u32, u32)>,
        idle: bool,
    ) {
        let (known, other) = &mut self.day_mut(local_ns / HOUR_NS / 24).idle;
        let count = if idle { known } else { other };
        *count = count.saturating_add(1);
        let minute = local_ns / MINUTE_NS;
        if minute != self.minute_at {
            self.end_minute();
            self.minute_at = minute;
        }
        self.minute[0].add(rtt_ns);
        if let Some((up, down)) = queues_ns {
            self.minute[1].add(up);
            self.minute[2].add(down);
        }
    }

    fn end_minute(&mut self) {
        for n in 0..3 {
            let ended = core::mem::replace(&mut self.minute[n], Sketch::new());
            if let Some(m) = ended.median() {
                self.hour[n].add(m);
            }
        }
    }

    /// Once a second: at the end of each hour what is known now.
    pub(crate) fn each_second(
        &mut self,
        now: Monotonic,
        local_ns: u64,
        t: &Thresholds,
    ) -> Option<Result<Finding, Monotonic>> {
        let hour = local_ns / HOUR_NS;
        let Some(ended) = self.hour_at.replace(hour) else {
            // What the days before this run have shown lasts until an evening is well.
            let midnight = now.saturating_sub(local_ns % (24 * HOUR_NS));
            return self.judge((hour / 24).checked_sub(1)?, midnight, t);
        };
        if hour == ended {
            return None;
        }
        self.end_minute();
        let [rtt, up, down] = core::mem::replace(&mut self.hour, [const { Sketch::new() }; 3]);
        if rtt.len() >= MINUTES {
            self.day_mut(ended / 24).hours[(ended % 24) as usize] = Hour {
                rtt_ns: rtt.median().unwrap_or(0).max(1),
                up_ns: up.median().unwrap_or(0),
                down_ns: down.median().unwrap_or(0),
            };
        }
        // Only a day that is over has both its night and its evening.
        if ended % 24 != 23 {
            return None;
        }
        let midnight = now.saturating_sub(local_ns % HOUR_NS);
        self.judge(ended / 24, midnight, t)
    }

    fn judge(
        &mut self,
        today: u64,
        midnight: Monotonic,
        t: &Thresholds,
    ) -> Option<Result<Finding, Monotonic>> {
        let days = u64::from(t.peak_days.clamp(1, DAYS as u8));
        let evening = usize::from(t.peak_hours.0)..usize::from(t.peak_hours.1).min(24);
        let busy_of = |day: u64| busy(&self.day(day)?.hours, evening.clone());
        let last = busy_of(today);
        // The last busy hour was the evening before.
        let before = today.checked_sub(1).and_then(busy_of);
        let first_day = (today + 1).checked_sub(days);
        let in_a_row = |first: &u64| (*first..=today).all(|d| busy_of(d).is_some());
        let first = first_day.filter(in_a_row).and_then(busy_of);
        if let (Some(_), None) = (self.told, last) {
            self.told = None;
            let back = 24 * HOUR_NS + (24 - before.map_or(23, |b| b.last) as u64 - 1) * HOUR_NS;
            return Some(Err(midnight.saturating_sub(back)));
        }
        let (first, last) = (first?, last?);
        let start = *self.told.get_or_insert(
            midnight.saturating_sub(days * 24 * HOUR_NS - first.first as u64 * HOUR_NS),
        );
        let direction = Direction::of_weights(last.up_ns.into(), last.down_ns.into());
        Some(Ok(Finding::new(
            Kind::PeakHourCongestion,
            Severity::Warning,
            start,
        )
        .direction(direction)
        .number("days", days)
        .number("from_hour", last.first as u64)
        .number("to_hour", last.last as u64 + 1)
        .number("night_ns", last.night_ns.into())
        .number("evening_ns", last.evening_ns.into())
        .word(
            "load",
            if self.day(today).is_some_and(Day::was_idle) {
                "idle"
            } else {
                "unknown"
            },
        )
        .ratio(
            "ratio",
            f64::from(last.evening_ns) / f64::from(last.night_ns.max(1)),
        )))
    }
}

/// The busy hours of a day.
#[derive(Clone, Copy, Debug)]
struct Evening {
    first: usize,
    last: usize,
    night_ns: u32,
    evening_ns: u32,
    up_ns: u32,
    down_ns: u32,
}

fn busy(day: &[Hour; 24], mut evening: core::ops::Range<usize>) -> Option<Evening> {
    let of = |hours: core::ops::Range<usize>, get: fn(&Hour) -> u32| {
        let mut values = [0; 24];
        let mut n = 0;
        for h in day[hours].iter().filter(|h| h.rtt_ns > 0) {
            values[n] = get(h);
            n += 1;
        }
        median(&values[..n])
    };
    let night_ns = of(NIGHT, |h| h.rtt_ns)?;
    let is_busy = |h: &Hour| {
        h.rtt_ns >= night_ns.saturating_add(ABOVE_NS)
            && f64::from(h.rtt_ns) > RATIO * f64::from(night_ns)
    };
    let is_busy = |h: &usize| is_busy(&day[*h]);
    let first = evening.find(is_busy)?;
    let last = evening.rfind(is_busy)?;
    let within = first..last + 1;
    let above =
        |get: fn(&Hour) -> u32| Some(of(within.clone(), get)?.saturating_sub(of(NIGHT, get)?));
    Some(Evening {
        first,
        last,
        night_ns,
        evening_ns: of(within.clone(), |h| h.rtt_ns)?,
        up_ns: above(|h| h.up_ns)?,
        down_ns: above(|h| h.down_ns)?,
    })
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;

    const S: u64 = 1_000_000_000;

    /// Days and the begin of what is told at the end of each of these days, whose evenings are slow or not. The first ones
    /// are recalled, each by its hours, and the others seen. The run begins at a local midnight.
    fn told(recalled: &[bool], seen: &[bool], days: u8) -> Vec<(u64, u64, u64)> {
        let t = Thresholds {
            peak_days: days,
            ..Thresholds::default()
        };
        let mut peak = Peak::new();
        let first = 20_000 * 24;
        let slow = |hour: u64, slow: bool| slow && (19..22).contains(&(hour % 24));
        for (day, evening) in (0..).zip(recalled) {
            for hour in 0..24 {
                peak.recall(&PastHour {
                    local_hour: first + 24 * day + hour,
                    rtt_ns: if slow(hour, *evening) { 60 } else { 20 } * 1_000_000,
                    queues_ns: (0, 0),
                    idle: true,
                    probes: 3600,
                });
            }
        }
        let begin = first + 24 * recalled.len() as u64;
        let mut told = Vec::new();
        for (day, evening) in (0..).zip(seen) {
            for minute in 0..24 * 60 + 1 {
                let since_ns = (day * 24 * 60 + minute) * MINUTE_NS;
                let local_ns = begin * HOUR_NS + since_ns;
                let now = Monotonic::from_nanos(1000 * HOUR_NS + since_ns);
                if let Some(Ok(f)) = peak.each_second(now, local_ns, &t) {
                    let begin_h = f.start.as_nanos() / HOUR_NS;
                    told.push((
                        day + 1,
                        1000 + 24 * day + 24 - begin_h,
                        f.values.len() as u64,
                    ));
                }
                if minute < 24 * 60 {
                    let ms = if slow(minute / 60, *evening) { 60 } else { 20 };
                    peak.step(local_ns + S, ms * 1_000_000, None, true);
                }
            }
        }
        told
    }

    #[test]
    fn as_many_slow_evenings_in_a_row_are_told_as_are_asked_for() {
        assert_eq!(told(&[], &[true, true], 3), []);
        for days in [2, 3, 6, 7] {
            let slow = vec![true; usize::from(days)];
            let told = told(&[], &slow, days);
            let all = u64::from(days);
            assert_eq!(told.len(), 1, "{days}");
            // It began with the first slow hour of the first day.
            assert_eq!((told[0].0, told[0].1), (all, 24 * all - 19), "{days}");
            let mut other = slow;
            other[1] = false;
            assert_eq!(self::told(&[], &other, days), [], "{days}");
        }
    }

    #[test]
    fn evenings_of_before_count_with_those_that_are_seen() {
        let all = told(&[true, true], &[true], 3);
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].0, all[0].1), (1, 3 * 24 - 19));
        assert_eq!(told(&[true, false], &[true], 3), []);
        assert_eq!(told(&[true], &[true], 3), []);
    }
}
