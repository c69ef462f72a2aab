//! Samples one by one, with their places in time.

use bufferbane_core::clock::Queueing;
use bufferbane_core::sample::Sample;
use redb::ReadTransaction;

use crate::codec::decode_block;
use crate::error::StoreError;
use crate::floors::Floors;
use crate::model::SeriesId;
use crate::reader::Reader;
use crate::tables::BLOCKS;
use crate::tail::{self, Wanted};
use crate::timemap::Segment;

/// Which samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// From this wall time on, ns since 1970.
    pub from_ns: i64,
    /// Up to this one, exclusive.
    pub to_ns: i64,
    /// Of these series.
    pub series: Vec<SeriesId>,
}

/// One sample with its place in time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Its series.
    pub series: SeriesId,
    /// When it was sent, ns since 1970.
    pub wall_ns: i64,
    /// In which boot.
    pub boot: u32,
    /// The sample.
    pub sample: Sample,
    /// Its queueing delay per direction; `None` where the floor is not known, or the far end tells
    /// nothing.
    pub queueing: Option<Queueing>,
}

impl Reader {
    /// The samples of `filter` in the order of time, read block by block.
    #[must_use]
    pub fn samples(&self, filter: &Filter) -> Samples<'_> {
        let segments = self.time_map().clip(filter.from_ns, filter.to_ns);
        let cursors = filter
            .series
            .iter()
            .map(|id| Cursor::new(*id, segments.clone()))
            .collect();
        Samples {
            reader: self,
            cursors,
            failed: false,
        }
    }
}

/// The samples of one series and one stretch of a boot that begin in the block at or after
/// `from_key`; with the key of the block they are from, or none where they are from the tail.
pub(crate) fn read_chunk(
    tx: &ReadTransaction,
    series: SeriesId,
    segment: &Segment,
    from_key: u64,
    after_block: bool,
) -> Result<(Option<u64>, Vec<Sample>), StoreError> {
    let blocks = tx.open_table(BLOCKS)?;
    let to = (series.0, segment.boot, segment.to_ns);
    let mut start = from_key;
    if !after_block {
        // The block that begins before the stretch may reach into it.
        let before = (series.0, segment.boot, 0)..=(series.0, segment.boot, from_key);
        if let Some(row) = blocks.range(before)?.next_back() {
            start = row?.0.value().2;
        }
    }
    let from = (series.0, segment.boot, start);
    if from < to
        && let Some(row) = blocks.range(from..to)?.next()
    {
        let (key, bytes) = row?;
        return Ok((Some(key.value().2), decode_block(bytes.value())?));
    }
    let tail = tail::read(tx, Wanted::Series(series, segment.boot))?;
    Ok((None, tail.into_iter().flat_map(|p| p.samples).collect()))
}

/// Goes through one series, one block in memory at a time.
#[derive(Debug)]
struct Cursor {
    series: SeriesId,
    /// What is left to read, the present one first.
    segments: std::vec::IntoIter<Segment>,
    segment: Option<Segment>,
    /// Where the next block is looked for, and whether one was read before.
    next_key: u64,
    started: bool,
    /// Nothing but what has been read is left of this segment.
    exhausted: bool,
    last: Option<(u64, u64)>,
    chunk: std::vec::IntoIter<Sample>,
    floors: Floors,
    head: Option<Row>,
}

impl Cursor {
    fn new(series: SeriesId, segments: Vec<Segment>) -> Self {
        Self {
            series,
            segments: segments.into_iter(),
            segment: None,
            next_key: 0,
            started: false,
            exhausted: true,
            last: None,
            chunk: Vec::new().into_iter(),
            floors: Floors::default(),
            head: None,
        }
    }

    fn fill(&mut self, reader: &Reader) -> Result<(), StoreError> {
        while self.head.is_none() {
            if let Some(segment) = self.segment {
                for sample in self.chunk.by_ref() {
                    let at = sample.sent.as_nanos();
                    if at >= segment.from_ns && at < segment.to_ns {
                        self.last = Some((at, sample.seq));
                        self.head = Some(Row {
                            series: self.series,
                            wall_ns: segment.wall_ns(at),
                            boot: segment.boot,
                            sample,
                            queueing: self.floors.queueing(&sample),
                        });
                        return Ok(());
                    }
                }
            }
            if self.exhausted {
                let Some(next) = self.segments.next() else {
                    return Ok(());
                };
                self.segment = Some(next);
                self.next_key = next.from_ns;
                self.started = false;
                self.exhausted = false;
                self.last = None;
            }
            let Some(segment) = self.segment else {
                return Ok(());
            };
            let tx = reader.read()?;
            let (key, mut samples) =
                read_chunk(&tx, self.series, &segment, self.next_key, self.started)?;
            self.floors = Floors::of(&tx, self.series, segment.boot, &samples)?;
            match key {
                Some(key) => {
                    self.started = true;
                    self.next_key = key + 1;
                }
                None => {
                    // The tail may have been sealed and read as a block a moment ago.
                    if let Some((at, _)) = self.last {
                        samples.retain(|s| s.sent.as_nanos() > at);
                    }
                    self.exhausted = true;
                }
            }
            self.chunk = samples.into_iter();
        }
        Ok(())
    }
}

/// See [`Reader::samples`]. Ends after the first error.
#[derive(Debug)]
pub struct Samples<'a> {
    reader: &'a Reader,
    cursors: Vec<Cursor>,
    failed: bool,
}

impl Iterator for Samples<'_> {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        for c in &mut self.cursors {
            if let Err(e) = c.fill(self.reader) {
                self.failed = true;
                return Some(Err(e));
            }
        }
        let key = |r: &Row| (r.boot, r.sample.sent, r.series);
        let earliest = self
            .cursors
            .iter_mut()
            .filter(|c| c.head.is_some())
            .min_by_key(|c| c.head.as_ref().map(key))?;
        earliest.head.take().map(Ok)
    }
}
