//! The prober's side of a session: it knocks, probes, and matches the echoes.

mod orders;

use core::net::SocketAddr;
use core::ops::DerefMut;

use heapless::{Deque, Vec};
use rand_core::Rng;
use zerocopy::byteorder::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use super::address_from_bytes;
use super::reflector::{STREAMS_PER_SESSION, seal_knock, write};
use crate::drop_reason::DropReason;
use crate::flight::{Flight, FlightConfig, LossSlot, ReceivedWord, RemoteFacts, ReplyFacts, Slot};
use crate::limits::{MAX_DATAGRAM, MIN_PROBE_SIZE, RECEIVE_RECORD_BITS};
use crate::packet::{RecvMeta, SendOutcome, SendToken};
use crate::sample::{Observation, SeriesIndex};
use crate::schedule::Slots;
use crate::seal::{Nonce, PresharedKey, Secret, SessionKeys, open, seal};
use crate::time::{ClockSource, Monotonic};
use crate::wire::header::{Kind, KnockHeader, Prefix, SessionHeader};
use crate::wire::knock::{Challenge, Cookie, Hello, Join, KNOCK_LEN, Welcome};
use crate::wire::probe::{NO_RECORD, Probe, Reply, WANT_NOTHING};

/// A session gets new keys after this long, ns.
const REKEY_NS: u64 = 24 * 3_600_000_000_000;
/// And before this many packets.
const REKEY_PACKETS: u64 = 1 << 31;
/// Echoes under the keys before are accepted for this long after new ones, ns.
const OVERLAP_NS: u64 = 10_000_000_000;
/// Without an echo for this long while probes go out, the reflector counts as lost and is knocked
/// at, ns; at slow rates after three intervals.
const SILENCE_NS: u64 = 1_000_000_000;
/// How long a reflector may take to answer for the first time before it counts as lost, ns.
const FIRST_PATIENCE_NS: u64 = 3_000_000_000;
/// A knock that is not answered is repeated after this, ns, and then ever more slowly.
const FIRST_RETRY_NS: u64 = 300_000_000;
const LAST_RETRY_NS: u64 = 1_500_000_000;
/// A request counts as not received by the far end when a later one, sent at least this long after
/// it, is known to have arrived, ns: what overtakes by more is late, not reordered.
const SETTLE_NS: u64 = 500_000_000;

/// [`SendToken::stream`] of knocks: nobody waits for their stamps.
const KNOCK: u16 = u16::MAX;

/// Most sizes of a stream beside its first.
pub const MORE_SIZES: usize = 3;

/// One stream of a session.
#[derive(Clone, Copy, Debug)]
pub struct StreamConfig {
    /// The series that its samples belong to.
    pub series: SeriesIndex,
    /// Bytes of UDP payload, [`MIN_PROBE_SIZE`] to [`MAX_DATAGRAM`].
    pub size: u16,
    /// One probe in each slot of this length, ns.
    pub interval_ns: u64,
    /// How much of a slot the random offset may take, permille.
    pub spread_permille: u16,
    /// A probe without an answer after this long is lost, ns.
    pub timeout_ns: u64,
}

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
    AddressSeen(SocketAddr),
    /// Its socket dropped this many datagrams: losses around now are not the line's.
    RemoteDrops(u32),
}

/// The present keys, or those before.
#[derive(Debug)]
struct Session {
    number: u32,
    keys: SessionKeys,
    since: Monotonic,
    next_counter: u64,
    /// The highest counter of an echo: what an older one says of the present is out of date.
    newest_echo: Option<u64>,
}

/// Where knocking has got to.
#[derive(Debug)]
enum Knock {
    Idle,
    /// The first knock is to be sent, or has been and is not answered.
    Hello {
        client_random: [u8; 32],
    },
    /// The second one.
    Join {
        client_random: [u8; 32],
        cookie: Cookie,
    },
}

#[derive(Debug)]
struct Stream<S, L> {
    config: StreamConfig,
    /// Further sizes, which probes take in turn with the configured one.
    more_sizes: Vec<u16, MORE_SIZES>,
    slots: Slots,
    flight: Flight<S, L>,
    /// An earlier probe and when the kernel says it left.
    earlier: (u64, u64),
    /// The newest answered probe and the far end's count of received ones then.
    newest: Option<(u64, u32)>,
    /// Clear bits in the far end's record mean nothing for probes before this one.
    believe_from: u64,
    /// The part of the record asked for last.
    asked: u64,
    /// A long run whose direction the counts tell: what is left of it.
    run: Option<(u64, u64, bool)>,
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
    silent: bool,
    address: Option<SocketAddr>,
    remote_drops: Option<u32>,
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
            silent: false,
            address: None,
            remote_drops: None,
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
            more_sizes: Vec::new(),
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
            s.more_sizes.clear();
            let allowed = |n: &u16| (*n).clamp(MIN_PROBE_SIZE as u16, MAX_DATAGRAM as u16);
            s.more_sizes
                .extend(more.iter().take(MORE_SIZES).map(allowed));
        }
    }

    /// Whether there is a session, and it answers.
    #[must_use]
    pub const fn is_answering(&self) -> bool {
        self.session.is_some() && !self.silent
    }

    /// The next datagram, if one is due: a knock, or a probe whose deadline has come.
    pub fn poll_transmit(
        &mut self,
        now: Monotonic,
        rng: &mut impl Rng,
        out: &mut [u8],
    ) -> Option<(usize, SendToken)> {
        if !matches!(self.knock, Knock::Idle) && now >= self.knock_at {
            self.knock_at = now.saturating_add(self.retry_ns);
            self.retry_ns = (self.retry_ns * 2).min(LAST_RETRY_NS);
            let len = self.write_knock(rng, out)?;
            return Some((
                len,
                SendToken {
                    stream: KNOCK,
                    seq: 0,
                },
            ));
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
            Kind::Hello | Kind::Join | Kind::Probe | Kind::Order | Kind::Report | Kind::Stream => {
                Err(DropReason::Type)
            }
        }
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
        let knock = (!matches!(self.knock, Knock::Idle)).then_some(self.knock_at);
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
        if !self.silent && now.saturating_since(self.heard_at) > patience_ns {
            self.silent = true;
            self.event(SessionEvent::Lost);
        }
        let Some(session) = &self.session else { return };
        let old =
            now.saturating_since(session.since) > REKEY_NS || session.next_counter > REKEY_PACKETS;
        if (self.silent || old) && matches!(self.knock, Knock::Idle) {
            self.knock = Knock::Hello {
                client_random: [0; 32],
            };
            self.knock_at = now;
            self.retry_ns = FIRST_RETRY_NS;
        }
    }

    /// The next sample or revision, until there is none.
    pub fn poll_observation(&mut self) -> Option<Observation> {
        self.streams
            .iter_mut()
            .find_map(|s| s.flight.poll_observation())
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

    fn write_knock(&mut self, rng: &mut impl Rng, out: &mut [u8]) -> Option<usize> {
        if let Knock::Hello { client_random } = &mut self.knock {
            // A random value names one attempt: each first knock has its own.
            rng.fill_bytes(client_random);
        }
        let sealed = match &self.knock {
            Knock::Idle => return None,
            Knock::Hello { client_random } => {
                let body = Hello {
                    client_random: *client_random,
                    padding: [0; 48],
                };
                seal_knock(
                    Kind::Hello,
                    &self.key,
                    &self.knock_key,
                    body.as_bytes(),
                    out,
                    rng,
                )
            }
            Knock::Join {
                client_random,
                cookie,
            } => {
                let body = Join {
                    client_random: *client_random,
                    cookie: *cookie,
                    instance: U64::new(self.instance),
                    padding: [0; 16],
                };
                seal_knock(
                    Kind::Join,
                    &self.key,
                    &self.knock_key,
                    body.as_bytes(),
                    out,
                    rng,
                )
            }
        };
        // A second knock that stays without an answer is given up: its challenge may be too old.
        if self.retry_ns >= LAST_RETRY_NS && matches!(self.knock, Knock::Join { .. }) {
            self.knock = Knock::Hello {
                client_random: [0; 32],
            };
            self.retry_ns = FIRST_RETRY_NS;
        }
        sealed.ok()
    }

    fn write_probe(
        &mut self,
        index: usize,
        now: Monotonic,
        deadline: Monotonic,
        out: &mut [u8],
    ) -> Option<(usize, SendToken)> {
        let session = self.session.as_mut()?;
        let stream = &mut self.streams[index];
        let turn = stream.flight.next_seq() % (stream.more_sizes.len() as u64 + 1);
        let size = match turn.checked_sub(1) {
            None => stream.config.size,
            Some(i) => stream.more_sizes[i as usize],
        };
        let out = out.get_mut(..usize::from(size))?;
        let seq = stream.flight.on_send(now, deadline, size)?;
        stream.asked = stream
            .flight
            .oldest_undirected()
            .map_or(WANT_NOTHING, |s| s - s % 64);
        let probe = Probe {
            stream: U16::new(index as u16),
            flags: U16::ZERO,
            reserved: U32::ZERO,
            seq: U64::new(seq),
            sent_ns: U64::new(now.as_nanos()),
            earlier_seq: U64::new(stream.earlier.0),
            earlier_tx_ns: U64::new(stream.earlier.1),
            want: U64::new(stream.asked),
        };
        let counter = session.next_counter;
        session.next_counter += 1;
        let header = SessionHeader::new(Kind::Probe, session.number, counter);
        out.fill(0);
        let sealed = write(out, header.as_bytes(), probe.as_bytes()).and_then(|()| {
            seal(
                &session.keys.up,
                Nonce::Counter(counter),
                out,
                SessionHeader::LEN,
            )
        });
        debug_assert!(
            sealed.is_ok(),
            "a probe of {size} bytes has room for header and tag"
        );
        Some((
            out.len(),
            SendToken {
                stream: index as u16,
                seq,
            },
        ))
    }

    fn open_knock<B: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable>(
        &self,
        datagram: &mut [u8],
    ) -> Result<B, DropReason> {
        let (header, _) =
            KnockHeader::read_from_prefix(datagram).map_err(|_| DropReason::Length)?;
        if header.key_id != self.key.id.0 {
            return Err(DropReason::UnknownKey);
        }
        let nonce = Nonce::Random(header.nonce);
        let body = open(&self.knock_key, nonce, datagram, KnockHeader::LEN)?;
        B::read_from_prefix(body)
            .map(|(b, _)| b)
            .map_err(|_| DropReason::Length)
    }

    fn challenged(&mut self, now: Monotonic, datagram: &mut [u8]) -> Result<(), DropReason> {
        let challenge: Challenge = self.open_knock(datagram)?;
        match &self.knock {
            Knock::Hello { client_random } if *client_random == challenge.client_random => {
                self.knock = Knock::Join {
                    client_random: *client_random,
                    cookie: challenge.cookie,
                };
                self.knock_at = now;
                self.retry_ns = FIRST_RETRY_NS;
                Ok(())
            }
            _ => Err(DropReason::Unmatched),
        }
    }

    fn welcomed(&mut self, now: Monotonic, datagram: &mut [u8]) -> Result<(), DropReason> {
        if datagram.len() != KNOCK_LEN {
            return Err(DropReason::Length);
        }
        let welcome: Welcome = self.open_knock(datagram)?;
        match &self.knock {
            Knock::Join { client_random, .. } if *client_random == welcome.client_random => {}
            _ => return Err(DropReason::Unmatched),
        }
        self.knock = Knock::Idle;
        let session = Session {
            number: welcome.session.get(),
            keys: self
                .key
                .session_keys(&welcome.client_random, &welcome.server_random),
            since: now,
            next_counter: 0,
            newest_echo: None,
        };
        let first = self.boot.is_none();
        if self
            .boot
            .replace(welcome.boot.get())
            .is_some_and(|b| b != welcome.boot.get())
        {
            for s in &mut self.streams {
                s.flight.on_remote_restart();
                s.believe_from = s.flight.next_seq();
                s.newest = None;
                s.run = None;
            }
            self.remote_drops = None;
            self.before = None;
            self.session = None;
            self.event(SessionEvent::RemoteRestarted);
        }
        self.before = self.session.replace(session);
        self.heard_at = now;
        if first {
            self.event(SessionEvent::Established);
        }
        if core::mem::take(&mut self.silent) {
            self.event(SessionEvent::Back);
        }
        Ok(())
    }

    fn replied(
        &mut self,
        now: Monotonic,
        meta: &RecvMeta,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let (header, _) =
            SessionHeader::read_from_prefix(datagram).map_err(|_| DropReason::Length)?;
        let number = header.session.get();
        let session = [&self.session, &self.before]
            .into_iter()
            .flatten()
            .find(|s| s.number == number)
            .ok_or(DropReason::UnknownSession)?;
        let nonce = Nonce::Counter(header.counter.get());
        let body = open(&session.keys.down, nonce, datagram, SessionHeader::LEN)?;
        let (reply, _) = Reply::read_from_prefix(body).map_err(|_| DropReason::Length)?;
        self.heard_at = now;
        if core::mem::take(&mut self.silent) {
            self.event(SessionEvent::Back);
            // A knock that was only meant to find the reflector again is not needed any more.
            self.knock = Knock::Idle;
        }
        let seq = reply.seq.get();
        let index = usize::from(reply.stream.get());
        if self.is_newest(number, header.counter.get()) {
            self.take_present(&reply);
        }
        let stream = self.streams.get_mut(index).ok_or(DropReason::Field)?;
        stream.take_reply(meta, &reply, seq)
    }

    /// Whether the echo with `counter` in session `number` is the latest so far, in the order in
    /// which they were sent.
    fn is_newest(&mut self, number: u32, counter: u64) -> bool {
        let session = self.session.as_mut().filter(|s| s.number == number);
        session.is_some_and(|s| {
            let newest = s.newest_echo.is_none_or(|n| n < counter);
            if newest {
                s.newest_echo = Some(counter);
            }
            newest
        })
    }

    /// What an echo says of the reflector and of our address as they are now.
    fn take_present(&mut self, reply: &Reply) {
        let address = address_from_bytes(reply.address, reply.port.get());
        if self.address.replace(address) != Some(address) {
            self.event(SessionEvent::AddressSeen(address));
        }
        let drops = reply.socket_drops.get();
        let before = self.remote_drops.replace(drops);
        // Among the first count there may be drops of the probes before it.
        let rise = drops.wrapping_sub(before.unwrap_or(0));
        if rise == 0 || rise >= u32::MAX / 2 {
            return;
        }
        if before.is_some() {
            self.event(SessionEvent::RemoteDrops(rise));
        }
        for s in &mut self.streams {
            s.believe_from = s.flight.next_seq();
        }
    }

    fn event(&mut self, event: SessionEvent) {
        // Nobody polls: the oldest gives way.
        if self.events.is_full() {
            self.events.pop_front();
        }
        let _ = self.events.push_back(event);
    }
}

impl<S, L> Stream<S, L>
where
    S: DerefMut<Target = [Slot]>,
    L: DerefMut<Target = [LossSlot]>,
{
    fn take_reply(&mut self, meta: &RecvMeta, reply: &Reply, seq: u64) -> Result<(), DropReason> {
        let clock =
            |which: u32| ClockSource::from_u8(reply.clocks >> (2 * which) & 3).unwrap_or_default();
        for (i, (tx_ns, back)) in reply.tx_ns.iter().zip(&reply.tx_back).enumerate() {
            if back.get() > 0
                && let Some(earlier) = seq.checked_sub(u64::from(back.get()))
            {
                self.flight
                    .on_residence(earlier, tx_ns.get(), clock(i as u32 + 1));
            }
        }
        let rx_ns = reply.rx_ns.get();
        let remote = RemoteFacts {
            rx_ns,
            rx_clock: clock(0),
            tx_user_ns: rx_ns.saturating_add(u64::from(reply.residence_ns.get())),
            ttl_up: Some(reply.ttl).filter(|t| *t > 0),
            tos_seen: (reply.ttl > 0).then_some(reply.tos),
        };
        let facts = ReplyFacts {
            rx: meta.at,
            ttl_down: meta.ttl,
            remote: Some(remote),
        };
        self.flight.on_reply(seq, &facts)?;
        self.take_counts(seq, reply.received.get());
        self.take_record(seq, reply);
        Ok(())
    }

    /// A run that is longer than the far end's record has its direction from the counts, where they
    /// leave no doubt.
    fn take_counts(&mut self, seq: u64, received: u32) {
        let Some((newest, count)) = self.newest else {
            self.newest = Some((seq, received));
            return;
        };
        let Some(sent) = seq.checked_sub(newest).filter(|n| *n > 0) else {
            return;
        };
        self.newest = Some((seq, received));
        let arrived = received.wrapping_sub(count);
        if sent + 128 < RECEIVE_RECORD_BITS as u64 || newest < self.believe_from {
            return;
        }
        if arrived == 1 || u64::from(arrived) == sent {
            self.run = Some((newest + 1, seq, arrived != 1));
        }
    }

    fn take_record(&mut self, seq: u64, reply: &Reply) {
        let back = reply.record_back.get();
        if back == NO_RECORD {
            // Asked for, and not remembered any more: that part will never be known. A run whose
            // direction the counts tell does not need it.
            if self.asked != WANT_NOTHING
                && self.run.is_none()
                && self.asked.saturating_add(RECEIVE_RECORD_BITS as u64) < seq
            {
                self.flight.forget_before(self.asked + 64);
            }
            return;
        }
        let Some(first) = seq.checked_sub(u64::from(back)) else {
            return;
        };
        self.flight.on_received_word(&ReceivedWord {
            first,
            bits: reply.record.get(),
            as_of: seq,
            settle_ns: SETTLE_NS,
            believe_from: self.believe_from,
        });
    }
}
