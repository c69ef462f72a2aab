//! Rows of minutes that wait in the rows of the tail: each table that a commit touches costs it a page of
//! every level of that table, so they get into theirs many at a time.
//!
//! ```text
//! 1 varint: of `health`; 2: of `load_1m`
//! boot varint, ns since boot varint, interface (length varint, UTF-8; none of `health`),
//! the row (length varint, bytes)
//! ```

use std::collections::BTreeMap;
use std::ops::Range;

use bufferbane_core::varint::Reader;
use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use crate::error::StoreError;
use crate::tables::{HEALTH, LOAD, TAIL, open_if_made};
use crate::tail::{self, Form, Wanted, number};
use crate::timemap::Segment;

/// The table that a row is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// `health`.
    Health = 1,
    /// `load_1m`.
    Load = 2,
}

impl For {
    pub(crate) const fn of(kind: u64) -> Option<Self> {
        match kind {
            1 => Some(Self::Health),
            2 => Some(Self::Load),
            _ => None,
        }
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) table: For,
    pub(crate) boot: u32,
    pub(crate) at_ns: u64,
    /// The interface; empty where the table has none.
    pub(crate) interface: String,
    pub(crate) value: Vec<u8>,
}

impl Waiting {
    pub(crate) fn encode(&self, row: &mut Vec<u8>) {
        number(row, self.table as u64);
        number(row, u64::from(self.boot));
        number(row, self.at_ns);
        for bytes in [self.interface.as_bytes(), &self.value] {
            number(row, bytes.len() as u64);
            row.extend_from_slice(bytes);
        }
    }

    /// One that begins behind its kind.
    pub(crate) fn decode(table: For, r: &mut Reader<'_>) -> Option<Self> {
        let boot = u32::try_from(r.unsigned()?).ok()?;
        let at_ns = r.unsigned()?;
        let len = usize::try_from(r.unsigned()?).ok()?;
        let interface = str::from_utf8(r.bytes(len)?).ok()?.to_owned();
        let len = usize::try_from(r.unsigned()?).ok()?;
        let value = r.bytes(len)?.to_vec();
        Some(Self {
            table,
            boot,
            at_ns,
            interface,
            value,
        })
    }

    /// Writes it where it belongs.
    pub(crate) fn put(&self, tx: &WriteTransaction) -> Result<(), StoreError> {
        let value = self.value.as_slice();
        match self.table {
            For::Health => {
                let mut table = tx.open_table(HEALTH)?;
                table.insert((self.boot, self.at_ns), value)?;
            }
            For::Load => {
                let mut table = tx.open_table(LOAD)?;
                table.insert((self.boot, self.at_ns, self.interface.as_str()), value)?;
            }
        }
        Ok(())
    }
}

/// Boot, ns since boot, interface.
pub(crate) type Key = (u32, u64, String);
/// Rows by their keys.
pub(crate) type Rows = BTreeMap<Key, Vec<u8>>;

/// The keys of a stretch of a boot.
pub(crate) fn keys(s: &Segment) -> Range<Key> {
    (s.boot, s.from_ns, String::new())..(s.boot, s.to_ns, String::new())
}

/// Those that wait for `table`.
pub(crate) fn read(tx: &ReadTransaction, table: For) -> Result<Rows, StoreError> {
    let mut waiting = BTreeMap::new();
    if let Some(rows) = open_if_made(tx, TAIL)? {
        for row in rows.iter()? {
            let row = tail::decode(row?.1.value(), Form::Changes, Wanted::Waiting)?;
            let wanted = row.waiting.into_iter().filter(|w| w.table == table);
            waiting.extend(wanted.map(|w| ((w.boot, w.at_ns, w.interface), w.value)));
        }
    }
    Ok(waiting)
}
