//! How a command ends when it does not end well, and the exit code that says so.

use std::fmt;
use std::io;

use bufferbane_store::{OpenError, StoreError};

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Fail {
    /// Something went wrong: exit 1.
    Failed(String),
    /// The command line is wrong: exit 2.
    Usage(String),
    /// There is nothing in the range that was asked for: exit 3.
    NoData(String),
    /// Whoever read our output has closed it, as `head` does: nothing to complain about.
    Closed,
}

impl Fail {
    /// The exit code of the contract.
    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NoData(_) => 3,
        }
    }

    /// `what` could not be done because of `error`.
    pub(crate) fn of(what: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self::Failed(format!("{what}: {error}"))
    }
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(text) | Self::Usage(text) | Self::NoData(text) => f.write_str(text),
            Self::Closed => Ok(()),
        }
    }
}

/// Errors of writing to standard output.
impl From<io::Error> for Fail {
    fn from(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::BrokenPipe {
            Self::Closed
        } else {
            Self::of("cannot write", e)
        }
    }
}

impl From<serde_json::Error> for Fail {
    fn from(e: serde_json::Error) -> Self {
        if e.io_error_kind() == Some(io::ErrorKind::BrokenPipe) {
            Self::Closed
        } else {
            Self::of("cannot write", e)
        }
    }
}

impl From<StoreError> for Fail {
    fn from(e: StoreError) -> Self {
        Self::Failed(e.to_string())
    }
}

impl From<OpenError> for Fail {
    fn from(e: OpenError) -> Self {
        Self::Failed(e.to_string())
    }
}
