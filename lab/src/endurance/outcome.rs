//! What came out of a month.

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Samples recorded.
    pub samples: u64,
    /// Commits made.
    pub commits: u64,
    /// Blocks of samples given up.
    pub blocks_given_up: u64,
    /// Rollups of a minute given up.
    pub minutes_given_up: u64,
    /// What all of it wrote to disk, bytes.
    pub written_bytes: u64,
    /// What each whole day wrote to disk, bytes.
    pub days_bytes: Vec<u64>,
    /// Resident memory after a tenth of the span, and at its end, bytes.
    pub early_bytes: u64,
    /// See there.
    pub late_bytes: u64,
    /// The file before its size was limited, bytes.
    pub before_limit_bytes: u64,
    /// The file at the end, bytes.
    pub file_bytes: u64,
    /// The limit, and what data alone takes at the end, bytes.
    pub limit_bytes: u64,
    /// See there.
    pub compact_bytes: u64,
    /// Samples of which it was looked whether they are there.
    pub checked: u64,
    /// Samples of which it was looked whether they are in rollups.
    pub rolled_up: u64,
}

impl Outcome {
    /// It was looked whether so many samples are there, and so many in rollups.
    pub(super) fn looked(&mut self, (samples, rolled_up): (u64, u64)) {
        self.checked += samples;
        self.rolled_up += rolled_up;
    }

    /// Whether what is kept obeys the limit, as well as the store can tell: it estimates what data takes.
    #[must_use]
    pub const fn is_within_limit(&self) -> bool {
        self.compact_bytes <= self.limit_bytes + self.limit_bytes / 16
    }

    /// What a day in the middle of all writes, bytes.
    #[must_use]
    pub fn day_bytes(&self) -> u64 {
        let mut days = self.days_bytes.clone();
        days.sort_unstable();
        days.get(days.len() / 2).copied().unwrap_or(0)
    }
}
