//! What can go wrong, in words that say what to do.

use std::fmt;
use std::path::PathBuf;

/// Why a store cannot be opened. The file is left as it is in every case.
#[derive(Debug)]
pub enum OpenError {
    /// There is no such file.
    Missing(PathBuf),
    /// It is not a redb file, or one of another program.
    Foreign(PathBuf),
    /// It was written by a newer version.
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: u64,
    },
    /// Another process writes it.
    Busy(PathBuf),
    /// The daemon did not end cleanly; a writer has to open the file once before it can be read.
    NeedsRecovery(PathBuf),
    /// It is to be made, and is there already.
    Exists(PathBuf),
    /// A copy could not be made.
    Copy {
        /// Where it was to be.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// It is damaged.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What redb says of it.
        why: String,
    },
    /// The system refused.
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(p) => write!(
                f,
                "{}: no store there; name another with --store, or start bufferbaned, which makes it",
                p.display()
            ),
            Self::Foreign(p) => write!(
                f,
                "{}: not a Bufferbane store, left untouched; name another file, or move this one away",
                p.display()
            ),
            Self::Newer { path, found } => write!(
                f,
                "{}: written by a newer version (schema {found}, this program knows {}); upgrade it",
                path.display(),
                crate::tables::SCHEMA
            ),
            Self::Busy(p) => write!(
                f,
                "{}: another process is writing it; stop that one first (systemctl stop bufferbaned)",
                p.display()
            ),
            Self::NeedsRecovery(p) => write!(
                f,
                "{}: the daemon did not end cleanly; start bufferbaned once, or run as a user who may \
                 write the file, and it is repaired",
                p.display()
            ),
            Self::Exists(p) => write!(
                f,
                "{}: is there already and stays as it is; name another file",
                p.display()
            ),
            Self::Copy { path, why } => write!(f, "{}: not copied: {why}", path.display()),
            Self::Corrupt { path, why } => write!(
                f,
                "{}: damaged, left untouched ({why}); move it away and bufferbaned starts a new one, \
                 or restore a copy",
                path.display()
            ),
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {}

impl OpenError {
    pub(crate) fn of(path: &std::path::Path, error: redb::DatabaseError) -> Self {
        let path = path.to_path_buf();
        match error {
            redb::DatabaseError::DatabaseAlreadyOpen => Self::Busy(path),
            redb::DatabaseError::RepairAborted => Self::NeedsRecovery(path),
            redb::DatabaseError::Storage(redb::StorageError::Io(source)) => match source.kind() {
                std::io::ErrorKind::NotFound => Self::Missing(path),
                std::io::ErrorKind::InvalidData => Self::Corrupt {
                    path,
                    why: source.to_string(),
                },
                std::io::ErrorKind::UnexpectedEof => Self::Corrupt {
                    path,
                    why: "it ends early".into(),
                },
                _ => Self::Io { path, source },
            },
            other => Self::Corrupt {
                path,
                why: other.to_string(),
            },
        }
    }
}

/// Why something could not be read or written.
#[derive(Debug)]
pub enum StoreError {
    /// The disk is full, or would be: less is free than is to be left free.
    Full {
        /// Bytes free on the file system.
        free_bytes: u64,
        /// Bytes that must stay free.
        min_free_bytes: u64,
    },
    /// redb refused.
    Database(redb::Error),
    /// The file could not be opened again after an error.
    Reopen(OpenError),
    /// Something in the file is not what it should be.
    Damaged(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full {
                free_bytes,
                min_free_bytes,
            } => write!(
                f,
                "disk full: {} MiB free, {} MiB are to stay free; make room, or lower \
                 retention.max_size or retention.min_free",
                free_bytes >> 20,
                min_free_bytes >> 20
            ),
            Self::Database(e) if self.is_full() => {
                write!(f, "disk full ({e}); make room, or lower retention.max_size")
            }
            Self::Database(e) if self.is_damage() => write!(
                f,
                "the store is damaged ({e}); restore a copy, or move it away and bufferbaned starts a \
                 new one"
            ),
            Self::Database(e) => write!(f, "store: {e}"),
            Self::Reopen(e) => write!(f, "store could not be reopened: {e}"),
            Self::Damaged(what) => write!(f, "store: {what}; bbtool store check says more"),
        }
    }
}

impl std::error::Error for StoreError {}

impl StoreError {
    /// Whether the file is not what it was written as.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged(_) | Self::Database(redb::Error::Corrupted(_)) => true,
            Self::Database(redb::Error::Io(e)) => e.kind() == std::io::ErrorKind::UnexpectedEof,
            _ => false,
        }
    }

    /// Whether room on the disk is what is missing.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::Database(redb::Error::Io(e)) => {
                matches!(
                    e.kind(),
                    std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
                )
            }
            _ => false,
        }
    }
}

macro_rules! from_redb {
    ($($t:ty),*) => {$(
        impl From<$t> for StoreError {
            fn from(e: $t) -> Self {
                Self::Database(e.into())
            }
        }
    )*};
}
from_redb!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::Error
);
