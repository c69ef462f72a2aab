//! The file itself: making it, opening it, and refusing what is not ours.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase};

use crate::error::{OpenError, StoreError};
use crate::tables::{
    ANCHORS, BLOCKS, BOOTS, CABLE, CACHE_BYTES, CAPACITY, ECHOES, ESCALATIONS, EVENT_TIMES, EVENTS,
    FLOORS, HEALTH, HEALTH_HOURS, HOURS, LOAD, LOAD_HOURS, META, MINUTES, MODE, PATHS, REDB_MAGIC,
    SCHEMA, SERIES, SIZES, TAIL, TESTS,
};
use crate::tentative::{Decision, Tentative};

/// Makes the file smaller if nobody else has it open. Gives whether it did.
///
/// # Errors
/// As [`crate::Writer::open`]; [`StoreError`] within [`OpenError::Corrupt`] where compaction fails.
pub fn compact(path: &Path) -> Result<bool, OpenError> {
    if !path.exists() {
        return Err(OpenError::Missing(path.to_path_buf()));
    }
    let mut db = open_database(path)?;
    let corrupt = |why: String| OpenError::Corrupt {
        path: path.to_path_buf(),
        why,
    };
    let done = db.compact().map_err(|e| corrupt(e.to_string()))?;
    db.close().map_err(|e| OpenError::of(path, e))?;
    Ok(done)
}

/// Refuses what is not ours before redb touches it.
pub(crate) fn check_foreign(path: &Path) -> Result<bool, OpenError> {
    let io = |source| OpenError::Io {
        path: path.to_path_buf(),
        source,
    };
    let mut file = match File::open(path) {
        Ok(f) => f,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(io(e)),
    };
    if file.metadata().map_err(io)?.len() == 0 {
        return Ok(false);
    }
    let mut magic = [0; REDB_MAGIC.len()];
    match file.read_exact(&mut magic) {
        Ok(()) if magic == REDB_MAGIC => Ok(true),
        _ => Err(OpenError::Foreign(path.to_path_buf())),
    }
}

/// Whether the opened database `tx` reads from is a store of ours, of a version we know.
pub(crate) fn check_schema(path: &Path, db: &impl ReadableDatabase) -> Result<(), OpenError> {
    let foreign = || OpenError::Foreign(path.to_path_buf());
    // A disk that fails for the moment is not a store that is damaged.
    let storage = |e| OpenError::of(path, redb::DatabaseError::Storage(e));
    let tx = db.begin_read().map_err(|e| match e {
        redb::TransactionError::Storage(e) => storage(e),
        other => OpenError::Corrupt {
            path: path.to_path_buf(),
            why: other.to_string(),
        },
    })?;
    let meta = tx.open_table(META).map_err(|e| match e {
        redb::TableError::Storage(e) => storage(e),
        _ => foreign(),
    })?;
    let found = meta.get("schema").map_err(storage)?;
    let found = found.map(|v| v.value()).ok_or_else(foreign)?;
    if found > SCHEMA {
        return Err(OpenError::Newer {
            path: path.to_path_buf(),
            found,
        });
    }
    Ok(())
}

/// What redb does with a file whose pages are garbage: some it reports, at some it panics.
pub(crate) fn unless_it_panics<T>(
    path: &Path,
    open: impl FnOnce() -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(open)).unwrap_or_else(|_| {
        Err(OpenError::Corrupt {
            path: path.to_path_buf(),
            why: "its pages make no sense".into(),
        })
    })
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder
        .set_cache_size(CACHE_BYTES)
        .set_concurrency_mode(MODE);
    builder
}

/// An empty database in a new file.
pub(crate) fn new_database(path: &Path) -> Result<Database, OpenError> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(|source| OpenError::Io {
            path: path.to_path_buf(),
            source,
        })?;
    FileBackend::new(file)
        .and_then(|file| builder().create_with_backend(file))
        .map_err(|e| OpenError::of(path, e))
}

pub(crate) fn open_read_only(path: &Path) -> Result<redb::ReadOnlyDatabase, OpenError> {
    if !check_foreign(path)? {
        return Err(OpenError::Missing(path.to_path_buf()));
    }
    unless_it_panics(path, || {
        let db = builder()
            .open_read_only(path)
            .map_err(|e| OpenError::of(path, e))?;
        check_schema(path, &db)?;
        Ok(db)
    })
}

pub(crate) fn open_database(path: &Path) -> Result<Database, OpenError> {
    let (db, decision) = open_tentatively(path)?;
    keep(path, decision)?;
    Ok(db)
}

/// Opens the store, or makes it, without changing a byte of one that is there before the decision:
/// until then it may prove to be damaged.
pub(crate) fn open_tentatively(path: &Path) -> Result<(Database, Decision), OpenError> {
    if !check_foreign(path)? {
        make(path)?;
    }
    // A look that changes nothing first; after an unclean end only a writer can look.
    match open_read_only(path) {
        Ok(_) | Err(OpenError::NeedsRecovery(_)) => {}
        Err(e) => return Err(e),
    }
    let io = |source| OpenError::Io {
        path: path.to_path_buf(),
        source,
    };
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(io)?;
    unless_it_panics(path, || {
        let backend = FileBackend::new(file).map_err(|e| OpenError::of(path, e))?;
        let (backend, decision) = Tentative::new(backend).map_err(io)?;
        let db = builder()
            .create_with_backend(backend)
            .map_err(|e| OpenError::of(path, e))?;
        check_schema(path, &db)?;
        Ok((db, decision))
    })
}

pub(crate) fn keep(path: &Path, decision: Decision) -> Result<(), OpenError> {
    decision.keep().map_err(|source| OpenError::Io {
        path: path.to_path_buf(),
        source,
    })
}

/// Makes an empty store. It gets its name when it is whole: one that a power cut left half made
/// could not be told from another program's file, and would be refused for ever.
fn make(path: &Path) -> Result<(), OpenError> {
    let io = |source| OpenError::Io {
        path: path.to_path_buf(),
        source,
    };
    let corrupt = |why: String| OpenError::Corrupt {
        path: path.to_path_buf(),
        why,
    };
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let unnamed = PathBuf::from(name);
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&unnamed)
        .map_err(io)?;
    // What a killed one left is made anew; what another is making now is not touched.
    file.try_lock().map_err(|e| match e {
        TryLockError::WouldBlock => OpenError::Busy(path.to_path_buf()),
        TryLockError::Error(e) => io(e),
    })?;
    file.set_len(0).map_err(io)?;
    let scrap = |path: &Path| match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(io(e)),
        _ => Ok(()),
    };
    let made = || -> Result<(), OpenError> {
        let db = FileBackend::new(file)
            .and_then(|file| builder().create_with_backend(file))
            .map_err(|e| OpenError::of(path, e))?;
        write_tables(&db).map_err(|e| corrupt(e.to_string()))?;
        db.close().map_err(|e| OpenError::of(path, e))?;
        // An empty file in its place holds nothing that could be lost.
        if std::fs::metadata(path).is_ok_and(|m| m.len() == 0) {
            scrap(path)?;
        }
        // Unlike a renaming, a link never replaces what another has made meanwhile.
        match std::fs::hard_link(&unnamed, path) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            // Some file systems have no links.
            Err(_) => std::fs::rename(&unnamed, path).map_err(io)?,
        }
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty());
        let dir = File::open(dir.unwrap_or(Path::new("."))).map_err(io)?;
        dir.sync_all().map_err(io)
    };
    let result = made();
    let scrapped = scrap(&unnamed);
    result.and(scrapped)
}

/// Every table, so that readers find each from the beginning.
fn write_tables(db: &Database) -> Result<(), StoreError> {
    let tx = db.begin_write()?;
    tx.open_table(META)?.insert("schema", SCHEMA)?;
    for table in [BLOCKS, MINUTES, HOURS] {
        tx.open_table(table)?;
    }
    tx.open_table(BOOTS)?;
    tx.open_table(ANCHORS)?;
    tx.open_table(SERIES)?;
    tx.open_table(FLOORS)?;
    tx.open_table(EVENTS)?;
    tx.open_table(EVENT_TIMES)?;
    tx.open_table(TESTS)?;
    tx.open_table(HEALTH)?;
    tx.open_table(HEALTH_HOURS)?;
    tx.open_table(CAPACITY)?;
    tx.open_table(LOAD)?;
    tx.open_table(LOAD_HOURS)?;
    tx.open_table(CABLE)?;
    tx.open_table(PATHS)?;
    tx.open_table(ESCALATIONS)?;
    tx.open_table(SIZES)?;
    tx.open_table(ECHOES)?;
    tx.open_table(TAIL)?;
    tx.commit()?;
    Ok(())
}

pub(crate) fn free_bytes(path: &Path) -> u64 {
    let dir = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    // Where the system cannot say, a commit is tried.
    nix::sys::statvfs::statvfs(dir).map_or(u64::MAX, |s| {
        s.blocks_available().saturating_mul(s.fragment_size())
    })
}
