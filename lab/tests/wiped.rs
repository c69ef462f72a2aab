//! What was secret is gone from memory once it is dropped.

use std::mem::MaybeUninit;

use bufferbane_core::seal::{KeyId, PresharedKey, Secret, SessionKeys};
use bufferbane_core::session::client::Client;
use bufferbane_core::session::reflector::KeyEntry;
use bufferbane_core::time::Monotonic;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

/// Whether `secret` stands anywhere in the memory of a `T`, before and after it is dropped.
fn stands<T>(value: T, secret: &[u8; 32]) -> [bool; 2] {
    // Zeroed, so that padding has a value too.
    let mut place: Box<MaybeUninit<T>> = Box::new(MaybeUninit::zeroed());
    let bytes: *const u8 = place.as_ptr().cast();
    let look = || {
        // SAFETY: the box has so many bytes, all of which were zeroed or written to, and nobody else
        // uses them meanwhile. They are read one by one as they are, whatever the compiler believes of
        // a value that is no more.
        let seen: Vec<u8> = (0..size_of::<T>())
            .map(|i| unsafe { std::ptr::read_volatile(bytes.add(i)) })
            .collect();
        seen.windows(secret.len()).any(|w| w == secret)
    };
    // SAFETY: the place is for a T and holds none, so that nothing is overwritten without a drop.
    unsafe { place.as_mut_ptr().write(value) };
    let before = look();
    // SAFETY: it holds the value that was written above, which is not used again.
    unsafe { std::ptr::drop_in_place(place.as_mut_ptr()) };
    [before, look()]
}

#[test]
fn what_was_secret_is_wiped_when_it_is_dropped() {
    let bytes: [u8; 32] = std::array::from_fn(|i| i as u8 ^ 0x5a);
    assert_eq!(stands(bytes, &bytes), [true, true], "this would see it");
    assert_eq!(stands(Secret::new(bytes), &bytes), [true, false]);
    let key = || PresharedKey {
        id: KeyId([7; 8]),
        secret: Secret::new(bytes),
    };
    assert_eq!(stands(key(), &bytes), [true, false]);
    let session = || key().session_keys(&[1; 32], &[2; 32]);
    let SessionKeys { up, down } = session();
    for secret in [up, down] {
        assert_eq!(stands(session(), secret.reveal()), [true, false]);
    }
    let entry = || KeyEntry::new(key(), 0, 1000, 4);
    let client = || {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        Client::<Vec<_>, Vec<_>>::new(key(), Monotonic::ZERO, &mut rng)
    };
    for secret in [bytes, *key().knock_key().reveal()] {
        assert_eq!(stands(entry(), &secret), [true, false]);
        assert_eq!(stands(client(), &secret), [true, false]);
    }
}
