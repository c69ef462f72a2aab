//! Any block of samples: bounded output, and what is read whole packs again to the same samples.
#![no_main]

use bufferbane_core::limits::MAX_BLOCK_SAMPLES;
use bufferbane_core::record::{decode, encode};
use bufferbane_core::sample::Sample;

fn check(bytes: &[u8]) {
    let Ok(mut samples) = decode(bytes) else {
        return;
    };
    let all: Vec<Sample> = samples.by_ref().collect();
    assert!(all.len() <= MAX_BLOCK_SAMPLES);
    if samples.is_damaged() || all.is_empty() {
        return;
    }
    let mut out = vec![0; 1 << 20];
    let len = encode(&all, &mut out).expect("room for it");
    assert!(decode(&out[..len]).expect("a block").eq(all));
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    // The same behind the right begin and checksum, so that the columns are reached.
    let mut block = vec![0xBB, 1];
    block.extend_from_slice(bytes);
    let sum = crc32c(&block);
    block.extend_from_slice(&sum.to_le_bytes());
    check(&block);
});

/// CRC-32C, bit by bit: a second opinion on the library's.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |mut crc, b| {
        crc ^= u32::from(*b);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
        crc
    })
}
