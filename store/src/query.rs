//! Figures over stretches of time: exact from samples where the stretch is short, from rollups
//! where it is long.
//!
//! Queueing delay per direction is in every [`Summary`] that comes from here (`queue_up` and
//! `queue_down`, distributions in ns), whether it was summed up from samples or from rollups: a chart
//! of it over time is [`Reader::buckets`], of single samples [`Reader::samples`]
//! ([`crate::Row::queueing`]). Both are empty where the far end tells nothing, and before its floor is
//! known. The floor itself and the rate of the far end's clock: [`Reader::floor`].

use bufferbane_core::sample::Sample;
use bufferbane_core::stats::summary::Summary;
use redb::ReadTransaction;

use crate::codec::decode_summary;
use crate::error::StoreError;
use crate::floors::Floors;
use crate::model::SeriesId;
use crate::reader::Reader;
use crate::samples::read_chunk;
use crate::tables::{BLOCKS, HOUR_NS, HOURS, MINUTE_NS, MINUTES};
use crate::tail::{self, Wanted};
use crate::timemap::Segment;

/// Up to this length a stretch is summed up from its samples, ns: exact, and fast enough.
const EXACT_NS: u64 = 2 * HOUR_NS;

/// Buckets at least this wide are filled from rollups of an hour, ns; narrower ones from finer
/// ones, or some would stay empty between two hours.
const COARSE_NS: u64 = 6 * HOUR_NS;

/// Rollups that [`Reader::rollups`] hands out at once.
const ROLLUP_CHUNK: usize = 16;

/// The windows there are rollups of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// A minute of the monotonic clock.
    Minute,
    /// An hour of the monotonic clock.
    Hour,
}

impl Window {
    /// Its length, ns.
    #[must_use]
    pub const fn length_ns(self) -> u64 {
        match self {
            Self::Minute => MINUTE_NS,
            Self::Hour => HOUR_NS,
        }
    }
}

/// One of the equal parts a stretch of time is cut into.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Begin, wall time, ns since 1970.
    pub from_ns: i64,
    /// End, exclusive.
    pub to_ns: i64,
    /// What happened in it; empty where nothing was recorded.
    pub summary: Summary,
}

/// A stretch through which nothing was recorded although something was before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// When the last sample before it was sent, wall time, ns since 1970.
    pub from_ns: i64,
    /// When the first sample after it was.
    pub to_ns: i64,
}

/// What [`Reader::overview`] finds.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// Everything that happened.
    pub summary: Summary,
    /// When the first and the last sample were sent, wall time, ns since 1970; `None` where there is
    /// none.
    pub extent: Option<(i64, i64)>,
    /// The stretches between them through which nothing was recorded, in order.
    pub gaps: Vec<Gap>,
}

impl Reader {
    /// Everything about `series` in `[from, to)` of wall time, ns since 1970.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn summary(
        &self,
        series: SeriesId,
        from_ns: i64,
        to_ns: i64,
    ) -> Result<Summary, StoreError> {
        let mut all = Summary::new();
        let tx = self.read()?;
        for segment in self.time_map().clip(from_ns, to_ns) {
            visit(&tx, series, &segment, true, &mut |part| part.join(&mut all))?;
        }
        Ok(all)
    }

    /// `[from, to)` of wall time cut into `count` equal parts.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn buckets(
        &self,
        series: SeriesId,
        from_ns: i64,
        to_ns: i64,
        count: usize,
    ) -> Result<Vec<Bucket>, StoreError> {
        let count = count.max(1);
        let span = i128::from(to_ns) - i128::from(from_ns);
        let edge = |i: usize| (i128::from(from_ns) + span * i as i128 / count as i128) as i64;
        let mut buckets: Vec<Bucket> = (0..count)
            .map(|i| Bucket {
                from_ns: edge(i),
                to_ns: edge(i + 1),
                summary: Summary::new(),
            })
            .collect();
        let width = u64::try_from(span / count as i128).unwrap_or(1).max(1);
        let tx = self.read()?;
        for segment in self.time_map().clip(from_ns, to_ns) {
            let mut put = |part: Part<'_>| {
                let offset = i128::from(segment.wall_ns(part.at_ns())) - i128::from(from_ns);
                let index = (offset * count as i128 / span.max(1)).clamp(0, count as i128 - 1);
                part.join(&mut buckets[index as usize].summary);
            };
            if width < 2 * MINUTE_NS && has_samples(&tx, series, &segment)? {
                visit_samples(&tx, series, &segment, &mut put)?;
            } else {
                visit(&tx, series, &segment, width >= COARSE_NS, &mut put)?;
            }
        }
        Ok(buckets)
    }

    /// `[from, to)` of wall time cut where the rollups of an hour are: a part for each hour of the
    /// monotonic clock in which anything was recorded, shorter only at both ends. What these say is
    /// as exact as the rollups, and they are read many times as fast as those of minutes.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn hourly(
        &self,
        series: SeriesId,
        from_ns: i64,
        to_ns: i64,
    ) -> Result<Vec<Bucket>, StoreError> {
        let mut buckets = Vec::new();
        self.each_hour(series, from_ns, to_ns, &mut |b| buckets.push(b.clone()))?;
        Ok(buckets)
    }

    /// As [`Reader::hourly`], handed out one by one: a year of them is many, and each is large.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn each_hour(
        &self,
        series: SeriesId,
        from_ns: i64,
        to_ns: i64,
        put: &mut dyn FnMut(&Bucket),
    ) -> Result<(), StoreError> {
        let tx = self.read()?;
        for segment in self.time_map().clip(from_ns, to_ns) {
            let mut open: Option<(u64, Bucket)> = None;
            visit(&tx, series, &segment, true, &mut |part| {
                let begin = part.at_ns() - part.at_ns() % HOUR_NS;
                match &mut open {
                    Some((hour, bucket)) if *hour == begin => part.join(&mut bucket.summary),
                    _ => {
                        if let Some((_, done)) = &open {
                            put(done);
                        }
                        let end = begin.saturating_add(HOUR_NS).min(segment.to_ns);
                        let mut bucket = Bucket {
                            from_ns: segment.wall_ns(begin.max(segment.from_ns)),
                            to_ns: segment.wall_ns(end),
                            summary: Summary::new(),
                        };
                        part.join(&mut bucket.summary);
                        open = Some((begin, bucket));
                    }
                }
            })?;
            if let Some((_, last)) = &open {
                put(last);
            }
        }
        Ok(())
    }

    /// Everything about `series`, which has a slot every `interval_ns`, in `[from, to)` of wall time,
    /// in one pass; gaps are told where they are longer than `longer_than_ns`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn overview(
        &self,
        series: SeriesId,
        from_ns: i64,
        to_ns: i64,
        longer_than_ns: u64,
        interval_ns: u64,
    ) -> Result<Overview, StoreError> {
        let mut all = Overview::default();
        let mut before: Option<i64> = None;
        let tx = self.read()?;
        // An hour in which so few slots are missing hides no gap: it need not be looked into.
        let slots = |ns: u64| ns / interval_ns.max(1);
        let whole = slots(HOUR_NS).saturating_sub(slots(longer_than_ns).saturating_sub(3));
        let is_whole = |hour: &Summary| hour.sent + hour.unsent >= whole;
        for segment in self.time_map().clip(from_ns, to_ns) {
            let mut see = |part: Part<'_>| {
                part.join(&mut all.summary);
                let Some((first, last)) = part.first_and_last_ns() else {
                    return;
                };
                let (first, last) = (segment.wall_ns(first), segment.wall_ns(last));
                if let Some(before) = before
                    && first.saturating_sub_unsigned(longer_than_ns) > before
                {
                    all.gaps.push(Gap {
                        from_ns: before,
                        to_ns: first,
                    });
                }
                before = Some(last);
                let (a, b) = all.extent.unwrap_or((first, last));
                all.extent = Some((a.min(first), b.max(last)));
            };
            visit_where(&tx, series, &segment, &is_whole, &mut see)?;
        }
        Ok(all)
    }

    /// When the first and the last sample of `series` in `[from, to)` were sent, wall time, ns since
    /// 1970; `None` where there is none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn extent(
        &self,
        series: SeriesId,
        from_ns: i64,
        to_ns: i64,
    ) -> Result<Option<(i64, i64)>, StoreError> {
        let mut extent: Option<(i64, i64)> = None;
        let tx = self.read()?;
        for segment in self.time_map().clip(from_ns, to_ns) {
            let mut see = |part: Part<'_>| {
                if let Some((first, last)) = part.first_and_last_ns() {
                    let (first, last) = (segment.wall_ns(first), segment.wall_ns(last));
                    extent =
                        Some(extent.map_or((first, last), |(a, b)| (a.min(first), b.max(last))));
                }
            };
            visit(&tx, series, &segment, true, &mut see)?;
        }
        Ok(extent)
    }

    /// The next few rollups of `series` that begin in `[from, to)` of `boot`, ns since boot: each
    /// with its begin. None where there are no more.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn rollups(
        &self,
        window: Window,
        series: SeriesId,
        boot: u32,
        range: std::ops::Range<u64>,
    ) -> Result<Vec<(u64, Summary)>, StoreError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let table = match window {
            Window::Minute => MINUTES,
            Window::Hour => HOURS,
        };
        let (from, to) = ((series.0, boot, range.start), (series.0, boot, range.end));
        let rows = self.read()?.open_table(table)?.range(from..to)?;
        rows.take(ROLLUP_CHUNK)
            .map(|row| {
                let (key, bytes) = row?;
                Ok((key.value().2, decode_summary(bytes.value())?))
            })
            .collect()
    }
}

/// A piece of a series, as it is at hand.
enum Part<'a> {
    /// A sample, and the floor its queueing delay is above.
    Sample(&'a Sample, &'a Floors),
    /// A window that begins at this instant, ns since boot.
    Rollup(u64, &'a Summary),
}

impl Part<'_> {
    fn at_ns(&self) -> u64 {
        match self {
            Self::Sample(s, _) => s.sent.as_nanos(),
            Self::Rollup(at, _) => *at,
        }
    }

    fn join(&self, summary: &mut Summary) {
        match self {
            Self::Sample(s, floors) => floors.add_to(summary, s),
            Self::Rollup(_, part) => summary.merge(part),
        }
    }

    fn first_and_last_ns(&self) -> Option<(u64, u64)> {
        match self {
            Self::Sample(s, _) => Some((s.sent.as_nanos(), s.sent.as_nanos())),
            Self::Rollup(_, part) => Some((part.first?.as_nanos(), part.last?.as_nanos())),
        }
    }
}

/// Hands out, in order, the parts that together make up `segment`: by whole hours where `coarse`,
/// else by hours only where there are no minutes any more.
fn visit(
    tx: &ReadTransaction,
    series: SeriesId,
    segment: &Segment,
    coarse: bool,
    put: &mut dyn FnMut(Part<'_>),
) -> Result<(), StoreError> {
    visit_where(tx, series, segment, &|_| coarse, put)
}

/// As [`visit`], with whole hours where `coarse` takes them.
fn visit_where(
    tx: &ReadTransaction,
    series: SeriesId,
    segment: &Segment,
    coarse: &dyn Fn(&Summary) -> bool,
    put: &mut dyn FnMut(Part<'_>),
) -> Result<(), StoreError> {
    let rolled_until = rolled_until(tx, series, segment.boot)?;
    let known_to = segment.to_ns.min(rolled_until);
    if known_to.saturating_sub(segment.from_ns) <= EXACT_NS && has_samples(tx, series, segment)? {
        return visit_samples(tx, series, segment, put);
    }
    // Samples up to the first whole minute, rollups, and samples again from the last one on.
    let first_whole = segment.from_ns.next_multiple_of(MINUTE_NS).min(known_to);
    let last_whole = (known_to - known_to % MINUTE_NS).max(first_whole);
    let edge = |from_ns, to_ns| Segment {
        from_ns,
        to_ns,
        ..*segment
    };
    if segment.from_ns < first_whole {
        visit_samples(tx, series, &edge(segment.from_ns, first_whole), put)?;
    }
    let (minutes, hours) = (tx.open_table(MINUTES)?, tx.open_table(HOURS)?);
    let mut at = first_whole;
    while at < last_whole {
        let hour_end = (at - at % HOUR_NS).saturating_add(HOUR_NS);
        let has_minutes = || {
            minutes
                .range((series.0, segment.boot, at)..(series.0, segment.boot, hour_end))
                .map(|mut rows| rows.next().is_some())
        };
        if at.is_multiple_of(HOUR_NS)
            && hour_end <= last_whole
            && let Some(row) = hours.get((series.0, segment.boot, at))?
        {
            let hour = decode_summary(row.value())?;
            if coarse(&hour) || !has_minutes()? {
                put(Part::Rollup(at, &hour));
                at = hour_end;
                continue;
            }
        }
        let to = hour_end.min(last_whole);
        for row in minutes.range((series.0, segment.boot, at)..(series.0, segment.boot, to))? {
            let (key, row) = row?;
            put(Part::Rollup(key.value().2, &decode_summary(row.value())?));
        }
        // Where nothing more was recorded in this boot the rest is not walked hour by hour.
        let rest = (series.0, segment.boot, to)..(series.0, segment.boot, last_whole);
        let next_minute = minutes
            .range(rest.clone())?
            .next()
            .transpose()?
            .map(|r| r.0.value().2);
        let next_hour = hours
            .range(rest)?
            .next()
            .transpose()?
            .map(|r| r.0.value().2);
        at = match (next_minute, next_hour) {
            (None, None) => last_whole,
            (a, b) => {
                let next = a.unwrap_or(u64::MAX).min(b.unwrap_or(u64::MAX));
                to.max(next - next % MINUTE_NS)
            }
        };
    }
    if last_whole < segment.to_ns {
        visit_samples(tx, series, &edge(last_whole, segment.to_ns), put)?;
    }
    Ok(())
}

/// Hands out each sample of `segment`.
fn visit_samples(
    tx: &ReadTransaction,
    series: SeriesId,
    segment: &Segment,
    put: &mut dyn FnMut(Part<'_>),
) -> Result<(), StoreError> {
    let (mut key, mut after) = (segment.from_ns, false);
    loop {
        let (block, samples) = read_chunk(tx, series, segment, key, after)?;
        let floors = Floors::of(tx, series, segment.boot, &samples)?;
        for s in &samples {
            if (segment.from_ns..segment.to_ns).contains(&s.sent.as_nanos()) {
                put(Part::Sample(s, &floors));
            }
        }
        match block {
            Some(k) => (key, after) = (k + 1, true),
            None => return Ok(()),
        }
    }
}

/// Whether the samples of `segment` have not been given up.
fn has_samples(
    tx: &ReadTransaction,
    series: SeriesId,
    segment: &Segment,
) -> Result<bool, StoreError> {
    let sealed = tx
        .open_table(BLOCKS)?
        .range((series.0, segment.boot, 0)..=(series.0, segment.boot, u64::MAX))?
        .next()
        .transpose()?
        .map(|r| r.0.value().2);
    // An hour that is over is rolled up even where its samples fill no block yet.
    let oldest = match sealed {
        Some(_) => sealed,
        None => tail::read(tx, Wanted::Series(series, segment.boot))?
            .iter()
            .find_map(|p| p.samples.first())
            .map(|s| s.sent.as_nanos()),
    };
    let rollup = tx
        .open_table(MINUTES)?
        .range((series.0, segment.boot, 0)..=(series.0, segment.boot, u64::MAX))?
        .next()
        .transpose()?
        .map(|r| r.0.value().2);
    Ok(match (oldest, rollup) {
        // Samples older than this have been given up; rollups are all there is.
        (Some(o), Some(r)) => segment.from_ns >= o || o - o % MINUTE_NS <= r,
        (None, Some(_)) => false,
        _ => true,
    })
}

/// Up to where the samples of a series and boot are in rollups.
fn rolled_until(tx: &ReadTransaction, series: SeriesId, boot: u32) -> Result<u64, StoreError> {
    Ok(tail::read(tx, Wanted::Series(series, boot))?
        .first()
        .map_or(u64::MAX, |p| p.rolled_until_ns))
}
