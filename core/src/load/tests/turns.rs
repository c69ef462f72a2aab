//! Who has a test when several want one.

use super::*;
use crate::load::host::BEGIN_NS;
use crate::wire::load::Offer;

const OFFER: Offer = Offer {
    up_bps: 1_000_000,
    down_bps: 0,
    size: 1200,
};

#[test]
fn a_second_client_waits_for_its_turn() {
    let mut host = host_with(LIMITS);
    let (mut a, mut b) = (
        Guest::new(wish(1, 0), 1, at(0)),
        Guest::new(wish(0, 1), 1, at(0)),
    );
    ask(&mut a, &mut host, &asker(0), at(0));
    assert_eq!(a.state(), GuestState::Granted);
    ask(&mut b, &mut host, &asker(1), at(1));
    assert_eq!(b.state(), GuestState::Waiting);
    let mut ms = 1;
    while ms < 4000 {
        ms += 50;
        ask(&mut a, &mut host, &asker(0), at(ms));
        ask(&mut b, &mut host, &asker(1), at(ms));
    }
    assert_eq!(b.state(), GuestState::Waiting);
    a.stop(at(ms));
    ask(&mut a, &mut host, &asker(0), at(ms));
    assert_eq!(a.state(), GuestState::Ended(EndReason::None));
    ask(&mut b, &mut host, &asker(1), at(ms + 1000));
    assert_eq!(b.state(), GuestState::Granted);
}

#[test]
fn whoever_waits_has_a_turn_before_one_that_just_had_its_own() {
    let mut host = host_with(LIMITS);
    let mut greedy = Guest::new(wish(1, 0), 1, at(0));
    ask(&mut greedy, &mut host, &asker(0), at(0));
    let mut waiting = [1, 2].map(|client| (client, Guest::new(wish(1, 0), 1, at(0))));
    for (client, guest) in &mut waiting {
        ask(guest, &mut host, &asker(*client), at(u64::from(*client)));
        assert_eq!(guest.state(), GuestState::Waiting);
    }
    for turn in 0..2 {
        // It is over, and the one that had it asks again at once, and all the time.
        let over_ms = 1000 + 10_000 * turn;
        let mut has_one = if turn == 0 { 0 } else { 1 };
        if turn == 0 {
            greedy.stop(at(over_ms));
            ask(&mut greedy, &mut host, &asker(0), at(over_ms));
            greedy = Guest::new(wish(1, 0), 2, at(over_ms));
        } else {
            let first = &mut waiting[0].1;
            first.stop(at(over_ms));
            ask(first, &mut host, &asker(1), at(over_ms));
        }
        for ms in (over_ms..over_ms + 9_000).step_by(50) {
            ask(&mut greedy, &mut host, &asker(0), at(ms));
            for (client, guest) in &mut waiting {
                if !guest.is_over() {
                    ask(guest, &mut host, &asker(*client), at(ms));
                }
                if guest.state() == GuestState::Granted {
                    has_one = *client;
                }
            }
        }
        assert_eq!(u64::from(has_one), 1 + turn);
        assert_eq!(greedy.state(), GuestState::Waiting);
    }
    // Who does not ask any more has no turn: nobody waits for it for long.
    let (_, last) = &mut waiting[1];
    last.stop(at(20_000));
    ask(last, &mut host, &asker(2), at(20_000));
    let mut gone = Guest::new(wish(1, 0), 3, at(20_000));
    ask(&mut greedy, &mut host, &asker(0), at(21_000));
    assert_eq!(greedy.state(), GuestState::Granted);
    ask(&mut gone, &mut host, &asker(3), at(21_001));
    greedy.stop(at(21_002));
    ask(&mut greedy, &mut host, &asker(0), at(21_002));
    let mut next = Guest::new(wish(1, 0), 4, at(21_003));
    let mut granted_ms = None;
    for ms in (21_003..30_000).step_by(50) {
        ask(&mut next, &mut host, &asker(0), at(ms));
        if next.state() == GuestState::Granted {
            granted_ms = Some(ms);
            break;
        }
    }
    let waited_ms = granted_ms.unwrap() - 21_001;
    assert!((3_000..4_100).contains(&waited_ms), "{waited_ms}");
}

#[test]
fn a_test_whose_load_never_begins_holds_its_place_for_seconds_only() {
    for offer in [None, Some(OFFER)] {
        let mut host = host_with(LIMITS);
        let long = Wish {
            time_ms: 60_000,
            offer,
            ..if offer.is_some() {
                wish(0, 0)
            } else {
                wish(1, 0)
            }
        };
        let mut guest = Guest::new(long, 5, at(0));
        let mut ms = 0;
        while !guest.is_over() && ms < 100_000 {
            ask(&mut guest, &mut host, &asker(0), at(ms));
            ms += 50;
        }
        assert_eq!(guest.state(), GuestState::Ended(EndReason::Time));
        let begin_ms = BEGIN_NS / MS;
        assert!((begin_ms..begin_ms + 300).contains(&ms), "{ms}");
    }
}

#[test]
fn tests_at_a_time_end_at_their_number_and_a_client_has_one() {
    let mut host = super::host_with(HostLimits {
        concurrent: 2,
        ..LIMITS
    });
    let mut state = |client: u16, name: u64, ms: u64| {
        let mut guest = Guest::new(wish(1, 0), name, at(ms));
        ask(&mut guest, &mut host, &asker(client), at(ms));
        guest.state()
    };
    assert_eq!(state(0, 1, 0), GuestState::Granted);
    assert_eq!(state(0, 2, 1), GuestState::Waiting);
    assert_eq!(state(1, 3, 2), GuestState::Granted);
    assert_eq!(state(2, 4, 3), GuestState::Waiting);
    // Asking again for the same one is no second test.
    assert_eq!(state(0, 1, 4), GuestState::Granted);
    let silent_ms = 4 + SILENCE_NS / MS;
    host.handle_timeout(at(silent_ms));
    let mut state = |client: u16, name: u64| {
        let mut guest = Guest::new(wish(1, 0), name, at(silent_ms));
        ask(&mut guest, &mut host, &asker(client), at(silent_ms));
        guest.state()
    };
    assert_eq!(state(0, 2), GuestState::Granted);
    assert_eq!(state(2, 4), GuestState::Granted);
}
