//! Any minute of load: read or refused, and what is read survives being written.
#![no_main]

use bufferbane_core::household::Minute;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(minute) = Minute::decode(bytes) {
        let mut out = vec![0; 1 << 17];
        let len = minute.encode(&mut out).expect("room for it");
        assert!(Minute::decode(&out[..len]).expect("a minute") == minute);
    }
});
