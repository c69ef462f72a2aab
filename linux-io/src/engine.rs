//! The engine: one ring that sends, receives and stamps for any number of sockets.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use bufferbane_core::time::Monotonic;
use io_uring::types::Fd;

use crate::buffers::Buffers;
use crate::clock;
use crate::errqueue::ErrorQueue;
use crate::event::{EngineCounters, Event, SocketId};
use crate::options::{EngineOptions, StartError};
use crate::outbox::{self, Outbox, SendError, Transmit};
use crate::ring::{Completion, EngineError, Ring};
use crate::slots::SendSlots;
use crate::socket::ProbeSocket;
use crate::sockets::{self, Running, Sockets};
use crate::support::{self, Features};
use crate::timeline::{ClockStep, Reading, Timeline};
use crate::waker::Waker;

/// The one group of receive buffers.
const BUFFER_GROUP: u16 = 0;
/// Completions taken at a time.
const BATCH: usize = 256;

/// One io_uring with its sockets, buffers and slots. Belongs to the thread that made it.
///
/// A driver adds its sockets, then loops: hand in what is due with [`Engine::send`] or, inside a
/// wait, with the [`Outbox`]; wait until the next deadline. Datagrams are submitted together with
/// the wait that follows. Nothing is allocated by sending and waiting.
pub struct Engine {
    // Dropped first: its operations point into what follows.
    pub(crate) ring: Ring,
    pub(crate) buffers: Buffers,
    pub(crate) slots: SendSlots,
    pub(crate) sockets: Sockets,
    pub(crate) errors: ErrorQueue,
    ready: Vec<Completion>,
    waker: Waker,
    wake_count: Box<u64>,
    pub(crate) timeline: Timeline,
    pub(crate) counters: EngineCounters,
    features: Features,
    spin_ns: u64,
}

impl Engine {
    /// Makes the ring and everything that it will ever use.
    pub fn new(options: &EngineOptions) -> Result<Self, StartError> {
        let available = support::check().map_err(StartError::Unavailable)?;
        let features = options.features.and(available);
        for line in features.list().iter().filter(|l| !l.available) {
            log::info!(
                "not used: {} (Linux {}); instead {}",
                line.name,
                line.since,
                line.fallback
            );
        }
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
            slots: SendSlots::new(options.send_slots, options.send_slot_bytes),
            sockets: Sockets::new(options.sockets),
            errors: ErrorQueue::new(),
            ready: Vec::with_capacity(BATCH),
            waker: Waker::new().map_err(failed("eventfd"))?,
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

    /// Wakes this much before a deadline from now on and spins until it, ns; see
    /// [`EngineOptions::spin_ns`].
    pub const fn set_spin_ns(&mut self, spin_ns: u64) {
        self.spin_ns = spin_ns;
    }

    /// The wall clock's last step, once; noticed while waiting.
    pub const fn take_clock_step(&mut self) -> Option<ClockStep> {
        self.timeline.take_step()
    }

    /// Whether another socket can be taken in. The place of one that was removed is free once the
    /// waits that follow have heard of the end of its operations.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.sockets.has_room()
    }

    /// Takes a socket in and begins to receive on it. Allocates where the kernel needs its stamps
    /// counted.
    pub fn add_socket(&mut self, socket: ProbeSocket) -> Result<SocketId, EngineError> {
        let fd = socket.socket.as_raw_fd();
        let open = sockets::open(socket, self.features)
            .map_err(EngineError::at("asking for time stamps"))?;
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
    /// tells `handler` everything that happened. Returns how many events that were; it may be none
    /// before the deadline, so a driver looks at the clock itself.
    ///
    /// Inside, the handler answers through the [`Outbox`]; what it queues leaves at the next call.
    pub fn wait(
        &mut self,
        until: Monotonic,
        handler: &mut impl FnMut(&mut Outbox<'_>, Event<'_>),
    ) -> Result<usize, EngineError> {
        let until_ns = clock::to_raw(until);
        outbox::queue_filled(&mut self.ring, &mut self.slots);
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
            if !self.slots.any_filled() {
                self.sockets.sent();
            }
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

    /// Starts an operation of a socket if it needs it.
    pub(crate) fn start(&mut self, id: SocketId, running: Running) -> Result<(), EngineError> {
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

    pub(crate) fn listen_for_wakes(&mut self) -> Result<(), EngineError> {
        let place: *mut u64 = &raw mut *self.wake_count;
        let entry = crate::ring::read_counter(Fd(self.waker.fd()), place);
        // SAFETY: the counter is boxed and the descriptor held by the engine, which ends all
        // operations before either goes.
        unsafe { self.ring.push(&entry) }.map_err(EngineError::at("io_uring_enter"))
    }
}
