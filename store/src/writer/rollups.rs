//! Minutes, and the hours that they complete.

use bufferbane_core::stats::summary::Summary;
use redb::{ReadableTable, WriteTransaction};

use crate::codec::{decode_summary, encode_summary};
use crate::error::StoreError;
use crate::model::SeriesId;
use crate::tables::{HOUR_NS, HOURS, MINUTE_NS, MINUTES, SeriesTime};

/// Writes rows of minutes, joined with what a run before left there, and the hours they complete.
pub(super) fn write_minutes(
    tx: &WriteTransaction,
    id: SeriesId,
    boot: u32,
    new: &[(u64, Summary)],
) -> Result<(), StoreError> {
    if new.is_empty() {
        return Ok(());
    }
    let mut minutes = tx.open_table(MINUTES)?;
    let mut hours = tx.open_table(HOURS)?;
    for (begin, summary) in new {
        let key = (id.0, boot, *begin);
        let existing = minutes
            .get(key)?
            .map(|r| decode_summary(r.value()))
            .transpose()?;
        let joined = match existing {
            Some(mut before) => {
                before.merge(summary);
                before
            }
            None => summary.clone(),
        };
        minutes.insert(key, encode_summary(&joined).as_slice())?;
    }
    let mut hour_begins: Vec<u64> = new.iter().map(|(b, _)| b - b % HOUR_NS).collect();
    hour_begins.dedup();
    // The hour that is still running is summed up from its minutes by readers; it is written when
    // the first minute of the next one is, or when its series ends.
    let last_minute = new.last().map_or(0, |(b, _)| *b);
    let previous = last_minute.saturating_sub(MINUTE_NS);
    hour_begins.push(previous - previous % HOUR_NS);
    hour_begins.sort_unstable();
    hour_begins.dedup();
    for begin in hour_begins {
        if begin + HOUR_NS <= last_minute + MINUTE_NS {
            rebuild_hour(&minutes, &mut hours, (id.0, boot, begin))?;
        }
    }
    Ok(())
}

pub(super) fn rebuild_hour(
    minutes: &impl ReadableTable<SeriesTime, &'static [u8]>,
    hours: &mut redb::Table<'_, SeriesTime, &'static [u8]>,
    key: SeriesTime,
) -> Result<(), StoreError> {
    let mut joined = Summary::new();
    for row in minutes.range(key..(key.0, key.1, key.2 + HOUR_NS))? {
        joined.merge(&decode_summary(row?.1.value())?);
    }
    if !joined.is_empty() {
        hours.insert(key, encode_summary(&joined).as_slice())?;
    }
    Ok(())
}
