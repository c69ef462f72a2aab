//! Slots that hold what is being sent, allocated once.
//!
//! The kernel carries out a datagram's send (`MSG_DONTWAIT`) as it takes the submission, so a slot
//! whose success nobody asked for is free again after the next submission; the others are held
//! until their completion.

use crate::cmsg;
use crate::sockaddr::RawAddr;

/// Largest payload that can be sent, bytes.
pub const MAX_PAYLOAD: usize = 1536;

/// One datagram on its way to the kernel, with everything that its submission points to.
#[repr(C)]
pub(crate) struct SendSlot {
    pub(crate) header: libc::msghdr,
    pub(crate) vector: libc::iovec,
    pub(crate) name: RawAddr,
    pub(crate) control: cmsg::Builder,
    pub(crate) payload: [u8; MAX_PAYLOAD],
    pub(crate) len: usize,
    pub(crate) socket: u16,
    pub(crate) socket_generation: u16,
    pub(crate) key: u32,
    pub(crate) retried: bool,
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
            payload: [0; MAX_PAYLOAD],
            len: 0,
            socket: 0,
            socket_generation: 0,
            key: 0,
            retried: false,
            generation: 0,
        }
    }

    /// Which use of the slot this is: what a completion has to say to be about it.
    pub(crate) const fn generation(&self) -> u32 {
        self.generation
    }

    /// Points the message header at the slot's own address, payload and control messages.
    pub(crate) fn point(&mut self) -> *const libc::msghdr {
        self.vector.iov_base = self.payload.as_mut_ptr().cast();
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

/// The table of slots.
pub(crate) struct SendSlots {
    slots: Box<[SendSlot]>,
    free: Vec<u16>,
    /// Queued and free again after the next submission.
    quiet: Vec<u16>,
}

impl SendSlots {
    pub(crate) fn new(count: u16) -> Self {
        Self {
            slots: (0..count).map(|_| SendSlot::new()).collect(),
            free: (0..count).rev().collect(),
            quiet: Vec::with_capacity(usize::from(count)),
        }
    }

    /// The slot that the next [`SendSlots::take`] gives.
    pub(crate) fn peek(&mut self) -> Option<(u16, &mut SendSlot)> {
        let index = *self.free.last()?;
        Some((index, self.slots.get_mut(usize::from(index))?))
    }

    /// Marks the slot just peeked at as used: until the next submission, or until it is released.
    pub(crate) fn take(&mut self, quiet: bool) {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[usize::from(index)];
            slot.generation = slot.generation.wrapping_add(1);
            slot.retried = false;
            if quiet {
                self.quiet.push(index);
            }
        }
    }

    /// Everything queued has been submitted.
    pub(crate) fn submitted(&mut self) {
        self.free.append(&mut self.quiet);
    }

    /// Whether slots are only waiting for a submission.
    pub(crate) const fn any_quiet(&self) -> bool {
        !self.quiet.is_empty()
    }

    /// The slot in that place.
    pub(crate) fn at(&mut self, index: u16) -> Option<&mut SendSlot> {
        self.slots.get_mut(usize::from(index))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_back_once() {
        let mut s = SendSlots::new(2);
        let (a, _) = s.peek().unwrap();
        s.take(true);
        let (b, _) = s.peek().unwrap();
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
}
