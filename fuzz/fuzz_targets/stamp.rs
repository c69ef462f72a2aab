//! Any STAMP packet: read or refused by both ends, and answered by just as many bytes, which are
//! read again as what was answered.
#![no_main]

use bufferbane_core::wire::stamp::{ErrorEstimate, Format, Key, Reply, Request};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let key = Key::new(&[7; 32]).expect("a key of a length that is allowed");
    let _ = Reply::parse(Some(&key), bytes);
    let Ok(request) = Request::parse(None, bytes) else {
        assert!(bytes.len() < 44);
        return;
    };
    let mut out = vec![0; bytes.len()];
    for key in [None, Some(&key)] {
        let reply = Reply {
            seq: request.seq ^ 1,
            timestamp: request.timestamp,
            error: request.error,
            session: request.session,
            receive_timestamp: request.timestamp.wrapping_add(1),
            request,
            ttl: bytes[0],
        };
        match reply.emit(key, bytes, &mut out) {
            Some(len) => {
                assert_eq!(len, bytes.len());
                assert_eq!(Reply::parse(key, &out), Ok(reply));
            }
            None => assert!(key.is_some() && bytes.len() < 112),
        }
    }
    let error = ErrorEstimate::read(request.error);
    assert_eq!(ErrorEstimate::read(error.write()).format, error.format);
    for format in [Format::Ntp, Format::Ptp] {
        // NTP's eras end; what is read and can be written is written back to within a nanosecond.
        if let Some(ns) = format.read(request.timestamp) {
            let again = format.read(format.write(ns)).expect("what was read once");
            assert!(ns.abs_diff(again) <= 1);
        }
    }
});
