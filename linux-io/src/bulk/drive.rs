//! What a completion leads to: the next operation of its stream, and what is told of it.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use bufferbane_core::time::Monotonic;
use bufferbane_core::wire::load::{NOTE_LEN, TOKEN_LEN};
use io_uring::types::{CancelBuilder, Fd};
use io_uring::{cqueue, opcode, squeue};
use socket2::Socket;

use super::stream::{SMALL, Stage, Stream};
use super::{Bulk, BulkEvent, LARGEST_CHUNK, Role, SMALLEST_CHUNK, StreamId};
use crate::clock;
use crate::ring::{Completion, EngineError};
use crate::tag::{GENERATIONS, Op, Tag};

/// Between two notes of a receiver, ns.
const NOTE_NS: u64 = 50_000_000;
/// Whoever has connected and not shown a token after this is closed, ns.
const GREETING_NS: u64 = 3_000_000_000;

impl Bulk {
    /// Lets limited receivers go on whose time has come, and closes whoever has connected and says
    /// nothing; gives when that is next needed.
    pub(super) fn resume(
        &mut self,
        now: Monotonic,
        until: Monotonic,
    ) -> Result<Monotonic, EngineError> {
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

    pub(super) fn complete(
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

    pub(super) fn run(&mut self, index: usize, role: Role) -> Result<(), EngineError> {
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
        // Each follows what the one before it sent: small chunks that all were the same bytes would compress.
        let places = u64::from(LARGEST_CHUNK - stream.chunk) + 1;
        let begin = (stream.offset % places) as usize;
        let bytes = &self.bytes[begin..begin + stream.chunk as usize];
        let entry =
            opcode::Send::new(stream.fd(), bytes.as_ptr(), stream.chunk).flags(libc::MSG_NOSIGNAL);
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
    pub(super) fn end(&mut self, index: usize) {
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

    pub(super) fn accept(&mut self, listener: usize) -> Result<(), EngineError> {
        let fd = Fd(self.listeners[listener].socket.as_raw_fd());
        let entry = opcode::AcceptMulti::new(fd)
            .flags(libc::SOCK_CLOEXEC)
            .build()
            .user_data(Tag::new(Op::Accept, listener as u16, 0, 0).pack());
        // SAFETY: the operation points to nothing.
        unsafe { self.ring.push(&entry) }.map_err(EngineError::at("io_uring_enter"))
    }

    pub(super) fn listen_for_wakes(&mut self) -> Result<(), EngineError> {
        let entry = crate::ring::read_counter(Fd(self.waker.fd()), &raw mut *self.wake_count);
        // SAFETY: the counter's place is boxed, lives as long as the ring, and is not read.
        unsafe { self.ring.push(&entry) }.map_err(EngineError::at("io_uring_enter"))
    }

    pub(super) fn push(
        &mut self,
        index: usize,
        op: Op,
        entry: squeue::Entry,
    ) -> Result<(), EngineError> {
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

    pub(super) fn place(&mut self, socket: Socket, stage: Stage) -> Option<usize> {
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

    pub(super) fn find(&self, id: StreamId) -> Option<usize> {
        let stream = self.streams.get(id.index())?;
        let lives = stream.generation == id.generation
            && stream.socket.is_some()
            && stream.stage != Stage::Closing;
        lives.then_some(id.index())
    }

    pub(super) fn id(&self, index: usize) -> StreamId {
        StreamId {
            index: index as u16,
            generation: self.streams[index].generation,
        }
    }
}
