//! A session whose sealed plaintext, times and order are arbitrary: no panic, no answer larger than
//! its request, every probe's end reported once.
#![no_main]

use bufferbane_core::flight::{LossSlot, Slot};
use bufferbane_core::packet::{RecvMeta, SendOutcome, SendToken};
use bufferbane_core::sample::{Observation, SeriesIndex, Status};
use bufferbane_core::seal::{KeyId, Nonce, PresharedKey, Secret, open, seal};
use bufferbane_core::session::client::{Client, StreamConfig};
use bufferbane_core::session::record::StreamRecord;
use bufferbane_core::session::reflector::{KeyEntry, Reflector, Session};
use bufferbane_core::time::{Monotonic, Stamp};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

const KNOCK_HEADER: usize = 40;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let key = PresharedKey {
        id: KeyId([1; 8]),
        secret: Secret::new([2; 32]),
    };
    let knock = key.knock_key();
    let mut now = Monotonic::from_nanos(1_000_000_000);
    let mut keys = [KeyEntry::new(key.clone(), 0, 1000, 2)];
    let mut sessions = [Session::default(), Session::default()];
    let mut streams = [StreamRecord::default(); 2];
    let mut reflector = Reflector::new(
        &mut keys[..],
        &mut sessions[..],
        &mut streams[..],
        100,
        &mut rng,
    );
    let mut client = Client::new(key, now, &mut rng);
    let config = StreamConfig {
        series: SeriesIndex(0),
        size: 128,
        interval_ns: 10_000_000,
        spread_permille: 1000,
        timeout_ns: 100_000_000,
    };
    let slots = vec![Slot::default(); 32];
    let added = client.add_stream(config, now, slots, vec![LossSlot::default(); 32], &mut rng);
    assert!(added.is_ok());
    let mut tokens: Vec<SendToken> = Vec::new();
    let mut wire: Vec<(bool, Vec<u8>)> = Vec::new();
    let mut reported = std::collections::BTreeSet::new();
    let mut out = [0; 2048];
    for op in bytes.chunks(4) {
        let arg = |i: usize| op.get(i).copied().unwrap_or(0);
        let meta = RecvMeta {
            at: Stamp::kernel(now.saturating_sub(u64::from(arg(3)) * 1000)),
            from: ([192, 0, 2, arg(3) & 1], 1).into(),
            to: None,
            ttl: Some(arg(3)),
            tos: Some(arg(2)),
            socket_drops: u32::from(arg(1) >> 6),
            truncated: false,
        };
        match arg(0) % 8 {
            0 | 1 => {
                now = now.saturating_add(
                    u64::from(arg(1)) * 1_000_000 * (1 + u64::from(arg(2) & 3) * 40),
                );
                client.handle_timeout(now);
                while let Some((len, token)) = client.poll_transmit(now, &mut rng, &mut out) {
                    tokens.push(token);
                    wire.push((true, out[..len].to_vec()));
                }
            }
            2 | 3 if !wire.is_empty() => {
                let at = usize::from(arg(1)) % wire.len();
                let (up, mut datagram) = if arg(2) & 1 == 0 {
                    wire.swap_remove(at)
                } else {
                    wire[at].clone()
                };
                if up {
                    let answer =
                        reflector.handle_request(now, &meta, &mut datagram, &mut out, &mut rng);
                    if let Ok(answer) = answer {
                        assert!(answer.len <= datagram.len());
                        wire.push((false, out[..answer.len].to_vec()));
                        if let Some(token) = answer.token {
                            reflector.handle_sent(token, SendOutcome::Stamped(Stamp::kernel(now)));
                        }
                    }
                } else {
                    let _ = client.handle_reply(now, &meta, &mut datagram);
                }
            }
            4 if !tokens.is_empty() => {
                let token = tokens.swap_remove(usize::from(arg(1)) % tokens.len());
                let outcome = match arg(2) % 3 {
                    0 => SendOutcome::NoStamp,
                    1 => SendOutcome::Failed(i32::from(arg(3))),
                    _ => SendOutcome::Stamped(Stamp::kernel(now)),
                };
                client.handle_sent(token, outcome);
            }
            // A knock with another plaintext under a right seal.
            5 if !wire.is_empty() => {
                let at = usize::from(arg(1)) % wire.len();
                let datagram = &mut wire[at].1;
                if datagram.len() > KNOCK_HEADER && datagram[5] <= 4 {
                    let mut nonce = [0; 24];
                    nonce.copy_from_slice(&datagram[16..40]);
                    let len = match open(&knock, Nonce::Random(nonce), datagram, KNOCK_HEADER) {
                        Ok(body) => body.len(),
                        Err(_) => continue,
                    };
                    let i = KNOCK_HEADER + usize::from(arg(2)) % len;
                    datagram[i] = arg(3);
                    let _ = seal(&knock, Nonce::Random(nonce), datagram, KNOCK_HEADER);
                }
            }
            _ => {}
        }
        while let Some(o) = client.poll_observation() {
            if let Observation::New(s) = o
                && s.status != Status::Duplicate
            {
                assert!(reported.insert(s.seq), "probe {} ended twice", s.seq);
            }
        }
        while client.poll_event().is_some() {}
    }
});
