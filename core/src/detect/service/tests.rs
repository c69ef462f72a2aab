use std::vec::Vec;

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::*;

const MS: u64 = 1_000_000;
const SERVFAIL: End = End::Failed(Failure::dns(2));
const WELL: End = End::Answered(20 * MS);

fn at(s: u64) -> Monotonic {
    Monotonic::from_nanos(s * S)
}

fn watch(services: usize, asks: Asks) -> Services<Vec<ServiceState>> {
    let states = (0..services).map(|_| ServiceState::default()).collect();
    let mut watch = Services::new(Monotonic::ZERO, Limits::default(), states);
    for n in 0..services {
        let facts = ServiceFacts {
            line: 3,
            target: n as u16,
            host: n as u16,
            asks,
            over_tcp: false,
            interval_ns: 10 * S,
            timeout_ns: 6 * S,
        };
        assert_eq!(watch.add(facts), Some(n as u8));
    }
    watch
}

/// Answers of service 0, ten seconds apart, from `from_s` on; what is told until all of them count.
fn feed(watch: &mut Services<Vec<ServiceState>>, from_s: u64, ends: &[End]) -> Vec<News> {
    let mut told = Vec::new();
    for (n, end) in ends.iter().enumerate() {
        let sent = at(from_s + 10 * n as u64);
        watch.handle_answer(0, Answer { sent, end: *end });
        told.extend(until(watch, sent));
    }
    told
}

fn until(watch: &mut Services<Vec<ServiceState>>, now: Monotonic) -> Vec<News> {
    assert!(!watch.handle_timeout(now));
    core::iter::from_fn(|| watch.poll_news()).collect()
}

fn line(from_s: u64, to_s: Option<u64>) -> LineTrouble {
    LineTrouble {
        line: 3,
        why: Why::Event(1),
        from: at(from_s),
        to: to_s.map(at),
        explains: Explains::All,
    }
}

#[test]
fn five_failures_are_not_enough_and_six_are_from_the_first_to_the_last() {
    let mut w = watch(1, Asks::Dns);
    assert_eq!(feed(&mut w, 1000, &[WELL; 10]), []);
    assert_eq!(feed(&mut w, 1100, &[SERVFAIL; 5]), []);
    assert_eq!(feed(&mut w, 1150, &[WELL; 60]), []);
    assert_eq!(feed(&mut w, 1750, &[SERVFAIL; 6]), []);
    let begun = feed(&mut w, 1810, &[WELL; 2]);
    // An answer counts twenty seconds later.
    let [begun] = begun[..] else {
        panic!("{begun:?}")
    };
    assert_eq!(
        (begun.phase, begun.since, begun.end),
        (Phase::Begin, at(1750), None)
    );
    assert_eq!((begun.evidence.asked, begun.evidence.bad), (6, 6));
    assert_eq!(begun.severity, Severity::Critical);
    let over = feed(&mut w, 1830, &[WELL; 9]);
    let [over] = over[..] else { panic!("{over:?}") };
    assert_eq!((over.phase, over.since), (Phase::End, at(1750)));
    assert_eq!((over.end, over.explained), (Some(at(1800)), false));
}

#[test]
fn what_comes_back_within_the_hold_down_is_the_same_and_later_another() {
    let mut w = watch(1, Asks::Dns);
    let (bad, well) = ([SERVFAIL; 8], [WELL; 20]);
    let first = [feed(&mut w, 1000, &bad), feed(&mut w, 1080, &well)].concat();
    let again = [feed(&mut w, 1280, &bad), feed(&mut w, 1360, &well)].concat();
    let _ = feed(&mut w, 1560, &[WELL; 40]);
    let later = [feed(&mut w, 1960, &bad), feed(&mut w, 2040, &well)].concat();
    let told = |news: &[News]| news.iter().map(|n| (n.phase, n.since)).collect::<Vec<_>>();
    assert_eq!(
        told(&first),
        [(Phase::Begin, at(1000)), (Phase::End, at(1000))]
    );
    assert_eq!(
        told(&again),
        [(Phase::Update, at(1000)), (Phase::End, at(1000))]
    );
    assert_eq!(again[1].end, Some(at(1350)));
    assert_eq!(
        told(&later),
        [(Phase::Begin, at(1960)), (Phase::End, at(1960))]
    );
}

/// The calm between is no evidence.
#[test]
fn what_has_come_back_is_as_slow_as_it_is_now() {
    let mut w = watch(1, Asks::Dns);
    let (first, again) = (End::Answered(300 * MS), End::Answered(400 * MS));
    let _ = feed(&mut w, 1000, &[first; 8]);
    let over = feed(&mut w, 1080, &[WELL; 26]);
    assert_eq!(over.last().map(|n| n.end), Some(Some(at(1070))));
    let back = feed(&mut w, 1340, &[again; 8]);
    let over = feed(&mut w, 1420, &[WELL; 20]);
    let told = [back, over].concat();
    let medians: Vec<_> = told.iter().map(|n| n.evidence.median_ns).collect();
    assert_eq!(medians, [Some(400 * MS); 2]);
    let edges: Vec<_> = told.iter().map(|n| (n.since, n.end)).collect();
    assert_eq!(edges, [(at(1000), None), (at(1000), Some(at(1410)))]);
}

/// Half of a resolver's answers, or one in ten as ever.
#[test]
fn slow_is_what_half_of_the_answers_are() {
    let mut w = watch(1, Asks::Dns);
    let slow = End::Answered(300 * MS);
    let some: Vec<End> = (0..200)
        .map(|n| if n % 5 == 0 { slow } else { WELL })
        .collect();
    assert_eq!(feed(&mut w, 1000, &some), []);
    let told = feed(&mut w, 3000, &[slow; 12]);
    let [news] = told[..] else { panic!("{told:?}") };
    assert_eq!(
        (news.trouble, news.severity),
        (Trouble::DnsSlow, Severity::Warning)
    );
    assert_eq!(
        (news.since, news.evidence.median_ns),
        (at(3000), Some(300 * MS))
    );
}

#[test]
fn what_the_line_explains_is_not_told_and_is_taken_back_where_it_was() {
    let mut w = watch(1, Asks::Dns);
    w.handle_line(Monotonic::ZERO, line(1000, Some(1090)));
    assert_eq!(feed(&mut w, 1000, &[End::Silent; 10]), []);
    assert_eq!(feed(&mut w, 1100, &[WELL; 10]), []);
    let told = feed(&mut w, 1200, &[End::Silent; 12]);
    assert_eq!(told.len(), 1, "{told:?}");
    // The line is found to have lost packets since then.
    let lossy = LineTrouble {
        why: Why::Event(2),
        ..line(1195, None)
    };
    w.handle_line(Monotonic::ZERO, lossy);
    let back = feed(&mut w, 1320, &[End::Silent; 30]);
    let [back] = back[..] else { panic!("{back:?}") };
    assert_eq!((back.phase, back.explained), (Phase::End, true));
    // Another line's trouble explains nothing.
    let mut w = watch(1, Asks::Dns);
    w.handle_line(
        Monotonic::ZERO,
        LineTrouble {
            line: 4,
            ..line(900, None)
        },
    );
    assert_eq!(feed(&mut w, 1000, &[SERVFAIL; 9]).len(), 1);
}

#[test]
fn our_own_load_explains_until_it_ends_and_delay_no_failure() {
    let mut w = watch(1, Asks::Dns);
    w.handle_line(
        Monotonic::ZERO,
        LineTrouble {
            why: Why::Test,
            ..line(1000, None)
        },
    );
    assert_eq!(feed(&mut w, 1000, &[SERVFAIL; 12]), []);
    w.handle_line_end(3, Why::Test, at(1110));
    assert_eq!(feed(&mut w, 1130, &[SERVFAIL; 9]).len(), 1);
    let mut w = watch(1, Asks::Dns);
    w.handle_line(
        Monotonic::ZERO,
        LineTrouble {
            explains: Explains::Delay,
            ..line(900, None)
        },
    );
    assert_eq!(feed(&mut w, 1000, &[End::Answered(S); 20]), []);
    assert_eq!(feed(&mut w, 1200, &[SERVFAIL; 20]).len(), 1);
}

/// With `train_budget` a slow line has one every few seconds.
#[test]
fn a_resolver_that_fails_or_is_slow_is_told_between_trains() {
    for (end, trouble) in [
        (SERVFAIL, Trouble::DnsFailing),
        (End::Silent, Trouble::DnsFailing),
        (End::Answered(300 * MS), Trouble::DnsSlow),
    ] {
        let mut w = watch(1, Asks::Dns);
        let mut told = Vec::new();
        for s in (1000..1300).step_by(5) {
            let train = LineTrouble {
                why: Why::Train,
                explains: Explains::Delay,
                ..line(s, None)
            };
            w.handle_line(at(s), train);
            w.handle_line_end(3, Why::Train, at(s).saturating_add(60 * MS));
            if s % 10 == 0 {
                let sent = at(s + 2);
                w.handle_answer(0, Answer { sent, end });
            }
            told.extend(until(&mut w, at(s + 4)));
        }
        let [news] = told[..] else { panic!("{told:?}") };
        assert_eq!((news.trouble, news.since), (trouble, at(1002)));
        assert_eq!(news.phase, Phase::Begin);
    }
}

/// Who refuses was reached, whatever the line loses.
#[test]
fn a_lossy_line_explains_silence_and_delay_and_no_refusal() {
    let lossy = LineTrouble {
        explains: Explains::Silence,
        ..line(900, None)
    };
    for (end, is_told) in [
        (SERVFAIL, true),
        (End::Silent, false),
        (End::Answered(S), false),
    ] {
        let mut w = watch(1, Asks::Dns);
        w.handle_line(Monotonic::ZERO, lossy);
        let told = feed(&mut w, 1000, &[end; 20]);
        assert_eq!(told.len(), usize::from(is_told), "{end:?}: {told:?}");
        // Where it is found later, that is taken back which it explains.
        let mut w = watch(1, Asks::Dns);
        assert_eq!(feed(&mut w, 1000, &[end; 12]).len(), 1);
        w.handle_line(at(1120), lossy);
        let told = feed(&mut w, 1120, &[end; 12]);
        let taken_back: Vec<bool> = told.iter().map(|n| n.explained).collect();
        assert_eq!(taken_back, [true][..usize::from(!is_told)], "{end:?}");
    }
}

#[test]
fn two_connections_that_do_not_open_in_five_minutes_are_trouble_and_one_is_not() {
    let mut w = watch(1, Asks::Tcp);
    let refused = End::Failed(Failure::errno(111));
    let mut ends = [WELL; 100];
    ends[10] = refused;
    ends[45] = refused;
    assert_eq!(feed(&mut w, 1000, &ends), []);
    ends[30] = refused;
    let told = feed(&mut w, 2000, &ends);
    let edges: Vec<_> = told.iter().map(|n| (n.since, n.end)).collect();
    assert_eq!(edges, [(at(2100), None), (at(2100), Some(at(2450)))]);
    assert_eq!(told[0].trouble.kind(), super::super::Kind::TcpUnstable);
    assert_eq!(told[0].evidence.failure, Some(Failure::errno(111)));
}

#[test]
fn others_say_whether_it_is_only_this_one() {
    for (other, only) in [(WELL, Some(true)), (SERVFAIL, Some(false))] {
        let mut w = watch(2, Asks::Dns);
        for n in 0..20 {
            let sent = at(1001 + 10 * n);
            w.handle_answer(1, Answer { sent, end: other });
        }
        let told = feed(&mut w, 1000, &[SERVFAIL; 12]);
        let mine = told.iter().find(|n| n.place == 0).expect("it is told");
        assert_eq!(mine.evidence.only, only);
    }
}

/// A resolver that is asked over UDP and over TCP is no other than itself.
#[test]
fn what_the_same_host_answers_is_not_another() {
    let mut w = watch(2, Asks::Dns);
    w.services[1].0.as_mut().expect("it is there").facts.host = 0;
    for n in 0..20 {
        let sent = at(1001 + 10 * n);
        let end = SERVFAIL;
        w.handle_answer(1, Answer { sent, end });
    }
    let told = feed(&mut w, 1000, &[SERVFAIL; 12]);
    assert!(told.iter().all(|n| n.evidence.only.is_none()), "{told:?}");
    assert!(told.iter().all(|n| n.evidence.other_way.is_none()));
    assert_eq!(told.len(), 2);
}

#[test]
fn a_resolver_that_fails_over_udp_alone_is_told_so() {
    let cut = End::Failed(Failure::TRUNCATED);
    for (over_tcp, other_way) in [(WELL, Some(true)), (SERVFAIL, Some(false))] {
        let mut w = watch(2, Asks::Dns);
        let facts = &mut w.services[1].0.as_mut().expect("it is there").facts;
        (facts.host, facts.over_tcp) = (0, true);
        for n in 0..20 {
            let sent = at(1001 + 10 * n);
            let end = over_tcp;
            w.handle_answer(1, Answer { sent, end });
        }
        let told = feed(&mut w, 1000, &[cut; 12]);
        let mine = told.iter().find(|n| n.place == 0).expect("it is told");
        let e = mine.evidence;
        assert_eq!((e.only, e.other_way), (None, other_way));
        assert_eq!((e.failure, e.failures), (Some(Failure::TRUNCATED), e.bad));
    }
}

/// What is told late finds its place; and trouble that no answer shows any more ends.
#[test]
fn answers_may_come_late_or_not_at_all() {
    let mut w = watch(1, Asks::Dns);
    for n in (0..8).rev() {
        let sent = at(1000 + 10 * n);
        w.handle_answer(
            0,
            Answer {
                sent,
                end: SERVFAIL,
            },
        );
    }
    let told = until(&mut w, at(1100));
    assert_eq!(told[0].since, at(1000));
    assert_eq!(until(&mut w, at(1980)), []);
    let over = until(&mut w, at(1990));
    assert_eq!((over[0].phase, over[0].end), (Phase::End, Some(at(1070))));
    // A place is used again without what was there.
    w.remove(0);
    assert_eq!(until(&mut w, at(2000)), []);
}

/// A question each ten seconds, of which so many of 1000 fail at each time: what is told.
fn failing(seed: u64, hours: u64, of_1000: impl Fn(u64) -> u32) -> Vec<News> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut w = watch(1, Asks::Dns);
    let mut told = Vec::new();
    for s in (1000..hours * 3600).step_by(10) {
        let fails = rng.next_u32() % 1000 < of_1000(s);
        told.extend(feed(&mut w, s, &[if fails { SERVFAIL } else { WELL }]));
    }
    told
}

/// One in fifty fails, or one in twelve, in thirty days.
#[test]
fn what_a_resolver_fails_usually_is_not_told() {
    for (seed, of_1000) in [(1, 20), (2, 80)] {
        assert_eq!(failing(seed, 720, |_| of_1000), [], "{of_1000}");
    }
}

#[test]
fn a_resolver_that_fails_one_in_six_is_told_within_an_hour() {
    for seed in 0..40 {
        let told = failing(seed, 6, |s| if s < 14_400 { 15 } else { 167 });
        let first = told.first().unwrap_or_else(|| panic!("{seed}"));
        assert_eq!(
            (first.trouble, first.phase),
            (Trouble::DnsFailing, Phase::Begin)
        );
        let off_s = first.since.signed_since(at(14_400)).unsigned_abs() / S;
        assert!(off_s < 1800, "{seed}: {off_s}");
        // Within the hour there were no more questions.
        assert!(first.evidence.asked <= 360, "{seed}: {first:?}");
    }
}

/// Of every second question: the first of them may be answered well by chance, but what comes later tells.
#[test]
fn the_begin_becomes_better_known() {
    let bad = 7200..8600;
    let mut off_s: Vec<u64> = (0..200)
        .map(|seed| {
            let told = failing(seed, 3, |s| if bad.contains(&s) { 500 } else { 3 });
            let last = told.last().unwrap_or_else(|| panic!("{seed}"));
            last.since.signed_since(at(7200)).unsigned_abs() / S
        })
        .collect();
    off_s.sort_unstable();
    assert!(off_s[190] <= 60 && off_s[199] <= 200, "{off_s:?}");
}

proptest! {
    /// Whatever comes: each trouble begins, is told with edges in their order, and ends once.
    #[test]
    fn troubles_begin_and_end_in_turn(
        ends in proptest::collection::vec(0u8..6, 1..600),
        cuts in proptest::collection::vec((0u64..6000, 1u64..300), 0..5),
    ) {
        let mut w = watch(1, Asks::Dns);
        let mut cuts = cuts;
        let mut open = [false; 2];
        // Runs of one kind are as likely as a mixture.
        let kinds = [WELL, SERVFAIL, End::Silent, End::Answered(S), WELL, SERVFAIL];
        for (n, k) in ends.iter().enumerate() {
            let k = if n / 40 % 2 == 0 { ends[n / 40 * 40] } else { *k };
            let s = 1000 + 10 * n as u64;
            if let Some(i) = cuts.iter().position(|(from, _)| 1000 + from <= s) {
                let (from, long) = cuts.swap_remove(i);
                let why = Why::Event(n as u32);
                let cut = LineTrouble { why, ..line(1000 + from, Some(1000 + from + long)) };
                w.handle_line(at(s), cut);
            }
            for news in feed(&mut w, s, &[kinds[usize::from(k)]]) {
                let is_open = &mut open[news.trouble.slot()];
                match news.phase {
                    Phase::Begin => prop_assert!(!*is_open),
                    Phase::Update => {}
                    Phase::End => prop_assert!(*is_open),
                }
                *is_open = news.phase != Phase::End;
                prop_assert_eq!(news.end.is_some(), news.phase == Phase::End);
                prop_assert!(news.end.is_none_or(|end| end >= news.since));
                prop_assert!(news.evidence.bad <= news.evidence.asked);
            }
        }
    }
}
