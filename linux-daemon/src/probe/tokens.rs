//! Send tokens that wait for their transmit stamp.

use bufferbane_core::packet::SendToken;
use bufferbane_core::time::Monotonic;

/// How long a transmit stamp may take before its probe is treated as unstamped, ns. Software stamps
/// come within microseconds, a NIC's within milliseconds.
pub(super) const STAMP_PATIENCE_NS: u64 = 500_000_000;

/// The tokens of one socket, by the key under which the kernel will report their stamp.
///
/// Keys count up and a token sits at its key modulo the capacity, so every operation is one
/// look-up, and nothing is allocated after construction.
#[derive(Debug)]
pub(super) struct Tokens {
    slots: Box<[Option<Waiting>]>,
    next_key: u32,
    oldest_key: u32,
}

#[derive(Debug)]
struct Waiting {
    key: u32,
    since: Monotonic,
    token: SendToken,
}

impl Tokens {
    /// Room for `capacity` tokens, rounded up to a power of two so that keys may wrap.
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.next_power_of_two().max(8);
        Self {
            slots: (0..capacity).map(|_| None).collect(),
            next_key: 0,
            oldest_key: 0,
        }
    }

    /// The key that [`Tokens::insert`] will use next.
    pub(super) fn next_key(&self) -> u32 {
        self.next_key
    }

    /// Keeps `token` under [`Tokens::next_key`]; returns one that had to give way for it.
    pub(super) fn insert(&mut self, token: SendToken, now: Monotonic) -> Option<SendToken> {
        let key = self.next_key;
        self.next_key = key.wrapping_add(1);
        let index = self.index(key);
        let displaced = self.slots[index].replace(Waiting {
            key,
            since: now,
            token,
        });
        if self.next_key.wrapping_sub(self.oldest_key) as usize > self.slots.len() {
            self.oldest_key = self.next_key.wrapping_sub(self.slots.len() as u32);
        }
        displaced.map(|w| w.token)
    }

    /// The token kept under `key`, unless it was taken before.
    pub(super) fn take(&mut self, key: u32) -> Option<SendToken> {
        let index = self.index(key);
        match &self.slots[index] {
            Some(w) if w.key == key => self.slots[index].take().map(|w| w.token),
            _ => None,
        }
    }

    /// A token that has waited longer than [`STAMP_PATIENCE_NS`] at `now`, oldest first.
    pub(super) fn take_expired(&mut self, now: Monotonic) -> Option<SendToken> {
        while self.oldest_key != self.next_key {
            let index = self.index(self.oldest_key);
            match &self.slots[index] {
                Some(w) if w.key == self.oldest_key => {
                    if now.saturating_since(w.since) < STAMP_PATIENCE_NS {
                        return None;
                    }
                    self.oldest_key = self.oldest_key.wrapping_add(1);
                    return self.slots[index].take().map(|w| w.token);
                }
                _ => self.oldest_key = self.oldest_key.wrapping_add(1),
            }
        }
        None
    }

    fn index(&self, key: u32) -> usize {
        key as usize & (self.slots.len() - 1)
    }
}
