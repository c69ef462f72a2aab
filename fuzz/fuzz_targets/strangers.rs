//! Any datagram to either end from somebody without a key: no panic, no answer.
#![no_main]

use bufferbane_core::flight::{LossSlot, Slot};
use bufferbane_core::load::datagrams::{LoadKeys, handle_of, open_datagram};
use bufferbane_core::packet::RecvMeta;
use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_core::session::client::Client;
use bufferbane_core::session::record::StreamRecord;
use bufferbane_core::session::reflector::{KeyEntry, Reflector, Session};
use bufferbane_core::time::{Monotonic, Stamp};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let key = PresharedKey {
        id: KeyId([1; 8]),
        secret: Secret::new([2; 32]),
    };
    let now = Monotonic::from_nanos(1_000_000_000);
    let mut keys = [KeyEntry::new(key.clone(), 0, 100, 2)];
    let mut sessions = [Session::default(), Session::default()];
    let mut streams = [StreamRecord::default(); 2];
    let mut reflector = Reflector::new(
        &mut keys[..],
        &mut sessions[..],
        &mut streams[..],
        100,
        &mut rng,
    );
    let mut client: Client<Vec<Slot>, Vec<LossSlot>> = Client::new(key, now, &mut rng);
    let meta = RecvMeta {
        at: Stamp::kernel(now),
        from: ([192, 0, 2, 1], 1).into(),
        to: None,
        ttl: None,
        tos: None,
        socket_drops: 0,
        truncated: false,
    };
    let mut out = [0; 2048];
    let mut request = bytes.to_vec();
    assert!(
        reflector
            .handle_request(now, &meta, &mut request, &mut out, &mut rng)
            .is_err()
    );
    assert!(
        out.iter().all(|b| *b == 0),
        "something was prepared for a stranger"
    );
    let mut load = bytes.to_vec();
    assert!(reflector.open_load(&meta, None, &mut load).is_err());
    let keys = LoadKeys::of(&Secret::new([2; 32]));
    if handle_of(&load).is_ok() {
        assert!(open_datagram(&keys.up, &mut load).is_err());
    }
    let mut reply = bytes.to_vec();
    assert!(client.handle_reply(now, &meta, &mut reply).is_err());
});
