//! The responder: answers what opens, remembers what arrived, and is silent to everybody else.

mod echo;
mod keys;
mod knock;
mod orders;
mod places;
mod session;
mod streams;
mod trains;

pub use keys::KeyEntry;
use keys::SourceHash;
pub use orders::OrderFrom;
use places::{Places, chain};
pub use session::{Session, SessionFacts};
pub use streams::RECORDS_PER_SESSION;
pub use trains::TrainFrom;

use core::ops::DerefMut;

use rand_core::Rng;

use super::budget::Budget;
use super::record::StreamRecord;
use crate::drop_reason::{DropCounters, DropReason};
use crate::limits::MAX_DATAGRAM;
use crate::packet::{RecvMeta, SendOutcome, SendToken};
use crate::seal::{Portable, Secret, SessionCipher};
use crate::time::Monotonic;
use crate::wire::header::{Kind, Prefix};

/// Streams of one session.
pub const STREAMS_PER_SESSION: usize = 8;
/// A session from which nothing came for this long gives its place away, ns.
const IDLE_NS: u64 = 300_000_000_000;
/// The same of the session of a throughput test, which is probed through all the time while that lasts.
const TEST_IDLE_NS: u64 = 10_000_000_000;
/// No session, no stream.
const NONE: u16 = u16::MAX;

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
    /// To be returned with the echo's transmit stamp; `None` for knocks, and for checks of a session.
    pub token: Option<SendToken>,
}

/// Answers requests for any number of sessions. The caller lends the room: one entry for each key,
/// session and stream. Sessions and records of streams may be zeroed memory; what is never needed of
/// it is never touched.
#[derive(Debug)]
pub struct Reflector<K, S, T> {
    keys: K,
    sessions: S,
    streams: T,
    places: Places,
    cookie_secret: Secret,
    sources: SourceHash,
    boot: u64,
    failures: Budget,
    counters: DropCounters,
    answered: u64,
    clock: ClockFacts,
    cipher: &'static dyn SessionCipher,
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
        Self {
            sources: SourceHash::new(&cookie_secret),
            keys,
            sessions,
            streams,
            places: Places::new(),
            cookie_secret,
            boot: rng.next_u64(),
            failures: Budget::new(max_failures, max_failures),
            counters: DropCounters::default(),
            answered: 0,
            clock: ClockFacts::default(),
            cipher: &Portable,
            opened: None,
        }
    }

    /// Seals and opens by `cipher` from now on what is sent within sessions.
    pub const fn set_cipher(&mut self, cipher: &'static dyn SessionCipher) {
        self.cipher = cipher;
    }

    /// What each echo says of this host's clock from now on.
    pub const fn set_clock(&mut self, clock: ClockFacts) {
        self.clock = clock;
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

    /// How many records of streams are taken.
    #[cfg(test)]
    pub(super) fn records_of_test(&self) -> usize {
        self.streams.iter().filter(|t| t.in_use).count()
    }

    /// What the clients of the first key are told of drops that concern them alone.
    #[cfg(test)]
    pub(super) fn own_drops_of_test(&self) -> u32 {
        self.keys[0].own_drops
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &[KeyEntry] {
        &self.keys
    }

    /// The sessions there are at `now`.
    pub fn sessions(&self, now: Monotonic) -> impl Iterator<Item = SessionFacts> + '_ {
        let used = &self.sessions[..usize::from(self.places.sessions.fresh)];
        used.iter().filter_map(move |s| s.facts(now))
    }

    /// Those of them that the key with this index has. Costs nothing for others' sessions.
    pub fn sessions_of(
        &self,
        now: Monotonic,
        key: usize,
    ) -> impl Iterator<Item = SessionFacts> + '_ {
        let first = self.keys.get(key).map_or(NONE, |k| k.first);
        chain(&self.sessions, first).filter_map(move |index| self.sessions[index].facts(now))
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
        self.count(answer)
    }

    /// Counts what became of a datagram, and for whose key.
    fn count<A>(&mut self, result: Result<A, DropReason>) -> Result<A, DropReason> {
        let key = self
            .opened
            .and_then(|index| self.keys.get_mut(usize::from(index)));
        match &result {
            Ok(_) => {
                self.answered += 1;
                key.into_iter().for_each(|k| k.answered += 1);
            }
            Err(reason) => {
                self.counters.count(*reason);
                key.into_iter().for_each(|k| k.drops.count(*reason));
            }
        }
        result
    }

    /// What became of an echo. One that failed was not lost by the line: its client is told so. What
    /// fails for want of room on this host concerns every client; the driver counts it in
    /// [`RecvMeta::socket_drops`] instead.
    pub fn handle_sent(&mut self, token: SendToken, outcome: SendOutcome) {
        let Some(stream) = self.streams.get_mut(usize::from(token.stream)) else {
            return;
        };
        match outcome {
            SendOutcome::Stamped(stamp) => {
                stream.transmitted(token.seq, stamp.at.as_nanos(), stamp.clock);
            }
            SendOutcome::Failed(_) => {
                let session = usize::from(stream.session);
                if stream.in_use && self.sessions.get(session).is_some_and(|s| s.in_use) {
                    self.add_own_drop(session);
                }
            }
            SendOutcome::NoStamp => {}
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
            // Orders, trains and what is asked about them, and the load of tests are opened by entries
            // of their own: what becomes of them is the driver's to do.
            Kind::Challenge
            | Kind::Welcome
            | Kind::Reply
            | Kind::Order
            | Kind::Report
            | Kind::Stream
            | Kind::Load
            | Kind::Train
            | Kind::TrainAsk
            | Kind::TrainReport => Err(DropReason::Type),
        }
    }
}
