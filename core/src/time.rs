//! Instants and clocks.
//!
//! Core never reads a clock. The driver brings every time stamp onto one line, nanoseconds of
//! `CLOCK_MONOTONIC` since this host booted, before core sees it.

/// An instant on this host's monotonic time line: nanoseconds since boot.
///
/// Never steps, and means nothing to another host or after a reboot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(u64);

impl Monotonic {
    /// The host's boot.
    pub const ZERO: Self = Self(0);
    /// Later than every instant a running host will see.
    pub const MAX: Self = Self(u64::MAX);

    /// The instant `nanos` nanoseconds after boot.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since boot.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The instant `nanos` later, or [`Monotonic::MAX`].
    #[must_use]
    pub const fn saturating_add(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// The instant `nanos` earlier, or [`Monotonic::ZERO`].
    #[must_use]
    pub const fn saturating_sub(self, nanos: u64) -> Self {
        Self(self.0.saturating_sub(nanos))
    }

    /// Nanoseconds from `earlier` to `self`; 0 where `earlier` is the later one.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Signed nanoseconds from `other` to `self`, saturating at the ends of `i64`.
    #[must_use]
    pub const fn signed_since(self, other: Self) -> i64 {
        signed_difference_ns(self.0, other.0)
    }
}

/// `a - b` of two nanosecond counts as a signed number, saturating at the ends of `i64`.
#[must_use]
pub const fn signed_difference_ns(a: u64, b: u64) -> i64 {
    if a >= b {
        let d = a - b;
        if d > i64::MAX as u64 {
            i64::MAX
        } else {
            d as i64
        }
    } else {
        let d = b - a;
        if d > i64::MAX as u64 {
            i64::MIN
        } else {
            -(d as i64)
        }
    }
}

/// Who took a time stamp, from the least to the most trustworthy.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, zerocopy::FromZeros,
)]
#[repr(u8)]
pub enum ClockSource {
    /// There is no stamp.
    #[default]
    None = 0,
    /// This program, around its system call: includes its own scheduling delay.
    User = 1,
    /// The kernel, as the packet passed the driver's edge.
    Kernel = 2,
    /// The network card.
    Nic = 3,
}

impl ClockSource {
    /// The word users read: `nic`, `kernel`, `user`, or empty where there is no stamp.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "",
            Self::User => "user",
            Self::Kernel => "kernel",
            Self::Nic => "nic",
        }
    }

    /// The source with this number on the wire and in the store.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::None),
            1 => Some(Self::User),
            2 => Some(Self::Kernel),
            3 => Some(Self::Nic),
            _ => None,
        }
    }
}

/// How far a stamp of each kind may lie from the instant the packet passed, ns: what 99 of 100 stay
/// within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StampErrors {
    /// Taken by this program.
    pub user_ns: u64,
    /// By the kernel.
    pub kernel_ns: u64,
    /// By the network card.
    pub nic_ns: u64,
}

impl StampErrors {
    /// Where nothing was measured: a program runs milliseconds late on a busy machine; the kernel
    /// stamps some microseconds before or after the driver; a card's clock is read to a microsecond.
    pub const ASSUMED: Self = Self {
        user_ns: 4_000_000,
        kernel_ns: 10_000,
        nic_ns: 1_000,
    };

    /// That of one kind; 0 where there is no stamp.
    #[must_use]
    pub const fn of(&self, clock: ClockSource) -> u64 {
        match clock {
            ClockSource::None => 0,
            ClockSource::User => self.user_ns,
            ClockSource::Kernel => self.kernel_ns,
            ClockSource::Nic => self.nic_ns,
        }
    }
}

/// A time stamp that knows who took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When.
    pub at: Monotonic,
    /// By whom.
    pub clock: ClockSource,
}

impl Stamp {
    /// A stamp taken by this program.
    #[must_use]
    pub const fn user(at: Monotonic) -> Self {
        Self {
            at,
            clock: ClockSource::User,
        }
    }

    /// A stamp taken by the kernel.
    #[must_use]
    pub const fn kernel(at: Monotonic) -> Self {
        Self {
            at,
            clock: ClockSource::Kernel,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_saturate_instead_of_wrapping() {
        assert_eq!(signed_difference_ns(5, 7), -2);
        assert_eq!(signed_difference_ns(u64::MAX, 0), i64::MAX);
        assert_eq!(signed_difference_ns(0, u64::MAX), i64::MIN);
        assert_eq!(Monotonic::ZERO.saturating_sub(1), Monotonic::ZERO);
        assert_eq!(Monotonic::MAX.saturating_add(1), Monotonic::MAX);
        assert_eq!(
            Monotonic::from_nanos(3).saturating_since(Monotonic::from_nanos(9)),
            0
        );
    }

    #[test]
    fn clock_sources_survive_their_number() {
        for n in 0..=3 {
            assert_eq!(ClockSource::from_u8(n).map(|c| c as u8), Some(n));
        }
        assert_eq!(ClockSource::from_u8(4), None);
    }
}
