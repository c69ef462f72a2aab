use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::wire::icmp::{Version, checksum};

const MS: u64 = 1_000_000;
const TARGET: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 1));
const OTHER: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 2));
const CONFIG: LookConfig = LookConfig {
    target: TARGET,
    transport: Transport::Echo {
        version: Version::V4,
        identifier: Some(7),
    },
    cookie: 0x1122_3344_5566_7788,
};

fn at(ms: u64) -> Monotonic {
    Monotonic::from_nanos(1_000_000_000 + ms * MS)
}

/// What a host makes of an echo request.
fn reply(request: &[u8]) -> Vec<u8> {
    let mut reply = request.to_vec();
    reply[0] = 0;
    reply[2..4].fill(0);
    let sum = checksum(&reply);
    reply[2..4].copy_from_slice(&sum.to_be_bytes());
    reply
}

/// What becomes of an echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happens {
    Answered(u64),
    Lost,
    Refused,
    Unsent,
}

/// Runs a look; `happens` says by the slot what becomes of its echo, `stall` for how long the driver is held up before it
/// acts. Gives each echo with when it was sent, and when the look was over.
fn run(
    look: &mut Look,
    happens: impl Fn(usize) -> Happens,
    stall: impl Fn(usize) -> u64,
) -> (Vec<(usize, Monotonic)>, Monotonic) {
    let mut now = at(0);
    let mut sent = Vec::new();
    let mut answers: Vec<(Monotonic, Vec<u8>)> = Vec::new();
    loop {
        answers.sort();
        while let Some((arrived, reply)) = answers.first().filter(|a| a.0 <= now) {
            assert_eq!(look.handle_reply(*arrived, TARGET, reply), Ok(()));
            answers.remove(0);
        }
        match look.step(now) {
            Step::Send(echo) => {
                let slot = usize::from(echo.number);
                sent.push((slot, now));
                match happens(slot) {
                    Happens::Answered(rtt_ns) => {
                        answers.push((now.saturating_add(rtt_ns), reply(echo.message())));
                    }
                    Happens::Lost => {}
                    Happens::Refused => look.handle_refused(&echo.message()[..8]).unwrap(),
                    Happens::Unsent => look.handle_unsent(echo.number),
                }
            }
            Step::Wait(until) => {
                assert!(until > now);
                let next = answers.iter().map(|a| a.0).min();
                now = next.map_or(until, |next| next.min(until));
                if now == until {
                    now = now.saturating_add(stall(sent.len()));
                }
            }
            Step::End => return (sent, now),
        }
    }
}

#[test]
fn a_line_that_is_well_has_an_echo_in_each_slot_and_is_done_at_once() {
    let mut look = Look::new(CONFIG, at(0));
    let (sent, over) = run(&mut look, |_| Happens::Answered(3 * MS), |_| 0);
    assert_eq!(sent.len(), ECHOES);
    for (slot, when) in sent {
        assert_eq!(when, at(slot as u64 * 50));
    }
    assert_eq!(over, at(199 * 50 + 3));
    let found = look.found();
    assert_eq!((found.sent, found.answered, found.runs), (200, 200, 0));
    assert_eq!(found.silence, None);
    let rtt = found.rtt.unwrap();
    assert_eq!(
        [rtt.min_ns, rtt.median_ns, rtt.p95_ns, rtt.max_ns],
        [3 * MS; 4]
    );
    let bin = Bin {
        sent: 10,
        answered: 10,
    };
    assert_eq!(found.bins, [bin; BINS]);
    assert_eq!(most_bytes(TARGET), 200 * 84);
}

#[test]
fn an_outage_has_its_edges_to_a_slot() {
    let mut look = Look::new(CONFIG, at(0));
    let happens = |slot| match slot {
        5 => Happens::Refused,
        60..130 => Happens::Lost,
        _ => Happens::Answered(slot as u64 * MS),
    };
    run(&mut look, happens, |_| 0);
    let found = look.found();
    assert_eq!((found.sent, found.answered), (200, 129));
    assert_eq!((found.refused, found.runs), (1, 2));
    let silence = Silence {
        from: at(3000),
        lasted_ns: 3500 * MS,
    };
    assert_eq!(found.silence, Some(silence));
    assert_eq!((found.bins[6].sent, found.bins[6].answered), (10, 0));
    let rtt = found.rtt.unwrap();
    // The 65th and the 123rd of 129, of which the 59 first are of the slots before the outage.
    let [median, p95] = [135, 193].map(|ms| ms * MS);
    assert_eq!((rtt.min_ns, rtt.max_ns), (0, 199 * MS));
    assert_eq!((rtt.median_ns, rtt.p95_ns), (median, p95));
    // One that lasts beyond the end is known as far as it was seen.
    let mut look = Look::new(CONFIG, at(0));
    let (_, over) = run(&mut look, |_| Happens::Lost, |_| 0);
    assert_eq!(over, at(199 * 50 + 2000));
    let found = look.found();
    assert_eq!((found.answered, found.rtt), (0, None));
    let silence = Silence {
        from: at(0),
        lasted_ns: SPAN_NS,
    };
    assert_eq!((found.runs, found.silence), (1, Some(silence)));
}

#[test]
fn a_driver_that_was_held_up_does_not_hurry() {
    let mut look = Look::new(CONFIG, at(0));
    let held_up = |n| if n == 10 { 5_020 * MS } else { 0 };
    let (sent, _) = run(&mut look, |_| Happens::Answered(MS), held_up);
    assert_eq!(sent.len(), 100);
    assert_eq!((sent[9].0, sent[10].0, sent[11].0), (9, 110, 111));
    assert_eq!(sent[11].1, at(111 * 50));
    let found = look.found();
    assert_eq!((found.sent, found.answered, found.runs), (100, 100, 0));
    // One that was held up for all of it has sent what it had.
    let mut look = Look::new(CONFIG, at(0));
    let held_up = |n| if n == 1 { 60_000 * MS } else { 0 };
    let (sent, _) = run(&mut look, |_| Happens::Answered(MS), held_up);
    assert_eq!(sent.len(), 1);
}

#[test]
fn only_the_target_answers_in_time_and_once() {
    let mut look = Look::new(CONFIG, at(0));
    let Step::Send(echo) = look.step(at(0)) else {
        panic!("the first is due");
    };
    let own = reply(echo.message());
    let unmatched = Err(DropReason::Unmatched);
    assert_eq!(look.handle_reply(at(1), OTHER, &own), unmatched);
    assert_eq!(look.handle_reply(at(2001), TARGET, &own), unmatched);
    let other = LookConfig {
        cookie: 5,
        ..CONFIG
    };
    let mut others = Look::new(other, at(0));
    assert!(matches!(others.step(at(0)), Step::Send(_)));
    assert_eq!(others.handle_reply(at(1), TARGET, &own), unmatched);
    let mut damaged = own.clone();
    damaged[30] ^= 1;
    let sum = Err(DropReason::Checksum);
    assert_eq!(look.handle_reply(at(1), TARGET, &damaged), sum);
    assert_eq!(look.handle_reply(at(2000), TARGET, &own), Ok(()));
    assert_eq!(look.handle_reply(at(2000), TARGET, &own), unmatched);
    assert_eq!(look.handle_refused(echo.message()), unmatched);
    assert_eq!(look.handle_refused(&[8, 0]), Err(DropReason::Length));
    assert_eq!(look.found().rtt.unwrap().max_ns, 2000 * MS);
}

#[test]
fn a_host_limits_its_answers_where_all_regular_pings_came_through() {
    let regular = |sent, answered| Regular { sent, answered };
    // A twentieth of a second's worth, and ten regular pings answered.
    assert!(is_limited(200, 10, regular(10, 10)));
    assert!(is_limited(200, 120, regular(10, 10)));
    // On a line that loses a tenth that happens often.
    assert!(!is_limited(200, 180, regular(10, 10)));
    assert!(!is_limited(200, 60, regular(10, 9)));
    assert!(!is_limited(200, 60, regular(4, 4)));
    assert!(!is_limited(0, 0, regular(10, 10)));
    assert!(!is_limited(200, 200, regular(u64::MAX, u64::MAX)));
}

proptest! {
    #[test]
    fn sums_are_those_of_the_echoes(
        fates in proptest::collection::vec(0u64..8, ECHOES),
        stalls in proptest::collection::vec((1usize..ECHOES, 0u64..3000), 0..6),
    ) {
        let happens = |slot: usize| match fates[slot] {
            0 | 1 => Happens::Lost,
            2 => Happens::Refused,
            3 => Happens::Unsent,
            n => Happens::Answered(n * 250 * MS),
        };
        let stall = |n| stalls.iter().filter(|s| s.0 == n).map(|s| s.1 * MS).sum();
        let mut look = Look::new(CONFIG, at(0));
        let (sent, over) = run(&mut look, happens, stall);
        let found = look.found();

        // One to a slot, never before it, and no two in the wrong order.
        for pair in sent.windows(2) {
            prop_assert!(pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        }
        for (slot, when) in &sent {
            let begin = at(*slot as u64 * 50);
            prop_assert!(*when >= begin && when.saturating_since(begin) < INTERVAL_NS);
        }
        let stalled = stalls.iter().map(|s| s.1 * MS).sum::<u64>();
        prop_assert!(over.saturating_since(at(0)) <= SPAN_NS + PATIENCE_NS + stalled);

        let number = |is: fn(Happens) -> bool| {
            sent.iter().filter(|(slot, _)| is(happens(*slot))).count() as u64
        };
        let answered = number(|h| matches!(h, Happens::Answered(_)));
        let refused = number(|h| h == Happens::Refused);
        let unsent = number(|h| h == Happens::Unsent);
        prop_assert_eq!(found.sent, sent.len() as u64 - unsent);
        prop_assert_eq!((found.answered, found.refused, found.unsent), (answered, refused, unsent));
        prop_assert_eq!(found.bins.iter().map(|b| b.sent).sum::<u64>(), found.sent);
        prop_assert_eq!(found.bins.iter().map(|b| b.answered).sum::<u64>(), answered);
        prop_assert_eq!(found.rtt.is_some(), answered > 0);
        if let Some(rtt) = found.rtt {
            prop_assert!(rtt.min_ns <= rtt.median_ns && rtt.median_ns <= rtt.p95_ns);
            prop_assert!(rtt.p95_ns <= rtt.max_ns && rtt.max_ns <= PATIENCE_NS);
        }
        let is_lost = |slot: &usize| matches!(happens(*slot), Happens::Lost | Happens::Refused);
        let left: Vec<(usize, Monotonic)> =
            sent.into_iter().filter(|(slot, _)| happens(*slot) != Happens::Unsent).collect();
        let mut runs = 0;
        let mut longest = 0;
        let mut since = None;
        for (slot, when) in &left {
            if is_lost(slot) {
                runs += u64::from(since.is_none());
                let begun = *since.get_or_insert(*when);
                let least = when.saturating_since(begun);
                longest = longest.max(least);
            } else {
                since = None;
            }
        }
        prop_assert_eq!((found.runs, found.silence.is_some()), (runs, runs > 0));
        if let Some(silence) = found.silence {
            prop_assert!(silence.lasted_ns >= longest);
            prop_assert!(left.iter().any(|(slot, when)| is_lost(slot) && *when == silence.from));
        }
    }

    #[test]
    fn what_others_send_changes_nothing(
        message in proptest::collection::vec(any::<u8>(), 0..100),
        now in 0u64..3000,
    ) {
        let mut look = Look::new(CONFIG, at(0));
        look.step(at(0));
        let before = look.found();
        // Its cookie is 64 bits that nobody else knows.
        prop_assert!(look.handle_reply(at(now), TARGET, &message).is_err());
        prop_assert!(look.handle_refused(&message).is_err());
        prop_assert_eq!(look.found(), before);
    }
}
