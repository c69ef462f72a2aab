//! ChaCha20-Poly1305 (RFC 8439, section 2.8) and XChaCha20-Poly1305, put together from the cipher and
//! the authenticator so that small packets are sealed fast.
//!
//! The vector code of the cipher makes four blocks of key stream at a time, whether they are asked
//! for or not. An implementation that asks for the authenticator's key, then seeks, then asks for the
//! body's stream makes most of them in vain; here the first four blocks are asked for once: one for
//! the authenticator and three for the body, and what a larger body needs follows.

use chacha20::cipher::{KeyIvInit, StreamCipher};
use chacha20::{ChaCha20, XChaCha20};
use poly1305::universal_hash::{KeyInit, UniversalHash};
use poly1305::{Key, Poly1305};
use zeroize::Zeroize;

use crate::seal::{Nonce, nonce_of};
use crate::wire::header::TAG_LEN;

const BLOCK: usize = 64;
/// Blocks made at once by the widest code that is common: AVX2's.
const AT_ONCE: usize = 4;

enum Cipher {
    Short(ChaCha20),
    Extended(XChaCha20),
}

impl Cipher {
    fn new(key: &[u8; 32], nonce: Nonce) -> Self {
        match nonce {
            Nonce::Counter(counter) => {
                Self::Short(ChaCha20::new(key.into(), &nonce_of(counter).into()))
            }
            Nonce::Random(nonce) => Self::Extended(XChaCha20::new(key.into(), &nonce.into())),
        }
    }

    fn apply(&mut self, bytes: &mut [u8]) {
        match self {
            Self::Short(c) => c.apply_keystream(bytes),
            Self::Extended(c) => c.apply_keystream(bytes),
        }
    }
}

/// The key stream of one packet.
struct KeyStream {
    /// The first blocks; the first of all is the authenticator's.
    blocks: [u8; AT_ONCE * BLOCK],
    cipher: Cipher,
}

impl KeyStream {
    fn new(key: &[u8; 32], nonce: Nonce) -> (Self, Poly1305) {
        let mut cipher = Cipher::new(key, nonce);
        let mut blocks = [0; AT_ONCE * BLOCK];
        cipher.apply(&mut blocks);
        let mut mac_key = Key::default();
        mac_key.copy_from_slice(&blocks[..32]);
        let mac = Poly1305::new(&mac_key);
        mac_key.zeroize();
        blocks[..32].zeroize();
        (Self { blocks, cipher }, mac)
    }

    /// Seals or opens the whole body.
    fn apply(mut self, body: &mut [u8]) {
        let (first, rest) = body.split_at_mut(body.len().min(self.blocks.len() - BLOCK));
        combine(first, &self.blocks[BLOCK..]);
        for part in rest.chunks_mut(self.blocks.len()) {
            if part.len() == self.blocks.len() {
                self.cipher.apply(part);
            } else {
                // A part of the blocks would cost more than all of them.
                self.blocks.fill(0);
                self.cipher.apply(&mut self.blocks);
                combine(part, &self.blocks);
            }
        }
    }
}

fn combine(bytes: &mut [u8], stream: &[u8]) {
    for (byte, stream) in bytes.iter_mut().zip(stream) {
        *byte ^= stream;
    }
}

/// Takes in what is authenticated: the header, the sealed body, and the lengths of both.
fn authenticate(mac: &mut Poly1305, header: &[u8], sealed: &[u8]) {
    mac.update_padded(header);
    mac.update_padded(sealed);
    let mut lengths = [0; 16];
    lengths[..8].copy_from_slice(&(header.len() as u64).to_le_bytes());
    lengths[8..].copy_from_slice(&(sealed.len() as u64).to_le_bytes());
    mac.update(&[lengths.into()]);
}

/// Seals `body` in place and gives its tag. At most 256 GiB, which no datagram is.
pub(crate) fn seal(key: &[u8; 32], nonce: Nonce, header: &[u8], body: &mut [u8]) -> [u8; TAG_LEN] {
    let (stream, mut mac) = KeyStream::new(key, nonce);
    stream.apply(body);
    authenticate(&mut mac, header, body);
    mac.finalize().into()
}

/// Opens `body` in place if the tag is right; whether it was. What is refused stays as it is.
#[must_use]
pub(crate) fn open(
    key: &[u8; 32],
    nonce: Nonce,
    header: &[u8],
    body: &mut [u8],
    tag: &[u8; TAG_LEN],
) -> bool {
    let (stream, mut mac) = KeyStream::new(key, nonce);
    authenticate(&mut mac, header, body);
    // Compares in constant time.
    let right = mac.verify(tag.into()).is_ok();
    if right {
        stream.apply(body);
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;
    use chacha20poly1305::aead::AeadInOut;
    use chacha20poly1305::{ChaCha20Poly1305, XChaCha20Poly1305};
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn it_is_what_the_whole_cipher_of_another_crate_makes(
            key: [u8; 32],
            counter: u64,
            random: [u8; 24],
            header in proptest::collection::vec(any::<u8>(), 0..70),
            body in proptest::collection::vec(any::<u8>(), 0..1500),
            flip in any::<proptest::sample::Index>(),
        ) {
            let mut short = [0; 12];
            short[4..].copy_from_slice(&counter.to_be_bytes());
            let (mut a, mut b) = (body.clone(), body.clone());
            let tag_a = ChaCha20Poly1305::new(&key.into())
                .encrypt_inout_detached(&short.into(), &header, (&mut a[..]).into())
                .unwrap();
            let tag_b = XChaCha20Poly1305::new(&key.into())
                .encrypt_inout_detached(&random.into(), &header, (&mut b[..]).into())
                .unwrap();
            for (nonce, sealed, tag) in [
                (Nonce::Counter(counter), a, tag_a),
                (Nonce::Random(random), b, tag_b),
            ] {
                let mut own = body.clone();
                let own_tag = seal(&key, nonce, &header, &mut own);
                prop_assert_eq!((&own, &own_tag[..]), (&sealed, &tag[..]));
                let mut all: Vec<u8> = [&header[..], &own, &own_tag].concat();
                let at = flip.index(all.len());
                all[at] ^= 1;
                let (h, rest) = all.split_at_mut(header.len());
                let (damaged, damaged_tag) = rest.split_last_chunk_mut::<TAG_LEN>().unwrap();
                let before = damaged.to_vec();
                prop_assert!(!open(&key, nonce, h, damaged, damaged_tag));
                prop_assert_eq!(damaged.to_vec(), before);
                prop_assert!(open(&key, nonce, &header, &mut own, &own_tag));
                prop_assert_eq!(&own, &body);
            }
        }
    }
}
