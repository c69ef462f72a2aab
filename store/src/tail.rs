//! The tail: for every series of the running boot, the samples that are in no block yet.
//!
//! A commit adds a row that says what has changed since the row before, for each series of which
//! anything has:
//!
//! ```text
//! 0 varint:     samples of a series follow
//! series varint, boot varint, rolled_until varint (ns since boot),
//! gone varint:  so many samples from the front are here no longer,
//! kept varint:  and so many that follow them stay; what is behind those gives way to
//! blocks varint, then each: length varint, a packed block
//! ```
//!
//! Rows of minutes that wait to be put in their tables follow in the same row, see `waiting`.
//!
//! Files of schema 5 and older have one row of all that there is, without the 0, `gone` and `kept`.

use std::collections::BTreeMap;

use bufferbane_core::limits::MAX_BLOCK_SAMPLES;
use bufferbane_core::record;
use bufferbane_core::sample::Sample;
use bufferbane_core::varint::{Reader, Writer};
use redb::{ReadTransaction, ReadableTable};

use crate::codec::encode_block;
use crate::error::StoreError;
use crate::model::SeriesId;
use crate::tables::{TAIL, WHOLE_TAIL, open_if_made};
use crate::waiting::{For, Waiting};

/// What a row says of one series.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change<S = Sample> {
    pub(crate) series: SeriesId,
    pub(crate) boot: u32,
    pub(crate) rolled_until_ns: u64,
    /// So many samples from the front are here no longer.
    pub(crate) gone: usize,
    /// So many that follow those stay, in front of `samples`.
    pub(crate) kept: usize,
    pub(crate) samples: Vec<S>,
}

/// The tail of one series.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    pub(crate) series: SeriesId,
    pub(crate) boot: u32,
    pub(crate) rolled_until_ns: u64,
    pub(crate) samples: Vec<Sample>,
}

/// What a change of samples begins with.
const SAMPLES: u64 = 0;

/// How a row is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The one of all that there is, as in files of schema 5 and older.
    Whole,
    /// One of what has changed.
    Changes,
}

/// What of a row is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Everything.
    All,
    /// The samples of one series and boot.
    Series(SeriesId, u32),
    /// The rows that wait.
    Waiting,
}

/// A row, as far as it was wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Row {
    pub(crate) changes: Vec<Change>,
    pub(crate) waiting: Vec<Waiting>,
}

pub(crate) fn encode<'a>(changes: impl Iterator<Item = Change<&'a Sample>>) -> Vec<u8> {
    let mut row = Vec::new();
    for change in changes {
        let samples: Vec<Sample> = change.samples.into_iter().copied().collect();
        let blocks: Vec<&[Sample]> = samples.chunks(MAX_BLOCK_SAMPLES / 4).collect();
        number(&mut row, SAMPLES);
        number(&mut row, u64::from(change.series.0));
        number(&mut row, u64::from(change.boot));
        number(&mut row, change.rolled_until_ns);
        number(&mut row, change.gone as u64);
        number(&mut row, change.kept as u64);
        number(&mut row, blocks.len() as u64);
        for b in blocks {
            let block = encode_block(b);
            number(&mut row, block.len() as u64);
            row.extend_from_slice(&block);
        }
    }
    row
}

/// What a row says, as far as it is `wanted`.
pub(crate) fn decode(row: &[u8], form: Form, wanted: Wanted) -> Result<Row, StoreError> {
    let mut read = Row::default();
    let mut r = Reader::new(row);
    while !r.rest().is_empty() {
        next(&mut r, form, wanted, &mut read).ok_or_else(damaged)?;
    }
    Ok(read)
}

fn next(r: &mut Reader<'_>, form: Form, wanted: Wanted, row: &mut Row) -> Option<()> {
    let kind = match form {
        Form::Whole => SAMPLES,
        Form::Changes => r.unsigned()?,
    };
    if kind == SAMPLES {
        row.changes.extend(change(r, form, wanted)?);
    } else {
        let waiting = Waiting::decode(For::of(kind)?, r)?;
        if matches!(wanted, Wanted::All | Wanted::Waiting) {
            row.waiting.push(waiting);
        }
    }
    Some(())
}

fn damaged() -> StoreError {
    StoreError::Damaged("a row of unsealed samples is damaged".into())
}

/// The next change of a row: the inner one is `None` where nobody wants it.
fn change(r: &mut Reader<'_>, form: Form, wanted: Wanted) -> Option<Option<Change>> {
    let series = SeriesId(u32::try_from(r.unsigned()?).ok()?);
    let boot = u32::try_from(r.unsigned()?).ok()?;
    let rolled_until_ns = r.unsigned()?;
    let [gone, kept] = match form {
        Form::Whole => [0; 2],
        Form::Changes => [r.unsigned()?, r.unsigned()?],
    };
    let blocks = r.unsigned()?;
    let wanted = wanted == Wanted::All || wanted == Wanted::Series(series, boot);
    let mut samples = Vec::new();
    for _ in 0..blocks {
        let len = usize::try_from(r.unsigned()?).ok()?;
        let bytes = r.bytes(len)?;
        if wanted {
            samples.extend(record::decode(bytes).ok()?);
        }
    }
    let change = Change {
        series,
        boot,
        rolled_until_ns,
        gone: usize::try_from(gone).ok()?,
        kept: usize::try_from(kept).ok()?,
        samples,
    };
    Some(wanted.then_some(change))
}

/// The tail of each series, put together row by row.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    parts: BTreeMap<(SeriesId, u32), Part>,
    waiting: Vec<Waiting>,
}

impl Tail {
    /// What the next row says.
    pub(crate) fn take(&mut self, row: Row) -> Result<(), StoreError> {
        self.waiting.extend(row.waiting);
        for c in row.changes {
            let part = self
                .parts
                .entry((c.series, c.boot))
                .or_insert_with(|| Part {
                    series: c.series,
                    boot: c.boot,
                    rolled_until_ns: 0,
                    samples: Vec::new(),
                });
            let there = part.samples.len();
            if there.checked_sub(c.gone).is_none_or(|n| n < c.kept) {
                return Err(damaged());
            }
            part.rolled_until_ns = c.rolled_until_ns;
            part.samples.truncate(c.gone + c.kept);
            part.samples.drain(..c.gone);
            part.samples.extend(c.samples);
        }
        Ok(())
    }

    /// The series, and the rows that wait.
    pub(crate) fn into_parts(self) -> (Vec<Part>, Vec<Waiting>) {
        (self.parts.into_values().collect(), self.waiting)
    }
}

/// The samples that are in no block yet, as far as they are `wanted`.
pub(crate) fn read(tx: &ReadTransaction, wanted: Wanted) -> Result<Vec<Part>, StoreError> {
    let mut tail = Tail::default();
    if let Some(table) = open_if_made(tx, WHOLE_TAIL)?
        && let Some(row) = table.get(())?
    {
        tail.take(decode(row.value(), Form::Whole, wanted)?)?;
    }
    if let Some(table) = open_if_made(tx, TAIL)? {
        for row in table.iter()? {
            tail.take(decode(row?.1.value(), Form::Changes, wanted)?)?;
        }
    }
    Ok(tail.into_parts().0)
}

pub(crate) fn number(row: &mut Vec<u8>, value: u64) {
    let mut bytes = [0; 10];
    let mut w = Writer::new(&mut bytes);
    w.unsigned(value);
    row.extend_from_slice(w.written());
}

/// The row of an earlier version, of one series.
#[cfg(test)]
pub(crate) fn encode_whole(
    series: SeriesId,
    boot: u32,
    rolled_until_ns: u64,
    samples: &[Sample],
) -> Vec<u8> {
    let mut row = Vec::new();
    let block = encode_block(samples);
    let numbers = [u64::from(series.0), u64::from(boot), rolled_until_ns, 1];
    numbers.into_iter().for_each(|n| number(&mut row, n));
    number(&mut row, block.len() as u64);
    row.extend_from_slice(&block);
    row
}
