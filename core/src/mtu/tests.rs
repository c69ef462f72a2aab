use std::collections::VecDeque;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::wire::icmp::{Version, checksum};

const S: u64 = 1_000_000_000;

/// A line, seen from the host that asks.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// The largest size that passes on the way there.
    up: u16,
    /// And back.
    down: u16,
    /// The largest reply of the host, which cuts larger ones.
    reply: u16,
    /// The largest echo that the host answers.
    answers: u16,
    /// The largest size that this host lets out.
    lets_out: u16,
    /// Whether the router before the narrow part says so.
    tells: bool,
    /// Share of messages or answers that are lost, per mille.
    loss: u64,
    /// All is lost for a second and a half in each of so many seconds.
    outages_s: Option<u64>,
    rtt_ns: u64,
}

const WELL: Line = Line {
    up: 1500,
    down: 1500,
    reply: MAX_SIZE,
    answers: MAX_SIZE,
    lets_out: MAX_SIZE,
    tells: false,
    loss: 0,
    outages_s: None,
    rtt_ns: 30_000_000,
};

enum Answer {
    /// The beginning, and the length of all of it.
    Reply(Vec<u8>, usize),
    TooBig(u32, Vec<u8>),
    Port(Vec<u8>),
}

fn next(seed: &mut u64) -> u64 {
    // SplitMix64.
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn config(target: &str, transport: Transport, largest: u16) -> SearchConfig {
    SearchConfig {
        target: target.parse().unwrap(),
        transport,
        cookie: 0x1122_3344_5566_7788,
        smallest: None,
        largest,
    }
}

fn echo(version: Version) -> Transport {
    Transport::Echo {
        version,
        identifier: Some(7),
    }
}

/// A search over a line; what it found, how many messages it took and how long, ns.
fn search(config: SearchConfig, line: Line, seed: u64) -> (Outcome, usize, u64) {
    let mut seed = seed;
    let mut s = Search::new(config);
    let mut now = Monotonic::from_nanos(S);
    let mut answers: VecDeque<(Monotonic, Answer)> = VecDeque::new();
    let (mut sent, mut bytes) = (0, 0);
    let router: IpAddr = "10.0.0.1".parse().unwrap();
    let mut room = vec![0; usize::from(MAX_SIZE)];
    loop {
        match s.step(now) {
            Step::Send(message) if message.size > line.lets_out => {
                s.handle_unsent(message.number, false);
            }
            Step::Send(message) => {
                sent += 1;
                bytes += u64::from(message.size);
                let len = message.write(&mut room).unwrap();
                let is_out = line
                    .outages_s
                    .is_some_and(|every| now.as_nanos() % (every * S) < 3 * S / 2);
                let lost = next(&mut seed) % 1000 < line.loss || is_out;
                let at = now.saturating_add(line.rtt_ns);
                let quoted = room[..len.min(40)].to_vec();
                let answer = if message.size > line.up {
                    let told = Answer::TooBig(line.up.into(), quoted);
                    (line.tells && !lost).then_some(told)
                } else if config.transport == Transport::Udp {
                    (!lost).then_some(Answer::Port(quoted))
                } else {
                    let mut reply = room[..len].to_vec();
                    reply[0] = if config.target.is_ipv4() { 0 } else { 129 };
                    reply[2..4].fill(0);
                    let sum = checksum(&reply);
                    reply[2..4].copy_from_slice(&sum.to_be_bytes());
                    let back = message.size.min(line.reply);
                    let whole_len = len - usize::from(message.size - back);
                    // Only the beginning is looked at.
                    reply.truncate(192);
                    let is_answered = message.size <= line.answers && back <= line.down;
                    (!lost && is_answered).then_some(Answer::Reply(reply, whole_len))
                };
                answers.extend(answer.map(|a| (at, a)));
            }
            Step::Wait(until) => {
                assert!(until > now, "it waits for what is past");
                match answers.front() {
                    Some((at, _)) if *at <= until => {
                        let (at, answer) = answers.pop_front().unwrap();
                        now = at;
                        match answer {
                            Answer::Reply(reply, len) => {
                                s.handle_reply(now, config.target, &reply, len)
                            }
                            Answer::TooBig(mtu, quoted) => s.handle_too_big(router, mtu, &quoted),
                            Answer::Port(quoted) => {
                                let port = Report::Unreachable(Refusal::Port);
                                s.handle_report(now, config.target, port, &quoted)
                            }
                        }
                        .unwrap();
                    }
                    _ => now = until,
                }
            }
            Step::End(outcome) => {
                assert_eq!(s.bytes(), bytes);
                let is_echo = config.transport != Transport::Udp;
                let is_cut = outcome.passes().is_some_and(|p| p > line.reply);
                assert_eq!(s.is_there_only(), !is_echo || is_cut);
                return (outcome, sent, now.as_nanos() - S);
            }
        }
    }
}

fn v4(line: Line) -> Outcome {
    search(config("203.0.113.9", echo(Version::V4), 1500), line, 1).0
}

#[test]
fn a_well_line_takes_two_messages() {
    let found = search(config("203.0.113.9", echo(Version::V4), 1500), WELL, 1);
    assert_eq!(found, (Outcome::Whole { passes: 1500 }, 2, 60_000_000));
    let six = search(config("2001:db8::9", echo(Version::V6), 1500), WELL, 1);
    assert_eq!(six, found);
}

#[test]
fn what_a_router_tells_is_no_black_hole() {
    let router = "10.0.0.1".parse().unwrap();
    for mtu in [1492, 1280, 576] {
        let line = Line {
            up: mtu,
            tells: true,
            ..WELL
        };
        let (found, sent, _) = search(config("203.0.113.9", echo(Version::V4), 1500), line, 1);
        let told = Outcome::Told {
            passes: mtu,
            by: Some((router, mtu.into())),
        };
        assert_eq!(found, told);
        assert!(sent <= 3, "{sent} messages for {mtu}");
    }
}

#[test]
fn sizes_that_vanish_are_found_to_the_byte_either_way() {
    for mtu in [1499, 1492, 1473, 1400, 577, 576, 575, 100] {
        let silent = Outcome::Silent {
            passes: mtu,
            vanishes: mtu + 1,
        };
        assert_eq!(v4(Line { up: mtu, ..WELL }), silent);
        assert_eq!(v4(Line { down: mtu, ..WELL }), silent);
    }
    // The way there is known by what answers with a short message.
    let udp = |line| search(config("203.0.113.9", Transport::Udp, 1500), line, 1).0;
    let (up, down) = (Line { up: 1400, ..WELL }, Line { down: 1400, ..WELL });
    let silent = Outcome::Silent {
        passes: 1400,
        vanishes: 1401,
    };
    assert_eq!(
        (udp(up), udp(down)),
        (silent, Outcome::Whole { passes: 1500 })
    );
}

#[test]
fn a_router_that_names_no_size_or_a_silly_one_costs_some_more_messages() {
    for named in [0, 40, 70_000] {
        let config = config("203.0.113.9", echo(Version::V4), 1500);
        let mut s = Search::new(config);
        let (mut now, mut sent) = (Monotonic::ZERO, 0);
        let router = "10.0.0.1".parse().unwrap();
        let mut room = [0; 1500];
        let outcome = loop {
            match s.step(now) {
                Step::Send(m) => {
                    sent += 1;
                    let len = m.write(&mut room).unwrap();
                    if m.size > 1420 {
                        s.handle_too_big(router, named, &room[..len]).unwrap();
                    } else {
                        let mut reply = room[..len].to_vec();
                        reply[0] = 0;
                        reply[2..4].fill(0);
                        let sum = checksum(&reply);
                        reply[2..4].copy_from_slice(&sum.to_be_bytes());
                        s.handle_reply(now, config.target, &reply, len).unwrap();
                    }
                }
                Step::Wait(until) => now = until,
                Step::End(outcome) => break outcome,
            }
        };
        let by = Some((router, named));
        assert_eq!(outcome, Outcome::Told { passes: 1420, by });
        assert!(sent <= 14, "{sent}");
    }
}

#[test]
fn a_host_that_is_silent_or_a_line_that_is_cut_says_nothing() {
    let silent = Line { loss: 1000, ..WELL };
    assert_eq!(v4(silent), Outcome::NoAnswer);
    let mut s = Search::new(config("203.0.113.9", echo(Version::V4), 1500));
    let mut now = Monotonic::ZERO;
    let outcome = loop {
        match s.step(now) {
            Step::Send(m) => s.handle_unsent(m.number, false),
            Step::Wait(until) => now = until,
            Step::End(outcome) => break outcome,
        }
    };
    assert_eq!(outcome, Outcome::Unsent);
}

#[test]
fn a_size_that_this_host_refuses_is_known_without_a_packet() {
    let mut s = Search::new(config("203.0.113.9", echo(Version::V4), 1500));
    let (mut now, mut room) = (Monotonic::ZERO, [0; 1500]);
    let outcome = loop {
        match s.step(now) {
            Step::Send(m) if m.size > 1300 => s.handle_unsent(m.number, true),
            Step::Send(m) => {
                let len = m.write(&mut room).unwrap();
                room[0] = 0;
                room[2..4].fill(0);
                let sum = checksum(&room[..len]);
                room[2..4].copy_from_slice(&sum.to_be_bytes());
                s.handle_reply(now, "203.0.113.9".parse().unwrap(), &room[..len], len)
                    .unwrap();
            }
            Step::Wait(until) => now = until,
            Step::End(outcome) => break outcome,
        }
    };
    let told = Outcome::Told {
        passes: 1300,
        by: None,
    };
    assert_eq!(outcome, told);
}

#[test]
fn what_is_about_no_message_of_ours_is_not_used() {
    let config = config("203.0.113.9", echo(Version::V4), 1500);
    let mut s = Search::new(config);
    let Step::Send(m) = s.step(Monotonic::ZERO) else {
        panic!("it begins with a message");
    };
    let mut room = [0; 1500];
    let len = m.write(&mut room).unwrap();
    let router = "10.0.0.1".parse().unwrap();
    let mut others = room;
    others[8] ^= 1;
    for (quoted, why) in [
        (&others[..len], DropReason::Unmatched),
        (&room[..7], DropReason::Length),
    ] {
        assert_eq!(s.handle_too_big(router, 500, quoted), Err(why));
    }
    let port = Report::Unreachable(Refusal::Port);
    assert_eq!(
        s.handle_report(Monotonic::ZERO, config.target, port, &room[..len]),
        Err(DropReason::Type)
    );
    assert_eq!(s.handle_too_big(router, 500, &room[..len]), Ok(()));
    // Once.
    assert_eq!(
        s.handle_too_big(router, 500, &room[..len]),
        Err(DropReason::Unmatched)
    );
}

/// Some hosts answer large echoes with the beginning of them. So what is too large for the way back is not seen, but
/// what is for the way there is.
#[test]
fn replies_that_are_cut_tell_of_the_way_there_only() {
    let cut = Line { reply: 92, ..WELL };
    let down = Line { down: 1400, ..cut };
    let whole = Outcome::Whole { passes: 1500 };
    assert_eq!((v4(cut), v4(down)), (whole, whole));
    let silent = Outcome::Silent {
        passes: 1400,
        vanishes: 1401,
    };
    assert_eq!(v4(Line { up: 1400, ..cut }), silent);
}

/// Such a host may answer no echoes above some size: nothing vanishes on the way.
#[test]
fn a_host_that_cuts_replies_and_answers_no_large_echoes_is_no_way_that_vanishes() {
    let passes = 1028;
    let silent = Outcome::Silent {
        passes,
        vanishes: passes + 1,
    };
    let two = SearchConfig {
        smallest: Some(passes),
        ..config("203.0.113.9", Transport::Udp, passes + 1)
    };
    let host = Line {
        answers: passes,
        ..WELL
    };
    for (line, is_cut, expected) in [
        (Line { reply: 92, ..host }, true, None),
        // Of one that cuts nothing it may be the way back as well.
        (host, false, Some(false)),
        (
            Line {
                up: passes,
                reply: 92,
                ..WELL
            },
            true,
            Some(true),
        ),
    ] {
        assert_eq!(v4(line), silent);
        let there = search(two, line, 1).0;
        assert_eq!(is_upward(is_cut, there), expected, "{line:?}");
    }
    // What is not known of the way there says nothing.
    for there in [Outcome::NoAnswer, Outcome::Unclear { passes }] {
        assert_eq!(is_upward(false, there), None);
    }
}

/// A filter of this host, or a queue of its that is full, is no matter of the way.
#[test]
fn what_this_host_does_not_let_out_has_not_vanished() {
    let filtered = Line {
        lets_out: 1000,
        ..WELL
    };
    assert_eq!(v4(filtered), Outcome::Unclear { passes: 576 });
    // Some messages, of a line that carries so much: all of a size, one of it, one of the last rounds; and one that
    // is followed by one that passes.
    for (refused, carries, expected) in [
        (2..=4, 1400, Outcome::Unclear { passes: 576 }),
        (2..=2, 1400, Outcome::Unclear { passes: 576 }),
        (41..=41, 1400, Outcome::Unclear { passes: 1400 }),
        (2..=2, 1500, Outcome::Whole { passes: 1500 }),
    ] {
        let config = config("203.0.113.9", Transport::Udp, 1500);
        let mut s = Search::new(config);
        let (mut now, mut n, mut room) = (Monotonic::ZERO, 0, [0; 1500]);
        let outcome = loop {
            match s.step(now) {
                Step::Send(m) => {
                    n += 1;
                    let len = m.write(&mut room).unwrap();
                    if refused.contains(&n) {
                        s.handle_unsent(m.number, false);
                    } else if m.size <= carries {
                        let port = Report::Unreachable(Refusal::Port);
                        s.handle_report(now, config.target, port, &room[..len])
                            .unwrap();
                    }
                }
                Step::Wait(until) => now = until,
                Step::End(outcome) => break outcome,
            }
        };
        assert_eq!(outcome, expected, "{refused:?} of {n}");
    }
}

/// Which direction it is, where both sizes are known.
#[test]
fn two_sizes_are_enough_for_the_direction() {
    let narrow = SearchConfig {
        smallest: Some(1400),
        ..config("203.0.113.9", Transport::Udp, 1401)
    };
    let (up, down) = (Line { up: 1400, ..WELL }, Line { down: 1400, ..WELL });
    let silent = Outcome::Silent {
        passes: 1400,
        vanishes: 1401,
    };
    let (found, sent, took_ns) = search(narrow, up, 1);
    assert_eq!((found, sent), (silent, 1 + 3 + 20));
    assert!(took_ns < 30 * S, "{took_ns}");
    let (found, sent, _) = search(narrow, down, 1);
    assert_eq!((found, sent), (Outcome::Whole { passes: 1401 }, 2));
}

/// Lines whose only fault is loss: none of them makes sizes vanish. And with loss the size is right.
#[test]
fn loss_is_no_black_hole_and_hides_none() {
    let (mut unclear, mut searches) = (0, 0);
    for seed in 0..4000u64 {
        for loss in [20, 100, 300] {
            let lossy = Line {
                loss,
                outages_s: seed.is_multiple_of(3).then_some(20),
                ..WELL
            };
            let config = config("203.0.113.9", echo(Version::V4), 1500);
            let (found, _, took_ns) = search(config, lossy, seed);
            assert!(
                !matches!(found, Outcome::Silent { .. } | Outcome::Told { .. }),
                "seed {seed}, loss {loss}: {found:?}"
            );
            assert!(took_ns < 120 * S, "seed {seed}: {took_ns} ns");
            let narrow = Line { up: 1452, ..lossy };
            let (found, ..) = search(config, narrow, seed);
            searches += u32::from(loss <= 100);
            match found {
                Outcome::Silent { passes, .. } => {
                    assert_eq!(passes, 1452, "seed {seed}, loss {loss}");
                }
                Outcome::Unclear { passes } => {
                    assert!(passes <= 1452, "seed {seed}");
                    unclear += u32::from(loss <= 100);
                }
                Outcome::NoAnswer => {}
                other => panic!("seed {seed}, loss {loss}: {other:?}"),
            }
        }
    }
    assert!(unclear * 5 < searches, "{unclear} of {searches} unclear");
}

proptest! {
    #[test]
    fn without_loss_the_size_is_exact(
        mtu in 96u16..=9216,
        largest in 96u16..=9216,
        tells: bool,
        down: bool,
        six: bool,
        udp: bool,
        rtt_ms in 1u64..900,
    ) {
        let line = Line {
            up: if down { MAX_SIZE } else { mtu },
            down: if down { mtu } else { MAX_SIZE },
            tells,
            rtt_ns: rtt_ms * 1_000_000,
            ..WELL
        };
        let (target, version) = if six {
            ("2001:db8::9", Version::V6)
        } else {
            ("203.0.113.9", Version::V4)
        };
        let transport = if udp { Transport::Udp } else { echo(version) };
        let (found, sent, _) = search(config(target, transport, largest), line, 0);
        let passes = if down && udp { largest } else { mtu.min(largest) };
        prop_assert_eq!(found.passes(), Some(passes));
        match found {
            Outcome::Whole { .. } => prop_assert_eq!(passes, largest),
            Outcome::Told { .. } => prop_assert!(tells && !down && passes < largest),
            Outcome::Silent { vanishes, .. } => {
                prop_assert_eq!(vanishes, passes + 1);
                prop_assert!(passes < largest && (!tells || down));
            }
            other => prop_assert!(false, "{:?}", other),
        }
        prop_assert!(sent <= 70, "{} messages", sent);
    }

    #[test]
    fn any_answers_in_any_order_end_it(
        seed: u64,
        loss in 0u64..1000,
        largest: u16,
        noise in proptest::collection::vec((any::<u16>(), any::<bool>(), any::<u32>()), 0..200),
    ) {
        let config = config("203.0.113.9", Transport::Udp, largest);
        let mut s = Search::new(config);
        let (mut now, mut seed, mut room) = (Monotonic::ZERO, seed, vec![0; usize::from(MAX_SIZE)]);
        let mut noise = noise.into_iter();
        for _ in 0..1000 {
            match s.step(now) {
                Step::Send(m) => {
                    let len = m.write(&mut room).unwrap();
                    if next(&mut seed) % 1000 >= loss {
                        let port = Report::Unreachable(Refusal::Port);
                        let _ = s.handle_report(now, config.target, port, &room[..len]);
                    }
                    if let Some((number, is_too_big, mtu)) = noise.next() {
                        s.handle_unsent(number % 130, is_too_big);
                        let _ = s.handle_too_big(config.target, mtu, &room[..len.min(8)]);
                    }
                }
                Step::Wait(until) => {
                    prop_assert!(until > now);
                    now = until;
                }
                Step::End(_) => {
                    prop_assert!(now.as_nanos() <= LONGEST_SEARCH_NS);
                    return Ok(());
                }
            }
        }
        prop_assert!(false, "it does not end");
    }
}
