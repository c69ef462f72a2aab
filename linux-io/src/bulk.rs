//! TCP streams that load a line: one ring for all of them, bytes that nobody looks at.
//!
//! A sender hands the same random bytes to the kernel again and again (plain `Send`); a receiver has
//! the kernel count and drop what came (`Recv` with `MSG_TRUNC`), so that it does not copy for
//! nothing. `bufferbane-lab throughput-bench` measures it against iperf3.
//!
//! A receiver writes notes back on the same connection, each the number of bytes received so far,
//! from which the sender knows how long a byte takes ([`BulkEvent::Note`]).

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use bufferbane_core::time::Monotonic;
use bufferbane_core::wire::load::{NOTE_LEN, TOKEN_LEN};
use io_uring::types::{CancelBuilder, Fd};
use io_uring::{cqueue, opcode, squeue};
use socket2::Socket;

use crate::clock;
use crate::options::StartError;
use crate::ring::{Completion, EngineError, Ring};
use crate::sockaddr::RawAddr;
use crate::socket::Family;
use crate::sockopt::SocketError;
use crate::support::{self, Features};
use crate::tag::{GENERATIONS, Op, Tag};
use crate::tcp::{self, TcpFacts, TcpListening, TcpSocket};
use crate::waker::Waker;

/// Bytes that a sender hands over at a time, at most; as many are counted at a time.
const LARGEST_CHUNK: u32 = 1 << 20;
/// And at least: what a slow stream carries in some tens of milliseconds.
const SMALLEST_CHUNK: u32 = 2 << 10;
const FIRST_CHUNK: u32 = 16 << 10;
/// How often a stream's chunk is fitted to its rate, ns.
const FIT_NS: u64 = 20_000_000;
/// A chunk is what the stream carries in this time, ns; twice that may wait unsent in the socket.
const CHUNK_NS: u64 = 10_000_000;
/// Between two notes of a receiver, ns.
const NOTE_NS: u64 = 50_000_000;
/// How far a receiver with a limited rate may be ahead of it, ns.
const AHEAD_NS: u64 = 5_000_000;
/// Whoever has connected and not shown a token after this is closed, ns.
const GREETING_NS: u64 = 3_000_000_000;
/// Completions taken at a time.
const BATCH: usize = 256;
/// Room for what a stream receives that is looked at.
const SMALL: usize = 64;

const _: () = assert!(TOKEN_LEN <= SMALL && NOTE_LEN <= SMALL);

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

/// Where a stream has got to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    /// Accepted; its first bytes are being read.
    Greeting,
    /// [`Bulk::begin`] is awaited.
    Ready,
    /// Its first bytes are being written, before what comes after.
    Opening(Role),
    Running(Role),
    /// Everything is being cancelled.
    Closing,
}

struct Stream {
    stage: Stage,
    socket: Option<Socket>,
    generation: u16,
    /// Operations that the kernel still has: their memory stays until they are back.
    pending: u8,
    peer: Box<RawAddr>,
    from: SocketAddr,
    small: Box<[u8; SMALL]>,
    small_len: usize,
    note: Box<[u8; NOTE_LEN]>,
    note_pending: bool,
    noted: Monotonic,
    /// Bytes sent or received so far.
    offset: u64,
    chunk: u32,
    /// When the chunk was last fitted to the rate, and the offset then.
    fitted: (Monotonic, u64),
    /// When it was accepted.
    accepted: Monotonic,
    /// Bytes per second that may be received; 0 is any number.
    limit: u64,
    /// When more may be received.
    next: Monotonic,
    paused: bool,
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
        let mut bytes = vec![0; LARGEST_CHUNK as usize].into_boxed_slice();
        random(&mut bytes);
        let mut bulk = Self {
            ring,
            streams: (0..streams).map(|_| Stream::free()).collect(),
            listeners: Vec::new(),
            bytes,
            ready: Vec::with_capacity(BATCH),
            waker: Waker::new().map_err(failed("eventfd"))?,
            wake_count: Box::new(0),
        };
        bulk.listen_for_wakes().map_err(StartError::Failed)?;
        Ok(bulk)
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

    /// Lets limited receivers go on whose time has come, and closes whoever has connected and says
    /// nothing; gives when that is next needed.
    fn resume(&mut self, now: Monotonic, until: Monotonic) -> Result<Monotonic, EngineError> {
        let mut until = until;
        for index in 0..self.streams.len() {
            if self.streams[index].stage == Stage::Greeting {
                let end = self.streams[index].accepted.saturating_add(GREETING_NS);
                if end <= now {
                    self.end(index);
                } else {
                    until = until.min(end);
                }
            }
            if !self.streams[index].paused {
                continue;
            }
            if self.streams[index].next <= now {
                self.streams[index].paused = false;
                self.count(index)?;
            } else {
                until = until.min(self.streams[index].next);
            }
        }
        Ok(until)
    }

    fn complete(
        &mut self,
        completion: &Completion,
        now: Monotonic,
        events: &mut Vec<BulkEvent>,
    ) -> Result<(), EngineError> {
        let Some(tag) = Tag::unpack(completion.user_data()) else {
            return Ok(());
        };
        let result = completion.result();
        match tag.op {
            Op::Waker => {
                events.push(BulkEvent::Wake);
                return self.listen_for_wakes();
            }
            Op::Timer => {
                self.ring.timer_fired(tag);
                return Ok(());
            }
            Op::Accept => {
                if result >= 0 {
                    // SAFETY: the kernel has just made this descriptor for us, and nobody else has
                    // it.
                    self.arrived(unsafe { OwnedFd::from_raw_fd(result) })?;
                }
                if !cqueue::more(completion.flags()) {
                    self.accept(usize::from(tag.index))?;
                }
                return Ok(());
            }
            Op::StreamOpen | Op::StreamSend | Op::StreamReceive | Op::StreamNote => {}
            _ => return Ok(()),
        }
        let index = usize::from(tag.index);
        if index >= self.streams.len() || self.streams[index].generation != tag.generation {
            return Ok(());
        }
        self.streams[index].pending -= 1;
        if self.streams[index].stage == Stage::Closing {
            self.streams[index].release();
            return Ok(());
        }
        let id = self.id(index);
        let ended = match tag.op {
            Op::StreamOpen if result >= 0 => return self.opened(index, events),
            Op::StreamSend if result > 0 => return self.handed_over(index, result, now, events),
            Op::StreamReceive if result > 0 => return self.received(index, result, now, events),
            Op::StreamNote if result > 0 => {
                self.streams[index].note_pending = false;
                return Ok(());
            }
            // Interrupted before anything was done.
            Op::StreamSend | Op::StreamReceive if result == -libc::EINTR => {
                return match self.streams[index].stage {
                    Stage::Running(Role::Send) if tag.op == Op::StreamSend => self.hand_over(index),
                    Stage::Running(Role::Receive) => self.count(index),
                    _ => self.look(index),
                };
            }
            _ => -result,
        };
        self.end(index);
        events.push(BulkEvent::Ended(id, ended));
        Ok(())
    }

    /// The connection is there, or its first bytes are on their way.
    fn opened(&mut self, index: usize, events: &mut Vec<BulkEvent>) -> Result<(), EngineError> {
        match self.streams[index].stage {
            Stage::Connecting => {
                self.streams[index].stage = Stage::Ready;
                events.push(BulkEvent::Connected(self.id(index)));
                Ok(())
            }
            Stage::Opening(role) => {
                self.streams[index].stage = Stage::Running(role);
                self.run(index, role)
            }
            _ => Ok(()),
        }
    }

    fn arrived(&mut self, fd: OwnedFd) -> Result<(), EngineError> {
        let socket = Socket::from(fd);
        let from = socket.peer_addr().ok().and_then(|a| a.as_socket());
        // Gone already, or no room: dropping it resets it.
        let Some(from) = from else { return Ok(()) };
        let Some(index) = self.place(socket, Stage::Greeting) else {
            return Ok(());
        };
        let stream = &mut self.streams[index];
        stream.from = from;
        stream.accepted = clock::now();
        self.look(index)
    }

    fn run(&mut self, index: usize, role: Role) -> Result<(), EngineError> {
        match role {
            Role::Send => {
                let stream = &mut self.streams[index];
                stream.fitted = (clock::now(), 0);
                stream.limit_unsent();
                self.look(index)?;
                self.hand_over(index)
            }
            Role::Receive => self.count(index),
        }
    }

    /// Hands the next chunk to the kernel.
    fn hand_over(&mut self, index: usize) -> Result<(), EngineError> {
        let stream = &self.streams[index];
        let entry = opcode::Send::new(stream.fd(), self.bytes.as_ptr(), stream.chunk)
            .flags(libc::MSG_NOSIGNAL);
        self.push(index, Op::StreamSend, entry.build())
    }

    fn handed_over(
        &mut self,
        index: usize,
        bytes: i32,
        now: Monotonic,
        events: &mut Vec<BulkEvent>,
    ) -> Result<(), EngineError> {
        let id = self.id(index);
        let stream = &mut self.streams[index];
        let bytes = bytes.unsigned_abs();
        stream.offset += u64::from(bytes);
        events.push(BulkEvent::Sent {
            stream: id,
            bytes: bytes.into(),
            offset: stream.offset,
        });
        stream.fit_chunk(now);
        self.hand_over(index)
    }

    /// Has the kernel count and drop what comes next.
    fn count(&mut self, index: usize) -> Result<(), EngineError> {
        let stream = &self.streams[index];
        let most = match stream.limit {
            0 => LARGEST_CHUNK,
            // Some milliseconds' worth, so that a limited rate is even.
            limit => u32::try_from(limit / 50)
                .unwrap_or(u32::MAX)
                .clamp(SMALLEST_CHUNK, LARGEST_CHUNK),
        };
        // With MSG_TRUNC the kernel writes nothing to the buffer.
        let entry = opcode::Recv::new(stream.fd(), self.bytes.as_mut_ptr(), most)
            .flags(libc::MSG_TRUNC)
            .build();
        self.push(index, Op::StreamReceive, entry)
    }

    /// Receives what is looked at: first bytes, or notes.
    fn look(&mut self, index: usize) -> Result<(), EngineError> {
        let stream = &mut self.streams[index];
        let most = match stream.stage {
            Stage::Greeting => TOKEN_LEN,
            _ => SMALL,
        };
        let room = &mut stream.small[stream.small_len..most];
        let entry = opcode::Recv::new(
            Fd(stream.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd)),
            room.as_mut_ptr(),
            room.len() as u32,
        )
        .build();
        self.push(index, Op::StreamReceive, entry)
    }

    fn received(
        &mut self,
        index: usize,
        bytes: i32,
        now: Monotonic,
        events: &mut Vec<BulkEvent>,
    ) -> Result<(), EngineError> {
        let id = self.id(index);
        let stream = &mut self.streams[index];
        let bytes = bytes.unsigned_abs();
        match stream.stage {
            Stage::Running(Role::Receive) => {
                stream.offset += u64::from(bytes);
                events.push(BulkEvent::Received {
                    stream: id,
                    bytes: bytes.into(),
                });
                if !stream.note_pending && now.saturating_since(stream.noted) >= NOTE_NS {
                    self.note(index, now)?;
                }
                if self.streams[index].may_receive(u64::from(bytes), now) {
                    return self.count(index);
                }
                Ok(())
            }
            Stage::Greeting => {
                stream.small_len += bytes as usize;
                if stream.small_len < TOKEN_LEN {
                    return self.look(index);
                }
                let mut token = [0; TOKEN_LEN];
                token.copy_from_slice(&stream.small[..TOKEN_LEN]);
                stream.stage = Stage::Ready;
                stream.small_len = 0;
                events.push(BulkEvent::Arrived(id, stream.from, token));
                Ok(())
            }
            _ => {
                stream.small_len += bytes as usize;
                if let Some(received) = stream.take_notes() {
                    events.push(BulkEvent::Note {
                        stream: id,
                        received,
                    });
                }
                self.look(index)
            }
        }
    }

    /// Tells the sender how much has been received.
    fn note(&mut self, index: usize, now: Monotonic) -> Result<(), EngineError> {
        let stream = &mut self.streams[index];
        stream.noted = now;
        stream.note_pending = true;
        *stream.note = stream.offset.to_be_bytes();
        let entry = opcode::Send::new(stream.fd(), stream.note.as_ptr(), NOTE_LEN as u32)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL);
        self.push(index, Op::StreamNote, entry.build())
    }

    /// Cancels everything; what remains is freed when the kernel has given the last operation back.
    fn end(&mut self, index: usize) {
        let stream = &mut self.streams[index];
        stream.stage = Stage::Closing;
        stream.paused = false;
        if let Some(socket) = &stream.socket {
            let _ = socket.set_linger(Some(std::time::Duration::ZERO));
        }
        if stream.pending > 0 {
            let entry = opcode::AsyncCancel2::new(CancelBuilder::fd(stream.fd()).all())
                .build()
                .user_data(Tag::new(Op::Ignored, 0, 0, 0).pack());
            // SAFETY: a cancellation points to nothing.
            let _ = unsafe { self.ring.push(&entry) };
            let _ = self.ring.submit();
        }
        self.streams[index].release();
    }

    fn accept(&mut self, listener: usize) -> Result<(), EngineError> {
        let fd = Fd(self.listeners[listener].socket.as_raw_fd());
        let entry = opcode::AcceptMulti::new(fd)
            .flags(libc::SOCK_CLOEXEC)
            .build()
            .user_data(Tag::new(Op::Accept, listener as u16, 0, 0).pack());
        // SAFETY: the operation points to nothing.
        unsafe { self.ring.push(&entry) }.map_err(EngineError::at("io_uring_enter"))
    }

    fn listen_for_wakes(&mut self) -> Result<(), EngineError> {
        let entry = crate::ring::read_counter(Fd(self.waker.fd()), &raw mut *self.wake_count);
        // SAFETY: the counter's place is boxed, lives as long as the ring, and is not read.
        unsafe { self.ring.push(&entry) }.map_err(EngineError::at("io_uring_enter"))
    }

    fn push(&mut self, index: usize, op: Op, entry: squeue::Entry) -> Result<(), EngineError> {
        let stream = &mut self.streams[index];
        stream.pending += 1;
        let tag = Tag::new(op, index as u16, stream.generation, 0);
        // SAFETY: operations point to boxes of the stream's place, which are neither moved nor freed
        // while the ring lives and are not written while an operation of theirs is pending, or into
        // `bytes`, which is as long-lived and which the kernel only reads (MSG_TRUNC writes
        // nothing); the descriptor stays open while any is pending.
        unsafe { self.ring.push(&entry.user_data(tag.pack())) }
            .map_err(EngineError::at("io_uring_enter"))
    }

    fn place(&mut self, socket: Socket, stage: Stage) -> Option<usize> {
        let index = self.streams.iter().position(|s| s.socket.is_none())?;
        let stream = &mut self.streams[index];
        let generation = (stream.generation + 1) % GENERATIONS;
        let free = Stream::free();
        // Whoever was here before has nothing pending on the boxes that go now.
        *stream = Stream {
            stage,
            socket: Some(socket),
            generation,
            ..free
        };
        Some(index)
    }

    fn find(&self, id: StreamId) -> Option<usize> {
        let stream = self.streams.get(id.index())?;
        let lives = stream.generation == id.generation
            && stream.socket.is_some()
            && stream.stage != Stage::Closing;
        lives.then_some(id.index())
    }

    fn id(&self, index: usize) -> StreamId {
        StreamId {
            index: index as u16,
            generation: self.streams[index].generation,
        }
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

impl Stream {
    fn free() -> Self {
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

    fn fd(&self) -> Fd {
        Fd(self.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd))
    }

    /// Fits the chunk to what was carried since that was last done.
    fn fit_chunk(&mut self, now: Monotonic) {
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
    fn limit_unsent(&self) {
        if let Some(socket) = &self.socket {
            // Without, more waits in the socket: the stream works all the same.
            let _ = tcp::set_unsent_limit(socket.as_raw_fd(), 2 * self.chunk);
        }
    }

    /// Frees the place once nothing is pending any more.
    fn release(&mut self) {
        if self.pending == 0 {
            self.socket = None;
        }
    }

    /// The newest note among the bytes that have come, which are used up but for a begun one.
    fn take_notes(&mut self) -> Option<u64> {
        let whole = self.small_len - self.small_len % NOTE_LEN;
        let newest = self.small[..whole].last_chunk::<NOTE_LEN>()?;
        let received = u64::from_be_bytes(*newest);
        self.small.copy_within(whole..self.small_len, 0);
        self.small_len -= whole;
        Some(received)
    }

    /// Takes note of `bytes` against the limit; whether more may come at once.
    fn may_receive(&mut self, bytes: u64, now: Monotonic) -> bool {
        if self.limit == 0 {
            return true;
        }
        let ns = bytes.saturating_mul(1_000_000_000) / self.limit;
        self.next = self.next.max(now).saturating_add(ns);
        self.paused = self.next > now.saturating_add(AHEAD_NS);
        !self.paused
    }
}
