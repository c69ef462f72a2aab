//! Which place of the lent tables a session or a stream has: found without walking through tables of
//! thousands, however full they are.
//!
//! Sessions of one key are chained, and so are places given back. A stream lies near where a keyed
//! hash of it points.

use core::ops::DerefMut;

use rand_core::Rng;

use super::{IDLE_NS, KeyEntry, NONE, Reflector, STREAMS_PER_SESSION, Session};
use crate::drop_reason::DropReason;
use crate::session::budget::Budget;
use crate::session::record::StreamRecord;
use crate::time::Monotonic;
use crate::wire::knock::Join;

/// How many places from the one that its hash points to a stream may lie in.
const NEAR: usize = 32;
/// When no session was idle, this long passes before all are looked at again, ns.
const LOOK_AGAIN_NS: u64 = 1_000_000_000;

/// How the places are taken.
#[derive(Debug)]
pub(super) struct Places {
    /// The first of those given back.
    free: u16,
    /// From here on none was ever taken.
    fresh: usize,
    look_again_ns: u64,
    /// Makes it unknowable which streams share places.
    salt: u64,
    /// Some stream lies elsewhere than near its hash.
    spilled: bool,
}

impl Places {
    pub(super) const fn new(salt: u64) -> Self {
        Self {
            free: NONE,
            fresh: 0,
            look_again_ns: 0,
            salt,
            spilled: false,
        }
    }

    fn hash(&self, instance: u64, stream: u16) -> u64 {
        // The finaliser of SplitMix64.
        let mut x = instance ^ self.salt ^ u64::from(stream) << 48;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

/// The sessions of a chain.
fn chain(sessions: &[Session], first: u16) -> impl Iterator<Item = usize> {
    let at = |place: u16| sessions.get(usize::from(place)).map(|_| place);
    core::iter::successors(at(first), move |place| {
        at(sessions[usize::from(*place)].next)
    })
    .map(usize::from)
}

impl<K, S, T> Reflector<K, S, T>
where
    K: DerefMut<Target = [KeyEntry]>,
    S: DerefMut<Target = [Session]>,
    T: DerefMut<Target = [StreamRecord]>,
{
    /// The session that a second knock made before, or a new one.
    pub(super) fn session_for(
        &mut self,
        now: Monotonic,
        key: u16,
        join: &Join,
        rng: &mut impl Rng,
    ) -> Result<usize, DropReason> {
        let now_ns = now.as_nanos();
        let entry = &self.keys[usize::from(key)];
        let (mut count, mut unused, mut oldest) = (0, None, None);
        for index in chain(&self.sessions, entry.first) {
            let s = &self.sessions[index];
            // The welcome was lost and the knock repeated, or it is a replay: the same session.
            if s.client_random == join.client_random {
                return Ok(index);
            }
            count += 1;
            // A session that was never used: its welcome was lost, and the same client knocks again.
            // Without this, lost welcomes would push out the session that it still probes in.
            if s.instance == join.instance.get() && s.packets == 0 {
                unused = Some(index);
            }
            if oldest.is_none_or(|(_, used_ns)| s.used_ns < used_ns) {
                oldest = Some((index, s.used_ns));
            }
        }
        let below = count < usize::from(entry.max_sessions);
        let index = if let Some(index) = unused {
            index
        } else if let Some(index) = below.then(|| self.take_place(now_ns)).flatten() {
            self.link(index, key);
            index
        } else {
            // At a limit the longest idle session of the same key gives way, so a client that
            // restarts in a loop never locks itself out, and never anybody else.
            let (index, _) = oldest.ok_or(DropReason::Full)?;
            self.keys[usize::from(key)].displaced += 1;
            index
        };
        let entry = &self.keys[usize::from(key)];
        let mut server_random = [0; 32];
        rng.fill_bytes(&mut server_random);
        let place = &mut self.sessions[index];
        *place = Session {
            in_use: true,
            generation: place.generation.wrapping_add(1),
            key,
            next: place.next,
            instance: join.instance.get(),
            client_random: join.client_random,
            server_random,
            keys: entry.key.session_keys(&join.client_random, &server_random),
            budget: Budget::new(entry.max_pps, entry.max_pps),
            since_ns: now_ns,
            used_ns: now_ns,
            ..Session::default()
        };
        Ok(index)
    }

    /// A place that belongs to nobody, or whose session has been idle for long.
    fn take_place(&mut self, now_ns: u64) -> Option<usize> {
        let free = usize::from(self.places.free);
        if let Some(session) = self.sessions.get(free) {
            self.places.free = session.next;
            return Some(free);
        }
        if self.places.fresh < self.sessions.len() {
            self.places.fresh += 1;
            return Some(self.places.fresh - 1);
        }
        if now_ns < self.places.look_again_ns {
            return None;
        }
        let idle = |s: &Session| now_ns.saturating_sub(s.used_ns) >= IDLE_NS;
        let Some(index) = self.sessions.iter().position(idle) else {
            self.places.look_again_ns = now_ns.saturating_add(LOOK_AGAIN_NS);
            return None;
        };
        self.unlink(index);
        Some(index)
    }

    fn link(&mut self, index: usize, key: u16) {
        let first = &mut self.keys[usize::from(key)].first;
        self.sessions[index].next = core::mem::replace(first, index as u16);
    }

    fn unlink(&mut self, index: usize) {
        let (key, next) = (self.sessions[index].key, self.sessions[index].next);
        let Some(entry) = self.keys.get_mut(usize::from(key)) else {
            return;
        };
        if usize::from(entry.first) == index {
            entry.first = next;
            return;
        }
        let leads_here = |i: &usize| usize::from(self.sessions[*i].next) == index;
        let before = chain(&self.sessions, entry.first).find(leads_here);
        if let Some(before) = before {
            self.sessions[before].next = next;
        }
    }

    /// After the keys have changed: chains what is in use anew, and wipes and gives back the rest.
    pub(super) fn chain_anew(&mut self) {
        self.keys.iter_mut().for_each(|k| k.first = NONE);
        self.places.free = NONE;
        for index in 0..self.places.fresh {
            let session = &mut self.sessions[index];
            if session.in_use {
                let key = session.key;
                self.link(index, key);
            } else {
                *session = Session {
                    generation: session.generation,
                    next: self.places.free,
                    ..Session::default()
                };
                self.places.free = index as u16;
            }
        }
    }

    /// The place of a stream: known to the session, known from a session before, or a new one.
    pub(super) fn stream_for(
        &mut self,
        now_ns: u64,
        session: usize,
        key: u16,
        instance: u64,
        stream: u16,
    ) -> Result<u16, DropReason> {
        if usize::from(stream) >= STREAMS_PER_SESSION {
            return Err(DropReason::Field);
        }
        let is_it = |t: &StreamRecord| {
            t.in_use && t.key == key && t.instance == instance && t.stream == stream
        };
        let cached = self.sessions[session].streams[usize::from(stream)];
        if self.streams.get(usize::from(cached)).is_some_and(is_it) {
            return Ok(cached);
        }
        let all = self.streams.len().max(1);
        let begin = (self.places.hash(instance, stream) % all as u64) as usize;
        let near = (0..NEAR.min(self.streams.len())).map(|i| (begin + i) % all);
        let known = near.clone().find(|i| is_it(&self.streams[*i])).or_else(|| {
            let elsewhere = self.places.spilled;
            elsewhere
                .then(|| self.streams.iter().position(is_it))
                .flatten()
        });
        let index = match known {
            Some(index) => index,
            None => {
                let index = self
                    .free_stream(now_ns, near)
                    .or_else(|| {
                        self.places.spilled = true;
                        self.free_stream(now_ns, 0..self.streams.len())
                    })
                    .ok_or(DropReason::Full)?;
                let mut fresh = StreamRecord::new(key, instance, stream);
                fresh.in_use = true;
                self.streams[index] = fresh;
                index
            }
        };
        let index = u16::try_from(index).map_err(|_| DropReason::Full)?;
        self.sessions[session].streams[usize::from(stream)] = index;
        Ok(index)
    }

    /// A place for a stream among these: a free one, or that of the longest idle stream which gives
    /// its place away: one of a client that has no session any more, so that a client that restarts
    /// in a loop takes nothing from others, or one that has been idle for long.
    fn free_stream(&self, now_ns: u64, among: impl Iterator<Item = usize>) -> Option<usize> {
        let mut oldest: Option<(usize, u64)> = None;
        for index in among {
            let t = &self.streams[index];
            if !t.in_use {
                return Some(index);
            }
            if oldest.is_none_or(|(_, used_ns)| t.used_ns < used_ns)
                && (now_ns.saturating_sub(t.used_ns) > IDLE_NS || self.is_orphan(t))
            {
                oldest = Some((index, t.used_ns));
            }
        }
        oldest.map(|(index, _)| index)
    }

    /// Whether no session is left of the client's run that a stream belongs to.
    fn is_orphan(&self, stream: &StreamRecord) -> bool {
        let first = self.keys.get(usize::from(stream.key)).map(|k| k.first);
        let mut sessions = chain(&self.sessions, first.unwrap_or(NONE));
        !sessions.any(|i| self.sessions[i].instance == stream.instance)
    }
}
