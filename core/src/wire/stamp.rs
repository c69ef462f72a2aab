//! STAMP test packets (RFC 8762), unauthenticated and authenticated, with the session identifier and
//! the extensions' framing of RFC 8972.
//!
//! ```text
//! unauthenticated                            authenticated
//!  request              reply                 request              reply
//!  0 sequence number    0 sequence number     0 sequence number    0 sequence number
//!  4 timestamp          4 timestamp          16 timestamp         16 timestamp
//! 12 error estimate    12 error estimate     24 error estimate    24 error estimate
//! 14 session id        14 session id         26 session id        26 session id
//! 16 zeros             16 receive timestamp  28 zeros             32 receive timestamp
//!                      24 sender's number                         48 sender's number
//!                      28 sender's timestamp                      64 sender's timestamp
//!                      36 sender's error est.                     72 sender's error est.
//!                      40 sender's TTL                            80 sender's TTL
//! 44 end, then TLVs    44 end, then TLVs     96 HMAC              96 HMAC
//!                                           112 end, then TLVs   112 end, then TLVs
//! ```
//!
//! What is not drawn is zero.

mod time;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zerocopy::byteorder::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::drop_reason::DropReason;

pub use time::{ErrorEstimate, Format};

/// The UDP port of a STAMP reflector (RFC 8762, 4.1).
pub const PORT: u16 = 862;
/// Bytes of an unauthenticated packet without extensions.
pub const OPEN_LEN: usize = 44;
/// Bytes of an authenticated packet without extensions.
pub const SEALED_LEN: usize = 112;
/// Bytes before the HMAC, which it covers: the first six blocks (RFC 8762, 4.4).
const COVERED: usize = 96;
/// Longest key, bytes: one block of SHA-256.
pub const MAX_KEY: usize = 64;
/// Shortest key, bytes: what the HMAC is truncated to.
pub const MIN_KEY: usize = 16;

/// A key of the authenticated mode: never printed, wiped when it is dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Key {
    bytes: [u8; MAX_KEY],
    len: usize,
}

impl Key {
    /// A key of these bytes; `None` unless there are [`MIN_KEY`] to [`MAX_KEY`].
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let len = bytes.len();
        if !(MIN_KEY..=MAX_KEY).contains(&len) {
            return None;
        }
        let mut key = Self {
            bytes: [0; MAX_KEY],
            len,
        };
        key.bytes[..len].copy_from_slice(bytes);
        Some(key)
    }

    /// Its bytes.
    #[must_use]
    pub fn reveal(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// By this keys can be put in an order: it says nothing of the key, unlike the time that comparing keys
    /// takes.
    #[must_use]
    pub fn ordinal(&self) -> [u8; 16] {
        self.code(&[])
    }

    /// HMAC-SHA-256 of the covered part of a packet, truncated to 128 bits.
    fn code(&self, packet: &[u8]) -> [u8; 16] {
        let mut code = [0; 16];
        // HMAC takes keys of any length, so this cannot fail.
        if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.reveal()) {
            mac.update(packet.get(..COVERED).unwrap_or_default());
            code.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        }
        code
    }

    fn fits(&self, packet: &[u8]) -> bool {
        packet
            .get(COVERED..SEALED_LEN)
            .is_some_and(|said| self.code(packet).ct_eq(said).into())
    }
}

impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.reveal().ct_eq(other.reveal()).into()
    }
}

impl Eq for Key {}

/// The fields of a request, whichever mode it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The sender's number of it.
    pub seq: u32,
    /// When it was sent, as written.
    pub timestamp: u64,
    /// Its sender's error estimate, as written.
    pub error: u16,
    /// The session's identifier (RFC 8972, 3); 0 of a sender that knows none.
    pub session: u16,
}

/// The fields of a reply, whichever mode it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The reflector's own number, or the sender's where it keeps none.
    pub seq: u32,
    /// When it was sent, as written.
    pub timestamp: u64,
    /// The reflector's error estimate, as written.
    pub error: u16,
    /// The session's identifier; 0 from a reflector that knows none.
    pub session: u16,
    /// When the request was received, as written.
    pub receive_timestamp: u64,
    /// The request, as it came.
    pub request: Request,
    /// TTL or hop limit of the request as received.
    pub ttl: u8,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct OpenReply {
    seq: U32,
    timestamp: U64,
    error: U16,
    session: U16,
    receive_timestamp: U64,
    sender_seq: U32,
    sender_timestamp: U64,
    sender_error: U16,
    zero: [u8; 2],
    ttl: u8,
    zeros: [u8; 3],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SealedReply {
    seq: U32,
    zeros_a: [u8; 12],
    timestamp: U64,
    error: U16,
    session: U16,
    zeros_b: [u8; 4],
    receive_timestamp: U64,
    zeros_c: [u8; 8],
    sender_seq: U32,
    zeros_d: [u8; 12],
    sender_timestamp: U64,
    sender_error: U16,
    zeros_e: [u8; 6],
    ttl: u8,
    zeros_f: [u8; 15],
}

const _: () = assert!(size_of::<OpenReply>() == OPEN_LEN);
const _: () = assert!(size_of::<SealedReply>() == COVERED);

/// Bytes of a packet without extensions in the mode that `key` says.
#[must_use]
pub const fn base_len(key: Option<&Key>) -> usize {
    match key {
        None => OPEN_LEN,
        Some(_) => SEALED_LEN,
    }
}

impl Request {
    /// Writes a request of `size` bytes into `out`, sealed where there is a key. What is beyond the
    /// base packet becomes one Extra Padding TLV (RFC 8972, 4.1), so a size that leaves it no room
    /// for its head is rounded down to the base packet. Gives the length; `None` where `out` is too
    /// small.
    #[must_use]
    pub fn emit(&self, key: Option<&Key>, size: usize, out: &mut [u8]) -> Option<usize> {
        let base = base_len(key);
        let size = if size < base + TLV_HEAD { base } else { size };
        let out = out.get_mut(..size)?;
        out.fill(0);
        let (at, error_at) = if key.is_some() { (16, 24) } else { (4, 12) };
        out[..4].copy_from_slice(&self.seq.to_be_bytes());
        out[at..at + 8].copy_from_slice(&self.timestamp.to_be_bytes());
        out[error_at..error_at + 2].copy_from_slice(&self.error.to_be_bytes());
        out[error_at + 2..error_at + 4].copy_from_slice(&self.session.to_be_bytes());
        if let Some(key) = key {
            let code = key.code(out);
            out[COVERED..SEALED_LEN].copy_from_slice(&code);
        }
        if size > base {
            let padding = (size - base - TLV_HEAD) as u16;
            // A sender marks what it writes as not recognised (RFC 8972, 4).
            out[base] = FLAG_UNRECOGNISED;
            out[base + 1] = TYPE_PADDING;
            out[base + 2..base + 4].copy_from_slice(&padding.to_be_bytes());
        }
        Some(size)
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`DropReason::Length`] where it is shorter than the mode's base packet, [`DropReason::Seal`]
    /// where its HMAC is not of the key.
    pub fn parse(key: Option<&Key>, bytes: &[u8]) -> Result<Self, DropReason> {
        let base = bytes.get(..base_len(key)).ok_or(DropReason::Length)?;
        if key.is_some_and(|k| !k.fits(base)) {
            return Err(DropReason::Seal);
        }
        let at = if key.is_some() { 16 } else { 4 };
        let (seq, rest) = (&base[..4], &base[at..]);
        Ok(Self {
            seq: U32::read_from_bytes(seq).map_or(0, U32::get),
            timestamp: U64::read_from_prefix(rest).map_or(0, |(n, _)| n.get()),
            error: U16::read_from_prefix(&rest[8..]).map_or(0, |(n, _)| n.get()),
            session: U16::read_from_prefix(&rest[10..]).map_or(0, |(n, _)| n.get()),
        })
    }
}

impl Reply {
    /// Writes the reply to a request of which `request` are the bytes, just as long, into `out`:
    /// extensions are copied back, marked as RFC 8972, 4 asks. Gives the length; `None` where `out`
    /// is too small.
    #[must_use]
    pub fn emit(&self, key: Option<&Key>, request: &[u8], out: &mut [u8]) -> Option<usize> {
        let base = base_len(key);
        let extensions = request.get(base..)?;
        let out = out.get_mut(..request.len())?;
        match key {
            None => {
                let body = OpenReply {
                    seq: self.seq.into(),
                    timestamp: self.timestamp.into(),
                    error: self.error.into(),
                    session: self.session.into(),
                    receive_timestamp: self.receive_timestamp.into(),
                    sender_seq: self.request.seq.into(),
                    sender_timestamp: self.request.timestamp.into(),
                    sender_error: self.request.error.into(),
                    zero: [0; 2],
                    ttl: self.ttl,
                    zeros: [0; 3],
                };
                out[..OPEN_LEN].copy_from_slice(body.as_bytes());
            }
            Some(key) => {
                let body = SealedReply {
                    seq: self.seq.into(),
                    zeros_a: [0; 12],
                    timestamp: self.timestamp.into(),
                    error: self.error.into(),
                    session: self.session.into(),
                    zeros_b: [0; 4],
                    receive_timestamp: self.receive_timestamp.into(),
                    zeros_c: [0; 8],
                    sender_seq: self.request.seq.into(),
                    zeros_d: [0; 12],
                    sender_timestamp: self.request.timestamp.into(),
                    sender_error: self.request.error.into(),
                    zeros_e: [0; 6],
                    ttl: self.ttl,
                    zeros_f: [0; 15],
                };
                out[..COVERED].copy_from_slice(body.as_bytes());
                let code = key.code(out);
                out[COVERED..SEALED_LEN].copy_from_slice(&code);
            }
        }
        out[base..].copy_from_slice(extensions);
        reflect_tlvs(&mut out[base..]);
        Some(request.len())
    }

    /// Reads a reply. Extensions are not looked at.
    ///
    /// # Errors
    /// [`DropReason::Length`] where it is shorter than the mode's base packet, [`DropReason::Seal`]
    /// where its HMAC is not of the key.
    pub fn parse(key: Option<&Key>, bytes: &[u8]) -> Result<Self, DropReason> {
        let base = bytes.get(..base_len(key)).ok_or(DropReason::Length)?;
        match key {
            None => {
                let (r, _) = OpenReply::ref_from_prefix(base).map_err(|_| DropReason::Length)?;
                Ok(Self {
                    seq: r.seq.get(),
                    timestamp: r.timestamp.get(),
                    error: r.error.get(),
                    session: r.session.get(),
                    receive_timestamp: r.receive_timestamp.get(),
                    request: Request {
                        seq: r.sender_seq.get(),
                        timestamp: r.sender_timestamp.get(),
                        error: r.sender_error.get(),
                        session: r.session.get(),
                    },
                    ttl: r.ttl,
                })
            }
            Some(key) => {
                if !key.fits(base) {
                    return Err(DropReason::Seal);
                }
                let (r, _) = SealedReply::ref_from_prefix(base).map_err(|_| DropReason::Length)?;
                Ok(Self {
                    seq: r.seq.get(),
                    timestamp: r.timestamp.get(),
                    error: r.error.get(),
                    session: r.session.get(),
                    receive_timestamp: r.receive_timestamp.get(),
                    request: Request {
                        seq: r.sender_seq.get(),
                        timestamp: r.sender_timestamp.get(),
                        error: r.sender_error.get(),
                        session: r.session.get(),
                    },
                    ttl: r.ttl,
                })
            }
        }
    }
}

/// Bytes of a TLV's flags, type and length.
const TLV_HEAD: usize = 4;
const TYPE_PADDING: u8 = 1;
const FLAG_UNRECOGNISED: u8 = 0x80;
const FLAG_MALFORMED: u8 = 0x40;

/// Marks the TLVs of a request for its reply: padding is known here, everything else is not, and
/// one that is longer than the packet ends the reading (RFC 8972, 4).
fn reflect_tlvs(mut rest: &mut [u8]) {
    while !rest.is_empty() {
        let Some(head) = rest.first_chunk_mut::<TLV_HEAD>() else {
            // Too short for a TLV: padding of before RFC 8972.
            return;
        };
        let value = usize::from(u16::from_be_bytes([head[2], head[3]]));
        head[0] = if head[1] == TYPE_PADDING {
            0
        } else {
            FLAG_UNRECOGNISED
        };
        if value > rest.len() - TLV_HEAD {
            rest[0] |= FLAG_MALFORMED;
            return;
        }
        rest = &mut rest[TLV_HEAD + value..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn key() -> Key {
        Key::new(&[0x0b; 20]).unwrap()
    }

    /// The code was computed by OpenSSL: `openssl dgst -sha256 -mac HMAC -macopt hexkey:0b..0b`.
    #[test]
    fn an_authenticated_request_is_this_byte_for_byte() {
        let request = Request {
            seq: 1,
            timestamp: 0x0102_0304_0506_0708,
            error: 0x8001,
            session: 0xbeef,
        };
        let mut out = [0xff; 112];
        assert_eq!(request.emit(Some(&key()), 112, &mut out), Some(112));
        let mut expected = [0; 96];
        expected[3] = 1;
        expected[16..24].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        expected[24..28].copy_from_slice(&[0x80, 1, 0xbe, 0xef]);
        assert_eq!(out[..96], expected);
        assert_eq!(out[96..], HMAC_OF_THE_REQUEST);
        assert_eq!(Request::parse(Some(&key()), &out), Ok(request));
        out[40] = 1;
        assert_eq!(Request::parse(Some(&key()), &out), Err(DropReason::Seal));
    }

    const HMAC_OF_THE_REQUEST: [u8; 16] = [
        0xb6, 0x52, 0xc0, 0x3b, 0xa7, 0xa7, 0x1d, 0x29, 0x41, 0x85, 0xcb, 0x1e, 0x57, 0xa9, 0x4e,
        0xa9,
    ];

    #[test]
    fn an_open_exchange_is_this_byte_for_byte() {
        let request = Request {
            seq: 0x0a0b_0c0d,
            timestamp: Format::Ntp.write(1_000_000_000),
            error: ErrorEstimate::default().write(),
            session: 7,
        };
        let mut sent = [0xff; 52];
        assert_eq!(request.emit(None, 52, &mut sent), Some(52));
        let mut expected = [0; 52];
        expected[..4].copy_from_slice(&[10, 11, 12, 13]);
        // 2208988801 s, no fraction; multiplier 1; session 7; then four bytes of padding.
        expected[4..16].copy_from_slice(&[0x83, 0xaa, 0x7e, 0x81, 0, 0, 0, 0, 0, 1, 0, 7]);
        expected[44..48].copy_from_slice(&[0x80, 1, 0, 4]);
        assert_eq!(sent, expected);

        let reply = Reply {
            seq: 3,
            timestamp: Format::Ptp.write(2_000_000_005),
            error: 0x4001,
            session: 7,
            receive_timestamp: Format::Ptp.write(2_000_000_003),
            request: Request::parse(None, &sent).unwrap(),
            ttl: 64,
        };
        let mut back = [0xff; 60];
        assert_eq!(reply.emit(None, &sent, &mut back), Some(52));
        let mut expected = [0; 52];
        expected[3] = 3;
        expected[4..16].copy_from_slice(&[0, 0, 0, 2, 0, 0, 0, 5, 0x40, 1, 0, 7]);
        expected[16..24].copy_from_slice(&[0, 0, 0, 2, 0, 0, 0, 3]);
        expected[24..28].copy_from_slice(&[10, 11, 12, 13]);
        expected[28..38].copy_from_slice(&sent[4..14]);
        expected[40] = 64;
        expected[44..48].copy_from_slice(&[0, 1, 0, 4]);
        assert_eq!(back[..52], expected);
        assert_eq!(Reply::parse(None, &back[..52]), Ok(reply));
    }

    #[test]
    fn unknown_extensions_come_back_marked_and_malformed_ones_end_the_reading() {
        let mut tlvs = [
            0x80, 9, 0, 2, 0xaa, 0xbb, // unknown
            0x80, 1, 0, 1, 0, // padding
            0x80, 4, 0, 9, 1, // longer than what is left
        ];
        reflect_tlvs(&mut tlvs);
        assert_eq!(
            tlvs,
            [0x80, 9, 0, 2, 0xaa, 0xbb, 0, 1, 0, 1, 0, 0xc0, 4, 0, 9, 1]
        );
        let mut old_padding = [5, 5];
        reflect_tlvs(&mut old_padding);
        assert_eq!(old_padding, [5, 5]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_and_never_answered_by_more(bytes: Vec<u8>, sealed: bool) {
            let key = key();
            let key = sealed.then_some(&key);
            let _ = Reply::parse(key, &bytes);
            if let Ok(request) = Request::parse(key, &bytes) {
                let reply = Reply {
                    seq: 0, timestamp: 1, error: 1, session: request.session,
                    receive_timestamp: 1, request, ttl: 1,
                };
                let mut out = vec![0; bytes.len()];
                prop_assert_eq!(reply.emit(key, &bytes, &mut out), Some(bytes.len()));
                prop_assert_eq!(Reply::parse(key, &out), Ok(reply));
            }
        }

        #[test]
        fn requests_of_any_size_round_trip(seq: u32, timestamp: u64, session: u16, size in 0usize..1500, sealed: bool) {
            let key = key();
            let key = sealed.then_some(&key);
            let request = Request { seq, timestamp, error: 1, session };
            let mut out = vec![0xee; 1500];
            let len = request.emit(key, size, &mut out).unwrap();
            prop_assert!(len <= size.max(base_len(key)));
            prop_assert_eq!(Request::parse(key, &out[..len]), Ok(request));
        }
    }
}
