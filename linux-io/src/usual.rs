//! The length of most joined datagrams of a socket, of which the kernel need be told only once.
//!
//! A send of several datagrams says in a control message how long each is (`UDP_SEGMENT`), and what has
//! a control message costs the kernel more copies than what has none. The same option of the socket holds
//! for every send that is longer: it is set to the length that most sends are joined of, and what is
//! meant otherwise says so.

/// Longest that is made the socket's. With the option set, the kernel also refuses single datagrams to
/// where not even one of this length passes whole, which no path of IPv4 does to this one: Linux takes no
/// path for narrower than 552 bytes with both headers.
const MOST: u16 = 552 - 20 - 8;
/// How many sends more that are joined of it than others there have to be.
const ENOUGH: u16 = 64;
/// Most that are remembered.
const REMEMBERED: u16 = 256;

/// See the module. Lengths are in bytes.
#[derive(Debug, Default)]
pub(crate) struct Usual {
    /// What the kernel was told; 0 for nothing.
    told: u16,
    candidate: u16,
    /// How many more sends were joined of the candidate than were not.
    lead: u16,
    /// Whether sends were refused while the kernel had been told.
    is_forbidden: bool,
}

impl Usual {
    /// What the kernel takes each longer send apart into; 0 where it does not.
    pub(crate) const fn told(&self) -> u16 {
        self.told
    }

    /// A send has begun, with one datagram.
    pub(crate) const fn begun(&mut self) {
        self.lead = self.lead.saturating_sub(1);
    }

    /// To that send of datagrams of `len` a second one was joined.
    pub(crate) fn joined(&mut self, len: usize) {
        let Some(len) = u16::try_from(len).ok().filter(|len| *len <= MOST) else {
            return;
        };
        if self.lead == 0 {
            self.candidate = len;
        }
        if self.candidate == len {
            // One more than was taken off when it began.
            self.lead = (self.lead + 2).min(REMEMBERED);
        }
    }

    /// The kernel is to be told of none any more: sends were refused that may have been for this.
    pub(crate) const fn forbid(&mut self) {
        self.is_forbidden = true;
    }

    /// What the kernel is to be told next, where that is something else. It must not be told while sends
    /// that were made for the old length have not been carried out.
    pub(crate) fn to_tell(&self) -> Option<u16> {
        let wanted = if self.is_forbidden || self.lead == 0 {
            0
        } else if self.lead >= ENOUGH {
            self.candidate
        } else {
            self.told
        };
        (wanted != self.told).then_some(wanted)
    }

    /// The kernel was told.
    pub(crate) const fn tell(&mut self, len: u16) {
        self.told = len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sends(u: &mut Usual, count: usize, joined_of: Option<usize>) -> Option<u16> {
        for _ in 0..count {
            u.begun();
            if let Some(len) = joined_of {
                u.joined(len);
            }
        }
        let told = u.to_tell();
        if let Some(len) = told {
            u.tell(len);
        }
        told
    }

    #[test]
    fn the_length_that_most_sends_are_joined_of_is_told_until_others_are_as_many() {
        let mut u = Usual::default();
        assert_eq!(sends(&mut u, 1000, None), None);
        // From the first of them nothing is taken off.
        assert_eq!(sends(&mut u, usize::from(ENOUGH) - 2, Some(172)), None);
        assert_eq!(sends(&mut u, 1, Some(172)), Some(172));
        assert_eq!(sends(&mut u, 50, None), None, "a few others");
        assert_eq!(sends(&mut u, 1000, Some(172)), None);
        assert_eq!(sends(&mut u, 2 * 256, Some(300)), Some(300));
        assert_eq!(sends(&mut u, 1000, None), Some(0));
    }

    #[test]
    fn neither_what_some_path_is_too_narrow_for_nor_what_was_refused_is_told() {
        let mut u = Usual::default();
        assert_eq!(sends(&mut u, 1000, Some(usize::from(MOST) + 1)), None);
        assert_eq!(sends(&mut u, 1000, Some(100)), Some(100));
        u.forbid();
        assert_eq!(sends(&mut u, 1000, Some(100)), Some(0));
        assert_eq!(sends(&mut u, 1000, Some(100)), None);
    }
}
