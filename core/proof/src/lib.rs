//! Goes through every part of core from a program that has neither std nor an allocator.
#![no_std]
#![no_main]

#[cfg(feature = "allocates")]
extern crate alloc;

use bufferbane_core::flight::{LossSlot, Slot};
use bufferbane_core::icmp::{Framing, IcmpConfig, IcmpProber};
use bufferbane_core::limits::MAX_DATAGRAM;
use bufferbane_core::packet::{RecvMeta, SendOutcome};
use bufferbane_core::record;
use bufferbane_core::sample::{Observation, Sample, SeriesIndex};
use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_core::session::client::{Client, StreamConfig};
use bufferbane_core::session::record::StreamRecord;
use bufferbane_core::session::reflector::{KeyEntry, Reflector, Session};
use bufferbane_core::stats::jitter::Rfc3550;
use bufferbane_core::stats::summary::Summary;
use bufferbane_core::time::{Monotonic, Stamp};
use bufferbane_core::wire::icmp::Version;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Drives both ends of the protocol and an ICMP prober once; gives something that depends on all of
/// it, so that nothing can be left out.
#[unsafe(no_mangle)]
pub extern "C" fn proof(seed: u64) -> u64 {
    #[cfg(feature = "allocates")]
    let seed = alloc::vec![seed; seed as usize].iter().sum::<u64>();

    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let now = Monotonic::from_nanos(seed);
    let key = PresharedKey { id: KeyId([1; 8]), secret: Secret::new([2; 32]) };
    let mut keys = [KeyEntry::new(key.clone(), 0, 100, 1)];
    let mut sessions = [Session::default()];
    let mut streams = [StreamRecord::default()];
    let mut reflector =
        Reflector::new(&mut keys[..], &mut sessions[..], &mut streams[..], 10, &mut rng);
    let mut slots = [Slot::default(); 8];
    let mut losses = [LossSlot::default(); 8];
    let mut client = Client::new(key, now, &mut rng);
    let config = StreamConfig {
        series: SeriesIndex(0),
        size: 128,
        interval_ns: 1000,
        spread_permille: 500,
        timeout_ns: 10_000,
    };
    let _ = client.add_stream(config, now, &mut slots[..], &mut losses[..], &mut rng);
    let meta = RecvMeta {
        at: Stamp::kernel(now),
        from: core::net::SocketAddr::from(([127, 0, 0, 1], 1)),
        to: None,
        ttl: Some(1),
        tos: None,
        socket_drops: 0,
        truncated: false,
    };
    let (mut out, mut back) = ([0; MAX_DATAGRAM], [0; MAX_DATAGRAM]);
    let mut summary = Summary::new();
    let mut jitter = Rfc3550::default();
    let mut samples = [Sample::lost(SeriesIndex(0), 0, now, 0); 4];
    for i in 0..4 {
        if let Some((len, token)) = client.poll_transmit(now, &mut rng, &mut out) {
            client.handle_sent(token, SendOutcome::Stamped(Stamp::kernel(now)));
            let answer =
                reflector.handle_request(now, &meta, &mut out[..len], &mut back, &mut rng);
            if let Ok(answer) = answer {
                let _ = client.handle_reply(now, &meta, &mut back[..answer.len]);
            }
        }
        client.handle_timeout(Monotonic::MAX);
        while let Some(Observation::New(s) | Observation::Revised(s)) = client.poll_observation() {
            summary.add(&s);
            jitter.add(s.send_late_ns);
            samples[i] = s;
        }
    }
    let mut more = [Slot::default(); 4];
    let config = IcmpConfig {
        series: SeriesIndex(1),
        version: Version::V6,
        framing: Framing::Message,
        size: 64,
        interval_ns: 1000,
        spread_permille: 0,
        timeout_ns: 1000,
    };
    let mut icmp = IcmpProber::new(config, now, &mut more[..], &mut rng);
    let sent = icmp.poll_transmit(now, &mut rng, &mut out).map_or(0, |(n, _)| n);
    let _ = icmp.handle_reply(&meta, &back);
    let block = record::encode(&samples, &mut out).unwrap_or(0);
    let read = record::decode(&out[..block]).map_or(0, Iterator::count);
    let row = summary.encode(&mut back).unwrap_or(0);
    let again = Summary::decode(&back[..row]).map_or(0, |s| s.sent);
    jitter.last_ns().unwrap_or(0) + again + (sent + read) as u64 + reflector.answered()
}
