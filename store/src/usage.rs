//! What of the file each table takes.

use redb::{ReadableTableMetadata, TableHandle};

use crate::error::StoreError;
use crate::reader::Reader;

/// The room of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Its name, as docs/store.md has it.
    pub table: String,
    /// Its rows.
    pub rows: u64,
    /// Bytes of keys and values.
    pub stored_bytes: u64,
    /// Bytes of the pages that it takes for them.
    pub page_bytes: u64,
}

impl Reader {
    /// What each table takes, by name. Reads all of the file's pages but those of large values.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn usage(&self) -> Result<Vec<Usage>, StoreError> {
        let tx = self.read()?;
        let mut all = Vec::new();
        for handle in tx.list_tables()? {
            let name = handle.name().to_owned();
            let table = tx.open_untyped_table(handle)?;
            let stats = table.stats()?;
            let stored_bytes = stats.stored_bytes();
            all.push(Usage {
                table: name,
                rows: table.len()?,
                stored_bytes,
                page_bytes: stored_bytes + stats.metadata_bytes() + stats.fragmented_bytes(),
            });
        }
        all.sort_by(|a, b| a.table.cmp(&b.table));
        Ok(all)
    }
}
