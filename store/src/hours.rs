//! Sums of an hour of the rows that are there for every minute beside samples: `health` and `load_1m`. A
//! month of minutes is tens of thousands of rows, each on a page that a cold file has to be waited for.
//!
//! The rows of an hour are sums of every minute of it that is in its table, or they are not there: of an
//! hour that is still running, of one before schema 7, and of one some minutes of which were given up. What
//! waits to get into its table ([`crate::waiting`]) is in no sum.

use std::collections::{BTreeMap, BTreeSet};

use redb::{ReadableTable, WriteTransaction};

use crate::codec::from_json;
use crate::error::StoreError;
use crate::health::HealthSum;
use crate::load;
use crate::tables::{HEALTH, HEALTH_HOURS, HOUR_NS, LOAD, LOAD_HOURS};
use crate::timemap::Segment;
use crate::waiting::{For, Rows, Waiting};

/// A part of a stretch of time.
pub(crate) enum Piece<T> {
    /// A row of a whole hour.
    Hour(T),
    /// Where there are minutes only.
    Minutes(Segment),
}

/// Hands out the parts of `s` in order: those of `hours`, each a begin (ns since boot) and a row of it, that
/// lie in it as a whole and to which no row of `waiting` is to be added, and what is between them.
pub(crate) fn walk<T>(
    s: &Segment,
    waiting: &Rows,
    hours: impl Iterator<Item = Result<(u64, T), StoreError>>,
    mut put: impl FnMut(Piece<T>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let part = |from_ns, to_ns| Segment {
        from_ns,
        to_ns,
        ..*s
    };
    let mut at = s.from_ns;
    for row in hours {
        let (begin, row) = row?;
        let end = begin.saturating_add(HOUR_NS);
        let keys = (s.boot, begin, String::new())..(s.boot, end, String::new());
        if end > s.to_ns || waiting.range(keys).next().is_some() {
            continue;
        }
        if at < begin {
            put(Piece::Minutes(part(at, begin)))?;
        }
        // There is a row for each interface.
        at = end;
        put(Piece::Hour(row))?;
    }
    if at < s.to_ns {
        put(Piece::Minutes(part(at, s.to_ns)))?;
    }
    Ok(())
}

/// Sums up the hours of `rows`, which have just been put in their tables: those that are over, as a later
/// minute of their boot is there, those that have sums already, and with `all` every one.
pub(crate) fn sum_up<'a>(
    tx: &WriteTransaction,
    rows: impl Iterator<Item = &'a Waiting>,
    all: bool,
) -> Result<(), StoreError> {
    let mut touched: BTreeMap<(bool, u32), BTreeSet<u64>> = BTreeMap::new();
    for row in rows {
        let of_boot = touched.entry((row.table == For::Load, row.boot));
        of_boot.or_default().insert(row.at_ns - row.at_ns % HOUR_NS);
    }
    for ((is_load, boot), hours) in touched {
        let (Some(first), Some(last)) = (hours.first().copied(), hours.last().copied()) else {
            continue;
        };
        let before = if is_load {
            last_load_before(tx, boot, first)?
        } else {
            last_health_before(tx, boot, first)?
        };
        let before = before.map(|at| at - at % HOUR_NS);
        for hour in before.into_iter().chain(hours) {
            // One that was over before has its sums, unless a later minute is the first to say so.
            let is_due = |has: bool| {
                if hour < first {
                    !has
                } else {
                    all || hour < last || has
                }
            };
            if is_load {
                sum_up_load(tx, boot, hour, is_due)?;
            } else {
                sum_up_health(tx, boot, hour, is_due)?;
            }
        }
    }
    Ok(())
}

fn last_health_before(
    tx: &WriteTransaction,
    boot: u32,
    at: u64,
) -> Result<Option<u64>, StoreError> {
    let table = tx.open_table(HEALTH)?;
    let last = table
        .range((boot, 0)..(boot, at))?
        .next_back()
        .transpose()?;
    Ok(last.map(|(key, _)| key.value().1))
}

fn last_load_before(tx: &WriteTransaction, boot: u32, at: u64) -> Result<Option<u64>, StoreError> {
    let table = tx.open_table(LOAD)?;
    let last = table
        .range((boot, 0, "")..(boot, at, ""))?
        .next_back()
        .transpose()?;
    Ok(last.map(|(key, _)| key.value().1))
}

fn sum_up_health(
    tx: &WriteTransaction,
    boot: u32,
    hour: u64,
    is_due: impl Fn(bool) -> bool,
) -> Result<(), StoreError> {
    let mut of_hours = tx.open_table(HEALTH_HOURS)?;
    if !is_due(of_hours.get((boot, hour))?.is_some()) {
        return Ok(());
    }
    let sum = || {
        let mut sum = HealthSum::default();
        for row in tx
            .open_table(HEALTH)?
            .range((boot, hour)..(boot, hour + HOUR_NS))?
        {
            let (key, json) = row?;
            sum.add(key.value().1.cast_signed(), &from_json(json.value())?);
        }
        sum.encode()
    };
    match unless_damaged(sum())? {
        Some(bytes) => of_hours.insert((boot, hour), bytes.as_slice())?,
        None => of_hours.remove((boot, hour))?,
    };
    Ok(())
}

fn sum_up_load(
    tx: &WriteTransaction,
    boot: u32,
    hour: u64,
    is_due: impl Fn(bool) -> bool,
) -> Result<(), StoreError> {
    let mut of_hours = tx.open_table(LOAD_HOURS)?;
    let there = (boot, hour, "")..(boot, hour + 1, "");
    if !is_due(of_hours.range(there.clone())?.next().is_some()) {
        return Ok(());
    }
    // Sums of all lines or of none: a reader takes an hour as a whole.
    let sums = || {
        let mut sums: BTreeMap<String, load::Hour> = BTreeMap::new();
        let minutes = (boot, hour, "")..(boot, hour + HOUR_NS, "");
        for row in tx.open_table(LOAD)?.range(minutes)? {
            let (key, bytes) = row?;
            let (_, at, interface) = key.value();
            let sum = sums.entry(interface.to_owned()).or_default();
            sum.add(at, bytes.value())?;
        }
        let encoded = sums
            .into_iter()
            .map(|(line, sum)| Ok((line, sum.encode()?)));
        encoded.collect::<Result<Vec<_>, StoreError>>()
    };
    let sums = unless_damaged(sums())?;
    of_hours.retain_in(there, |_, _| false)?;
    for (interface, bytes) in sums.into_iter().flatten() {
        of_hours.insert((boot, hour, interface.as_str()), bytes.as_slice())?;
    }
    Ok(())
}

/// A minute that is damaged must not end recording: its hour has no sum, and whoever reads it is told.
fn unless_damaged<T>(sum: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match sum {
        Ok(sum) => Ok(Some(sum)),
        Err(StoreError::Damaged(_)) => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests;
