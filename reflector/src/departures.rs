//! Echoes on their way out: what the stamp, or the error, that comes back is about. Several may have
//! left in one send; what comes under the first one's key is then about all of them.

use bufferbane_core::awaited::{Awaited, Place};
use bufferbane_core::time::Monotonic;

/// Echoes whose stamps can be awaited at a time. Stamps come within milliseconds, so this is room for
/// more than a hundred thousand echoes per second.
const AWAITED: usize = 4096;

/// An echo that was handed to the kernel.
pub(crate) struct Sent<T> {
    /// To be given back with what became of it.
    pub(crate) token: T,
    /// When its probe arrived.
    pub(crate) arrived: Monotonic,
}

struct Waiting<T> {
    sent: Sent<T>,
    /// The key of the next echo that left in the same send.
    after: Option<u32>,
    /// Of the first in a send: the key of the last.
    last: u32,
}

type Places<T> = Box<[Option<Place<Waiting<T>>>]>;

/// See the module.
pub(crate) struct Departures<T>(Awaited<Places<T>>);

impl<T> Departures<T> {
    pub(crate) fn new() -> Self {
        Self(Awaited::new((0..AWAITED).map(|_| None).collect()))
    }

    /// The key of the next datagram.
    pub(crate) const fn next_key(&self) -> u32 {
        self.0.next_key()
    }

    /// The next datagram has gone out under the next key; in one send with the one of key `with`, where
    /// given. It is an echo, or nothing is to be heard of it. Gives whom it displaced: nobody says any
    /// more what became of that one.
    pub(crate) fn left(&mut self, sent: Option<Sent<T>>, with: Option<u32>) -> Option<T> {
        let key = self.0.next_key();
        let displaced = match sent {
            Some(sent) => {
                let arrived = sent.arrived;
                let waiting = Waiting {
                    sent,
                    after: None,
                    last: key,
                };
                self.0.insert(waiting, arrived)
            }
            None => self.0.skip(),
        };
        if let Some(first) = with.and_then(|first| self.0.get_mut(first)) {
            let last = std::mem::replace(&mut first.last, key);
            if let Some(last) = self.0.get_mut(last) {
                last.after = Some(key);
            }
        }
        displaced.map(|w| w.sent.token)
    }

    /// The echo with this key and those that left with it, in the order of sending, each once.
    pub(crate) fn take(&mut self, key: u32) -> impl Iterator<Item = Sent<T>> {
        let mut next = Some(key);
        std::iter::from_fn(move || {
            let waiting = self.0.take(next?)?;
            next = waiting.after;
            Some(waiting.sent)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(token: u64) -> Option<Sent<u64>> {
        Some(Sent {
            token,
            arrived: Monotonic::ZERO,
        })
    }

    fn taken(d: &mut Departures<u64>, key: u32) -> Vec<u64> {
        d.take(key).map(|s| s.token).collect()
    }

    #[test]
    fn what_left_in_one_send_is_taken_together_and_once() {
        let mut d = Departures::new();
        let sends = [
            (10, None),
            (20, None),
            (11, Some(0)),
            (21, Some(1)),
            (12, Some(0)),
        ];
        for (seq, with) in sends {
            assert!(d.left(sent(seq), with).is_none());
        }
        assert_eq!(taken(&mut d, 0), [10, 11, 12]);
        assert_eq!(taken(&mut d, 0), [0; 0]);
        assert_eq!(taken(&mut d, 1), [20, 21]);
    }

    #[test]
    fn what_has_no_place_any_more_is_told_and_takes_no_stamp_of_another() {
        let mut d = Departures::new();
        d.left(sent(1), None);
        d.left(sent(2), Some(0));
        for seq in 3..=AWAITED as u64 {
            assert_eq!(d.left(sent(seq), None), None);
        }
        assert_eq!(d.left(sent(99), None), Some(1));
        assert_eq!(taken(&mut d, 0), [0; 0], "the first of its send is gone");
        assert_eq!(taken(&mut d, AWAITED as u32), [99]);
        assert_eq!(d.left(None, None), Some(2));
    }
}
