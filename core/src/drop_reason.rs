//! Why a datagram was not used. Each reason is a counter that users can read.

/// Why a datagram from the network was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// Shorter than its message, or of a length that the message does not have.
    Length = 0,
    /// Longer than the receive buffer.
    Truncated = 1,
    /// Not of this protocol: another magic.
    Magic = 2,
    /// A version that is not spoken here.
    Version = 3,
    /// A message type that is unknown or not expected by this end.
    Type = 4,
    /// No such key id.
    UnknownKey = 5,
    /// No such session.
    UnknownSession = 6,
    /// The seal does not open: forged, damaged, or of another key.
    Seal = 7,
    /// Opened, and seen before.
    Replay = 8,
    /// Opened, but a challenge that was not issued here, or is too old.
    Challenge = 9,
    /// Opened, and a field has a value it cannot have.
    Field = 10,
    /// Answers no probe of ours: another program's, or forgotten.
    Unmatched = 11,
    /// The session sent more packets per second than it may.
    RateLimit = 12,
    /// Too many failed opens in all: the global budget is used up.
    FailureBudget = 13,
    /// No room for another session.
    Full = 14,
    /// A checksum is wrong.
    Checksum = 15,
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = 16;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Length,
        Self::Truncated,
        Self::Magic,
        Self::Version,
        Self::Type,
        Self::UnknownKey,
        Self::UnknownSession,
        Self::Seal,
        Self::Replay,
        Self::Challenge,
        Self::Field,
        Self::Unmatched,
        Self::RateLimit,
        Self::FailureBudget,
        Self::Full,
        Self::Checksum,
    ];

    /// The word users read in statistics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Truncated => "truncated",
            Self::Magic => "magic",
            Self::Version => "version",
            Self::Type => "type",
            Self::UnknownKey => "unknown_key",
            Self::UnknownSession => "unknown_session",
            Self::Seal => "seal",
            Self::Replay => "replay",
            Self::Challenge => "challenge",
            Self::Field => "field",
            Self::Unmatched => "unmatched",
            Self::RateLimit => "rate_limit",
            Self::FailureBudget => "failure_budget",
            Self::Full => "full",
            Self::Checksum => "checksum",
        }
    }
}

/// A counter for each reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropCounters([u64; DropReason::COUNT]);

impl DropCounters {
    /// Counts one more datagram dropped for `reason`.
    pub const fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] = self.0[reason as usize].saturating_add(1);
    }

    /// How many were dropped for `reason`.
    #[must_use]
    pub const fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// Adds what another counter counted.
    pub fn merge(&mut self, other: &Self) {
        self.0
            .iter_mut()
            .zip(&other.0)
            .for_each(|(a, b)| *a = a.saturating_add(*b));
    }

    /// Each reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().map(|r| (r, self.get(r)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter() {
        let mut c = DropCounters::default();
        for (i, r) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(r as usize, i);
            c.count(r);
        }
        assert!(c.iter().all(|(_, n)| n == 1));
    }
}
