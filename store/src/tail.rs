//! The tail row: for every series of the running boot, what is in no block yet.
//!
//! ```text
//! for each series: series varint, boot varint, rolled_until varint (ns since boot),
//!                  blocks varint, then each: length varint, a packed block
//! ```

use bufferbane_core::limits::MAX_BLOCK_SAMPLES;
use bufferbane_core::record;
use bufferbane_core::sample::Sample;
use bufferbane_core::varint::{Reader, Writer};

use crate::codec::encode_block;
use crate::error::StoreError;
use crate::model::SeriesId;

/// One series' part of the tail.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    pub(crate) series: SeriesId,
    pub(crate) boot: u32,
    pub(crate) rolled_until_ns: u64,
    pub(crate) samples: Vec<Sample>,
}

pub(crate) fn encode<'a>(
    parts: impl Iterator<Item = (SeriesId, u32, u64, Vec<&'a Sample>)>,
) -> Vec<u8> {
    let mut row = Vec::new();
    for (series, boot, rolled_until_ns, samples) in parts {
        let samples: Vec<Sample> = samples.into_iter().copied().collect();
        let blocks: Vec<&[Sample]> = samples.chunks(MAX_BLOCK_SAMPLES / 4).collect();
        number(&mut row, u64::from(series.0));
        number(&mut row, u64::from(boot));
        number(&mut row, rolled_until_ns);
        number(&mut row, blocks.len() as u64);
        for b in blocks {
            let block = encode_block(b);
            number(&mut row, block.len() as u64);
            row.extend_from_slice(&block);
        }
    }
    row
}

pub(crate) fn decode(row: &[u8]) -> Result<Vec<Part>, StoreError> {
    let mut parts = Vec::new();
    let mut r = Reader::new(row);
    while !r.rest().is_empty() {
        let part = part(&mut r)
            .ok_or_else(|| StoreError::Damaged("the row of unsealed samples is damaged".into()))?;
        parts.push(part);
    }
    Ok(parts)
}

fn part(r: &mut Reader<'_>) -> Option<Part> {
    let series = SeriesId(u32::try_from(r.unsigned()?).ok()?);
    let boot = u32::try_from(r.unsigned()?).ok()?;
    let rolled_until_ns = r.unsigned()?;
    let blocks = r.unsigned()?;
    let mut samples = Vec::new();
    for _ in 0..blocks {
        let len = usize::try_from(r.unsigned()?).ok()?;
        samples.extend(record::decode(r.bytes(len)?).ok()?);
    }
    Some(Part {
        series,
        boot,
        rolled_until_ns,
        samples,
    })
}

fn number(row: &mut Vec<u8>, value: u64) {
    let mut bytes = [0; 10];
    let mut w = Writer::new(&mut bytes);
    w.unsigned(value);
    row.extend_from_slice(w.written());
}
