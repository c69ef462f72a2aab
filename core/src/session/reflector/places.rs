//! Which place of the lent table a session has: found without walking through tables of thousands,
//! however full they are.
//!
//! Sessions of one key are chained, and so are places given back. Places are taken from the begin of
//! the table, so that memory of which nothing was ever used is never touched.

use core::ops::DerefMut;

use super::{KeyEntry, NONE, Reflector, Session};
use crate::drop_reason::DropReason;
use crate::session::record::StreamRecord;
use crate::time::Monotonic;
use crate::wire::knock::Join;

/// When no session was idle, this long passes before all are looked at again, ns.
const LOOK_AGAIN_NS: u64 = 1_000_000_000;

/// How the places of sessions and of streams' records are taken.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) sessions: FreeList,
    pub(super) streams: FreeList,
    look_again_ns: u64,
}

/// The places of one table that belong to nobody.
#[derive(Debug)]
pub(super) struct FreeList {
    /// The first of those given back.
    pub(super) first: u16,
    /// From here on none was ever taken.
    pub(super) fresh: u16,
}

impl FreeList {
    const EMPTY: Self = Self {
        first: NONE,
        fresh: 0,
    };

    /// A place of a table with `len` of them; `next` says which follows one that was given back.
    pub(super) fn take(&mut self, len: usize, next: impl FnOnce(usize) -> u16) -> Option<u16> {
        let first = self.first;
        if first != NONE {
            self.first = next(usize::from(first));
            return Some(first);
        }
        if self.fresh == NONE || usize::from(self.fresh) >= len {
            return None;
        }
        self.fresh += 1;
        Some(self.fresh - 1)
    }
}

impl Places {
    pub(super) const fn new() -> Self {
        Self {
            sessions: FreeList::EMPTY,
            streams: FreeList::EMPTY,
            look_again_ns: 0,
        }
    }
}

/// What is kept of a client random: those of one key are told apart by it.
fn begin(client_random: &[u8; 32]) -> [u8; 8] {
    [0, 1, 2, 3, 4, 5, 6, 7].map(|i| client_random[i])
}

/// The sessions of a chain.
pub(super) fn chain(sessions: &[Session], first: u16) -> impl Iterator<Item = usize> {
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
    ) -> Result<usize, DropReason> {
        let now_ns = now.as_nanos();
        let entry = &self.keys[usize::from(key)];
        let (mut count, mut unused, mut oldest) = (0, None, None);
        for index in chain(&self.sessions, entry.first) {
            let s = &self.sessions[index];
            // The welcome was lost and the knock repeated, or it is a replay: the same session.
            if s.made_for == begin(&join.client_random) {
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
            // Until it has heard of the new session its client goes on in the one that ends, unheard.
            if self.sessions[index].instance == join.instance.get() {
                self.add_own_drop(index);
            }
            index
        };
        let instance = join.instance.get();
        let streams = self.streams_of(key, instance);
        if self.sessions[index].instance != instance {
            self.release_streams(index);
        }
        let place = &mut self.sessions[index];
        *place = Session {
            in_use: true,
            key,
            next: place.next,
            instance,
            made_for: begin(&join.client_random),
            since_ns: now_ns,
            used_ns: now_ns,
            streams,
            ..Session::vacant(place.generation.wrapping_add(1))
        };
        let server_random = self.server_random(index, &join.client_random);
        let secret = &self.keys[usize::from(key)].key;
        self.sessions[index].keys = secret.session_keys(&join.client_random, &server_random);
        Ok(index)
    }

    /// A place that belongs to nobody, or whose session has been idle for long.
    fn take_place(&mut self, now_ns: u64) -> Option<usize> {
        let len = self.sessions.len();
        loop {
            let sessions = &self.sessions;
            let place = self.places.sessions.take(len, |i| sessions[i].next);
            if let Some(place) = place {
                let index = usize::from(place);
                self.sessions[index] = Session::vacant(self.sessions[index].generation);
                return Some(index);
            }
            if !self.end_an_idle_session(now_ns) {
                return None;
            }
        }
    }

    /// Ends a session from which nothing came for long, if there is one: its place and its streams
    /// can be taken.
    pub(super) fn end_an_idle_session(&mut self, now_ns: u64) -> bool {
        if now_ns < self.places.look_again_ns {
            return false;
        }
        let used = usize::from(self.places.sessions.fresh);
        let idle = |s: &Session| s.in_use && s.is_idle(now_ns);
        let Some(index) = self.sessions[..used].iter().position(idle) else {
            self.places.look_again_ns = now_ns.saturating_add(LOOK_AGAIN_NS);
            return false;
        };
        self.unlink(index);
        self.give_back(index);
        true
    }

    /// Wipes what belongs to no key any more, and gives back its place and its streams.
    fn give_back(&mut self, index: usize) {
        self.release_streams(index);
        self.sessions[index] = Session {
            next: self.places.sessions.first,
            ..Session::vacant(self.sessions[index].generation)
        };
        self.places.sessions.first = index as u16;
    }

    fn link(&mut self, index: usize, key: u16) {
        let entry = &mut self.keys[usize::from(key)];
        entry.sessions += 1;
        self.sessions[index].next = core::mem::replace(&mut entry.first, index as u16);
    }

    fn unlink(&mut self, index: usize) {
        let (key, next) = (self.sessions[index].key, self.sessions[index].next);
        let Some(entry) = self.keys.get_mut(usize::from(key)) else {
            return;
        };
        entry.sessions = entry.sessions.saturating_sub(1);
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
        for k in self.keys.iter_mut() {
            (k.first, k.sessions) = (NONE, 0);
        }
        self.places.sessions.first = NONE;
        for index in 0..usize::from(self.places.sessions.fresh) {
            if self.sessions[index].in_use {
                let key = self.sessions[index].key;
                self.link(index, key);
            } else {
                self.give_back(index);
            }
        }
    }
}
