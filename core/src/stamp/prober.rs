//! The Session-Sender of RFC 8762.

use core::net::SocketAddr;
use core::ops::DerefMut;

use rand_core::Rng;

use crate::drop_reason::DropReason;
use crate::flight::{Flight, FlightConfig, LossSlot, RemoteFacts, ReplyFacts, Slot};
use crate::limits::MAX_DATAGRAM;
use crate::packet::{RecvMeta, SendOutcome, SendToken};
use crate::sample::{Observation, SeriesIndex};
use crate::schedule::{Mix, Slots};
use crate::time::{ClockSource, Monotonic};
use crate::wire::stamp::{ErrorEstimate, Format, Key, Reply, Request};

/// Whether the reflector numbers its replies by itself (RFC 8762, 4: stateful mode), which is what
/// tells the direction of a loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Counting {
    /// Believed from the moment that its numbers part from ours, which without a loss upward they
    /// never do.
    #[default]
    Auto,
    /// It does.
    Stateful,
    /// It does not.
    Stateless,
}

/// How a STAMP reflector is probed.
#[derive(Clone, Debug)]
pub struct StampConfig {
    /// The series that the samples belong to.
    pub series: SeriesIndex,
    /// Where the reflector is: replies from elsewhere are not its.
    pub remote: SocketAddr,
    /// The key of the authenticated mode.
    pub key: Option<Key>,
    /// How our timestamps are written; the reflector's may be written otherwise.
    pub format: Format,
    /// Whether the reflector counts.
    pub counting: Counting,
    /// Bytes of UDP payload.
    pub size: u16,
    /// One probe in each slot of this length, ns.
    pub interval_ns: u64,
    /// How much of a slot the random offset may take, permille.
    pub spread_permille: u16,
    /// A probe without an answer after this long is lost, ns.
    pub timeout_ns: u64,
}

/// Probes one STAMP reflector.
///
/// Its timestamps are on a wall clock that is not ours; they are counted from its first one, so that
/// raw delays stay small numbers. Nothing says who took them, so they pass for a program's.
#[derive(Debug)]
pub struct StampProber<S, L> {
    config: StampConfig,
    session: u16,
    mix: Mix,
    slots: Slots,
    flight: Flight<S, L>,
    /// What is subtracted from the reflector's timestamps, ns.
    origin_ns: Option<u64>,
    /// Our number and the reflector's of the newest reply.
    newest: Option<(u64, u32)>,
    counts: bool,
    /// A run of losses of one direction: what is left of it.
    run: Option<(u64, u64, bool)>,
}

impl<S, L> StampProber<S, L>
where
    S: DerefMut<Target = [Slot]>,
    L: DerefMut<Target = [LossSlot]>,
{
    /// A prober whose first slot begins at `now`. `slots` holds the probes in flight, `losses` those
    /// whose direction may still become known.
    pub fn new(
        config: StampConfig,
        now: Monotonic,
        slots: S,
        losses: L,
        rng: &mut impl Rng,
    ) -> Self {
        let flight = FlightConfig {
            series: config.series,
            timeout_ns: config.timeout_ns,
            interval_ns: config.interval_ns,
            interleaved: false,
        };
        Self {
            // 0 stands for "no identifier".
            session: (rng.next_u32() as u16).max(1),
            mix: Mix::default(),
            slots: Slots::new(now, config.interval_ns, config.spread_permille, rng),
            flight: Flight::new(flight, slots, losses),
            origin_ns: None,
            newest: None,
            counts: config.counting == Counting::Stateful,
            run: None,
            config,
        }
    }

    /// Mixes further sizes into the series, in turn with the configured one. Each is at most
    /// [`MAX_DATAGRAM`]; of more than [`MORE_SIZES`](crate::schedule::MORE_SIZES) the first are taken.
    pub fn mix_sizes(&mut self, more: &[u16]) {
        self.mix = Mix::new(more, 0..=MAX_DATAGRAM as u16);
    }

    /// The next request, if its deadline has come: written into `out`. `wall_ns` is the wall clock
    /// at `now`, ns since 1970.
    pub fn poll_transmit(
        &mut self,
        now: Monotonic,
        wall_ns: u64,
        rng: &mut impl Rng,
        out: &mut [u8],
    ) -> Option<(usize, SendToken)> {
        let deadline = self.slots.deadline();
        if now < deadline {
            return None;
        }
        self.slots.advance(now, rng);
        let seq = self.flight.next_seq();
        let error = ErrorEstimate {
            format: self.config.format,
            ..ErrorEstimate::default()
        };
        let request = Request {
            seq: seq as u32,
            timestamp: self.config.format.write(wall_ns),
            error: error.write(),
            session: self.session,
        };
        let size = usize::from(self.mix.size(self.config.size, seq));
        let len = request.emit(self.config.key.as_ref(), size, out)?;
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
        if meta.from != self.config.remote {
            return Err(DropReason::Unmatched);
        }
        let reply = Reply::parse(self.config.key.as_ref(), bytes)?;
        // A reflector of before RFC 8972 leaves the identifier zero.
        if reply.session != self.session && reply.session != 0 {
            return Err(DropReason::UnknownSession);
        }
        let seq = self.whole(reply.request.seq)?;
        let facts = ReplyFacts {
            rx: meta.at,
            ttl_down: meta.ttl,
            remote: self.remote(&reply, meta.at.at),
        };
        self.flight.on_reply(seq, &facts)?;
        self.compare_numbers(seq, reply.seq);
        Ok(())
    }

    /// The number whose lower half this is: the newest that was sent with it.
    fn whole(&self, low: u32) -> Result<u64, DropReason> {
        let next = self.flight.next_seq();
        let back = (next as u32).wrapping_sub(low);
        // None of the future, and 0 is the one that was not sent yet.
        if back == 0 {
            return Err(DropReason::Unmatched);
        }
        next.checked_sub(u64::from(back))
            .ok_or(DropReason::Unmatched)
    }

    /// What the reflector says of a request; nothing where it takes no time.
    fn remote(&mut self, reply: &Reply, arrived: Monotonic) -> Option<RemoteFacts> {
        let format = ErrorEstimate::read(reply.error).format;
        let rx_ns = format.read(reply.receive_timestamp)?;
        let tx_ns = format.read(reply.timestamp)?;
        let origin = *self
            .origin_ns
            .get_or_insert(rx_ns.saturating_sub(arrived.as_nanos()));
        // A clock that was set back beyond the origin starts anew.
        if rx_ns < origin || tx_ns < rx_ns {
            self.origin_ns = None;
            return None;
        }
        Some(RemoteFacts {
            rx_ns: rx_ns - origin,
            rx_clock: ClockSource::User,
            tx_user_ns: tx_ns - origin,
            ttl_up: (reply.ttl > 0).then_some(reply.ttl),
            tos_seen: None,
        })
    }

    /// Between two replies a reflector that counts has numbered just those requests that reached it:
    /// where all of the missing ones did, or none, their direction is known. Of a mixture only the
    /// sums would be.
    fn compare_numbers(&mut self, seq: u64, theirs: u32) {
        let Some((last_seq, last_theirs)) = self.newest else {
            self.newest = Some((seq, theirs));
            return;
        };
        if seq <= last_seq {
            return;
        }
        self.newest = Some((seq, theirs));
        let (ours, theirs) = (seq - last_seq, u64::from(theirs.wrapping_sub(last_theirs)));
        // It was restarted, or a request overtook another on its way up.
        if theirs == 0 || theirs > ours {
            return;
        }
        if theirs < ours && self.config.counting == Counting::Auto {
            self.counts = true;
        }
        let received = theirs == ours;
        if !self.counts || ours == 1 || (!received && theirs != 1) {
            return;
        }
        let at = self.flight.on_run(last_seq + 1, seq, received);
        self.run = (at < seq).then_some((at, seq, received));
    }

    /// Our own socket dropped datagrams just now: see [`Flags::OWN_DROPS`](crate::sample::Flags).
    pub fn handle_own_drops(&mut self) {
        self.flight.on_own_drops();
    }

    /// When [`StampProber::poll_transmit`] or [`StampProber::handle_timeout`] is next needed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Monotonic> {
        if self.run.is_some() {
            return Some(Monotonic::ZERO);
        }
        let send = self.slots.deadline();
        Some(self.flight.poll_timeout().map_or(send, |t| t.min(send)))
    }

    /// Ends what has waited for the time-out.
    pub fn handle_timeout(&mut self, now: Monotonic) {
        self.flight.handle_timeout(now);
        if let Some((from, to, received)) = self.run {
            let at = self.flight.on_run(from, to, received);
            self.run = (at < to).then_some((at, to, received));
        }
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
