//! Whatever the kernel may say: control messages, addresses, netlink messages and completions.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bufferbane_linux_io::fuzzing::kernel(bytes));
