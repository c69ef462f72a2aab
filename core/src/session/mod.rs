//! Sessions between a client and a reflector: the state machines of both ends.
//!
//! A client knocks twice (hello, challenge, join, welcome) and then probes. The reflector keeps no
//! state before the second knock, answers nothing that does not open, and never answers with more
//! bytes than it received.

pub mod client;
#[cfg(test)]
mod edges;
pub mod record;
pub mod reflector;
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

/// A budget that refills evenly.
#[derive(Clone, Copy, Debug)]
struct Budget {
    per_second: u32,
    burst: u32,
    /// Tokens left, in billionths.
    level: u64,
    at_ns: u64,
}

impl Budget {
    const fn new(per_second: u32, burst: u32) -> Self {
        Self {
            per_second,
            burst,
            level: burst as u64 * 1_000_000_000,
            at_ns: 0,
        }
    }

    /// Takes one token if there is one.
    fn take(&mut self, now_ns: u64) -> bool {
        let refill = now_ns
            .saturating_sub(self.at_ns)
            .saturating_mul(u64::from(self.per_second));
        self.at_ns = now_ns;
        self.level = (self.level.saturating_add(refill)).min(u64::from(self.burst) * 1_000_000_000);
        if self.level < 1_000_000_000 {
            return false;
        }
        self.level -= 1_000_000_000;
        true
    }

    /// Whether there is a token.
    fn has(&mut self, now_ns: u64) -> bool {
        let has = self.take(now_ns);
        if has {
            self.level += 1_000_000_000;
        }
        has
    }
}
