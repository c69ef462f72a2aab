//! Echoes on their way out: what the stamp that comes back belongs to.

use bufferbane_core::packet::SendToken;

/// Echoes whose stamps can be awaited at a time, a power of two. Stamps come within milliseconds,
/// so this is room for hundreds of thousands of echoes per second.
const PLACES: usize = 8192;

const _: () = assert!(PLACES.is_power_of_two());

/// An echo that was handed to the kernel.
#[derive(Debug)]
pub(crate) struct Sent {
    /// To be given back with what became of it.
    pub(crate) token: SendToken,
    /// When its probe arrived, ns.
    pub(crate) arrived_ns: u64,
}

/// See the module. Keys count up and wrap; each has its place, and whoever is still there is gone.
#[derive(Debug)]
pub(crate) struct Tokens {
    places: Box<[Option<(u32, Sent)>]>,
    next: u32,
}

impl Tokens {
    pub(crate) fn new() -> Self {
        Self {
            places: (0..PLACES).map(|_| None).collect(),
            next: 0,
        }
    }

    /// The key of the next datagram.
    pub(crate) const fn next_key(&self) -> u32 {
        self.next
    }

    /// The next datagram has gone out under the next key. Gives whom it displaced: nobody says any
    /// more what became of that one.
    pub(crate) fn sent(&mut self, sent: Option<Sent>) -> Option<Sent> {
        let key = self.next;
        self.next = self.next.wrapping_add(1);
        let place = &mut self.places[key as usize % PLACES];
        let before = place.take();
        *place = sent.map(|s| (key, s));
        before.map(|(_, s)| s)
    }

    /// The datagram with this key, once.
    pub(crate) fn take(&mut self, key: u32) -> Option<Sent> {
        self.places[key as usize % PLACES]
            .take_if(|(k, _)| *k == key)
            .map(|(_, s)| s)
    }
}
