use std::vec;
use std::vec::Vec;

use super::*;
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// Any sample that a prober can report, and some that it cannot.
pub(crate) fn sample_strategy() -> impl Strategy<Value = Sample> {
    let clock = || (0u8..4).prop_map(|n| ClockSource::from_u8(n).unwrap());
    let octet = || proptest::option::of(any::<u8>());
    (
        (
            any::<u64>(),
            0u64..u64::MAX / 2,
            0u8..7,
            0u8..16,
            any::<u16>(),
        ),
        (
            0u64..200_000_000_000,
            proptest::option::of(any::<i64>()),
            proptest::option::of(any::<i64>()),
        ),
        (
            any::<i64>(),
            any::<u16>(),
            clock(),
            clock(),
            clock(),
            clock(),
        ),
        (octet(), octet(), octet()),
    )
        .prop_map(
            |((seq, sent, status, flags, size), (rtt, up, down), late, octets)| {
                let mut s = Sample::lost(SeriesIndex(0), seq, Monotonic::from_nanos(sent), size);
                s.status = Status::from_u8(status).unwrap();
                s.flags = Flags::from_bits(flags);
                s.rtt_ns = s.status.is_answered().then_some(rtt);
                s.raw_up_ns = up;
                s.raw_down_ns = down;
                (s.send_late_ns, s.errno) = (late.0, late.1);
                (s.tx_clock, s.rx_clock, s.remote_rx_clock, s.remote_tx_clock) =
                    (late.2, late.3, late.4, late.5);
                (s.ttl_up, s.ttl_down, s.tos_seen) = octets;
                s
            },
        )
}

fn round_trip(samples: &[Sample]) -> usize {
    let mut bytes = vec![0; 400_000];
    let len = encode(samples, &mut bytes).unwrap();
    let mut back = decode(&bytes[..len]).unwrap();
    for s in samples {
        assert_eq!(back.next().as_ref(), Some(s));
    }
    assert_eq!(back.next(), None);
    assert!(!back.is_damaged());
    len
}

proptest! {
    #[test]
    fn samples_round_trip(samples in proptest::collection::vec(sample_strategy(), 1..60)) {
        round_trip(&samples);
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes).map(Iterator::count);
        // The same behind a right checksum, so that the columns are reached.
        if bytes.len() > 6 {
            bytes[..2].copy_from_slice(&MAGIC);
            let at = bytes.len() - 4;
            let sum = CHECKSUM.checksum(&bytes[..at]);
            bytes[at..].copy_from_slice(&sum.to_le_bytes());
            let _ = decode(&bytes).map(Iterator::count);
        }
    }

    #[test]
    fn a_damaged_byte_is_noticed(at in 0usize..1000, bit in 0u8..8) {
        let samples = healthy(50, 50_000_000, true);
        let mut bytes = vec![0; 65536];
        let len = encode(&samples, &mut bytes).unwrap();
        bytes.truncate(len);
        let at = at % len;
        bytes[at] ^= 1 << bit;
        prop_assert!(decode(&bytes).is_err());
    }
}

/// A healthy series: a random offset in each slot, a delay with a tail, kernel stamps.
fn healthy(count: u64, interval_ns: u64, reflector: bool) -> Vec<Sample> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut below = |n: u64| rng.next_u64() % n;
    (0..count)
        .map(|i| {
            let sent = 1_000_000_000_000 + i * interval_ns + below(interval_ns * 8 / 10);
            let size = if reflector { 128 } else { 64 };
            let mut s = Sample::lost(SeriesIndex(0), 77 + i, Monotonic::from_nanos(sent), size);
            s.send_late_ns = 60_000 + below(60_000) as i64;
            s.tx_clock = ClockSource::Kernel;
            if below(200) == 0 {
                s.status = if reflector {
                    Status::LostUp
                } else {
                    Status::Lost
                };
                return s;
            }
            s.status = Status::Ok;
            let up =
                8_000_000 + below(1_000_000) + if below(40) == 0 { below(20_000_000) } else { 0 };
            let down = 9_000_000 + below(300_000);
            s.rtt_ns = Some(up + down);
            s.rx_clock = ClockSource::Kernel;
            s.ttl_down = Some(57);
            if reflector {
                s.raw_up_ns = Some(up as i64 - 123_456_789_012_345 + i as i64 * 2500);
                s.raw_down_ns = Some(down as i64 + 123_456_789_012_345 - i as i64 * 2500);
                s.remote_rx_clock = ClockSource::Kernel;
                s.remote_tx_clock = ClockSource::Kernel;
                s.ttl_up = Some(57);
                s.tos_seen = Some(0);
            }
            s
        })
        .collect()
}

#[test]
fn a_healthy_series_packs_well() {
    for (name, interval_ns, reflector, most) in [
        ("ICMP at 1 Hz", 1_000_000_000, false, 12.0),
        ("reflector at 20 Hz", 50_000_000, true, 14.5),
    ] {
        let samples = healthy(1024, interval_ns, reflector);
        let each = round_trip(&samples) as f64 / 1024.0;
        std::println!("{name}: {each:.2} bytes per sample");
        assert!(each < most, "{name}: {each}");
    }
}

#[test]
fn unknown_columns_are_passed_over() {
    let samples = healthy(3, 1_000_000, false);
    let mut bytes = vec![0; 4096];
    let len = encode(&samples, &mut bytes).unwrap();
    bytes.truncate(len - 4);
    bytes.extend_from_slice(&[200, 2, 1, 2]);
    let sum = CHECKSUM.checksum(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    assert!(decode(&bytes).unwrap().eq(samples));
}

#[test]
fn what_is_not_a_block_says_so() {
    assert_eq!(decode(&[]).unwrap_err(), BlockError::Magic);
    assert_eq!(
        decode(&[1, 2, 3, 4, 5, 6, 7]).unwrap_err(),
        BlockError::Magic
    );
    assert_eq!(
        decode(&[0xBB, 2, 0, 0, 0, 0, 0]).unwrap_err(),
        BlockError::Version(2)
    );
    assert_eq!(
        decode(&[0xBB, 1, 1, 0, 0, 0, 0]).unwrap_err(),
        BlockError::Checksum
    );
    assert_eq!(encode(&[], &mut [0; 100]), None);
}
