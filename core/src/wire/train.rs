//! The bodies of packet trains, of what is asked about them, and of what is told;
//! docs/protocol.md draws them.

use zerocopy::byteorder::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::{SessionHeader, TAG_LEN};
use crate::drop_reason::DropReason;
use crate::limits::MAX_DATAGRAM;

/// Shortest datagram of a train, of an ask and of its report, bytes on the wire.
pub const MIN_TRAIN_SIZE: usize = 128;
/// Most datagrams of one train.
pub const MAX_TRAIN: usize = 512;
/// [`Car::sent_ns`]: the sender does not say.
pub const NOT_TOLD: u32 = u32::MAX;

/// One datagram of a train; zeros fill it up.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Car {
    /// The client's number of the train.
    pub train: U32,
    /// Its place in the train, from 0.
    pub index: U16,
    /// How many the train has.
    pub count: U16,
    /// Since the first of them was handed to the kernel, ns; [`NOT_TOLD`] where the sender does not
    /// say.
    pub sent_ns: U32,
    /// Zero.
    pub reserved: U32,
}

/// [`Ask::op`]: which datagrams of a train have arrived, and when.
pub const OP_ARRIVALS: u8 = 1;
/// [`Ask::op`]: to be sent a train.
pub const OP_SEND: u8 = 2;

/// What a client asks.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ask {
    /// One of `OP_*`.
    pub op: u8,
    /// Zero.
    pub reserved: u8,
    /// How many datagrams to send.
    pub count: U16,
    /// The train.
    pub train: U32,
    /// Bytes of each datagram to send, as UDP counts them.
    pub size: U16,
    /// The first arrival that is asked for.
    pub first: U16,
    /// Counts the client's asks; the report brings it back.
    pub number: U32,
    /// Zero.
    pub reserved2: [u8; 16],
}

/// What becomes of an ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TrainState {
    /// Arrivals follow.
    Arrivals = 1,
    /// The train is being sent, or has been.
    Sent = 2,
    /// It is not sent: others are being sent; to be asked again.
    Busy = 3,
    /// It will not be sent.
    Refused = 4,
    /// Nothing has arrived of that train.
    Unknown = 5,
}

impl TrainState {
    /// The state with this number on the wire.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Arrivals,
            2 => Self::Sent,
            3 => Self::Busy,
            4 => Self::Refused,
            5 => Self::Unknown,
            _ => return None,
        })
    }
}

/// Why a train is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RefusedTrain {
    /// It is.
    No = 0,
    /// The client's bytes of the day are used up.
    DailyBytes = 1,
    /// The client is elsewhere than where it proved to be.
    Address = 2,
    /// No datagram, more than there may be, or of a size that none has.
    Size = 3,
}

impl RefusedTrain {
    /// The reason with this number on the wire.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            0 => Self::No,
            1 => Self::DailyBytes,
            2 => Self::Address,
            3 => Self::Size,
            _ => return None,
        })
    }

    /// What a person is told.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::No => "it was not refused",
            Self::DailyBytes => "the bytes that the reflector allows this client a day are used up",
            Self::Address => "the reflector sees this client at another address than before",
            Self::Size => "the reflector sends no train of that size",
        }
    }
}

/// One arrival in a report.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Arrived {
    /// Its place in the train.
    pub index: U16,
    /// Since the first arrival, ns.
    pub since_ns: U32,
}

/// What a report begins with; arrivals follow, in their order.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct TrainReport {
    /// A [`TrainState`].
    pub state: u8,
    /// A [`RefusedTrain`].
    pub reason: u8,
    /// How many have arrived so far.
    pub arrived: U16,
    /// The train.
    pub train: U32,
    /// Number of the ask.
    pub number: U32,
    /// Most datagrams that a train from this client may have.
    pub most: U16,
    /// Number of the first arrival that follows.
    pub first: U16,
    /// How many follow.
    pub follow: U16,
    /// The least precise clock of their stamps: 1 program, 2 kernel, 3 NIC.
    pub clock: u8,
    /// Zero.
    pub reserved: u8,
    /// Datagrams that the reflector's socket has dropped since the first arrival.
    pub socket_drops: U32,
    /// When the first arrived, ns on the reflector's monotonic clock.
    pub begin_ns: U64,
}

const OVERHEAD: usize = SessionHeader::LEN + TAG_LEN;
/// Most arrivals in one report.
pub const REPORT_ARRIVALS: usize =
    (MAX_DATAGRAM - OVERHEAD - size_of::<TrainReport>()) / size_of::<Arrived>();

const _: () = assert!(
    OVERHEAD + size_of::<Ask>() <= MIN_TRAIN_SIZE
        && OVERHEAD + size_of::<TrainReport>() <= MIN_TRAIN_SIZE
        && OVERHEAD + size_of::<Car>() <= MIN_TRAIN_SIZE
        && MIN_TRAIN_SIZE <= MAX_DATAGRAM
        && MAX_TRAIN <= crate::limits::REPLAY_WINDOW / 2
);

/// Bytes of the shortest ask whose report has room for so many arrivals.
#[must_use]
pub const fn ask_len(arrivals: usize) -> usize {
    let len = OVERHEAD + size_of::<TrainReport>() + arrivals * size_of::<Arrived>();
    if len < MIN_TRAIN_SIZE {
        MIN_TRAIN_SIZE
    } else if len > MAX_DATAGRAM {
        MAX_DATAGRAM
    } else {
        len
    }
}

/// How many arrivals a report of `len` bytes on the wire has room for.
#[must_use]
pub const fn arrivals_in(len: usize) -> usize {
    len.saturating_sub(OVERHEAD + size_of::<TrainReport>()) / size_of::<Arrived>()
}

/// The arrivals of an opened report, from its datagram.
///
/// # Errors
/// [`DropReason::Field`] where it says that more follow than do.
pub fn arrivals<'a>(report: &TrainReport, datagram: &'a [u8]) -> Result<&'a [Arrived], DropReason> {
    let begin = SessionHeader::LEN + size_of::<TrainReport>();
    let len = usize::from(report.follow.get()) * size_of::<Arrived>();
    let end = datagram.len().saturating_sub(TAG_LEN);
    let body = datagram.get(begin..end).and_then(|b| b.get(..len));
    <[Arrived]>::ref_from_bytes(body.ok_or(DropReason::Field)?).map_err(|_| DropReason::Field)
}
