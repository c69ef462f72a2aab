//! What is lived through, and when.

use bufferbane_store::Retention;

use super::S;

/// The end of summer time in Europe, 2026-10-25 01:00 UTC, s since 1970.
const SUMMER_ENDS_S: i64 = 1_792_890_000;

/// What is to be lived through.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long it lasts.
    pub seconds: u64,
    /// Seed of everything.
    pub seed: u64,
    /// Between two commits.
    pub commit_s: u64,
    /// Whether a reflector is probed 20 times a second, too.
    pub reflector: bool,
}

impl Plan {
    /// The second that is at so many hundredths of the span.
    pub(super) const fn at(&self, hundredths: u64) -> u64 {
        self.seconds * hundredths / 100
    }

    /// The true time then, s since 1970.
    pub(super) const fn wall_s(&self, second: u64) -> i64 {
        SUMMER_ENDS_S - self.at(95).cast_signed() + second.cast_signed()
    }

    /// What is kept: shorter than by default, so that all of it is given up within the span.
    pub(super) const fn retention(&self, max_bytes: Option<u64>) -> Retention {
        Retention {
            samples_ns: Some(self.seconds * S / 4),
            minutes_ns: Some(self.seconds * S / 2),
            hours_ns: None,
            events_ns: Some(self.seconds * S / 2),
            max_bytes,
        }
    }
}
