//! Where the record of a stream lies. A stream belongs to a run of a client, its instance, and goes
//! from session to session with it: each session of the run knows where the records are, and a record
//! is given back with the last of them.

use core::ops::DerefMut;

use super::places::chain;
use super::{KeyEntry, NONE, Reflector, STREAMS_PER_SESSION, Session};
use crate::drop_reason::DropReason;
use crate::session::record::StreamRecord;

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
            NONE => self.take_record(now_ns).ok_or(DropReason::Full)?,
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
            }
        }
    }

    /// An empty record; where all are taken, that of a session which was idle for long.
    fn take_record(&mut self, now_ns: u64) -> Option<u16> {
        let len = self.streams.len();
        loop {
            let streams = &self.streams;
            let place = self.places.streams.take(len, |i| streams[i].next_free);
            if let Some(place) = place {
                let record = &mut self.streams[usize::from(place)];
                *record = StreamRecord::new();
                record.in_use = true;
                return Some(place);
            }
            if !self.end_an_idle_session(now_ns) {
                return None;
            }
        }
    }
}
