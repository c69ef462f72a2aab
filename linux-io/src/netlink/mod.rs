//! The host's interfaces, addresses and routes, and their changes, from the kernel itself
//! (`rtnetlink(7)`). Needs no privilege.

mod leaving;
mod message;
mod parse;
mod types;
mod watch;
mod wireless;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

pub use leaving::Leaving;
pub use types::{Address, Interface, InterfaceKind, Route, RouteQuery};
pub use watch::{Change, Watch};
pub use wireless::{Station, Wireless};

use crate::counters::InterfaceCounters;
use crate::sys;
use message::{Message, Messages, NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, Request};

const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;
const RTM_GETROUTE: u16 = 26;
const RTM_GETQDISC: u16 = 38;
const RTM_GETSTATS: u16 = 94;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_MARK: u16 = 16;
/// Answer with the entry of the table that matches. Without it, the kernel assumes that a
/// destination without a route is on the link of the interface asked for.
const RTM_F_FIB_MATCH: u32 = 0x2000;
/// And name the table that it was found in.
const RTM_F_LOOKUP_TABLE: u32 = 0x1000;
const IFLA_STATS_LINK_64: u32 = 1;

/// The fixed structure of requests for all links, addresses or routes: the longest of theirs, of any family.
const ALL: [u8; 16] = [0; 16];
/// The same for all queues, `struct tcmsg`.
const ALL_QUEUES: [u8; 20] = [0; 20];

const RECEIVE_BYTES: usize = 64 * 1024;
/// How often a dump that a change interrupted is begun again.
const DUMP_ATTEMPTS: usize = 5;

/// Reads messages of every kind from any bytes.
#[cfg(any(test, fuzzing))]
pub(crate) fn walk(bytes: &[u8]) {
    let whole = std::iter::once(bytes);
    for body in Messages(bytes).map(|m| m.body).chain(whole) {
        // What a link is beyond its message is asked of sysfs.
        let _ = (parse::link(body).is_some(), parse::address(body));
        let _ = (parse::route(body), parse::statistics(body));
        let _ = parse::queue(body);
        let _ = (wireless::family(body), wireless::station(body));
        let _ = wireless::interface_type(body);
    }
}

/// A connection to the kernel's routing tables.
#[derive(Debug)]
pub struct Netlink {
    fd: OwnedFd,
    sequence: u32,
    buffer: Box<[u8]>,
}

impl Netlink {
    /// Opens a connection in this thread's network namespace.
    pub fn open() -> io::Result<Self> {
        Self::connected(open_socket(libc::NETLINK_ROUTE, 0)?)
    }

    fn connected(fd: OwnedFd) -> io::Result<Self> {
        // The kernel answers at once; a wait without end would only hide a mistake.
        let patience = libc::timeval {
            tv_sec: 2,
            tv_usec: 0,
        };
        // SAFETY: the option's value is a timeval that lives until the call returns.
        sys::check(unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const patience).cast(),
                size_of::<libc::timeval>() as libc::socklen_t,
            )
        })?;
        Ok(Self {
            fd,
            sequence: 0,
            buffer: vec![0; RECEIVE_BYTES].into_boxed_slice(),
        })
    }

    /// All interfaces with their addresses, in the order of their indexes.
    pub fn interfaces(&mut self) -> io::Result<Vec<Interface>> {
        let mut found: Vec<Interface> = Vec::new();
        self.dump(RTM_GETLINK, ALL, &mut found, |found, m| {
            found.extend(parse::interface(m.body));
        })?;
        let mut addresses = Vec::new();
        self.dump(RTM_GETADDR, ALL, &mut addresses, |addresses, m| {
            addresses.extend(parse::address(m.body));
        })?;
        for (index, address) in addresses {
            if let Some(interface) = found.iter_mut().find(|i| i.index == index) {
                interface.addresses.push(address);
            }
        }
        found.sort_by_key(|i| i.index);
        Ok(found)
    }

    /// The interface of this name with its addresses, if there is one now.
    pub fn interface(&mut self, name: &str) -> io::Result<Option<Interface>> {
        Ok(self.interfaces()?.into_iter().find(|i| i.name == name))
    }

    /// The default routes of all tables that have a next hop or a link, best metric first.
    pub fn default_routes(&mut self) -> io::Result<Vec<Route>> {
        let mut found = Vec::new();
        self.dump(RTM_GETROUTE, ALL, &mut found, |found, m| {
            found.extend(parse::route(m.body).filter(|r| r.prefix == 0));
        })?;
        found.sort_by_key(|r| (r.family, r.rank()));
        Ok(found)
    }

    /// The route that a datagram would take, or None where the tables have none: an error to name
    /// before anything is sent, because a socket bound to an interface would look for the
    /// destination on the link itself.
    pub fn route_for(&mut self, query: &RouteQuery) -> io::Result<Option<Route>> {
        let Some(entry) = self.ask_route(query, RTM_F_FIB_MATCH | RTM_F_LOOKUP_TABLE)? else {
            return Ok(None);
        };
        // The entry says which route it is, the plain answer which next hop and source come of it.
        let Some(resolved) = self.ask_route(query, 0)? else {
            return Ok(None);
        };
        Ok(Some(Route {
            prefix: entry.prefix,
            metric: entry.metric,
            table: entry.table,
            ..resolved
        }))
    }

    fn ask_route(&mut self, query: &RouteQuery, flags: u32) -> io::Result<Option<Route>> {
        let (family, bits, to) = octets(&query.to);
        let mut fixed = [0u8; 12];
        fixed[0] = family;
        fixed[1] = bits;
        fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
        let from = query.from.as_ref().map(octets);
        if let Some((f, bits, _)) = &from
            && *f == family
        {
            fixed[2] = *bits;
        }
        let mut request =
            Request::new(RTM_GETROUTE, 0, self.next_sequence(), fixed).attribute(RTA_DST, to.get());
        if let Some((f, _, from)) = &from
            && *f == family
        {
            request = request.attribute(RTA_SRC, from.get());
        }
        if let Some(index) = query.interface {
            request = request.attribute(RTA_OIF, &index.to_ne_bytes());
        }
        if let Some(mark) = query.mark {
            request = request.attribute(RTA_MARK, &mark.to_ne_bytes());
        }
        let mut route = None;
        match self.exchange(&mut request, &mut route, |r, m| *r = parse::route(m.body)) {
            Ok(_) => Ok(route),
            Err(e) => match e.raw_os_error() {
                Some(
                    libc::ENETUNREACH
                    | libc::EHOSTUNREACH
                    | libc::ESRCH
                    | libc::EACCES
                    | libc::ENODEV
                    | libc::ENETDOWN,
                ) => Ok(None),
                _ => Err(e),
            },
        }
    }

    /// The counters of the interface with this index. Allocates nothing. ENODEV where it is gone.
    pub fn counters(&mut self, index: u32) -> io::Result<InterfaceCounters> {
        let mut fixed = [0u8; 12];
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        fixed[8..12].copy_from_slice(&IFLA_STATS_LINK_64.to_ne_bytes());
        let mut request = Request::new(RTM_GETSTATS, 0, self.next_sequence(), fixed);
        let mut found = None;
        self.exchange(&mut request, &mut found, |f, m| {
            *f = parse::statistics(m.body)
        })?;
        found.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// What this host has dropped so far of what was to leave by the interface with this index. ENODEV where it is
    /// gone.
    pub fn leaving(&mut self, index: u32) -> io::Result<Leaving> {
        let mut links = Vec::new();
        self.dump(RTM_GETLINK, ALL, &mut links, |links, m| {
            links.extend(parse::link(m.body));
        })?;
        let mut queues = Vec::new();
        self.dump(RTM_GETQDISC, ALL_QUEUES, &mut queues, |queues, m| {
            queues.extend(parse::queue(m.body));
        })?;
        Leaving::of(index, &links, &queues)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    const fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Asks for everything of one type, all of whose fixed structure is zero; begins again where a change interrupted
    /// the answer.
    fn dump<T, const N: usize>(
        &mut self,
        kind: u16,
        fixed: [u8; N],
        into: &mut Vec<T>,
        mut each: impl FnMut(&mut Vec<T>, Message<'_>),
    ) -> io::Result<()> {
        for _ in 0..DUMP_ATTEMPTS {
            into.clear();
            let mut request = Request::new(kind, NLM_F_DUMP, self.next_sequence(), fixed);
            if self.exchange(&mut request, into, &mut each)? {
                return Ok(());
            }
        }
        Err(io::Error::from_raw_os_error(libc::EINTR))
    }

    /// Sends a request and hands over every message of its answer; false where a change
    /// interrupted it.
    fn exchange<T>(
        &mut self,
        request: &mut Request,
        into: &mut T,
        mut each: impl FnMut(&mut T, Message<'_>),
    ) -> io::Result<bool> {
        let bytes = request.finish();
        // SAFETY: the bytes live until the call returns.
        sys::check(unsafe {
            libc::send(
                self.fd.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_NOSIGNAL,
            ) as libc::c_int
        })?;
        let mut whole = true;
        loop {
            let len = receive(self.fd.as_fd(), &mut self.buffer, 0)?;
            for m in Messages(&self.buffer[..len]) {
                if m.sequence != self.sequence {
                    // A late answer to a request that was given up.
                    continue;
                }
                whole &= m.flags & NLM_F_DUMP_INTR == 0;
                match m.kind {
                    NLMSG_DONE => return Ok(whole),
                    NLMSG_ERROR => {
                        return match message::number(m.body) {
                            Some(0) => Ok(whole),
                            Some(code) => Err(io::Error::from_raw_os_error(
                                code.cast_signed().wrapping_neg(),
                            )),
                            None => Err(io::Error::from(io::ErrorKind::InvalidData)),
                        };
                    }
                    _ => {
                        each(into, m);
                        // NLM_F_MULTI: more messages, and a final one, follow.
                        if m.flags & 2 == 0 {
                            return Ok(whole);
                        }
                    }
                }
            }
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// An address' bytes in network order.
struct Octets {
    bytes: [u8; 16],
    len: usize,
}

impl Octets {
    fn get(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

fn octets(ip: &IpAddr) -> (u8, u8, Octets) {
    let mut bytes = [0; 16];
    match ip {
        IpAddr::V4(v4) => {
            bytes[..4].copy_from_slice(&v4.octets());
            (libc::AF_INET as u8, 32, Octets { bytes, len: 4 })
        }
        IpAddr::V6(v6) => {
            bytes.copy_from_slice(&v6.octets());
            (libc::AF_INET6 as u8, 128, Octets { bytes, len: 16 })
        }
    }
}

fn open_socket(protocol: libc::c_int, groups: u32) -> io::Result<OwnedFd> {
    // SAFETY: makes a new descriptor from three numbers.
    let fd = sys::check(unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            protocol,
        )
    })?;
    // SAFETY: the descriptor is new and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: sockaddr_nl is integers, for which zero is a valid value.
    let mut own: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    own.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    own.nl_groups = groups;
    // SAFETY: the address lives until the call returns and has the length given.
    sys::check(unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const own).cast(),
            size_of::<libc::sockaddr_nl>() as libc::socklen_t,
        )
    })?;
    Ok(fd)
}

/// Receives one datagram from the kernel. Other processes may send to a netlink socket too; what is
/// theirs counts as empty.
fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
    // SAFETY: sockaddr_nl is integers, for which zero is a valid value.
    let mut from: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    let mut from_len = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
    // SAFETY: buffer and address live until the call returns, with the lengths given.
    let len = unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            flags,
            (&raw mut from).cast(),
            &raw mut from_len,
        )
    };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    Ok(if from.nl_pid == 0 { len } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn the_loopback_interface_is_described() {
        let mut n = Netlink::open().unwrap();
        let all = n.interfaces().unwrap();
        println!("{all:?}");
        let lo = all.iter().find(|i| i.name == "lo").unwrap();
        assert_eq!(
            (lo.index, lo.kind, lo.up),
            (1, InterfaceKind::Loopback, true)
        );
        assert!(
            lo.addresses
                .iter()
                .any(|a| a.ip == IpAddr::V4(Ipv4Addr::LOCALHOST))
        );
        assert_eq!(n.interface("no-such-link").unwrap(), None);
    }

    #[test]
    fn routes_to_the_host_itself_go_by_loopback() {
        let mut n = Netlink::open().unwrap();
        for ip in [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ] {
            let r = n.route_for(&RouteQuery::to(ip)).unwrap().unwrap();
            assert_eq!((r.interface, r.gateway), (1, None), "{ip}");
        }
    }

    #[test]
    fn a_missing_route_is_none_although_the_interface_exists() {
        let mut n = Netlink::open().unwrap();
        for ip in ["192.0.2.77", "2001:db8::77"] {
            let query = RouteQuery {
                interface: Some(1),
                ..RouteQuery::to(ip.parse().unwrap())
            };
            assert_eq!(n.route_for(&query).unwrap(), None, "{ip}");
        }
    }

    #[test]
    fn default_routes_have_empty_prefixes() {
        let mut n = Netlink::open().unwrap();
        let routes = n.default_routes().unwrap();
        println!("{routes:?}");
        assert!(routes.iter().all(|r| r.prefix == 0));
    }

    #[test]
    fn what_is_to_leave_is_dropped_by_no_queue_of_loopback() {
        let mut n = Netlink::open().unwrap();
        let before = n.leaving(1).unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        for _ in 0..10 {
            socket.send_to(&[0; 100], to).unwrap();
        }
        assert_eq!(n.leaving(1).unwrap().dropped_since(&before), Some(0));
        let gone = n.leaving(0x7fff_fff0).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn counters_count_what_passes() {
        let mut n = Netlink::open().unwrap();
        let before = n.counters(1).unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        for _ in 0..10 {
            socket.send_to(&[0; 100], to).unwrap();
        }
        let after = n.counters(1).unwrap();
        assert!(after.tx_packets >= before.tx_packets + 10);
        assert!(after.tx_bytes >= before.tx_bytes + 10 * 128);
        let gone = n.counters(0x7fff_fff0).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ENODEV));
    }
}
