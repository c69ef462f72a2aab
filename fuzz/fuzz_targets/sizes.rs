//! A search for the largest packet that hears anything: what is too big, reports and messages of anybody, at any
//! time, between true answers. It ends, takes each message at most once, and finds nothing that it did not send.
#![no_main]

use std::collections::BTreeSet;

use bufferbane_core::mtu::{MAX_MESSAGES, MAX_SIZE, Outcome, Search, SearchConfig, Step};
use bufferbane_core::time::Monotonic;
use bufferbane_core::trace::Transport;
use bufferbane_core::wire::icmp::{Report, Version, checksum};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&[how, high, low], mut rest)) = bytes.split_first_chunk::<3>() else {
        return;
    };
    let (version, reply_type, target) = match how & 1 {
        0 => (Version::V4, 0, "192.0.2.9"),
        _ => (Version::V6, 129, "2001:db8::9"),
    };
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
    let config = SearchConfig {
        target: target.parse().expect("an address"),
        transport,
        cookie: 0,
        smallest: (how & 8 != 0).then_some(u16::from(how) << 4),
        largest: u16::from_be_bytes([high, low]),
    };
    let others = "198.51.100.1".parse().expect("an address");
    let mut search = Box::new(Search::new(config));
    let (mut now, mut answers, mut bytes_out) = (Monotonic::ZERO, 0, 0);
    let (mut sizes, mut last) = (Vec::new(), Vec::new());
    let mut room = vec![0; usize::from(MAX_SIZE)];
    let outcome = loop {
        match search.step(now) {
            Step::Send(out) => {
                let len = out.write(&mut room).expect("room for the largest");
                last = room[..len].to_vec();
                sizes.push(out.size);
                bytes_out += u64::from(out.size);
                // One in four is not sent, for this or that reason.
                if let Some((word, more)) = rest.split_first() {
                    rest = more;
                    if word & 3 == 3 {
                        search.handle_unsent(out.number, word & 4 != 0);
                        bytes_out -= u64::from(out.size);
                    }
                }
                assert_eq!(search.bytes(), bytes_out);
            }
            Step::Wait(until) => {
                assert!(until > now);
                let Some((&[who, kind, code, later, a, b, len], more)) =
                    rest.split_first_chunk::<7>()
                else {
                    now = until;
                    continue;
                };
                let (said, more) = more.split_at(usize::from(len % 48).min(more.len()));
                rest = more;
                now = now.saturating_add(u64::from(later) * 4_000_000);
                let from = if who & 1 == 0 { config.target } else { others };
                // Sometimes what was really sent, changed by what is said, and as its answer would be.
                let mut quoted = last.clone();
                quoted.iter_mut().zip(said).for_each(|(q, s)| *q ^= s);
                let mut reply = quoted.clone();
                if let Transport::Echo { .. } = transport {
                    reply[0] = reply_type;
                    reply[2..4].fill(0);
                    let sum = checksum(&reply);
                    reply[2..4].copy_from_slice(&sum.to_be_bytes());
                }
                let mtu = u32::from_be_bytes([0, who >> 7, a, b]);
                for said in [said, &quoted, &reply] {
                    let whole_len = said.len() - usize::from(who >> 4 & 3).min(said.len());
                    let heard = match who >> 1 & 3 {
                        0 => search.handle_too_big(from, mtu, said),
                        1 => match Report::of(version, kind, code) {
                            Some(report) => search.handle_report(now, from, report, said),
                            None => continue,
                        },
                        _ => search.handle_reply(now, from, said, whole_len),
                    };
                    answers += usize::from(heard.is_ok());
                }
            }
            Step::End(outcome) => break outcome,
        }
    };
    assert!(sizes.len() <= MAX_MESSAGES && answers <= sizes.len());
    let largest = config.largest.min(MAX_SIZE);
    let sizes: BTreeSet<u16> = sizes.into_iter().collect();
    if let Some(passes) = outcome.passes() {
        assert!(answers > 0 && sizes.contains(&passes));
    }
    match outcome {
        Outcome::Whole { passes } => assert_eq!(Some(&passes), sizes.last()),
        Outcome::Told { passes, .. } => assert!(passes < largest),
        Outcome::Silent { passes, vanishes } => {
            assert!(vanishes == passes + 1 && sizes.contains(&vanishes) && vanishes <= largest);
        }
        Outcome::NoAnswer | Outcome::Unsent | Outcome::Unclear { .. } => {}
    }
});
