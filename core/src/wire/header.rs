//! The clear part of a datagram, which its seal covers as associated data.

use zerocopy::byteorder::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::drop_reason::DropReason;

/// "BFBN".
pub const MAGIC: [u8; 4] = *b"BFBN";
/// The version spoken here.
pub const VERSION: u8 = 1;
/// Bytes of the authentication tag at the end of every datagram.
pub const TAG_LEN: usize = 16;

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Client: the first knock.
    Hello = 1,
    /// Reflector: proves nothing, asks for the same address to answer.
    Challenge = 2,
    /// Client: the second knock, which brings the challenge back.
    Join = 3,
    /// Reflector: there is a session.
    Welcome = 4,
    /// Client: a probe.
    Probe = 16,
    /// Reflector: its echo.
    Reply = 17,
    /// Client: what it wants of a throughput test.
    Order = 32,
    /// Reflector: how far the test is.
    Report = 33,
    /// Client: the token that a TCP stream begins with; never a datagram.
    Stream = 34,
    /// Either: one datagram of a throughput test over UDP.
    Load = 40,
    /// Either: one datagram of a packet train.
    Train = 48,
    /// Client: what it wants to know of a train, or to be sent one.
    TrainAsk = 49,
    /// Reflector: the answer.
    TrainReport = 50,
}

impl Kind {
    fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Hello,
            2 => Self::Challenge,
            3 => Self::Join,
            4 => Self::Welcome,
            16 => Self::Probe,
            17 => Self::Reply,
            32 => Self::Order,
            33 => Self::Report,
            34 => Self::Stream,
            40 => Self::Load,
            48 => Self::Train,
            49 => Self::TrainAsk,
            50 => Self::TrainReport,
            _ => return None,
        })
    }
}

/// What every datagram begins with.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Prefix {
    magic: [u8; 4],
    version: u8,
    kind: u8,
    reserved: U16,
}

impl Prefix {
    /// The prefix of a datagram of this kind.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            kind: kind as u8,
            reserved: U16::ZERO,
        }
    }

    /// The kind of `datagram`, checked to be of this protocol and version.
    ///
    /// # Errors
    /// [`DropReason::Length`], [`DropReason::Magic`], [`DropReason::Version`], [`DropReason::Type`].
    pub fn kind_of(datagram: &[u8]) -> Result<Kind, DropReason> {
        let (prefix, _) = Self::ref_from_prefix(datagram).map_err(|_| DropReason::Length)?;
        if prefix.magic != MAGIC {
            return Err(DropReason::Magic);
        }
        if prefix.version != VERSION {
            return Err(DropReason::Version);
        }
        Kind::from_u8(prefix.kind).ok_or(DropReason::Type)
    }
}

/// The clear header of the four knock messages.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct KnockHeader {
    prefix: Prefix,
    /// Whose key seals the message.
    pub key_id: [u8; 8],
    /// Random, of XChaCha20-Poly1305.
    pub nonce: [u8; 24],
}

impl KnockHeader {
    /// Bytes of it.
    pub const LEN: usize = size_of::<Self>();

    /// The header of a message of this kind.
    #[must_use]
    pub const fn new(kind: Kind, key_id: [u8; 8], nonce: [u8; 24]) -> Self {
        Self {
            prefix: Prefix::new(kind),
            key_id,
            nonce,
        }
    }
}

/// The clear header of what is sent within a session.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SessionHeader {
    prefix: Prefix,
    /// Which session, in the reflector's numbering.
    pub session: U32,
    /// Counts the sender's datagrams in this session from 0; the nonce.
    pub counter: U64,
}

impl SessionHeader {
    /// Bytes of it.
    pub const LEN: usize = size_of::<Self>();

    /// The header of a message of this kind.
    #[must_use]
    pub const fn new(kind: Kind, session: u32, counter: u64) -> Self {
        Self {
            prefix: Prefix::new(kind),
            session: U32::new(session),
            counter: U64::new(counter),
        }
    }
}
