use std::vec;
use std::vec::Vec;

use super::*;
use proptest::prelude::*;

const MS: u64 = 1_000_000;

fn flight(interleaved: bool) -> Flight<Vec<Slot>, Vec<LossSlot>> {
    let config = FlightConfig {
        series: SeriesIndex(3),
        timeout_ns: 100 * MS,
        interval_ns: 10 * MS,
        interleaved,
    };
    Flight::new(
        config,
        vec![Slot::default(); 64],
        vec![LossSlot::default(); 256],
    )
}

fn at(ms: u64) -> Monotonic {
    Monotonic::from_nanos(ms * MS)
}

fn reply(ms: u64) -> ReplyFacts {
    ReplyFacts {
        rx: Stamp::kernel(at(ms)),
        ttl_down: Some(60),
        remote: None,
    }
}

fn drain(f: &mut Flight<Vec<Slot>, Vec<LossSlot>>) -> Vec<Observation> {
    core::iter::from_fn(|| f.poll_observation()).collect()
}

fn sent(f: &mut Flight<Vec<Slot>, Vec<LossSlot>>, ms: u64) -> u64 {
    let seq = f.on_send(at(ms), at(ms), 64).unwrap();
    f.on_sent(seq, SendOutcome::Stamped(Stamp::kernel(at(ms))));
    seq
}

fn word(first: u64, bits: u64, as_of: u64, settle_ns: u64) -> ReceivedWord {
    ReceivedWord {
        first,
        bits,
        as_of,
        settle_ns,
        believe_from: 0,
    }
}

#[test]
fn an_answer_becomes_one_sample_with_its_stamps() {
    let mut f = flight(false);
    let seq = sent(&mut f, 1000);
    f.on_reply(seq, &reply(1023)).unwrap();
    let [Observation::New(s)] = drain(&mut f)[..] else {
        panic!()
    };
    assert_eq!(
        (s.status, s.rtt_ns, s.ttl_down),
        (Status::Ok, Some(23 * MS), Some(60))
    );
    assert_eq!(
        (s.tx_clock, s.rx_clock),
        (ClockSource::Kernel, ClockSource::Kernel)
    );
    assert_eq!(f.poll_timeout(), None);
}

#[test]
fn a_reply_may_overtake_the_transmit_stamp() {
    let mut f = flight(false);
    let seq = f.on_send(at(1000), at(1000), 64).unwrap();
    f.on_reply(seq, &reply(1023)).unwrap();
    assert_eq!(drain(&mut f), []);
    f.on_sent(seq, SendOutcome::Stamped(Stamp::kernel(at(1001))));
    let [Observation::New(s)] = drain(&mut f)[..] else {
        panic!()
    };
    assert_eq!(s.rtt_ns, Some(22 * MS));
}

#[test]
fn duplicates_late_answers_and_reordering_are_told_apart() {
    let mut f = flight(false);
    let (a, b, c) = (sent(&mut f, 0), sent(&mut f, 10), sent(&mut f, 20));
    f.on_reply(b, &reply(30)).unwrap();
    f.on_reply(a, &reply(31)).unwrap();
    f.on_reply(b, &reply(33)).unwrap();
    let seen = drain(&mut f);
    assert_eq!(seen.len(), 3);
    let Observation::New(first) = seen[0] else {
        panic!()
    };
    assert!(first.seq == a && first.flags.contains(Flags::REORDERED));
    let Observation::New(copy) = seen[2] else {
        panic!()
    };
    assert_eq!(
        (copy.seq, copy.status, copy.rtt_ns),
        (b, Status::Duplicate, Some(23 * MS))
    );
    assert_eq!(f.poll_timeout(), Some(at(120)));
    f.handle_timeout(at(120));
    let [Observation::New(lost)] = drain(&mut f)[..] else {
        panic!()
    };
    assert_eq!((lost.seq, lost.status), (c, Status::Lost));
    f.on_reply(c, &reply(500)).unwrap();
    let [Observation::Revised(late)] = drain(&mut f)[..] else {
        panic!()
    };
    assert_eq!((late.status, late.rtt_ns), (Status::Late, Some(480 * MS)));
}

#[test]
fn what_was_not_sent_is_not_lost() {
    let mut f = flight(false);
    let seq = f.on_send(at(0), at(0), 64).unwrap();
    f.on_sent(seq, SendOutcome::Failed(101));
    let [Observation::New(s)] = drain(&mut f)[..] else {
        panic!()
    };
    assert_eq!(
        (s.status, s.errno, s.tx_clock),
        (Status::Unsent, 101, ClockSource::None)
    );
    assert_eq!(f.on_reply(seq, &reply(5)), Err(DropReason::Unmatched));
    assert_eq!(f.on_reply(77, &reply(5)), Err(DropReason::Unmatched));
}

#[test]
fn the_residence_time_leaves_the_round_trip() {
    let mut f = flight(true);
    let seq = sent(&mut f, 0);
    let remote = RemoteFacts {
        rx_ns: 7_000 * MS,
        rx_clock: ClockSource::Kernel,
        tx_user_ns: 7_001 * MS,
        ttl_up: Some(55),
        tos_seen: Some(0),
    };
    let mut facts = reply(30);
    facts.remote = Some(remote);
    f.on_reply(seq, &facts).unwrap();
    assert_eq!(
        drain(&mut f),
        [],
        "the kernel's transmit time may still come"
    );
    f.on_residence(seq, 7_004 * MS, ClockSource::Kernel);
    let [Observation::New(s)] = drain(&mut f)[..] else {
        panic!()
    };
    assert_eq!(s.rtt_ns, Some(26 * MS));
    assert_eq!(
        (s.raw_up_ns, s.raw_down_ns),
        (Some(7_000_000_000), Some(-6_974_000_000))
    );
    assert_eq!(s.remote_tx_clock, ClockSource::Kernel);
}

#[test]
fn without_a_residence_time_two_later_replies_complete_a_sample() {
    let mut f = flight(true);
    let seqs: Vec<u64> = (0..3).map(|i| sent(&mut f, i * 10)).collect();
    let remote = RemoteFacts {
        rx_ns: 10,
        rx_clock: ClockSource::User,
        tx_user_ns: 20,
        ttl_up: None,
        tos_seen: None,
    };
    for (i, &seq) in seqs.iter().enumerate() {
        let mut facts = reply(30 + i as u64 * 10);
        facts.remote = Some(remote);
        f.on_reply(seq, &facts).unwrap();
    }
    let [Observation::New(s)] = drain(&mut f)[..] else {
        panic!()
    };
    assert_eq!((s.seq, s.remote_tx_clock), (seqs[0], ClockSource::User));
    f.handle_timeout(at(1000));
    assert_eq!(drain(&mut f).len(), 2);
}

#[test]
fn a_record_gives_losses_their_direction_before_and_after_the_time_out() {
    let mut f = flight(true);
    for i in 0..4 {
        sent(&mut f, i * 10);
    }
    f.handle_timeout(at(110));
    assert_eq!(drain(&mut f).len(), 2, "0 and 1 are reported as lost");
    let later = sent(&mut f, 125);
    f.on_received_word(&word(0, 0b1010, later, 20 * MS));
    let revised: Vec<_> = drain(&mut f)
        .into_iter()
        .map(|o| match o {
            Observation::Revised(s) => (s.seq, s.status, s.flags.contains(Flags::DIRECTION_LATER)),
            Observation::New(_) => panic!(),
        })
        .collect();
    assert_eq!(
        revised,
        [(0, Status::LostUp, true), (1, Status::LostDown, true)]
    );
    f.handle_timeout(at(200));
    let ends: Vec<_> = drain(&mut f)
        .into_iter()
        .map(|o| match o {
            Observation::New(s) => (s.seq, s.status, s.flags.contains(Flags::DIRECTION_LATER)),
            Observation::Revised(_) => panic!(),
        })
        .collect();
    assert_eq!(
        ends,
        [(2, Status::LostUp, false), (3, Status::LostDown, false)]
    );
}

#[test]
fn what_our_own_socket_may_have_dropped_was_not_lost_on_the_way_down() {
    let mut f = flight(false);
    // One that was answered, one lost up, one whose reply we may have dropped; then one more.
    let answered = sent(&mut f, 0);
    f.on_reply(answered, &reply(5)).unwrap();
    let (up, own) = (sent(&mut f, 10), sent(&mut f, 20));
    f.on_own_drops();
    let down = sent(&mut f, 30);
    f.handle_timeout(at(500));
    let later = sent(&mut f, 600);
    f.on_received_word(&word(0, 0b1101, later, 20 * MS));
    f.handle_timeout(at(1000));
    let mut last = std::collections::BTreeMap::new();
    for o in drain(&mut f) {
        let (Observation::New(s) | Observation::Revised(s)) = o;
        last.insert(s.seq, (s.status, s.flags.contains(Flags::OWN_DROPS)));
    }
    assert_eq!(last[&answered], (Status::Ok, false));
    assert_eq!(last[&up], (Status::LostUp, true));
    assert_eq!(last[&own], (Status::Lost, true));
    assert_eq!(last[&down], (Status::LostDown, false));
}

#[test]
fn what_is_answered_is_told_when_its_driver_ends() {
    let mut f = flight(true);
    let answered = sent(&mut f, 0);
    let stampless = f.on_send(at(10), at(10), 64).unwrap();
    let waiting = sent(&mut f, 20);
    f.on_reply(answered, &reply(30)).unwrap();
    f.on_reply(stampless, &reply(31)).unwrap();
    assert_eq!(drain(&mut f), [], "residence and stamp may still come");
    f.end_answered();
    let ends: Vec<_> = drain(&mut f)
        .into_iter()
        .map(|o| match o {
            Observation::New(s) => (s.seq, s.status, s.rtt_ns),
            Observation::Revised(_) => panic!(),
        })
        .collect();
    assert_eq!(
        ends,
        [
            (answered, Status::Ok, Some(30 * MS)),
            (stampless, Status::Ok, Some(21 * MS))
        ]
    );
    f.on_reply(waiting, &reply(40)).unwrap();
    f.end_answered();
    assert_eq!(drain(&mut f).len(), 1);
}

#[test]
fn what_nobody_polls_for_is_counted_once() {
    let mut f = flight(false);
    let seq = sent(&mut f, 0);
    for ms in 0..100 {
        f.on_reply(seq, &reply(10 + ms)).unwrap();
    }
    // One is the answer, and of 99 copies 72 have room.
    assert_eq!(drain(&mut f).len(), 73);
    assert_eq!((f.take_overflowed(), f.take_overflowed()), (27, 0));
}

#[test]
fn a_restart_of_the_far_end_leaves_losses_without_a_direction() {
    let mut f = flight(true);
    sent(&mut f, 0);
    f.handle_timeout(at(100));
    drain(&mut f);
    f.on_remote_restart();
    let later = sent(&mut f, 150);
    f.on_received_word(&word(0, 0, later, 0));
    assert_eq!(drain(&mut f), []);
}

proptest! {
    /// Whatever happens, each request that was sent ends in exactly one sample, and revisions only
    /// follow a loss.
    #[test]
    fn every_request_ends_once(ops in proptest::collection::vec((0u8..6, 0u64..80, any::<u64>()), 1..400)) {
        let mut f = flight(true);
        let mut now = 0;
        let mut ends: Vec<Vec<Status>> = Vec::new();
        let mut note = |f: &mut Flight<Vec<Slot>, Vec<LossSlot>>| {
            let count = f.next_seq();
            ends.resize(count as usize, Vec::new());
            while let Some(o) = f.poll_observation() {
                match o {
                    Observation::New(s) if s.status == Status::Duplicate => {
                        assert!(!ends[s.seq as usize].is_empty() || s.seq < count);
                    }
                    Observation::New(s) => {
                        assert!(ends[s.seq as usize].is_empty());
                        assert_eq!(s.rtt_ns.is_some(), s.status.is_answered());
                        ends[s.seq as usize].push(s.status);
                    }
                    Observation::Revised(s) => {
                        let last = ends[s.seq as usize].last().copied();
                        assert!(last.is_some_and(Status::is_lost), "revised {last:?}");
                        ends[s.seq as usize].push(s.status);
                    }
                }
            }
        };
        for (op, back, bits) in ops {
            now += 3;
            let target = f.next_seq().saturating_sub(1).saturating_sub(back);
            match op {
                0 | 1 => {
                    f.handle_timeout(at(now));
                    note(&mut f);
                    f.on_send(at(now), at(now), 64);
                }
                2 => f.on_sent(target, match bits % 3 {
                    0 => SendOutcome::NoStamp,
                    1 => SendOutcome::Stamped(Stamp::kernel(at(now))),
                    _ => SendOutcome::Failed(11),
                }),
                3 => { let _ = f.on_reply(target, &reply(now)); }
                4 => f.on_residence(target, bits, ClockSource::Kernel),
                _ => f.on_received_word(&word(target, bits, f.next_seq().saturating_sub(1), 50 * MS)),
            }
            note(&mut f);
        }
        now += 1000;
        f.handle_timeout(at(now));
        note(&mut f);
        prop_assert!(ends.iter().all(|e| !e.is_empty()));
        prop_assert_eq!(f.poll_timeout(), None);
    }
}
