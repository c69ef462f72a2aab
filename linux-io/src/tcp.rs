//! TCP sockets that carry a throughput test: bound to an interface, with a congestion control that
//! was asked for, and what the kernel says of them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::admission;
use crate::socket::Family;
use crate::sockopt::{
    BIND_PATIENCE, SocketError, bind_patiently, error, interface_error, set, set_bytes,
};
use crate::sys;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;
/// How often the answer to a SYN is sent again, the fewest that there can be: a client whose answers were
/// lost asks again by itself.
const SYN_ACKS_AGAIN: i32 = 1;
/// A peer that is gone without a word is noticed after this at the latest.
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// What a connection is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// The interface that it goes through (`SO_BINDTODEVICE`).
    pub interface: Option<String>,
    /// The address that it comes from, which policy routing sees, too.
    pub source: Option<IpAddr>,
    /// The mark that policy routing sees (`SO_MARK`).
    pub mark: Option<u32>,
    /// DSCP of what it sends, 0 to 63.
    pub dscp: u8,
    /// Congestion control of what it sends, such as `cubic`. There is no default: a host's own would
    /// make results incomparable.
    pub congestion: String,
}

/// A TCP socket for [`crate::Bulk::connect`].
#[derive(Debug)]
pub struct TcpSocket(pub(crate) Socket);

impl TcpSocket {
    /// A socket that is not connected yet.
    ///
    /// # Errors
    /// The option that the kernel refused, and what helps.
    pub fn new(family: Family, options: &TcpOptions) -> Result<Self, SocketError> {
        let interface = options.interface.as_deref();
        let socket = open_to(family, interface, options.source, options.mark)?;
        configure(&socket, family, options.dscp, &options.congestion)?;
        socket
            .set_tcp_user_timeout(Some(USER_TIMEOUT))
            .map_err(error("TCP_USER_TIMEOUT", USER_TIMEOUT.as_secs()))?;
        Ok(Self(socket))
    }

    /// A socket for a short exchange through `interface`, from the address `source`; it does not block.
    ///
    /// # Errors
    /// As above.
    pub fn plain(
        family: Family,
        interface: Option<&str>,
        source: Option<IpAddr>,
        mark: Option<u32>,
    ) -> Result<Self, SocketError> {
        let socket = open_to(family, interface, source, mark)?;
        set(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)
            .map_err(error("TCP_NODELAY", "on"))?;
        socket
            .set_nonblocking(true)
            .map_err(error("O_NONBLOCK", "on"))?;
        Ok(Self(socket))
    }
}

/// Has the kernel ask, after `idle` without a word, whether the other end of a connection is still there, and give
/// it up where four questions in a row, a third of that apart but ten seconds at most, bring no answer.
///
/// # Errors
/// The kernel's.
pub fn keep_alive(connection: &impl AsFd, idle: Duration) -> io::Result<()> {
    let again = (idle / 3).clamp(Duration::from_secs(1), Duration::from_secs(10));
    let socket = SockRef::from(connection);
    let alive = TcpKeepalive::new().with_time(idle).with_interval(again);
    socket.set_tcp_keepalive(&alive)?;
    // It goes before a number of questions, and holds for what is sent, too.
    socket.set_tcp_user_timeout(Some(idle + 4 * again))
}

impl From<TcpSocket> for OwnedFd {
    fn from(socket: TcpSocket) -> Self {
        socket.0.into()
    }
}

impl AsFd for TcpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A listening TCP socket for [`crate::Bulk::listen`], silent to whoever is not admitted.
#[derive(Debug)]
pub struct TcpListening {
    pub(crate) socket: Socket,
    family: Family,
    local: SocketAddr,
}

impl TcpListening {
    /// Listens at `local`; nobody is admitted yet.
    ///
    /// # Errors
    /// What the kernel refused, and what helps.
    pub fn new(local: SocketAddr) -> Result<Self, SocketError> {
        let family = Family::of(&local.ip());
        let socket = open(family)?;
        socket
            .set_reuse_address(true)
            .map_err(error("SO_REUSEADDR", "on"))?;
        if family == Family::V6 {
            socket
                .set_only_v6(true)
                .map_err(error("IPV6_V6ONLY", "on"))?;
        }
        // Connections begin with it until they are configured. Were it the host's default and that
        // bbr, the kernel would go on to pace them under whichever control they are given then.
        set_congestion(socket.as_raw_fd(), "reno")?;
        // A SYN from an address that was made up earns this many SYN-ACKs and one.
        set(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SYNCNT,
            SYN_ACKS_AGAIN,
        )
        .map_err(error("TCP_SYNCNT", SYN_ACKS_AGAIN))?;
        bind_patiently(&socket, local, BIND_PATIENCE)?;
        admission::admit(&socket, family, &[]).map_err(|source| SocketError {
            step: "SO_ATTACH_FILTER",
            subject: local.to_string(),
            remedy: match source.raw_os_error() {
                Some(libc::EPERM) => {
                    "this kernel lets nobody keep strangers from connecting without CAP_NET_ADMIN"
                }
                _ => "",
            },
            source,
        })?;
        socket.listen(BACKLOG).map_err(error("listen", local))?;
        let local = socket
            .local_addr()
            .ok()
            .and_then(|a| a.as_socket())
            .unwrap_or(local);
        Ok(Self {
            socket,
            family,
            local,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// IPv4 or IPv6.
    #[must_use]
    pub const fn family(&self) -> Family {
        self.family
    }
}

impl AsFd for TcpListening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn open(family: Family) -> Result<Socket, SocketError> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).map_err(error("socket", "TCP"))
}

/// A socket that leaves through `interface`, from `source`, with `mark`, where these are given.
fn open_to(
    family: Family,
    interface: Option<&str>,
    source: Option<IpAddr>,
    mark: Option<u32>,
) -> Result<Socket, SocketError> {
    let socket = open(family)?;
    if let Some(name) = interface {
        socket
            .bind_device(Some(name.as_bytes()))
            .map_err(|source| interface_error(name, source))?;
    }
    if let Some(mark) = mark {
        socket.set_mark(mark).map_err(error("SO_MARK", mark))?;
    }
    if let Some(source) = source {
        bind_patiently(&socket, SocketAddr::new(source, 0), BIND_PATIENCE)?;
    }
    Ok(socket)
}

/// Sets what a sender of bulk data is known by; of accepted connections too.
pub(crate) fn configure(
    socket: &impl AsFd,
    family: Family,
    dscp: u8,
    congestion: &str,
) -> Result<(), SocketError> {
    let fd = socket.as_fd().as_raw_fd();
    let tos = i32::from(dscp & 0x3f) << 2;
    let (level, name) = match family {
        Family::V4 => (libc::IPPROTO_IP, libc::IP_TOS),
        Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
    };
    set(fd, level, name, tos).map_err(error("IP_TOS", tos))?;
    set_congestion(fd, congestion)?;
    set(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1).map_err(error("TCP_NODELAY", "on"))
}

fn set_congestion(fd: RawFd, name: &str) -> Result<(), SocketError> {
    let set = set_bytes(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, name.as_bytes());
    set.map_err(|source| SocketError {
        step: "TCP_CONGESTION",
        subject: name.to_owned(),
        remedy: match source.raw_os_error() {
            Some(libc::ENOENT) => "this kernel does not have it (modprobe tcp_NAME)",
            Some(libc::EPERM) => {
                "without CAP_NET_ADMIN it has to be in the sysctl \
                 net.ipv4.tcp_allowed_congestion_control: add it there, or choose one that is \
                 (congestion in [throughput])"
            }
            _ => "",
        },
        source,
    })
}

/// Whether a socket of this process may have this congestion control.
///
/// # Errors
/// Why it may not, and what helps.
pub fn check_congestion(name: &str) -> Result<(), SocketError> {
    set_congestion(open(Family::V4)?.as_raw_fd(), name)
}

/// Bytes per second that the kernel lets the socket send at most (`SO_MAX_PACING_RATE`).
pub(crate) fn set_pacing(fd: RawFd, bytes_per_second: u64) -> io::Result<()> {
    let value = u32::try_from(bytes_per_second).unwrap_or(u32::MAX - 1);
    set_bytes(
        fd,
        libc::SOL_SOCKET,
        sys::SO_MAX_PACING_RATE,
        &value.to_ne_bytes(),
    )
}

/// Bytes that may wait unsent in the socket before it counts as full (`TCP_NOTSENT_LOWAT`).
pub(crate) fn set_unsent_limit(fd: RawFd, bytes: u32) -> io::Result<()> {
    set(
        fd,
        libc::IPPROTO_TCP,
        sys::TCP_NOTSENT_LOWAT,
        i32::try_from(bytes).unwrap_or(i32::MAX),
    )
}

/// What the kernel says of a connection (`TCP_INFO`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFacts {
    /// Smoothed round-trip time, µs.
    pub rtt_us: u32,
    /// Congestion window, bytes.
    pub cwnd_bytes: u32,
    /// Segments sent again since the begin.
    pub retransmits: u32,
    /// Segments sent in all, those without data and those sent again included.
    pub segments_out: u32,
    /// Payload that was sent, that sent again included, bytes.
    pub bytes_out: u64,
    /// Segments with data that have come.
    pub segments_in: u32,
    /// Those of them that came out of order.
    pub out_of_order: u32,
    /// Payload of a full one of them, bytes.
    pub segment_bytes: u32,
}

/// Reads `TCP_INFO` of a socket.
pub(crate) fn facts(fd: RawFd) -> io::Result<TcpFacts> {
    /// Up to and with `tcpi_rcv_ooopack`, which every kernel that we run on has (5.4).
    const NEEDED: usize = 228;
    let mut bytes = [0u8; NEEDED];
    let mut len = NEEDED as libc::socklen_t;
    // SAFETY: `bytes` is writable for `len` bytes, which is what the kernel is told; it checks the
    // descriptor and writes no more than that.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            bytes.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    sys::check(result)?;
    if (len as usize) < NEEDED {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // Offsets in `struct tcp_info` (include/uapi/linux/tcp.h).
    let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
    let (mss, rtt, cwnd, total_retrans) = (word(16), word(68), word(80), word(100));
    Ok(TcpFacts {
        rtt_us: rtt,
        cwnd_bytes: cwnd.saturating_mul(mss),
        retransmits: total_retrans,
        segments_out: word(136),
        bytes_out: u64::from_ne_bytes(std::array::from_fn(|i| bytes[200 + i])),
        segments_in: word(152),
        out_of_order: word(224),
        segment_bytes: word(20),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted_never_began_with_the_congestion_control_of_the_host() {
        let listener = TcpListening::new(([127, 0, 0, 1], 0).into()).unwrap();
        let local = [crate::admission::Prefix::only([127, 0, 0, 1].into())];
        admission::admit(&listener, Family::V4, &local).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr()).unwrap();
        let (accepted, _) = listener.socket.accept().unwrap();
        let name = accepted.tcp_congestion().unwrap();
        assert_eq!(name.split(|b| *b == 0).next(), Some(&b"reno"[..]));
    }

    #[test]
    fn an_unknown_congestion_control_is_said_with_its_name() {
        let e = check_congestion("nonesuch").unwrap_err().to_string();
        assert!(e.contains("TCP_CONGESTION nonesuch"), "{e}");
        // In every kernel, and allowed to everybody.
        check_congestion("reno").unwrap();
    }
}
