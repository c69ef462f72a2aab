//! What lines carried: minutes, and hours of them.

use bufferbane_core::household::{MAX_ENCODED_MINUTE, Minute};
use bufferbane_core::time::Monotonic;
use bufferbane_core::varint;
use redb::ReadOnlyTable;

use crate::error::StoreError;
use crate::hours::{self, Piece};
use crate::query::Window;
use crate::reader::Reader;
use crate::tables::{LOAD, LOAD_HOURS, LineTime, MINUTE_NS, open_if_made};
use crate::timemap::Segment;
use crate::waiting::{self, For};
use crate::writer::Writer;

/// Bytes that the sums of an hour take at most: counts are larger than those of a minute.
const MAX_ENCODED_HOUR: usize = 2 * MAX_ENCODED_MINUTE;

/// What a line carried in a minute or in several, as it lies in the file.
#[derive(Clone, Copy, Debug)]
pub struct StoredLoad<'a> {
    /// Begin of the first minute, wall time, ns since 1970.
    pub from_ns: i64,
    /// End of the last one.
    pub to_ns: i64,
    /// How many minutes there are.
    pub minutes: u64,
    bytes: &'a [u8],
}

impl StoredLoad<'_> {
    /// Adds it to others: much faster than one after the other as a [`Minute`] of its own.
    ///
    /// # Errors
    /// When it is damaged; what is in `sum` then is of no use.
    pub fn add_to(self, sum: &mut Minute) -> Result<(), StoreError> {
        sum.merge_encoded(self.bytes).ok_or_else(damaged)
    }
}

fn damaged() -> StoreError {
    StoreError::Damaged("a row of load is damaged".into())
}

/// The minutes of an hour of one line.
#[derive(Debug, Default)]
pub(crate) struct Hour {
    minutes: u64,
    /// Begin of the first and of the last minute, ns since boot.
    first_ns: u64,
    last_ns: u64,
    sum: Box<Minute>,
}

impl Hour {
    /// One more minute, behind those there are.
    pub(crate) fn add(&mut self, begin_ns: u64, minute: &[u8]) -> Result<(), StoreError> {
        if self.minutes == 0 {
            self.first_ns = begin_ns;
        }
        self.minutes += 1;
        self.last_ns = begin_ns;
        self.sum.merge_encoded(minute).ok_or_else(damaged)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let mut out = vec![0; 32 + MAX_ENCODED_HOUR];
        let mut w = varint::Writer::new(&mut out);
        w.unsigned(self.minutes);
        w.unsigned(self.first_ns);
        w.unsigned(self.last_ns.saturating_sub(self.first_ns));
        let head = w.finish();
        let len = head.and_then(|head| Some(head + self.sum.encode(&mut out[head..])?));
        let len = len.ok_or_else(|| StoreError::Damaged("an hour of load is too large".into()))?;
        out.truncate(len);
        Ok(out)
    }
}

/// What [`Hour::encode`] wrote.
struct EncodedHour<'a> {
    minutes: u64,
    first_ns: u64,
    last_ns: u64,
    sum: &'a [u8],
}

impl<'a> EncodedHour<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut r = varint::Reader::new(bytes);
        let minutes = r.unsigned()?;
        let first_ns = r.unsigned()?;
        let last_ns = first_ns.checked_add(r.unsigned()?)?;
        Some(Self {
            minutes,
            first_ns,
            last_ns,
            sum: r.rest(),
        })
    }

    fn at(&self, s: &Segment) -> StoredLoad<'a> {
        StoredLoad {
            from_ns: s.wall_ns(self.first_ns),
            to_ns: s.wall_ns(self.last_ns.saturating_add(MINUTE_NS)),
            minutes: self.minutes,
            bytes: self.sum,
        }
    }
}

/// Whether a row of minutes can be read.
pub(crate) fn check_minute(bytes: &[u8]) -> Result<(), StoreError> {
    Minute::new().merge_encoded(bytes).ok_or_else(damaged)
}

/// Whether a row of hours can be read.
pub(crate) fn check_hour(bytes: &[u8]) -> Result<(), StoreError> {
    check_minute(EncodedHour::read(bytes).ok_or_else(damaged)?.sum)
}

impl Writer {
    /// Records what a line carried in the minute of this boot that begins at `begin`.
    ///
    /// # Errors
    /// When it cannot be encoded, which a minute always can be.
    pub fn load_minute(
        &mut self,
        begin: Monotonic,
        interface: &str,
        minute: &Minute,
    ) -> Result<(), StoreError> {
        let mut value = vec![0; MAX_ENCODED_MINUTE];
        let len = minute
            .encode(&mut value)
            .ok_or_else(|| StoreError::Damaged("a minute of load is too large".into()))?;
        value.truncate(len);
        // It waits for a day or more where the disk is full.
        value.shrink_to_fit();
        self.wait(For::Load, begin, interface, value);
        Ok(())
    }
}

impl Reader {
    /// What lines carried in the minutes that begin in `[from, to)` of wall time, ns since 1970, with
    /// the interface: of [`Window::Minute`] each of them in order; of [`Window::Hour`] whole hours of
    /// the monotonic clock where they are there, and minutes elsewhere.
    ///
    /// # Errors
    /// When the file cannot be read, or `each` fails.
    pub fn load(
        &self,
        window: Window,
        from_ns: i64,
        to_ns: i64,
        mut each: impl FnMut(&str, StoredLoad<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let tx = self.read()?;
        // An earlier version did not make it.
        let Some(table) = open_if_made(&tx, LOAD)? else {
            return Ok(());
        };
        let of_hours = match window {
            Window::Minute => None,
            Window::Hour => open_if_made(&tx, LOAD_HOURS)?,
        };
        let waiting = waiting::read(&tx, For::Load)?;
        for s in self.time_map().clip(from_ns, to_ns) {
            let hours = match &of_hours {
                Some(rows) => Some(rows.range((s.boot, s.from_ns, "")..(s.boot, s.to_ns, ""))?),
                None => None,
            };
            let hours = hours.into_iter().flatten().map(|row| {
                let (key, bytes) = row?;
                Ok((key.value().1, (key, bytes)))
            });
            hours::walk(&s, &waiting, hours, |piece| match piece {
                Piece::Hour((key, bytes)) => {
                    let hour = EncodedHour::read(bytes.value()).ok_or_else(damaged)?;
                    each(key.value().2, hour.at(&s))
                }
                Piece::Minutes(part) => each_minute(&table, &waiting, &part, &mut each),
            })?;
        }
        Ok(())
    }
}

fn minute<'a>(s: &Segment, at: u64, bytes: &'a [u8]) -> StoredLoad<'a> {
    StoredLoad {
        from_ns: s.wall_ns(at),
        to_ns: s.wall_ns(at.saturating_add(MINUTE_NS)),
        minutes: 1,
        bytes,
    }
}

fn each_minute(
    table: &ReadOnlyTable<LineTime<'static>, &'static [u8]>,
    waiting: &waiting::Rows,
    s: &Segment,
    each: &mut impl FnMut(&str, StoredLoad<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let late = waiting.range(waiting::keys(s));
    // A row that waits replaces the one with its key.
    let first = late.clone().next().map_or(u64::MAX, |(key, _)| key.1);
    for row in table.range((s.boot, s.from_ns, "")..(s.boot, s.to_ns, ""))? {
        let (key, bytes) = row?;
        let (_, at, which) = key.value();
        if at < first || !waiting.contains_key(&(s.boot, at, which.to_owned())) {
            each(which, minute(s, at, bytes.value()))?;
        }
    }
    for ((_, at, which), bytes) in late {
        each(which, minute(s, *at, bytes))?;
    }
    Ok(())
}
