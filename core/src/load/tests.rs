//! Guests and a host against each other, over a way that loses and delays.

#[path = "tests/turns.rs"]
mod turns;

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use std::vec::Vec;

use super::arrivals::Segments;
use super::datagrams::flows::Figures;
use super::guest::{Guest, GuestState, Wish};
use super::host::{Asker, Host, HostLimits, MAX_TESTS, Room, SILENCE_NS};
use super::{MAX_STREAMS, write_token};
use crate::drop_reason::DropReason;
use crate::stamp::Subnet;
use crate::time::Monotonic;
use crate::wire::load::{EndReason, OP_STOP};

const MS: u64 = 1_000_000;
const LIMITS: HostLimits = HostLimits {
    concurrent: 1,
    streams: 16,
};

pub(crate) type TestHost = Host<Vec<Room>>;

pub(crate) fn host_with(limits: HostLimits) -> TestHost {
    let room = core::iter::repeat_with(Room::default);
    Host::new(limits, room.take(MAX_TESTS).collect())
}

fn wish(up: u8, down: u8) -> Wish {
    let mut congestion = [0; 16];
    congestion[..5].copy_from_slice(b"cubic");
    Wish {
        streams_up: up,
        streams_down: down,
        time_ms: 8000,
        dscp: [0, 8, 40, 46, 0, 8, 40, 46],
        congestion,
        prefix: None,
        offer: None,
    }
}

fn asker(client: u16) -> Asker {
    Asker {
        client,
        bytes_left: None,
        congestion_known: true,
        port: 9876,
        max_rate_bps: None,
        proven: true,
        may_announce: true,
        figures: None,
    }
}

const fn at(ms: u64) -> Monotonic {
    Monotonic::from_nanos(ms * MS)
}

/// Lets the guest ask until it has an answer.
fn ask(guest: &mut Guest, host: &mut TestHost, who: &Asker, now: Monotonic) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    while let Some(order) = guest.poll_order(now) {
        let report = host.handle_order(now, who, &order, &mut rng).unwrap();
        guest.handle_report(now, &report).unwrap();
    }
}

#[test]
fn addresses_for_tcp_are_announced_within_bounds() {
    let announced = |address: &str, prefix| {
        let mut host = host_with(LIMITS);
        let subnet = Subnet {
            address: address.parse().unwrap(),
            prefix,
        };
        let wish = Wish {
            prefix: Some(subnet),
            ..wish(1, 0)
        };
        let mut guest = Guest::new(wish, 1, at(0));
        let order = guest.poll_order(at(0)).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let report = host.handle_order(at(0), &asker(1), &order, &mut rng);
        guest.handle_report(at(0), &report.unwrap()).unwrap();
        if let Ok(Some(read)) = order.announced() {
            assert_eq!(read, subnet);
        }
        guest.state()
    };
    for (address, widest) in [("100.64.0.0", 10), ("2001:db8::", 32)] {
        let granted = announced(address, widest);
        assert_eq!(granted, GuestState::Granted, "{address}");
        let refused = announced(address, widest - 1);
        assert_eq!(refused, GuestState::Refused(EndReason::Prefix), "{address}");
    }
    assert_eq!(announced("192.0.2.7", 32), GuestState::Granted);
    let long = announced("192.0.2.7", 33);
    assert_eq!(long, GuestState::Refused(EndReason::Prefix));
}

#[test]
fn what_a_reflectors_host_dropped_itself_is_known_while_it_says_so() {
    let mut host = host_with(LIMITS);
    let mut guest = Guest::new(wish(0, 1), 1, at(0));
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let most = u64::from(u32::MAX);
    for (n, dropped, heard) in [
        (0, None, None),
        (1, Some(0), Some(0)),
        (2, Some(7), Some(7)),
        (3, None, None),
        (4, Some(most), Some(u32::MAX - 1)),
        (5, Some(u64::MAX), Some(u32::MAX - 1)),
    ] {
        let now = at(1000 * n);
        let order = guest.poll_order(now).unwrap();
        let mut report = host.handle_order(now, &asker(0), &order, &mut rng).unwrap();
        // As older reflectors answer.
        assert_eq!(report.sender_drops(), None);
        report.tell_sender_drops(dropped);
        guest.handle_report(now, &report).unwrap();
        assert_eq!(guest.sender_drops(), heard);
    }
}

#[test]
fn more_than_a_minute_does_not_count() {
    let mut host = host_with(LIMITS);
    let long = Wish {
        time_ms: u32::MAX,
        ..wish(1, 0)
    };
    let mut guest = Guest::new(long, 5, at(0));
    ask(&mut guest, &mut host, &asker(0), at(0));
    let grant = guest.grant().unwrap().clone();
    let token = write_token(grant.handle, &grant.secret, 0);
    host.admit(at(0), &token).unwrap();
    // A minute, and what trickles in; its client asks all the time.
    for ms in (0..63_000).step_by(50) {
        ask(&mut guest, &mut host, &asker(0), at(ms));
        host.handle_timeout(at(ms));
    }
    host.handle_timeout(at(62_999));
    assert_eq!(host.running_tests(), 1);
    host.handle_timeout(at(63_000));
    assert_eq!(host.running_tests(), 0);
}

#[test]
fn tokens_are_good_once_and_for_their_test_only() {
    let mut host = host_with(LIMITS);
    let mut guest = Guest::new(wish(1, 1), 5, at(0));
    ask(&mut guest, &mut host, &asker(3), at(0));
    let grant = guest.grant().unwrap().clone();
    let up = write_token(grant.handle, &grant.secret, 0);
    let admitted = host.admit(at(10), &up).unwrap();
    assert!(admitted.up && admitted.client == 3);
    assert_eq!(host.admit(at(11), &up), Err(DropReason::Replay));
    let down = host
        .admit(at(12), &write_token(grant.handle, &grant.secret, 1))
        .unwrap();
    assert!(!down.up);
    for stream in 2..MAX_STREAMS as u8 {
        let token = write_token(grant.handle, &grant.secret, stream);
        assert_eq!(host.admit(at(13), &token), Err(DropReason::Field));
    }
    let other = write_token(grant.handle + 1, &grant.secret, 0);
    assert_eq!(host.admit(at(14), &other), Err(DropReason::UnknownSession));
    guest.stop(at(20));
    ask(&mut guest, &mut host, &asker(3), at(20));
    assert_eq!(host.poll_ended(), Some((admitted.test, 3, 0)));
    assert_eq!(host.poll_ended(), None);
    assert_eq!(host.admit(at(21), &up), Err(DropReason::UnknownSession));
}

#[test]
fn a_client_that_vanishes_frees_everything() {
    let mut host = host_with(LIMITS);
    let mut guest = Guest::new(wish(1, 0), 5, at(0));
    ask(&mut guest, &mut host, &asker(0), at(0));
    let until = host.poll_timeout().unwrap();
    assert_eq!(until.as_nanos(), SILENCE_NS);
    host.handle_timeout(Monotonic::from_nanos(until.as_nanos() - 1));
    assert_eq!((host.running_tests(), host.poll_ended()), (1, None));
    host.handle_timeout(until);
    assert_eq!(host.running_tests(), 0);
    assert!(host.poll_ended().is_some());
    let mut other = Guest::new(wish(1, 0), 6, until);
    ask(&mut other, &mut host, &asker(1), until);
    assert_eq!(other.state(), GuestState::Granted);
}

#[test]
fn an_order_that_was_overtaken_neither_ends_a_test_nor_keeps_it() {
    let mut host = host_with(LIMITS);
    let mut guest = Guest::new(wish(1, 0), 5, at(0));
    ask(&mut guest, &mut host, &asker(0), at(0));
    let mut overtaken = guest.poll_order(at(300)).unwrap();
    ask(&mut guest, &mut host, &asker(0), at(600));
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let silent_ms = 600 + SILENCE_NS / MS;
    for op in [OP_STOP, overtaken.op] {
        overtaken.op = op;
        let report = host.handle_order(at(silent_ms - 1), &asker(0), &overtaken, &mut rng);
        assert_eq!(report.unwrap().number, overtaken.number);
        assert_eq!(host.running_tests(), 1);
    }
    host.handle_timeout(at(silent_ms));
    assert_eq!(host.running_tests(), 0);
}

#[test]
fn limits_are_kept_and_said() {
    let refused = |limits, wish, who: &Asker| {
        let mut guest = Guest::new(wish, 5, at(0));
        ask(&mut guest, &mut host_with(limits), who, at(0));
        guest.state()
    };
    let off = HostLimits {
        concurrent: 0,
        ..LIMITS
    };
    let cases = [
        (off, wish(1, 0), asker(0), EndReason::Off),
        (LIMITS, wish(0, 0), asker(0), EndReason::Streams),
        (LIMITS, wish(9, 8), asker(0), EndReason::Streams),
        (
            LIMITS,
            wish(1, 0),
            Asker {
                congestion_known: false,
                ..asker(0)
            },
            EndReason::Congestion,
        ),
        (
            LIMITS,
            wish(1, 0),
            Asker {
                bytes_left: Some(0),
                ..asker(0)
            },
            EndReason::DailyBytes,
        ),
    ];
    for (limits, wish, who, reason) in cases {
        assert_eq!(refused(limits, wish, &who), GuestState::Refused(reason));
    }
    // One below each of them.
    let one_byte = Asker {
        bytes_left: Some(1),
        ..asker(0)
    };
    for (wish, who) in [(wish(8, 8), asker(0)), (wish(1, 0), one_byte)] {
        assert_eq!(refused(LIMITS, wish, &who), GuestState::Granted);
    }
}

#[test]
fn a_test_ends_when_its_bytes_or_its_time_are_used_up() {
    let mut host = host_with(LIMITS);
    let mut guest = Guest::new(wish(1, 0), 5, at(0));
    let who = Asker {
        bytes_left: Some(1000),
        ..asker(0)
    };
    ask(&mut guest, &mut host, &who, at(0));
    let grant = guest.grant().unwrap().clone();
    let token = write_token(grant.handle, &grant.secret, 0);
    let test = host.admit(at(0), &token).unwrap().test;
    host.received(test, 0, at(1), 999);
    assert_eq!(host.poll_ended(), None);
    host.received(test, 0, at(2), 1);
    assert_eq!(host.poll_ended(), Some((test, 0, 1000)));
    ask(&mut guest, &mut host, &who, at(300));
    assert_eq!(guest.state(), GuestState::Ended(EndReason::DailyBytes));

    let mut guest = Guest::new(wish(1, 0), 6, at(400));
    let mut ended = None;
    for ms in (400..60_000).step_by(50) {
        ask(&mut guest, &mut host, &asker(0), at(ms));
        if ms == 1000 {
            let grant = guest.grant().unwrap().clone();
            let token = write_token(grant.handle, &grant.secret, 0);
            host.admit(at(ms), &token).unwrap();
        }
        if guest.is_over() {
            ended = Some(ms);
            break;
        }
    }
    assert_eq!(guest.state(), GuestState::Ended(EndReason::Time));
    // Eight seconds after the first stream, and what may trickle in.
    assert!((12_000..12_300).contains(&ended.unwrap()), "{ended:?}");
}

#[test]
fn bins_stay_open_while_a_stream_waits_behind_a_hole() {
    let mut host = host_with(LIMITS);
    let mut guest = Guest::new(wish(1, 0), 5, at(0));
    ask(&mut guest, &mut host, &asker(0), at(0));
    let grant = guest.grant().unwrap().clone();
    let token = write_token(grant.handle, &grant.secret, 0);
    let test = host.admit(at(0), &token).unwrap().test;
    // A segment each 10 ms; from 500 ms on all of them out of order.
    for ms in (10..=1000).step_by(10) {
        if ms < 500 {
            host.received(test, 0, at(ms), 1000);
        }
        if ms % 100 == 90 {
            let all = ms as u32 / 10;
            let out_of_order = all.saturating_sub(49);
            host.segments(
                test,
                0,
                at(ms),
                Segments {
                    all,
                    out_of_order,
                    size: 1000,
                },
            );
        }
        if ms % 250 == 0 {
            ask(&mut guest, &mut host, &asker(0), at(ms));
        }
    }
    assert_eq!((guest.received(), guest.bins().len()), (49_000, 4));
    host.received(test, 0, at(1000), 51_000);
    guest.stop(at(1100));
    ask(&mut guest, &mut host, &asker(0), at(1100));
    assert_eq!(guest.received(), 100_000);
    let rest = &guest.bins()[4..10];
    assert!(rest.iter().all(|b| (7_000..13_000).contains(b)), "{rest:?}");
}

#[test]
fn only_an_answer_from_after_the_load_completes_the_figures() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let granted = |host: &mut TestHost| {
        let mut guest = Guest::new(wish(0, 1), 5, at(0));
        ask(&mut guest, host, &asker(0), at(0));
        guest.load(at(10), true);
        ask(&mut guest, host, &asker(0), at(10));
        guest
    };
    // The last order is never answered.
    let mut host = host_with(LIMITS);
    let mut guest = granted(&mut host);
    guest.load(at(1000), false);
    guest.stop(at(1000));
    while guest.poll_order(at(1000)).is_some() {}
    guest.handle_timeout(at(6000));
    assert!(matches!(guest.state(), GuestState::Ended(_)) && !guest.is_complete());
    // The reflector ends the test while there is load, and says so when that has ended here.
    let mut host = host_with(LIMITS);
    let mut guest = granted(&mut host);
    let order = guest.poll_order(at(260)).unwrap();
    let later = at(260 + 2 * SILENCE_NS / MS);
    let report = host.handle_order(later, &asker(0), &order, &mut rng);
    guest.load(later, false);
    guest.handle_report(later, &report.unwrap()).unwrap();
    assert_eq!(guest.state(), GuestState::Ended(EndReason::Silence));
    assert!(!guest.is_complete());
    // As it should be.
    let mut host = host_with(LIMITS);
    let mut guest = granted(&mut host);
    guest.load(at(1000), false);
    ask(&mut guest, &mut host, &asker(0), at(1000));
    assert!(!guest.is_complete());
    guest.stop(at(2000));
    ask(&mut guest, &mut host, &asker(0), at(2000));
    assert!(guest.is_complete());
}

#[test]
fn figures_are_not_complete_where_the_reflector_stopped_counting_by_itself() {
    let mut host = host_with(LIMITS);
    let mut guest = Guest::new(wish(0, 1), 5, at(0));
    ask(&mut guest, &mut host, &asker(0), at(0));
    guest.stop(at(1000));
    // The client's bytes of the day are used up in the last moments: what came after that is not counted.
    let used_up = Asker {
        figures: Some(Figures {
            used_up: true,
            ..Figures::default()
        }),
        ..asker(0)
    };
    ask(&mut guest, &mut host, &used_up, at(1000));
    assert_eq!(guest.state(), GuestState::Ended(EndReason::DailyBytes));
    assert!(!guest.is_complete());
}

#[test]
fn a_silent_reflector_is_given_up() {
    let mut guest = Guest::new(wish(1, 0), 5, at(0));
    let mut orders = 0;
    for ms in (0..20_000).step_by(10) {
        orders += u32::from(guest.poll_order(at(ms)).is_some());
        guest.handle_timeout(at(ms));
    }
    assert_eq!((guest.state(), orders), (GuestState::Silent, 21));
}

proptest! {
    /// Whatever is lost, reordered or repeated, the guest ends with exactly the host's bins.
    #[test]
    fn every_bin_arrives_once(seed: u64, loss in 0u32..60, seconds in 1u64..20) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut host = host_with(LIMITS);
        let mut guest = Guest::new(Wish { time_ms: 20_000, ..wish(1, 1) }, seed, at(0));
        let who = asker(0);
        let mut way: Vec<(u64, crate::wire::load::Report)> = Vec::new();
        let mut truth: Vec<u32> = Vec::new();
        let mut test = None;
        let mut ms = 0;
        while !guest.is_over() && ms < 60_000 {
            ms += 10;
            if let Some(order) = guest.poll_order(at(ms)) && rng.next_u32() % 100 >= loss {
                let report = host.handle_order(at(ms), &who, &order, &mut rng).unwrap();
                let delay = u64::from(rng.next_u32() % 300);
                way.push((ms + delay, report.clone()));
                if rng.next_u32().is_multiple_of(8) {
                    way.push((ms + delay + 5, report));
                }
            }
            way.retain(|(due, report)| {
                if *due <= ms && rng.next_u32() % 100 >= loss {
                    let _ = guest.handle_report(at(ms), report);
                }
                *due > ms
            });
            guest.handle_timeout(at(ms));
            if test.is_none() && let Some(grant) = guest.grant().cloned() {
                let token = write_token(grant.handle, &grant.secret, 0);
                test = host.admit(at(ms), &token).ok().map(|a| (a.test, ms));
            }
            if let Some((test, begun)) = test {
                if ms < begun + seconds * 1000 {
                    let bytes = rng.next_u32() % 10_000;
                    host.received(test, 0, at(ms), u64::from(bytes));
                    host.in_band(test, at(ms), u64::from(bytes) * 100_000);
                    let bin = ((ms - begun) / 100) as usize;
                    truth.resize(bin + 1, 0);
                    truth[bin] += bytes;
                } else {
                    guest.stop(at(ms));
                }
            }
        }
        let known = guest.bins();
        // With heavy loss the last figures may not have come within the patience for them, and the
        // reflector may have given the client up; what is known is right in any case.
        for (i, bytes) in known.iter().enumerate() {
            let truth_bytes = truth.get(i).copied().unwrap_or(0);
            if i + 1 == known.len() && known.len() < truth.len() {
                // Given up within this bin: what came afterwards was not taken any more.
                prop_assert!(*bytes <= truth_bytes, "bin {}", i);
            } else {
                prop_assert_eq!(*bytes, truth_bytes, "bin {}", i);
            }
        }
        if loss == 0 {
            prop_assert!(known.len() >= truth.len(), "{} of {}", known.len(), truth.len());
            prop_assert_eq!(guest.received(), truth.iter().map(|b| u64::from(*b)).sum::<u64>());
            prop_assert!(guest.in_band().iter().zip(&truth).all(|(i, t)| (*i > 0) == (*t > 0)));
        }
    }
}
