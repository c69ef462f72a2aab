//! Packet sockets: everything that arrives at an interface, stamped by the kernel, and a way out.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Largest frame that passes: interfaces have the usual 1500 bytes, and nothing is offloaded.
pub(super) const FRAME: usize = 2048;
/// Frames taken in one call. At 200 Mbit/s a call that waited a millisecond finds 17.
const BATCH: usize = 32;
/// Room for a `cmsghdr` with a `timespec`, in words.
const CONTROL_WORDS: usize = 8;
/// What may wait to be read, bytes.
const RECEIVE_BUFFER: libc::c_int = 16 << 20;

pub(super) fn wall_ns() -> i64 {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the timespec lives until the call returns.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut t) };
    t.tv_sec * 1_000_000_000 + t.tv_nsec
}

/// One end of a line.
pub(super) struct Port {
    fd: OwnedFd,
}

impl Port {
    /// Opens `interface` of the namespace that this thread is in.
    ///
    /// # Errors
    /// Needs `CAP_NET_RAW`.
    pub(super) fn open(interface: &str) -> io::Result<Self> {
        let index = nix::net::if_::if_nametoindex(interface)
            .map_err(|e| io::Error::other(format!("interface {interface}: {e}")))?;
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // Without a protocol nothing is received before the socket is bound to its interface.
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            let e = io::Error::last_os_error();
            return Err(io::Error::new(
                e.kind(),
                format!("a packet socket on {interface}: {e}; it needs root or CAP_NET_RAW"),
            ));
        }
        // SAFETY: the descriptor was opened above and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        set(&fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
        set(&fd, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        // Without the privilege for more, as much as anybody may have.
        set(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER)
            .or_else(|_| set(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER))?;
        // SAFETY: all zeros is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index as i32;
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address lives until the call returns, and `len` is its size.
        let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
        if bound < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { fd })
    }

    /// Puts a frame onto the interface; whether it took it.
    pub(super) fn send(&self, frame: &[u8]) -> bool {
        // SAFETY: the frame is readable for its length.
        let sent = unsafe {
            libc::send(
                self.fd.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                libc::MSG_DONTWAIT,
            )
        };
        sent == frame.len() as isize
    }

    /// How many frames the kernel dropped because they were not read in time, since last asked.
    pub(super) fn missed(&self) -> u64 {
        let mut stats = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        let mut len = size_of_val(&stats) as libc::socklen_t;
        // SAFETY: the structure lives until the call returns, and `len` is its size.
        let done = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut len,
            )
        };
        if done < 0 {
            0
        } else {
            u64::from(stats.tp_drops)
        }
    }
}

fn set(fd: &OwnedFd, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value lives until the call returns, and `len` is its size.
    let done =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Room for a batch of received frames.
pub(super) struct Batch {
    /// Frames that were larger than [`FRAME`], since this was last taken.
    oversized: u64,
    frames: Box<[[u8; FRAME]; BATCH]>,
    control: Box<[[u64; CONTROL_WORDS]; BATCH]>,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            oversized: 0,
            frames: Box::new([[0; FRAME]; BATCH]),
            control: Box::new([[0; CONTROL_WORDS]; BATCH]),
        }
    }

    /// Takes what has arrived at `port`, up to a batch, and hands each frame with the time of its
    /// arrival to `each`. Whether there may be more.
    pub(super) fn receive(&mut self, port: &Port, mut each: impl FnMut(&mut [u8], i64)) -> bool {
        // SAFETY: all zeros is a valid value of both.
        let (mut vectors, mut messages): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) =
            unsafe { std::mem::zeroed() };
        for i in 0..BATCH {
            vectors[i].iov_base = self.frames[i].as_mut_ptr().cast();
            vectors[i].iov_len = FRAME;
            let header = &mut messages[i].msg_hdr;
            header.msg_iov = &raw mut vectors[i];
            header.msg_iovlen = 1;
            header.msg_control = self.control[i].as_mut_ptr().cast();
            header.msg_controllen = size_of::<[u64; CONTROL_WORDS]>() as _;
        }
        // SAFETY: each message points to buffers that live until the call returns, with their sizes.
        let count = unsafe {
            libc::recvmmsg(
                port.fd.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).unwrap_or(0);
        for (i, message) in messages[..count].iter().enumerate() {
            if message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
                self.oversized += 1;
                continue;
            }
            let at_ns = stamp(&message.msg_hdr).unwrap_or_else(wall_ns);
            let len = (message.msg_len as usize).min(FRAME);
            each(&mut self.frames[i][..len], at_ns);
        }
        count == BATCH
    }

    /// How many frames did not fit since this was last asked.
    pub(super) const fn take_oversized(&mut self) -> u64 {
        std::mem::replace(&mut self.oversized, 0)
    }
}

/// The kernel's stamp among a received message's control messages.
fn stamp(message: &libc::msghdr) -> Option<i64> {
    // SAFETY: the kernel has filled in the control buffer that the message points to.
    let mut cmsg = unsafe { libc::CMSG_FIRSTHDR(message) };
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
            return Some(t.tv_sec * 1_000_000_000 + t.tv_nsec);
        }
        // SAFETY: as above.
        cmsg = unsafe { libc::CMSG_NXTHDR(message, cmsg) };
    }
    None
}

/// Waits until something arrives at one of `ports`, at most this long.
pub(super) fn wait<'a>(
    ports: impl Iterator<Item = &'a Port>,
    at_most_ns: i64,
    fds: &mut Vec<libc::pollfd>,
) {
    fds.clear();
    fds.extend(ports.map(|p| libc::pollfd {
        fd: p.fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }));
    let timeout = timespec(at_most_ns);
    // SAFETY: the pollfds and the timespec live until the call returns; no signal mask.
    unsafe {
        libc::ppoll(
            fds.as_mut_ptr(),
            fds.len() as libc::nfds_t,
            &raw const timeout,
            std::ptr::null(),
        )
    };
}

/// Gives the CPU away for about this long, whatever arrives.
pub(super) fn sleep(ns: i64) {
    let time = timespec(ns);
    // SAFETY: the timespec lives until the call returns; what is left of it is not asked for.
    unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
}

const fn timespec(ns: i64) -> libc::timespec {
    libc::timespec {
        tv_sec: ns / 1_000_000_000,
        tv_nsec: ns % 1_000_000_000,
    }
}
