//! What charts draw: each series over time, in as many columns as there are pixels for.

use bufferbane_core::stats::histogram::Histogram;
use bufferbane_core::stats::jitter::Rfc3550;
use bufferbane_core::stats::summary::Summary;
use bufferbane_store::{Bucket, Filter, LoadTest, Reader, SeriesId, SeriesInfo, TestId};

use super::lines::Line;
use crate::fail::Fail;
use crate::report::Event;
use crate::when::Range;

/// A column narrower than this many slots might miss its probe.
const SLOTS_PER_COLUMN: u64 = 2;
/// Cells of five minutes are shown up to this range, ns.
const FINE_CELLS_NS: u64 = 50 * HOUR_NS;
/// Length of such a cell, ns.
const CELL_NS: u64 = 300_000_000_000;
/// Length of an hour, ns.
const HOUR_NS: u64 = 3_600_000_000_000;
/// Ranges at least this long are drawn hour by hour, ns.
const HOURLY_NS: u64 = 8 * 86_400_000_000_000;
/// Probes that a column needs before a share of them, or a jitter, says something.
const PROBES_FOR_SHARE: u64 = 20;

/// One series over the range of a chart.
#[derive(Debug)]
pub(crate) struct Track {
    /// What it is.
    pub(crate) info: SeriesInfo,
    /// Where samples are few enough, each of them; else columns.
    pub(crate) fine: Vec<Column>,
    /// Whether `fine` is single samples.
    pub(crate) single: bool,
    /// Columns wide enough for shares.
    pub(crate) coarse: Vec<Column>,
    /// Everything.
    pub(crate) whole: Summary,
    /// Cells of a calendar: hours, or five minutes where the range is short.
    pub(crate) cells: Vec<Column>,
    /// Length of a cell, ns.
    pub(crate) cell_ns: u64,
}

/// A throughput test, and when it began, ns since 1970.
pub(crate) type Tested = (TestId, i64, LoadTest);

/// Everything that charts are drawn of.
#[derive(Debug)]
pub(crate) struct Material {
    /// Each series with something in the range.
    pub(crate) tracks: Vec<Track>,
    /// What happened.
    pub(crate) events: Vec<Event>,
    /// Throughput tests, the oldest first.
    pub(crate) tests: Vec<Tested>,
    /// What each uplink carried, and what it can carry.
    pub(crate) lines: Vec<Line>,
    /// The range.
    pub(crate) range: Range,
}

/// One stretch of a series.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Column {
    /// Begin, ns since 1970.
    pub(crate) from_ns: i64,
    /// End.
    pub(crate) to_ns: i64,
    /// Probes sent.
    pub(crate) sent: u64,
    /// Of these lost up, down, and in an unknown direction.
    pub(crate) lost: [u64; 3],
    /// Probes that could not be sent.
    pub(crate) unsent: u64,
    /// Round-trip times; `None` where nothing was answered.
    pub(crate) rtt: Option<Levels>,
    /// IPDV likewise.
    pub(crate) ipdv: Option<Levels>,
    /// Mean of the smoothed jitter, ns, which goes on from the column before.
    pub(crate) jitter: Option<u64>,
    /// Queueing delay up and down, where it is known.
    pub(crate) queue: [Option<Levels>; 2],
}

/// A distribution in five figures, ns.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Levels {
    /// How many values.
    pub(crate) count: u64,
    /// Smallest.
    pub(crate) min: u64,
    /// Median.
    pub(crate) p50: u64,
    /// 95th percentile.
    pub(crate) p95: u64,
    /// 99th percentile.
    pub(crate) p99: u64,
    /// Largest.
    pub(crate) max: u64,
}

impl Levels {
    /// Those of `h`; `None` where it is empty.
    pub(super) fn of(h: &Histogram) -> Option<Self> {
        Some(Self {
            count: h.count(),
            min: h.min()?,
            p50: h.quantile(0.5)?,
            p95: h.quantile(0.95)?,
            p99: h.quantile(0.99)?,
            max: h.max()?,
        })
    }
}

impl Column {
    /// One with what `s` holds, after columns that left `jitter` behind.
    fn of(from_ns: i64, to_ns: i64, s: &Summary, jitter: &mut Rfc3550) -> Self {
        let smoothed = s.jitter.map(|j| j.after(jitter));
        *jitter = smoothed.unwrap_or(*jitter);
        Self {
            from_ns,
            to_ns,
            sent: s.sent,
            lost: [
                s.lost_up,
                s.lost_down,
                s.lost.saturating_sub(s.lost_up + s.lost_down),
            ],
            unsent: s.unsent,
            rtt: Levels::of(&s.rtt),
            ipdv: Levels::of(&s.ipdv),
            jitter: smoothed.and_then(|j| j.mean_ns()),
            queue: [Levels::of(&s.queue_up), Levels::of(&s.queue_down)],
        }
    }

    /// Probes that were tried and came to nothing.
    pub(crate) fn gone(&self) -> u64 {
        self.lost.iter().sum::<u64>() + self.unsent
    }

    /// Whether anything was tried in it.
    pub(crate) const fn is_measured(&self) -> bool {
        self.sent + self.unsent > 0
    }
}

impl Track {
    /// Whether the typical column has at least this many answers.
    pub(crate) fn has_typically(&self, answers: u64) -> bool {
        let (enough, all) = self
            .fine
            .iter()
            .filter_map(|c| c.rtt)
            .fold((0, 0), |(e, n), l| {
                (e + u64::from(l.count >= answers), n + 1)
            });
        enough * 2 > all
    }

    /// A series in columns for `pixels` across; `None` where it has nothing in the range.
    pub(crate) fn read(
        reader: &Reader,
        of: &(SeriesId, SeriesInfo),
        range: Range,
        pixels: usize,
    ) -> Result<Option<Self>, Fail> {
        let track = if range.to_ns.abs_diff(range.from_ns) >= HOURLY_NS {
            Self::of_hours(reader, of, range, pixels)?
        } else {
            Self::of_buckets(reader, of, range, pixels)?
        };
        Ok((!track.whole.is_empty()).then_some(track))
    }

    /// From the rollups of hours as they are: nothing is blurred, and they are read at once.
    fn of_hours(
        reader: &Reader,
        (id, info): &(SeriesId, SeriesInfo),
        range: Range,
        pixels: usize,
    ) -> Result<Self, Fail> {
        let span_ns = range.to_ns.abs_diff(range.from_ns);
        let wide = (span_ns / HOUR_NS).div_ceil(pixels.max(1) as u64) as usize;
        let mut whole = Summary::new();
        let mut jitter = Rfc3550::new();
        let mut cells = Vec::new();
        let (mut fine, mut coarse) = (Joined::new(wide), Joined::new((wide * 2).max(3)));
        reader.each_hour(*id, range.from_ns, range.to_ns, &mut |hour| {
            whole.merge(&hour.summary);
            cells.push(Column::of(
                hour.from_ns,
                hour.to_ns,
                &hour.summary,
                &mut jitter,
            ));
            fine.add(hour);
            coarse.add(hour);
        })?;
        Ok(Self {
            info: info.clone(),
            fine: fine.end(),
            single: false,
            coarse: coarse.end(),
            whole,
            cells,
            cell_ns: HOUR_NS,
        })
    }

    /// From equal parts of the range.
    fn of_buckets(
        reader: &Reader,
        (id, info): &(SeriesId, SeriesInfo),
        range: Range,
        pixels: usize,
    ) -> Result<Self, Fail> {
        let whole = reader.summary(*id, range.from_ns, range.to_ns)?;
        let span_ns = range.to_ns.abs_diff(range.from_ns);
        let (cells, cell_ns) = cells(reader, *id, range)?;
        let slots = span_ns / info.interval_ns.max(1);
        let (mut fine, mut coarse) = (Vec::new(), Vec::new());
        let mut single = slots <= pixels as u64;
        if single {
            fine = singles(reader, *id, info, range)?;
            // Samples that have been given up live on in rollups.
            single = !fine.is_empty();
        }
        if !single {
            let count = (slots / SLOTS_PER_COLUMN).clamp(1, pixels.max(1) as u64);
            let buckets = reader.buckets(*id, range.from_ns, range.to_ns, count as usize)?;
            fine = columns(&buckets, 1);
            let group = fine.len().div_ceil(share_columns(slots, pixels));
            coarse = columns(&buckets, group.max(2));
        }
        if coarse.is_empty() {
            let count = share_columns(slots, pixels);
            let buckets = reader.buckets(*id, range.from_ns, range.to_ns, count)?;
            coarse = columns(&buckets, 1);
        }
        Ok(Self {
            info: info.clone(),
            fine,
            single,
            coarse,
            whole,
            cells,
            cell_ns,
        })
    }
}

/// Joins up to `wide` hours that follow each other to a column; never over a stretch without any.
struct Joined {
    wide: usize,
    /// The column that is not full yet, and how many hours are in it.
    open: Option<(Bucket, usize)>,
    columns: Vec<Column>,
    /// What the columns so far left behind.
    jitter: Rfc3550,
}

impl Joined {
    fn new(wide: usize) -> Self {
        Self {
            wide: wide.max(1),
            open: None,
            columns: Vec::new(),
            jitter: Rfc3550::new(),
        }
    }

    fn add(&mut self, hour: &Bucket) {
        match &mut self.open {
            Some((open, hours)) if *hours < self.wide && open.to_ns >= hour.from_ns => {
                open.summary.merge(&hour.summary);
                open.to_ns = hour.to_ns;
                *hours += 1;
            }
            _ => {
                self.close();
                self.open = Some((hour.clone(), 1));
            }
        }
    }

    fn close(&mut self) {
        if let Some((b, _)) = self.open.take() {
            let column = Column::of(b.from_ns, b.to_ns, &b.summary, &mut self.jitter);
            self.columns.push(column);
        }
    }

    fn end(mut self) -> Vec<Column> {
        self.close();
        self.columns
    }
}

/// The cells of a calendar of `range`.
fn cells(reader: &Reader, id: SeriesId, range: Range) -> Result<(Vec<Column>, u64), Fail> {
    let span_ns = range.to_ns.abs_diff(range.from_ns);
    if span_ns > FINE_CELLS_NS {
        let hours = reader.hourly(id, range.from_ns, range.to_ns)?;
        return Ok((columns(&hours, 1), HOUR_NS));
    }
    let cell = CELL_NS.cast_signed();
    let from = range.from_ns.div_euclid(cell) * cell;
    let count = range.to_ns.abs_diff(from).div_ceil(CELL_NS);
    let to = from.saturating_add_unsigned(count * CELL_NS);
    let buckets = reader.buckets(id, from, to, count as usize)?;
    Ok((columns(&buckets, 1), CELL_NS))
}

/// How many columns leave each enough probes for a share.
fn share_columns(slots: u64, pixels: usize) -> usize {
    (slots / PROBES_FOR_SHARE).clamp(1, (pixels / 3).max(1) as u64) as usize
}

/// Joins every `group` buckets to a column.
fn columns(buckets: &[Bucket], group: usize) -> Vec<Column> {
    let mut jitter = Rfc3550::new();
    buckets
        .chunks(group)
        .map(|part| {
            let mut joined = Summary::new();
            part.iter().for_each(|b| joined.merge(&b.summary));
            let (from_ns, to_ns) = (part[0].from_ns, part[part.len() - 1].to_ns);
            Column::of(from_ns, to_ns, &joined, &mut jitter)
        })
        .collect()
}

/// Each sample as a column of its own, a slot wide.
fn singles(
    reader: &Reader,
    id: SeriesId,
    info: &SeriesInfo,
    range: Range,
) -> Result<Vec<Column>, Fail> {
    let filter = Filter {
        from_ns: range.from_ns,
        to_ns: range.to_ns,
        series: vec![id],
    };
    let mut all = Vec::new();
    for row in reader.samples(&filter) {
        let row = row?;
        let mut one = Summary::new();
        one.add(&row.sample);
        if let Some(queueing) = &row.queueing {
            one.add_queueing(&row.sample, queueing);
        }
        if one.is_empty() || one.sent + one.unsent == 0 {
            continue;
        }
        let to_ns = row.wall_ns.saturating_add_unsigned(info.interval_ns);
        all.push(Column::of(row.wall_ns, to_ns, &one, &mut Rfc3550::new()));
    }
    Ok(all)
}
