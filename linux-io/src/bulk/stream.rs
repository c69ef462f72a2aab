//! One stream: where it has got to, and how much of it is in flight.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use bufferbane_core::time::Monotonic;
use bufferbane_core::wire::load::{NOTE_LEN, TOKEN_LEN};
use io_uring::types::Fd;
use socket2::Socket;

use super::{LARGEST_CHUNK, Role, SMALLEST_CHUNK};
use crate::sockaddr::RawAddr;
use crate::tcp;

const FIRST_CHUNK: u32 = 16 << 10;
/// How often a stream's chunk is fitted to its rate, ns.
const FIT_NS: u64 = 20_000_000;
/// A chunk is what the stream carries in this time, ns; twice that may wait unsent in the socket.
const CHUNK_NS: u64 = 10_000_000;
/// How far a receiver with a limited rate may be ahead of it, ns.
const AHEAD_NS: u64 = 5_000_000;
/// Room for what a stream receives that is looked at.
pub(super) const SMALL: usize = 64;

const _: () = assert!(TOKEN_LEN <= SMALL && NOTE_LEN <= SMALL);

/// Where a stream has got to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Connecting,
    /// Accepted; its first bytes are being read.
    Greeting,
    /// [`super::Bulk::begin`] is awaited.
    Ready,
    /// Its first bytes are being written, before what comes after.
    Opening(Role),
    Running(Role),
    /// Everything is being cancelled.
    Closing,
}

pub(super) struct Stream {
    pub(super) stage: Stage,
    pub(super) socket: Option<Socket>,
    pub(super) generation: u16,
    /// Operations that the kernel still has: their memory stays until they are back.
    pub(super) pending: u8,
    pub(super) peer: Box<RawAddr>,
    pub(super) from: SocketAddr,
    pub(super) small: Box<[u8; SMALL]>,
    pub(super) small_len: usize,
    pub(super) note: Box<[u8; NOTE_LEN]>,
    pub(super) note_pending: bool,
    pub(super) noted: Monotonic,
    /// Bytes sent or received so far.
    pub(super) offset: u64,
    pub(super) chunk: u32,
    /// When the chunk was last fitted to the rate, and the offset then.
    pub(super) fitted: (Monotonic, u64),
    /// When it was accepted.
    pub(super) accepted: Monotonic,
    /// Bytes per second that may be received; 0 is any number.
    pub(super) limit: u64,
    /// When more may be received.
    pub(super) next: Monotonic,
    pub(super) paused: bool,
}

impl Stream {
    pub(super) fn free() -> Self {
        Self {
            stage: Stage::Closing,
            socket: None,
            generation: 0,
            pending: 0,
            peer: Box::new(RawAddr::empty()),
            from: SocketAddr::from(([0, 0, 0, 0], 0)),
            small: Box::new([0; SMALL]),
            small_len: 0,
            note: Box::new([0; NOTE_LEN]),
            note_pending: false,
            noted: Monotonic::ZERO,
            offset: 0,
            chunk: FIRST_CHUNK,
            fitted: (Monotonic::ZERO, 0),
            accepted: Monotonic::ZERO,
            limit: 0,
            next: Monotonic::ZERO,
            paused: false,
        }
    }

    pub(super) fn fd(&self) -> Fd {
        Fd(self.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd))
    }

    /// Fits the chunk to what was carried since that was last done.
    pub(super) fn fit_chunk(&mut self, now: Monotonic) {
        let (since, from) = self.fitted;
        let took_ns = now.saturating_since(since);
        if took_ns < FIT_NS {
            return;
        }
        self.fitted = (now, self.offset);
        let fit = u128::from(self.offset - from) * u128::from(CHUNK_NS) / u128::from(took_ns);
        let fit = u32::try_from(fit).unwrap_or(u32::MAX);
        let fit = fit.clamp(SMALLEST_CHUNK, LARGEST_CHUNK);
        // Small changes are not worth a system call.
        if fit > self.chunk + self.chunk / 4 || fit < self.chunk - self.chunk / 4 {
            self.chunk = fit;
            self.limit_unsent();
        }
    }

    /// What waits unsent is this host's and not the line's: no more of it than keeps the line busy.
    pub(super) fn limit_unsent(&self) {
        if let Some(socket) = &self.socket {
            // Without, more waits in the socket: the stream works all the same.
            let _ = tcp::set_unsent_limit(socket.as_raw_fd(), 2 * self.chunk);
        }
    }

    /// Frees the place once nothing is pending any more.
    pub(super) fn release(&mut self) {
        if self.pending == 0 {
            self.socket = None;
        }
    }

    /// The newest note among the bytes that have come, which are used up but for a begun one.
    pub(super) fn take_notes(&mut self) -> Option<u64> {
        let whole = self.small_len - self.small_len % NOTE_LEN;
        let newest = self.small[..whole].last_chunk::<NOTE_LEN>()?;
        let received = u64::from_be_bytes(*newest);
        self.small.copy_within(whole..self.small_len, 0);
        self.small_len -= whole;
        Some(received)
    }

    /// Takes note of `bytes` against the limit; whether more may come at once.
    pub(super) fn may_receive(&mut self, bytes: u64, now: Monotonic) -> bool {
        if self.limit == 0 {
            return true;
        }
        let ns = bytes.saturating_mul(1_000_000_000) / self.limit;
        self.next = self.next.max(now).saturating_add(ns);
        self.paused = self.next > now.saturating_add(AHEAD_NS);
        !self.paused
    }
}
