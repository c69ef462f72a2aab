//! How large an engine is, and why one could not be made.

use crate::cmsg;
use crate::ring::EngineError;
use crate::slots::MAX_PAYLOAD;
use crate::sockaddr;
use crate::support::{Features, Unavailable};

/// How large an engine is. Everything is allocated when it is made.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Most sockets at a time.
    pub sockets: u16,
    /// Most sends queued between two submissions (0.3 kB each beside their payload).
    pub send_slots: u16,
    /// Bytes of payload per send, at least [`crate::MAX_PAYLOAD`]: what datagrams that leave together
    /// share. Memory is taken up as it is used.
    pub send_slot_bytes: usize,
    /// Receive buffers, a power of two up to 32768.
    pub receive_buffers: u16,
    /// Bytes per receive buffer, of which [`EngineOptions::RECEIVE_OVERHEAD`] are not payload.
    pub receive_buffer_bytes: usize,
    /// Completion-queue entries; more than the largest burst of datagrams and stamps together.
    pub completions: u32,
    /// Wakes this much before a deadline and spins until it, ns: sends on time at the price of
    /// CPU time. 0 does not spin.
    pub spin_ns: u64,
    /// What of the kernel may be used; what it lacks is left out in any case.
    pub features: Features,
}

impl EngineOptions {
    /// Bytes of each receive buffer taken by the address and the control messages.
    pub const RECEIVE_OVERHEAD: usize = 16 + sockaddr::NAME_LEN + cmsg::RECEIVE_SPACE;

    /// For a prober: some tens of sockets, some hundreds of datagrams per second. 1.9 MB.
    #[must_use]
    pub const fn prober() -> Self {
        Self {
            sockets: 128,
            send_slots: 256,
            send_slot_bytes: MAX_PAYLOAD,
            receive_buffers: 512,
            receive_buffer_bytes: 2048,
            completions: 4096,
            spin_ns: 0,
            features: Features::ALL,
        }
    }

    /// For a reflector: few sockets, 10⁵ datagrams per second. 0.6 MB, and as much again while trains
    /// are echoed: what finds no buffer waits in its socket.
    #[must_use]
    pub const fn reflector() -> Self {
        Self {
            sockets: 16,
            send_slots: 256,
            send_slot_bytes: 32 * 176,
            receive_buffers: 256,
            receive_buffer_bytes: 2048,
            completions: 2048,
            spin_ns: 0,
            features: Features::ALL,
        }
    }
}

/// Why an engine could not be made.
#[derive(Debug)]
pub enum StartError {
    /// This host offers no io_uring that we can use; says why and what helps.
    Unavailable(Unavailable),
    /// A step failed.
    Failed(EngineError),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unavailable(u) => u.fmt(f),
            Self::Failed(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}
