//! `peak_hour_congestion`: the evening is worse than the night, day after day, while the household
//! does not use the line.

use super::baseline::{DAYS, Sketch, median};
use super::event::{Direction, Finding, Kind, Severity};
use super::input::Thresholds;
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

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Peak {
    minute_at: u64,
    minute: [Sketch; 3],
    hour_at: Option<u64>,
    hour: [Sketch; 3],
    cells: [[Hour; 24]; DAYS],
    /// Of each day, probes of which it was known that the line was idle, and others.
    idle: [(u32, u32); DAYS],
    told: Option<Monotonic>,
}

impl Peak {
    pub(crate) const fn new() -> Self {
        Self {
            minute_at: 0,
            minute: [const { Sketch::new() }; 3],
            hour_at: None,
            hour: [const { Sketch::new() }; 3],
            cells: [[Hour {
                rtt_ns: 0,
                up_ns: 0,
                down_ns: 0,
            }; 24]; DAYS],
            idle: [(0, 0); DAYS],
            told: None,
        }
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
        let (known, other) = &mut self.idle[(local_ns / HOUR_NS / 24 % DAYS as u64) as usize];
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
        let ended = self.hour_at.replace(hour)?;
        if hour == ended {
            return None;
        }
        self.end_minute();
        let [rtt, up, down] = core::mem::replace(&mut self.hour, [const { Sketch::new() }; 3]);
        let cell = &mut self.cells[(ended / 24 % DAYS as u64) as usize];
        if ended.is_multiple_of(24) {
            *cell = [Hour::default(); 24];
        }
        if ended % 24 == 23 {
            // The next day's begin.
            self.idle[((ended / 24 + 1) % DAYS as u64) as usize] = (0, 0);
        }
        if rtt.len() >= MINUTES {
            cell[(ended % 24) as usize] = Hour {
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

    /// Whether the counters showed that the house was idle when the probes of a day were sent.
    fn was_idle(&self, day: u64) -> bool {
        let (known, other) = self.idle[(day % DAYS as u64) as usize];
        known > 0 && other <= known / 20
    }

    fn judge(
        &mut self,
        today: u64,
        midnight: Monotonic,
        t: &Thresholds,
    ) -> Option<Result<Finding, Monotonic>> {
        let days = u64::from(t.peak_days.clamp(1, DAYS as u8 - 1));
        let evening = usize::from(t.peak_hours.0)..usize::from(t.peak_hours.1).min(24);
        let busy_of = |day: u64| busy(&self.cells[(day % DAYS as u64) as usize], evening.clone());
        let last = busy_of(today);
        if let (Some(_), None) = (self.told, last) {
            self.told = None;
            // The last busy hour was the evening before.
            let before = today.checked_sub(1).and_then(busy_of);
            let back = 24 * HOUR_NS + (24 - before.map_or(23, |b| b.last) as u64 - 1) * HOUR_NS;
            return Some(Err(midnight.saturating_sub(back)));
        }
        let first_day = (today + 1).checked_sub(days)?;
        if !(first_day..=today).all(|d| busy_of(d).is_some()) {
            return None;
        }
        let (first, last) = (busy_of(first_day)?, last?);
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
            if self.was_idle(today) {
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
