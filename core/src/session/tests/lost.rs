//! When a reflector counts as lost, and how it is found again.

use super::*;

#[test]
fn what_comes_down_again_does_not_say_that_the_reflector_is_there() {
    let mut w = World::new(|_| (false, false));
    w.run_until(3_000);
    while w.wire.iter().all(|(_, up, _)| *up) {
        w.run_until(w.now_ms + 1);
    }
    let captured = w.wire.iter().find(|(_, up, _)| !up);
    let captured = captured.map(|(.., bytes)| bytes.clone()).unwrap();
    let gone_ms = w.now_ms;
    // It goes without a word, and somebody sends its last answer again and again.
    w.fate = |_| (true, true);
    while w.now_ms < gone_ms + 5_000 {
        w.run_until(w.now_ms + 500);
        w.wire.push_back((w.now_ms, false, captured.clone()));
    }
    assert!(w.events.contains(&SessionEvent::Lost), "{:?}", w.events);
    assert!(!w.events.contains(&SessionEvent::Back), "{:?}", w.events);
    assert!(!w.client.is_answering());
    let copies = |w: &World| {
        let told = w.samples.iter();
        told.filter(|s| s.status == Status::Duplicate).count()
    };
    assert!(copies(&w) > 0, "the line's copies are measured");
    // Another one is found amid all that.
    w.reflector = reflector(77, 4);
    w.fate = |_| (false, false);
    while w.now_ms < gone_ms + 8_000 {
        w.run_until(w.now_ms + 100);
        w.wire.push_back((w.now_ms, false, captured.clone()));
    }
    assert!(w.client.is_answering());
    assert!(w.events.contains(&SessionEvent::RemoteRestarted));
}
