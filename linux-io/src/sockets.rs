//! The engine's table of sockets and the operations that are running on each.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::types::Fixed;
use io_uring::{opcode, squeue};

use crate::cmsg::RECEIVE_SPACE;
use crate::event::SocketId;
use crate::sockaddr::NAME_LEN;
use crate::socket::{ProbeSocket, SocketKind};
use crate::sockopt;
use crate::stampkeys::StampKeys;
use crate::support::Features;
use crate::sys;
use crate::tag::{GENERATIONS, Op, Tag};
use crate::usual::Usual;

/// How a transmit stamp says which datagram it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyMode {
    /// There are no transmit stamps.
    None,
    /// Each datagram carries the driver's key (Linux 6.13).
    Given,
    /// By the kernel's counter.
    Counted,
}

/// A multishot operation of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Running {
    Receive,
    /// Of the socket's error queue, where transmit stamps and ICMP errors are read. The ring's own
    /// command for stamps (`SOCKET_URING_OP_TX_TIMESTAMP`, Linux 6.17) is no way: beside it, a
    /// completion of one lap of the queue earlier was handed out once more about every 35,000 on
    /// Linux 6.18, and with it a receive buffer that was in use.
    ErrorPoll,
}

impl Running {
    pub(crate) const ALL: [Self; 2] = [Self::Receive, Self::ErrorPoll];

    const fn op(self) -> Op {
        match self {
            Self::Receive => Op::Receive,
            Self::ErrorPoll => Op::ErrorPoll,
        }
    }
}

/// An open socket.
pub(crate) struct Open {
    pub(crate) socket: ProbeSocket,
    pub(crate) keys: KeyMode,
    pub(crate) counted: Option<StampKeys>,
    /// The count of dropped datagrams seen last.
    pub(crate) drops: u32,
    /// The only address it has, where it is bound to one.
    pub(crate) address: Option<IpAddr>,
    /// Whether datagrams to one place may leave in one send.
    pub(crate) joins: bool,
    /// How long they mostly are.
    pub(crate) usual: Usual,
}

impl Open {
    /// Whether nobody needs to know of a send that succeeded: no report was asked for, and no ICMP
    /// error of an earlier datagram can make this one fail, which is then tried again.
    pub(crate) const fn quiet_sends(&self) -> bool {
        !self.socket.report_sent && !self.socket.report_errors
    }

    /// Tells the kernel how long joined datagrams mostly are now, where that has changed. To be called
    /// when every send that was prepared has been carried out.
    fn tell_usual(&mut self) {
        let Some(len) = self.usual.to_tell() else {
            return;
        };
        let value = i32::from(len);
        match sockopt::set(self.fd(), libc::SOL_UDP, libc::UDP_SEGMENT, value) {
            Ok(()) => self.usual.tell(len),
            Err(_) => self.usual.forbid(),
        }
    }

    /// A send was refused with `errno`. Several datagrams in one are for reasons that each alone may not be: a card
    /// without checksums, IPsec, or a way that would have to fragment them; and so is one that the socket's option
    /// is for, as the first of several.
    pub(crate) const fn learn_refusal(&mut self, op: Op, errno: i32) {
        let is_together = matches!(errno, libc::EIO | libc::EINVAL | libc::EMSGSIZE);
        if is_together && matches!(op, Op::UsualSend | Op::JoinedSend) {
            self.usual.forbid();
        }
        if is_together && matches!(op, Op::JoinedSend) {
            self.joins = false;
        }
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.socket.socket.as_raw_fd()
    }

    /// Which operations this socket needs.
    pub(crate) const fn wants(&self, running: Running) -> bool {
        match running {
            Running::Receive => true,
            Running::ErrorPoll => self.socket.report_errors || self.socket.stamping.transmit,
        }
    }
}

struct Place {
    generation: u16,
    open: Option<Open>,
    /// Operations whose last completion has not come; the place is not used again before.
    running: [bool; 2],
}

impl Place {
    fn is_free(&self) -> bool {
        self.open.is_none() && self.running == [false; 2]
    }
}

/// The table.
pub(crate) struct Sockets {
    places: Box<[Place]>,
    /// Whether there was ever one that joins what it sends.
    any_joins: bool,
    /// What the kernel is told about every receive: how much room the address and the control
    /// messages have.
    template: Box<libc::msghdr>,
}

impl Sockets {
    pub(crate) fn new(count: u16) -> Self {
        // SAFETY: msghdr is integers and pointers, for which zero is a valid value.
        let mut template: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        template.msg_namelen = NAME_LEN as libc::socklen_t;
        template.msg_controllen = RECEIVE_SPACE as _;
        Self {
            places: (0..count)
                .map(|_| Place {
                    generation: 0,
                    open: None,
                    running: [false; 2],
                })
                .collect(),
            any_joins: false,
            template,
        }
    }

    pub(crate) const fn template(&self) -> &libc::msghdr {
        &self.template
    }

    pub(crate) fn get(&self, id: SocketId) -> Option<&Open> {
        let place = self.places.get(id.index())?;
        (place.generation == id.generation)
            .then_some(place.open.as_ref())
            .flatten()
    }

    pub(crate) fn get_mut(&mut self, id: SocketId) -> Option<&mut Open> {
        let place = self.places.get_mut(id.index())?;
        (place.generation == id.generation)
            .then_some(place.open.as_mut())
            .flatten()
    }

    /// Whether there is a place for another.
    pub(crate) fn has_room(&self) -> bool {
        self.places.iter().any(Place::is_free)
    }

    /// Takes a socket in; None where the table is full.
    pub(crate) fn insert(&mut self, open: Open) -> Result<SocketId, Open> {
        let free = self
            .places
            .iter_mut()
            .enumerate()
            .find(|(_, p)| p.is_free());
        let Some((index, place)) = free else {
            return Err(open);
        };
        self.any_joins |= open.joins;
        place.open = Some(open);
        Ok(SocketId {
            index: index as u16,
            generation: place.generation,
        })
    }

    /// Every send that was prepared has been carried out.
    pub(crate) fn sent(&mut self) {
        if !self.any_joins {
            return;
        }
        for open in self.places.iter_mut().filter_map(|p| p.open.as_mut()) {
            open.tell_usual();
        }
    }

    /// Takes a socket out. Its place stays taken until its operations have ended.
    pub(crate) fn remove(&mut self, id: SocketId) -> Option<Open> {
        self.get(id)?;
        let place = self.places.get_mut(id.index())?;
        place.generation = (place.generation + 1) % GENERATIONS;
        place.open.take()
    }

    pub(crate) fn is_running(&self, id: SocketId, running: Running) -> bool {
        self.places
            .get(id.index())
            .is_some_and(|p| p.running[running as usize])
    }

    pub(crate) fn set_running(&mut self, index: u16, running: Running, on: bool) {
        if let Some(place) = self.places.get_mut(usize::from(index)) {
            place.running[running as usize] = on;
        }
    }

    /// The submission that starts an operation.
    pub(crate) fn start(&self, id: SocketId, running: Running, buffer_group: u16) -> squeue::Entry {
        let fd = Fixed(u32::from(id.index));
        let entry = match running {
            Running::Receive => {
                opcode::RecvMsgMulti::new(fd, &raw const *self.template, buffer_group).build()
            }
            Running::ErrorPoll => opcode::PollAdd::new(fd, libc::POLLERR as u32)
                .multi(true)
                .build(),
        };
        entry.user_data(Self::tag(id, running).pack())
    }

    /// The submission that ends an operation.
    pub(crate) fn stop(id: SocketId, running: Running) -> squeue::Entry {
        opcode::AsyncCancel::new(Self::tag(id, running).pack())
            .build()
            .user_data(Tag::new(Op::Ignored, 0, 0, 0).pack())
    }

    const fn tag(id: SocketId, running: Running) -> Tag {
        Tag::new(running.op(), id.index, id.generation, 0)
    }
}

/// Asks the kernel for the stamps that the socket was built for, in the best way there is. Fails
/// where the kernel refuses them.
pub(crate) fn open(socket: ProbeSocket, features: Features) -> io::Result<Open> {
    let stamping = socket.stamping;
    let mut flags = sys::SOF_TIMESTAMPING_SOFTWARE;
    if stamping.receive {
        flags |= sys::SOF_TIMESTAMPING_RX_SOFTWARE;
    }
    if stamping.transmit {
        flags |= sys::SOF_TIMESTAMPING_TX_SOFTWARE
            | sys::SOF_TIMESTAMPING_OPT_ID
            | sys::SOF_TIMESTAMPING_OPT_TSONLY;
    }
    if socket.card.is_some() {
        flags |= sys::SOF_TIMESTAMPING_RAW_HARDWARE;
        if stamping.receive {
            flags |= sys::SOF_TIMESTAMPING_RX_HARDWARE;
        }
        if stamping.transmit {
            flags |= sys::SOF_TIMESTAMPING_TX_HARDWARE;
        }
    }
    if stamping.receive || stamping.transmit {
        sockopt::set(
            socket.socket.as_raw_fd(),
            libc::SOL_SOCKET,
            sys::SO_TIMESTAMPING,
            flags.cast_signed(),
        )?;
    }
    let keys = match stamping.transmit {
        false => KeyMode::None,
        true if features.stamp_keys && !stamping.counted => KeyMode::Given,
        true => KeyMode::Counted,
    };
    // One stamp is told for all of a send. The kernel's is of the moment when it hands them to the card, a
    // card's of when it has sent one of them.
    let joins = socket.join_sends
        && socket.kind() == SocketKind::Udp
        && keys != KeyMode::Counted
        && socket.card.is_none()
        && !socket.report_errors
        && !socket.report_sent;
    Ok(Open {
        joins,
        usual: Usual::default(),
        keys,
        counted: (keys == KeyMode::Counted).then(StampKeys::new),
        drops: 0,
        address: Some(socket.local_addr().ip()).filter(|ip| !ip.is_unspecified()),
        socket,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_option_was_for_ends_it() {
        let socket = ProbeSocket::udp(crate::Family::V4)
            .bind(([127, 0, 0, 1], 0).into())
            .join_sends(true)
            .build();
        let mut open = open(socket.unwrap(), Features::ALL).unwrap();
        assert!(open.joins);
        for _ in 0..100 {
            open.usual.begun();
            open.usual.joined(172);
        }
        open.tell_usual();
        assert_eq!((open.usual.told(), open.usual.to_tell()), (172, None));
        for errno in [libc::EIO, libc::EINVAL, libc::EMSGSIZE] {
            open.learn_refusal(Op::QuietSend, errno);
        }
        open.learn_refusal(Op::UsualSend, libc::ENETUNREACH);
        open.learn_refusal(Op::JoinedSend, libc::ENOBUFS);
        assert_eq!((open.joins, open.usual.to_tell()), (true, None));
        open.learn_refusal(Op::UsualSend, libc::EINVAL);
        assert_eq!((open.joins, open.usual.to_tell()), (true, Some(0)));
        open.learn_refusal(Op::JoinedSend, libc::EIO);
        assert!(!open.joins);
    }
}
