//! Where the record of a stream lies. A stream belongs to a run of a client, its instance, and goes
//! from session to session with it: each session of the run knows where the records are, and a record
//! is given back with the last of them.

use core::ops::DerefMut;

use super::places::chain;
use super::{KeyEntry, NONE, Reflector, STREAMS_PER_SESSION, Session};
use crate::drop_reason::DropReason;
use crate::session::record::StreamRecord;

/// Records of streams that each session is sure of, however many others take, where the table has room for as
/// many.
pub const RECORDS_PER_SESSION: usize = 2;
/// A kernel has told when an echo left after this, ns.
const STAMPS_ARE_LATE_NS: u64 = 1_000_000_000;

impl<K, S, T> Reflector<K, S, T>
where
    K: DerefMut<Target = [KeyEntry]>,
    S: DerefMut<Target = [Session]>,
    T: DerefMut<Target = [StreamRecord]>,
{
    /// The place of stream `stream`: known to the session, known to another of the same run, or a
    /// new one.
    pub(super) fn stream_for(
        &mut self,
        now_ns: u64,
        session: usize,
        stream: u16,
    ) -> Result<u16, DropReason> {
        let which = usize::from(stream);
        let s = &self.sessions[session];
        let known = *s.streams.get(which).ok_or(DropReason::Field)?;
        if known != NONE {
            return Ok(known);
        }
        let of_run = self.streams_of(s.key, s.instance)[which];
        let index = match of_run {
            NONE => {
                let key = s.key;
                self.take_record(now_ns, key).ok_or(DropReason::Full)?
            }
            index => index,
        };
        self.sessions[session].streams[which] = index;
        Ok(index)
    }

    /// Where the records are that the sessions of one run know of.
    pub(super) fn streams_of(&self, key: u16, instance: u64) -> [u16; STREAMS_PER_SESSION] {
        let mut streams = [NONE; STREAMS_PER_SESSION];
        for index in chain(&self.sessions, self.keys[usize::from(key)].first) {
            let s = &self.sessions[index];
            if s.in_use && s.instance == instance {
                let unknown = streams.iter_mut().zip(s.streams);
                unknown
                    .filter(|(stream, _)| **stream == NONE)
                    .for_each(|(stream, place)| *stream = place);
            }
        }
        streams
    }

    /// A session ends: gives back the records that no other session of its run knows.
    pub(super) fn release_streams(&mut self, session: usize) {
        let Session { key, streams, .. } = self.sessions[session];
        let first = self.keys.get(usize::from(key)).map_or(NONE, |k| k.first);
        for (which, place) in streams.into_iter().enumerate() {
            let Some(record) = self.streams.get_mut(usize::from(place)) else {
                continue;
            };
            let shares = |i: usize| i != session && self.sessions[i].streams[which] == place;
            if record.in_use && !chain(&self.sessions, first).any(shares) {
                *record = StreamRecord::new();
                record.next_free = self.places.streams.first;
                self.places.streams.first = place;
                if let Some(entry) = self.keys.get_mut(usize::from(key)) {
                    entry.records = entry.records.saturating_sub(1);
                }
            }
        }
    }

    /// An empty record for a stream of `key`: a free one, that of a session which was idle for long, or one that
    /// gives way.
    fn take_record(&mut self, now_ns: u64, key: u16) -> Option<u16> {
        let len = self.streams.len();
        let mut stamps_from_ns = 0;
        let place = loop {
            let streams = &self.streams;
            let place = self.places.streams.take(len, |i| streams[i].next_free);
            if let Some(place) = place {
                break place;
            }
            if !self.end_an_idle_session(now_ns) {
                // When the last echoes of the stream that it was left may yet be told.
                stamps_from_ns = now_ns.saturating_add(STAMPS_ARE_LATE_NS);
                break self.take_from_the_greediest(key)?;
            }
        };
        let record = &mut self.streams[usize::from(place)];
        *record = StreamRecord::new();
        record.in_use = true;
        record.used_ns = now_ns;
        record.stamps_from_ns = stamps_from_ns;
        self.keys[usize::from(key)].records += 1;
        Some(place)
    }

    /// All are taken: the record that was idle longest, of the key that has most beyond what its sessions are
    /// sure of; of `key` itself where no other has more. So no client, however many streams it makes up,
    /// takes what another's sessions need, and none has less than it could have because of a limit that
    /// nobody needs.
    fn take_from_the_greediest(&mut self, key: u16) -> Option<u16> {
        let beyond = |k: &KeyEntry| {
            i64::from(k.records) - RECORDS_PER_SESSION as i64 * i64::from(k.sessions)
        };
        let key = usize::from(key);
        let have = self.keys.iter().enumerate().filter(|(_, k)| k.records > 0);
        let all = have.map(|(index, k)| (beyond(k), index));
        let (most, greediest) = all.max_by_key(|(beyond, _)| *beyond)?;
        // It is to have no less than the one that takes it has then, or they would take it in turn.
        let takes = most > beyond(&self.keys[key]) + 1;
        let from = if takes { greediest } else { key };
        let first = self.keys[from].first;
        let places = chain(&self.sessions, first).flat_map(|i| self.sessions[i].streams);
        let records =
            places.filter_map(|place| Some((self.streams.get(usize::from(place))?, place)));
        let (_, oldest) = records.min_by_key(|(record, _)| record.used_ns)?;
        let mut next = first;
        while let Some(session) = self.sessions.get_mut(usize::from(next)) {
            let of_it = session.streams.iter_mut().filter(|s| **s == oldest);
            of_it.for_each(|s| *s = NONE);
            next = session.next;
        }
        let entry = &mut self.keys[from];
        entry.records = entry.records.saturating_sub(1);
        entry.records_displaced += 1;
        // Its stream is counted from the begin again: nothing is to be concluded from what it was.
        entry.own_drops = entry.own_drops.wrapping_add(1);
        Some(oldest)
    }
}
