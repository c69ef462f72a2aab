//! Probes in the order they were sent, held until all that can be known of them is.
//!
//! A loss is known only after its time-out, and its direction only with a later reply.

use super::input::Probe;
use crate::sample::Status;
use crate::time::Monotonic;

/// Probes held of one series: four seconds at 10 ms, and some.
const HELD: usize = 512;

const EMPTY: Probe = Probe {
    sent: Monotonic::ZERO,
    status: Status::Lost,
    eighths: 0,
    in_test: false,
    dropped: false,
    ttl_up: None,
    ttl_down: None,
    rtt_ns: None,
    queue_up_ns: None,
    queue_down_ns: None,
    raw_up_ns: None,
    raw_down_ns: None,
};

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Settle {
    held: [Probe; HELD],
    first: usize,
    len: usize,
}

impl Settle {
    pub(crate) const fn new() -> Self {
        Self {
            held: [EMPTY; HELD],
            first: 0,
            len: 0,
        }
    }

    const fn place(&self, n: usize) -> usize {
        (self.first + n) % HELD
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.len == HELD
    }

    /// Puts a probe where it belongs. The caller has made room.
    pub(crate) fn insert(&mut self, probe: Probe) {
        if self.is_full() {
            return;
        }
        let mut at = self.len;
        self.len += 1;
        while at > 0 {
            let before = self.held[self.place(at - 1)];
            if before.sent <= probe.sent {
                break;
            }
            let place = self.place(at);
            self.held[place] = before;
            at -= 1;
        }
        let place = self.place(at);
        self.held[place] = probe;
    }

    /// Takes `probe` in the place of the one that was sent at the same instant; `false` where that
    /// one is no longer held.
    pub(crate) fn revise(&mut self, probe: &Probe) -> bool {
        for n in (0..self.len).rev() {
            let place = self.place(n);
            let held = &mut self.held[place];
            if held.sent == probe.sent {
                let in_test = held.in_test;
                *held = *probe;
                held.in_test |= in_test;
                return true;
            }
            if held.sent < probe.sent {
                return false;
            }
        }
        false
    }

    pub(crate) fn first(&self) -> Option<Monotonic> {
        (self.len > 0).then(|| self.held[self.first].sent)
    }

    pub(crate) fn pop(&mut self) -> Option<Probe> {
        if self.len == 0 {
            return None;
        }
        let probe = self.held[self.first];
        self.first = self.place(1);
        self.len -= 1;
        Some(probe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_come_out_as_they_were_sent() {
        let mut s = Settle::new();
        for round in 0..3u64 {
            for n in [4u64, 1, 3, 0, 2] {
                s.insert(Probe {
                    sent: Monotonic::from_nanos(round * 1000 + n),
                    ..EMPTY
                });
            }
            for n in 0..5 {
                let revised = Probe {
                    sent: Monotonic::from_nanos(round * 1000 + n),
                    status: Status::LostUp,
                    ..EMPTY
                };
                assert!(s.revise(&revised));
                let out = s.pop().unwrap();
                assert_eq!(out.sent.as_nanos(), round * 1000 + n);
                assert_eq!(out.status, Status::LostUp);
                assert!(!s.revise(&revised));
            }
            assert!(s.pop().is_none());
        }
    }
}
