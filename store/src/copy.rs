//! A copy of the whole store as of one instant, made while the daemon goes on.

use std::fs::File;
use std::path::{Path, PathBuf};

use redb::{ReadableTable, TableHandle};

use crate::error::{OpenError, StoreError};
use crate::file::new_database;
use crate::reader::Reader;
use crate::tables::{
    ANCHORS, BLOCKS, BOOTS, CABLE, CAPACITY, ECHOES, ESCALATIONS, EVENT_TIMES, EVENTS, FLOORS,
    HEALTH, HEALTH_HOURS, HOURS, LOAD, LOAD_HOURS, META, MINUTES, PATHS, SERIES, SIZES, TAIL,
    TESTS, WHOLE_TAIL, open_if_made,
};

impl Reader {
    /// Writes all there is to a new file at `out`, as small as its data allows: everything that was
    /// committed when this began, and nothing that came later. The file gets its name when it is
    /// whole and on the disk.
    ///
    /// # Errors
    /// [`OpenError::Exists`] where `out` is there already; it is left as it is.
    pub fn copy(&self, out: &Path) -> Result<(), OpenError> {
        if out.symlink_metadata().is_ok() {
            return Err(OpenError::Exists(out.to_path_buf()));
        }
        let mut name = out.as_os_str().to_owned();
        name.push(".part");
        let part = PathBuf::from(name);
        let copied = self.copy_to(&part).and_then(|()| {
            let io = |source| OpenError::Io {
                path: out.to_path_buf(),
                source,
            };
            // Unlike a renaming, a link never replaces what another has made meanwhile.
            std::fs::hard_link(&part, out).map_err(|e| match e.kind() {
                std::io::ErrorKind::AlreadyExists => OpenError::Exists(out.to_path_buf()),
                _ => io(e),
            })?;
            let dir = out.parent().filter(|p| !p.as_os_str().is_empty());
            let dir = File::open(dir.unwrap_or(Path::new("."))).map_err(io)?;
            dir.sync_all().map_err(io)
        });
        // It is there under its own name now, or of no use.
        let _ = std::fs::remove_file(&part);
        copied
    }

    fn copy_to(&self, part: &Path) -> Result<(), OpenError> {
        let failed = |e: StoreError| OpenError::Copy {
            path: part.to_path_buf(),
            why: e.to_string(),
        };
        let to = new_database(part)?;
        self.copy_tables(&to).map_err(failed)?;
        to.close().map_err(|e| OpenError::of(part, e))
    }

    fn copy_tables(&self, to: &redb::Database) -> Result<(), StoreError> {
        let source = self.read()?;
        let target = to.begin_write()?;
        let mut known = Vec::new();
        macro_rules! copy {
            ($($table:ident)*) => {$({
                known.push($table.name().to_owned());
                let mut rows = target.open_table($table)?;
                if let Some(from) = open_if_made(&source, $table)? {
                    for row in from.iter()? {
                        let (key, value) = row?;
                        rows.insert(key.value(), value.value())?;
                    }
                }
            })*};
        }
        copy!(META BOOTS ANCHORS SERIES BLOCKS TAIL WHOLE_TAIL MINUTES HOURS EVENTS EVENT_TIMES FLOORS TESTS HEALTH HEALTH_HOURS CAPACITY LOAD LOAD_HOURS CABLE PATHS ESCALATIONS SIZES ECHOES);
        // Nothing is left out in silence.
        for table in source.list_tables()? {
            if !known.iter().any(|k| k == table.name()) {
                let what = format!("table {} cannot be copied by this version", table.name());
                return Err(StoreError::Damaged(what));
            }
        }
        target.commit()?;
        Ok(())
    }
}
