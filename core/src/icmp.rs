//! Probing one target by ICMP or ICMPv6 echo: round-trip answers without a far end of one's own.

use core::ops::DerefMut;

use rand_core::Rng;

use crate::drop_reason::DropReason;
use crate::flight::{Flight, FlightConfig, LossSlot, ReplyFacts, Slot};
use crate::packet::{RecvMeta, SendOutcome, SendToken};
use crate::sample::{Observation, SeriesIndex};
use crate::schedule::{Mix, Slots};
use crate::time::Monotonic;
use crate::wire::icmp::{Echo, Version, strip_ipv4_header};

/// What the socket delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The ICMP message: a ping socket, and any ICMPv6 socket.
    Message,
    /// The IPv4 packet with its header: a raw ICMP socket.
    Ipv4Packet,
}

/// How a target is probed.
#[derive(Clone, Copy, Debug)]
pub struct IcmpConfig {
    /// The series that the samples belong to.
    pub series: SeriesIndex,
    /// Which protocol.
    pub version: Version,
    /// What the socket delivers.
    pub framing: Framing,
    /// Bytes of the ICMP message, header included.
    pub size: u16,
    /// One probe in each slot of this length, ns.
    pub interval_ns: u64,
    /// How much of a slot the random offset may take, permille.
    pub spread_permille: u16,
    /// A probe without an answer after this long is lost, ns.
    pub timeout_ns: u64,
}

/// Probes one target. No far end tells the direction of a loss, so it is never known.
#[derive(Debug)]
pub struct IcmpProber<S> {
    config: IcmpConfig,
    cookie: u64,
    mix: Mix,
    slots: Slots,
    flight: Flight<S, &'static mut [LossSlot]>,
}

impl<S: DerefMut<Target = [Slot]>> IcmpProber<S> {
    /// A prober whose first slot begins at `now`. `storage` holds the probes in flight: at least
    /// `timeout_ns / interval_ns` and a few more.
    pub fn new(config: IcmpConfig, now: Monotonic, storage: S, rng: &mut impl Rng) -> Self {
        let flight = FlightConfig {
            series: config.series,
            timeout_ns: config.timeout_ns,
            interval_ns: config.interval_ns,
            interleaved: false,
        };
        Self {
            config,
            cookie: rng.next_u64(),
            mix: Mix::default(),
            slots: Slots::new(now, config.interval_ns, config.spread_permille, rng),
            flight: Flight::new(flight, storage, &mut []),
        }
    }

    /// Mixes further sizes of the ICMP message into the series, in turn with the configured one. Of more
    /// than [`MORE_SIZES`](crate::schedule::MORE_SIZES) the first are taken.
    pub fn mix_sizes(&mut self, more: &[u16]) {
        self.mix = Mix::new(more, 0..=u16::MAX);
    }

    /// The identifier of its requests, and so of the replies to them. A ping socket's kernel sets another, but
    /// a raw socket hears the replies to everybody's requests.
    #[must_use]
    pub const fn identifier(&self) -> u16 {
        // Any bits of a random number are one.
        self.cookie as u16
    }

    /// The next request, if its deadline has come: written into `out`.
    pub fn poll_transmit(
        &mut self,
        now: Monotonic,
        rng: &mut impl Rng,
        out: &mut [u8],
    ) -> Option<(usize, SendToken)> {
        let deadline = self.slots.deadline();
        if now < deadline {
            return None;
        }
        self.slots.advance(now, rng);
        let seq = self.flight.next_seq();
        let echo = Echo {
            identifier: self.identifier(),
            cookie: self.cookie,
            seq,
        };
        let size = usize::from(self.mix.size(self.config.size, seq));
        let len = echo.emit_request(self.config.version, size, out)?;
        self.flight.on_send(now, deadline, len as u16)?;
        Some((len, SendToken { stream: 0, seq }))
    }

    /// What became of a request.
    pub fn handle_sent(&mut self, token: SendToken, outcome: SendOutcome) {
        self.flight.on_sent(token.seq, outcome);
    }

    /// A datagram arrived at the socket.
    ///
    /// # Errors
    /// Why it was not used.
    pub fn handle_reply(&mut self, meta: &RecvMeta, bytes: &[u8]) -> Result<(), DropReason> {
        if meta.truncated {
            return Err(DropReason::Truncated);
        }
        let message = match self.config.framing {
            Framing::Message => bytes,
            Framing::Ipv4Packet => strip_ipv4_header(bytes)?,
        };
        let echo = Echo::parse_reply(self.config.version, message)?;
        if echo.cookie != self.cookie {
            return Err(DropReason::Unmatched);
        }
        let facts = ReplyFacts {
            rx: meta.at,
            ttl_down: meta.ttl,
            remote: None,
        };
        self.flight.on_reply(echo.seq, &facts)
    }

    /// Our own socket dropped datagrams just now: see [`Flags::OWN_DROPS`](crate::sample::Flags).
    pub fn handle_own_drops(&mut self) {
        self.flight.on_own_drops();
    }

    /// When [`IcmpProber::poll_transmit`] or [`IcmpProber::handle_timeout`] is next needed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Monotonic> {
        let send = self.slots.deadline();
        Some(self.flight.poll_timeout().map_or(send, |t| t.min(send)))
    }

    /// Ends what has waited for the time-out.
    pub fn handle_timeout(&mut self, now: Monotonic) {
        self.flight.handle_timeout(now);
    }

    /// The next sample or revision, until there is none.
    pub fn poll_observation(&mut self) -> Option<Observation> {
        self.flight.poll_observation()
    }

    /// What has been answered ends as it is: nothing more will be heard.
    pub fn end_answered(&mut self) {
        self.flight.end_answered();
    }

    /// Observations that were lost since the last call because nobody polled for them.
    pub const fn take_overflowed(&mut self) -> u64 {
        self.flight.take_overflowed()
    }

    /// Slots that passed without a probe because the driver did not come back in time.
    #[must_use]
    pub const fn skipped_slots(&self) -> u64 {
        self.slots.skipped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Flags, Status};
    use crate::time::Stamp;
    use crate::wire::icmp::checksum;
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn an_echo_through_a_raw_socket_becomes_a_sample_and_a_strangers_does_not() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let config = IcmpConfig {
            series: SeriesIndex(1),
            version: Version::V4,
            framing: Framing::Ipv4Packet,
            size: 64,
            interval_ns: 1_000_000_000,
            spread_permille: 0,
            timeout_ns: 3_000_000_000,
        };
        let start = Monotonic::from_nanos(5_000_000_000);
        let mut p = IcmpProber::new(config, start, vec![Slot::default(); 16], &mut rng);
        let mut out = [0; 100];
        assert!(
            p.poll_transmit(start.saturating_sub(1), &mut rng, &mut out)
                .is_none()
        );
        let (len, token) = p.poll_transmit(start, &mut rng, &mut out).unwrap();
        assert!(p.poll_transmit(start, &mut rng, &mut out).is_none());
        p.handle_sent(token, SendOutcome::Stamped(Stamp::kernel(start)));

        let mut packet: Vec<u8> = vec![0; 20];
        packet[0] = 0x45;
        packet.extend_from_slice(&out[..len]);
        packet[20] = 0;
        packet[22..24].fill(0);
        let sum = checksum(&packet[20..]);
        packet[22..24].copy_from_slice(&sum.to_be_bytes());
        let meta = RecvMeta {
            at: Stamp::kernel(start.saturating_add(20_000_000)),
            from: ([192, 0, 2, 1], 0).into(),
            to: None,
            ttl: Some(57),
            tos: None,
            socket_drops: 0,
            truncated: false,
        };
        let mut foreign = packet.clone();
        foreign[28] ^= 1;
        foreign[22..24].fill(0);
        let sum = checksum(&foreign[20..]);
        foreign[22..24].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(p.handle_reply(&meta, &foreign), Err(DropReason::Unmatched));
        assert_eq!(p.handle_reply(&meta, &packet), Ok(()));
        let Some(Observation::New(s)) = p.poll_observation() else {
            panic!()
        };
        assert_eq!(
            (s.status, s.rtt_ns, s.size),
            (Status::Ok, Some(20_000_000), 64)
        );
        assert_eq!(p.poll_timeout(), Some(start.saturating_add(1_000_000_000)));
    }

    #[test]
    fn mixed_sizes_take_turns() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let config = IcmpConfig {
            series: SeriesIndex(1),
            version: Version::V6,
            framing: Framing::Message,
            size: 64,
            interval_ns: 1_000_000,
            spread_permille: 0,
            timeout_ns: 1_000_000_000,
        };
        let start = Monotonic::ZERO;
        let mut p = IcmpProber::new(config, start, vec![Slot::default(); 16], &mut rng);
        p.mix_sizes(&[512, 1400]);
        let mut out = [0; 1472];
        let lengths: Vec<usize> = (0..4)
            .filter_map(|n| {
                let now = Monotonic::from_nanos(n * 1_000_000);
                Some(p.poll_transmit(now, &mut rng, &mut out)?.0)
            })
            .collect();
        assert_eq!(lengths, [64, 512, 1400, 64]);
    }

    #[test]
    fn after_a_stall_one_probe_leaves_late_and_says_so() {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let config = IcmpConfig {
            series: SeriesIndex(1),
            version: Version::V4,
            framing: Framing::Message,
            size: 64,
            interval_ns: 50_000_000,
            spread_permille: 0,
            timeout_ns: 1_000_000_000,
        };
        let start = Monotonic::ZERO;
        let mut p = IcmpProber::new(config, start, vec![Slot::default(); 64], &mut rng);
        let mut out = [0; 100];
        // In its slot, then after a stall of two seconds, then in its slot again.
        for at in [0, 2_007_000_000, 2_050_000_000] {
            let now = Monotonic::from_nanos(at);
            let (_, token) = p.poll_transmit(now, &mut rng, &mut out).unwrap();
            p.handle_sent(token, SendOutcome::Stamped(Stamp::kernel(now)));
            assert!(p.poll_transmit(now, &mut rng, &mut out).is_none(), "{at}");
        }
        assert_eq!(p.skipped_slots(), 39);
        p.handle_timeout(Monotonic::from_nanos(10_000_000_000));
        let late = core::iter::from_fn(|| p.poll_observation()).map(|o| match o {
            Observation::New(s) | Observation::Revised(s) => s.flags.contains(Flags::SENT_LATE),
        });
        assert!(late.eq([false, true, false]));
    }
}
