//! The prober's side of a session: it knocks, probes, and matches the echoes.

mod knock;
mod orders;
mod probe;
mod stream;
mod trains;
mod unanswered;

pub use stream::StreamConfig;

pub use crate::schedule::MORE_SIZES;

use core::net::SocketAddr;
use core::ops::DerefMut;

use heapless::{Deque, Vec};
use rand_core::Rng;

use self::knock::{FIRST_RETRY_NS, Knock};
use self::probe::Session;
use self::stream::Stream;
use self::unanswered::Unanswered;
use super::reflector::STREAMS_PER_SESSION;
use crate::drop_reason::DropReason;
use crate::flight::{Flight, FlightConfig, LossSlot, Slot};
use crate::limits::{MAX_DATAGRAM, MIN_PROBE_SIZE};
use crate::packet::{RecvMeta, SendOutcome, SendToken};
use crate::sample::Observation;
use crate::schedule::{Mix, Slots};
use crate::seal::{PresharedKey, Secret};
use crate::time::Monotonic;
use crate::wire::header::{Kind, Prefix};
use crate::wire::probe::WANT_NOTHING;

/// A session gets new keys after this long, ns.
const REKEY_NS: u64 = 24 * 3_600_000_000_000;
/// And after this many packets.
const REKEY_PACKETS: u64 = 1 << 31;
/// Echoes under the keys before are accepted for this long after new ones, ns.
const OVERLAP_NS: u64 = 10_000_000_000;
/// Keys are this old before another address is a reason for new ones, ns.
const MOVED_APART_NS: u64 = 10_000_000_000;
/// Without an echo for this long while probes go out, the reflector counts as lost and is knocked
/// at, ns; at slow rates it counts as lost after three intervals, and is knocked at before: see [`Unanswered`].
const SILENCE_NS: u64 = 1_000_000_000;
/// How long a reflector may take to answer for the first time before it counts as lost, ns.
const FIRST_PATIENCE_NS: u64 = 3_000_000_000;
/// Knocks and checks: nobody waits for their stamps.
const OF_NO_STREAM: SendToken = SendToken {
    stream: u16::MAX,
    seq: 0,
};

/// Something that happened to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// The reflector answers, for the first time.
    Established,
    /// It has stopped answering.
    Lost,
    /// It answers again.
    Back,
    /// It has been restarted: what it had counted is gone.
    RemoteRestarted,
    /// It sees us at another address than before, or for the first time.
    AddressSeen {
        /// Where it sees us.
        address: SocketAddr,
        /// Whether what it heard came through another socket than before, see [`Client::handle_new_socket`]: another
        /// port is our own doing then.
        new_socket: bool,
    },
    /// It dropped this many datagrams itself: losses around now are not the line's, see
    /// [`Flags::FAR_DROPS`](crate::sample::Flags).
    RemoteDrops(u32),
    /// What it says of its wall clock, for the first time or because that has changed. Delays are of
    /// its monotonic clock, which is never set; they need neither to be right.
    RemoteClock {
        /// Whether something keeps it right.
        disciplined: bool,
        /// Whether it has been set since the echo before.
        set: bool,
    },
}

/// Probes one reflector from one socket, in up to [`STREAMS_PER_SESSION`] streams.
#[derive(Debug)]
pub struct Client<S, L> {
    key: PresharedKey,
    knock_key: Secret,
    instance: u64,
    streams: Vec<Stream<S, L>, STREAMS_PER_SESSION>,
    session: Option<Session>,
    before: Option<Session>,
    knock: Knock,
    /// When the next knock is due, and how long to wait after it.
    knock_at: Monotonic,
    retry_ns: u64,
    boot: Option<u64>,
    heard_at: Monotonic,
    unanswered: Unanswered,
    silent: bool,
    address: Option<SocketAddr>,
    /// Whether nothing has been heard yet through the socket of now.
    new_socket: bool,
    /// Whether the reflector sees another address than when it gave us our keys, so that it sends nothing there that is
    /// longer than what came from there.
    has_moved: bool,
    /// How many datagrams the reflector had dropped itself, and when the probe was sent whose echo said so.
    remote_drops: Option<(u32, Monotonic)>,
    /// Whether the reflector's wall clock is disciplined, and its epoch.
    remote_clock: Option<(bool, u32)>,
    events: Deque<SessionEvent, 8>,
}

impl<S, L> Client<S, L>
where
    S: DerefMut<Target = [Slot]>,
    L: DerefMut<Target = [LossSlot]>,
{
    /// A client that begins to knock at `now`. Without streams it does nothing else.
    pub fn new(key: PresharedKey, now: Monotonic, rng: &mut impl Rng) -> Self {
        let knock_key = key.knock_key();
        let mut client_random = [0; 32];
        rng.fill_bytes(&mut client_random);
        Self {
            key,
            knock_key,
            instance: rng.next_u64(),
            streams: Vec::new(),
            session: None,
            before: None,
            knock: Knock::Hello { client_random },
            knock_at: now,
            retry_ns: FIRST_RETRY_NS,
            boot: None,
            heard_at: now,
            unanswered: Unanswered::default(),
            silent: false,
            address: None,
            new_socket: true,
            has_moved: false,
            remote_drops: None,
            remote_clock: None,
            events: Deque::new(),
        }
    }

    /// Adds a stream whose first slot begins at `now`. `slots` holds the probes in flight, `losses`
    /// those whose direction may still become known. Gives it back where there are too many already.
    ///
    /// # Errors
    /// The storage, where there are [`STREAMS_PER_SESSION`] streams already.
    pub fn add_stream(
        &mut self,
        config: StreamConfig,
        now: Monotonic,
        slots: S,
        losses: L,
        rng: &mut impl Rng,
    ) -> Result<(), (S, L)> {
        if self.streams.is_full() {
            return Err((slots, losses));
        }
        let flight = FlightConfig {
            series: config.series,
            timeout_ns: config.timeout_ns,
            interval_ns: config.interval_ns,
            interleaved: true,
        };
        let stream = Stream {
            slots: Slots::new(now, config.interval_ns, config.spread_permille, rng),
            config: StreamConfig {
                size: config
                    .size
                    .clamp(MIN_PROBE_SIZE as u16, MAX_DATAGRAM as u16),
                ..config
            },
            mix: Mix::default(),
            flight: Flight::new(flight, slots, losses),
            earlier: (0, 0),
            newest: None,
            believe_from: 0,
            asked: WANT_NOTHING,
            run: None,
        };
        // There is room: it was looked at above.
        let _ = self.streams.push(stream);
        Ok(())
    }

    /// Mixes further sizes into stream `stream`, in turn: what a line does to large packets and not
    /// to small ones shows within one series. Each is brought between [`MIN_PROBE_SIZE`] and
    /// [`MAX_DATAGRAM`]; of more than [`MORE_SIZES`] the first are taken.
    pub fn mix_sizes(&mut self, stream: usize, more: &[u16]) {
        if let Some(s) = self.streams.get_mut(stream) {
            s.mix = Mix::new(more, MIN_PROBE_SIZE as u16..=MAX_DATAGRAM as u16);
        }
    }

    /// Whether there is a session, and it answers.
    #[must_use]
    pub const fn is_answering(&self) -> bool {
        self.session.is_some() && !self.silent
    }

    /// Whether its first session may be there at the reflector already, but is not known of here: the second knock has no
    /// answer yet.
    #[must_use]
    pub const fn is_joining(&self) -> bool {
        self.session.is_none() && matches!(self.knock, Knock::Join { .. })
    }

    /// The next datagram, if one is due: a knock, a probe whose deadline has come, or a check whether the session is
    /// still there.
    pub fn poll_transmit(
        &mut self,
        now: Monotonic,
        rng: &mut impl Rng,
        out: &mut [u8],
    ) -> Option<(usize, SendToken)> {
        if !matches!(self.knock, Knock::Idle) && now >= self.knock_at {
            let len = self.write_knock(now, rng, out)?;
            return Some((len, OF_NO_STREAM));
        }
        for index in 0..self.streams.len() {
            let deadline = self.streams[index].slots.deadline();
            if now < deadline {
                continue;
            }
            self.streams[index].slots.advance(now, rng);
            // Without a session there is nothing to send: the gap is told by an event.
            if self.session.is_some()
                && let Some(sent) = self.write_probe(index, now, deadline, out)
            {
                return Some(sent);
            }
        }
        // A probe that left just now is as good.
        if matches!(self.knock, Knock::Idle)
            && self.unanswered.check_from().is_some_and(|at| now >= at)
        {
            return Some((self.write_check(now, out)?, OF_NO_STREAM));
        }
        None
    }

    /// What became of a datagram.
    pub fn handle_sent(&mut self, token: SendToken, outcome: SendOutcome) {
        let Some(stream) = self.streams.get_mut(usize::from(token.stream)) else {
            return;
        };
        if let SendOutcome::Stamped(stamp) = outcome {
            stream.earlier = (token.seq, stamp.at.as_nanos());
        }
        stream.flight.on_sent(token.seq, outcome);
    }

    /// A datagram arrived; it is opened in place.
    ///
    /// # Errors
    /// Why it was not used.
    pub fn handle_reply(
        &mut self,
        now: Monotonic,
        meta: &RecvMeta,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        if meta.truncated {
            return Err(DropReason::Truncated);
        }
        match Prefix::kind_of(datagram)? {
            Kind::Challenge => self.challenged(now, datagram),
            Kind::Welcome => self.welcomed(now, datagram),
            Kind::Reply => self.replied(now, meta, datagram),
            // Reports are opened by `open_report`.
            Kind::Hello
            | Kind::Join
            | Kind::Probe
            | Kind::Order
            | Kind::Report
            | Kind::Stream
            | Kind::Load
            | Kind::Train
            | Kind::TrainAsk
            | Kind::TrainReport => Err(DropReason::Type),
        }
    }

    /// What is sent from now on leaves through another socket than before, and the answers come in by it.
    pub const fn handle_new_socket(&mut self) {
        self.new_socket = true;
    }

    /// Our own socket dropped datagrams just now: see [`Flags::OWN_DROPS`](crate::sample::Flags).
    pub fn handle_own_drops(&mut self) {
        for s in &mut self.streams {
            s.flight.on_own_drops();
        }
    }

    /// When [`Client::poll_transmit`] or [`Client::handle_timeout`] is next needed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Monotonic> {
        let knock = match self.knock {
            Knock::Idle => self.session.as_ref().and(self.unanswered.poll_timeout()),
            Knock::Hello { .. } | Knock::Join { .. } => Some(self.knock_at),
        };
        let streams = self.streams.iter().flat_map(|s| {
            [
                Some(s.slots.deadline()),
                s.flight.poll_timeout(),
                s.run.map(|_| Monotonic::ZERO),
            ]
        });
        streams.chain([knock]).flatten().min()
    }

    /// Ends what has waited for the time-out, notices silence, and renews keys.
    pub fn handle_timeout(&mut self, now: Monotonic) {
        for s in &mut self.streams {
            s.flight.handle_timeout(now);
            if let Some((from, to, received)) = s.run {
                let at = s.flight.on_run(from, to, received);
                s.run = (at < to).then_some((at, to, received));
            }
        }
        let Some(session) = &self.session else {
            // A reflector that answers at once was never lost.
            if !self.silent && now.saturating_since(self.heard_at) > FIRST_PATIENCE_NS {
                self.silent = true;
                self.event(SessionEvent::Lost);
            }
            return;
        };
        if self.before.is_some() && now.saturating_since(session.since) > OVERLAP_NS {
            self.before = None;
        }
        let fastest = self
            .streams
            .iter()
            .map(|s| s.config.interval_ns)
            .min()
            .unwrap_or(SILENCE_NS);
        let patience_ns = SILENCE_NS.max(fastest.saturating_mul(3));
        // Whoever stood still himself has asked nothing meanwhile, or not yet looked at the answers.
        let is_unanswered = self.unanswered.knock_from().is_some_and(|at| now >= at);
        let is_lost = is_unanswered && now.saturating_since(self.heard_at) > patience_ns;
        if is_lost && !self.silent {
            self.silent = true;
            self.event(SessionEvent::Lost);
        }
        let Some(session) = &self.session else { return };
        let is_due = self.silent || is_unanswered || self.wants_keys(session, now);
        if is_due && matches!(self.knock, Knock::Idle) {
            self.knock = Knock::Hello {
                client_random: [0; 32],
            };
            self.knock_at = now;
            self.retry_ns = FIRST_RETRY_NS;
        }
    }

    /// Whether a knock is for new keys or a new address, and not only to find the reflector again.
    fn wants_keys(&self, session: &Session, now: Monotonic) -> bool {
        // A NAT that gives another port each time would have it knock without end.
        let is_settled = now.saturating_since(session.since) > MOVED_APART_NS;
        session.is_old(now) || self.has_moved && is_settled
    }

    /// When its keys came.
    #[cfg(test)]
    pub(super) fn keys_since(&self) -> Option<Monotonic> {
        self.session.as_ref().map(|s| s.since)
    }

    /// As though so many packets had been sent under the keys of now.
    #[cfg(test)]
    pub(super) fn has_sent(&mut self, packets: u64) {
        if let Some(session) = &mut self.session {
            session.next_counter = packets;
        }
    }

    /// The next sample or revision, until there is none.
    pub fn poll_observation(&mut self) -> Option<Observation> {
        self.streams
            .iter_mut()
            .find_map(|s| s.flight.poll_observation())
    }

    /// What has been answered ends as it is: nothing more will be heard.
    pub fn end_answered(&mut self) {
        for s in &mut self.streams {
            s.flight.end_answered();
        }
    }

    /// Observations that were lost since the last call because nobody polled for them.
    pub fn take_overflowed(&mut self) -> u64 {
        let overflowed = |s: &mut Stream<S, L>| s.flight.take_overflowed();
        self.streams.iter_mut().map(overflowed).sum()
    }

    /// The next event, until there is none.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// Slots that passed without a probe because the driver did not come back in time.
    #[must_use]
    pub fn skipped_slots(&self) -> u64 {
        self.streams.iter().map(|s| s.slots.skipped()).sum()
    }

    fn event(&mut self, event: SessionEvent) {
        // Nobody polls: the oldest gives way.
        if self.events.is_full() {
            self.events.pop_front();
        }
        let _ = self.events.push_back(event);
    }
}
