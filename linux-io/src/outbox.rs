//! Sending: from the driver's bytes to a submission.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use io_uring::types::Fixed;
use io_uring::{opcode, squeue};

use crate::event::{EngineCounters, SocketId};
use crate::ring::Ring;
use crate::slots::{MAX_PAYLOAD, SendSlot, SendSlots};
use crate::sockaddr::RawAddr;
use crate::sockets::{KeyMode, Sockets};
use crate::tag::{Op, Tag};

/// Where a datagram goes, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Through this socket.
    pub socket: SocketId,
    /// To this address; the port does not matter for ICMP.
    pub to: SocketAddr,
    /// From this address of the host; None leaves it to the routing table or the socket's binding.
    pub from: Option<IpAddr>,
    /// With this TOS or traffic-class octet instead of the socket's.
    pub tos: Option<u8>,
    /// The driver's name for it: comes back with its stamp or its error.
    pub key: u32,
}

impl Transmit {
    /// A datagram through `socket` to `to`, as the socket is set up.
    #[must_use]
    pub const fn new(socket: SocketId, to: SocketAddr, key: u32) -> Self {
        Self {
            socket,
            to,
            from: None,
            tos: None,
            key,
        }
    }
}

/// Why a datagram was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// All send slots hold datagrams that have not completed.
    Full,
    /// There is no such socket any more.
    NoSocket,
    /// It is longer than [`crate::MAX_PAYLOAD`].
    TooLong,
    /// The ring takes no submissions: the errno.
    Ring(i32),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("all send slots are in use"),
            Self::NoSocket => f.write_str("the socket was removed"),
            Self::TooLong => write!(f, "longer than {MAX_PAYLOAD} bytes"),
            Self::Ring(errno) => write!(
                f,
                "the ring takes no submissions: {}",
                std::io::Error::from_raw_os_error(*errno)
            ),
        }
    }
}

impl std::error::Error for SendError {}

/// Takes datagrams to be sent; they leave together at the next wait or flush.
pub struct Outbox<'a> {
    pub(crate) ring: &'a mut Ring,
    pub(crate) slots: &'a mut SendSlots,
    pub(crate) sockets: &'a mut Sockets,
    pub(crate) counters: &'a mut EngineCounters,
}

impl Outbox<'_> {
    /// Queues a copy of `bytes`.
    pub fn send(&mut self, transmit: &Transmit, bytes: &[u8]) -> Result<(), SendError> {
        if bytes.len() > MAX_PAYLOAD {
            return Err(SendError::TooLong);
        }
        self.send_with(transmit, |room| {
            room[..bytes.len()].copy_from_slice(bytes);
            Some(bytes.len())
        })
        .map(drop)
    }

    /// Has `fill` write a datagram straight into its slot of [`crate::MAX_PAYLOAD`] bytes and queues
    /// as many bytes as it says; None queues nothing. Returns whether something was queued.
    pub fn send_with(
        &mut self,
        transmit: &Transmit,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Result<bool, SendError> {
        let socket = self
            .sockets
            .get_mut(transmit.socket)
            .ok_or(SendError::NoSocket)?;
        if self.slots.peek().is_none() && self.slots.any_quiet() {
            flush(self.ring, self.slots).map_err(|e| ring_error(&e))?;
        }
        let Some((index, slot)) = self.slots.peek() else {
            return Err(SendError::Full);
        };
        let Some(len) = fill(&mut slot.payload) else {
            return Ok(false);
        };
        if len > MAX_PAYLOAD {
            return Err(SendError::TooLong);
        }
        slot.len = len;
        slot.name = RawAddr::new(transmit.to);
        slot.socket = transmit.socket.index;
        slot.socket_generation = transmit.socket.generation;
        slot.key = transmit.key;
        slot.control.clear();
        // The builder has room for one of each, so none of these can fail.
        if let Some(from) = transmit.from
            && socket.address != Some(from)
        {
            slot.control.source(from);
        }
        if let Some(tos) = transmit.tos {
            slot.control.tos(transmit.to.is_ipv6(), tos);
        }
        if socket.keys == KeyMode::Given {
            slot.control.stamp_key(transmit.key);
        }
        let quiet = socket.quiet_sends();
        self.slots.take(quiet);
        self.counters.sends += 1;
        submit_slot(self.ring, self.slots, index, quiet)?;
        if let Some(counted) = &mut socket.counted {
            counted.queued(transmit.key);
        }
        Ok(true)
    }

    /// Hands everything queued to the kernel now.
    pub fn flush(&mut self) -> Result<(), SendError> {
        flush(self.ring, self.slots).map_err(|e| ring_error(&e))
    }
}

fn ring_error(e: &std::io::Error) -> SendError {
    SendError::Ring(e.raw_os_error().unwrap_or(libc::EIO))
}

/// Submits what is queued; slots of quiet sends are free after that.
pub(crate) fn flush(ring: &mut Ring, slots: &mut SendSlots) -> std::io::Result<()> {
    ring.submit()?;
    if ring.queued() == 0 {
        slots.submitted();
    }
    Ok(())
}

/// Queues the submission for a filled slot.
pub(crate) fn submit_slot(
    ring: &mut Ring,
    slots: &mut SendSlots,
    index: u16,
    quiet: bool,
) -> Result<(), SendError> {
    let Some(slot) = slots.at(index) else {
        return Err(SendError::Full);
    };
    let entry = entry(slot, index, quiet);
    // SAFETY: the slot's memory is never moved or freed while the ring lives, and it is not reused
    // before the kernel has carried out the send: a quiet one is carried out (MSG_DONTWAIT, never
    // handed to a worker) as it is submitted, any other holds its slot until its completion.
    unsafe { ring.push(&entry) }.map_err(|e| ring_error(&e))
}

fn entry(slot: &mut SendSlot, index: u16, quiet: bool) -> squeue::Entry {
    let fd = Fixed(u32::from(slot.socket));
    let entry = if slot.control.len() == 0 {
        opcode::Send::new(fd, slot.payload.as_ptr(), slot.len as u32)
            .flags(libc::MSG_DONTWAIT)
            .dest_addr(slot.name.as_ptr())
            .dest_addr_len(slot.name.len())
            .build()
    } else {
        opcode::SendMsg::new(fd, slot.point())
            .flags(libc::MSG_DONTWAIT as u32)
            .build()
    };
    if quiet {
        let tag = Tag::new(Op::QuietSend, slot.socket, slot.socket_generation, slot.key);
        entry
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(tag.pack())
    } else {
        let tag = Tag::new(Op::SlotSend, index, 0, slot.generation());
        entry.user_data(tag.pack())
    }
}
