//! A UDP socket whose datagrams are to end on the way: which router each ended at comes without
//! privilege, through the socket's error queue.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::errqueue::ErrorQueue;
use crate::socket::{Family, ProbeSocket, SocketBuilder};
use crate::sockopt::{SocketError, set};
use crate::sys;

/// ICMP (RFC 792) and ICMPv6 (RFC 4443) time exceeded, and destination unreachable.
const EXCEEDED: (u8, u8) = (11, 3);
const UNREACHABLE: (u8, u8) = (3, 1);

/// See the module.
pub struct HopSocket {
    socket: ProbeSocket,
    to: SocketAddr,
    queue: ErrorQueue,
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopAnswer<'a> {
    /// Its TTL ran out.
    Exceeded {
        /// The router that says so.
        from: IpAddr,
        /// The beginning of the datagram's payload, if it was quoted.
        quoted: &'a [u8],
    },
    /// The host it was sent to refuses it.
    Reached,
}

impl HopSocket {
    /// A socket made by `builder`, which is one for UDP, that sends to `to`.
    ///
    /// # Errors
    /// As [`SocketBuilder::build`].
    pub fn new(builder: SocketBuilder, to: SocketAddr) -> Result<Self, SocketError> {
        Ok(Self {
            socket: builder.report_errors(true).build()?,
            to,
            queue: ErrorQueue::new(),
        })
    }

    /// Sends a datagram that at most `ttl` hops pass on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&self, ttl: u8, payload: &[u8]) -> io::Result<()> {
        let (level, name) = match self.socket.family {
            Family::V4 => (libc::IPPROTO_IP, libc::IP_TTL),
            Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
        };
        let socket = &self.socket.socket;
        set(socket.as_raw_fd(), level, name, i32::from(ttl))?;
        let to = self.to.into();
        // The first refusal may be what an earlier datagram met, which is in the error queue too.
        socket
            .send_to(payload, &to)
            .or_else(|_| socket.send_to(payload, &to))
            .map(drop)
    }

    /// Waits until something is told, at most for `patience`, and gives `tell` what became of which
    /// datagrams. What this host itself or anybody else reports is left out.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait(
        &mut self,
        patience: Duration,
        mut tell: impl FnMut(HopAnswer<'_>),
    ) -> io::Result<()> {
        let fd = self.socket.socket.as_raw_fd();
        let mut poll = libc::pollfd {
            fd,
            // The error queue is always told of.
            events: 0,
            revents: 0,
        };
        let millis = libc::c_int::try_from(patience.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: one pollfd that lives until the call returns.
        match sys::check(unsafe { libc::poll(&raw mut poll, 1, millis.saturating_add(1)) }) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            found => drop(found?),
        }
        // Taken off, so that the next datagram does not meet it.
        let _ = self.socket.socket.take_error();
        for i in 0..self.queue.read(fd) {
            let Some(entry) = self.queue.entry(i) else {
                continue;
            };
            let Some((error, from)) = entry.facts.error.and_then(|e| Some((e, e.offender?))) else {
                continue;
            };
            let is = |(v4, v6)| {
                (error.origin == libc::SO_EE_ORIGIN_ICMP && error.kind == v4)
                    || (error.origin == libc::SO_EE_ORIGIN_ICMP6 && error.kind == v6)
            };
            if is(EXCEEDED) {
                let quoted = entry.quoted;
                tell(HopAnswer::Exceeded { from, quoted });
            } else if is(UNREACHABLE) && from == self.to.ip() {
                tell(HopAnswer::Reached);
            }
        }
        Ok(())
    }
}
