//! Any knot of a floor: read or refused, what is read survives being written, and no time, no delay
//! and no neighbour makes more of it than numbers.
#![no_main]

use bufferbane_core::clock::Knot;
use bufferbane_core::time::Monotonic;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let word = |i: usize| {
        let word = bytes.get(8 * i..8 * i + 8)?;
        Some(u64::from_le_bytes(word.try_into().ok()?))
    };
    let (Some(at), Some(now)) = (word(0), word(1)) else {
        return;
    };
    let at = Monotonic::from_nanos(at);
    let Some(knot) = Knot::decode(at, &bytes[16..]) else {
        return;
    };
    let mut out = [0; Knot::MAX_ENCODED];
    let len = knot.encode(&mut out).expect("room for it");
    assert_eq!(Knot::decode(at, &out[..len]), Some(knot));

    let now = Monotonic::from_nanos(now);
    let moved = knot.shifted(knot.down_ns, knot.up_ns);
    let next = Knot {
        at: now,
        begins: !knot.begins,
        ..moved
    };
    for next in [None, Some(&next)] {
        let begun = knot.begun_at(now, next);
        assert_eq!((begun.at, begun.begins), (now, true));
        assert_eq!((begun.up_ns, begun.down_ns), knot.floor_at(now, next));
    }
});
