//! The clients' keys: what each may do, what is counted for it, and how they are replaced.

use core::ops::DerefMut;

use super::{NONE, Reflector, Session};
use crate::drop_reason::{DropCounters, DropReason};
use crate::seal::{PresharedKey, Secret};
use crate::session::budget::Budget;
use crate::session::record::StreamRecord;

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
    pub(super) knock: Secret,
    pub(super) challenges: Budget,
    pub(super) hellos: RecentHellos,
    /// The first of its sessions.
    pub(super) first: u16,
    /// How many sessions there are of it, and records of their streams.
    pub(super) sessions: u16,
    pub(super) records: u16,
    pub(super) displaced: u64,
    pub(super) records_displaced: u64,
    pub(super) answered: u64,
    pub(super) drops: DropCounters,
    /// Probes of its clients that were refused, or whose echoes could not be sent; wrapping.
    pub(super) own_drops: u32,
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
            sessions: 0,
            records: 0,
            displaced: 0,
            records_displaced: 0,
            answered: 0,
            drops: DropCounters::default(),
            own_drops: 0,
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

    /// Records of streams that gave way to others, where all are taken.
    #[must_use]
    pub const fn records_displaced(&self) -> u64 {
        self.records_displaced
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
pub(super) struct RecentHellos {
    seen: [u64; 32],
    next: u8,
}

impl RecentHellos {
    /// Takes a nonce in if it is new.
    pub(super) fn accept(&mut self, nonce: &[u8; 24]) -> Result<(), DropReason> {
        let begin = u64::from_be_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| nonce[i]));
        if self.seen.contains(&begin) {
            return Err(DropReason::Replay);
        }
        self.seen[usize::from(self.next)] = begin;
        self.next = (self.next + 1) % self.seen.len() as u8;
        Ok(())
    }
}

impl<K, S, T> Reflector<K, S, T>
where
    K: DerefMut<Target = [KeyEntry]>,
    S: DerefMut<Target = [Session]>,
    T: DerefMut<Target = [StreamRecord]>,
{
    /// Other keys from now on. Sessions and counts of keys that are still there go on; the others
    /// end.
    pub fn replace_keys(&mut self, mut keys: K) {
        for k in keys.iter_mut() {
            if let Some(old) = self.keys.iter().find(|old| old.key == k.key) {
                k.answered = old.answered;
                k.drops = old.drops;
                k.own_drops = old.own_drops;
                k.displaced = old.displaced;
                k.records_displaced = old.records_displaced;
                k.records = old.records;
                k.hellos = old.hellos;
                k.challenges = old.challenges;
            }
        }
        let used = usize::from(self.places.sessions.fresh);
        for s in self.sessions[..used].iter_mut().filter(|s| s.in_use) {
            let old = self.keys.get(usize::from(s.key)).map(|k| &k.key);
            match keys.iter().position(|k| Some(&k.key) == old) {
                Some(i) => {
                    s.key = i as u16;
                    s.budget = Budget::new(keys[i].max_pps, keys[i].max_pps);
                }
                None => (s.in_use, s.key) = (false, NONE),
            }
        }
        self.keys = keys;
        self.chain_anew();
    }
}
