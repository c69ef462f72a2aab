//! Socket addresses in the kernel's layout.

use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for an IPv4 or IPv6 socket address as the kernel writes it.
pub(crate) const NAME_LEN: usize = mem::size_of::<libc::sockaddr_in6>();

/// An IPv4 or IPv6 socket address in the kernel's layout.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct RawAddr {
    bytes: [u8; NAME_LEN],
    len: u8,
}

impl RawAddr {
    #[cfg(any(test, fuzzing))]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    pub(crate) const fn empty() -> Self {
        Self {
            bytes: [0; NAME_LEN],
            len: 0,
        }
    }

    /// Both layouts are: family in host order, port in network order, then for IPv4 the address,
    /// for IPv6 flow label, address and scope in host order.
    pub(crate) fn new(addr: SocketAddr) -> Self {
        let mut raw = Self::empty();
        let b = &mut raw.bytes;
        b[2..4].copy_from_slice(&addr.port().to_be_bytes());
        match addr {
            SocketAddr::V4(v4) => {
                b[0..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
                b[4..8].copy_from_slice(&v4.ip().octets());
                raw.len = mem::size_of::<libc::sockaddr_in>() as u8;
            }
            SocketAddr::V6(v6) => {
                b[0..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
                b[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
                b[8..24].copy_from_slice(&v6.ip().octets());
                b[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                raw.len = NAME_LEN as u8;
            }
        }
        raw
    }

    pub(crate) const fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.bytes).cast()
    }

    pub(crate) const fn len(&self) -> libc::socklen_t {
        self.len as libc::socklen_t
    }
}

/// Reads a socket address in the kernel's layout; None for other families and short input.
pub(crate) fn parse(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(take(bytes, 0)?);
    let port = u16::from_be_bytes(take(bytes, 2)?);
    match i32::from(family) {
        libc::AF_INET => {
            let ip = Ipv4Addr::from(take::<4>(bytes, 4)?);
            Some(SocketAddr::V4(SocketAddrV4::new(ip, port)))
        }
        libc::AF_INET6 => {
            let flow = u32::from_be_bytes(take(bytes, 4)?);
            let ip = Ipv6Addr::from(take::<16>(bytes, 8)?);
            let scope = u32::from_ne_bytes(take(bytes, 24)?);
            Some(SocketAddr::V6(SocketAddrV6::new(ip, port, flow, scope)))
        }
        _ => None,
    }
}

/// The unspecified address of the family of `like`.
pub(crate) const fn unspecified(like: &IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// `N` bytes of `bytes` from `at` on, if they are there.
pub(crate) fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn addresses_survive_the_kernels_layout(v4 in any::<bool>(), ip in any::<u128>(), port in any::<u16>(), flow in any::<u32>(), scope in any::<u32>()) {
            let addr = if v4 {
                SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(ip as u32), port))
            } else {
                SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(ip), port, flow, scope))
            };
            let raw = RawAddr::new(addr);
            prop_assert_eq!(parse(raw.bytes()), Some(addr));
        }

        #[test]
        fn any_bytes_parse_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&bytes);
        }
    }
}
