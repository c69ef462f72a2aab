//! Any configuration and key file: read or refused with a place, and a key that is read is written as
//! what was read.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bufferbane_config::fuzzing::text(bytes));
