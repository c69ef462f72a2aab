//! Any two summaries of a series: read or refused, and what is read survives being written and merged.
#![no_main]

use bufferbane_core::stats::summary::{MAX_ENCODED, Summary};

fn written(summary: &Summary) -> Vec<u8> {
    let mut out = vec![0; MAX_ENCODED];
    let len = summary.encode(&mut out).expect("room for it");
    out.truncate(len);
    out
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // As they are, and the first of two with its length in front.
    let parts = bytes.split_first().and_then(|(len, rest)| {
        let len = usize::from(*len);
        Some((rest.get(..len)?, rest.get(len..)?))
    });
    let (first, second) = parts.unwrap_or((bytes, bytes));
    for part in [bytes, first, second] {
        if let Some(summary) = Summary::decode(part) {
            let again = Summary::decode(&written(&summary)).expect("a summary");
            assert!(again == summary);
        }
    }
    let (Some(a), Some(b)) = (Summary::decode(first), Summary::decode(second)) else {
        return;
    };
    let mut both = a.clone();
    both.merge(&b);
    assert_eq!(both.sent, a.sent.saturating_add(b.sent));
    let most = a.rtt.count().saturating_add(b.rtt.count());
    assert_eq!(both.rtt.count(), most);
    for q in [0.0, 0.5, 0.99, 1.0] {
        let of = |s: &Summary| s.rtt.quantile(q);
        assert_eq!(of(&both).is_some(), of(&a).is_some() || of(&b).is_some());
    }
    assert!(both.runs.longest().packets >= a.runs.longest().packets);
    let _ = (both.runs.count(), both.runs.length_classes());
    // What is stored of them is read again.
    assert!(Summary::decode(&written(&both)).is_some());
    let nothing = Summary::new();
    let mut same = a.clone();
    same.merge(&nothing);
    assert_eq!(written(&same), written(&a), "nothing more came");
});
