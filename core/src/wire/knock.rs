//! The bodies of the four knock messages; docs/protocol.md draws them.

use zerocopy::byteorder::network_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::{KnockHeader, TAG_LEN};

/// Length of [`Hello`], [`Join`] and [`Welcome`] on the wire, bytes. [`Challenge`] is shorter.
pub const KNOCK_LEN: usize = KnockHeader::LEN + 80 + TAG_LEN;

/// The first knock.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Hello {
    /// Fresh for each session.
    pub client_random: [u8; 32],
    /// Zeros, so that the challenge is no larger.
    pub padding: [u8; 48],
}

/// What proves that a client receives at its address; opaque to it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Cookie {
    /// When it was issued, ns on the reflector's clock.
    pub issued_ns: U64,
    /// Keyed hash over address, key id, client random and time.
    pub mac: [u8; 16],
}

/// The reflector's answer to a first knock.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Challenge {
    /// As in the knock.
    pub client_random: [u8; 32],
    /// To be brought back.
    pub cookie: Cookie,
}

/// The second knock.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Join {
    /// As in the first knock.
    pub client_random: [u8; 32],
    /// As in the challenge.
    pub cookie: Cookie,
    /// Random, the same for the whole run of a client: its streams go on from session to session.
    pub instance: U64,
    /// Zeros.
    pub padding: [u8; 16],
}

/// The session.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Welcome {
    /// As in the knocks.
    pub client_random: [u8; 32],
    /// The reflector's share of the session's keys.
    pub server_random: [u8; 32],
    /// The reflector's run: when it changes, what it had counted is gone.
    pub boot: U64,
    /// The session's number.
    pub session: U32,
    /// Zero.
    pub reserved: U32,
}

const _: () = assert!(size_of::<Hello>() == 80);
const _: () = assert!(size_of::<Challenge>() <= size_of::<Hello>());
const _: () = assert!(size_of::<Join>() == 80);
const _: () = assert!(size_of::<Welcome>() == size_of::<Join>());
