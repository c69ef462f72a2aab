//! TCP streams that load a line: one ring for all of them, bytes that nobody looks at.
//!
//! A sender hands the same MiB of random bytes to the kernel again and again (plain `Send`); a receiver has
//! the kernel count and drop what came (`Recv` with `MSG_TRUNC`), so that it does not copy for
//! nothing. `bufferbane-lab throughput-bench` measures it against iperf3.
//!
//! A receiver writes notes back on the same connection, each the number of bytes received so far,
//! from which the sender knows how long a byte takes ([`BulkEvent::Note`]).

mod drive;
mod stream;

use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use bufferbane_core::time::Monotonic;
use bufferbane_core::wire::load::TOKEN_LEN;
use io_uring::opcode;

use crate::clock;
use crate::options::StartError;
use crate::ring::{Completion, EngineError, Ring};
use crate::sockaddr::RawAddr;
use crate::socket::Family;
use crate::sockopt::SocketError;
use crate::support::{self, Features};
use crate::tag::Op;
use crate::tcp::{self, TcpFacts, TcpListening, TcpSocket};
use crate::waker::Waker;
use stream::{SMALL, Stage, Stream};

/// Bytes that a sender hands over at a time, at most; as many are counted at a time.
const LARGEST_CHUNK: u32 = 1 << 20;
/// And at least: what a slow stream carries in some tens of milliseconds.
const SMALLEST_CHUNK: u32 = 2 << 10;
/// Completions taken at a time.
const BATCH: usize = 256;

/// A stream of a [`Bulk`]; means nothing once the stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId {
    index: u16,
    generation: u16,
}

impl StreamId {
    /// Its place, below the number of streams that there is room for.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// This end sends.
    Send,
    /// This end receives.
    Receive,
}

/// Something that happened to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkEvent {
    /// It is connected; [`Bulk::begin`] is awaited.
    Connected(StreamId),
    /// Somebody has connected and begun with these bytes; [`Bulk::begin`] or [`Bulk::close`] is
    /// awaited.
    Arrived(StreamId, SocketAddr, [u8; TOKEN_LEN]),
    /// That many bytes more were handed to the kernel.
    Sent {
        /// The stream.
        stream: StreamId,
        /// How many.
        bytes: u64,
        /// How many that makes.
        offset: u64,
    },
    /// That many bytes more were received.
    Received {
        /// The stream.
        stream: StreamId,
        /// How many.
        bytes: u64,
    },
    /// The receiver says how many bytes it has received.
    Note {
        /// The stream.
        stream: StreamId,
        /// How many in all.
        received: u64,
    },
    /// It is over: errno, or 0 where the other end closed it.
    Ended(StreamId, i32),
    /// [`Waker::wake`] was called.
    Wake,
}

/// All streams of a thread.
pub struct Bulk {
    // Dropped first: its operations point into what follows.
    ring: Ring,
    streams: Box<[Stream]>,
    listeners: Vec<TcpListening>,
    /// What is sent, and where nothing is ever written although the kernel is told it might.
    bytes: Box<[u8]>,
    ready: Vec<Completion>,
    waker: Waker,
    wake_count: Box<u64>,
}

impl Bulk {
    /// Room for that many streams. `random` fills what they send.
    ///
    /// # Errors
    /// Why io_uring cannot be used here.
    pub fn new(streams: u16, random: impl FnOnce(&mut [u8])) -> Result<Self, StartError> {
        let available = support::check().map_err(StartError::Unavailable)?;
        let failed = |step| move |e| StartError::Failed(EngineError::at(step)(e));
        let features = Features::ALL.and(available);
        let submissions = (4 * u32::from(streams) + 16).next_power_of_two();
        let ring = Ring::new(submissions, 4 * submissions, features.absolute_wait)
            .map_err(failed("io_uring_setup"))?;
        // Zeroed memory is none before it is written to.
        let bytes = vec![0; LARGEST_CHUNK as usize].into_boxed_slice();
        let mut bulk = Self {
            ring,
            streams: (0..streams).map(|_| Stream::free()).collect(),
            listeners: Vec::new(),
            bytes,
            ready: Vec::with_capacity(BATCH),
            waker: Waker::new().map_err(failed("eventfd"))?,
            wake_count: Box::new(0),
        };
        bulk.fill(random);
        bulk.listen_for_wakes().map_err(StartError::Failed)?;
        Ok(bulk)
    }

    /// Has `random` write what streams send from now on. Who seldom sends can leave it until then: it is
    /// 1 MiB that is not taken up before.
    pub fn fill(&mut self, random: impl FnOnce(&mut [u8])) {
        random(&mut self.bytes);
    }

    /// Wakes it from other threads.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Accepts what comes to `listener` from now on.
    ///
    /// # Errors
    /// Where the ring fails.
    pub fn listen(&mut self, listener: TcpListening) -> Result<(), EngineError> {
        self.listeners.push(listener);
        self.accept(self.listeners.len() - 1)
    }

    /// The sockets that it accepts from.
    #[must_use]
    pub fn listeners(&self) -> &[TcpListening] {
        &self.listeners
    }

    /// Begins to connect.
    ///
    /// # Errors
    /// `ENFILE` where there is no room for another stream; where the ring fails.
    pub fn connect(&mut self, socket: TcpSocket, to: SocketAddr) -> Result<StreamId, EngineError> {
        let index = self.place(socket.0, Stage::Connecting).ok_or(EngineError {
            step: "adding a stream to the full table",
            source: std::io::Error::from_raw_os_error(libc::ENFILE),
        })?;
        let stream = &mut self.streams[index];
        *stream.peer = RawAddr::new(to);
        stream.from = to;
        let entry = opcode::Connect::new(stream.fd(), stream.peer.as_ptr(), stream.peer.len());
        self.push(index, Op::StreamOpen, entry.build())?;
        Ok(self.id(index))
    }

    /// Lets bytes go in the direction of `role`, after `first`. Nothing happens where the stream
    /// awaits no such thing.
    ///
    /// # Errors
    /// Where the ring fails.
    pub fn begin(&mut self, id: StreamId, role: Role, first: &[u8]) -> Result<(), EngineError> {
        let Some(index) = self
            .find(id)
            .filter(|i| self.streams[*i].stage == Stage::Ready)
        else {
            return Ok(());
        };
        let stream = &mut self.streams[index];
        stream.small_len = 0;
        if first.is_empty() {
            stream.stage = Stage::Running(role);
            return self.run(index, role);
        }
        let len = first.len().min(SMALL);
        stream.small[..len].copy_from_slice(&first[..len]);
        stream.stage = Stage::Opening(role);
        let entry = opcode::Send::new(stream.fd(), stream.small.as_ptr(), len as u32)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL);
        self.push(index, Op::StreamOpen, entry.build())
    }

    /// Sets what an accepted stream sends with.
    ///
    /// # Errors
    /// The option that the kernel refused.
    pub fn configure(&self, id: StreamId, dscp: u8, congestion: &str) -> Result<(), SocketError> {
        let Some(socket) = self.find(id).and_then(|i| self.streams[i].socket.as_ref()) else {
            return Ok(());
        };
        let v4 = socket.local_addr().ok().is_none_or(|a| a.is_ipv4());
        let family = if v4 { Family::V4 } else { Family::V6 };
        tcp::configure(socket, family, dscp, congestion)
    }

    /// Limits the stream to that many bytes per second, whichever way it goes.
    pub fn limit(&mut self, id: StreamId, bytes_per_second: u64) {
        let Some(index) = self.find(id) else { return };
        let stream = &mut self.streams[index];
        stream.limit = bytes_per_second;
        if let Some(socket) = &stream.socket {
            // A kernel that cannot pace sends as fast as the line carries.
            let _ = tcp::set_pacing(socket.as_raw_fd(), bytes_per_second);
        }
    }

    /// What TCP says of a stream.
    #[must_use]
    pub fn facts(&self, id: StreamId) -> Option<TcpFacts> {
        let socket = self.streams[self.find(id)?].socket.as_ref()?;
        tcp::facts(socket.as_raw_fd()).ok()
    }

    /// Ends a stream by a reset, so that nothing that is queued here is sent any more. No event
    /// follows.
    pub fn close(&mut self, id: StreamId) {
        if let Some(index) = self.find(id) {
            self.end(index);
        }
    }

    /// How many streams there are, those included that are being closed.
    #[must_use]
    pub fn in_use(&self) -> usize {
        let used = self.streams.iter().filter(|s| s.socket.is_some());
        used.count()
    }

    /// Submits what is queued, waits until something happens or `until` has come, and appends what
    /// happened to `events`.
    ///
    /// # Errors
    /// Where the ring fails.
    pub fn wait(
        &mut self,
        until: Monotonic,
        events: &mut Vec<BulkEvent>,
    ) -> Result<(), EngineError> {
        let until = self.resume(clock::now(), until)?;
        self.ring.drain(&mut self.ready);
        if self.ready.is_empty() {
            self.ring
                .wait(clock::to_raw(until))
                .map_err(EngineError::at("io_uring_enter"))?;
            self.ring.drain(&mut self.ready);
        } else {
            self.ring
                .submit()
                .map_err(EngineError::at("io_uring_enter"))?;
        }
        let now = clock::now();
        let ready = std::mem::take(&mut self.ready);
        for completion in &ready {
            self.complete(completion, now, events)?;
        }
        self.ready = ready;
        self.ready.clear();
        Ok(())
    }
}

impl Drop for Bulk {
    /// What is queued in sockets is not sent any more.
    fn drop(&mut self) {
        for socket in self.streams.iter().filter_map(|s| s.socket.as_ref()) {
            let _ = socket.set_linger(Some(std::time::Duration::ZERO));
        }
    }
}
