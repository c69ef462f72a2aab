//! Any row of unsealed samples: read or refused, and what is read survives being written.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bufferbane_store::fuzzing::tail(bytes));
