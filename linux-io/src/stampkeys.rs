//! From the kernel's counter of stamped datagrams back to the driver's keys.
//!
//! Before Linux 6.13 a transmit stamp is known only by how many datagrams the socket had sent
//! before (`SOF_TIMESTAMPING_OPT_ID`). The map follows that counter in the order of submission,
//! which is the order in which the kernel carries sends out. A send that fails is taken out again
//! unless a packet filter refused it, which happens after the kernel has counted it. Should the
//! kernel have counted another failure, the map mends itself: a stamp numbered beyond everything
//! that was sent shows how far the counter is ahead.

/// How many datagrams back a stamp may still be told apart; a power of two.
const REMEMBERED: u32 = 1024;

/// The keys of the latest datagrams of one socket.
#[derive(Debug)]
pub(crate) struct StampKeys {
    keys: Box<[Option<u32>; REMEMBERED as usize]>,
    /// The number that the kernel will give the next datagram, as far as we know.
    next: u32,
}

impl StampKeys {
    pub(crate) fn new() -> Self {
        Self {
            keys: Box::new([None; REMEMBERED as usize]),
            next: 0,
        }
    }

    const fn at(&mut self, number: u32) -> &mut Option<u32> {
        &mut self.keys[(number % REMEMBERED) as usize]
    }

    /// A datagram with this key is on its way to the kernel.
    pub(crate) const fn queued(&mut self, key: u32) {
        *self.at(self.next) = Some(key);
        self.next = self.next.wrapping_add(1);
    }

    /// The latest datagram with this key was refused with this errno: those after it move up where
    /// the kernel did not count it.
    pub(crate) fn failed(&mut self, key: u32, errno: i32) {
        for back in 1..=REMEMBERED {
            let number = self.next.wrapping_sub(back);
            if *self.at(number) != Some(key) {
                continue;
            }
            if errno == libc::EPERM {
                *self.at(number) = None;
                return;
            }
            for later in 0..back - 1 {
                let moved = self.at(number.wrapping_add(later + 1)).take();
                *self.at(number.wrapping_add(later)) = moved;
            }
            self.next = self.next.wrapping_sub(1);
            *self.at(self.next) = None;
            return;
        }
    }

    /// The key of the datagram that the kernel numbered so, once.
    pub(crate) const fn stamped(&mut self, number: u32) -> Option<u32> {
        let ahead = number.wrapping_sub(self.next).wrapping_add(1);
        if ahead > 0 && ahead < REMEMBERED {
            // The kernel counted sends that failed. What it stamped is the latest datagram, since
            // stamps come in the order of sending.
            let latest = self.at(self.next.wrapping_sub(1)).take();
            self.next = number.wrapping_add(1);
            return latest;
        }
        let back = self.next.wrapping_sub(number);
        if back > REMEMBERED {
            return None;
        }
        self.at(number).take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_to_keys_once() {
        let mut k = StampKeys::new();
        for key in 100..110 {
            k.queued(key);
        }
        assert_eq!(k.stamped(3), Some(103));
        assert_eq!(k.stamped(3), None);
        assert_eq!(k.stamped(9), Some(109));
    }

    #[test]
    fn a_refused_datagram_leaves_no_gap() {
        let mut k = StampKeys::new();
        for key in 0..5 {
            k.queued(key);
        }
        k.failed(1, libc::EACCES);
        assert_eq!(k.stamped(0), Some(0));
        assert_eq!(k.stamped(1), Some(2));
        assert_eq!(k.stamped(3), Some(4));
        k.queued(9);
        assert_eq!(k.stamped(4), Some(9));
    }

    #[test]
    fn a_filtered_datagram_keeps_its_number() {
        let mut k = StampKeys::new();
        for key in 0..3 {
            k.queued(key);
        }
        k.failed(1, libc::EPERM);
        assert_eq!(k.stamped(1), None);
        assert_eq!(k.stamped(2), Some(2));
    }

    #[test]
    fn a_counter_that_ran_ahead_is_followed() {
        let mut k = StampKeys::new();
        k.queued(1);
        assert_eq!(k.stamped(0), Some(1));
        // Two sends failed after the kernel had counted them.
        for key in [8, 9] {
            k.queued(key);
            k.failed(key, libc::EAGAIN);
        }
        k.queued(2);
        assert_eq!(k.stamped(3), Some(2));
        k.queued(3);
        assert_eq!(k.stamped(4), Some(3));
    }

    #[test]
    fn forgotten_and_absurd_numbers_find_nothing() {
        let mut k = StampKeys::new();
        for key in 0..3000 {
            k.queued(key);
        }
        assert_eq!(k.stamped(10), None);
        assert_eq!(k.stamped(2999), Some(2999));
        assert_eq!(k.stamped(1_000_000), None);
        k.failed(5, libc::EACCES);
        assert_eq!(k.stamped(2998), Some(2998));
    }

    #[test]
    fn the_counter_wraps() {
        let mut k = StampKeys::new();
        k.next = u32::MAX;
        k.queued(7);
        k.queued(8);
        assert_eq!(k.stamped(u32::MAX), Some(7));
        assert_eq!(k.stamped(0), Some(8));
    }
}
