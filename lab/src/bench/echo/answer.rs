//! Those who answer: each alone on one CPU.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::Fail;
use super::super::child::{Program, installed};
use super::super::setup::{Bench, Reflecting, free_port};
use super::load::{Speech, stay_on};

/// Where they run.
pub(super) const CPU: usize = 0;

/// How many of them there are.
pub(super) const KINDS: usize = 5;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A loop of `recvfrom` and `sendto`, which knows nothing about what it sends back.
    Plain,
    /// The same with the kernel's receive stamps, which need `recvmsg`.
    PlainStamped,
    /// The reflector without transmit stamps: everything sealed.
    OursReceiving,
    /// The reflector as it is shipped: everything sealed, receive and transmit stamps.
    Ours,
    /// Debian's `irtt server`.
    Irtt,
}

impl Kind {
    pub(super) const ALL: [Self; KINDS] = [
        Self::Plain,
        Self::PlainStamped,
        Self::OursReceiving,
        Self::Ours,
        Self::Irtt,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "recvfrom/sendto",
            Self::PlainStamped => "recvmsg/sendto, RX stamps",
            Self::OursReceiving => "reflector, RX stamps",
            Self::Ours => "reflector, RX and TX stamps",
            Self::Irtt => "irtt server",
        }
    }

    pub(super) const fn speech(self) -> Speech {
        match self {
            Self::Plain | Self::PlainStamped => Speech::Plain,
            Self::OursReceiving | Self::Ours => Speech::Ours,
            Self::Irtt => Speech::Irtt,
        }
    }
}

enum Runs {
    Thread(Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>, u32),
    Program(Program),
}

/// One of them at work.
pub(super) struct Answerer {
    pub(super) at: SocketAddr,
    runs: Runs,
    /// Its keys, configuration and control socket.
    pub(super) bench: Bench,
}

impl Answerer {
    /// Starts it on a port of loopback, for so many clients.
    pub(super) fn start(kind: Kind, clients: usize) -> Result<Self, Fail> {
        let bench = Bench::new()?;
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let runs = match kind {
            Kind::Plain | Kind::PlainStamped => plain(at, kind == Kind::PlainStamped)?,
            Kind::OursReceiving | Kind::Ours => {
                let what = Reflecting {
                    clients,
                    sessions_each: 1,
                    transmit_stamps: kind == Kind::Ours,
                };
                Runs::Program(bench.reflector_for(at, what, None, Some(CPU))?)
            }
            Kind::Irtt => {
                let bind = at.to_string();
                let words = [
                    "server",
                    "-b",
                    &bind,
                    "-i",
                    "0",
                    "-d",
                    "0",
                    "-l",
                    "0",
                    "--timeout=0",
                ];
                let args: Vec<_> = words.iter().map(AsRef::as_ref).collect();
                let irtt = installed("irtt", "irtt")?;
                let log = bench.path("irtt.log");
                let program = Program::start(&irtt, &args, None, Some(CPU), &log)?;
                // Its first client knocks until it hears.
                std::thread::sleep(Duration::from_millis(300));
                Runs::Program(program)
            }
        };
        Ok(Self { at, runs, bench })
    }

    /// CPU time that it has used so far, ns.
    pub(super) fn cpu_ns(&self) -> Result<u64, Fail> {
        match &self.runs {
            Runs::Program(program) => program.cpu_ns(),
            Runs::Thread(_, _, thread) => thread_cpu_ns(*thread),
        }
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        if let Runs::Thread(stop, thread, _) = &mut self.runs {
            stop.store(true, Ordering::Relaxed);
            if let Some(thread) = thread.take() {
                let _ = thread.join();
            }
        }
    }
}

/// CPU time of one of this process's threads, ns.
fn thread_cpu_ns(thread: u32) -> Result<u64, Fail> {
    let path = format!("/proc/self/task/{thread}/schedstat");
    let text = std::fs::read_to_string(&path).map_err(|e| Fail::of(&path, e))?;
    text.split_whitespace()
        .next()
        .and_then(|ns| ns.parse().ok())
        .ok_or_else(|| Fail::Failed(format!("{path} has no CPU time")))
}

fn plain(at: SocketAddr, stamped: bool) -> Result<Runs, Fail> {
    let open = || {
        let socket = UdpSocket::bind(at)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20)?;
        Ok(socket)
    };
    let socket = open().map_err(|e: std::io::Error| Fail::of("a plain echo", e))?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = stop.clone();
    let (ready_in, ready) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::spawn(move || {
        let pinned = stay_on(CPU).map(|()| nix::unistd::gettid().as_raw().unsigned_abs());
        // The one who started this waits for it.
        let _ = ready_in.send(pinned);
        if stamped {
            echo_stamped(&socket, &stopping);
        } else {
            echo(&socket, &stopping);
        }
    });
    let id = ready
        .recv()
        .map_err(|_| Fail::Failed("the plain echo ended at once".into()))??;
    Ok(Runs::Thread(stop, Some(thread), id))
}

fn echo(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            // A client that has gone does not miss its echo.
            let _ = socket.send_to(&buffer[..len], from);
        }
    }
}

fn echo_stamped(socket: &UdpSocket, stop: &AtomicBool) {
    let fd = socket.as_raw_fd();
    let on: libc::c_int = 1;
    // SAFETY: the value is an int that lives until the call returns.
    unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPNS,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    let mut buffer = [0u8; 2048];
    let mut control = [0u64; 16];
    // SAFETY: all zeros is a valid value of both.
    let (mut name, mut header): (libc::sockaddr_in, libc::msghdr) = unsafe { std::mem::zeroed() };
    while !stop.load(Ordering::Relaxed) {
        let mut vector = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        header.msg_name = (&raw mut name).cast();
        header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control) as _;
        // SAFETY: the header points to memory of the lengths it says, all of it on this stack.
        let len = unsafe { libc::recvmsg(fd, &raw mut header, 0) };
        let Ok(len) = usize::try_from(len) else {
            continue;
        };
        // SAFETY: the buffer has `len` bytes, and the kernel wrote the address.
        unsafe {
            libc::sendto(
                fd,
                buffer.as_ptr().cast(),
                len,
                0,
                (&raw const name).cast(),
                size_of::<libc::sockaddr_in>() as libc::socklen_t,
            )
        };
    }
}
