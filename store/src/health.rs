//! The daemon's own condition: minute by minute, and summed up.

use bufferbane_core::stats::histogram::{BUCKETS, Histogram};
use bufferbane_core::time::Monotonic;
use bufferbane_core::varint;

use crate::codec::{from_json, to_json};
use crate::error::StoreError;
use crate::hours::{self, Piece};
use crate::model::Health;
use crate::reader::Reader;
use crate::tables::{HEALTH, HEALTH_HOURS, open_if_made};
use crate::timemap::Segment;
use crate::waiting::{self, For};
use crate::writer::Writer;

/// Version of the format of an hour.
const VERSION: u64 = 1;
/// Minutes in trouble that follow each other within this are one stretch, ns: a row is written within a
/// second of its minute's end.
const JOINED_NS: i64 = 2_000_000_000;
/// Bytes of a stretch, of the counts, and of a bucket of a histogram at most.
const STRETCH_BYTES: usize = 20;
const COUNTS_BYTES: usize = 256;
const BUCKET_BYTES: usize = 7;

/// Minutes of [`Health`] added up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HealthSum {
    /// Counts; of `send_late_ns` the largest of each. What cannot be added up stays empty.
    pub total: Health,
    /// Send lateness of probes, ns, of the minutes that have all of it.
    pub send_late: Histogram,
    /// Begin and end of the stretches in which this host had trouble of its own
    /// ([`Health::is_trouble`]), ns since 1970.
    pub trouble: Vec<(i64, i64)>,
}

impl HealthSum {
    /// One more minute, which ends at `end_ns`.
    pub(crate) fn add(&mut self, end_ns: i64, row: &Health) {
        self.add_counts(row);
        // Rows from before it was kept have their three figures only.
        let _ = row.add_send_late_to(&mut self.send_late);
        if row.is_trouble() {
            self.add_trouble(end_ns.saturating_sub_unsigned(row.wall_ns), end_ns);
        }
    }

    fn add_counts(&mut self, row: &Health) {
        for (sum, of) in counts_mut(&mut self.total).into_iter().zip(counts(row)) {
            *sum = sum.saturating_add(of);
        }
        for (worst, of) in self.total.send_late_ns.iter_mut().zip(row.send_late_ns) {
            *worst = of.max(*worst);
        }
    }

    fn add_trouble(&mut self, begin_ns: i64, end_ns: i64) {
        match self.trouble.last_mut() {
            Some(last) if begin_ns.saturating_sub(last.1) < JOINED_NS => last.1 = end_ns,
            _ => self.trouble.push((begin_ns, end_ns)),
        }
    }

    /// Writes it; instants are whatever they were added as.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let bytes = COUNTS_BYTES + STRETCH_BYTES * self.trouble.len() + BUCKET_BYTES * BUCKETS;
        let mut out = vec![0; bytes];
        let mut w = varint::Writer::new(&mut out);
        w.unsigned(VERSION);
        for count in counts(&self.total)
            .into_iter()
            .chain(self.total.send_late_ns)
        {
            w.unsigned(count);
        }
        self.send_late.encode(&mut w);
        w.unsigned(self.trouble.len() as u64);
        for (begin, end) in &self.trouble {
            w.signed(*begin);
            w.signed(end.saturating_sub(*begin));
        }
        let len = w.finish();
        let len =
            len.ok_or_else(|| StoreError::Damaged("an hour of health is too large".into()))?;
        out.truncate(len);
        Ok(out)
    }

    /// Adds what [`Self::encode`] wrote; `offset_ns` moves its instants.
    pub(crate) fn add_encoded(&mut self, bytes: &[u8], offset_ns: i64) -> Result<(), StoreError> {
        self.try_add_encoded(bytes, offset_ns)
            .ok_or_else(|| StoreError::Damaged("an hour of health is damaged".into()))
    }

    fn try_add_encoded(&mut self, bytes: &[u8], offset_ns: i64) -> Option<()> {
        let mut r = varint::Reader::new(bytes);
        if r.unsigned()? != VERSION {
            return None;
        }
        let mut row = Health::default();
        for count in counts_mut(&mut row) {
            *count = r.unsigned()?;
        }
        for figure in &mut row.send_late_ns {
            *figure = r.unsigned()?;
        }
        self.add_counts(&row);
        self.send_late.merge_encoded(&mut r)?;
        for _ in 0..r.unsigned()? {
            let begin = r.signed()?;
            let end = begin.saturating_add(r.signed()?);
            self.add_trouble(
                begin.saturating_add(offset_ns),
                end.saturating_add(offset_ns),
            );
        }
        r.rest().is_empty().then_some(())
    }
}

/// What can be added up.
const fn counts(row: &Health) -> [u64; 9] {
    [
        row.dropped_samples,
        row.socket_drops,
        row.skipped_slots,
        row.sent_late,
        row.unstamped,
        row.cpu_ns,
        row.probe_cpu_ns,
        row.reflector_drops,
        row.wall_ns,
    ]
}

const fn counts_mut(row: &mut Health) -> [&mut u64; 9] {
    [
        &mut row.dropped_samples,
        &mut row.socket_drops,
        &mut row.skipped_slots,
        &mut row.sent_late,
        &mut row.unstamped,
        &mut row.cpu_ns,
        &mut row.probe_cpu_ns,
        &mut row.reflector_drops,
        &mut row.wall_ns,
    ]
}

impl Writer {
    /// Records the daemon's own health over the minute that ends at `now`.
    ///
    /// # Errors
    /// When it cannot be encoded, which it always can be.
    pub fn health(&mut self, now: Monotonic, health: &Health) -> Result<(), StoreError> {
        self.wait(For::Health, now, "", to_json(health)?);
        Ok(())
    }
}

impl Reader {
    /// The daemon's own health: each row, of a minute that ends in `[from, to)` of wall time, with its
    /// end, ns since 1970.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn each_health(
        &self,
        from_ns: i64,
        to_ns: i64,
        mut each: impl FnMut(i64, Health),
    ) -> Result<(), StoreError> {
        let tx = self.read()?;
        let table = tx.open_table(HEALTH)?;
        let waiting = waiting::read(&tx, For::Health)?;
        for s in self.time_map().clip(from_ns, to_ns) {
            each_minute(&table, &waiting, &s, &mut each)?;
        }
        Ok(())
    }

    /// The same rows added up, as fast as whole hours of them are there; `None` where there are none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn health_sum(&self, from_ns: i64, to_ns: i64) -> Result<Option<HealthSum>, StoreError> {
        let tx = self.read()?;
        let table = tx.open_table(HEALTH)?;
        let of_hours = open_if_made(&tx, HEALTH_HOURS)?;
        let waiting = waiting::read(&tx, For::Health)?;
        let mut sum: Option<HealthSum> = None;
        for s in self.time_map().clip(from_ns, to_ns) {
            let hours = match &of_hours {
                Some(rows) => Some(rows.range((s.boot, s.from_ns)..(s.boot, s.to_ns))?),
                None => None,
            };
            let hours = hours.into_iter().flatten().map(|row| {
                let (key, bytes) = row?;
                Ok((key.value().1, bytes))
            });
            hours::walk(&s, &waiting, hours, |piece| match piece {
                Piece::Hour(bytes) => sum
                    .get_or_insert_default()
                    .add_encoded(bytes.value(), s.offset_ns),
                Piece::Minutes(part) => each_minute(&table, &waiting, &part, &mut |end_ns, row| {
                    sum.get_or_insert_default().add(end_ns, &row);
                }),
            })?;
        }
        Ok(sum)
    }
}

type Table = redb::ReadOnlyTable<(u32, u64), &'static [u8]>;

fn each_minute(
    table: &Table,
    waiting: &waiting::Rows,
    s: &Segment,
    each: &mut impl FnMut(i64, Health),
) -> Result<(), StoreError> {
    for row in table.range((s.boot, s.from_ns)..(s.boot, s.to_ns))? {
        let (key, json) = row?;
        let at = key.value().1;
        if !waiting.contains_key(&(s.boot, at, String::new())) {
            each(s.wall_ns(at), from_json(json.value())?);
        }
    }
    // Those of a boot are younger than what is in the table, or replace it.
    for ((_, at, _), json) in waiting.range(waiting::keys(s)) {
        each(s.wall_ns(*at), from_json(json)?);
    }
    Ok(())
}
