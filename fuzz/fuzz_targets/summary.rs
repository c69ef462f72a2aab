//! Any summary: read or refused, and what is read survives being written and merged.
#![no_main]

use bufferbane_core::stats::summary::{MAX_ENCODED, Summary};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(summary) = Summary::decode(bytes) {
        let mut out = vec![0; MAX_ENCODED];
        let len = summary.encode(&mut out).expect("room for it");
        assert!(Summary::decode(&out[..len]).expect("a summary") == summary);
    }
});
