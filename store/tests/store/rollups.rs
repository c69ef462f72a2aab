//! Rollups, read as they are stored.

use std::path::Path;

use bufferbane_core::stats::summary::Summary;
use bufferbane_store::{Reader, SeriesId, Window};

/// Every rollup of a series in one boot.
pub(crate) fn rows(path: &Path, window: Window, id: SeriesId, boot: u32) -> Vec<(u64, Summary)> {
    let r = Reader::open(path).unwrap();
    let (mut rows, mut from) = (Vec::new(), 0);
    loop {
        let more = r.rollups(window, id, boot, from..u64::MAX).unwrap();
        let Some((last, _)) = more.last() else {
            return rows;
        };
        from = last + 1;
        rows.extend(more);
    }
}
