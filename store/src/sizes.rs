//! The largest packets that pass on the ways to targets, as they were searched for.

use std::net::IpAddr;

use bufferbane_core::time::Monotonic;
use redb::WriteTransaction;
use serde::{Deserialize, Serialize};

use crate::codec::{from_json, to_json};
use crate::error::StoreError;
use crate::model::Direction;
use crate::paths::Rows;
use crate::reader::Reader;
use crate::tables::SIZES;
use crate::writer::Writer;

/// What becomes of packets that are larger than what passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Larger {
    /// All that the interface takes passes: there are none.
    None,
    /// A router, or this host, says that they are too big, so senders learn it.
    Told,
    /// They vanish, and nobody says so.
    Silent,
}

/// The largest packet that passes on the way to a target. Sizes are of IP packets, header included, bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathSize {
    /// The interface that packets leave through.
    pub interface: String,
    /// The target's or reflector's name.
    pub target: String,
    /// Its address.
    pub address: IpAddr,
    /// What the interface takes, but no more than is looked for: 9216 bytes.
    pub interface_bytes: u64,
    /// The largest that passes.
    pub passes_bytes: u64,
    /// What becomes of larger ones.
    pub larger: Larger,
    /// Who says that they are too big, where a router does.
    pub told_by: Option<IpAddr>,
    /// The direction in which they vanish, where that could be found out; where they do not, up if only the way there
    /// could be searched.
    pub direction: Option<Direction>,
}

/// What was found of a way, for as long as searches found the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSize {
    /// When it was first found, wall time in ns since 1970.
    pub first_ns: i64,
    /// When it was last found.
    pub last_ns: i64,
    /// How many searches found it.
    pub searches: u64,
    /// What they found.
    pub size: PathSize,
}

/// A row of `sizes`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredSize {
    /// From the row's instant to when it was last found.
    lasted_ns: u64,
    searches: u64,
    #[serde(flatten)]
    size: PathSize,
}

pub(crate) fn write(
    rows: &Rows<StoredSize>,
    tx: &WriteTransaction,
    boot: u32,
) -> Result<(), StoreError> {
    let mut table = tx.open_table(SIZES)?;
    for ((first, which), row) in rows {
        table.insert((boot, *first, which.as_str()), to_json(row)?.as_slice())?;
    }
    Ok(())
}

impl Writer {
    /// Records what searches in this boot found that was first found at `first` and last at `last`, so often. One
    /// of the same target and first instant takes the place of an earlier one.
    pub fn size(&mut self, first: Monotonic, last: Monotonic, searches: u64, size: PathSize) {
        let which = format!("{} {} {}", size.interface, size.target, size.address);
        let row = StoredSize {
            lasted_ns: last.saturating_since(first),
            searches,
            size,
        };
        let rows = &mut self.pending_paths().sizes;
        rows.insert((first.as_nanos(), which), row);
    }
}

impl Reader {
    /// What was found of the largest packets between two wall times, ns since 1970, the end exclusive, by when it
    /// was first found.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn sizes(&self, from_ns: i64, to_ns: i64) -> Result<Vec<KnownSize>, StoreError> {
        let mut rows = Vec::new();
        self.each_line_row(SIZES, i64::MIN, to_ns, |first_ns, _, bytes| {
            let row: StoredSize = from_json(bytes)?;
            let last_ns = first_ns.saturating_add_unsigned(row.lasted_ns);
            if last_ns >= from_ns {
                rows.push(KnownSize {
                    first_ns,
                    last_ns,
                    searches: row.searches,
                    size: row.size,
                });
            }
            Ok(())
        })?;
        Ok(rows)
    }
}
