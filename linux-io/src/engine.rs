//! The engine: one ring that sends, receives and stamps for any number of sockets.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use bufferbane_core::packet::RecvMeta;
use bufferbane_core::time::{ClockSource, Monotonic, Stamp};
use io_uring::cqueue;
use io_uring::types::{Fd, RecvMsgOut};

use crate::buffers::Buffers;
use crate::clock;
use crate::cmsg;
use crate::errqueue::ErrorQueue;
use crate::event::{EngineCounters, ErrorOrigin, Event, SocketId};
use crate::outbox::{self, Outbox, SendError, Transmit};
use crate::ring::{Completion, EngineError, Ring};
use crate::slots::SendSlots;
use crate::sockaddr::{self, unspecified};
use crate::socket::ProbeSocket;
use crate::sockets::{self, Running, Sockets};
use crate::support::{self, Features, Unavailable};
use crate::sys;
use crate::tag::{Op, Tag};
use crate::timeline::{ClockStep, Reading, Timeline};

/// The one group of receive buffers.
const BUFFER_GROUP: u16 = 0;
/// Completions taken at a time.
const BATCH: usize = 256;

/// How large an engine is. Everything is allocated when it is made.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Most sockets at a time.
    pub sockets: u16,
    /// Most datagrams queued between two submissions (1.9 kB each).
    pub send_slots: u16,
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
            receive_buffers: 512,
            receive_buffer_bytes: 2048,
            completions: 4096,
            spin_ns: 0,
            features: Features::ALL,
        }
    }

    /// For a reflector: few sockets, 10⁵ datagrams per second. 5 MB.
    #[must_use]
    pub const fn reflector() -> Self {
        Self {
            sockets: 16,
            send_slots: 512,
            receive_buffers: 2048,
            receive_buffer_bytes: 2048,
            completions: 16384,
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

/// Wakes an engine that waits, from any thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Makes the engine's wait report [`Event::Wake`]; several calls may become one event.
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight readable bytes. A write to an event counter fails or blocks only when the
        // counter is about to overflow, after 2^64 wakes that nobody took.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

/// One io_uring with its sockets, buffers and slots. Belongs to the thread that made it.
///
/// A driver adds its sockets, then loops: hand in what is due with [`Engine::send`] or, inside a
/// wait, with the [`Outbox`]; wait until the next deadline. Datagrams are submitted together with
/// the wait that follows. Nothing is allocated by sending and waiting.
pub struct Engine {
    // Dropped first: its operations point into what follows.
    ring: Ring,
    buffers: Buffers,
    slots: SendSlots,
    sockets: Sockets,
    errors: ErrorQueue,
    ready: Vec<Completion>,
    waker: Waker,
    wake_count: Box<u64>,
    timeline: Timeline,
    counters: EngineCounters,
    features: Features,
    spin_ns: u64,
}

impl Engine {
    /// Makes the ring and everything that it will ever use.
    pub fn new(options: &EngineOptions) -> Result<Self, StartError> {
        let available = support::check().map_err(StartError::Unavailable)?;
        let features = options.features.and(available);
        let failed = |step| move |e| StartError::Failed(EngineError::at(step)(e));
        let submissions = u32::from(options.send_slots) + u32::from(options.sockets) + 8;
        let ring = Ring::new(
            submissions.next_power_of_two(),
            options.completions,
            features.absolute_wait,
        )
        .map_err(failed("io_uring_setup"))?;
        ring.submitter()
            .register_files_sparse(u32::from(options.sockets))
            .map_err(failed("IORING_REGISTER_FILES2"))?;
        let buffers = Buffers::new(options.receive_buffers, options.receive_buffer_bytes)
            .map_err(failed("receive buffers"))?;
        // SAFETY: the engine keeps the buffers, which are declared and so dropped after the ring.
        unsafe { buffers.register(&ring.submitter(), BUFFER_GROUP) }
            .map_err(failed("IORING_REGISTER_PBUF_RING"))?;
        let mut engine = Self {
            ring,
            buffers,
            slots: SendSlots::new(options.send_slots),
            sockets: Sockets::new(options.sockets),
            errors: ErrorQueue::new(),
            ready: Vec::with_capacity(BATCH),
            waker: make_waker().map_err(failed("eventfd"))?,
            wake_count: Box::new(0),
            timeline: Timeline::new(Reading::take()),
            counters: EngineCounters::default(),
            features,
            spin_ns: options.spin_ns,
        };
        engine.listen_for_wakes().map_err(StartError::Failed)?;
        Ok(engine)
    }

    /// What of the kernel this engine uses.
    #[must_use]
    pub const fn features(&self) -> Features {
        self.features
    }

    /// Counts since the start.
    #[must_use]
    pub const fn counters(&self) -> EngineCounters {
        self.counters
    }

    /// Wakes this engine from other threads.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// The wall clock's last step, once; noticed while waiting.
    pub const fn take_clock_step(&mut self) -> Option<ClockStep> {
        self.timeline.take_step()
    }

    /// Takes a socket in and begins to receive on it. Allocates where the kernel needs its stamps
    /// counted.
    pub fn add_socket(&mut self, socket: ProbeSocket) -> Result<SocketId, EngineError> {
        let fd = socket.socket.as_raw_fd();
        let open =
            sockets::open(socket, self.features).map_err(EngineError::at("SO_TIMESTAMPING"))?;
        let id = self.sockets.insert(open).map_err(|_| EngineError {
            step: "adding a socket to the engine's full table",
            source: std::io::Error::from_raw_os_error(libc::ENFILE),
        })?;
        if let Err(e) = self
            .ring
            .submitter()
            .register_files_update(u32::from(id.index), &[fd])
        {
            self.sockets.remove(id);
            return Err(EngineError::at("IORING_REGISTER_FILES_UPDATE")(e));
        }
        for running in Running::ALL {
            self.start(id, running)?;
        }
        self.flush_ring()?;
        Ok(id)
    }

    /// Ends a socket: what is queued is sent, what arrives from now on is dropped, and its port is
    /// free within some tens of milliseconds. None if it was removed before.
    pub fn remove_socket(&mut self, id: SocketId) -> Option<()> {
        self.sockets.get(id)?;
        // A failure here shows again, and is reported, by the next wait.
        let _ = self.flush_ring();
        let open = self.sockets.remove(id)?;
        for running in Running::ALL {
            if self.sockets.is_running(id, running) {
                // SAFETY: a cancellation points to nothing.
                let _ = unsafe { self.ring.push(&Sockets::stop(id, running)) };
            }
        }
        let _ = self
            .ring
            .submitter()
            .register_files_update(u32::from(id.index), &[-1]);
        drop(open);
        let _ = self.flush_ring();
        Some(())
    }

    /// A socket that was added.
    #[must_use]
    pub fn socket(&self, id: SocketId) -> Option<&ProbeSocket> {
        self.sockets.get(id).map(|open| &open.socket)
    }

    /// Queues a copy of `bytes` through `socket` to `to`; see [`Outbox::send`].
    pub fn send(
        &mut self,
        socket: SocketId,
        to: SocketAddr,
        bytes: &[u8],
        key: u32,
    ) -> Result<(), SendError> {
        self.outbox().send(&Transmit::new(socket, to, key), bytes)
    }

    /// Where datagrams are queued outside a wait.
    pub const fn outbox(&mut self) -> Outbox<'_> {
        Outbox {
            ring: &mut self.ring,
            slots: &mut self.slots,
            sockets: &mut self.sockets,
            counters: &mut self.counters,
        }
    }

    fn flush_ring(&mut self) -> Result<(), EngineError> {
        outbox::flush(&mut self.ring, &mut self.slots).map_err(EngineError::at("io_uring_enter"))
    }

    /// Submits what is queued, waits until something happens or `until` has come (or a signal), and
    /// tells `handler` everything that happened. Returns how many events that were; with 0 the
    /// deadline has come or a signal interrupted.
    ///
    /// Inside, the handler answers through the [`Outbox`]; what it queues leaves at the next call.
    pub fn wait(
        &mut self,
        until: Monotonic,
        handler: &mut impl FnMut(&mut Outbox<'_>, Event<'_>),
    ) -> Result<usize, EngineError> {
        let until_ns = clock::to_raw(until);
        self.ring.drain(&mut self.ready);
        if self.ready.is_empty() {
            let wake_ns = if until_ns == u64::MAX {
                until_ns
            } else {
                until_ns.saturating_sub(self.spin_ns)
            };
            self.ring
                .wait(wake_ns)
                .map_err(EngineError::at("io_uring_enter"))?;
            self.ring.drain(&mut self.ready);
        } else if self.ring.queued() > 0 {
            self.flush_ring()?;
            self.ring.drain(&mut self.ready);
        }
        if self.ring.queued() == 0 {
            self.slots.submitted();
        }
        if self.ring.overflowed() {
            self.counters.overflows += 1;
        }
        let now_ns = clock::raw_monotonic_ns();
        self.timeline.refresh(now_ns);
        let events = self.dispatch(now_ns, handler)?;
        if events == 0 && self.spin_ns > 0 && until_ns != u64::MAX {
            while clock::raw_monotonic_ns() < until_ns && self.near(until_ns) {
                std::hint::spin_loop();
            }
        }
        Ok(events)
    }

    /// Whether the deadline is within the time that is spent spinning.
    fn near(&self, until_ns: u64) -> bool {
        clock::raw_monotonic_ns().saturating_add(self.spin_ns) >= until_ns
    }

    fn dispatch(
        &mut self,
        now_ns: u64,
        handler: &mut impl FnMut(&mut Outbox<'_>, Event<'_>),
    ) -> Result<usize, EngineError> {
        // Taken out so that handling one completion may use the whole engine; put back below, so
        // that nothing is allocated.
        let mut ready = std::mem::take(&mut self.ready);
        let mut events = 0;
        let mut result = Ok(());
        for completion in &ready {
            match self.complete(completion, now_ns, handler) {
                Ok(n) => events += n,
                Err(e) => result = Err(e),
            }
        }
        ready.clear();
        self.ready = ready;
        self.buffers.publish();
        result.map(|()| events)
    }

    /// Handles one completion; returns how many events came of it.
    fn complete(
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
            Op::Stamps => self.stamps_completed(socket, completion, now_ns, handler),
            Op::ErrorPoll => self.error_poll_completed(socket, completion, now_ns, handler),
            Op::QuietSend => {
                if completion.result() >= 0 {
                    return Ok(0);
                }
                Ok(self.send_failed(socket, tag.key, -completion.result(), handler))
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
            Op::Ignored => Ok(0),
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
            .and_then(|s| kernel_stamp(timeline, s.software_ns, now_ns));
        if stamp.is_none() {
            counters.unstamped += 1;
        }
        let local = open.socket.local_addr();
        let meta = RecvMeta {
            at: stamp.unwrap_or_else(|| Stamp::user(clock::from_raw(now_ns))),
            from: sockaddr::parse(out.name_data())
                .unwrap_or_else(|| SocketAddr::new(unspecified(&local.ip()), 0)),
            to: facts.to,
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

    fn stamps_completed(
        &mut self,
        socket: SocketId,
        completion: &Completion,
        now_ns: u64,
        handler: &mut impl FnMut(&mut Outbox<'_>, Event<'_>),
    ) -> Result<usize, EngineError> {
        if !cqueue::more(completion.flags()) {
            return self.ended(socket, Running::Stamps, completion.result(), handler);
        }
        let [seconds, nanoseconds] = *completion.big_cqe();
        let wall = clock::timespec_ns(seconds.cast_signed(), nanoseconds.cast_signed());
        Ok(self.stamped(
            socket,
            completion.result().cast_unsigned(),
            wall,
            now_ns,
            handler,
        ))
    }

    /// Hands one transmit stamp to the driver.
    fn stamped(
        &mut self,
        socket: SocketId,
        number: u32,
        wall_ns: i64,
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
        let stamp = kernel_stamp(&mut self.timeline, wall_ns, now_ns);
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
        now_ns: u64,
        handler: &mut impl FnMut(&mut Outbox<'_>, Event<'_>),
    ) -> Result<usize, EngineError> {
        let mut events = 0;
        // Taken out so that the entries can be handed on while the engine is used.
        let mut errors = std::mem::take(&mut self.errors);
        // The completion may be a late one of a socket that is gone.
        while let Some(fd) = self.sockets.get(socket).map(sockets::Open::fd) {
            let count = errors.read(fd);
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
                return self.stamped(socket, error.data, stamps.software_ns, now_ns, handler);
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
                counted.failed(key);
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
            counted.failed(key);
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
        let Some(open) = self.sockets.get_mut(socket) else {
            return Ok(0);
        };
        let hopeless = matches!(
            -result,
            libc::EINVAL | libc::EOPNOTSUPP | libc::EBADF | libc::ENOTSOCK | libc::EFAULT
        );
        if !hopeless {
            self.start(socket, running)?;
            return Ok(0);
        }
        if running == Running::Stamps {
            // A protocol without the command: its error queue is read instead.
            open.stamp_command = false;
            self.start(socket, Running::ErrorPoll)?;
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

    /// Starts an operation of a socket if it needs it.
    fn start(&mut self, id: SocketId, running: Running) -> Result<(), EngineError> {
        let wanted = self.sockets.get(id).is_some_and(|o| o.wants(running));
        if !wanted || self.sockets.is_running(id, running) {
            return Ok(());
        }
        let entry = self.sockets.start(id, running, BUFFER_GROUP);
        // SAFETY: the operation points at most to the template header, which lives as long as the
        // engine, which ends all operations before its memory goes.
        unsafe { self.ring.push(&entry) }.map_err(EngineError::at("io_uring_enter"))?;
        self.sockets.set_running(id.index, running, true);
        Ok(())
    }

    fn listen_for_wakes(&mut self) -> Result<(), EngineError> {
        let place: *mut u64 = &raw mut *self.wake_count;
        let entry = crate::ring::read_counter(Fd(self.waker.0.as_raw_fd()), place);
        // SAFETY: the counter is boxed and the descriptor held by the engine, which ends all
        // operations before either goes.
        unsafe { self.ring.push(&entry) }.map_err(EngineError::at("io_uring_enter"))
    }
}

/// The kernel's stamp as an instant; where it fits no offset known, the clocks are read again: the
/// wall clock may just have been set.
fn kernel_stamp(timeline: &mut Timeline, wall_ns: i64, now_ns: u64) -> Option<Stamp> {
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

fn make_waker() -> std::io::Result<Waker> {
    // SAFETY: makes a new descriptor from two numbers.
    let fd = sys::check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(Waker(Arc::new(unsafe { OwnedFd::from_raw_fd(fd) })))
}
