//! The unit of measurement: what became of one probe.

use crate::failure::Failure;
use crate::time::{ClockSource, Monotonic, StampErrors};

/// A series within one running daemon: the index of a (interface, target, stream) in its plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesIndex(pub u16);

/// What became of a probe. Every probe ends in exactly one of these, except that each further
/// copy of a reply makes one more sample, [`Status::Duplicate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Status {
    /// Answered within the time-out.
    Ok = 0,
    /// Answered after the time-out had passed.
    Late = 1,
    /// A further copy of a reply; the probe itself has a sample of its own. A reflector answers each
    /// probe once, however often it arrives, so a reply of its was doubled on the way back.
    Duplicate = 2,
    /// Lost on the way to the far end: it says that it never received the request.
    LostUp = 3,
    /// Lost on the way back: the far end received the request.
    LostDown = 4,
    /// Lost, direction not known.
    Lost = 5,
    /// Never sent: the send call failed ([`Sample::errno`]).
    Unsent = 6,
}

impl Status {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Ok,
        Self::Late,
        Self::Duplicate,
        Self::LostUp,
        Self::LostDown,
        Self::Lost,
        Self::Unsent,
    ];

    /// The word users read in an export.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Late => "late",
            Self::Duplicate => "duplicate",
            Self::LostUp => "lost_up",
            Self::LostDown => "lost_down",
            Self::Lost => "lost",
            Self::Unsent => "unsent",
        }
    }

    /// The status with this number in the store.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Ok),
            1 => Some(Self::Late),
            2 => Some(Self::Duplicate),
            3 => Some(Self::LostUp),
            4 => Some(Self::LostDown),
            5 => Some(Self::Lost),
            6 => Some(Self::Unsent),
            _ => None,
        }
    }

    /// Whether the probe was sent and no reply came, in whichever direction it was lost.
    #[must_use]
    pub const fn is_lost(self) -> bool {
        matches!(self, Self::LostUp | Self::LostDown | Self::Lost)
    }

    /// Whether there is a reply, and so a round-trip time.
    #[must_use]
    pub const fn is_answered(self) -> bool {
        matches!(self, Self::Ok | Self::Late | Self::Duplicate)
    }
}

/// Facts about a sample, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// No fact at all.
    pub const NONE: Self = Self(0);
    /// `R`: its reply came after the reply to a later probe.
    pub const REORDERED: Self = Self(1);
    /// `L`: it left more than [`crate::limits::SENT_LATE_NS`], or more than a slot, after its
    /// deadline; see [`Sample::send_late_ns`].
    pub const SENT_LATE: Self = Self(2);
    /// `M`: the direction of its loss was learned after it had been recorded as lost.
    pub const DIRECTION_LATER: Self = Self(4);

    /// `U`: it was overtaken on its way up: it reached the far end after a later probe. A reordered
    /// one without this was overtaken on the way back, or its far end does not tell.
    pub const REORDERED_UP: Self = Self(8);
    /// `O`: our own socket dropped datagrams while it was in flight, so that its reply may have come
    /// and be lost to us: a loss of it says nothing of the way down.
    pub const OWN_DROPS: Self = Self(16);
    /// `F`: the far end says that it dropped datagrams itself when this one was on its way, so that it may be
    /// among them: a loss of it says nothing of the line.
    pub const FAR_DROPS: Self = Self(32);

    const LETTERS: [(Self, char); 6] = [
        (Self::REORDERED, 'R'),
        (Self::REORDERED_UP, 'U'),
        (Self::SENT_LATE, 'L'),
        (Self::DIRECTION_LATER, 'M'),
        (Self::OWN_DROPS, 'O'),
        (Self::FAR_DROPS, 'F'),
    ];

    /// Whether one of the facts of `other` holds.
    const fn any_of(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The facts as their bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The facts with these bits; bits without a meaning are dropped.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 63)
    }

    /// Whether all facts of `other` hold.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These facts and those of `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The letters users read in an export, in a fixed order.
    pub fn letters(self) -> impl Iterator<Item = char> {
        Self::LETTERS
            .into_iter()
            .filter(move |(f, _)| self.contains(*f))
            .map(|(_, c)| c)
    }
}

/// What became of one probe. `None` means "not known", never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The series it belongs to.
    pub series: SeriesIndex,
    /// The probe's number within its series, from 0, counting every probe of the daemon's run.
    pub seq: u64,
    /// When it was sent, by the best clock there was ([`Sample::tx_clock`]); for one that was never
    /// sent, when that was tried.
    pub sent: Monotonic,
    /// How it ended.
    pub status: Status,
    /// Facts about it.
    pub flags: Flags,
    /// Bytes of payload: of UDP for a reflector probe, of the ICMP message for an echo.
    pub size: u16,
    /// Round-trip time in ns without the far end's residence time where that is known; present
    /// exactly where [`Status::is_answered`] and no [`Sample::failure`].
    pub rtt_ns: Option<u64>,
    /// Far end's receive time minus our send time in ns: the difference of two clocks that are not
    /// synchronised, so only its changes mean something.
    pub raw_up_ns: Option<i64>,
    /// Our receive time minus the far end's send time in ns; likewise.
    pub raw_down_ns: Option<i64>,
    /// Send time minus the deadline of its slot, ns; negative where it left early.
    pub send_late_ns: i64,
    /// The send call's errno where [`Status::Unsent`]; where answered, the code of the
    /// [`Sample::failure`]; else 0.
    pub errno: u16,
    /// Who stamped the request as it left.
    pub tx_clock: ClockSource,
    /// Who stamped the reply as it came.
    pub rx_clock: ClockSource,
    /// Who stamped the request at the far end.
    pub remote_rx_clock: ClockSource,
    /// Who stamped the reply at the far end. Where this or the one before is
    /// [`ClockSource::None`], the round-trip time includes the far end's residence time.
    pub remote_tx_clock: ClockSource,
    /// TTL or hop limit of the request as the far end received it.
    pub ttl_up: Option<u8>,
    /// TTL or hop limit of the reply as we received it.
    pub ttl_down: Option<u8>,
    /// TOS or traffic-class octet of the request as the far end received it.
    pub tos_seen: Option<u8>,
}

impl Sample {
    /// A probe that was sent at `sent` and of which nothing more is known.
    #[must_use]
    pub const fn lost(series: SeriesIndex, seq: u64, sent: Monotonic, size: u16) -> Self {
        Self {
            series,
            seq,
            sent,
            status: Status::Lost,
            flags: Flags::NONE,
            size,
            rtt_ns: None,
            raw_up_ns: None,
            raw_down_ns: None,
            send_late_ns: 0,
            errno: 0,
            tx_clock: ClockSource::None,
            rx_clock: ClockSource::None,
            remote_rx_clock: ClockSource::None,
            remote_tx_clock: ClockSource::None,
            ttl_up: None,
            ttl_down: None,
            tos_seen: None,
        }
    }

    /// Whether it is lost and one of both ends may have dropped it, or its answer: that says nothing of the line.
    #[must_use]
    pub const fn may_be_dropped(&self) -> bool {
        let ends = Flags::OWN_DROPS.with(Flags::FAR_DROPS);
        matches!(self.status, Status::Lost) && self.flags.any_of(ends)
    }

    /// Why the answer is not what was asked for: of a resolver that refuses, for example. How soon
    /// somebody fails says nothing about the line, so there is no round-trip time.
    #[must_use]
    pub const fn failure(&self) -> Option<Failure> {
        match self.status {
            Status::Ok | Status::Late => Failure::from_code(self.errno),
            _ => None,
        }
    }

    /// How far the round-trip time may be off because of its stamps, ns: the sum of what each of
    /// them is trusted to by `errors`, the far end's as much as ours of the same kind; `None` where
    /// there is no round-trip time. Where the far end takes no stamps, its residence time is part of
    /// the round trip and not of this.
    #[must_use]
    pub fn err_ns(&self, errors: &StampErrors) -> Option<u64> {
        self.rtt_ns?;
        let clocks = [
            self.tx_clock,
            self.rx_clock,
            self.remote_rx_clock,
            self.remote_tx_clock,
        ];
        Some(clocks.into_iter().map(|c| errors.of(c)).sum())
    }
}

/// What a prober reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// A probe's end, or a further copy of a reply.
    New(Sample),
    /// More became known of a probe that was reported as lost: which way it was lost
    /// ([`Flags::DIRECTION_LATER`]), or that it was answered after all: [`Status::Late`], or
    /// [`Status::Ok`] where the reply had arrived in time and the driver was late. Takes the place of
    /// the sample with the same series and number.
    Revised(Sample),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_of_statuses_are_fixed() {
        for (n, s) in Status::ALL.into_iter().enumerate() {
            assert_eq!(Status::from_u8(n as u8), Some(s));
        }
        assert_eq!(Status::from_u8(7), None);
        assert_eq!(Status::LostUp.as_str(), "lost_up");
    }

    #[test]
    fn an_error_is_the_sum_of_what_each_stamp_is_trusted_to() {
        let errors = StampErrors {
            user_ns: 1_000_000,
            kernel_ns: 3_000,
            nic_ns: 200,
        };
        let mut s = Sample::lost(SeriesIndex(0), 0, Monotonic::ZERO, 64);
        assert_eq!(s.err_ns(&errors), None);
        s.rtt_ns = Some(5);
        (s.tx_clock, s.rx_clock) = (ClockSource::Nic, ClockSource::Kernel);
        assert_eq!(s.err_ns(&errors), Some(3_200));
        (s.remote_rx_clock, s.remote_tx_clock) = (ClockSource::Kernel, ClockSource::User);
        assert_eq!(s.err_ns(&errors), Some(1_006_200));
    }

    #[test]
    fn flags_spell_their_letters_in_order() {
        let f = Flags::DIRECTION_LATER.with(Flags::REORDERED);
        assert!(f.letters().eq(['R', 'M']));
        assert_eq!(Flags::from_bits(0xff).bits(), 63);
    }
}
