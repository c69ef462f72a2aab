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
    // The hour that is still running is summed up from its minutes by readers; its row is written
    // when the next one begins, or when its series ends, and from then on keeps up with its minutes.
    let last_minute = new.last().map_or(0, |(b, _)| *b);
    let mut hour_begins: Vec<u64> = new.iter().map(|(b, _)| b - b % HOUR_NS).collect();
    hour_begins.dedup();
    for begin in hour_begins {
        let key = (id.0, boot, begin);
        if begin + HOUR_NS <= last_minute + MINUTE_NS || hours.get(key)?.is_some() {
            rebuild_hour(&minutes, &mut hours, key)?;
        }
    }
    // However long ago that was.
    let before = minutes
        .range((id.0, boot, 0)..(id.0, boot, new[0].0))?
        .next_back()
        .transpose()?
        .map(|(key, _)| key.value().2);
    if let Some(before) = before
        && before - before % HOUR_NS + HOUR_NS <= last_minute
    {
        complete_hour(&minutes, &mut hours, (id.0, boot, before))?;
    }
    Ok(())
}

/// Writes the hour of the last minute there is of a series and boot, if it ended before `until_ns`
/// and has no row yet: a series that has ended begins no later hour.
pub(super) fn complete_last_hour(
    tx: &WriteTransaction,
    id: SeriesId,
    boot: u32,
    until_ns: u64,
) -> Result<(), StoreError> {
    let minutes = tx.open_table(MINUTES)?;
    let last = minutes
        .range((id.0, boot, 0)..=(id.0, boot, u64::MAX))?
        .next_back()
        .transpose()?
        .map(|(key, _)| key.value());
    if let Some(last) = last
        && (last.2 - last.2 % HOUR_NS).saturating_add(HOUR_NS) <= until_ns
    {
        complete_hour(&minutes, &mut tx.open_table(HOURS)?, last)?;
    }
    Ok(())
}

/// Writes the hour that `minute` is of, if it has no row yet.
pub(crate) fn complete_hour(
    minutes: &impl ReadableTable<SeriesTime, &'static [u8]>,
    hours: &mut redb::Table<'_, SeriesTime, &'static [u8]>,
    minute: SeriesTime,
) -> Result<(), StoreError> {
    let hour = (minute.0, minute.1, minute.2 - minute.2 % HOUR_NS);
    if hours.get(hour)?.is_some() {
        return Ok(());
    }
    rebuild_hour(minutes, hours, hour)
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
