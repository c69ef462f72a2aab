//! Any ICMP message: read or refused, and what is read is what a reply of ours would say.
#![no_main]

use bufferbane_core::wire::icmp::{Echo, Version, checksum, strip_ipv4_header};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for version in [Version::V4, Version::V6] {
        if let Ok(echo) = Echo::parse_reply(version, bytes) {
            let mut out = vec![0; bytes.len()];
            let len = echo
                .emit_request(version, bytes.len(), &mut out)
                .expect("room for it");
            assert_eq!(len, bytes.len());
            assert_eq!(out[4..24], bytes[4..24]);
            assert!(version == Version::V6 || checksum(bytes) == 0);
        }
    }
    if let Ok(inner) = strip_ipv4_header(bytes) {
        assert!(inner.len() + 20 <= bytes.len());
    }
});
