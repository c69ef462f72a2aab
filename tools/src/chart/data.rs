//! What charts draw: each series over time, in as many columns as there are pixels for.

use bufferbane_core::stats::histogram::Histogram;
use bufferbane_core::stats::summary::Summary;
use bufferbane_store::{Bucket, Filter, Reader, SeriesId, SeriesInfo};

use crate::fail::Fail;
use crate::when::Range;

/// A column narrower than this many slots might miss its probe.
const SLOTS_PER_COLUMN: u64 = 2;
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
    fn of(h: &Histogram) -> Option<Self> {
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
    fn of(from_ns: i64, to_ns: i64, s: &Summary) -> Self {
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
        (id, info): &(SeriesId, SeriesInfo),
        range: Range,
        pixels: usize,
    ) -> Result<Option<Self>, Fail> {
        let whole = reader.summary(*id, range.from_ns, range.to_ns)?;
        if whole.is_empty() {
            return Ok(None);
        }
        let span_ns = range.to_ns.abs_diff(range.from_ns);
        let slots = span_ns / info.interval_ns.max(1);
        let (mut fine, mut coarse) = (Vec::new(), Vec::new());
        let single = slots <= pixels as u64;
        if single {
            fine = singles(reader, *id, info, range)?;
        }
        // Samples that have been given up live on in rollups.
        let single = single && !fine.is_empty();
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
        Ok(Some(Self {
            info: info.clone(),
            fine,
            single,
            coarse,
            whole,
        }))
    }
}

/// How many columns leave each enough probes for a share.
fn share_columns(slots: u64, pixels: usize) -> usize {
    (slots / PROBES_FOR_SHARE).clamp(1, (pixels / 3).max(1) as u64) as usize
}

/// Joins every `group` buckets to a column.
fn columns(buckets: &[Bucket], group: usize) -> Vec<Column> {
    buckets
        .chunks(group)
        .map(|part| {
            let mut joined = Summary::new();
            part.iter().for_each(|b| joined.merge(&b.summary));
            let (from_ns, to_ns) = (part[0].from_ns, part[part.len() - 1].to_ns);
            Column::of(from_ns, to_ns, &joined)
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
        if one.is_empty() || one.sent + one.unsent == 0 {
            continue;
        }
        let to_ns = row.wall_ns.saturating_add_unsigned(info.interval_ns);
        all.push(Column::of(row.wall_ns, to_ns, &one));
    }
    Ok(all)
}
