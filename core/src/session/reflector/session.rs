//! One session: who it is with, its keys, and how what belongs to it is opened and sealed.

use core::net::SocketAddr;
use core::ops::DerefMut;

use zerocopy::{FromBytes, FromZeros, Immutable, KnownLayout};

use super::{IDLE_NS, KeyEntry, NONE, Reflector, STREAMS_PER_SESSION, TEST_IDLE_NS};
use crate::drop_reason::DropReason;
use crate::seal::{ReplayWindow, SessionCipher, SessionKeys};
use crate::session::budget::Pace;
use crate::session::record::StreamRecord;
use crate::session::sealed::{open_message, seal_message, session_header};
use crate::session::{address_bytes, address_from_bytes};
use crate::time::Monotonic;
use crate::wire::header::Kind;

/// Over which a key's packets per second are counted, ns.
const SECOND_NS: u32 = 1_000_000_000;

/// Room for one session, which may be zeroed memory.
#[derive(Clone, Debug, FromZeros)]
pub struct Session {
    pub(super) in_use: bool,
    /// Whether its client has ordered a throughput test: it is of that test only.
    pub(super) ordered: bool,
    /// Counts how often this place has been used, so that a number means one session only.
    pub(super) generation: u16,
    pub(super) key: u16,
    /// The next session of the key, or the next free place.
    pub(super) next: u16,
    pub(super) instance: u64,
    /// The begin of the client random that it was made for: tells whether a join is the same one again.
    pub(super) made_for: [u8; 8],
    pub(super) keys: SessionKeys,
    pub(super) replay: ReplayWindow,
    pub(super) next_counter: u64,
    pub(super) probes: Pace,
    pub(super) orders: Pace,
    /// As it stands on the wire.
    pub(super) address: [u8; 16],
    pub(super) port: u16,
    pub(super) since_ns: u64,
    pub(super) used_ns: u64,
    pub(super) packets: u64,
    /// Whether something that may be its client's was dropped unopened since the client was heard.
    pub(super) passed_over: bool,
    /// Whether anything of its client has come from another address than the one that answered the
    /// challenge.
    pub(super) moved: bool,
    pub(super) streams: [u16; STREAMS_PER_SESSION],
}

/// What a session looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionFacts {
    /// Index of its key.
    pub key: u16,
    /// Where the client is.
    pub address: SocketAddr,
    /// When it began.
    pub since: Monotonic,
    /// When the last packet came.
    pub used: Monotonic,
    /// Packets that opened.
    pub packets: u64,
}

impl Default for Session {
    fn default() -> Self {
        Self::new_zeroed()
    }
}

impl Session {
    /// A place without a session, which was used `generation` times.
    pub(super) fn vacant(generation: u16) -> Self {
        Self {
            generation,
            next: NONE,
            streams: [NONE; STREAMS_PER_SESSION],
            ..Self::new_zeroed()
        }
    }

    /// Whether nothing came from its client for so long that it need not be kept.
    pub(super) const fn is_idle(&self, now_ns: u64) -> bool {
        let long_ns = if self.ordered { TEST_IDLE_NS } else { IDLE_NS };
        now_ns.saturating_sub(self.used_ns) >= long_ns
    }

    /// What it looks like from outside; `None` where there is none at `now`.
    pub(super) fn facts(&self, now: Monotonic) -> Option<SessionFacts> {
        let is_there = self.in_use && !self.is_idle(now.as_nanos());
        is_there.then(|| SessionFacts {
            key: self.key,
            address: address_from_bytes(self.address, self.port),
            since: Monotonic::from_nanos(self.since_ns),
            used: Monotonic::from_nanos(self.used_ns),
            packets: self.packets,
        })
    }

    /// Where the client is now.
    pub(super) fn set_address(&mut self, address: SocketAddr) {
        (self.address, self.port) = address_bytes(address);
    }

    /// Whether that is where the client is; of a link-local address, whatever its zone.
    pub(super) fn is_at(&self, address: SocketAddr) -> bool {
        (self.address, self.port) == address_bytes(address)
    }

    /// Its number, where it lies in place `index`: the place and how often that was used.
    pub(super) fn number(&self, index: usize) -> u32 {
        (index as u32) << 16 | u32::from(self.generation)
    }

    /// Fills `out` with a message to the client of the session with `number`, and seals it.
    pub(super) fn seal(
        &mut self,
        cipher: &dyn SessionCipher,
        kind: Kind,
        number: u32,
        body: &[u8],
        out: &mut [u8],
    ) -> Result<(), DropReason> {
        let counter = self.next_counter;
        self.next_counter += 1;
        seal_message(cipher, kind, number, counter, &self.keys.down, body, out)
    }
}

impl<K, S, T> Reflector<K, S, T>
where
    K: DerefMut<Target = [KeyEntry]>,
    S: DerefMut<Target = [Session]>,
    T: DerefMut<Target = [StreamRecord]>,
{
    /// The place of the session with this number, if there is one.
    pub(super) fn find_session(&self, number: u32) -> Option<usize> {
        let (index, generation) = ((number >> 16) as usize, number as u16);
        let session = self.sessions.get(index)?;
        (session.in_use && session.generation == generation).then_some(index)
    }

    /// Opens what a client has sealed within its session, in place: fresh, and within the limits of
    /// its key. Gives the session's place, and the body.
    pub(super) fn open_in_session<B: FromBytes + KnownLayout + Immutable>(
        &mut self,
        now: Monotonic,
        from: SocketAddr,
        datagram: &mut [u8],
    ) -> Result<(usize, B), DropReason> {
        let header = session_header(datagram)?;
        let index = self
            .find_session(header.session.get())
            .ok_or(DropReason::UnknownSession)?;
        let now_ns = now.as_nanos();
        let session = &mut self.sessions[index];
        // Opening costs time, and sources can be spoofed: what fails is only tried so often. A client
        // that is where it was is always heard, however many others fail.
        let is_elsewhere = !session.is_at(from);
        if is_elsewhere && !self.failures.has(now_ns) {
            session.passed_over = true;
            return Err(DropReason::FailureBudget);
        }
        let body: Result<B, _> = open_message(self.cipher, &header, &session.keys.up, datagram);
        if matches!(body, Err(DropReason::Seal)) {
            self.failures.take(now_ns);
        }
        let body = body?;
        self.opened = Some(session.key);
        session.replay.accept(header.counter.get())?;
        // Only a client that has moved can have been passed over: whoever makes up sources while it
        // stays where it was takes the direction of no loss.
        let passed_over = core::mem::take(&mut session.passed_over) && is_elsewhere;
        session.moved |= is_elsewhere;
        let max_pps = self.keys[usize::from(session.key)].max_pps;
        let apart_ns = u64::from(SECOND_NS / max_pps.max(1));
        let within = session.probes.take(now_ns, apart_ns, max_pps);
        if within {
            session.used_ns = now_ns;
            session.packets += 1;
        }
        if passed_over || !within {
            self.add_own_drop(index);
        }
        within.then_some((index, body)).ok_or(DropReason::RateLimit)
    }

    /// What the client of session `index` sent was dropped here, not by the line. Each of its echoes
    /// tells how often that was, so that it takes no refusal for a loss on the way.
    pub(super) fn add_own_drop(&mut self, index: usize) {
        let key = usize::from(self.sessions[index].key);
        if let Some(key) = self.keys.get_mut(key) {
            key.own_drops = key.own_drops.wrapping_add(1);
        }
    }
}
