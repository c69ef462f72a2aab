//! What passes between a driver that owns sockets and the state machines that own none.

use core::net::{IpAddr, SocketAddr};

use crate::time::Stamp;

/// What the driver knows about a datagram beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecvMeta {
    /// When it arrived, and by whose clock.
    pub at: Stamp,
    /// Who sent it.
    pub from: SocketAddr,
    /// The local address it was sent to (`IP_PKTINFO`), where known.
    pub to: Option<IpAddr>,
    /// TTL or hop limit as received, where known.
    pub ttl: Option<u8>,
    /// The whole TOS or traffic-class octet as received (DSCP in the upper six bits, ECN in the
    /// lower two), where known.
    pub tos: Option<u8>,
    /// The socket's own count of datagrams it dropped so far (`SO_RXQ_OVFL`), wrapping.
    pub socket_drops: u32,
    /// The datagram was longer than the buffer, so its bytes are incomplete.
    pub truncated: bool,
}

/// Stands for one datagram that was handed to the driver.
///
/// It cannot be copied: the driver returns it exactly once, with what became of the datagram.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "return it to the state machine it came from, with a SendOutcome"]
pub struct SendToken {
    pub(crate) stream: u16,
    pub(crate) seq: u64,
}

impl SendToken {
    /// The probe's number in its stream; 0 for a knock, or a check of the session.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// The stream of its client that the datagram belongs to; `None` for a knock, or a check of
    /// the session.
    #[must_use]
    pub const fn stream(&self) -> Option<u16> {
        if self.stream == u16::MAX {
            None
        } else {
            Some(self.stream)
        }
    }
}

/// What became of a datagram that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// It left, and the kernel or the NIC said when.
    Stamped(Stamp),
    /// It left as far as is known, but no transmit stamp will come.
    NoStamp,
    /// It never left: the errno of the send call.
    Failed(i32),
}
