//! Control messages: a walker that trusts no length, and a builder into fixed memory.
//!
//! Layout (`cmsg(3)`): length of header and data (`size_t`), level (`int`), type (`int`), data,
//! padding to the size of a `long`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::clock::timespec_ns;
use crate::sockaddr::take;
use crate::sys;

const WORD: usize = size_of::<usize>();
const HEADER: usize = WORD + 8;

const fn align(len: usize) -> usize {
    len.next_multiple_of(WORD)
}

/// Bytes that a control message with `data` bytes of data takes.
pub(crate) const fn space(data: usize) -> usize {
    HEADER + align(data)
}

/// Room for every control message that a socket of ours can ask for on receive: stamps, packet
/// information, TTL, TOS, overflow count; and for error-queue entries: stamps and the error with
/// the offender's address.
pub(crate) const RECEIVE_SPACE: usize = 256;
const _: () = assert!(space(48) + space(20) + 3 * space(4) <= RECEIVE_SPACE);
const _: () = assert!(space(48) + space(16 + 28) + space(20) <= RECEIVE_SPACE);

/// One control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) level: i32,
    pub(crate) kind: i32,
    pub(crate) data: &'a [u8],
}

/// The control messages in `bytes`, up to the first that is malformed.
pub(crate) struct Messages<'a>(&'a [u8]);

pub(crate) const fn messages(bytes: &[u8]) -> Messages<'_> {
    Messages(bytes)
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let bytes = self.0;
        let len = usize::from_ne_bytes(take(bytes, 0)?);
        let level = i32::from_ne_bytes(take(bytes, WORD)?);
        let kind = i32::from_ne_bytes(take(bytes, WORD + 4)?);
        let Some(data) = bytes.get(HEADER..len) else {
            self.0 = &[];
            return None;
        };
        self.0 = bytes.get(align(len)..).unwrap_or(&[]);
        Some(Message { level, kind, data })
    }
}

/// A stamp as the kernel gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KernelStamps {
    /// By the kernel, on the wall clock's line, ns; 0 where there is none.
    pub(crate) software_ns: i64,
    /// By the card, on its own clock's line, ns; 0 where there is none.
    pub(crate) hardware_ns: i64,
}

/// An entry of the error queue (`struct sock_extended_err`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExtendedError {
    pub(crate) errno: u32,
    pub(crate) origin: u8,
    pub(crate) kind: u8,
    pub(crate) code: u8,
    pub(crate) info: u32,
    pub(crate) data: u32,
    /// Who reported it.
    pub(crate) offender: Option<IpAddr>,
}

/// What the control messages of one datagram said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) stamps: Option<KernelStamps>,
    pub(crate) to: Option<IpAddr>,
    pub(crate) interface: Option<u32>,
    pub(crate) ttl: Option<u8>,
    pub(crate) tos: Option<u8>,
    pub(crate) drops: Option<u32>,
    pub(crate) error: Option<ExtendedError>,
}

fn int(data: &[u8]) -> Option<i32> {
    take(data, 0).map(i32::from_ne_bytes)
}

/// TOS comes as one byte from some kernels' paths and as an `int` from others.
fn octet(data: &[u8]) -> Option<u8> {
    match data {
        [one] => Some(*one),
        _ => int(data).and_then(|v| u8::try_from(v).ok()),
    }
}

fn timestamping(data: &[u8]) -> Option<KernelStamps> {
    let time = |i: usize| -> Option<i64> {
        let sec = i64::from_ne_bytes(take(data, i * 16)?);
        let nsec = i64::from_ne_bytes(take(data, i * 16 + 8)?);
        Some(timespec_ns(sec, nsec))
    };
    Some(KernelStamps {
        software_ns: time(0)?,
        hardware_ns: time(2)?,
    })
}

fn extended_error(data: &[u8]) -> Option<ExtendedError> {
    let [origin, kind, code, _] = take(data, 4)?;
    Some(ExtendedError {
        errno: u32::from_ne_bytes(take(data, 0)?),
        origin,
        kind,
        code,
        info: u32::from_ne_bytes(take(data, 8)?),
        data: u32::from_ne_bytes(take(data, 12)?),
        offender: crate::sockaddr::parse(data.get(16..).unwrap_or(&[])).map(|a| a.ip()),
    })
}

/// Reads the control messages of a received datagram or error-queue entry. Total: unknown and
/// malformed ones are skipped.
pub(crate) fn parse(bytes: &[u8]) -> Received {
    let mut r = Received::default();
    for m in messages(bytes) {
        match (m.level, m.kind) {
            (libc::SOL_SOCKET, sys::SO_TIMESTAMPING) => r.stamps = timestamping(m.data),
            (libc::SOL_SOCKET, sys::SO_RXQ_OVFL) => {
                r.drops = take(m.data, 0).map(u32::from_ne_bytes);
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                r.interface = int(m.data).and_then(|i| u32::try_from(i).ok());
                // The third field is the address in the packet's header.
                r.to = take::<4>(m.data, 8).map(|a| IpAddr::V4(Ipv4Addr::from(a)));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                r.to = take::<16>(m.data, 0).map(|a| IpAddr::V6(Ipv6Addr::from(a)));
                r.interface = take(m.data, 16).map(u32::from_ne_bytes);
            }
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                r.ttl = octet(m.data);
            }
            (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                r.tos = octet(m.data);
            }
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
                r.error = extended_error(m.data);
            }
            _ => {}
        }
    }
    r
}

/// Room for every control message that we send: packet information, TOS, a stamp's key and the length of
/// each of several datagrams.
pub(crate) const SEND_SPACE: usize = space(20) + space(4) + space(4) + space(2);

/// Control messages being put together in fixed memory.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct Builder {
    bytes: [u8; SEND_SPACE],
    len: usize,
}

impl Builder {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [0; SEND_SPACE],
            len: 0,
        }
    }

    pub(crate) const fn clear(&mut self) {
        self.len = 0;
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn as_mut_ptr(&mut self) -> *mut libc::c_void {
        (&raw mut self.bytes).cast()
    }

    /// Adds one message; false where there is no room, which the constants above rule out for the
    /// messages below.
    fn push<const N: usize>(&mut self, level: i32, kind: i32, data: [u8; N]) -> bool {
        let end = self.len + space(N);
        let Some(room) = self.bytes.get_mut(self.len..end) else {
            return false;
        };
        room[..WORD].copy_from_slice(&(HEADER + N).to_ne_bytes());
        room[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
        room[WORD + 4..HEADER].copy_from_slice(&kind.to_ne_bytes());
        room[HEADER..HEADER + N].copy_from_slice(&data);
        self.len = end;
        true
    }

    /// The address that the datagram is to be sent from.
    pub(crate) fn source(&mut self, from: IpAddr) -> bool {
        match from {
            IpAddr::V4(v4) => {
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&v4.octets());
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, info)
            }
            IpAddr::V6(v6) => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&v6.octets());
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
            }
        }
    }

    /// The whole TOS or traffic-class octet of the datagram.
    pub(crate) fn tos(&mut self, v6: bool, tos: u8) -> bool {
        let data = i32::from(tos).to_ne_bytes();
        if v6 {
            self.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, data)
        } else {
            self.push(libc::IPPROTO_IP, libc::IP_TOS, data)
        }
    }

    /// The key under which the kernel reports the transmit stamp.
    pub(crate) fn stamp_key(&mut self, key: u32) -> bool {
        self.push(libc::SOL_SOCKET, sys::SCM_TS_OPT_ID, key.to_ne_bytes())
    }

    /// The payload is several datagrams of so many bytes, of which the last may be shorter.
    pub(crate) fn segment(&mut self, bytes: u16) -> bool {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, bytes.to_ne_bytes())
    }

    #[cfg(test)]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_built_is_what_is_walked() {
        let mut b = Builder::new();
        let from: IpAddr = "2001:db8::7".parse().unwrap();
        assert!(b.source(from) && b.tos(true, 0xb8) && b.segment(172) && b.stamp_key(77));
        assert!(!b.stamp_key(78), "there is room for four");
        let r = parse(b.as_bytes());
        assert_eq!((r.to, r.tos), (Some(from), Some(0xb8)));
        let last = messages(b.as_bytes()).last().unwrap();
        assert_eq!(
            (last.level, last.kind),
            (libc::SOL_SOCKET, sys::SCM_TS_OPT_ID)
        );
        assert_eq!(last.data, 77u32.to_ne_bytes());
        b.clear();
        assert!(b.source("192.0.2.9".parse().unwrap()));
        assert_eq!(messages(b.as_bytes()).count(), 1);
    }

    #[test]
    fn a_length_beyond_the_buffer_ends_the_walk() {
        let mut bytes = [0u8; 64];
        bytes[..WORD].copy_from_slice(&1000usize.to_ne_bytes());
        assert_eq!(messages(&bytes).next(), None);
        bytes[..WORD].copy_from_slice(&3usize.to_ne_bytes());
        assert_eq!(messages(&bytes).next(), None, "shorter than its own header");
        bytes[..WORD].copy_from_slice(&usize::MAX.to_ne_bytes());
        assert_eq!(messages(&bytes).count(), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_to_an_end(mut bytes in proptest::collection::vec(any::<u8>(), 0..512), lens in proptest::collection::vec((0usize..512, 0usize..80), 0..8)) {
            // Plausible lengths at random places get further than random bytes would.
            for (at, len) in lens {
                let at = at / WORD * WORD;
                if let Some(place) = bytes.get_mut(at..at + WORD) {
                    place.copy_from_slice(&len.to_ne_bytes());
                }
            }
            prop_assert!(messages(&bytes).count() <= bytes.len() / HEADER);
            let _ = parse(&bytes);
        }
    }
}
