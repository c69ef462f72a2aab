//! The responder: answers what opens, remembers what arrived, and is silent to everybody else.

mod orders;
mod places;

pub use orders::OrderFrom;
use places::Places;

use core::net::SocketAddr;
use core::ops::DerefMut;

use rand_core::Rng;
use subtle::ConstantTimeEq;
use zerocopy::byteorder::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use super::record::StreamRecord;
use super::{Budget, address_bytes};
use crate::drop_reason::{DropCounters, DropReason};
use crate::limits::{MAX_DATAGRAM, MIN_PROBE_SIZE};
use crate::packet::{RecvMeta, SendOutcome, SendToken};
use crate::seal::{Nonce, PresharedKey, ReplayWindow, Secret, SessionKeys, open, seal};
use crate::time::Monotonic;
use crate::wire::header::{Kind, KnockHeader, Prefix, SessionHeader};
use crate::wire::knock::{Challenge, Cookie, Hello, Join, KNOCK_LEN, Welcome};
use crate::wire::probe::{NO_RECORD, Probe, Reply, WANT_NOTHING};

/// Streams of one session.
pub const STREAMS_PER_SESSION: usize = 8;
/// A challenge must come back within this, ns.
const CHALLENGE_LIFE_NS: u64 = 15_000_000_000;
/// A session from which nothing came for this long gives its place away, ns.
const IDLE_NS: u64 = 300_000_000_000;
/// Challenges per second and key, and how many at once.
const CHALLENGES: Budget = Budget::new(20, 60);

/// One client's key, and what it may do.
#[derive(Clone, Debug)]
pub struct KeyEntry {
    /// The key.
    pub key: PresharedKey,
    /// Which client it belongs to: several keys may, while one is being rotated.
    pub client: u16,
    /// Most packets per second in each of its sessions.
    pub max_pps: u32,
    /// Most sessions at a time.
    pub max_sessions: u16,
    knock: Secret,
    challenges: Budget,
    hellos: RecentHellos,
    /// The first of its sessions.
    first: u16,
    displaced: u64,
    answered: u64,
    drops: DropCounters,
}

impl KeyEntry {
    /// A key with its limits.
    #[must_use]
    pub fn new(key: PresharedKey, client: u16, max_pps: u32, max_sessions: u16) -> Self {
        let knock = key.knock_key();
        Self {
            key,
            client,
            max_pps,
            max_sessions,
            knock,
            challenges: CHALLENGES,
            hellos: RecentHellos::default(),
            first: NONE,
            displaced: 0,
            answered: 0,
            drops: DropCounters::default(),
        }
    }

    /// Datagrams of this key that were answered.
    #[must_use]
    pub const fn answered(&self) -> u64 {
        self.answered
    }

    /// Sessions that gave way to newer ones of this key, at its limit.
    #[must_use]
    pub const fn displaced(&self) -> u64 {
        self.displaced
    }

    /// Datagrams that opened with this key and were dropped all the same, by reason.
    #[must_use]
    pub const fn drops(&self) -> &DropCounters {
        &self.drops
    }
}

/// The latest first knocks of a key, by the begin of their nonces. One that comes again is a replay:
/// it earns nothing, and takes nothing of what the key's client may ask for.
#[derive(Clone, Copy, Debug, Default)]
struct RecentHellos {
    seen: [u64; 32],
    next: u8,
}

impl RecentHellos {
    /// Takes a nonce in if it is new.
    fn accept(&mut self, nonce: &[u8; 24]) -> Result<(), DropReason> {
        let begin = u64::from_be_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| nonce[i]));
        if self.seen.contains(&begin) {
            return Err(DropReason::Replay);
        }
        self.seen[usize::from(self.next)] = begin;
        self.next = (self.next + 1) % self.seen.len() as u8;
        Ok(())
    }
}

/// Room for one session.
#[derive(Clone, Debug)]
pub struct Session {
    in_use: bool,
    /// Counts how often this place has been used, so that a number means one session only.
    generation: u16,
    key: u16,
    /// The next session of the key, or the next free place.
    next: u16,
    instance: u64,
    client_random: [u8; 32],
    server_random: [u8; 32],
    keys: SessionKeys,
    replay: ReplayWindow,
    next_counter: u64,
    budget: Budget,
    address: Option<SocketAddr>,
    since_ns: u64,
    used_ns: u64,
    packets: u64,
    streams: [u16; STREAMS_PER_SESSION],
}

/// No session, no stream.
const NONE: u16 = u16::MAX;

impl Default for Session {
    fn default() -> Self {
        Self {
            in_use: false,
            generation: 0,
            key: 0,
            next: NONE,
            instance: 0,
            client_random: [0; 32],
            server_random: [0; 32],
            keys: SessionKeys {
                up: Secret::new([0; 32]),
                down: Secret::new([0; 32]),
            },
            replay: ReplayWindow::new(),
            next_counter: 0,
            budget: Budget::new(0, 0),
            address: None,
            since_ns: 0,
            used_ns: 0,
            packets: 0,
            streams: [NONE; STREAMS_PER_SESSION],
        }
    }
}

/// What a session looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionFacts {
    /// Index of its key.
    pub key: u16,
    /// Where the client is.
    pub address: Option<SocketAddr>,
    /// When it began.
    pub since: Monotonic,
    /// When the last packet came.
    pub used: Monotonic,
    /// Packets that opened.
    pub packets: u64,
}

/// The reflector's own clock, told in each echo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockFacts {
    /// Changes when the wall clock steps.
    pub epoch: u32,
    /// Whether the kernel says that it is disciplined.
    pub disciplined: bool,
}

/// What there is to send.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Bytes of `out` to send to where the request came from.
    pub len: usize,
    /// To be returned with the echo's transmit stamp; `None` for knocks.
    pub token: Option<SendToken>,
}

/// Answers requests for any number of sessions. The caller lends the room: one entry for each key,
/// session and stream.
#[derive(Debug)]
pub struct Reflector<K, S, T> {
    keys: K,
    sessions: S,
    streams: T,
    places: Places,
    cookie_secret: Secret,
    boot: u64,
    failures: Budget,
    counters: DropCounters,
    answered: u64,
    clock: ClockFacts,
    /// Index of the key that opened the datagram at hand.
    opened: Option<u16>,
}

impl<K, S, T> Reflector<K, S, T>
where
    K: DerefMut<Target = [KeyEntry]>,
    S: DerefMut<Target = [Session]>,
    T: DerefMut<Target = [StreamRecord]>,
{
    /// A reflector without sessions. `max_failures` is how many datagrams per second that do not
    /// open it tries in all.
    pub fn new(keys: K, sessions: S, streams: T, max_failures: u32, rng: &mut impl Rng) -> Self {
        let cookie_secret = Secret::random(rng);
        let salt = cookie_secret.derive(&[&[0; 32], &[0; 32]], b"places");
        let salt = salt
            .reveal()
            .first_chunk()
            .map_or(0, |b| u64::from_be_bytes(*b));
        Self {
            keys,
            sessions,
            streams,
            places: Places::new(salt),
            cookie_secret,
            boot: rng.next_u64(),
            failures: Budget::new(max_failures, max_failures),
            counters: DropCounters::default(),
            answered: 0,
            clock: ClockFacts::default(),
            opened: None,
        }
    }

    /// What each echo says of this host's clock from now on.
    pub const fn set_clock(&mut self, clock: ClockFacts) {
        self.clock = clock;
    }

    /// Other keys from now on. Sessions and counts of keys that are still there go on; the others
    /// end.
    pub fn replace_keys(&mut self, mut keys: K) {
        for k in keys.iter_mut() {
            if let Some(old) = self.keys.iter().find(|old| old.key == k.key) {
                k.answered = old.answered;
                k.drops = old.drops;
                k.displaced = old.displaced;
                k.hellos = old.hellos;
                k.challenges = old.challenges;
            }
        }
        for s in self.sessions.iter_mut().filter(|s| s.in_use) {
            let old = self.keys.get(usize::from(s.key)).map(|k| &k.key);
            match keys.iter().position(|k| Some(&k.key) == old) {
                Some(i) => {
                    s.key = i as u16;
                    s.budget = Budget::new(keys[i].max_pps, keys[i].max_pps);
                }
                None => s.in_use = false,
            }
        }
        for t in self.streams.iter_mut().filter(|t| t.in_use) {
            let old = self.keys.get(usize::from(t.key)).map(|k| &k.key);
            match keys.iter().position(|k| Some(&k.key) == old) {
                Some(i) => t.key = i as u16,
                None => t.in_use = false,
            }
        }
        self.keys = keys;
        self.chain_anew();
    }

    /// Datagrams dropped, by reason.
    #[must_use]
    pub const fn counters(&self) -> &DropCounters {
        &self.counters
    }

    /// Datagrams answered.
    #[must_use]
    pub const fn answered(&self) -> u64 {
        self.answered
    }

    /// The key that seals what the client of the newest session sends.
    #[cfg(test)]
    pub(super) fn session_key_of_test(&self) -> Secret {
        let newest = self.sessions.iter().max_by_key(|s| s.since_ns);
        newest.expect("a session").keys.up.clone()
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &[KeyEntry] {
        &self.keys
    }

    /// The sessions there are at `now`.
    pub fn sessions(&self, now: Monotonic) -> impl Iterator<Item = SessionFacts> + '_ {
        let now_ns = now.as_nanos();
        self.sessions
            .iter()
            .filter(move |s| s.in_use && now_ns.saturating_sub(s.used_ns) < IDLE_NS)
            .map(|s| SessionFacts {
                key: s.key,
                address: s.address,
                since: Monotonic::from_nanos(s.since_ns),
                used: Monotonic::from_nanos(s.used_ns),
                packets: s.packets,
            })
    }

    /// A datagram arrived. What is to be sent back is written into `out`; `request` is opened in
    /// place.
    ///
    /// # Errors
    /// Why there is no answer; it has been counted.
    pub fn handle_request(
        &mut self,
        now: Monotonic,
        meta: &RecvMeta,
        request: &mut [u8],
        out: &mut [u8],
        rng: &mut impl Rng,
    ) -> Result<Answer, DropReason> {
        self.opened = None;
        let answer = self.answer(now, meta, request, out, rng);
        let key = self
            .opened
            .and_then(|index| self.keys.get_mut(usize::from(index)));
        match &answer {
            Ok(_) => {
                self.answered += 1;
                key.into_iter().for_each(|k| k.answered += 1);
            }
            Err(reason) => {
                self.counters.count(*reason);
                key.into_iter().for_each(|k| k.drops.count(*reason));
            }
        }
        answer
    }

    /// What became of an echo.
    pub fn handle_sent(&mut self, token: SendToken, outcome: SendOutcome) {
        if let SendOutcome::Stamped(stamp) = outcome
            && let Some(stream) = self.streams.get_mut(usize::from(token.stream))
        {
            stream.transmitted(token.seq, stamp.at.as_nanos(), stamp.clock);
        }
    }

    fn answer(
        &mut self,
        now: Monotonic,
        meta: &RecvMeta,
        request: &mut [u8],
        out: &mut [u8],
        rng: &mut impl Rng,
    ) -> Result<Answer, DropReason> {
        if meta.truncated {
            return Err(DropReason::Truncated);
        }
        if request.len() > MAX_DATAGRAM {
            return Err(DropReason::Length);
        }
        let out = out.get_mut(..request.len()).ok_or(DropReason::Length)?;
        match Prefix::kind_of(request)? {
            Kind::Hello => self.challenge(now, meta, request, out, rng),
            Kind::Join => self.welcome(now, meta, request, out, rng),
            Kind::Probe => self.echo(now, meta, request, out),
            // Orders are opened by `open_order`: what they ask for is the driver's to do.
            Kind::Challenge
            | Kind::Welcome
            | Kind::Reply
            | Kind::Order
            | Kind::Report
            | Kind::Stream => Err(DropReason::Type),
        }
    }

    /// Opens a knock; gives its key's index, its nonce and its body.
    fn open_knock<B: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable>(
        &mut self,
        now: Monotonic,
        request: &mut [u8],
    ) -> Result<(u16, [u8; 24], B), DropReason> {
        if request.len() != KNOCK_LEN {
            return Err(DropReason::Length);
        }
        let (header, _) = KnockHeader::read_from_prefix(request).map_err(|_| DropReason::Length)?;
        let index = self
            .keys
            .iter()
            .position(|k| k.key.id.0 == header.key_id)
            .ok_or(DropReason::UnknownKey)?;
        // Opening costs time, and sources can be spoofed: what fails is only tried so often.
        if !self.failures.has(now.as_nanos()) {
            return Err(DropReason::FailureBudget);
        }
        let nonce = Nonce::Random(header.nonce);
        let body = open(&self.keys[index].knock, nonce, request, KnockHeader::LEN);
        if body.is_err() {
            self.failures.take(now.as_nanos());
        }
        let (body, _) = B::read_from_prefix(body?).map_err(|_| DropReason::Length)?;
        self.opened = Some(index as u16);
        Ok((index as u16, header.nonce, body))
    }

    /// A first knock earns a challenge, and costs no state.
    fn challenge(
        &mut self,
        now: Monotonic,
        meta: &RecvMeta,
        request: &mut [u8],
        out: &mut [u8],
        rng: &mut impl Rng,
    ) -> Result<Answer, DropReason> {
        let (key, nonce, hello): (u16, _, Hello) = self.open_knock(now, request)?;
        let entry = &mut self.keys[usize::from(key)];
        entry.hellos.accept(&nonce)?;
        if !entry.challenges.take(now.as_nanos()) {
            return Err(DropReason::RateLimit);
        }
        let client_random = hello.client_random;
        let issued_ns = U64::new(now.as_nanos());
        let mac = self.cookie_mac(meta.from, key, &client_random, issued_ns);
        let body = Challenge {
            client_random,
            cookie: Cookie { issued_ns, mac },
        };
        self.seal_knock(Kind::Challenge, key, body.as_bytes(), out, rng)
    }

    /// A second knock that brings the challenge back makes a session, or finds the one it made.
    fn welcome(
        &mut self,
        now: Monotonic,
        meta: &RecvMeta,
        request: &mut [u8],
        out: &mut [u8],
        rng: &mut impl Rng,
    ) -> Result<Answer, DropReason> {
        let (key, _, join): (u16, _, Join) = self.open_knock(now, request)?;
        let issued_ns = join.cookie.issued_ns.get();
        let age_ns = now
            .as_nanos()
            .checked_sub(issued_ns)
            .ok_or(DropReason::Challenge)?;
        let mac = self.cookie_mac(meta.from, key, &join.client_random, join.cookie.issued_ns);
        if age_ns > CHALLENGE_LIFE_NS || !bool::from(mac.ct_eq(&join.cookie.mac)) {
            return Err(DropReason::Challenge);
        }
        let index = self.session_for(now, key, &join, rng)?;
        let session = &mut self.sessions[index];
        session.address = Some(meta.from);
        let body = Welcome {
            client_random: join.client_random,
            server_random: session.server_random,
            boot: U64::new(self.boot),
            session: U32::new(session_number(index, session.generation)),
            reserved: U32::ZERO,
        };
        self.seal_knock(Kind::Welcome, key, body.as_bytes(), out, rng)
    }

    /// A probe is echoed to where it came from, wherever the session was before.
    fn echo(
        &mut self,
        now: Monotonic,
        meta: &RecvMeta,
        request: &mut [u8],
        out: &mut [u8],
    ) -> Result<Answer, DropReason> {
        if request.len() < MIN_PROBE_SIZE {
            return Err(DropReason::Length);
        }
        let (header, _) =
            SessionHeader::read_from_prefix(request).map_err(|_| DropReason::Length)?;
        let (index, generation) = session_place(header.session.get());
        let session = self
            .sessions
            .get_mut(index)
            .filter(|s| s.in_use && s.generation == generation)
            .ok_or(DropReason::UnknownSession)?;
        let now_ns = now.as_nanos();
        if !self.failures.has(now_ns) {
            return Err(DropReason::FailureBudget);
        }
        let counter = header.counter.get();
        let body = open(
            &session.keys.up,
            Nonce::Counter(counter),
            request,
            SessionHeader::LEN,
        );
        if body.is_err() {
            self.failures.take(now_ns);
        }
        let (probe, _) = Probe::read_from_prefix(body?).map_err(|_| DropReason::Length)?;
        self.opened = Some(session.key);
        session.replay.accept(counter)?;
        if !session.budget.take(now_ns) {
            return Err(DropReason::RateLimit);
        }
        session.used_ns = now_ns;
        session.packets += 1;
        session.address = Some(meta.from);
        let (key, instance) = (session.key, session.instance);
        let slot = self.stream_for(now_ns, index, key, instance, probe.stream.get())?;
        let session = &mut self.sessions[index];
        let stream = &mut self.streams[usize::from(slot)];
        let seq = probe.seq.get();
        stream.used_ns = now_ns;
        stream.receive(seq);

        let asked = Some(probe.want.get()).filter(|w| *w != WANT_NOTHING);
        let known = asked.and_then(|first| {
            let back = u32::try_from(seq.checked_sub(first)?)
                .ok()
                .filter(|b| *b != NO_RECORD)?;
            Some((stream.record(first)?, back))
        });
        let (record, record_back) = known.unwrap_or((0, NO_RECORD));
        let mut tx_ns = [U64::ZERO; 2];
        let mut tx_back = [U16::ZERO; 2];
        let mut clocks = meta.at.clock as u8;
        for (i, entry) in stream.tx.iter().enumerate() {
            if let Some((tx_seq, at_ns, clock)) = *entry
                && let Some(back) = seq.checked_sub(tx_seq).and_then(|b| u16::try_from(b).ok())
            {
                tx_ns[i] = U64::new(at_ns);
                tx_back[i] = U16::new(back);
                clocks |= (clock as u8) << (2 * i + 2);
            }
        }
        let (address, port) = address_bytes(meta.from);
        let rx_ns = meta.at.at.as_nanos();
        let reply = Reply {
            stream: probe.stream,
            flags: U16::new(u16::from(self.clock.disciplined)),
            ttl: meta.ttl.unwrap_or(0),
            tos: meta.tos.unwrap_or(0),
            clocks,
            reserved: 0,
            seq: probe.seq,
            rx_ns: U64::new(rx_ns),
            residence_ns: U32::new(u32::try_from(now_ns.saturating_sub(rx_ns)).unwrap_or(u32::MAX)),
            socket_drops: U32::new(meta.socket_drops),
            tx_ns,
            tx_back,
            received: U32::new(stream.received as u32),
            record: U64::new(record),
            record_back: U32::new(record_back),
            clock_epoch: U32::new(self.clock.epoch),
            address,
            port: U16::new(port),
            reserved2: U16::ZERO,
        };
        let counter = session.next_counter;
        session.next_counter += 1;
        let header = SessionHeader::new(Kind::Reply, header.session.get(), counter);
        out.fill(0);
        write(out, header.as_bytes(), reply.as_bytes())?;
        seal(
            &session.keys.down,
            Nonce::Counter(counter),
            out,
            SessionHeader::LEN,
        )?;
        Ok(Answer {
            len: out.len(),
            token: Some(SendToken { stream: slot, seq }),
        })
    }

    fn cookie_mac(
        &self,
        from: SocketAddr,
        key: u16,
        client_random: &[u8; 32],
        issued_ns: U64,
    ) -> [u8; 16] {
        let (address, port) = address_bytes(from);
        let mut bound = [0; 32];
        bound[..16].copy_from_slice(&address);
        bound[16..18].copy_from_slice(&port.to_be_bytes());
        bound[18..26].copy_from_slice(issued_ns.as_bytes());
        let id = self.keys[usize::from(key)].key.id;
        // A key derived from all that the cookie is bound to, cut to 16 bytes, is a keyed hash of it.
        let derived = self.cookie_secret.derive(&[client_random, &bound], &id.0);
        let mut mac = [0; 16];
        mac.copy_from_slice(&derived.reveal()[..16]);
        mac
    }

    fn seal_knock(
        &self,
        kind: Kind,
        key: u16,
        body: &[u8],
        out: &mut [u8],
        rng: &mut impl Rng,
    ) -> Result<Answer, DropReason> {
        let entry = &self.keys[usize::from(key)];
        let len = seal_knock(kind, &entry.key, &entry.knock, body, out, rng)?;
        Ok(Answer { len, token: None })
    }
}

/// Writes and seals a knock message; gives its length.
pub(super) fn seal_knock(
    kind: Kind,
    key: &PresharedKey,
    knock: &Secret,
    body: &[u8],
    out: &mut [u8],
    rng: &mut impl Rng,
) -> Result<usize, DropReason> {
    let mut nonce = [0; 24];
    rng.fill_bytes(&mut nonce);
    let header = KnockHeader::new(kind, key.id.0, nonce);
    let len = KnockHeader::LEN + body.len() + crate::wire::header::TAG_LEN;
    let out = out.get_mut(..len).ok_or(DropReason::Length)?;
    out.fill(0);
    write(out, header.as_bytes(), body)?;
    seal(knock, Nonce::Random(nonce), out, KnockHeader::LEN)?;
    Ok(len)
}

/// Puts header and body at the begin of `out`.
pub(super) fn write(out: &mut [u8], header: &[u8], body: &[u8]) -> Result<(), DropReason> {
    let (head, rest) = out
        .split_at_mut_checked(header.len())
        .ok_or(DropReason::Length)?;
    head.copy_from_slice(header);
    rest.get_mut(..body.len())
        .ok_or(DropReason::Length)?
        .copy_from_slice(body);
    Ok(())
}

/// A session's number: its place and how often that was used.
fn session_number(index: usize, generation: u16) -> u32 {
    (index as u32) << 16 | u32::from(generation)
}

fn session_place(number: u32) -> (usize, u16) {
    ((number >> 16) as usize, number as u16)
}
