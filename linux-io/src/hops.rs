//! A socket whose messages are to end on the way: which router each ended at comes without privilege,
//! through the socket's error queue.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use bufferbane_core::mtu::MAX_SIZE;
use bufferbane_core::time::Monotonic;
use bufferbane_core::wire::icmp::{Report, Version, is_too_big, strip_ipv4_header};

use crate::clock;
use crate::errqueue::{Entry, ErrorQueue};
use crate::socket::{Family, ProbeSocket, SocketBuilder, SocketKind};
use crate::sockopt::{SocketError, error, set};
use crate::sys;
use crate::timeline::{Reading, Timeline};

/// See the module.
pub struct HopSocket {
    socket: ProbeSocket,
    to: SocketAddr,
    queue: ErrorQueue,
    /// Where the rest of what is received goes.
    rest: Box<[u8]>,
    timeline: Timeline,
}

/// Something that was heard of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard<'a> {
    /// When it arrived, by the kernel's stamp where there is one.
    pub at: Monotonic,
    /// Who says it.
    pub from: IpAddr,
    /// What is said.
    pub word: Word<'a>,
}

/// What is said of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word<'a> {
    /// What became of it; and the beginning of it, as far as it was quoted: of the ICMP message or of
    /// UDP's payload.
    Report(Report, &'a [u8]),
    /// It was too big for where it was to go on; how many bytes are not, in the router's words, and the
    /// beginning of it, likewise.
    TooBig(u32, &'a [u8]),
    /// An ICMP message came, without IP header: the beginning of it, and how long all of it is, bytes.
    Message(&'a [u8], usize),
}

impl HopSocket {
    /// A socket made by `builder` that sends to `to`; the port of an ICMP socket's is 0.
    ///
    /// # Errors
    /// As [`SocketBuilder::build`].
    pub fn new(builder: SocketBuilder, to: SocketAddr) -> Result<Self, SocketError> {
        let socket = builder.report_errors(true).build()?;
        let stamps = sys::SOF_TIMESTAMPING_RX_SOFTWARE | sys::SOF_TIMESTAMPING_SOFTWARE;
        set(
            socket.socket.as_raw_fd(),
            libc::SOL_SOCKET,
            sys::SO_TIMESTAMPING,
            stamps.cast_signed(),
        )
        .map_err(error("SO_TIMESTAMPING", "receive"))?;
        Ok(Self {
            socket,
            to,
            queue: ErrorQueue::new(),
            rest: vec![0; usize::from(MAX_SIZE)].into(),
            timeline: Timeline::new(Reading::take()),
        })
    }

    /// The address it is bound to; of a ping socket the "port" is its ICMP identifier.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr()
    }

    /// Sends a message that at most `ttl` hops pass on: an ICMP message, or UDP's payload.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&self, ttl: u8, message: &[u8]) -> io::Result<()> {
        let (level, name) = match self.socket.family {
            Family::V4 => (libc::IPPROTO_IP, libc::IP_TTL),
            Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
        };
        let socket = &self.socket.socket;
        set(socket.as_raw_fd(), level, name, i32::from(ttl))?;
        let to = self.to.into();
        // The first refusal may be what an earlier message met, which is in the error queue too.
        socket
            .send_to(message, &to)
            .or_else(|_| socket.send_to(message, &to))
            .map(drop)
    }

    /// Waits until something is heard, at most for `patience`, and gives it to `tell`. What this host
    /// itself says is left out.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait(&mut self, patience: Duration, mut tell: impl FnMut(Heard<'_>)) -> io::Result<()> {
        Self::wait_any(std::slice::from_mut(self), patience, |_, heard| tell(heard))
    }

    /// The same of several sockets; `tell` is told at which of them, by its place.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait_any(
        sockets: &mut [Self],
        patience: Duration,
        mut tell: impl FnMut(usize, Heard<'_>),
    ) -> io::Result<()> {
        let mut polls: Vec<libc::pollfd> = sockets.iter().map(Self::poll).collect();
        let number = polls.len() as libc::nfds_t;
        let millis = libc::c_int::try_from(patience.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: so many pollfds, which live until the call returns.
        let polled = unsafe { libc::poll(polls.as_mut_ptr(), number, millis.saturating_add(1)) };
        match sys::check(polled) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            found => drop(found?),
        }
        let now = clock::now();
        for (i, socket) in sockets.iter_mut().enumerate() {
            socket.take(now, |heard| tell(i, heard));
        }
        Ok(())
    }

    /// Whether answers come in as messages; of UDP only reports do.
    fn answers(&self) -> bool {
        self.socket.kind != SocketKind::Udp
    }

    fn poll(&self) -> libc::pollfd {
        libc::pollfd {
            fd: self.socket.socket.as_raw_fd(),
            // The error queue is always told of.
            events: if self.answers() { libc::POLLIN } else { 0 },
            revents: 0,
        }
    }

    /// Gives to `tell` what has been heard by `now`.
    fn take(&mut self, now: Monotonic, mut tell: impl FnMut(Heard<'_>)) {
        let fd = self.socket.socket.as_raw_fd();
        self.timeline.observe(&Reading::take());
        // Taken off, so that the next message does not meet it.
        let _ = self.socket.socket.take_error();
        for i in 0..self.queue.read(fd) {
            if let Some(entry) = self.queue.entry(i)
                && let Some((from, word)) = report(&entry)
            {
                tell(Heard {
                    at: self.arrival(&entry, now),
                    from,
                    word,
                });
            }
        }
        if !self.answers() {
            return;
        }
        for i in 0..self.queue.read_received(fd, &mut self.rest) {
            if let Some(entry) = self.queue.entry(i)
                && let Some(from) = entry.to
                && let Some((message, whole_len)) = self.message(&entry)
            {
                tell(Heard {
                    at: self.arrival(&entry, now),
                    from: from.ip(),
                    word: Word::Message(message, whole_len),
                });
            }
        }
    }

    fn arrival(&self, entry: &Entry<'_>, now: Monotonic) -> Monotonic {
        let stamp = entry.facts.stamps.map_or(0, |s| s.software_ns);
        let arrived = (stamp != 0).then(|| self.timeline.to_monotonic(clock::stepped(stamp), now));
        arrived.flatten().unwrap_or(now)
    }

    /// The ICMP message that was received, and how long all of it is.
    fn message<'a>(&self, entry: &Entry<'a>) -> Option<(&'a [u8], usize)> {
        let message = match (self.socket.kind, self.socket.family) {
            (SocketKind::RawIcmp { .. }, Family::V4) => strip_ipv4_header(entry.quoted).ok()?,
            _ => entry.quoted,
        };
        let stripped_len = entry.quoted.len() - message.len();
        Some((message, entry.whole_len - stripped_len))
    }
}

/// Who reports what, where this is a report from the network.
fn report<'a>(entry: &Entry<'a>) -> Option<(IpAddr, Word<'a>)> {
    let error = entry.facts.error?;
    let version = match error.origin {
        libc::SO_EE_ORIGIN_ICMP => Version::V4,
        libc::SO_EE_ORIGIN_ICMP6 => Version::V6,
        _ => return None,
    };
    let word = if is_too_big(version, error.kind, error.code) {
        Word::TooBig(error.info, entry.quoted)
    } else {
        Word::Report(Report::of(version, error.kind, error.code)?, entry.quoted)
    };
    Some((error.offender?, word))
}
