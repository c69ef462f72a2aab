//! What the engine tells its driver.

use std::net::{IpAddr, SocketAddr};

use bufferbane_core::packet::RecvMeta;
use bufferbane_core::time::Stamp;

/// A socket of one engine. A number that was given back is refused, even where its place has been
/// taken by another socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    pub(crate) index: u16,
    pub(crate) generation: u16,
}

impl SocketId {
    /// Its place in the engine's table, below [`crate::EngineOptions::sockets`]; the places of
    /// removed sockets are used again.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }
}

/// Something happened on the ring.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event<'a> {
    /// A datagram arrived. A raw IPv4 socket's begin with the IPv4 header.
    Received {
        /// On this socket.
        socket: SocketId,
        /// What is known about it beside its bytes.
        meta: RecvMeta,
        /// Its payload; incomplete where `meta.truncated`.
        bytes: &'a [u8],
    },
    /// A send ended: always told where it failed, and where it succeeded only by sockets built with
    /// [`crate::SocketBuilder::report_sent`].
    Sent {
        /// Through this socket.
        socket: SocketId,
        /// The key given with it.
        key: u32,
        /// Why it failed, if it did.
        errno: Option<i32>,
    },
    /// A datagram left, and the kernel says when. It may come late, twice, or never.
    TxStamp {
        /// Through this socket.
        socket: SocketId,
        /// The key given with the datagram.
        key: u32,
        /// When, and by whose clock.
        stamp: Stamp,
    },
    /// The kernel reports an error of a socket: mostly an ICMP message about something sent
    /// earlier, on sockets built with [`crate::SocketBuilder::report_errors`].
    SocketError {
        /// Of this socket.
        socket: SocketId,
        /// What the kernel made of it (`ECONNREFUSED`, `EHOSTUNREACH`, `EMSGSIZE`…).
        errno: i32,
        /// Where it came from.
        origin: ErrorOrigin,
        /// Where the datagram that caused it was going, where known.
        to: Option<SocketAddr>,
        /// Who reported it, where known: a router on the way, or the far host.
        offender: Option<IpAddr>,
        /// The beginning of the payload that caused it, as far as it was quoted.
        quoted: &'a [u8],
    },
    /// A [`crate::Waker`] asked for attention.
    Wake,
}

/// Where a socket's error came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorOrigin {
    /// This host.
    Local,
    /// An ICMP message.
    Icmp {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
    },
    /// An ICMPv6 message.
    Icmp6 {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
    },
}

/// Counts since the engine's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineCounters {
    /// Datagrams handed to the kernel.
    pub sends: u64,
    /// Of those, how many left in one send with others.
    pub joined: u64,
    /// Of those, how many the kernel refused.
    pub send_errors: u64,
    /// Sends tried again because the refusal was an earlier datagram's ICMP error.
    pub send_retries: u64,
    /// Datagrams received.
    pub received: u64,
    /// Received datagrams without a usable kernel stamp.
    pub unstamped: u64,
    /// Transmit stamps that came.
    pub stamps: u64,
    /// Transmit stamps that belong to no datagram or make no sense as a time.
    pub stray_stamps: u64,
    /// Times a socket's receive ended and was started again.
    pub rearmed: u64,
    /// Of those, for lack of a free receive buffer.
    pub out_of_buffers: u64,
    /// ICMP and other errors of sockets.
    pub socket_errors: u64,
    /// Waits that found the completion queue overflown.
    pub overflows: u64,
}
