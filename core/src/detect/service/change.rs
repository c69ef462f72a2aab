//! What becomes new of a trouble, and the stretch of time that it is judged by.

use super::super::event::{Phase, Severity};
use crate::time::Monotonic;

/// A stretch of time, both ends included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) from: Monotonic,
    pub(super) to: Monotonic,
}

/// What is new of a trouble.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) phase: Phase,
    pub(super) severity: Severity,
    pub(super) since: Monotonic,
    pub(super) end: Option<Monotonic>,
    pub(super) explained: bool,
    /// Since when it lasts, and until when it did before that, where it has come back.
    pub(super) lasts_since: Monotonic,
    pub(super) before: Option<Monotonic>,
}

impl Change {
    /// By which it is to be judged: where it has come back, the calm before that says nothing of it.
    pub(super) fn stretch(&self, now: Monotonic) -> Stretch {
        let to = self.end.unwrap_or(now);
        let has_lasted = self.lasts_since <= to;
        Stretch {
            from: if has_lasted {
                self.lasts_since
            } else {
                self.since
            },
            to,
        }
    }
}
