//! Whether everything in the file can be read.

use redb::ReadableTable;

use crate::codec::{decode_block, decode_summary, from_json};
use crate::error::StoreError;
use crate::model::Event;
use crate::reader::Reader;
use crate::tables::{BLOCKS, EVENTS, HOURS, MINUTES};
use crate::tail::{self, Wanted};

/// What [`Reader::check`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Series known.
    pub series: u64,
    /// Blocks read.
    pub blocks: u64,
    /// Samples in blocks and in the tail.
    pub samples: u64,
    /// Rollup rows read.
    pub rollups: u64,
    /// Events read.
    pub events: u64,
}

impl Reader {
    /// Reads everything there is, and decodes it.
    ///
    /// # Errors
    /// The first thing that is not as it should be.
    pub fn check(&self) -> Result<CheckReport, StoreError> {
        let tx = self.read()?;
        let mut report = CheckReport {
            series: self.series()?.len() as u64,
            ..Default::default()
        };
        for row in tx.open_table(BLOCKS)?.iter()? {
            let (key, bytes) = row?;
            let samples = decode_block(bytes.value()).map_err(|e| {
                let (series, boot, at) = key.value();
                StoreError::Damaged(format!(
                    "block of series {series}, boot {boot}, at {at}: {e}"
                ))
            })?;
            report.blocks += 1;
            report.samples += samples.len() as u64;
        }
        for part in tail::read(&tx, Wanted::All)? {
            report.samples += part.samples.len() as u64;
        }
        for table in [MINUTES, HOURS] {
            for row in tx.open_table(table)?.iter()? {
                decode_summary(row?.1.value())?;
                report.rollups += 1;
            }
        }
        for row in tx.open_table(EVENTS)?.iter()? {
            let _: Event = from_json(row?.1.value())?;
            report.events += 1;
        }
        Ok(report)
    }
}
