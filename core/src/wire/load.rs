//! The bodies of orders and reports, by which a throughput test is negotiated and read, and the
//! first bytes of its TCP streams; docs/protocol.md draws them. The datagrams of a test over UDP have
//! no body.

use core::net::IpAddr;

use zerocopy::byteorder::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::{SessionHeader, TAG_LEN};
use crate::limits::{MAX_DATAGRAM, MAX_LOAD_BPS, MAX_LOAD_PPS};
use crate::seal::Secret;
use crate::stamp::Subnet;

/// Bytes of an order and of its report on the wire. Both are as long, so that no report is larger
/// than what asked for it.
pub const ORDER_LEN: usize = 512;
/// Bytes of a body: what of a datagram is neither header nor tag.
pub const BODY_LEN: usize = ORDER_LEN - SessionHeader::LEN - TAG_LEN;
/// Bins in one report.
pub const REPORT_BINS: usize = 60;
/// Length of a bin, ns.
pub const BIN_NS: u64 = 100_000_000;

/// [`Order::op`]: begin the test, or say why not.
pub const OP_OPEN: u8 = 1;
/// [`Order::op`]: say how far it is.
pub const OP_POLL: u8 = 2;
/// [`Order::op`]: end it.
pub const OP_STOP: u8 = 3;
/// [`Order::op`]: say how far it is, and go on sending the datagrams that were ordered.
pub const OP_LOAD: u8 = 4;

/// What a client asks for.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Order {
    /// One of `OP_*`.
    pub op: u8,
    /// TCP streams from the client.
    pub streams_up: u8,
    /// TCP streams to the client.
    pub streams_down: u8,
    /// How many first bits the addresses share that TCP streams may come from as well; 0: none may.
    pub prefix_bits: u8,
    /// Counts the client's orders; the report brings it back.
    pub number: U32,
    /// Random, the client's own name of the test.
    pub test: U64,
    /// How long streams may run, ms.
    pub time_ms: U32,
    /// The first bin that is asked for.
    pub first_bin: U32,
    /// DSCP of the reflector's stream *i* is entry *i* modulo 8.
    pub dscp: [u8; 8],
    /// Congestion control of the reflector's streams, ASCII, zeros behind it.
    pub congestion: [u8; 16],
    /// One of the addresses of `prefix_bits`, IPv4 mapped into IPv6.
    pub prefix: [u8; 16],
    /// Datagrams from the client, bit/s of UDP payload; 0: none.
    pub up_bps: U64,
    /// Datagrams to the client, bit/s of UDP payload; 0: none.
    pub down_bps: U64,
    /// Bytes of each on the wire.
    pub size: U16,
    /// Zero.
    pub reserved: [u8; 6],
}

/// Shortest datagram of a test over UDP, bytes on the wire.
pub const MIN_LOAD_SIZE: usize = 128;

/// The datagrams that a test over UDP is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// From the client, bit/s of UDP payload; 0: none.
    pub up_bps: u64,
    /// To the client, bit/s of UDP payload; 0: none.
    pub down_bps: u64,
    /// Bytes of each on the wire, [`MIN_LOAD_SIZE`] to [`MAX_DATAGRAM`].
    pub size: u16,
}

impl Offer {
    /// Whether datagrams of this size can be sent, at these rates: no faster than [`MAX_LOAD_BPS`] and
    /// [`MAX_LOAD_PPS`] each way.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        let most_bps = MAX_LOAD_BPS.min(MAX_LOAD_PPS * 8 * u64::from(self.size));
        (MIN_LOAD_SIZE..=MAX_DATAGRAM).contains(&usize::from(self.size))
            && self.up_bps.max(self.down_bps) <= most_bps
    }

    /// What so long a test moves, both ways, bytes of UDP payload.
    #[must_use]
    pub fn bytes_in(&self, ns: u64) -> u64 {
        let bps = u128::from(self.up_bps) + u128::from(self.down_bps);
        u64::try_from(bps * u128::from(ns) / 8_000_000_000).unwrap_or(u64::MAX)
    }
}

/// The widest prefix that a client may announce, of IPv4: that of the addresses which RFC 6598 sets
/// aside for carriers.
pub const MIN_PREFIX_V4: u8 = 10;
/// The same of IPv6: what registries give a provider.
pub const MIN_PREFIX_V6: u8 = 32;

impl Order {
    /// The datagrams that are ordered; `None`: TCP streams are.
    #[must_use]
    pub const fn offer(&self) -> Option<Offer> {
        let offer = Offer {
            up_bps: self.up_bps.get(),
            down_bps: self.down_bps.get(),
            size: self.size.get(),
        };
        if offer.up_bps == 0 && offer.down_bps == 0 {
            return None;
        }
        Some(offer)
    }

    /// The addresses that TCP streams may come from beside that of the order itself: behind the NAT of a
    /// carrier they may have another.
    ///
    /// # Errors
    /// [`EndReason::Prefix`] where they are more than a client may announce, or no addresses.
    pub fn announced(&self) -> Result<Option<Subnet>, EndReason> {
        let address = IpAddr::V6(self.prefix.into()).to_canonical();
        let allowed = match address {
            IpAddr::V4(_) => MIN_PREFIX_V4..=32,
            IpAddr::V6(_) => MIN_PREFIX_V6..=128,
        };
        match self.prefix_bits {
            0 => Ok(None),
            prefix if allowed.contains(&prefix) => Ok(Some(Subnet { address, prefix })),
            _ => Err(EndReason::Prefix),
        }
    }

    /// Puts down the addresses that [`Order::announced`] is to give.
    pub(crate) fn announce(&mut self, addresses: Subnet) {
        self.prefix_bits = addresses.prefix;
        self.prefix = match addresses.address {
            IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
            IpAddr::V6(a) => a.octets(),
        };
    }
}

/// Where a test has got to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TestState {
    /// Streams are awaited or run.
    Granted = 1,
    /// Others are being tested; to be asked again.
    Busy = 2,
    /// It will not be.
    Refused = 3,
    /// It is over.
    Ended = 4,
    /// There is no such test.
    Unknown = 5,
}

impl TestState {
    /// The state with this number on the wire.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Granted,
            2 => Self::Busy,
            3 => Self::Refused,
            4 => Self::Ended,
            5 => Self::Unknown,
            _ => return None,
        })
    }
}

/// Why a test was refused or has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EndReason {
    /// It has not, or the client said so.
    None = 0,
    /// This reflector runs no tests.
    Off = 1,
    /// The client's bytes of the day are used up.
    DailyBytes = 2,
    /// The reflector does not have that congestion control.
    Congestion = 3,
    /// More streams than are allowed, or none.
    Streams = 4,
    /// It lasted as long as it may.
    Time = 5,
    /// Nothing was heard from the client.
    Silence = 6,
    /// Other addresses for TCP, or more, than this client may announce.
    Prefix = 7,
    /// More bits or datagrams per second than this client, or any, may have, or datagrams of a size that none has.
    Rate = 8,
    /// Datagrams to a client that is elsewhere than where it proved to be.
    Address = 9,
}

impl EndReason {
    /// The reason with this number on the wire.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            0 => Self::None,
            1 => Self::Off,
            2 => Self::DailyBytes,
            3 => Self::Congestion,
            4 => Self::Streams,
            5 => Self::Time,
            6 => Self::Silence,
            7 => Self::Prefix,
            8 => Self::Rate,
            9 => Self::Address,
            _ => return None,
        })
    }

    /// What a person is told.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "it was ended",
            Self::Off => {
                "the reflector runs no throughput tests (limits.concurrent_tests is 0, or its log says why)"
            }
            Self::DailyBytes => "the bytes that the reflector allows this client a day are used up",
            Self::Congestion => "the reflector's kernel does not have that congestion control",
            Self::Streams => "the reflector does not allow that number of streams",
            Self::Time => "it lasted as long as the reflector allows",
            Self::Silence => "the reflector heard nothing from this client any more",
            Self::Prefix => {
                "the reflector lets no such tcp_prefix connect (tcp_prefixes of the client there)"
            }
            Self::Rate => {
                "the reflector allows this client (max_rate there), or anybody, no such rate"
            }
            Self::Address => "the reflector sees this client at another address than before",
        }
    }
}

/// What the reflector answers.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Report {
    /// A [`TestState`].
    pub state: u8,
    /// An [`EndReason`].
    pub reason: u8,
    /// Where the streams are to connect to.
    pub port: U16,
    /// Number of the order.
    pub number: U32,
    /// The client's name of the test.
    pub test: U64,
    /// How long to wait before asking again, ms.
    pub wait_ms: U32,
    /// The reflector's name of the test, which its tokens bear.
    pub handle: U32,
    /// Seals the tokens of this test.
    pub secret: Secret,
    /// Bytes received: through its streams, tokens not counted, or UDP payload.
    pub received: U64,
    /// Bytes handed to the kernel for its streams, or as UDP payload.
    pub sent: U64,
    /// Segments that the reflector's streams sent again.
    pub retransmits: U32,
    /// Mean of their smoothed round-trip times, µs.
    pub rtt_us: U32,
    /// Sum of their congestion windows, bytes.
    pub cwnd_bytes: U32,
    /// Number of the first bin that follows.
    pub first_bin: U32,
    /// How many follow.
    pub bins: U16,
    /// Zero.
    pub reserved: U16,
    /// Bytes received in each bin of 100 ms; bin 0 begins when the first stream or datagram has come.
    pub bytes: [U32; REPORT_BINS],
    /// Mean time from when a byte was handed to the reflector's kernel until the client's count of
    /// received bytes that includes it came back, for counts that came in that bin, 100 µs;
    /// 0: none came.
    pub in_band: [U16; REPORT_BINS],
    /// Datagrams of the test that have arrived, each once.
    pub datagrams: U32,
    /// Those that arrived once more.
    pub again: U32,
    /// Those of `datagrams` that arrived after one that was sent later.
    pub overtaken: U32,
    /// Datagrams of the test that the reflector has sent.
    pub datagrams_sent: U32,
    /// See [`Report::sender_drops`]: one more, or 0.
    pub sender_dropped: U32,
    /// Zero.
    pub reserved2: [u8; 4],
}

impl Report {
    /// Packets, of whatever kind, that the reflector's host has dropped since the load of a test over UDP began of what
    /// was to leave by the interface of its datagrams; `None` where it does not know, or is of a version that does
    /// not say.
    #[must_use]
    pub const fn sender_drops(&self) -> Option<u32> {
        self.sender_dropped.get().checked_sub(1)
    }

    /// What [`Report::sender_drops`] is to give, or the most that there is room for.
    pub fn tell_sender_drops(&mut self, dropped: Option<u64>) {
        let told = dropped.map_or(0, |d| d.saturating_add(1));
        self.sender_dropped = U32::new(u32::try_from(told).unwrap_or(u32::MAX));
    }
}

const _: () = assert!(size_of::<Order>() <= BODY_LEN && size_of::<Report>() <= BODY_LEN);

/// The body of the token that a TCP stream begins with.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Token {
    /// Number of the stream within its test; those from the client first.
    pub stream: u8,
    /// Zero.
    pub reserved: [u8; 15],
}

/// Bytes of a token as it stands at the begin of a stream.
pub const TOKEN_LEN: usize = SessionHeader::LEN + size_of::<Token>() + TAG_LEN;

/// A receiver's note to the sender of a stream: all bytes received so far, big-endian.
pub const NOTE_LEN: usize = 8;
