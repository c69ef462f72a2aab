//! The clients' keys: what each may do, what is counted for it, and how they are replaced.

use core::net::SocketAddr;
use core::ops::DerefMut;

use super::{NONE, Reflector, Session};
use crate::drop_reason::{DropCounters, DropReason};
use crate::seal::{PresharedKey, Secret};
use crate::session::address_bytes;
use crate::session::budget::Pace;
use crate::session::record::StreamRecord;

/// From one challenge to the next for a key and source, ns.
const CHALLENGE_EVERY_NS: u64 = 50_000_000;
/// How many there are for a key and source at once.
const CHALLENGES_AT_ONCE: u32 = 60;
/// Sources that are told apart, by a hash.
const SOURCES: usize = 1 << SOURCE_BITS;
const SOURCE_BITS: u32 = 7;
/// First knocks of a key that are remembered.
const REMEMBERED: usize = 1024;

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
    challenges: [Pace; SOURCES],
    hellos: RecentHellos,
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
            challenges: [Pace::FULL; SOURCES],
            hellos: RecentHellos::NONE,
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

/// The latest first knocks of a key that were answered, by the begin of their nonces. One that comes again is a
/// replay: it earns nothing, and takes nothing of what the key's client may ask for. Of honest ones, one in
/// millions is taken for a replay, and sent again with another nonce.
#[derive(Clone, Copy, Debug)]
struct RecentHellos {
    seen: [u32; REMEMBERED],
    next: u16,
}

impl RecentHellos {
    const NONE: Self = Self {
        seen: [0; REMEMBERED],
        next: 0,
    };

    fn begin(nonce: &[u8; 24]) -> u32 {
        u32::from_be_bytes([0, 1, 2, 3].map(|i| nonce[i]))
    }

    fn knows(&self, nonce: &[u8; 24]) -> bool {
        self.seen.contains(&Self::begin(nonce))
    }

    fn enter(&mut self, nonce: &[u8; 24]) {
        self.seen[usize::from(self.next)] = Self::begin(nonce);
        self.next = (self.next + 1) % REMEMBERED as u16;
    }
}

/// Tells sources of knocks apart by a hash that only this run of the reflector knows: who floods from one source
/// takes what one in [`SOURCES`] may ask for, and cannot choose which.
#[derive(Clone, Copy, Debug)]
pub(super) struct SourceHash([u64; 2]);

impl SourceHash {
    pub(super) fn new(secret: &Secret) -> Self {
        let derived = secret.derive(&[&[0; 32]; 2], b"sources");
        let word = |from: usize| {
            u64::from_be_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| derived.reveal()[from + i]))
        };
        Self([word(0), word(8) | 1])
    }

    fn of(&self, from: SocketAddr) -> usize {
        let (address, _) = address_bytes(from);
        let address = u128::from_be_bytes(address);
        // Of IPv6, everybody has a whole network.
        let source = if from.ip().to_canonical().is_ipv4() {
            address as u64
        } else {
            (address >> 64) as u64
        };
        let Self([add, multiply]) = *self;
        let mixed = source.wrapping_add(add).wrapping_mul(multiply);
        let mixed = (mixed ^ mixed >> 32).wrapping_mul(multiply);
        (mixed >> (u64::BITS - SOURCE_BITS)) as usize
    }
}

impl<K, S, T> Reflector<K, S, T>
where
    K: DerefMut<Target = [KeyEntry]>,
    S: DerefMut<Target = [Session]>,
    T: DerefMut<Target = [StreamRecord]>,
{
    /// Whether a first knock with the key of this index, from there, earns a challenge.
    pub(super) fn may_challenge(
        &mut self,
        now_ns: u64,
        key: u16,
        from: SocketAddr,
        nonce: &[u8; 24],
    ) -> Result<(), DropReason> {
        let entry = &mut self.keys[usize::from(key)];
        if entry.hellos.knows(nonce) {
            return Err(DropReason::Replay);
        }
        let left = &mut entry.challenges[self.sources.of(from)];
        if !left.take(now_ns, CHALLENGE_EVERY_NS, CHALLENGES_AT_ONCE) {
            return Err(DropReason::RateLimit);
        }
        // What was refused has earned nothing, and pushes nothing out that has.
        entry.hellos.enter(nonce);
        Ok(())
    }

    /// Other keys from now on. Sessions and counts of keys that are still there go on; the others
    /// end.
    pub fn replace_keys(&mut self, mut keys: K) {
        // The old keys are about to go: where each is among the new ones stands where its first session did.
        self.keys.iter_mut().for_each(|old| old.first = NONE);
        // Most follow each other as they did. To look through all for each would hold up echoes where there are
        // thousands.
        let mut next = 0;
        for (index, k) in keys.iter_mut().enumerate() {
            let mut places = (next..self.keys.len()).chain(0..next);
            let Some(place) = places.find(|at| self.keys[*at].key == k.key) else {
                continue;
            };
            next = place + 1;
            let old = &mut self.keys[place];
            old.first = index as u16;
            k.answered = old.answered;
            k.drops = old.drops;
            k.own_drops = old.own_drops;
            k.displaced = old.displaced;
            k.records_displaced = old.records_displaced;
            k.records = old.records;
            k.hellos = old.hellos;
            k.challenges = old.challenges;
        }
        let used = usize::from(self.places.sessions.fresh);
        for s in self.sessions[..used].iter_mut().filter(|s| s.in_use) {
            s.key = self.keys.get(usize::from(s.key)).map_or(NONE, |k| k.first);
            s.in_use = s.key != NONE;
        }
        self.keys = keys;
        self.chain_anew();
    }
}
