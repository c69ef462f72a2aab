//! ICMP (RFC 792) and ICMPv6 (RFC 4443) echo messages.
//!
//! The payload carries what a probe is recognised by, so that nothing hangs on the 16-bit
//! identifier, which a ping socket's kernel replaces by the port it chose:
//!
//! ```text
//!  0        8        16       24 ..
//! +--------+--------+--------+---------+
//! | cookie | number | zeros up to size |
//! +--------+--------+--------+---------+
//! ```

use crate::drop_reason::DropReason;

/// Which of the two protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// ICMP over IPv4.
    V4,
    /// ICMPv6 over IPv6.
    V6,
}

impl Version {
    pub(crate) const fn request_type(self) -> u8 {
        match self {
            Self::V4 => 8,
            Self::V6 => 128,
        }
    }

    pub(crate) const fn reply_type(self) -> u8 {
        match self {
            Self::V4 => 0,
            Self::V6 => 129,
        }
    }
}

/// What a host says of a packet that it did not pass on (RFC 792; RFC 4443 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Report {
    /// Its TTL or hop limit had run out on the way.
    Exceeded,
    /// It does not go there, for this reason.
    Unreachable(Refusal),
}

/// Why a packet was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No route leads there.
    Network,
    /// The host does not answer on its own link.
    Host,
    /// Nobody has this port or protocol there.
    Port,
    /// It is forbidden.
    Prohibited,
    /// Another reason, by its code.
    Other(u8),
}

impl Report {
    /// The report with this type and code; `None` where it is another message.
    #[must_use]
    pub const fn of(version: Version, kind: u8, code: u8) -> Option<Self> {
        Some(match (version, kind, code) {
            // Code 1 is about a fragment that waited too long, at the far end and not on the way.
            (Version::V4, 11, 0) | (Version::V6, 3, 0) => Self::Exceeded,
            (Version::V4, 3, _) => Self::Unreachable(match code {
                0 | 6 | 11 => Refusal::Network,
                1 | 7 | 12 => Refusal::Host,
                2 | 3 => Refusal::Port,
                9 | 10 | 13 => Refusal::Prohibited,
                other => Refusal::Other(other),
            }),
            (Version::V6, 1, _) => Self::Unreachable(match code {
                0 => Refusal::Network,
                3 => Refusal::Host,
                4 => Refusal::Port,
                1 | 5 | 6 => Refusal::Prohibited,
                other => Refusal::Other(other),
            }),
            _ => return None,
        })
    }
}

/// Whether a message of this type and code says that a packet was too big to be passed on whole (RFC 1191
/// section 4, RFC 4443 section 3.2). It is no [`Report`]: smaller ones go there.
#[must_use]
pub const fn is_too_big(version: Version, kind: u8, code: u8) -> bool {
    matches!(
        (version, kind, code),
        (Version::V4, 3, 4) | (Version::V6, 2, _)
    )
}

/// Bytes of the ICMP header of an echo message.
pub const HEADER_LEN: usize = 8;
/// Bytes of header, cookie and number: the smallest echo this program sends.
pub const MIN_LEN: usize = HEADER_LEN + 16;

/// An echo request or reply of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// The identifier; a ping socket's kernel replaces it.
    pub identifier: u16,
    /// Random, chosen at start: tells our replies from everybody else's.
    pub cookie: u64,
    /// The probe's number; its low 16 bits are the ICMP sequence number.
    pub seq: u64,
}

impl Echo {
    /// Writes an echo request of `size` bytes of ICMP, header included, into `out`. Gives its
    /// length: `size`, but at least [`MIN_LEN`]; `None` where `out` is too small for it.
    ///
    /// The checksum of an ICMPv6 message covers addresses that only the kernel knows, and the kernel
    /// fills it in; that of an ICMP message is computed here.
    #[must_use]
    pub fn emit_request(&self, version: Version, size: usize, out: &mut [u8]) -> Option<usize> {
        let size = size.max(MIN_LEN);
        let out = out.get_mut(..size)?;
        out.fill(0);
        out[0] = version.request_type();
        out[4..6].copy_from_slice(&self.identifier.to_be_bytes());
        out[6..8].copy_from_slice(&(self.seq as u16).to_be_bytes());
        out[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        out[16..24].copy_from_slice(&self.seq.to_be_bytes());
        if version == Version::V4 {
            let sum = checksum(out);
            out[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        Some(size)
    }

    /// Reads an echo reply from an ICMP message without its IP header.
    ///
    /// # Errors
    /// [`DropReason::Length`] where not even ICMP's header is there, [`DropReason::Type`],
    /// [`DropReason::Checksum`] (ICMP only: the kernel has checked ICMPv6), or [`DropReason::Unmatched`] of
    /// a sound reply that is shorter than any of ours: a raw socket hears those to others, too, whose requests
    /// happen to have its identifier.
    pub fn parse_reply(version: Version, bytes: &[u8]) -> Result<Self, DropReason> {
        let head = bytes
            .first_chunk::<HEADER_LEN>()
            .ok_or(DropReason::Length)?;
        if head[0] != version.reply_type() || head[1] != 0 {
            return Err(DropReason::Type);
        }
        if version == Version::V4 && checksum(bytes) != 0 {
            return Err(DropReason::Checksum);
        }
        let head = bytes
            .first_chunk::<MIN_LEN>()
            .ok_or(DropReason::Unmatched)?;
        let u64_at = |i: usize| {
            head[i..]
                .first_chunk::<8>()
                .map_or(0, |b| u64::from_be_bytes(*b))
        };
        let echo = Self {
            identifier: u16::from_be_bytes([head[4], head[5]]),
            cookie: u64_at(8),
            seq: u64_at(16),
        };
        if u16::from_be_bytes([head[6], head[7]]) != echo.seq as u16 {
            return Err(DropReason::Field);
        }
        Ok(echo)
    }
}

/// The ICMP message within an IPv4 packet, as a raw socket delivers it.
///
/// # Errors
/// [`DropReason::Length`] where the header is cut off, [`DropReason::Version`] where it is not IPv4.
pub fn strip_ipv4_header(packet: &[u8]) -> Result<&[u8], DropReason> {
    let first = *packet.first().ok_or(DropReason::Length)?;
    if first >> 4 != 4 {
        return Err(DropReason::Version);
    }
    let header_len = usize::from(first & 15) * 4;
    if header_len < 20 {
        return Err(DropReason::Length);
    }
    packet.get(header_len..).ok_or(DropReason::Length)
}

/// The Internet checksum (RFC 1071) of `bytes`; 0 over a message that carries a right one.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    let (pairs, rest) = bytes.as_chunks::<2>();
    for pair in pairs {
        sum += u32::from(u16::from_be_bytes(*pair));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    if let [last] = rest {
        sum += u32::from(*last) << 8;
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    const ECHO: Echo = Echo {
        identifier: 0x1234,
        cookie: 0x1122_3344_5566_7788,
        seq: 0x1_0002,
    };

    const REQUEST: [u8; 24] = [
        8, 0, 0xd4, 0x71, 0x12, 0x34, 0, 2, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0, 0,
        0, 0, 0, 1, 0, 2,
    ];

    /// What a host does with a request: another type, another checksum.
    fn answer(version: Version, request: &[u8]) -> Vec<u8> {
        let mut reply = request.to_vec();
        reply[0] = version.reply_type();
        reply[2..4].fill(0);
        if version == Version::V4 {
            let sum = checksum(&reply);
            reply[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        reply
    }

    #[test]
    fn a_request_has_these_bytes() {
        let mut out = [0xff; 64];
        assert_eq!(ECHO.emit_request(Version::V4, 0, &mut out), Some(24));
        assert_eq!(out[..24], REQUEST);
        assert_eq!(ECHO.emit_request(Version::V6, 65, &mut out), None);
    }

    #[test]
    fn a_reply_is_recognised_and_a_damaged_one_is_not() {
        let reply = answer(Version::V4, &REQUEST);
        assert_eq!(Echo::parse_reply(Version::V4, &reply), Ok(ECHO));
        assert_eq!(
            Echo::parse_reply(Version::V4, &REQUEST),
            Err(DropReason::Type)
        );
        assert_eq!(
            Echo::parse_reply(Version::V4, &reply[..7]),
            Err(DropReason::Length)
        );
        assert_eq!(
            Echo::parse_reply(Version::V4, &reply[..23]),
            Err(DropReason::Checksum)
        );
        // Whole, and of others.
        let mut short = reply.clone();
        short[2..4].fill(0);
        let sum = checksum(&short[..20]);
        short[2..4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(
            Echo::parse_reply(Version::V4, &short[..20]),
            Err(DropReason::Unmatched)
        );
        let mut damaged = reply;
        damaged[20] ^= 1;
        assert_eq!(
            Echo::parse_reply(Version::V4, &damaged),
            Err(DropReason::Checksum)
        );
    }

    #[test]
    fn an_ipv4_header_with_options_is_skipped_whole() {
        let mut packet = vec![0u8; 24];
        packet[0] = 0x46;
        packet.extend_from_slice(&[1, 2, 3]);
        assert_eq!(strip_ipv4_header(&packet), Ok(&[1, 2, 3][..]));
        assert_eq!(strip_ipv4_header(&[0x60; 40]), Err(DropReason::Version));
        assert_eq!(strip_ipv4_header(&[0x4f; 10]), Err(DropReason::Length));
        assert_eq!(strip_ipv4_header(&[]), Err(DropReason::Length));
    }

    proptest! {
        #[test]
        fn what_goes_out_comes_back(identifier: u16, cookie: u64, seq: u64, size in 0usize..1500, v6: bool) {
            let version = if v6 { Version::V6 } else { Version::V4 };
            let echo = Echo { identifier, cookie, seq };
            let mut out = vec![0; 1500];
            let len = echo.emit_request(version, size, &mut out).unwrap();
            prop_assert_eq!(len, size.max(MIN_LEN));
            prop_assert_eq!(Echo::parse_reply(version, &answer(version, &out[..len])), Ok(echo));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Echo::parse_reply(Version::V4, &bytes);
            let _ = Echo::parse_reply(Version::V6, &bytes);
            let _ = strip_ipv4_header(&bytes);
        }
    }
}
