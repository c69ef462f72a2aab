//! What the engine does with each completion.

use std::net::SocketAddr;

use bufferbane_core::packet::RecvMeta;
use bufferbane_core::time::{ClockSource, Stamp};
use io_uring::cqueue;
use io_uring::types::RecvMsgOut;

use crate::clock;
use crate::cmsg::{self, KernelStamps};
use crate::engine::Engine;
use crate::errqueue::ErrorQueue;
use crate::event::{ErrorOrigin, Event, SocketId};
use crate::outbox::{self, Outbox};
use crate::ring::{Completion, EngineError};
use crate::sockaddr::{self, unspecified};
use crate::sockets::{Open, Running};
use crate::sys;
use crate::tag::{Op, Tag};
use crate::timeline::{Reading, Timeline};

impl Engine {
    /// Handles one completion; returns how many events came of it.
    pub(crate) fn complete(
        &mut self,
        completion: &Completion,
        now_ns: u64,
        handler: &mut impl FnMut(&mut Outbox<'_>, Event<'_>),
    ) -> Result<usize, EngineError> {
        let Some(tag) = Tag::unpack(completion.user_data()) else {
            return Ok(0);
        };
        let socket = SocketId {
            index: tag.index,
            generation: tag.generation,
        };
        match tag.op {
            Op::Receive => self.receive_completed(socket, completion, now_ns, handler),
            Op::ErrorPoll => self.error_poll_completed(socket, completion, handler),
            Op::QuietSend | Op::UsualSend | Op::JoinedSend => {
                let errno = -completion.result();
                if errno <= 0 {
                    return Ok(0);
                }
                if let Some(open) = self.sockets.get_mut(socket) {
                    open.learn_refusal(tag.op, errno);
                }
                Ok(self.send_failed(socket, tag.key, errno, handler))
            }
            Op::SlotSend => self.slot_send_completed(tag, completion.result(), handler),
            Op::Waker => {
                self.listen_for_wakes()?;
                handler(&mut self.outbox(), Event::Wake);
                Ok(1)
            }
            Op::Timer => {
                self.ring.timer_fired(tag);
                Ok(0)
            }
            Op::Ignored
            | Op::Accept
            | Op::StreamOpen
            | Op::StreamSend
            | Op::StreamReceive
            | Op::StreamNote => Ok(0),
        }
    }

    fn receive_completed(
        &mut self,
        socket: SocketId,
        completion: &Completion,
        now_ns: u64,
        handler: &mut impl FnMut(&mut Outbox<'_>, Event<'_>),
    ) -> Result<usize, EngineError> {
        let flags = completion.flags();
        let mut events = 0;
        if let Some(buffer) = cqueue::buffer_select(flags) {
            if completion.result() >= 0 {
                events += self.received(socket, buffer, now_ns, handler);
            }
            self.buffers.give_back(buffer);
        }
        if !cqueue::more(flags) {
            self.buffers.publish();
            self.counters.rearmed += 1;
            if completion.result() == -libc::ENOBUFS {
                self.counters.out_of_buffers += 1;
            }
            events += self.ended(socket, Running::Receive, completion.result(), handler)?;
        }
        Ok(events)
    }

    /// Hands one datagram to the driver.
    fn received(
        &mut self,
        socket: SocketId,
        buffer: u16,
        now_ns: u64,
        handler: &mut impl FnMut(&mut Outbox<'_>, Event<'_>),
    ) -> usize {
        let Self {
            ring,
            buffers,
            slots,
            sockets,
            timeline,
            counters,
            ..
        } = self;
        let Some(bytes) = buffers.bytes(buffer) else {
            return 0;
        };
        let Ok(out) = RecvMsgOut::parse(bytes, sockets.template()) else {
            return 0;
        };
        let Some(open) = sockets.get_mut(socket) else {
            return 0;
        };
        let facts = cmsg::parse(out.control_data());
        if let Some(drops) = facts.drops {
            open.drops = drops;
        }
        counters.received += 1;
        let stamp = facts
            .stamps
            .and_then(|s| best_stamp(open, timeline, &s, now_ns));
        if stamp.is_none() {
            counters.unstamped += 1;
        }
        let local = open.socket.local_addr();
        let meta = RecvMeta {
            at: stamp.unwrap_or_else(|| Stamp::user(clock::from_raw(now_ns))),
            from: sockaddr::parse(out.name_data())
                .unwrap_or_else(|| SocketAddr::new(unspecified(&local.ip()), 0)),
            to: facts.to.or(open.address),
            ttl: facts.ttl,
            tos: facts.tos,
            socket_drops: open.drops,
            truncated: out.is_payload_truncated(),
        };
        let event = Event::Received {
            socket,
            meta,
            bytes: out.payload_data(),
        };
        let mut outbox = Outbox {
            ring,
            slots,
            sockets,
            counters,
        };
        handler(&mut outbox, event);
        1
    }

    /// Hands one transmit stamp to the driver.
    fn stamped(
        &mut self,
        socket: SocketId,
        number: u32,
        stamps: &KernelStamps,
        now_ns: u64,
        handler: &mut impl FnMut(&mut Outbox<'_>, Event<'_>),
    ) -> usize {
        let Some(open) = self.sockets.get_mut(socket) else {
            return 0;
        };
        let key = match &mut open.counted {
            None => Some(number),
            Some(counted) => counted.stamped(number),
        };
        let stamp = best_stamp(open, &mut self.timeline, stamps, now_ns);
        let (Some(key), Some(stamp)) = (key, stamp) else {
            self.counters.stray_stamps += 1;
            return 0;
        };
        self.counters.stamps += 1;
        handler(&mut self.outbox(), Event::TxStamp { socket, key, stamp });
        1
    }

    fn error_poll_completed(
        &mut self,
        socket: SocketId,
        completion: &Completion,
        handler: &mut impl FnMut(&mut Outbox<'_>, Event<'_>),
    ) -> Result<usize, EngineError> {
        let mut events = 0;
        // Taken out so that the entries can be handed on while the engine is used.
        let mut errors = std::mem::take(&mut self.errors);
        // The completion may be a late one of a socket that is gone.
        while let Some(open) = self.sockets.get(socket) {
            let count = if open.socket.report_errors {
                errors.read(open.fd())
            } else {
                errors.read_stamps(open.fd())
            };
            // What was read may be younger than the completion that told of it.
            let now_ns = clock::raw_monotonic_ns();
            for entry in (0..count).filter_map(|i| errors.entry(i)) {
                events += self.error_entry(socket, &entry, now_ns, handler);
            }
            if !ErrorQueue::is_full(count) {
                break;
            }
        }
        self.errors = errors;
        if !cqueue::more(completion.flags()) {
            events += self.ended(socket, Running::ErrorPoll, completion.result(), handler)?;
        }
        Ok(events)
    }

    fn error_entry(
        &mut self,
        socket: SocketId,
        entry: &crate::errqueue::Entry<'_>,
        now_ns: u64,
        handler: &mut impl FnMut(&mut Outbox<'_>, Event<'_>),
    ) -> usize {
        let Some(error) = entry.facts.error else {
            return 0;
        };
        let origin = match error.origin {
            sys::SO_EE_ORIGIN_TIMESTAMPING => {
                let Some(stamps) = entry.facts.stamps else {
                    return 0;
                };
                return self.stamped(socket, error.data, &stamps, now_ns, handler);
            }
            libc::SO_EE_ORIGIN_ICMP => ErrorOrigin::Icmp {
                kind: error.kind,
                code: error.code,
            },
            libc::SO_EE_ORIGIN_ICMP6 => ErrorOrigin::Icmp6 {
                kind: error.kind,
                code: error.code,
            },
            _ => ErrorOrigin::Local,
        };
        self.counters.socket_errors += 1;
        let event = Event::SocketError {
            socket,
            errno: error.errno.cast_signed(),
            origin,
            to: entry.to,
            offender: error.offender,
            quoted: entry.quoted,
        };
        handler(&mut self.outbox(), event);
        1
    }

    fn slot_send_completed(
        &mut self,
        tag: Tag,
        result: i32,
        handler: &mut impl FnMut(&mut Outbox<'_>, Event<'_>),
    ) -> Result<usize, EngineError> {
        let Some(slot) = self.slots.get(tag.index, tag.key) else {
            return Ok(0);
        };
        let (key, retried) = (slot.key, slot.retried);
        let socket = SocketId {
            index: slot.socket,
            generation: slot.socket_generation,
        };
        let Some(open) = self.sockets.get_mut(socket) else {
            self.slots.release(tag.index);
            return Ok(0);
        };
        if result < 0 && !retried && open.socket.report_errors && is_icmp_errno(-result) {
            slot.retried = true;
            if let Some(counted) = &mut open.counted {
                counted.failed(key, -result);
                counted.queued(key);
            }
            self.counters.send_retries += 1;
            if outbox::submit_slot(&mut self.ring, &mut self.slots, tag.index, false).is_ok() {
                return Ok(0);
            }
        }
        self.slots.release(tag.index);
        if result < 0 {
            return Ok(self.send_failed(socket, key, -result, handler));
        }
        if !open.socket.report_sent {
            return Ok(0);
        }
        let event = Event::Sent {
            socket,
            key,
            errno: None,
        };
        handler(&mut self.outbox(), event);
        Ok(1)
    }

    fn send_failed(
        &mut self,
        socket: SocketId,
        key: u32,
        errno: i32,
        handler: &mut impl FnMut(&mut Outbox<'_>, Event<'_>),
    ) -> usize {
        let Some(open) = self.sockets.get_mut(socket) else {
            return 0;
        };
        if let Some(counted) = &mut open.counted {
            counted.failed(key, errno);
        }
        self.counters.send_errors += 1;
        let event = Event::Sent {
            socket,
            key,
            errno: Some(errno),
        };
        handler(&mut self.outbox(), event);
        1
    }

    /// A multishot operation ended: starts it again, unless its socket is gone or the kernel will
    /// never do it.
    fn ended(
        &mut self,
        socket: SocketId,
        running: Running,
        result: i32,
        handler: &mut impl FnMut(&mut Outbox<'_>, Event<'_>),
    ) -> Result<usize, EngineError> {
        self.sockets.set_running(socket.index, running, false);
        if self.sockets.get(socket).is_none() {
            return Ok(0);
        }
        let hopeless = matches!(
            -result,
            libc::EINVAL | libc::EOPNOTSUPP | libc::EBADF | libc::ENOTSOCK | libc::EFAULT
        );
        if !hopeless {
            self.start(socket, running)?;
            return Ok(0);
        }
        self.counters.socket_errors += 1;
        let event = Event::SocketError {
            socket,
            errno: -result,
            origin: ErrorOrigin::Local,
            to: None,
            offender: None,
            quoted: &[],
        };
        handler(&mut self.outbox(), event);
        Ok(1)
    }
}

/// The card's stamp where there is one, else the kernel's.
fn best_stamp(
    open: &mut Open,
    timeline: &mut Timeline,
    stamps: &KernelStamps,
    now_ns: u64,
) -> Option<Stamp> {
    let kernel = kernel_stamp(timeline, stamps.software_ns, now_ns);
    let card = open.socket.card.as_mut();
    card.and_then(|card| card.stamp(stamps, kernel, now_ns))
        .or(kernel)
}

/// The kernel's stamp as an instant; where it fits no offset known, the clocks are read again: the
/// wall clock may just have been set.
fn kernel_stamp(timeline: &mut Timeline, wall_ns: i64, now_ns: u64) -> Option<Stamp> {
    let wall_ns = clock::stepped(wall_ns);
    if wall_ns == 0 {
        return None;
    }
    let at = timeline.to_raw(wall_ns, now_ns).or_else(|| {
        timeline.observe(&Reading::take());
        timeline.to_raw(wall_ns, now_ns)
    })?;
    Some(Stamp {
        at: clock::from_raw(at),
        clock: ClockSource::Kernel,
    })
}

/// Whether a send may have failed with this because of an ICMP message about an earlier datagram.
const fn is_icmp_errno(errno: i32) -> bool {
    matches!(
        errno,
        libc::ECONNREFUSED
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::ENOPROTOOPT
            | libc::EPROTO
            | libc::EACCES
            | libc::EMSGSIZE
            | libc::EOPNOTSUPP
            | libc::EHOSTDOWN
    )
}
