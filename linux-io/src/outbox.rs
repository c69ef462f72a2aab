//! Sending: from the driver's bytes to a submission.
//!
//! Most of what a datagram costs is the kernel's way through one send, whatever it carries. Datagrams of
//! one length to one place that are queued between two submissions can share it (`UDP_SEGMENT`, Linux
//! 4.18): each arrives as if it had been sent alone.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use io_uring::types::Fixed;
use io_uring::{opcode, squeue};

use crate::event::{EngineCounters, SocketId};
use crate::ring::Ring;
use crate::slots::{FreeSlot, MAX_PAYLOAD, SendSlot, SendSlots};
use crate::sockaddr::RawAddr;
use crate::sockets::{KeyMode, Open, Sockets};
use crate::tag::{Op, Tag};

/// Longest datagram that joins others, bytes: every path of IPv6 carries it whole, and what would have
/// to be fragmented is refused by a send of several.
const MAX_JOINED: usize = 1280 - 40 - 8;
/// Most datagrams in one send: what every kernel takes.
const MAX_SEGMENTS: usize = 64;

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

    /// Whether both take the same way, whatever their keys.
    pub(crate) fn goes_with(&self, other: &Self) -> bool {
        *self
            == Self {
                key: self.key,
                ..*other
            }
    }
}

/// What became of a datagram that may leave together with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// There is none.
    Nothing,
    /// It is the first of its send, or the only one: the stamp or the error comes under its own key.
    First,
    /// It leaves with the one of this key, and shares its fate: a stamp or an error that comes under
    /// this key is about both.
    With(u32),
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
        let Some((index, slot, payload)) = free_slot(self.ring, self.slots)? else {
            return Err(SendError::Full);
        };
        let Some(len) = fill(&mut payload[..MAX_PAYLOAD]) else {
            return Ok(false);
        };
        if len > MAX_PAYLOAD {
            return Err(SendError::TooLong);
        }
        slot.prepare(transmit, socket, len);
        let quiet = socket.quiet_sends();
        self.slots.take(quiet);
        self.counters.sends += 1;
        submit_slot(self.ring, self.slots, index, quiet)?;
        if let Some(counted) = &mut socket.counted {
            counted.queued(transmit.key);
        }
        Ok(true)
    }

    /// The same for a datagram of at most `most` bytes, which may leave in one send with others to the
    /// same place; see [`crate::SocketBuilder::join_sends`]. They keep their order.
    pub fn send_joined(
        &mut self,
        transmit: &Transmit,
        most: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Result<Queued, SendError> {
        let socket = self
            .sockets
            .get_mut(transmit.socket)
            .ok_or(SendError::NoSocket)?;
        if !socket.joins || most > MAX_JOINED {
            if self.slots.may_hold(transmit) {
                // It was there first.
                queue_filled(self.ring, self.slots);
            }
            let queued = self.send_with(transmit, fill)?;
            return Ok(if queued {
                Queued::First
            } else {
                Queued::Nothing
            });
        }
        if let Some((slot, room)) = self.slots.waiting_for(transmit)
            && let Some(room) = room.get_mut(..most)
            && most <= slot.segment
        {
            let Some(len) = fill(room) else {
                return Ok(Queued::Nothing);
            };
            let len = len.min(most);
            if !slot.is_joined() {
                socket.usual.joined(slot.segment);
            }
            slot.len += len;
            self.counters.sends += 1;
            self.counters.joined += 1;
            // Only the last of a send may be shorter.
            let last = len < slot.segment || slot.len >= slot.segment * MAX_SEGMENTS;
            let first = slot.key;
            if last {
                self.slots.end_waiting(transmit);
            }
            return Ok(Queued::With(first));
        }
        let Some((_, slot, payload)) = free_slot(self.ring, self.slots)? else {
            return Err(SendError::Full);
        };
        let Some(len) = fill(&mut payload[..most]) else {
            return Ok(Queued::Nothing);
        };
        slot.prepare(transmit, socket, len.min(most));
        socket.usual.begun();
        self.slots.take_waiting(*transmit);
        self.counters.sends += 1;
        Ok(Queued::First)
    }

    /// Hands everything queued to the kernel now.
    pub fn flush(&mut self) -> Result<(), SendError> {
        flush(self.ring, self.slots).map_err(|e| ring_error(&e))
    }
}

fn ring_error(e: &std::io::Error) -> SendError {
    SendError::Ring(e.raw_os_error().unwrap_or(libc::EIO))
}

impl SendSlot {
    /// Makes it a datagram of `len` bytes that goes as `transmit` says.
    fn prepare(&mut self, transmit: &Transmit, socket: &Open, len: usize) {
        (self.len, self.segment) = (len, len);
        self.usual = socket.usual.told();
        self.name = RawAddr::new(transmit.to);
        self.socket = transmit.socket.index;
        self.socket_generation = transmit.socket.generation;
        self.key = transmit.key;
        self.control.clear();
        // The builder has room for one of each, so none of these can fail.
        if let Some(from) = transmit.from
            && socket.address != Some(from)
        {
            self.control.source(from);
        }
        if let Some(tos) = transmit.tos {
            self.control.tos(transmit.to.is_ipv6(), tos);
        }
        if socket.keys == KeyMode::Given {
            self.control.stamp_key(transmit.key);
        }
    }
}

/// A slot that can be filled. Where there is none, what is queued is submitted first.
fn free_slot<'a>(
    ring: &mut Ring,
    slots: &'a mut SendSlots,
) -> Result<Option<FreeSlot<'a>>, SendError> {
    if slots.peek().is_none() && slots.any_quiet() {
        flush(ring, slots).map_err(|e| ring_error(&e))?;
    }
    Ok(slots.peek())
}

/// Queues what was waiting for more to join it. What finds no room is queued by the next call.
pub(crate) fn queue_filled(ring: &mut Ring, slots: &mut SendSlots) {
    if !slots.any_filled() {
        return;
    }
    slots.end_all_waiting();
    let mut count = 0;
    while let Some(index) = slots.filled().get(count).copied() {
        if submit_slot(ring, slots, index, true).is_err() {
            break;
        }
        count += 1;
    }
    slots.queued(count);
}

/// Submits what is queued; slots of quiet sends are free after that.
pub(crate) fn flush(ring: &mut Ring, slots: &mut SendSlots) -> std::io::Result<()> {
    queue_filled(ring, slots);
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
    let Some((slot, payload)) = slots.at(index) else {
        return Err(SendError::Full);
    };
    slot.tell_segment();
    let entry = entry(slot, payload.as_ptr(), index, quiet);
    // SAFETY: the slot's memory and its payload's are never moved or freed while the ring lives, and
    // not reused before the kernel has carried out the send: a quiet one is carried out (MSG_DONTWAIT,
    // never handed to a worker) as it is submitted, any other holds its slot until its completion.
    unsafe { ring.push(&entry) }.map_err(|e| ring_error(&e))
}

fn entry(slot: &mut SendSlot, payload: *const u8, index: u16, quiet: bool) -> squeue::Entry {
    let fd = Fixed(u32::from(slot.socket));
    let entry = if slot.control.len() == 0 {
        opcode::Send::new(fd, payload, slot.len as u32)
            .flags(libc::MSG_DONTWAIT)
            .dest_addr(slot.name.as_ptr())
            .dest_addr_len(slot.name.len())
            .build()
    } else {
        opcode::SendMsg::new(fd, slot.point(payload))
            .flags(libc::MSG_DONTWAIT as u32)
            .build()
    };
    if quiet {
        let tag = Tag::new(
            slot.quiet_op(),
            slot.socket,
            slot.socket_generation,
            slot.key,
        );
        entry
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(tag.pack())
    } else {
        let tag = Tag::new(Op::SlotSend, index, 0, slot.generation());
        entry.user_data(tag.pack())
    }
}
