//! The messages that trace a way, and how one is recognised in what a router quotes of it.
//!
//! All messages of a trace agree in everything that load balancers look at: addresses, ports or
//! identifier, and the checksum, which stays the same because each carries its number and the number's
//! complement (Augustin et al., "Avoiding traceroute anomalies with Paris traceroute", IMC 2006).
//!
//! ```text
//! ICMP  type 0 checksum | identifier number | cookie (8 bytes) | complement 0 0
//! UDP   header of the kernel's              | cookie (8 bytes) | number complement
//! ```
//!
//! A router quotes at least the first 8 bytes behind the IP header (RFC 792), and most quote more
//! (RFC 1812 section 4.3.2.3, RFC 4443 section 2.4 c). An echo's number is within those 8 bytes.

use crate::drop_reason::DropReason;
use crate::wire::icmp::{HEADER_LEN, Version, checksum};

/// Room for a message, bytes.
pub const MESSAGE_LEN: usize = HEADER_LEN + TAIL_LEN;
const TAIL_LEN: usize = 12;

/// What the messages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Echo requests.
    Echo {
        /// ICMP or ICMPv6.
        version: Version,
        /// The identifier where the sender sets it; `None` where the kernel does and hands over only
        /// what belongs to its own (a ping socket).
        identifier: Option<u16>,
    },
    /// UDP datagrams to a port at which nobody listens.
    Udp,
}

/// Which message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The one with this number.
    Number(u16),
    /// One of ours; nothing of its payload was quoted.
    Any,
}

/// Writes message `number`; gives its length.
pub(crate) fn emit(
    transport: Transport,
    cookie: u64,
    number: u16,
    out: &mut [u8; MESSAGE_LEN],
) -> usize {
    let [high, low] = number.to_be_bytes();
    *out = [0; MESSAGE_LEN];
    match transport {
        Transport::Udp => {
            out[..8].copy_from_slice(&cookie.to_be_bytes());
            out[8..TAIL_LEN].copy_from_slice(&[high, low, !high, !low]);
            TAIL_LEN
        }
        Transport::Echo {
            version,
            identifier,
        } => {
            out[0] = version.request_type();
            out[4..6].copy_from_slice(&identifier.unwrap_or(0).to_be_bytes());
            out[6..8].copy_from_slice(&[high, low]);
            out[8..16].copy_from_slice(&cookie.to_be_bytes());
            out[16..18].copy_from_slice(&[!high, !low]);
            // That of ICMPv6 covers addresses, and the kernel fills it in.
            if version == Version::V4 {
                let sum = checksum(out);
                out[2..4].copy_from_slice(&sum.to_be_bytes());
            }
            MESSAGE_LEN
        }
    }
}

/// Which of our messages `quoted` is the beginning of: of the ICMP message, or of UDP's payload.
pub(crate) fn of_quoted(
    transport: Transport,
    cookie: u64,
    quoted: &[u8],
) -> Result<Which, DropReason> {
    match transport {
        Transport::Udp => match quoted.first_chunk::<TAIL_LEN>() {
            None => Ok(Which::Any),
            Some(bytes) => {
                let number = [bytes[8], bytes[9]];
                check(cookie, &bytes[..8], number, [bytes[10], bytes[11]])
            }
        },
        Transport::Echo {
            version,
            identifier,
        } => {
            let head = quoted
                .first_chunk::<HEADER_LEN>()
                .ok_or(DropReason::Length)?;
            if head[0] != version.request_type() || head[1] != 0 {
                return Err(DropReason::Type);
            }
            if identifier.is_some_and(|i| i.to_be_bytes() != head[4..6]) {
                return Err(DropReason::Unmatched);
            }
            let number = [head[6], head[7]];
            match quoted.get(HEADER_LEN..HEADER_LEN + 10) {
                None => Ok(Which::Number(u16::from_be_bytes(number))),
                Some(rest) => check(cookie, &rest[..8], number, [rest[8], rest[9]]),
            }
        }
    }
}

/// Which of our messages this ICMP message, without an IP header, is the reply to.
pub(crate) fn of_reply(
    transport: Transport,
    cookie: u64,
    message: &[u8],
) -> Result<Which, DropReason> {
    let Transport::Echo {
        version,
        identifier,
    } = transport
    else {
        return Err(DropReason::Type);
    };
    let bytes = message
        .first_chunk::<MESSAGE_LEN>()
        .ok_or(DropReason::Length)?;
    if bytes[0] != version.reply_type() || bytes[1] != 0 {
        return Err(DropReason::Type);
    }
    if version == Version::V4 && checksum(message) != 0 {
        return Err(DropReason::Checksum);
    }
    if identifier.is_some_and(|i| i.to_be_bytes() != bytes[4..6]) {
        return Err(DropReason::Unmatched);
    }
    let number = [bytes[6], bytes[7]];
    check(cookie, &bytes[8..16], number, [bytes[16], bytes[17]])
}

fn check(
    cookie: u64,
    quoted: &[u8],
    number: [u8; 2],
    complement: [u8; 2],
) -> Result<Which, DropReason> {
    if quoted != cookie.to_be_bytes() {
        return Err(DropReason::Unmatched);
    }
    if number.map(|b| !b) != complement {
        return Err(DropReason::Field);
    }
    Ok(Which::Number(u16::from_be_bytes(number)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const TRANSPORTS: [Transport; 4] = [
        Transport::Udp,
        Transport::Echo {
            version: Version::V4,
            identifier: Some(0x1234),
        },
        Transport::Echo {
            version: Version::V4,
            identifier: None,
        },
        Transport::Echo {
            version: Version::V6,
            identifier: Some(7),
        },
    ];

    fn message(transport: Transport, cookie: u64, number: u16) -> Vec<u8> {
        let mut out = [0; MESSAGE_LEN];
        let len = emit(transport, cookie, number, &mut out);
        out[..len].to_vec()
    }

    #[test]
    fn an_echo_has_these_bytes() {
        let said = message(TRANSPORTS[1], 0x1122_3344_5566_7788, 0x0102);
        let (head, tail) = said.split_at(8);
        assert_eq!(head, [8, 0, 0xd4, 0x76, 0x12, 0x34, 1, 2]);
        assert_eq!(
            tail,
            [
                0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0xfe, 0xfd, 0, 0
            ]
        );
    }

    #[test]
    fn what_is_quoted_in_part_is_recognised_as_far_as_it_can_be() {
        let echo = message(TRANSPORTS[1], 5, 300);
        let quoted = |n: usize| of_quoted(TRANSPORTS[1], 5, &echo[..n]);
        assert_eq!(quoted(7), Err(DropReason::Length));
        assert_eq!(quoted(8), Ok(Which::Number(300)));
        assert_eq!(quoted(20), Ok(Which::Number(300)));
        let udp = message(Transport::Udp, 5, 300);
        for n in 0..12 {
            assert_eq!(of_quoted(Transport::Udp, 5, &udp[..n]), Ok(Which::Any));
        }
        assert_eq!(of_quoted(Transport::Udp, 5, &udp), Ok(Which::Number(300)));
        let other = of_quoted(TRANSPORTS[1], 6, &echo);
        assert_eq!(other, Err(DropReason::Unmatched));
    }

    proptest! {
        #[test]
        fn every_message_of_a_trace_has_the_checksum_of_the_first(cookie: u64, number: u16, i in 0usize..4) {
            let sum = |n| {
                let mut m = message(TRANSPORTS[i], cookie, n);
                if TRANSPORTS[i] != Transport::Udp {
                    m[2..4].fill(0);
                }
                checksum(&m)
            };
            prop_assert_eq!(sum(number), sum(0));
        }

        #[test]
        fn what_goes_out_is_recognised_in_quote_and_reply(cookie: u64, number: u16, i in 0usize..4) {
            let t = TRANSPORTS[i];
            let mut said = message(t, cookie, number);
            prop_assert_eq!(of_quoted(t, cookie, &said), Ok(Which::Number(number)));
            if let Transport::Echo { version, .. } = t {
                prop_assert_eq!(of_reply(t, cookie, &said), Err(DropReason::Type));
                said[0] = version.reply_type();
                said[2..4].fill(0);
                if version == Version::V4 {
                    let sum = checksum(&said);
                    said[2..4].copy_from_slice(&sum.to_be_bytes());
                }
                prop_assert_eq!(of_reply(t, cookie, &said), Ok(Which::Number(number)));
            } else {
                prop_assert_eq!(of_reply(t, cookie, &said), Err(DropReason::Type));
            }
        }
    }
}
