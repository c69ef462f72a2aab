//! Sealing: which key, which nonce, and what has been seen before.
//!
//! Knocks are sealed with XChaCha20-Poly1305 under a random nonce, what is sent within a session
//! with ChaCha20-Poly1305 under its counter. The keys of a session are derived from the pre-shared
//! key and both ends' random values (HKDF-SHA256, RFC 5869), so no two sessions share one.

use hkdf::Hkdf;
use rand_core::Rng;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::aead;
use crate::drop_reason::DropReason;
use crate::limits::REPLAY_WINDOW;
use crate::wire::header::TAG_LEN;

/// Names a key in clear; says nothing about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 8]);

/// A secret of 32 bytes: never printed, compared in constant time, wiped when it is dropped.
#[derive(
    Clone, Zeroize, ZeroizeOnDrop, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(transparent)]
pub struct Secret([u8; 32]);

impl Secret {
    /// A secret of these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A new one.
    #[must_use]
    pub fn random(rng: &mut impl Rng) -> Self {
        let mut secret = Self([0; 32]);
        rng.fill_bytes(&mut secret.0);
        secret
    }

    /// Its bytes, for writing a key file.
    #[must_use]
    pub const fn reveal(&self) -> &[u8; 32] {
        &self.0
    }

    /// By this secrets can be put in an order: it says nothing of the secret, unlike the time that comparing
    /// secrets takes.
    #[must_use]
    pub fn ordinal(&self) -> [u8; 32] {
        self.derive(&[&[0; 32], &[0; 32]], b"bufferbane 1 order").0
    }

    /// Another secret, bound to `salt` and `info`.
    pub(crate) fn derive(&self, salt: &[&[u8; 32]; 2], info: &[u8]) -> Self {
        let mut joined = [0; 64];
        joined[..32].copy_from_slice(salt[0]);
        joined[32..].copy_from_slice(salt[1]);
        let mut derived = Self([0; 32]);
        // 32 bytes are far below the 8160 that HKDF-SHA256 can give, which is its only error.
        let _ = Hkdf::<Sha256>::new(Some(&joined), &self.0).expand(info, &mut derived.0);
        derived
    }
}

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

/// Bytes of stack that [`wipe_stack`] overwrites.
const WIPED_STACK: usize = 64 << 10;

/// Overwrites what ended calls have left on the stack, 64 KiB deep from the caller down. Whoever moves a
/// secret leaves a copy where it was, which no destructor reaches: to be called after keys were read,
/// handed over or replaced.
#[inline(never)]
pub fn wipe_stack() {
    // In words: this is done while packets wait.
    let mut room = [0u64; WIPED_STACK / size_of::<u64>()];
    room.zeroize();
    core::hint::black_box(&room);
}

/// What both ends of a client's reflector sessions share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresharedKey {
    /// Its name in clear.
    pub id: KeyId,
    /// The key itself.
    pub secret: Secret,
}

impl PresharedKey {
    /// The key that seals this client's knocks.
    #[must_use]
    pub fn knock_key(&self) -> Secret {
        self.secret
            .derive(&[&[0; 32], &[0; 32]], b"bufferbane 1 knock")
    }

    /// The keys of the session that these random values make.
    #[must_use]
    pub fn session_keys(&self, client_random: &[u8; 32], server_random: &[u8; 32]) -> SessionKeys {
        let salt = [client_random, server_random];
        SessionKeys {
            up: self.secret.derive(&salt, b"bufferbane 1 up"),
            down: self.secret.derive(&salt, b"bufferbane 1 down"),
        }
    }
}

/// The two keys of a session.
#[derive(Clone, Debug, FromZeros)]
pub struct SessionKeys {
    /// Seals what the client sends.
    pub up: Secret,
    /// Seals what the reflector sends.
    pub down: Secret,
}

/// Seals `datagram` in place: its first `header_len` bytes stay clear and are covered, its last
/// [`TAG_LEN`] bytes become the tag. `nonce` must be new under `key`: 12 bytes made of a counter,
/// or 24 random ones.
///
/// # Errors
/// [`DropReason::Length`] where the datagram has no room for header and tag.
pub fn seal(
    key: &Secret,
    nonce: Nonce,
    datagram: &mut [u8],
    header_len: usize,
) -> Result<(), DropReason> {
    let (header, body, tag) = parts(datagram, header_len)?;
    *tag = aead::seal(&key.0, nonce, header, body);
    Ok(())
}

/// Opens `datagram` in place and gives its body; where it does not open it stays as it is.
///
/// # Errors
/// [`DropReason::Length`], or [`DropReason::Seal`] where it was not sealed with this key and nonce.
pub fn open<'a>(
    key: &Secret,
    nonce: Nonce,
    datagram: &'a mut [u8],
    header_len: usize,
) -> Result<&'a [u8], DropReason> {
    let (header, body, tag) = parts(datagram, header_len)?;
    if !aead::open(&key.0, nonce, header, body, tag) {
        return Err(DropReason::Seal);
    }
    Ok(body)
}

/// ChaCha20-Poly1305 (RFC 8439, section 2.8) for what is sent within sessions. [`Portable`] runs everywhere; a
/// host may bring another that makes the same bytes faster.
pub trait SessionCipher: core::fmt::Debug + Sync {
    /// Seals `body` in place, under the nonce that [`nonce_of`] makes of `counter`, and gives its tag. The
    /// counter must be new under `key`.
    fn seal(&self, key: &Secret, counter: u64, header: &[u8], body: &mut [u8]) -> [u8; TAG_LEN];

    /// Opens `sealed`, a body and its tag, in place if the tag is right; whether it was. What is left there of
    /// a body that was refused is nothing to be read.
    #[must_use]
    fn open(&self, key: &Secret, counter: u64, header: &[u8], sealed: &mut [u8]) -> bool;
}

/// The cipher of this crate, which needs nothing of its host.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

impl SessionCipher for Portable {
    fn seal(&self, key: &Secret, counter: u64, header: &[u8], body: &mut [u8]) -> [u8; TAG_LEN] {
        aead::seal(&key.0, Nonce::Counter(counter), header, body)
    }

    fn open(&self, key: &Secret, counter: u64, header: &[u8], sealed: &mut [u8]) -> bool {
        let parts = sealed.split_last_chunk_mut::<TAG_LEN>();
        parts.is_some_and(|(body, tag)| {
            aead::open(&key.0, Nonce::Counter(counter), header, body, tag)
        })
    }
}

/// The nonce of what is sealed within a session under this counter: four zero bytes and the counter,
/// big-endian.
#[must_use]
pub fn nonce_of(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

/// As [`seal`], by `cipher`.
pub(crate) fn seal_with(
    cipher: &dyn SessionCipher,
    key: &Secret,
    counter: u64,
    datagram: &mut [u8],
    header_len: usize,
) -> Result<(), DropReason> {
    let (header, body, tag) = parts(datagram, header_len)?;
    *tag = cipher.seal(key, counter, header, body);
    Ok(())
}

/// As [`open`], by `cipher`; where it does not open, nothing of it is to be read.
pub(crate) fn open_with<'a>(
    cipher: &dyn SessionCipher,
    key: &Secret,
    counter: u64,
    datagram: &'a mut [u8],
    header_len: usize,
) -> Result<&'a [u8], DropReason> {
    let (header, sealed) = datagram
        .split_at_mut_checked(header_len)
        .ok_or(DropReason::Length)?;
    let body_len = sealed
        .len()
        .checked_sub(TAG_LEN)
        .ok_or(DropReason::Length)?;
    if !cipher.open(key, counter, header, sealed) {
        return Err(DropReason::Seal);
    }
    Ok(&sealed[..body_len])
}

/// What must never be used twice with one key.
#[derive(Clone, Copy, Debug)]
pub enum Nonce {
    /// Of a datagram within a session; see [`nonce_of`].
    Counter(u64),
    /// Of a knock.
    Random([u8; 24]),
}

type Parts<'a> = (&'a [u8], &'a mut [u8], &'a mut [u8; TAG_LEN]);

fn parts(datagram: &mut [u8], header_len: usize) -> Result<Parts<'_>, DropReason> {
    let (header, rest) = datagram
        .split_at_mut_checked(header_len)
        .ok_or(DropReason::Length)?;
    let (body, tag) = rest
        .split_last_chunk_mut::<TAG_LEN>()
        .ok_or(DropReason::Length)?;
    Ok((header, body, tag))
}

/// The window of what is sent within a session.
pub type ReplayWindow = Window<{ REPLAY_WINDOW / 64 }>;

/// Which of the latest counters have been seen (RFC 4303, section 3.4.3), 64 of them for each word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
pub struct Window<const WORDS: usize> {
    /// The counter after the highest seen.
    next: u64,
    /// One bit for each of the last counters, at its number modulo the width.
    seen: [u64; WORDS],
}

impl<const WORDS: usize> Default for Window<WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const WORDS: usize> Window<WORDS> {
    /// How many counters it holds.
    const WIDTH: u64 = 64 * WORDS as u64;

    /// Nothing seen.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            next: 0,
            seen: [0; WORDS],
        }
    }

    /// Whether it says nothing of `counter` any more.
    #[must_use]
    pub const fn is_before(&self, counter: u64) -> bool {
        counter.saturating_add(Self::WIDTH) < self.next
    }

    /// Takes `counter` in if it is new. Only for what has been opened: a forged counter must not
    /// move the window.
    ///
    /// # Errors
    /// [`DropReason::Replay`] where it was seen, or is older than the window.
    pub fn accept(&mut self, counter: u64) -> Result<(), DropReason> {
        if counter == u64::MAX || self.is_before(counter) {
            return Err(DropReason::Replay);
        }
        if counter >= self.next {
            let skipped = counter - self.next;
            if skipped >= Self::WIDTH {
                self.seen = [0; WORDS];
            } else {
                for c in self.next..counter {
                    self.seen[Self::word(c)] &= !Self::bit(c);
                }
            }
            self.seen[Self::word(counter)] |= Self::bit(counter);
            self.next = counter + 1;
            return Ok(());
        }
        if self.seen[Self::word(counter)] & Self::bit(counter) != 0 {
            return Err(DropReason::Replay);
        }
        self.seen[Self::word(counter)] |= Self::bit(counter);
        Ok(())
    }

    /// The counter after the highest seen.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    const fn word(counter: u64) -> usize {
        (counter / 64) as usize % WORDS
    }

    const fn bit(counter: u64) -> u64 {
        1 << (counter % 64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set(steps in proptest::collection::vec((0u64..3000, any::<bool>()), 1..300)) {
            let mut window = ReplayWindow::new();
            let mut seen = BTreeSet::new();
            let mut high = 0u64;
            for (step, back) in steps {
                let counter = if back { high.saturating_sub(step) } else { high + step };
                let old = seen.last().is_some_and(|h| counter + 1024 <= *h);
                let fresh = !old && seen.insert(counter);
                prop_assert_eq!(window.accept(counter).is_ok(), fresh, "{} of {}", counter, high);
                high = high.max(counter);
            }
        }

        #[test]
        fn what_is_sealed_opens_and_nothing_else_does(body: Vec<u8>, counter: u64, flip in any::<proptest::sample::Index>()) {
            let key = Secret::new([7; 32]);
            let mut datagram = Vec::from([1, 2, 3, 4]);
            datagram.extend_from_slice(&body);
            datagram.extend_from_slice(&[0; TAG_LEN]);
            for nonce in [Nonce::Counter(counter), Nonce::Random([9; 24])] {
                let mut d = datagram.clone();
                seal(&key, nonce, &mut d, 4).unwrap();
                let mut bad = d.clone();
                let at = flip.index(bad.len());
                bad[at] ^= 1;
                prop_assert_eq!(open(&key, nonce, &mut bad, 4), Err(DropReason::Seal));
                let mut copy = d.clone();
                prop_assert_eq!(open(&Secret::new([8; 32]), nonce, &mut copy, 4), Err(DropReason::Seal));
                prop_assert_eq!(open(&key, nonce, &mut d, 4), Ok(&body[..]));
            }
        }
    }

    #[test]
    fn no_counter_follows_the_last_one() {
        let mut window = ReplayWindow::new();
        let replay = Err(DropReason::Replay);
        assert_eq!(window.accept(u64::MAX), replay);
        assert_eq!(window.accept(u64::MAX - 1), Ok(()));
        for counter in [u64::MAX, u64::MAX - 1, 0] {
            assert_eq!(window.accept(counter), replay, "{counter}");
        }
        assert_eq!(window.accept(u64::MAX - 1024), Ok(()));
        assert_eq!(window.accept(u64::MAX - 1025), replay);
    }

    #[test]
    fn too_short_a_datagram_is_refused() {
        let key = Secret::new([7; 32]);
        assert_eq!(
            seal(&key, Nonce::Counter(0), &mut [0; 19], 4),
            Err(DropReason::Length)
        );
        assert_eq!(
            open(&key, Nonce::Counter(0), &mut [0; 3], 4),
            Err(DropReason::Length)
        );
    }

    #[test]
    fn each_session_and_direction_has_its_own_key() {
        let psk = PresharedKey {
            id: KeyId([1; 8]),
            secret: Secret::new([2; 32]),
        };
        let a = psk.session_keys(&[1; 32], &[2; 32]);
        let b = psk.session_keys(&[1; 32], &[3; 32]);
        assert!(a.up != a.down && a.up != b.up && a.down != b.down && a.up != psk.knock_key());
        assert!(!std::format!("{psk:?}").contains("2, 2"));
    }
}
