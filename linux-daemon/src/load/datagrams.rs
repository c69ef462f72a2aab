//! The datagrams of a test over UDP, through the socket and the ring of its probes.
//!
//! What a rate makes in a millisecond takes a fraction of that to seal and hand over, so probes are not
//! held up by it, and datagrams to here come to where the client has proven to be.

use bufferbane_core::load::bins::Bins;
use bufferbane_core::load::datagrams::pace::Pace;
use bufferbane_core::load::datagrams::sends::Sends;
use bufferbane_core::load::datagrams::tally::Tally;
use bufferbane_core::load::datagrams::{Counted, LoadKeys, handle_of, open_datagram, write};
use bufferbane_core::load::guest::Grant;
use bufferbane_core::time::Monotonic;
use bufferbane_core::wire::load::Offer;
use bufferbane_linux_io::{Outbox, Queued, Transmit};

/// UDP payload of a datagram of a test over UDP, bytes: every path of IPv6 carries it whole, and it may
/// leave in one send with others.
pub(super) const SIZE: u16 = 1200;
/// How many may leave in one send.
pub(super) const AT_ONCE: usize = 32;
/// Where there is none after this long, the test fails, ns.
pub(super) const FIRST_NS: u64 = 10_000_000_000;

/// See the module.
pub(super) struct Datagrams {
    offer: Offer,
    tos: Option<u8>,
    handle: u32,
    keys: LoadKeys,
    since: Monotonic,
    pace: Option<Pace>,
    queued: u32,
    failed: u32,
    sends: Box<Sends<()>>,
    tally: Box<Tally>,
}

impl Datagrams {
    /// They begin at `now`.
    pub(super) fn new(offer: Offer, grant: &Grant, dscp: u8, now: Monotonic) -> Self {
        Self {
            offer,
            tos: (dscp > 0).then_some(dscp << 2),
            handle: grant.handle,
            keys: LoadKeys::of(&grant.secret),
            since: now,
            pace: (offer.up_bps > 0).then(|| Pace::new(offer.up_bps, offer.size, now)),
            queued: 0,
            failed: 0,
            sends: Box::default(),
            tally: Box::default(),
        }
    }

    /// Sends what is due, each as `transmit` says but for its key; `next_key` gives that.
    pub(super) fn send_due(
        &mut self,
        now: Monotonic,
        transmit: &Transmit,
        next_key: &mut u32,
        out: &mut Outbox<'_>,
    ) {
        let Some(pace) = &mut self.pace else { return };
        let size = usize::from(self.offer.size);
        while pace.poll(now) {
            let transmit = Transmit {
                key: *next_key,
                tos: self.tos,
                ..*transmit
            };
            let number = self.queued.into();
            let queued = out.send_joined(&transmit, size, |room| {
                write(&self.keys.up, self.handle, number, &mut room[..size]).ok()?;
                Some(size)
            });
            let with = match queued {
                Ok(Queued::First) => None,
                Ok(Queued::With(first)) => Some(first),
                // It was not sent, and its number is the next one's.
                Ok(Queued::Nothing) | Err(_) => continue,
            };
            self.sends.add(transmit.key, with, ());
            *next_key = next_key.wrapping_add(1);
            self.queued += 1;
        }
    }

    /// A send failed: what was in it was not lost by the line.
    pub(super) fn failed(&mut self, key: u32) {
        if let Some(((), count)) = self.sends.take(key) {
            self.failed += count;
        }
    }

    /// A datagram has arrived; what is none of this test is passed over.
    pub(super) fn receive(&mut self, at: Monotonic, datagram: &mut [u8]) {
        if handle_of(datagram) == Ok(self.handle)
            && let Ok(number) = open_datagram(&self.keys.down, datagram)
        {
            self.tally.begin(self.since);
            self.tally.take(at, number, datagram.len() as u64);
        }
    }

    /// No more is sent from here; what is on its way is still counted.
    pub(super) fn stop(&mut self) {
        self.pace = None;
    }

    /// When [`Datagrams::send_due`] is next needed.
    pub(super) fn poll_timeout(&self) -> Option<Monotonic> {
        self.pace.as_ref().map(Pace::poll_timeout)
    }

    /// When there was load first, if there has been any.
    pub(super) fn begun(&self) -> Option<Monotonic> {
        let has_begun = self.queued > 0 || self.has_arrivals();
        has_begun.then_some(self.since)
    }

    /// Whether nothing came of what the reflector was to send.
    pub(super) fn is_missing(&self, now: Monotonic) -> bool {
        self.offer.down_bps > 0
            && !self.has_arrivals()
            && now.saturating_since(self.since) >= FIRST_NS
    }

    fn has_arrivals(&self) -> bool {
        self.tally.bins().total() > 0
    }

    /// UDP payload sent so far, bytes.
    pub(super) fn sent_bytes(&self) -> u64 {
        u64::from(self.sent()) * u64::from(self.offer.size)
    }

    /// UDP payload received, bytes in bins of 100 ms.
    pub(super) fn bins(&self) -> &Bins {
        self.tally.bins()
    }

    pub(super) fn counted(&self) -> Counted {
        self.tally.counted(self.sent())
    }

    /// Datagrams that have left, or are about to.
    fn sent(&self) -> u32 {
        self.queued - self.failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bufferbane_core::seal::Secret;

    #[test]
    fn what_is_of_another_test_or_direction_is_not_counted() {
        let offer = Offer {
            up_bps: 0,
            down_bps: 1_000_000,
            size: 1200,
        };
        let grant = Grant {
            handle: 7,
            secret: Secret::new([1; 32]),
            port: 0,
        };
        let at = |ms: u64| Monotonic::from_nanos(ms * 1_000_000);
        let mut d = Datagrams::new(offer, &grant, 0, at(0));
        assert!(!d.is_missing(at(9_999)) && d.is_missing(at(10_000)));
        let keys = LoadKeys::of(&grant.secret);
        for (key, handle, counted) in [
            (&keys.down, 7, 1),
            (&keys.down, 8, 1),
            (&keys.up, 7, 1),
            (&grant.secret, 7, 1),
        ] {
            let mut datagram = [0; 1200];
            write(key, handle, 0, &mut datagram).unwrap();
            d.receive(at(150), &mut datagram);
            assert_eq!(d.counted().received, counted);
        }
        // Bins are of the time since the load began.
        assert_eq!(d.bins().as_slice(), [0, 1200]);
        assert_eq!(d.begun(), Some(at(0)));
        assert!(!d.is_missing(at(10_000)));
    }
}
