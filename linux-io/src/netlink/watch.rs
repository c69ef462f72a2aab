//! Changes of links, addresses and routes as they happen.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::message::Messages;
use super::{Address, RECEIVE_BYTES, Route, open_socket, parse, receive};
use crate::sys;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
/// Links, IPv4 addresses and routes, IPv6 addresses and routes.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An interface appeared or changed.
    Link {
        /// Its index.
        index: u32,
        /// Its name.
        name: String,
        /// Switched on by the administrator.
        up: bool,
        /// Has a carrier.
        running: bool,
    },
    /// An interface is gone.
    LinkGone {
        /// The index it had.
        index: u32,
        /// The name it had.
        name: String,
    },
    /// An address was added to an interface, or changed.
    Address {
        /// The interface's index.
        index: u32,
        /// The address.
        address: Address,
    },
    /// An address was taken from an interface.
    AddressGone {
        /// The interface's index.
        index: u32,
        /// The address.
        ip: IpAddr,
    },
    /// A route was added or changed.
    Route(Route),
    /// A route was removed.
    RouteGone(Route),
    /// So much changed that some of it was not told: read everything anew.
    Overrun,
}

/// A subscription to changes. Its descriptor is readable when there are some, so that it can be
/// waited on together with others; or a thread calls [`Watch::next`].
#[derive(Debug)]
pub struct Watch {
    fd: OwnedFd,
    buffer: Box<[u8]>,
    pending: std::collections::VecDeque<Change>,
}

impl Watch {
    /// Subscribes in this thread's network namespace.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            fd: open_socket(libc::NETLINK_ROUTE, GROUPS)?,
            buffer: vec![0; RECEIVE_BYTES].into_boxed_slice(),
            pending: std::collections::VecDeque::new(),
        })
    }

    /// The next change, waiting for it at most this long; None where there was none. With a
    /// patience of zero it only takes what is there.
    pub fn next(&mut self, patience: Duration) -> io::Result<Option<Change>> {
        if let Some(change) = self.pending.pop_front() {
            return Ok(Some(change));
        }
        let mut poll = libc::pollfd {
            fd: self.fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let millis = libc::c_int::try_from(patience.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: one pollfd that lives until the call returns.
        match sys::check(unsafe { libc::poll(&raw mut poll, 1, millis) }) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(None),
            Err(e) => return Err(e),
        }
        match receive(self.fd.as_fd(), &mut self.buffer, libc::MSG_DONTWAIT) {
            Ok(len) => {
                let messages = Messages(&self.buffer[..len]);
                self.pending
                    .extend(messages.filter_map(|m| change(m.kind, m.body)));
            }
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                self.pending.push_back(Change::Overrun);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        Ok(self.pending.pop_front())
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn change(kind: u16, body: &[u8]) -> Option<Change> {
    match kind {
        RTM_NEWLINK => parse::link(body).map(|l| Change::Link {
            index: l.index,
            name: l.name,
            up: l.up,
            running: l.running,
        }),
        RTM_DELLINK => parse::link(body).map(|l| Change::LinkGone {
            index: l.index,
            name: l.name,
        }),
        RTM_NEWADDR => {
            parse::address(body).map(|(index, address)| Change::Address { index, address })
        }
        RTM_DELADDR => {
            parse::address(body).map(|(index, a)| Change::AddressGone { index, ip: a.ip })
        }
        RTM_NEWROUTE => parse::route(body).map(Change::Route),
        RTM_DELROUTE => parse::route(body).map(Change::RouteGone),
        _ => None,
    }
}
