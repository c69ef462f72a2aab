//! One io_uring: making it, filling it, waiting on it until an absolute deadline.

use std::fmt;
use std::io;
use std::marker::PhantomData;

use io_uring::types::{Fd, TimeoutFlags, Timespec};
use io_uring::{EnterFlags, IoUring, Submitter, cqueue, opcode, squeue};

use crate::tag::{Op, Tag};

/// A completion.
pub(crate) type Completion = cqueue::Entry;

/// Why the engine cannot go on.
#[derive(Debug)]
pub struct EngineError {
    /// The step that failed.
    pub step: &'static str,
    /// The kernel's answer.
    pub source: io::Error,
}

impl EngineError {
    pub(crate) fn at(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { step, source }
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.source)
    }
}

impl std::error::Error for EngineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// How long a ring that is dropped waits for its operations to end, ns.
const TEARDOWN_NS: u64 = 1_000_000_000;

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct WaitArguments {
    sigmask: u64,
    sigmask_bytes: u32,
    min_wait_us: u32,
    time: u64,
}

/// The timer that ends a wait on kernels before 6.12, which wait only for durations.
#[derive(Default)]
struct Timer {
    /// When the armed one fires, ns; None where none is armed.
    armed: Option<u64>,
    generation: u16,
}

/// The ring. It belongs to the thread that made it.
pub(crate) struct Ring {
    ring: IoUring<squeue::Entry, Completion>,
    absolute_wait: bool,
    timer: Timer,
    /// Where the kernel reads the timer's deadline while it takes the submission.
    time: Box<Timespec>,
    _one_thread: PhantomData<*const ()>,
}

impl Ring {
    /// A ring with room for that many submissions and completions.
    pub(crate) fn new(submissions: u32, completions: u32, absolute_wait: bool) -> io::Result<Self> {
        let ring = IoUring::<squeue::Entry, Completion>::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(completions)
            .dontfork()
            .build(submissions)?;
        Ok(Self {
            ring,
            absolute_wait,
            timer: Timer::default(),
            time: Box::new(Timespec::new()),
            _one_thread: PhantomData,
        })
    }

    pub(crate) fn submitter(&self) -> Submitter<'_> {
        self.ring.submitter()
    }

    /// Queues an operation; where the queue is full, what is in it is submitted first.
    ///
    /// # Safety
    /// What the operation points to has to stay valid until its completion, or for an operation
    /// that the kernel carries out as it takes it, until it has been submitted.
    pub(crate) unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: passed on to the caller.
        if unsafe { self.ring.submission().push(entry) }.is_ok() {
            return Ok(());
        }
        self.submit()?;
        // SAFETY: passed on to the caller.
        unsafe { self.ring.submission().push(entry) }
            .map_err(|_| io::Error::from_raw_os_error(libc::EBUSY))
    }

    /// How many queued operations the kernel has not taken yet.
    pub(crate) fn queued(&mut self) -> usize {
        self.ring.submission().len()
    }

    /// Hands everything queued to the kernel and lets it finish what it has deferred, without
    /// waiting.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        loop {
            let queued = self.queued() as u32;
            // SAFETY: no argument is passed.
            let result = unsafe {
                self.ring.submitter().enter::<WaitArguments>(
                    queued,
                    0,
                    EnterFlags::GETEVENTS.bits(),
                    None,
                )
            };
            match result {
                Ok(_) if self.queued() == 0 => return Ok(()),
                Ok(_) => {}
                Err(e) => match e.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // Completions wait to be taken; the queue is tried again after that.
                    Some(libc::EBUSY | libc::EAGAIN) => return Ok(()),
                    _ => return Err(e),
                },
            }
        }
    }

    /// Submits, and waits for a completion or until `until_ns` on the kernel's monotonic clock,
    /// whichever is first. A signal ends the wait too.
    pub(crate) fn wait(&mut self, until_ns: u64) -> io::Result<()> {
        if !self.absolute_wait && until_ns != u64::MAX {
            self.arm_timer(until_ns)?;
        }
        let queued = self.queued() as u32;
        let time = timespec(until_ns);
        let mut arguments = WaitArguments {
            sigmask: 0,
            sigmask_bytes: 0,
            min_wait_us: 0,
            time: 0,
        };
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if self.absolute_wait && until_ns != u64::MAX {
            arguments.time = (&raw const time) as u64;
            flags |= EnterFlags::ABS_TIMER;
        }
        // SAFETY: the argument and the time that it points to live until the call returns, and
        // have the layout that EXT_ARG announces.
        let result = unsafe {
            self.ring
                .submitter()
                .enter(queued, 1, flags.bits(), Some(&arguments))
        };
        match result {
            Ok(_) => Ok(()),
            Err(e) => match e.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(e),
            },
        }
    }

    /// Moves completions into `into` up to its capacity.
    pub(crate) fn drain(&mut self, into: &mut Vec<Completion>) {
        let room = into.capacity() - into.len();
        into.extend(self.ring.completion().take(room));
    }

    /// How many completions the kernel had to keep outside the queue since the start.
    pub(crate) fn overflowed(&mut self) -> bool {
        self.ring.submission().cq_overflow()
    }

    /// Sees to it that the timer fires at `until_ns` at the latest. One that fires earlier is left:
    /// it costs a wake-up, not a deadline.
    fn arm_timer(&mut self, until_ns: u64) -> io::Result<()> {
        let entry = match self.timer.armed {
            Some(at) if at <= until_ns => return Ok(()),
            Some(_) => {
                *self.time = timespec(until_ns);
                opcode::TimeoutUpdate::new(self.timer_tag().pack(), &raw const *self.time)
                    .flags(TimeoutFlags::ABS)
                    .build()
                    .user_data(Tag::new(Op::Ignored, 0, 0, 0).pack())
            }
            None => {
                *self.time = timespec(until_ns);
                self.timer.generation = self.timer.generation.wrapping_add(1);
                opcode::Timeout::new(&raw const *self.time)
                    .flags(TimeoutFlags::ABS)
                    .build()
                    .user_data(self.timer_tag().pack())
            }
        };
        self.timer.armed = Some(until_ns);
        // SAFETY: the kernel reads the boxed time while it takes the submission, which is before
        // it can be written again: every call of this function is followed by an enter.
        unsafe { self.push(&entry) }
    }

    const fn timer_tag(&self) -> Tag {
        Tag::new(Op::Timer, 0, self.timer.generation, 0)
    }

    /// Takes note that the timer has fired.
    pub(crate) fn timer_fired(&mut self, tag: Tag) {
        if tag == self.timer_tag() {
            self.timer.armed = None;
        }
    }
}

impl Drop for Ring {
    /// Ends every operation before the memory that they point to goes.
    fn drop(&mut self) {
        let _ = self.ring.submitter().register_sync_cancel(
            Some(timespec(TEARDOWN_NS)),
            io_uring::types::CancelBuilder::any(),
        );
    }
}

fn timespec(ns: u64) -> Timespec {
    Timespec::new()
        .sec(ns / 1_000_000_000)
        .nsec((ns % 1_000_000_000) as u32)
}

/// A read of an event counter into `place`.
pub(crate) fn read_counter(fd: Fd, place: *mut u64) -> squeue::Entry {
    opcode::Read::new(fd, place.cast(), size_of::<u64>() as u32)
        .build()
        .user_data(Tag::new(Op::Waker, 0, 0, 0).pack())
}
