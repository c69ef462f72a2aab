//! The read side: beside a running daemon or without one, the same answers from the same file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use redb::{ReadOnlyDatabase, ReadTransaction, ReadableDatabase, ReadableTable};

use crate::codec::{decode_block, decode_summary, from_json};
use crate::error::{OpenError, StoreError};
use crate::file::{open_database, open_read_only};
use crate::model::{SeriesId, SeriesInfo, Trust};
use crate::tables::{ANCHORS, BLOCKS, BOOTS, HOURS, MINUTES, SERIES};
use crate::tail::{self, Wanted};
use crate::timemap::{Anchor, TimeMap};

/// An open store. Every answer takes a read transaction of its own, so nothing is held back from
/// the writer for longer than that.
pub struct Reader {
    path: PathBuf,
    db: ReadOnlyDatabase,
    map: TimeMap,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Opens the store for writing once, which repairs it after an unclean end, and closes it again.
///
/// # Errors
/// [`OpenError::Busy`] while a daemon has it open, and the others of [`OpenError`].
pub fn recover(path: &Path) -> Result<(), OpenError> {
    let db = open_database(path)?;
    db.close().map_err(|e| OpenError::of(path, e))
}

impl Reader {
    /// Opens the store at `path` for reading.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::NeedsRecovery`] after an unclean end of the daemon.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let db = open_read_only(path)?;
        let mut reader = Self {
            path: path.to_path_buf(),
            db,
            map: TimeMap::default(),
        };
        reader.map = reader.load_map().map_err(|e| OpenError::Corrupt {
            path: path.to_path_buf(),
            why: e.to_string(),
        })?;
        Ok(reader)
    }

    fn load_map(&self) -> Result<TimeMap, StoreError> {
        let mut anchors = Vec::new();
        for row in self.read()?.open_table(ANCHORS)?.iter()? {
            let (key, value) = row?;
            let (boot, mono) = key.value();
            let (wall_ns, trust) = value.value();
            anchors.push(Anchor {
                boot,
                mono: bufferbane_core::time::Monotonic::from_nanos(mono),
                wall_ns,
                trust: Trust::from_u8(trust),
            });
        }
        Ok(TimeMap::new(&anchors))
    }

    /// How boots and instants map to wall time.
    #[must_use]
    pub const fn time_map(&self) -> &TimeMap {
        &self.map
    }

    /// The file that is open.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn read(&self) -> Result<ReadTransaction, StoreError> {
        Ok(self.db.begin_read()?)
    }

    /// All series, by id.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn series(&self) -> Result<BTreeMap<SeriesId, SeriesInfo>, StoreError> {
        let mut series = BTreeMap::new();
        for row in self.read()?.open_table(SERIES)?.iter()? {
            let (id, json) = row?;
            series.insert(SeriesId(id.value()), from_json(json.value())?);
        }
        Ok(series)
    }

    /// The kernel's boot ids by number.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn boots(&self) -> Result<BTreeMap<u32, String>, StoreError> {
        let mut boots = BTreeMap::new();
        for row in self.read()?.open_table(BOOTS)?.iter()? {
            let (number, id) = row?;
            boots.insert(number.value(), id.value().to_owned());
        }
        Ok(boots)
    }

    /// Wall time of the first and just after the last sample or rollup, ns since 1970; `None` where
    /// there is none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn span(&self) -> Result<Option<(i64, i64)>, StoreError> {
        let tx = self.read()?;
        let mut span: Option<(i64, i64)> = None;
        let mut widen = |boot: u32, from_ns: u64, to_ns: u64| {
            if let (Some(a), Some(b)) = (
                self.map.wall_ns(boot, from_ns),
                self.map.wall_ns(boot, to_ns),
            ) {
                span = Some(span.map_or((a, b), |(x, y)| (x.min(a), y.max(b))));
            }
        };
        let blocks = tx.open_table(BLOCKS)?;
        for id in self.series()?.keys() {
            for boot in self.map.boots() {
                let all = (id.0, boot, 0)..=(id.0, boot, u64::MAX);
                for table in [MINUTES, HOURS] {
                    let rows = tx.open_table(table)?;
                    let mut range = rows.range(all.clone())?;
                    for row in [range.next(), range.next_back()].into_iter().flatten() {
                        let summary = decode_summary(row?.1.value())?;
                        if let (Some(first), Some(last)) = (summary.first, summary.last) {
                            widen(boot, first.as_nanos(), last.as_nanos() + 1);
                        }
                    }
                }
                let mut range = blocks.range(all)?;
                for row in [range.next(), range.next_back()].into_iter().flatten() {
                    let samples = decode_block(row?.1.value())?;
                    if let (Some(first), Some(last)) = (samples.first(), samples.last()) {
                        widen(boot, first.sent.as_nanos(), last.sent.as_nanos() + 1);
                    }
                }
            }
        }
        for part in tail::read(&tx, Wanted::All)? {
            if let (Some(first), Some(last)) = (part.samples.first(), part.samples.last()) {
                widen(part.boot, first.sent.as_nanos(), last.sent.as_nanos() + 1);
            }
        }
        Ok(span)
    }
}
