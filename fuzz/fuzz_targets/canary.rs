//! Fails on purpose when it finds one particular input: proves that the harness can fail, and that
//! it is led there by coverage, for it would hardly be guessed.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let [a, b, c, d, ..] = bytes
        && *a == b's'
        && *b == b'i'
        && *c == b'n'
        && *d == b'g'
    {
        panic!("the canary sings");
    }
});
