//! The floor of delays per direction, as a few knots for each series: what queueing delay of every
//! sample follows from.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};

use bufferbane_core::clock::{Knot, Queueing, Update, instant_of};
use bufferbane_core::sample::Sample;
use bufferbane_core::stats::summary::Summary;
use bufferbane_core::time::Monotonic;
use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use crate::error::StoreError;
use crate::model::SeriesId;
use crate::reader::Reader;
use crate::tables::{FLOORS, SeriesTime, open_if_made};

/// Knots of one series and boot, by their instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Floors {
    knots: BTreeMap<u64, Knot>,
}

impl Floors {
    /// Those that say something about samples sent in `[from_ns, to_ns)`.
    pub(crate) fn load(
        table: &impl ReadableTable<SeriesTime, &'static [u8]>,
        series: SeriesId,
        boot: u32,
        from_ns: u64,
        to_ns: u64,
    ) -> Result<Self, StoreError> {
        let key = |ns| (series.0, boot, ns);
        let mut floors = Self::default();
        let before = table.range(key(0)..=key(from_ns))?.next_back();
        let begin = match before.transpose()? {
            Some(row) => row.0.value().2,
            None => from_ns,
        };
        for row in table.range(key(begin)..=key(u64::MAX))? {
            let (key, bytes) = row?;
            let at_ns = key.value().2;
            floors.knots.insert(at_ns, decode(at_ns, bytes.value())?);
            // The instant of a sample lies up to half a round trip after it was sent.
            if at_ns >= to_ns.saturating_add(LONGEST_TRIP_NS) {
                break;
            }
        }
        Ok(floors)
    }

    /// As [`Floors::load`], of a file that may be older than the table.
    pub(crate) fn read(
        tx: &ReadTransaction,
        series: SeriesId,
        boot: u32,
        from_ns: u64,
        to_ns: u64,
    ) -> Result<Self, StoreError> {
        match open_if_made(tx, FLOORS)? {
            Some(table) => Self::load(&table, series, boot, from_ns, to_ns),
            None => Ok(Self::default()),
        }
    }

    /// Those of these samples, which are in the order of time.
    pub(crate) fn of(
        tx: &ReadTransaction,
        series: SeriesId,
        boot: u32,
        samples: &[Sample],
    ) -> Result<Self, StoreError> {
        match (samples.first(), samples.last()) {
            (Some(first), Some(last)) if samples.iter().any(|s| s.raw_up_ns.is_some()) => {
                let (from_ns, to_ns) = (first.sent.as_nanos(), last.sent.as_nanos());
                Self::read(tx, series, boot, from_ns, to_ns)
            }
            _ => Ok(Self::default()),
        }
    }

    /// Queueing delay of a sample; `None` where it has no delay per direction, or the floor is not
    /// known.
    pub(crate) fn queueing(&self, sample: &Sample) -> Option<Queueing> {
        sample.raw_up_ns?;
        let at_ns = instant_of(sample).as_nanos();
        let (_, before) = self.knots.range(..=at_ns).next_back()?;
        let next = self.knots.range((Excluded(at_ns), Unbounded)).next();
        before.queueing(sample, next.map(|(_, k)| k))
    }

    /// Adds a sample to a summary, with its queueing delay.
    pub(crate) fn add_to(&self, summary: &mut Summary, sample: &Sample) {
        summary.add(sample);
        if let Some(queueing) = self.queueing(sample) {
            summary.add_queueing(sample, &queueing);
        }
    }

    /// What is said from `other` on holds instead of what was said here.
    pub(crate) fn overlay(&mut self, other: &Self) {
        self.knots.extend(other.knots.iter().map(|(k, v)| (*k, *v)));
    }

    /// Takes an update; gives the instants whose knots are new or changed.
    fn take(&mut self, update: &Update) -> Vec<u64> {
        match update {
            Update::Knot(k) => {
                self.knots.insert(k.at.as_nanos(), *k);
                vec![k.at.as_nanos()]
            }
            Update::Shift {
                from,
                up_ns,
                down_ns,
            } => {
                let from_ns = from.as_nanos();
                let before = self.knots.range(..from_ns).next_back().map(|k| *k.1);
                let next = self.knots.range(from_ns..).next().map(|k| *k.1);
                if let Some(before) = before
                    && next.is_none_or(|n| n.at > *from)
                {
                    self.knots
                        .insert(from_ns, before.begun_at(*from, next.as_ref()));
                }
                let moved = self.knots.range_mut(from_ns..);
                moved
                    .map(|(at, k)| {
                        *k = k.shifted(*up_ns, *down_ns);
                        *at
                    })
                    .collect()
            }
        }
    }
}

impl Reader {
    /// What is known of the clock of the far end of `series`, and the floor of its delays, at the end
    /// of `[from, to)` of wall time: the last knot before that. `None` where there is none, as for
    /// targets that tell no delay per direction.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn floor(
        &self,
        series: SeriesId,
        from_ns: i64,
        to_ns: i64,
    ) -> Result<Option<Knot>, StoreError> {
        let tx = self.read()?;
        let Some(table) = open_if_made(&tx, FLOORS)? else {
            return Ok(None);
        };
        for s in self.time_map().clip(from_ns, to_ns).into_iter().rev() {
            let mut rows =
                table.range((series.0, s.boot, s.from_ns)..(series.0, s.boot, s.to_ns))?;
            if let Some((key, bytes)) = rows.next_back().transpose()? {
                return decode(key.value().2, bytes.value()).map(Some);
            }
        }
        Ok(None)
    }
}

/// Longer round trips are not looked for, ns.
const LONGEST_TRIP_NS: u64 = 137_000_000_000;

/// Knots that wait at most before those of samples that have given way are dropped.
const MOST_UNWRITTEN: usize = 100_000;

/// The floor of a series that is being recorded: what it was lately, and what is not in the file yet.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    pub(crate) floors: Floors,
    /// Knots that are to be written.
    dirty: BTreeSet<u64>,
    /// Shifts of what is in the file.
    shifts: Vec<Update>,
}

impl Recent {
    pub(crate) fn take(&mut self, update: &Update, oldest_ns: u64) {
        self.dirty.extend(self.floors.take(update));
        // While nothing can be written, samples give way too.
        if self.dirty.len() > MOST_UNWRITTEN {
            self.forget_before(oldest_ns);
            let kept = self.floors.knots.keys().next().copied();
            self.dirty = self.dirty.split_off(&kept.unwrap_or(0));
        }
        if matches!(update, Update::Shift { .. }) {
            self.shifts.push(*update);
        }
    }

    /// From when on what was said before has changed.
    pub(crate) fn changed_from_ns(&self) -> Option<u64> {
        let from = self.shifts.iter().filter_map(|u| match u {
            Update::Shift { from, .. } => Some(from.as_nanos()),
            Update::Knot(_) => None,
        });
        from.min()
    }

    /// Writes what is new, and corrects what is in the file.
    pub(crate) fn write(
        &self,
        tx: &WriteTransaction,
        series: SeriesId,
        boot: u32,
    ) -> Result<(), StoreError> {
        if self.dirty.is_empty() && self.shifts.is_empty() {
            return Ok(());
        }
        let mut table = tx.open_table(FLOORS)?;
        for shift in &self.shifts {
            let Update::Shift { from, .. } = shift else {
                continue;
            };
            let mut stored = Floors::load(&table, series, boot, from.as_nanos(), u64::MAX)?;
            for at_ns in stored.take(shift) {
                put(&mut table, (series.0, boot, at_ns), &stored.knots[&at_ns])?;
            }
        }
        for at_ns in &self.dirty {
            if let Some(knot) = self.floors.knots.get(at_ns) {
                put(&mut table, (series.0, boot, *at_ns), knot)?;
            }
        }
        Ok(())
    }

    /// Everything is in the file; what is older than samples from `oldest_ns` on need is forgotten.
    pub(crate) fn settle(&mut self, oldest_ns: u64) {
        self.dirty.clear();
        self.shifts.clear();
        self.forget_before(oldest_ns);
    }

    fn forget_before(&mut self, oldest_ns: u64) {
        if let Some((&keep, _)) = self.floors.knots.range(..=oldest_ns).next_back() {
            self.floors.knots = self.floors.knots.split_off(&keep);
        }
    }
}

fn put(
    table: &mut redb::Table<'_, SeriesTime, &'static [u8]>,
    key: SeriesTime,
    knot: &Knot,
) -> Result<(), StoreError> {
    let mut bytes = [0; Knot::MAX_ENCODED];
    let len = knot
        .encode(&mut bytes)
        .ok_or_else(|| StoreError::Damaged("a knot does not fit".into()))?;
    table.insert(key, &bytes[..len])?;
    Ok(())
}

pub(crate) fn decode(at_ns: u64, bytes: &[u8]) -> Result<Knot, StoreError> {
    Knot::decode(Monotonic::from_nanos(at_ns), bytes)
        .ok_or_else(|| StoreError::Damaged("a damaged knot of a floor".into()))
}
