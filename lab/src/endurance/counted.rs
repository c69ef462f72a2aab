//! What was recorded, counted on the way, and whether the store says the same.

use std::collections::BTreeMap;
use std::ops::{AddAssign, Range};

use bufferbane_core::sample::Sample;
use bufferbane_store::{Filter, Reader, Window};

use super::S;
use super::plan::Plan;
use crate::bench::Fail;

const HOUR_S: i64 = 3600;
const HOUR_NS: u64 = 3600 * S;
/// Rollups of what was that long ago are written.
const ROLLED_S: u64 = 2 * 3600;

/// Samples, and those of them that were lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    samples: u64,
    lost: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.samples += other.samples;
        self.lost += other.lost;
    }
}

/// Tallies of hours.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// By the hour that the clock showed, counted from 1970.
    shown: BTreeMap<i64, Tally>,
    /// By boot and the hour since then, ns.
    booted: BTreeMap<(u32, u64), Tally>,
    /// Each boot, the second of all that it began in, and what its clock showed then, ns.
    boots: Vec<(u32, u64, u64)>,
}

impl Counted {
    /// A boot begins in this second, and recording at so many ns of its clock.
    pub(super) fn begin_boot(&mut self, boot: u32, second: u64, at_ns: u64) {
        self.boots.push((boot, second, at_ns));
    }

    /// A sample of this boot, sent when the clock showed so many seconds since 1970.
    pub(super) fn add(&mut self, boot: u32, shown_s: i64, sample: &Sample) {
        let one = Tally {
            samples: 1,
            lost: u64::from(sample.status.is_lost()),
        };
        let hour = shown_s.div_euclid(HOUR_S);
        *self.shown.entry(hour).or_default() += one;
        let sent_ns = sample.sent.as_nanos();
        let hour = (boot, sent_ns - sent_ns % HOUR_NS);
        *self.booted.entry(hour).or_default() += one;
    }

    /// Those of `other`, too.
    pub(super) fn append(&mut self, other: Self) {
        for (hour, n) in other.shown {
            *self.shown.entry(hour).or_default() += n;
        }
        for (hour, n) in other.booted {
            *self.booted.entry(hour).or_default() += n;
        }
    }

    /// Whether all samples of these seconds are there, and what rollups say of them and as many seconds before
    /// is right; of how many samples either is.
    pub(super) fn look(
        &self,
        plan: &Plan,
        reader: &Reader,
        seconds: Range<u64>,
    ) -> Result<(u64, u64), Fail> {
        let shown_s = plan.wall_s(seconds.start)..plan.wall_s(seconds.end);
        let samples = self.samples(reader, shown_s)?;
        let length = seconds.end - seconds.start;
        let first = self.hour_of(seconds.start.saturating_sub(length));
        let last = self.hour_of(seconds.end.saturating_sub(ROLLED_S));
        Ok((samples, self.rollups(reader, first, last)?))
    }

    /// The boot that a second was in, and the hour of its clock, ns.
    fn hour_of(&self, second: u64) -> (u32, u64) {
        let before = self.boots.iter().rfind(|(_, began, _)| *began <= second);
        let (boot, began, at_ns) = before.copied().unwrap_or_default();
        let at_ns = (second - began) * S + at_ns;
        (boot, at_ns - at_ns % HOUR_NS)
    }

    /// Whether the samples of the whole hours in this stretch, s since 1970, are all there; how many.
    fn samples(&self, reader: &Reader, shown_s: Range<i64>) -> Result<u64, Fail> {
        let (from, to) = (
            shown_s.start.div_euclid(HOUR_S) + 1,
            shown_s.end.div_euclid(HOUR_S),
        );
        let series: Vec<_> = reader.series().map_err(failed)?.into_keys().collect();
        let mut checked = 0;
        for (hour, counted) in self.shown.range(from..to.max(from)) {
            let filter = Filter {
                from_ns: hour * HOUR_S * S.cast_signed(),
                to_ns: (hour + 1) * HOUR_S * S.cast_signed(),
                series: series.clone(),
            };
            let mut found = Tally::default();
            for row in reader.samples(&filter) {
                found.samples += 1;
                found.lost += u64::from(row.map_err(failed)?.sample.status.is_lost());
            }
            let which = || format!("samples of the hour {} s after 1970", hour * HOUR_S);
            same(which, found, *counted)?;
            checked += found.samples;
        }
        Ok(checked)
    }

    /// Whether rollups say the same of the hours from `first` to `last`, each a boot and ns since then; of
    /// how many samples.
    fn rollups(&self, reader: &Reader, first: (u32, u64), last: (u32, u64)) -> Result<u64, Fail> {
        let mut checked = 0;
        for ((boot, begin), counted) in self.booted.range(first..last.max(first)) {
            let within = *begin..begin + HOUR_NS;
            let which = |of| format!("{of} of boot {boot}, {} s after it", begin / S);
            let minutes = sum(reader, Window::Minute, *boot, within.clone())?;
            same(|| which("minutes"), minutes, *counted)?;
            // The last hour of a boot is summed up from its minutes by who reads it.
            if self.booted.contains_key(&(*boot, begin + HOUR_NS)) {
                let hour = sum(reader, Window::Hour, *boot, within)?;
                same(|| which("the hour"), hour, *counted)?;
            }
            checked += minutes.samples;
        }
        Ok(checked)
    }
}

fn sum(reader: &Reader, window: Window, boot: u32, within: Range<u64>) -> Result<Tally, Fail> {
    let mut all = Tally::default();
    for series in reader.series().map_err(failed)?.into_keys() {
        let mut rest = within.clone();
        loop {
            let rows = reader
                .rollups(window, series, boot, rest.clone())
                .map_err(failed)?;
            let Some((last, _)) = rows.last() else { break };
            rest.start = last + 1;
            for (_, row) in rows {
                all += Tally {
                    samples: row.sent + row.unsent,
                    lost: row.lost,
                };
            }
        }
    }
    Ok(all)
}

fn same(which: impl Fn() -> String, found: Tally, counted: Tally) -> Result<(), Fail> {
    if found == counted {
        return Ok(());
    }
    Err(Fail::Failed(format!(
        "{}: the store has {} ({} lost), and {} ({} lost) were recorded",
        which(),
        found.samples,
        found.lost,
        counted.samples,
        counted.lost
    )))
}

fn failed(e: impl std::fmt::Display) -> Fail {
    Fail::of("the store", e)
}
