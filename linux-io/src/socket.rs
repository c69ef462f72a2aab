//! Sockets that measure: bound to an interface, stamped by the kernel, with the facts about each
//! datagram that the packet's header had.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::card::CardClock;
use crate::sockopt::{
    BIND_PATIENCE, RECEIVE_BUFFER, SocketError, bind_patiently, error, interface_error, set,
    set_receive_buffer,
};
use crate::{icmp_filter, sys};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(addr: &std::net::IpAddr) -> Self {
        match addr {
            std::net::IpAddr::V4(_) => Self::V4,
            std::net::IpAddr::V6(_) => Self::V6,
        }
    }

    const fn any_port(self) -> SocketAddr {
        match self {
            Self::V4 => SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            Self::V6 => SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
        }
    }
}

/// What a socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    /// UDP datagrams; IPv6 sockets take IPv6 only.
    Udp,
    /// ICMP echo without privilege: the kernel sets the identifier and the checksum and hands over
    /// only answers to this socket, without IP header. Who may is set by the sysctl
    /// `net.ipv4.ping_group_range`.
    Ping,
    /// ICMP through a raw socket, which needs `CAP_NET_RAW`. What is received is echo replies with this
    /// identifier, which all requests that are sent are to carry, and errors, whatever they are about. It
    /// begins with the IPv4 header on IPv4, with the ICMPv6 header on IPv6.
    RawIcmp {
        /// See above.
        identifier: u16,
    },
}

/// Where transmit and receive stamps are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamping {
    pub(crate) receive: bool,
    pub(crate) transmit: bool,
    /// Transmit stamps are told apart by the kernel's counter even where it takes keys.
    pub(crate) counted: bool,
}

/// A socket ready for [`crate::Engine::add_socket`].
#[derive(Debug)]
pub struct ProbeSocket {
    pub(crate) socket: Socket,
    pub(crate) kind: SocketKind,
    pub(crate) family: Family,
    pub(crate) stamping: Stamping,
    pub(crate) report_errors: bool,
    pub(crate) report_sent: bool,
    pub(crate) join_sends: bool,
    /// The clock of the card whose stamps are wanted too.
    pub(crate) card: Option<Box<CardClock>>,
    local: SocketAddr,
}

impl ProbeSocket {
    /// A UDP socket. IPv6 sockets take IPv6 only.
    #[must_use]
    pub const fn udp(family: Family) -> SocketBuilder {
        SocketBuilder::new(SocketKind::Udp, family)
    }

    /// An unprivileged ICMP echo socket; see [`SocketKind::Ping`].
    #[must_use]
    pub const fn ping(family: Family) -> SocketBuilder {
        SocketBuilder::new(SocketKind::Ping, family)
    }

    /// A raw ICMP socket; see [`SocketKind::RawIcmp`].
    #[must_use]
    pub const fn raw_icmp(family: Family, identifier: u16) -> SocketBuilder {
        SocketBuilder::new(SocketKind::RawIcmp { identifier }, family)
    }

    /// The address it is bound to; of a ping socket the "port" is its ICMP identifier.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What it carries.
    #[must_use]
    pub const fn kind(&self) -> SocketKind {
        self.kind
    }

    /// IPv4 or IPv6.
    #[must_use]
    pub const fn family(&self) -> Family {
        self.family
    }

    /// Asks for the stamps of the network card with this clock too, and prefers them; see
    /// [`crate::stamping::choose`].
    #[must_use]
    pub fn with_card(mut self, clock: CardClock) -> Self {
        self.card = Some(Box::new(clock));
        self
    }

    /// The receive buffer that the kernel granted, in bytes of its own accounting.
    pub fn receive_buffer(&self) -> io::Result<usize> {
        self.socket.recv_buffer_size()
    }
}

impl AsFd for ProbeSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl From<ProbeSocket> for OwnedFd {
    fn from(socket: ProbeSocket) -> Self {
        socket.socket.into()
    }
}

/// What a [`ProbeSocket`] is to be.
#[derive(Clone, Debug)]
pub struct SocketBuilder {
    kind: SocketKind,
    family: Family,
    bind: Option<SocketAddr>,
    interface: Option<String>,
    mark: Option<u32>,
    tos: Option<u8>,
    ttl: Option<u8>,
    is_whole: bool,
    receive_buffer: usize,
    stamping: Stamping,
    header_facts: bool,
    report_errors: bool,
    report_sent: bool,
    join_sends: bool,
    bind_patience: Duration,
}

impl SocketBuilder {
    const fn new(kind: SocketKind, family: Family) -> Self {
        Self {
            kind,
            family,
            bind: None,
            interface: None,
            mark: None,
            tos: None,
            ttl: None,
            is_whole: false,
            receive_buffer: RECEIVE_BUFFER,
            stamping: Stamping {
                receive: true,
                transmit: true,
                counted: false,
            },
            header_facts: true,
            report_errors: false,
            report_sent: false,
            join_sends: false,
            bind_patience: BIND_PATIENCE,
        }
    }

    /// The local address and port; by default any address and a free port. A port that is taken is
    /// retried for a quarter of a second.
    #[must_use]
    pub const fn bind(mut self, local: SocketAddr) -> Self {
        self.bind = Some(local);
        self
    }

    /// The interface that it sends through and receives from (`SO_BINDTODEVICE`). Needs no
    /// privilege on a socket that is not bound to another one.
    #[must_use]
    pub fn interface(mut self, name: &str) -> Self {
        self.interface = Some(name.to_owned());
        self
    }

    /// The mark that policy routing sees (`SO_MARK`); needs `CAP_NET_ADMIN` or `CAP_NET_RAW`.
    #[must_use]
    pub const fn mark(mut self, mark: u32) -> Self {
        self.mark = Some(mark);
        self
    }

    /// The differentiated-services code point of what is sent, 0 to 63.
    #[must_use]
    pub const fn dscp(mut self, dscp: u8) -> Self {
        self.tos = Some((dscp & 0x3f) << 2);
        self
    }

    /// TTL or hop limit of what is sent, 1 to 255.
    #[must_use]
    pub const fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Whether nothing that is sent may be cut up, here or on the way, whatever this host has learnt of the
    /// way (`IP_PMTUDISC_PROBE`): what is larger than the interface takes is refused with `EMSGSIZE`, and what
    /// a router does not pass on is reported where [`Self::report_errors`] asks for it. Off by default.
    #[must_use]
    pub const fn whole(mut self, on: bool) -> Self {
        self.is_whole = on;
        self
    }

    /// The receive buffer in bytes, 1 MiB by default. Beyond `net.core.rmem_max` it needs
    /// `CAP_NET_ADMIN`; without, the kernel grants what it allows. Each small datagram and each
    /// transmit stamp that waits in it is charged with about 1.3 kB; what does not fit is lost.
    #[must_use]
    pub const fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = bytes;
        self
    }

    /// Whether the kernel stamps what arrives and what leaves; both by default.
    #[must_use]
    pub const fn stamps(mut self, receive: bool, transmit: bool) -> Self {
        self.stamping.receive = receive;
        self.stamping.transmit = transmit;
        self
    }

    /// Tells transmit stamps apart by the kernel's counter of datagrams instead of by a key in each
    /// datagram's control message. Saves a tenth of the CPU time of a datagram that needs no
    /// control message otherwise; for busy sockets whose sends hardly ever fail, because next to a
    /// refused datagram a stamp may be taken for its neighbour's.
    #[must_use]
    pub const fn count_stamps(mut self, on: bool) -> Self {
        self.stamping.counted = on;
        self
    }

    /// Whether TTL and TOS of each received datagram are told; on by default. Each costs about 2 %
    /// of an echo's CPU time.
    #[must_use]
    pub const fn header_facts(mut self, on: bool) -> Self {
        self.header_facts = on;
        self
    }

    /// Whether ICMP errors about what was sent are reported (`IP_RECVERR`), as
    /// [`crate::Event::SocketError`]. Off by default: it lets any router on the way disturb the
    /// socket.
    #[must_use]
    pub const fn report_errors(mut self, on: bool) -> Self {
        self.report_errors = on;
        self
    }

    /// Whether successful sends are reported too ([`crate::Event::Sent`] without errno); failed
    /// ones always are. Off by default: it costs a completion per datagram.
    #[must_use]
    pub const fn report_sent(mut self, on: bool) -> Self {
        self.report_sent = on;
        self
    }

    /// Whether datagrams to one place that are queued together with [`crate::Outbox::send_joined`] leave
    /// in one send, which costs little more than one of them alone. They have one transmit stamp then.
    /// The kernel is told in advance how long most of those are, which makes it look at each send for less.
    /// Only for UDP, and only where the kernel's stamps are told apart by keys (Linux 6.13) or not asked
    /// for. Where the way takes none of it (IPsec, a card without checksums) the datagrams of the first
    /// such send are lost, told as failed, and the socket sends each by itself from then on. Off by
    /// default.
    #[must_use]
    pub const fn join_sends(mut self, on: bool) -> Self {
        self.join_sends = on;
        self
    }

    /// Makes the socket.
    pub fn build(self) -> Result<ProbeSocket, SocketError> {
        let socket = self.open()?;
        let fd = socket.as_raw_fd();
        let v6 = self.family == Family::V6;
        if let SocketKind::RawIcmp { identifier } = self.kind {
            // First of all: it receives already.
            icmp_filter::attach(fd, self.family, identifier)
                .map_err(error("ICMP filter", "own echo replies, errors"))?;
        } else if v6 {
            socket
                .set_only_v6(true)
                .map_err(error("IPV6_V6ONLY", "on"))?;
        }
        if let Some(name) = &self.interface {
            socket
                .bind_device(Some(name.as_bytes()))
                .map_err(|source| interface_error(name, source))?;
        }
        if let Some(mark) = self.mark {
            socket.set_mark(mark).map_err(|source| SocketError {
                step: "SO_MARK",
                subject: mark.to_string(),
                source,
                remedy: "a firewall mark needs CAP_NET_ADMIN or CAP_NET_RAW",
            })?;
        }
        self.set_header(fd)?;
        self.set_receive(fd)?;
        set_receive_buffer(&socket, self.receive_buffer)?;
        let local = self.bind.unwrap_or_else(|| self.family.any_port());
        bind_patiently(&socket, local, self.bind_patience)?;
        let local = socket
            .local_addr()
            .ok()
            .and_then(|a| a.as_socket())
            .unwrap_or(local);
        Ok(ProbeSocket {
            socket,
            kind: self.kind,
            family: self.family,
            stamping: self.stamping,
            report_errors: self.report_errors,
            report_sent: self.report_sent,
            join_sends: self.join_sends,
            card: None,
            local,
        })
    }

    fn open(&self) -> Result<Socket, SocketError> {
        let (domain, icmp) = match self.family {
            Family::V4 => (Domain::IPV4, Protocol::ICMPV4),
            Family::V6 => (Domain::IPV6, Protocol::ICMPV6),
        };
        let (kind, protocol, subject, remedy) = match self.kind {
            SocketKind::Udp => (Type::DGRAM, Protocol::UDP, "UDP", ""),
            SocketKind::Ping => (
                Type::DGRAM,
                icmp,
                "ICMP echo",
                "the sysctl net.ipv4.ping_group_range has to include this process's group",
            ),
            SocketKind::RawIcmp { .. } => (
                Type::RAW,
                icmp,
                "raw ICMP",
                "a raw socket needs CAP_NET_RAW",
            ),
        };
        Socket::new(domain, kind, Some(protocol)).map_err(|source| SocketError {
            step: "socket",
            subject: subject.to_owned(),
            source,
            remedy,
        })
    }

    /// Options that shape the header of what is sent.
    fn set_header(&self, fd: RawFd) -> Result<(), SocketError> {
        let v6 = self.family == Family::V6;
        if let Some(tos) = self.tos {
            let (level, name) = if v6 {
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
            } else {
                (libc::IPPROTO_IP, libc::IP_TOS)
            };
            set(fd, level, name, i32::from(tos)).map_err(error("IP_TOS", tos))?;
        }
        if let Some(ttl) = self.ttl {
            let (level, name) = if v6 {
                (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS)
            } else {
                (libc::IPPROTO_IP, libc::IP_TTL)
            };
            set(fd, level, name, i32::from(ttl)).map_err(error("IP_TTL", ttl))?;
        }
        if self.is_whole {
            let (level, name, probe) = if v6 {
                (
                    libc::IPPROTO_IPV6,
                    libc::IPV6_MTU_DISCOVER,
                    libc::IPV6_PMTUDISC_PROBE,
                )
            } else {
                (
                    libc::IPPROTO_IP,
                    libc::IP_MTU_DISCOVER,
                    libc::IP_PMTUDISC_PROBE,
                )
            };
            set(fd, level, name, probe).map_err(error("IP_MTU_DISCOVER", "probe"))?;
            if v6 {
                // Else this host itself would cut up what its interface does not take.
                set(fd, level, libc::IPV6_DONTFRAG, 1).map_err(error("IPV6_DONTFRAG", "on"))?;
            }
        }
        Ok(())
    }

    /// Options that say what comes beside each received datagram. Stamps are asked for when the
    /// socket joins an engine.
    fn set_receive(&self, fd: RawFd) -> Result<(), SocketError> {
        // A socket with one address need not be told which was hit.
        let one_address = self.bind.is_some_and(|a| !a.ip().is_unspecified());
        let facts = self.header_facts;
        let wanted: [(bool, i32, i32, &'static str); 3] = match self.family {
            Family::V4 => [
                (
                    !one_address,
                    libc::IPPROTO_IP,
                    libc::IP_PKTINFO,
                    "IP_PKTINFO",
                ),
                (facts, libc::IPPROTO_IP, libc::IP_RECVTTL, "IP_RECVTTL"),
                (facts, libc::IPPROTO_IP, libc::IP_RECVTOS, "IP_RECVTOS"),
            ],
            Family::V6 => [
                (
                    !one_address,
                    libc::IPPROTO_IPV6,
                    libc::IPV6_RECVPKTINFO,
                    "IPV6_RECVPKTINFO",
                ),
                (
                    facts,
                    libc::IPPROTO_IPV6,
                    libc::IPV6_RECVHOPLIMIT,
                    "IPV6_RECVHOPLIMIT",
                ),
                (
                    facts,
                    libc::IPPROTO_IPV6,
                    libc::IPV6_RECVTCLASS,
                    "IPV6_RECVTCLASS",
                ),
            ],
        };
        for (_, level, name, word) in wanted.into_iter().filter(|w| w.0) {
            set(fd, level, name, 1).map_err(error(word, "on"))?;
        }
        set(fd, libc::SOL_SOCKET, sys::SO_RXQ_OVFL, 1).map_err(error("SO_RXQ_OVFL", "on"))?;
        if self.report_errors {
            let (level, name) = match self.family {
                Family::V4 => (libc::IPPROTO_IP, libc::IP_RECVERR),
                Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
            };
            set(fd, level, name, 1).map_err(error("IP_RECVERR", "on"))?;
        }
        Ok(())
    }
}
