//! The emulated line: takes frames off one veth end and puts them onto another, with delay, rate,
//! loss and outages, and writes down what became of each.
//!
//! Every decision is made from the kernel's stamp of the frame's arrival, so a late wake-up of this
//! program only shifts the release; the log has the time at which a frame really left.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::netns::Namespace;

/// What one direction does to packets.
#[derive(Clone, Debug)]
pub struct Direction {
    /// Every packet takes this long, ns.
    pub delay_ns: u64,
    /// Bits per second; 0 is without limit.
    pub rate_bps: u64,
    /// Bytes that may wait for the rate; what does not fit is dropped.
    pub buffer_bytes: u64,
    /// Share of packets lost, each by itself, per million.
    pub loss_ppm: u32,
    /// Everything is lost.
    pub outage: bool,
}

impl Direction {
    /// Only a delay, ns.
    #[must_use]
    pub const fn delay(delay_ns: u64) -> Self {
        Self {
            delay_ns,
            rate_bps: 0,
            buffer_bytes: 1 << 20,
            loss_ppm: 0,
            outage: false,
        }
    }
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It left, at this time (`CLOCK_REALTIME`, ns).
    Delivered(i64),
    /// It was lost by chance.
    Lost,
    /// It was lost in an outage.
    Outage,
    /// The buffer was full.
    Buffer,
}

/// What a packet is, as far as a log needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flow {
    /// An ICMP or ICMPv6 echo, request or reply: identifier and sequence number.
    Echo(u16, u16),
    /// UDP: source and destination port, bytes of payload.
    Udp(u16, u16, u16),
    /// Other IP.
    Other,
}

/// One line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Which way.
    pub way: Way,
    /// When it arrived, by the kernel's stamp (`CLOCK_REALTIME`, ns).
    pub arrival_ns: i64,
    /// Bytes of the frame.
    pub bytes: u32,
    /// What it is.
    pub flow: Flow,
    /// How long it waited for the rate, ns.
    pub queue_ns: u64,
    /// What became of it.
    pub fate: Fate,
}

struct Shared {
    plan: Mutex<[Direction; 2]>,
    log: Mutex<Vec<Passage>>,
    stop: AtomicBool,
}

/// A line at work between two interfaces of one namespace. It ends when this is dropped.
pub struct Link {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    /// Joins `client_end` and `server_end`, both in `middle`; `seed` decides the losses.
    ///
    /// # Errors
    /// When the packet sockets cannot be opened: they need `CAP_NET_RAW`.
    pub fn start(
        middle: &Namespace,
        client_end: &str,
        server_end: &str,
        plan: [Direction; 2],
        seed: u64,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            plan: Mutex::new(plan),
            log: Mutex::new(Vec::new()),
            stop: AtomicBool::new(false),
        });
        let (for_thread, names) = (
            shared.clone(),
            [client_end.to_owned(), server_end.to_owned()],
        );
        let (ready_in, ready) = std::sync::mpsc::sync_channel(1);
        let thread = middle.spawn(move || {
            let open = || Ok([packet_socket(&names[0])?, packet_socket(&names[1])?]);
            match open() {
                Ok(sockets) => {
                    let _ = ready_in.send(Ok(()));
                    Worker::new(for_thread, sockets, seed).run();
                }
                Err(e) => drop(ready_in.send(Err(e))),
            }
        })?;
        match ready.recv() {
            Ok(Ok(())) => Ok(Self {
                shared,
                thread: Some(thread),
            }),
            Ok(Err(e)) => Err(e),
            Err(_) => Err(io::Error::other("the link's thread ended at once")),
        }
    }

    /// Does this to packets that arrive from now on.
    pub fn change(&self, way: Way, direction: Direction) {
        if let Ok(mut plan) = self.shared.plan.lock() {
            plan[way as usize] = direction;
        }
    }

    /// What became of every IP packet so far, in the order they left or were dropped.
    #[must_use]
    pub fn log(&self) -> Vec<Passage> {
        self.shared
            .log
            .lock()
            .map(|l| l.clone())
            .unwrap_or_default()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Waiting {
    frame: Vec<u8>,
    passage: Option<Passage>,
    to: usize,
}

struct Worker {
    shared: Arc<Shared>,
    /// Client's side first: what arrives at 0 goes up.
    sockets: [OwnedFd; 2],
    rng: [ChaCha8Rng; 2],
    free_at_ns: [i64; 2],
    /// (release time, order) of what waits.
    queue: BinaryHeap<Reverse<(i64, u64)>>,
    waiting: std::collections::HashMap<u64, Waiting>,
    order: u64,
}

/// The last part of the wait for a release is spent spinning, ns.
const SPIN_NS: i64 = 60_000;

impl Worker {
    fn new(shared: Arc<Shared>, sockets: [OwnedFd; 2], seed: u64) -> Self {
        Self {
            shared,
            sockets,
            rng: [
                ChaCha8Rng::seed_from_u64(seed),
                ChaCha8Rng::seed_from_u64(!seed),
            ],
            free_at_ns: [0; 2],
            queue: BinaryHeap::new(),
            waiting: std::collections::HashMap::new(),
            order: 0,
        }
    }

    fn run(mut self) {
        // Without the privilege the releases are a little later, and the log says by how much.
        let _ = bufferbane_linux_io::host::run_realtime(10);
        let mut frame = vec![0u8; 4096];
        while !self.shared.stop.load(Ordering::Relaxed) {
            for from in 0..2 {
                while let Some((len, arrival_ns)) = receive(&self.sockets[from], &mut frame) {
                    self.arrive(from, &frame[..len], arrival_ns);
                }
            }
            let now_ns = wall_ns();
            while let Some(&Reverse((at_ns, order))) = self.queue.peek() {
                if at_ns > now_ns {
                    break;
                }
                self.queue.pop();
                self.release(order);
            }
            let next_ns = self
                .queue
                .peek()
                .map_or(10_000_000, |Reverse((at, _))| at - wall_ns());
            if next_ns > SPIN_NS {
                wait(&self.sockets, (next_ns - SPIN_NS).min(10_000_000));
            }
        }
    }

    fn arrive(&mut self, way: usize, frame: &[u8], arrival_ns: i64) {
        let Ok(plan) = self.shared.plan.lock().map(|p| p[way].clone()) else {
            return;
        };
        let Some(flow) = flow_of(frame) else {
            // Neighbour discovery and the like pass at once: losing them would only confuse.
            self.hold(
                arrival_ns,
                Waiting {
                    frame: frame.to_vec(),
                    passage: None,
                    to: 1 - way,
                },
            );
            return;
        };
        let lost = self.rng[way].next_u32() % 1_000_000 < plan.loss_ppm;
        let mut passage = Passage {
            way: if way == 0 { Way::Up } else { Way::Down },
            arrival_ns,
            bytes: frame.len() as u32,
            flow,
            queue_ns: 0,
            fate: Fate::Lost,
        };
        if plan.outage {
            passage.fate = Fate::Outage;
            return self.note(passage);
        }
        if lost {
            return self.note(passage);
        }
        let mut left_ns = arrival_ns;
        if plan.rate_bps > 0 {
            let start_ns = self.free_at_ns[way].max(arrival_ns);
            passage.queue_ns = (start_ns - arrival_ns) as u64;
            let queued = u128::from(passage.queue_ns) * u128::from(plan.rate_bps) / 8_000_000_000;
            if queued + frame.len() as u128 > u128::from(plan.buffer_bytes) {
                passage.fate = Fate::Buffer;
                return self.note(passage);
            }
            left_ns = start_ns + (frame.len() as u64 * 8_000_000_000 / plan.rate_bps) as i64;
            self.free_at_ns[way] = left_ns;
        }
        let at_ns = left_ns + plan.delay_ns as i64;
        let frame = frame.to_vec();
        self.hold(
            at_ns,
            Waiting {
                frame,
                passage: Some(passage),
                to: 1 - way,
            },
        );
    }

    fn hold(&mut self, at_ns: i64, waiting: Waiting) {
        self.queue.push(Reverse((at_ns, self.order)));
        self.waiting.insert(self.order, waiting);
        self.order += 1;
    }

    fn release(&mut self, order: u64) {
        let Some(waiting) = self.waiting.remove(&order) else {
            return;
        };
        send(&self.sockets[waiting.to], &waiting.frame);
        if let Some(mut passage) = waiting.passage {
            passage.fate = Fate::Delivered(wall_ns());
            self.note(passage);
        }
    }

    fn note(&self, passage: Passage) {
        if let Ok(mut log) = self.shared.log.lock() {
            log.push(passage);
        }
    }
}

/// What an Ethernet frame carries; `None` where that is not IP, or is neighbour discovery.
fn flow_of(frame: &[u8]) -> Option<Flow> {
    let u16_at = |b: &[u8], i: usize| Some(u16::from_be_bytes([*b.get(i)?, *b.get(i + 1)?]));
    let (protocol, payload) = match u16_at(frame, 12)? {
        0x0800 => {
            let header = usize::from(frame.get(14)? & 15) * 4;
            (*frame.get(23)?, frame.get(14 + header..)?)
        }
        0x86dd => (*frame.get(20)?, frame.get(54..)?),
        _ => return None,
    };
    match (protocol, *payload.first()?) {
        (1, 0 | 8) | (58, 128 | 129) => Some(Flow::Echo(u16_at(payload, 4)?, u16_at(payload, 6)?)),
        (58, 133..=137) => None,
        (17, _) => Some(Flow::Udp(
            u16_at(payload, 0)?,
            u16_at(payload, 2)?,
            u16_at(payload, 4)?.saturating_sub(8),
        )),
        _ => Some(Flow::Other),
    }
}

fn wall_ns() -> i64 {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the timespec lives until the call returns.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut t) };
    t.tv_sec * 1_000_000_000 + t.tv_nsec
}

/// A packet socket that sees everything that arrives at an interface, stamped by the kernel.
fn packet_socket(interface: &str) -> io::Result<OwnedFd> {
    let index = nix::net::if_::if_nametoindex(interface)?;
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, i32::from(protocol)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was opened above and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    for (level, name, value) in [
        (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1),
        (libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1),
        (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 16 << 20),
    ] {
        let value: libc::c_int = value;
        let len = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the value lives until the call returns, and `len` is its size.
        let done = unsafe {
            libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len)
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index as i32;
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address lives until the call returns, and `len` is its size.
    let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
    if bound < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(fd)
    }
}

/// The next frame and when it arrived, if there is one.
fn receive(socket: &OwnedFd, frame: &mut [u8]) -> Option<(usize, i64)> {
    let mut control = [0u64; 16];
    let mut iov = libc::iovec {
        iov_base: frame.as_mut_ptr().cast(),
        iov_len: frame.len(),
    };
    // SAFETY: all zeros is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the message points to buffers that live until the call returns, with their sizes.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let len = usize::try_from(len).ok()?;
    // SAFETY: the kernel has filled in the control buffer that the message points to.
    let mut cmsg = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !cmsg.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give whole headers within the control buffer.
        let (level, kind) = unsafe { ((*cmsg).cmsg_level, (*cmsg).cmsg_type) };
        if level == libc::SOL_SOCKET && kind == libc::SCM_TIMESTAMPNS {
            // SAFETY: this message's payload is a timespec; it may not be aligned.
            let t = unsafe {
                libc::CMSG_DATA(cmsg)
                    .cast::<libc::timespec>()
                    .read_unaligned()
            };
            return Some((len, t.tv_sec * 1_000_000_000 + t.tv_nsec));
        }
        // SAFETY: as above.
        cmsg = unsafe { libc::CMSG_NXTHDR(&raw const message, cmsg) };
    }
    Some((len, wall_ns()))
}

fn send(socket: &OwnedFd, frame: &[u8]) {
    // SAFETY: the frame is readable for its length. A full queue of the veth loses the frame, which
    // the log then has as delivered: it is far longer than anything sent here.
    unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
}

fn wait(sockets: &[OwnedFd; 2], at_most_ns: i64) {
    let poll = |s: &OwnedFd| libc::pollfd {
        fd: s.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let mut fds = [poll(&sockets[0]), poll(&sockets[1])];
    let timeout = libc::timespec {
        tv_sec: at_most_ns / 1_000_000_000,
        tv_nsec: at_most_ns % 1_000_000_000,
    };
    // SAFETY: two pollfds and a timespec that live until the call returns; no signal mask.
    unsafe { libc::ppoll(fds.as_mut_ptr(), 2, &raw const timeout, std::ptr::null()) };
}
