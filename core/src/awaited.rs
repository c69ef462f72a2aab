//! What waits for its transmit stamp: the kernel tells a stamp by a key, late, twice or never.

use core::ops::DerefMut;

use crate::time::Monotonic;

/// Room for one datagram that waits.
#[derive(Debug)]
pub struct Place<T> {
    key: u32,
    since: Monotonic,
    what: T,
}

/// What datagrams of one socket stand for, by the keys under which the kernel will tell when they
/// left.
///
/// Keys count up and wrap, and whatever waits sits at its key modulo the room, so every operation is
/// one look-up. Each key is good once: a second stamp finds nothing, and one that is so late that
/// another datagram has the place finds that one's key instead of its own.
#[derive(Debug)]
pub struct Awaited<P> {
    places: P,
    next: u32,
    oldest: u32,
}

impl<T, P> Awaited<P>
where
    P: DerefMut<Target = [Option<Place<T>>]>,
{
    /// Nothing waits yet. Of `places` a power of two is used, so that keys may wrap.
    pub const fn new(places: P) -> Self {
        Self {
            places,
            next: 0,
            oldest: 0,
        }
    }

    /// The key of the next datagram.
    #[must_use]
    pub const fn next_key(&self) -> u32 {
        self.next
    }

    /// The next datagram, which stands for `what`, has gone out at `now` under
    /// [`Awaited::next_key`]. Gives what has to stop waiting for want of room.
    pub fn insert(&mut self, what: T, now: Monotonic) -> Option<T> {
        let key = self.next;
        let displaced = self.skip();
        let place = Place {
            key,
            since: now,
            what,
        };
        match self.place(key) {
            Some(free) => *free = Some(place),
            None => return Some(place.what),
        }
        displaced
    }

    /// The next datagram has gone out under [`Awaited::next_key`], and nothing is to be heard of it.
    /// Gives what has to stop waiting all the same.
    pub fn skip(&mut self) -> Option<T> {
        let key = self.next;
        self.next = key.wrapping_add(1);
        let room = self.room();
        if self.next.wrapping_sub(self.oldest) > room {
            self.oldest = self.next.wrapping_sub(room);
        }
        self.place(key)?.take().map(|p| p.what)
    }

    /// What waited under `key`: once, and only if it still waits.
    pub fn take(&mut self, key: u32) -> Option<T> {
        self.place(key)?.take_if(|p| p.key == key).map(|p| p.what)
    }

    /// What waits under `key`, if it still does; it waits on.
    pub fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        let place = self.place(key)?.as_mut();
        place.filter(|p| p.key == key).map(|p| &mut p.what)
    }

    /// What has waited for `patience_ns` at `now`, the oldest first.
    pub fn take_expired(&mut self, now: Monotonic, patience_ns: u64) -> Option<T> {
        while self.oldest != self.next {
            let oldest = self.oldest;
            let waits = |p: &&mut Place<T>| p.key == oldest;
            if let Some(p) = self.place(oldest)?.as_mut().filter(waits)
                && now.saturating_since(p.since) < patience_ns
            {
                return None;
            }
            self.oldest = oldest.wrapping_add(1);
            if let Some(what) = self.take(oldest) {
                return Some(what);
            }
        }
        None
    }

    /// How many can wait at a time, a power of two; 0 where there is no place at all.
    fn room(&self) -> u32 {
        let most = self.places.len().min(1 << 31) as u32;
        most.checked_ilog2().map_or(0, |bits| 1 << bits)
    }

    fn place(&mut self, key: u32) -> Option<&mut Option<Place<T>>> {
        let index = key & self.room().wrapping_sub(1);
        self.places.get_mut(index as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::vec::Vec;

    fn awaited(room: usize) -> Awaited<Vec<Option<Place<u64>>>> {
        Awaited::new((0..room).map(|_| None).collect())
    }

    fn at(ns: u64) -> Monotonic {
        Monotonic::from_nanos(ns)
    }

    #[test]
    fn a_second_stamp_finds_nothing_nor_does_one_for_who_had_the_place_before() {
        let mut a = awaited(4);
        for n in 0..4 {
            assert_eq!(a.insert(n, at(n)), None);
        }
        assert_eq!(a.get_mut(1), Some(&mut 1));
        assert_eq!((a.take(1), a.take(1)), (Some(1), None));
        assert_eq!(a.get_mut(1), None);
        assert_eq!(a.get_mut(4), None);
        assert_eq!((a.insert(4, at(4)), a.insert(5, at(5))), (Some(0), None));
        assert_eq!(
            (a.take(0), a.take(1)),
            (None, None),
            "4 and 5 have their places"
        );
        assert_eq!((a.take(4), a.take(5)), (Some(4), Some(5)));
    }

    #[test]
    fn keys_wrap_and_no_room_is_no_panic() {
        let mut a = awaited(5);
        (a.next, a.oldest) = (u32::MAX - 1, u32::MAX - 1);
        for n in 0..6 {
            assert_eq!(a.insert(n, at(n)), n.checked_sub(4));
        }
        assert_eq!(a.take(u32::MAX - 1), None);
        assert_eq!(a.take(3), Some(5));
        assert_eq!(a.take_expired(at(100), 50), Some(2));
        let mut none = awaited(0);
        assert_eq!((none.insert(1, at(0)), none.skip()), (Some(1), None));
        assert_eq!((none.take(0), none.take_expired(at(9), 1)), (None, None));
    }

    proptest! {
        #[test]
        fn it_is_a_queue_of_so_many(deeds in proptest::collection::vec((0u8..4, 0u32..12), 0..200)) {
            let (mut a, mut model) = (awaited(8), VecDeque::<(u32, u64)>::new());
            for (n, (deed, back)) in (0u64..).zip(deeds) {
                let key = a.next_key();
                match deed {
                    0 => {
                        let over = key.wrapping_sub(8);
                        let full = model.front().copied().filter(|(k, _)| *k == over);
                        if full.is_some() { model.pop_front(); }
                        prop_assert_eq!(a.insert(n, at(n)), full.map(|(_, n)| n));
                        model.push_back((key, n));
                    }
                    1 => {
                        let over = key.wrapping_sub(8);
                        let full = model.front().copied().filter(|(k, _)| *k == over);
                        if full.is_some() { model.pop_front(); }
                        prop_assert_eq!(a.skip(), full.map(|(_, n)| n));
                    }
                    2 => {
                        let asked = key.wrapping_sub(back);
                        let i = model.iter().position(|(k, _)| *k == asked);
                        let there = i.and_then(|i| model.remove(i)).map(|(_, n)| n);
                        prop_assert_eq!(a.take(asked), there);
                    }
                    _ => {
                        let due = model.front().is_some_and(|(_, since)| n - since >= u64::from(back));
                        let first = if due { model.pop_front() } else { None };
                        prop_assert_eq!(a.take_expired(at(n), u64::from(back)), first.map(|(_, n)| n));
                    }
                }
            }
        }
    }
}
