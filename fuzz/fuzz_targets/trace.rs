//! A trace that hears anything: reports that quote any bytes and any messages, at any time, between
//! true answers. It ends, and counts each message at most once.
#![no_main]

use bufferbane_core::time::Monotonic;
use bufferbane_core::trace::{MAX_HOPS, Step, Trace, TraceConfig, Transport};
use bufferbane_core::wire::icmp::{Report, Version};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((how, mut rest)) = bytes.split_first() else {
        return;
    };
    let version = if how & 1 == 0 { Version::V4 } else { Version::V6 };
    let transport = match how >> 1 & 3 {
        0 => Transport::Udp,
        1 => Transport::Echo {
            version,
            identifier: None,
        },
        _ => Transport::Echo {
            version,
            identifier: Some(7),
        },
    };
    let mut trace = Box::new(Trace::new(TraceConfig {
        target: [192, 0, 2, 9].into(),
        source: Some([192, 0, 2, 1].into()),
        transport,
        cookie: 0,
        rounds: 4,
        round_ns: 0,
        max_hops: how >> 3,
    }));
    let (mut now, mut sent, mut answers) = (Monotonic::ZERO, 0u32, 0u32);
    let mut last = Vec::new();
    loop {
        match trace.step(now) {
            Step::Send(out) => {
                sent += 1;
                assert!(sent <= 4 * u32::from(MAX_HOPS));
                last = out.message().to_vec();
            }
            Step::Wait(until) => {
                let Some((head, more)) = rest.split_first_chunk::<5>() else {
                    now = until;
                    continue;
                };
                let [from, kind, code, later, len] = *head;
                let (said, more) = more.split_at(usize::from(len % 48).min(more.len()));
                rest = more;
                now = now.saturating_add(u64::from(later) * 1_000_000);
                let from = [192, 0, 2, from].into();
                // Sometimes what was really sent, changed by what is said.
                let mut quoted = last.clone();
                quoted.iter_mut().zip(said).for_each(|(q, s)| *q ^= s);
                for said in [said, &quoted] {
                    if let Some(report) = Report::of(version, kind, code) {
                        answers += u32::from(trace.handle_report(now, from, report, said).is_ok());
                    }
                    answers += u32::from(trace.handle_reply(now, from, said).is_ok());
                }
            }
            Step::End => break,
        }
    }
    assert!(answers <= sent && trace.hops().len() <= usize::from(MAX_HOPS));
    assert!(trace.hops().iter().all(|h| h.answered <= h.sent));
});
