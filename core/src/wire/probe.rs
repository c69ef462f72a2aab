//! The bodies of probes and their echoes; docs/protocol.md draws them.

use zerocopy::byteorder::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::{SessionHeader, TAG_LEN};
use crate::limits::{MAX_DATAGRAM, MIN_PROBE_SIZE};

/// Bytes of a probe or an echo that are not its body.
pub const OVERHEAD: usize = SessionHeader::LEN + TAG_LEN;

/// [`Probe::want`] of a client that asks for no part of the receive record.
pub const WANT_NOTHING: u64 = u64::MAX;
/// [`Probe::stream`] of one that is of no stream: it only asks whether its session is there. It has no number,
/// leaves no trace in any record, and its echo tells of none.
pub const NO_STREAM: u16 = u16::MAX;
/// [`Reply::record_back`] where the asked-for part is not known.
pub const NO_RECORD: u32 = u32::MAX;

/// A probe. Zeros follow up to its size.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Probe {
    /// The client's number of the stream, or [`NO_STREAM`].
    pub stream: U16,
    /// Zero.
    pub flags: U16,
    /// Zero.
    pub reserved: U32,
    /// The probe's number in its stream.
    pub seq: U64,
    /// When it was handed to the kernel, ns on the client's clock.
    pub sent_ns: U64,
    /// An earlier probe whose transmit time the kernel has told; 0 with time 0 where there is none.
    pub earlier_seq: U64,
    /// That time, ns on the client's clock.
    pub earlier_tx_ns: U64,
    /// The first of the 64 probes whose receive record is asked for: a multiple of 64, or
    /// [`WANT_NOTHING`].
    pub want: U64,
}

/// An echo. Zeros follow up to the probe's size.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Reply {
    /// As in the probe.
    pub stream: U16,
    /// [`Reply::DISCIPLINED`]; the other bits are zero.
    pub flags: U16,
    /// TTL or hop limit of the probe as received; 0 where not known.
    pub ttl: u8,
    /// TOS or traffic class of the probe as received, where `ttl` is known.
    pub tos: u8,
    /// Who stamped: two bits each from the lowest for `rx_ns`, the first and the second of `tx_ns`.
    pub clocks: u8,
    /// Zero.
    pub reserved: u8,
    /// As in the probe.
    pub seq: U64,
    /// When the probe arrived, ns on the reflector's clock.
    pub rx_ns: U64,
    /// From then until the echo was handed to the kernel, ns.
    pub residence_ns: U32,
    /// How many datagrams the reflector's socket has dropped so far, wrapping.
    pub socket_drops: U32,
    /// When the last two echoes of which that is known left, ns on the reflector's clock.
    pub tx_ns: [U64; 2],
    /// Their numbers, as the distance from `seq` backwards; 0 where there is none.
    pub tx_back: [U16; 2],
    /// How many probes of this stream have arrived, wrapping.
    pub received: U32,
    /// Bit `i` is set where the probe `seq - record_back + i` has arrived.
    pub record: U64,
    /// See `record`; [`NO_RECORD`] where it says nothing.
    pub record_back: U32,
    /// Changes when the reflector's wall clock steps.
    pub clock_epoch: U32,
    /// The client's address as the reflector sees it; IPv4 mapped into IPv6.
    pub address: [u8; 16],
    /// Its port.
    pub port: U16,
    /// Zero.
    pub reserved2: U16,
}

impl Reply {
    /// Of its flags: the reflector's wall clock is disciplined.
    pub const DISCIPLINED: u16 = 1;
}

const _: () = assert!(OVERHEAD + size_of::<Reply>() == MIN_PROBE_SIZE);
const _: () = assert!(size_of::<Probe>() <= size_of::<Reply>());
const _: () = assert!(MIN_PROBE_SIZE <= MAX_DATAGRAM);
