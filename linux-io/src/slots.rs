//! Slots that hold what is being sent, allocated once.
//!
//! The kernel carries out a datagram's send (`MSG_DONTWAIT`) as it takes the submission, so a slot
//! whose success nobody asked for is free again after the next submission; the others are held
//! until their completion. A slot may wait before that for further datagrams to the same place: they
//! leave in one send (`UDP_SEGMENT`).

use crate::cmsg;
use crate::outbox::Transmit;
use crate::sockaddr::RawAddr;
use crate::tag::Op;

/// Largest payload that can be sent, bytes.
pub const MAX_PAYLOAD: usize = 1536;
/// Places for destinations of which a slot waits for more, a power of two.
const WAITING: usize = 128;
/// No slot.
const NONE: u16 = u16::MAX;

/// One datagram on its way to the kernel, or several of one length to one place, with everything that
/// their submission points to.
#[repr(C)]
pub(crate) struct SendSlot {
    pub(crate) header: libc::msghdr,
    pub(crate) vector: libc::iovec,
    pub(crate) name: RawAddr,
    pub(crate) control: cmsg::Builder,
    /// Bytes of all its datagrams together.
    pub(crate) len: usize,
    /// Bytes of each but the last, which may be shorter.
    pub(crate) segment: usize,
    /// What the kernel takes a longer send apart into if it is not told otherwise; 0 for nothing.
    pub(crate) usual: u16,
    pub(crate) socket: u16,
    pub(crate) socket_generation: u16,
    pub(crate) key: u32,
    pub(crate) retried: bool,
    /// Where it goes, from when it is filled until it is to be queued.
    filled_for: Option<Transmit>,
    /// Whether more may join it until then.
    is_open: bool,
    generation: u32,
}

impl SendSlot {
    fn new() -> Self {
        Self {
            // SAFETY: msghdr is integers and pointers, for which zero is a valid value.
            header: unsafe { std::mem::zeroed() },
            vector: libc::iovec {
                iov_base: std::ptr::null_mut(),
                iov_len: 0,
            },
            name: RawAddr::empty(),
            control: cmsg::Builder::new(),
            len: 0,
            segment: 0,
            usual: 0,
            socket: 0,
            socket_generation: 0,
            key: 0,
            retried: false,
            filled_for: None,
            is_open: false,
            generation: 0,
        }
    }

    /// Which use of the slot this is: what a completion has to say to be about it.
    pub(crate) const fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether it is more than one datagram.
    pub(crate) const fn is_joined(&self) -> bool {
        self.len > self.segment
    }

    /// Says how long each datagram is, where the kernel would not take it for that long.
    pub(crate) fn tell_segment(&mut self) {
        let usual = usize::from(self.usual);
        // There is room for one of each.
        if self.is_joined() {
            if self.segment != usual {
                self.control.segment(self.segment as u16);
            }
        } else if usual != 0 && self.len > usual {
            self.control.segment(0);
        }
    }

    /// As what it is sent where only its failure is told: whether `UDP_SEGMENT` may be why.
    pub(crate) const fn quiet_op(&self) -> Op {
        if self.is_joined() {
            Op::JoinedSend
        } else if self.usual != 0 && self.len <= self.usual as usize {
            Op::UsualSend
        } else {
            // A longer one says that it is to stay whole.
            Op::QuietSend
        }
    }

    /// Points the message header at the slot's own address and control messages, and at `payload`.
    pub(crate) fn point(&mut self, payload: *const u8) -> *const libc::msghdr {
        self.vector.iov_base = payload.cast_mut().cast();
        self.vector.iov_len = self.len;
        self.header.msg_name = self.name.as_ptr().cast_mut().cast();
        self.header.msg_namelen = self.name.len();
        self.header.msg_iov = &raw mut self.vector;
        self.header.msg_iovlen = 1;
        let control_len = self.control.len();
        self.header.msg_control = if control_len == 0 {
            std::ptr::null_mut()
        } else {
            self.control.as_mut_ptr()
        };
        self.header.msg_controllen = control_len as _;
        &raw const self.header
    }
}

/// A slot in its place, and its payload.
pub(crate) type FreeSlot<'a> = (u16, &'a mut SendSlot, &'a mut [u8]);

/// The table of slots.
pub(crate) struct SendSlots {
    slots: Box<[SendSlot]>,
    /// The payloads, one after the other. Zeroed memory of which the kernel hands out only what is
    /// written to.
    payloads: Box<[u8]>,
    payload_bytes: usize,
    free: Vec<u16>,
    /// Queued and free again after the next submission.
    quiet: Vec<u16>,
    /// Filled, and not queued yet because more may join.
    filled: Vec<u16>,
    /// The slot that began to wait last, by its destination.
    waiting: [u16; WAITING],
    /// Whether another took a filled slot's place there.
    any_hidden: bool,
}

impl SendSlots {
    /// `count` slots of `payload_bytes` each, at least [`MAX_PAYLOAD`].
    pub(crate) fn new(count: u16, payload_bytes: usize) -> Self {
        let payload_bytes = payload_bytes.max(MAX_PAYLOAD);
        Self {
            slots: (0..count).map(|_| SendSlot::new()).collect(),
            payloads: vec![0; usize::from(count) * payload_bytes].into_boxed_slice(),
            payload_bytes,
            free: (0..count).rev().collect(),
            quiet: Vec::with_capacity(usize::from(count)),
            filled: Vec::with_capacity(usize::from(count)),
            waiting: [NONE; WAITING],
            any_hidden: false,
        }
    }

    /// The slot that the next [`SendSlots::take`] gives, and its payload.
    pub(crate) fn peek(&mut self) -> Option<FreeSlot<'_>> {
        let index = *self.free.last()?;
        let (slot, payload) = self.at(index)?;
        Some((index, slot, payload))
    }

    /// Marks the slot just peeked at as used: until the next submission where it is `quiet`, else until
    /// it is released.
    pub(crate) fn take(&mut self, quiet: bool) {
        if let Some(index) = self.take_any()
            && quiet
        {
            self.quiet.push(index);
        }
    }

    /// Marks the slot just peeked at as used by datagrams to `of`, and waiting for more of them. It is
    /// queued when [`SendSlots::filled`] gives it.
    pub(crate) fn take_waiting(&mut self, of: Transmit) {
        if let Some(index) = self.take_any() {
            let place = place(&of);
            let before = std::mem::replace(&mut self.waiting[place], index);
            self.any_hidden |=
                self.is_filled_for(before, |to| self::place(to) == place && !to.goes_with(&of));
            self.filled.push(index);
            let slot = &mut self.slots[usize::from(index)];
            (slot.filled_for, slot.is_open) = (Some(of), true);
        }
    }

    fn take_any(&mut self) -> Option<u16> {
        let index = self.free.pop()?;
        let slot = &mut self.slots[usize::from(index)];
        slot.generation = slot.generation.wrapping_add(1);
        slot.retried = false;
        Some(index)
    }

    /// A slot that waits for more datagrams to `to`, and the room that is left behind what it has.
    pub(crate) fn waiting_for(&mut self, to: &Transmit) -> Option<(&mut SendSlot, &mut [u8])> {
        let (slot, payload) = self.at(self.waiting[place(to)])?;
        if !slot.is_open || !slot.filled_for.as_ref()?.goes_with(to) {
            return None;
        }
        let room = payload.get_mut(slot.len..)?;
        Some((slot, room))
    }

    /// Nothing more joins the slot that waits for datagrams to `to`.
    pub(crate) fn end_waiting(&mut self, to: &Transmit) {
        if let Some((slot, _)) = self.waiting_for(to) {
            slot.is_open = false;
        }
    }

    /// Whether datagrams to `to` may be filled in and not queued yet: what is queued now overtakes them.
    pub(crate) fn may_hold(&self, to: &Transmit) -> bool {
        self.any_hidden || self.is_filled_for(self.waiting[place(to)], |of| of.goes_with(to))
    }

    /// Whether slot `index` is filled for a destination of which this is true.
    fn is_filled_for(&self, index: u16, is_so: impl FnOnce(&Transmit) -> bool) -> bool {
        let slot = self.slots.get(usize::from(index));
        slot.and_then(|s| s.filled_for.as_ref()).is_some_and(is_so)
    }

    /// Whether a slot waits to be queued.
    pub(crate) const fn any_filled(&self) -> bool {
        !self.filled.is_empty()
    }

    /// Nothing more joins any slot: all are to be queued now.
    pub(crate) fn end_all_waiting(&mut self) {
        for index in &self.filled {
            self.slots[usize::from(*index)].filled_for = None;
        }
        self.any_hidden = false;
    }

    /// The slots that are to be queued, in the order in which they were taken, each until
    /// [`SendSlots::queued`] was told of it.
    pub(crate) fn filled(&self) -> &[u16] {
        &self.filled
    }

    /// The first `count` filled slots are queued: free again after the next submission.
    pub(crate) fn queued(&mut self, count: usize) {
        self.quiet.extend(self.filled.drain(..count));
    }

    /// Everything queued has been submitted.
    pub(crate) fn submitted(&mut self) {
        self.free.append(&mut self.quiet);
    }

    /// Whether slots are only waiting for a submission.
    pub(crate) const fn any_quiet(&self) -> bool {
        !self.quiet.is_empty() || !self.filled.is_empty()
    }

    /// The slot in that place, and its payload.
    pub(crate) fn at(&mut self, index: u16) -> Option<(&mut SendSlot, &mut [u8])> {
        let slot = self.slots.get_mut(usize::from(index))?;
        let begin = usize::from(index) * self.payload_bytes;
        let payload = self.payloads.get_mut(begin..begin + self.payload_bytes)?;
        Some((slot, payload))
    }

    /// The slot that a completion speaks of, unless it is about an earlier use of it.
    pub(crate) fn get(&mut self, index: u16, generation: u32) -> Option<&mut SendSlot> {
        let slot = self.slots.get_mut(usize::from(index))?;
        (slot.generation == generation).then_some(slot)
    }

    /// Frees a slot after its completion.
    pub(crate) fn release(&mut self, index: u16) {
        if let Some(slot) = self.slots.get_mut(usize::from(index)) {
            // A second completion for the same use finds nothing.
            slot.generation = slot.generation.wrapping_add(1);
            self.free.push(index);
        }
    }
}

/// Where among the waiting a destination is looked for: by its port and the last bits of its address,
/// which tell clients apart, behind one address or many.
const fn place(to: &Transmit) -> usize {
    let low = match to.to.ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(ip) => ip.octets()[15],
    };
    (to.to.port() as usize ^ (low as usize) << 3) % WAITING
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::SocketId;

    #[test]
    fn slots_come_back_once() {
        let mut s = SendSlots::new(2, 0);
        let (a, ..) = s.peek().unwrap();
        s.take(true);
        let (b, ..) = s.peek().unwrap();
        s.take(false);
        assert!(s.peek().is_none());
        s.submitted();
        assert_eq!(s.peek().unwrap().0, a);
        let generation = 1;
        assert!(s.get(b, generation).is_some());
        s.release(b);
        assert!(s.get(b, generation).is_none());
        assert_eq!(s.peek().unwrap().0, b);
    }

    #[test]
    fn only_sends_that_the_option_is_for_may_fail_for_it() {
        let mut slot = SendSlot::new();
        for (usual, segment, len, op) in [
            (0, 100, 100, Op::QuietSend),
            (0, 100, 250, Op::JoinedSend),
            (172, 172, 172, Op::UsualSend),
            (172, 100, 100, Op::UsualSend),
            (172, 173, 173, Op::QuietSend),
            (172, 1452, 1452, Op::QuietSend),
            (172, 172, 344, Op::JoinedSend),
            (172, 100, 250, Op::JoinedSend),
        ] {
            (slot.usual, slot.segment, slot.len) = (usual, segment, len);
            assert_eq!(slot.quiet_op(), op, "{usual} {segment} {len}");
        }
    }

    #[test]
    fn a_slot_waits_for_its_own_destination_until_it_is_to_be_queued() {
        let socket = SocketId {
            index: 0,
            generation: 0,
        };
        let to = |port| Transmit::new(socket, ([192, 0, 2, 1], port).into(), 0);
        let mut s = SendSlots::new(4, 0);
        for port in [1, 2] {
            let (_, slot, _) = s.peek().unwrap();
            (slot.len, slot.segment) = (100, 100);
            s.take_waiting(to(port));
        }
        let (slot, room) = s.waiting_for(&to(2)).unwrap();
        assert_eq!((slot.len, room.len()), (100, MAX_PAYLOAD - 100));
        assert!(s.waiting_for(&to(3)).is_none());
        let other = Transmit {
            tos: Some(184),
            ..to(1)
        };
        assert!(s.waiting_for(&other).is_none(), "another class");
        s.end_waiting(&to(2));
        assert!(s.waiting_for(&to(2)).is_none() && s.waiting_for(&to(1)).is_some());
        s.end_all_waiting();
        assert!(s.waiting_for(&to(1)).is_none());
        assert_eq!(s.filled().len(), 2);
        s.queued(2);
        assert!(!s.any_filled() && s.any_quiet());
        s.submitted();
        assert_eq!(s.free.len(), 4);
    }
}
