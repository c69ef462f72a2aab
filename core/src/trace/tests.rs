use super::*;
use crate::wire::icmp::{Version, checksum};
use proptest::prelude::*;
use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;

const MS: u64 = 1_000_000;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn router(n: u8) -> IpAddr {
    IpAddr::from([10, 0, n, 1])
}

const ECHO: Transport = Transport::Echo {
    version: Version::V4,
    identifier: None,
};

/// How a world answers.
#[derive(Clone, Debug)]
struct World {
    /// Round-trip time of each router, ms; `None` is silent.
    routers: Vec<Option<u64>>,
    /// Round-trip time of the target behind them.
    target: Option<u64>,
    /// Bytes of the message that routers quote.
    quotes: usize,
    /// Every so-many-th message is lost; 0 is none.
    lose: u64,
}

/// From whom what comes: a report that quotes these bytes, or a reply that has them.
type Coming = (IpAddr, Option<Report>, Vec<u8>);

struct Seen {
    trace: Box<Trace>,
    answers: Vec<Answer>,
    sent: BTreeMap<u8, u32>,
    took_ns: u64,
    instants: Vec<u64>,
}

impl World {
    fn config(&self, transport: Transport, rounds: u16) -> TraceConfig {
        TraceConfig {
            target: ip("192.0.2.9"),
            source: Some(ip("192.0.2.77")),
            transport,
            cookie: 0x0102_0304_0506_0708,
            rounds,
            round_ns: 1_000 * MS,
            max_hops: MAX_HOPS,
        }
    }

    fn trace(&self, transport: Transport, rounds: u16) -> Seen {
        let config = self.config(transport, rounds);
        let mut trace = Box::new(Trace::new(config));
        let begin = Monotonic::from_nanos(7);
        let mut now = begin;
        let mut on_the_way: BTreeMap<(u64, u64), Coming> = BTreeMap::new();
        let (mut n, mut answers, mut sent) = (0, Vec::new(), BTreeMap::new());
        let mut instants = Vec::new();
        loop {
            match trace.step(now) {
                Step::Send(out) => {
                    n += 1;
                    assert!(n < 100_000);
                    *sent.entry(out.ttl).or_default() += 1;
                    instants.push(now.as_nanos());
                    if self.lose > 0 && n % self.lose == 0 {
                        continue;
                    }
                    let quoted = &out.message()[..self.quotes.min(out.message().len())];
                    let (from, rtt, report) =
                        match self.routers.get(usize::from(out.ttl) - 1).copied() {
                            Some(rtt) => (router(out.ttl), rtt, Report::Exceeded),
                            None => {
                                let refused = Report::Unreachable(Refusal::Port);
                                (config.target, self.target, refused)
                            }
                        };
                    let Some(rtt) = rtt else { continue };
                    let at = now.as_nanos() + rtt * MS;
                    let (report, bytes) = match transport {
                        Transport::Echo { version, .. } if from == config.target => {
                            (None, reply(version, out.message()))
                        }
                        _ => (Some(report), quoted.to_vec()),
                    };
                    on_the_way.insert((at, n), (from, report, bytes));
                }
                Step::Wait(until) => {
                    assert!(until > now);
                    let next = on_the_way.first_key_value().map(|(k, _)| *k);
                    match next.filter(|(at, _)| *at <= until.as_nanos()) {
                        Some(key) => {
                            let (from, report, bytes) = on_the_way.remove(&key).unwrap();
                            now = Monotonic::from_nanos(key.0);
                            let heard = match report {
                                Some(r) => trace.handle_report(now, from, r, &bytes),
                                None => trace.handle_reply(now, from, &bytes),
                            };
                            answers.extend(heard);
                        }
                        None => now = until,
                    }
                }
                Step::End => {
                    return Seen {
                        trace,
                        answers,
                        sent,
                        took_ns: now.saturating_since(begin),
                        instants,
                    };
                }
            }
        }
    }
}

fn reply(version: Version, request: &[u8]) -> Vec<u8> {
    let mut out = request.to_vec();
    out[0] = version.reply_type();
    out[2..4].fill(0);
    if version == Version::V4 {
        let sum = checksum(&out);
        out[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    out
}

#[test]
fn every_hop_is_found_and_the_silent_one_is_part_of_the_way() {
    let world = World {
        routers: [Some(1), None, Some(9), Some(12)].into(),
        target: Some(20),
        quotes: 8,
        lose: 0,
    };
    for (transport, quotes) in [(ECHO, 8), (Transport::Udp, 0), (Transport::Udp, 12)] {
        let seen = World {
            quotes,
            ..world.clone()
        }
        .trace(transport, 10);
        let hops = seen.trace.hops();
        let figures: Vec<_> = hops.iter().map(|h| (h.sent, h.answered)).collect();
        assert_eq!(figures, [(10, 10), (10, 0), (10, 10), (10, 10), (10, 10)]);
        assert_eq!(hops[2].addresses[..], [router(3)]);
        assert_eq!(hops[4].addresses[..], [ip("192.0.2.9")]);
        assert_eq!(seen.trace.end(), End::Target);
        let rtts = [1, 0, 9, 12, 20];
        for a in &seen.answers {
            assert_eq!(a.rtt_ns, rtts[usize::from(a.hop) - 1] * MS, "{a:?}");
        }
        // Found within a second, and nine rounds of one second each, and the silent one's patience.
        assert!(seen.took_ns < 12_000 * MS, "{}", seen.took_ns);
    }
}

#[test]
fn no_two_messages_of_a_round_leave_together() {
    let world = World {
        routers: [Some(3); 9].into(),
        target: Some(4),
        quotes: 8,
        lose: 0,
    };
    let seen = world.trace(ECHO, 5);
    let gaps = seen.instants.windows(2).skip(10).map(|w| w[1] - w[0]);
    assert_eq!(gaps.min(), Some(100 * MS));
}

#[test]
fn where_nobody_answers_the_search_ends_soon_and_so_does_the_trace() {
    let world = World {
        routers: [None; 40].into(),
        target: None,
        quotes: 8,
        lose: 0,
    };
    let seen = world.trace(ECHO, 10);
    assert_eq!(
        (seen.trace.hops(), seen.trace.end()),
        (&[][..], End::Silence)
    );
    assert_eq!(seen.sent.values().sum::<u32>(), u32::from(SILENT_HOPS));
}

#[test]
fn a_target_that_says_nothing_leaves_the_hops_before_it() {
    let world = World {
        routers: [Some(1), Some(2), Some(3)].into(),
        target: None,
        quotes: 28,
        lose: 0,
    };
    let seen = world.trace(Transport::Udp, 4);
    assert_eq!(
        (seen.trace.hops().len(), seen.trace.end()),
        (3, End::Silence)
    );
    assert!(
        seen.trace
            .hops()
            .iter()
            .all(|h| (h.sent, h.answered) == (4, 4))
    );
}

#[test]
fn a_router_that_refuses_is_the_end_of_the_way() {
    let mut trace = Box::new(Trace::new(TraceConfig {
        max_hops: 9,
        ..world_config()
    }));
    let at = Monotonic::from_nanos;
    let send = |trace: &mut Trace, now| match trace.step(now) {
        Step::Send(out) => out,
        other => panic!("{other:?}"),
    };
    let one = send(&mut trace, at(0));
    let heard = trace.handle_report(at(5), router(1), Report::Exceeded, one.message());
    assert_eq!(heard.unwrap().rtt_ns, 5);
    // What would go on from the first router does not.
    let two = send(&mut trace, at(6));
    let refused = Report::Unreachable(Refusal::Network);
    trace
        .handle_report(at(9), router(1), refused, two.message())
        .unwrap();
    assert_eq!(trace.end(), End::Refused(Refusal::Network));
    assert_eq!(trace.hops().len(), 1);
    assert_eq!(send(&mut trace, at(10)).ttl, 1);
}

/// Where a neighbour does not answer, the kernel tells as if a router had said so.
#[test]
fn what_this_host_says_itself_is_no_routers_word() {
    let mut trace = Box::new(Trace::new(world_config()));
    let Step::Send(one) = trace.step(Monotonic::ZERO) else {
        panic!()
    };
    let now = Monotonic::from_nanos(5);
    let unreachable = Report::Unreachable(Refusal::Host);
    let own = trace.handle_report(now, ip("192.0.2.77"), unreachable, one.message());
    assert_eq!(own, Err(DropReason::Unmatched));
    assert_eq!((trace.hops().len(), trace.end()), (0, End::Silence));
    // It waits on for a router.
    let heard = trace.handle_report(now, router(1), Report::Exceeded, one.message());
    assert_eq!(heard.map(|a| a.hop), Ok(1));
    // This host itself may be the target.
    let mut trace = Box::new(Trace::new(TraceConfig {
        source: Some(ip("192.0.2.9")),
        ..world_config()
    }));
    let Step::Send(one) = trace.step(Monotonic::ZERO) else {
        panic!()
    };
    let port = Report::Unreachable(Refusal::Port);
    trace
        .handle_report(now, ip("192.0.2.9"), port, one.message())
        .unwrap();
    assert_eq!(trace.end(), End::Target);
}

fn world_config() -> TraceConfig {
    World {
        routers: Vec::new(),
        target: None,
        quotes: 0,
        lose: 0,
    }
    .config(ECHO, 3)
}

#[test]
fn an_answer_counts_once_and_in_time_only() {
    let mut trace = Box::new(Trace::new(world_config()));
    let at = Monotonic::from_nanos;
    let Step::Send(one) = trace.step(at(0)) else {
        panic!()
    };
    let report = |trace: &mut Trace, now, message: &[u8]| {
        trace.handle_report(at(now), router(1), Report::Exceeded, message)
    };
    assert!(report(&mut trace, 5, one.message()).is_ok());
    let again = report(&mut trace, 6, one.message());
    assert_eq!(again, Err(DropReason::Unmatched));
    let Step::Send(two) = trace.step(at(10)) else {
        panic!()
    };
    let late = report(&mut trace, 11 + PATIENCE_NS, two.message());
    assert_eq!(late, Err(DropReason::Unmatched));
    let mut other = two.message().to_vec();
    other[9] ^= 1;
    let forged = report(&mut trace, 12, &other);
    assert_eq!(forged, Err(DropReason::Unmatched));
    assert_eq!((trace.hops[1].sent, trace.hops[1].answered), (1, 0));
    trace.handle_unsent(two.number);
    assert_eq!(trace.hops[1].sent, 0);
}

fn worlds() -> impl Strategy<Value = World> {
    let rtt = || proptest::option::weighted(0.8, 1u64..400);
    let routers = proptest::collection::vec(rtt(), 0..28);
    (routers, rtt(), prop_oneof![Just(8usize), Just(20)], 0u64..9).prop_map(
        |(routers, target, quotes, lose)| World {
            routers,
            target,
            quotes,
            lose: if lose < 4 { 0 } else { lose },
        },
    )
}

proptest! {
    #[test]
    fn every_message_is_accounted_for_at_the_hop_it_was_sent_to(world in worlds(), rounds in 1u16..20) {
        let seen = world.trace(ECHO, rounds);
        let mut answered = BTreeMap::<u8, u32>::new();
        for a in &seen.answers {
            *answered.entry(a.hop).or_default() += 1;
            let truth = world.routers.get(usize::from(a.hop) - 1).copied().unwrap_or(world.target);
            prop_assert_eq!(Some(a.rtt_ns), truth.map(|ms| ms * MS));
        }
        for (i, hop) in seen.trace.hops().iter().enumerate() {
            let ttl = i as u8 + 1;
            prop_assert_eq!(Some(&hop.sent), seen.sent.get(&ttl));
            prop_assert_eq!(hop.answered, answered.get(&ttl).copied().unwrap_or(0));
            prop_assert!(hop.sent <= u32::from(rounds) && hop.answered <= hop.sent);
        }
        if world.lose == 0 {
            // The length is the truth, as far as answers reach it.
            let silent = |hops: &[Option<u64>]| hops.iter().take_while(|h| h.is_none()).count();
            let mut reach = world.routers.clone();
            reach.resize(usize::from(MAX_HOPS), world.target);
            let mut known = 0;
            while known < reach.len() && silent(&reach[known..]) < usize::from(SILENT_HOPS) {
                let skip = silent(&reach[known..]);
                if known + skip >= reach.len() {
                    break;
                }
                known += skip + 1;
                if known > world.routers.len() {
                    break;
                }
            }
            prop_assert_eq!(seen.trace.hops().len(), known);
            prop_assert_eq!(seen.trace.end() == End::Target, known > world.routers.len());
        }
    }

    #[test]
    fn whatever_is_heard_a_trace_ends_and_counts(
        heard in proptest::collection::vec((any::<u8>(), any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..200),
        udp: bool,
    ) {
        let transport = if udp { Transport::Udp } else { ECHO };
        let mut trace = Box::new(Trace::new(TraceConfig { transport, ..world_config() }));
        let mut now = Monotonic::ZERO;
        let (mut heard, mut steps) = (heard.into_iter(), 0);
        loop {
            steps += 1;
            prop_assert!(steps < 5000);
            match trace.step(now) {
                Step::End => break,
                Step::Wait(until) => {
                    match heard.next() {
                        Some((from, code, bytes)) => {
                            let report = match code % 3 {
                                0 => Report::Exceeded,
                                1 => Report::Unreachable(Refusal::Port),
                                _ => Report::Unreachable(Refusal::Host),
                            };
                            let _ = trace.handle_report(now, router(from), report, &bytes);
                            let _ = trace.handle_reply(now, router(from), &bytes);
                        }
                        None => now = until,
                    }
                }
                Step::Send(_) => {}
            }
        }
        let hops = trace.hops();
        prop_assert!(hops.len() <= usize::from(MAX_HOPS));
        prop_assert!(hops.iter().all(|h| h.answered <= h.sent));
    }
}
