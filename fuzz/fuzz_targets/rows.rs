//! Any row of text and any anchors of the store: read or refused, and mapped there and back.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bufferbane_store::fuzzing::rows(bytes));
