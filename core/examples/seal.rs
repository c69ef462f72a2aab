//! What sealing and opening a datagram costs, next to the whole cipher of the chacha20poly1305 crate.
//!
//!     cargo run --release -p bufferbane-core --example seal
//!
//! One thread; each figure is the best of eleven alternating rounds, ns for each datagram.

use std::hint::black_box;
use std::time::Instant;

use bufferbane_core::seal::{Nonce, Secret, open, seal};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};

const ROUNDS: usize = 11;
const EACH: u64 = 20_000;
const HEADER: usize = 20;

fn best_ns(best: &mut f64, mut work: impl FnMut(u64)) {
    let begun = Instant::now();
    (0..EACH).for_each(&mut work);
    *best = best.min(begun.elapsed().as_nanos() as f64 / EACH as f64);
}

fn main() {
    let key = Secret::new([7; 32]);
    let whole = ChaCha20Poly1305::new(&[7; 32].into());
    println!(
        "{:>6} {:>10} {:>10} {:>12} {:>7}",
        "bytes", "seal", "open", "crate seal", "ratio"
    );
    for len in [128, 172, 400, 1452] {
        let mut datagram = vec![5; len];
        let (mut sealing, mut opening, mut theirs) = (f64::MAX, f64::MAX, f64::MAX);
        for _ in 0..ROUNDS {
            best_ns(&mut sealing, |i| {
                let sealed = seal(black_box(&key), Nonce::Counter(i), &mut datagram, HEADER);
                assert!(sealed.is_ok());
            });
            // Opened in place, so each is sealed again; that is taken off.
            let mut both = f64::MAX;
            best_ns(&mut both, |i| {
                let sealed = seal(black_box(&key), Nonce::Counter(i), &mut datagram, HEADER);
                assert!(sealed.is_ok());
                assert!(open(&key, Nonce::Counter(i), &mut datagram, HEADER).is_ok());
            });
            opening = opening.min(both - sealing);
            best_ns(&mut theirs, |i| {
                let mut nonce = [0; 12];
                nonce[4..].copy_from_slice(&i.to_be_bytes());
                let (header, body) = datagram.split_at_mut(HEADER);
                let body = &mut body[..len - HEADER - 16];
                let tag = whole.encrypt_inout_detached(&nonce.into(), header, body.into());
                black_box(tag).expect("no error for so few bytes");
            });
        }
        let ratio = theirs / sealing;
        println!("{len:>6} {sealing:>10.0} {opening:>10.0} {theirs:>12.0} {ratio:>7.2}");
    }
}
