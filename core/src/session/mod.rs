//! Sessions between a client and a reflector: the state machines of both ends.
//!
//! A client knocks twice (hello, challenge, join, welcome) and then probes. The reflector keeps no
//! state before the second knock, answers nothing that does not open, and never answers with more
//! bytes than it received.

mod budget;
pub mod client;
#[cfg(test)]
mod edges;
pub mod record;
pub mod reflector;
mod sealed;
#[cfg(test)]
mod tests;

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// An address as it stands on the wire: IPv4 mapped into IPv6, and the port.
fn address_bytes(address: SocketAddr) -> ([u8; 16], u16) {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    (ip.octets(), address.port())
}

fn address_from_bytes(octets: [u8; 16], port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from(octets).to_canonical(), port)
}
