//! What knocks and keys must never do, and when keys are renewed.

use super::*;
use crate::session::sealed::{knock_header, open_knock, seal_knock};
use crate::wire::header::{Kind, Prefix};
use crate::wire::knock::{Challenge, Join, KNOCK_LEN};
use zerocopy::IntoBytes;

#[test]
fn a_captured_first_knock_earns_nothing_while_it_is_among_the_latest_and_locks_nobody_out() {
    let mut b = Bench::new(entries(&[(1000, 4)]), 4, 8, 100);
    let mut client = b.client(0, 1);
    let [hello, _] = b.connect(&mut client, 1).unwrap();
    // As fast as anybody likes, from anywhere.
    for n in 0..10_000 {
        assert_eq!(b.ask(n, &hello), Err(DropReason::Replay));
    }
    let mut again = b.client(0, 1);
    b.connect(&mut again, 2).unwrap();
    assert_eq!(again.poll_event(), Some(SessionEvent::Established));
    // Long forgotten, it earns a challenge for its own sender, and that is all.
    for _ in 0..1030 {
        b.wait(1000);
        let mut other = b.client(0, 1);
        let knock = b.next(&mut other);
        b.ask(3, &knock).unwrap();
    }
    let answer = b.ask(4, &hello).unwrap();
    assert!(answer.len() < hello.len());
    assert_eq!(b.ask(4, &hello), Err(DropReason::Replay));
}

#[test]
fn challenges_have_a_budget_for_each_key_and_source() {
    let mut b = Bench::new(entries(&[(1000, 4), (1000, 4)]), 4, 8, 100);
    let mut count = 0;
    for n in 0..100 {
        let mut client = b.client(0, 1);
        let hello = b.next(&mut client);
        match b.ask(n, &hello) {
            Ok(_) => count += 1,
            Err(reason) => assert_eq!(reason, DropReason::RateLimit),
        }
    }
    assert_eq!(count, 60);
    let refused = |b: &Bench| b.reflector.keys()[0].drops().get(DropReason::RateLimit);
    assert_eq!(refused(&b), 40);
    let mut other = b.client(1, 1);
    b.connect(&mut other, 1).unwrap();
    b.from.set_ip([198, 51, 100, 1].into());
    let mut elsewhere = b.client(0, 1);
    b.connect(&mut elsewhere, 1).unwrap();
    b.from.set_ip([192, 0, 2, 7].into());
    // One more every 50 ms.
    b.wait(49);
    let mut client = b.client(0, 1);
    assert_eq!(b.connect(&mut client, 1), Err(DropReason::RateLimit));
    b.wait(1);
    let mut client = b.client(0, 1);
    b.connect(&mut client, 1).unwrap();
    assert_eq!(refused(&b), 41);
}

#[test]
fn a_first_knock_is_remembered_until_a_thousand_and_twenty_four_others_were_answered() {
    let mut b = Bench::new(entries(&[(1000, 4)]), 4, 8, 100);
    let mut client = b.client(0, 1);
    let hello = b.next(&mut client);
    b.ask(1, &hello).unwrap();
    for _ in 0..1023 {
        b.wait(1000);
        let mut other = b.client(0, 1);
        let knock = b.next(&mut other);
        b.ask(3, &knock).unwrap();
    }
    assert_eq!(b.ask(1, &hello), Err(DropReason::Replay));
    assert_eq!(b.reflector.keys()[0].drops().get(DropReason::Replay), 1);
    let mut other = b.client(0, 1);
    let knock = b.next(&mut other);
    b.ask(3, &knock).unwrap();
    assert!(b.ask(1, &hello).unwrap().len() < hello.len());
}

#[test]
fn more_captured_first_knocks_than_are_remembered_lock_nobody_out() {
    let mut b = Bench::new(entries(&[(1000, 4)]), 4, 8, 100);
    let captured: Vec<Vec<u8>> = (0..1500)
        .map(|_| {
            let mut client = b.client(0, 1);
            b.next(&mut client)
        })
        .collect();
    // Five hundred a second: from one source, then from any that there are.
    for sources in [1, 250] {
        let (mut answered, mut connected) = (0, 0);
        for (n, hello) in (0..).zip(captured.iter().chain(&captured)) {
            b.wait(2);
            b.from.set_ip([203, 0, 113, (n % sources) as u8].into());
            answered += u32::from(b.ask(n, hello).is_ok());
            if n % 100 == 0 {
                b.from.set_ip([192, 0, 2, 7].into());
                let mut client = b.client(0, 1);
                b.connect(&mut client, 1).unwrap();
                connected += 1;
            }
        }
        assert_eq!(connected, 30);
        if sources == 1 {
            // Six seconds.
            assert!((160..=180).contains(&answered), "{answered}");
        }
    }
}

#[test]
fn networks_of_ipv6_are_one_source_each() {
    let mut b = Bench::new(entries(&[(1000, 4)]), 4, 8, 100);
    let mut answered = 0;
    for n in 0..200u16 {
        let mut client = b.client(0, 1);
        let mut hello = b.next(&mut client);
        let meta = RecvMeta {
            from: ([0x2001, 0xdb8, 1, 2, n, n, n, n], 7).into(),
            ..b.meta(7)
        };
        let mut out = [0; 1500];
        let now = b.now;
        let answer = b
            .reflector
            .handle_request(now, &meta, &mut hello, &mut out, &mut b.rng);
        answered += u32::from(answer.is_ok());
    }
    assert_eq!(answered, 60);
}

#[test]
fn a_challenge_is_good_for_fifteen_seconds() {
    let mut b = Bench::new(entries(&[(1000, 4)]), 4, 8, 100);
    let second_knock = |b: &mut Bench| {
        let mut client = b.client(0, 1);
        let hello = b.next(&mut client);
        let mut challenge = b.ask(1, &hello).unwrap();
        let (meta, now) = (b.meta(9876), b.now);
        client.handle_reply(now, &meta, &mut challenge).unwrap();
        b.next(&mut client)
    };
    let join = second_knock(&mut b);
    b.wait(15_000);
    assert!(b.ask(1, &join).is_ok());
    let join = second_knock(&mut b);
    b.now = b.now.saturating_add(15_000 * MS + 1);
    assert_eq!(b.ask(1, &join), Err(DropReason::Challenge));
    assert_eq!(b.reflector.keys()[0].drops().get(DropReason::Challenge), 1);
    assert_eq!(b.reflector.sessions(b.now).count(), 1);
}

#[test]
fn a_challenge_is_good_for_who_and_where_asked_for_it_and_nobody_else() {
    let mut b = Bench::new(entries(&[(1000, 4), (1000, 4)]), 4, 8, 100);
    let mut client = b.client(0, 1);
    let hello = b.next(&mut client);
    let mut challenge = b.ask(1, &hello).unwrap();
    let header = knock_header(&challenge).unwrap();
    let knock = key(0).knock_key();
    let challenge: Challenge = open_knock(&header, &knock, &mut challenge).unwrap();
    let join = |b: &mut Bench, n: u16, port: u16, change: fn(&mut Join)| {
        let mut body = Join {
            client_random: challenge.client_random,
            cookie: challenge.cookie,
            instance: 1.into(),
            padding: [0; 16],
        };
        change(&mut body);
        let (key, mut out) = (key(n), [0; KNOCK_LEN]);
        let knock = key.knock_key();
        let body = body.as_bytes();
        seal_knock(Kind::Join, &key, &knock, body, &mut out, &mut b.rng).unwrap();
        b.ask(port, &out).map(drop)
    };
    b.wait(1);
    let refused = Err(DropReason::Challenge);
    assert_eq!(join(&mut b, 1, 1, |_| {}), refused, "another key");
    assert_eq!(join(&mut b, 0, 2, |_| {}), refused, "another port");
    let other_random = |j: &mut Join| j.client_random[31] ^= 1;
    assert_eq!(join(&mut b, 0, 1, other_random), refused);
    // Who makes it younger or older than it is has no longer for it.
    let other_time = |j: &mut Join| j.cookie.issued_ns += 1;
    assert_eq!(join(&mut b, 0, 1, other_time), refused);
    let own = b.from;
    b.from.set_ip([192, 0, 2, 8].into());
    assert_eq!(join(&mut b, 0, 1, |_| {}), refused, "another address");
    b.from = own;
    assert_eq!(b.reflector.sessions(b.now).count(), 0);
    assert_eq!(join(&mut b, 0, 1, |_| {}), Ok(()));
}

#[test]
fn keys_are_renewed_after_a_day_and_the_old_ones_hold_for_ten_seconds_more() {
    const DAY_MS: u64 = 24 * 3_600_000;
    let mut b = Bench::new(entries(&[(1000, 4)]), 4, 8, 100);
    let mut client = b.client(0, 1);
    b.connect(&mut client, 1).unwrap();
    let kind = |datagram: &[u8]| Prefix::kind_of(datagram).unwrap();
    let hear = |b: &Bench, client: &mut TestClient, mut answer: Vec<u8>| {
        client.handle_reply(b.now, &b.meta(9876), &mut answer)
    };
    // Heard just before, so that it is not silence that makes it knock.
    b.wait(DAY_MS - 20);
    let probe = b.next(&mut client);
    let echo = b.ask(1, &probe).unwrap();
    hear(&b, &mut client, echo).unwrap();
    b.wait(20);
    client.handle_timeout(b.now);
    let probe = b.next(&mut client);
    assert_eq!(kind(&probe), Kind::Probe);
    let echoes = [0; 2].map(|_| {
        b.wait(1);
        let probe = b.next(&mut client);
        b.ask(1, &probe).unwrap()
    });
    client.handle_timeout(b.now);
    assert!(client.is_answering());
    b.connect(&mut client, 1).unwrap();
    assert_eq!(b.reflector.sessions(b.now).count(), 2);
    // Under the old keys the last echoes are taken up to the end of the overlap.
    let [in_time, too_late] = echoes;
    b.wait(10_000);
    client.handle_timeout(b.now);
    hear(&b, &mut client, in_time).unwrap();
    b.wait(1);
    client.handle_timeout(b.now);
    assert!(hear(&b, &mut client, too_late).is_err());
    let told = core::iter::from_fn(|| client.poll_event());
    assert!(!told.into_iter().any(|e| e == SessionEvent::RemoteRestarted));
}

#[test]
fn keys_are_renewed_after_two_to_the_31_packets() {
    let mut b = Bench::new(entries(&[(1000, 4)]), 4, 8, 100);
    let mut client = b.client(0, 1);
    b.connect(&mut client, 1).unwrap();
    client.has_sent((1 << 31) - 1);
    client.handle_timeout(b.now);
    b.wait(1);
    let last = b.next(&mut client);
    assert_eq!(Prefix::kind_of(&last).unwrap(), Kind::Probe);
    let mut late = b.ask(1, &last).unwrap();
    client.handle_timeout(b.now);
    // It keeps probing with the keys it has until there are new ones, from the first number on.
    b.connect(&mut client, 1).unwrap();
    assert_eq!(b.reflector.sessions(b.now).count(), 2);
    client
        .handle_reply(b.now, &b.meta(9876), &mut late)
        .unwrap();
    b.wait(100);
    let probe = b.next(&mut client);
    assert!(probe[12..20] < last[12..20]);
    b.ask(1, &probe).unwrap();
    client.handle_timeout(b.now);
    b.wait(100);
    let next = b.next(&mut client);
    assert_eq!(Prefix::kind_of(&next).unwrap(), Kind::Probe);
}

#[test]
fn knocks_in_the_wrong_order_and_to_a_reflector_that_was_restarted_earn_nothing() {
    let mut b = Bench::new(entries(&[(1000, 4)]), 4, 8, 100);
    let mut client = b.client(0, 1);
    let [hello, join] = b.connect(&mut client, 1).unwrap();
    b.wait(1);
    let probe = b.next(&mut client);

    let mut restarted = Bench::new(entries(&[(1000, 4)]), 4, 8, 100);
    restarted.rng = ChaCha8Rng::seed_from_u64(78);
    let mut rng = ChaCha8Rng::seed_from_u64(79);
    let (keys, places) = (entries(&[(1000, 4)]), vec![Session::default(); 4]);
    restarted.reflector = Reflector::new(
        keys,
        places,
        vec![StreamRecord::default(); 8],
        100,
        &mut rng,
    );
    restarted.now = b.now;
    // The second before the first, both old; then the probe of the session that is gone.
    assert_eq!(restarted.ask(1, &join), Err(DropReason::Challenge));
    assert!(restarted.ask(1, &hello).unwrap().len() < hello.len());
    assert_eq!(restarted.ask(1, &join), Err(DropReason::Challenge));
    assert_eq!(restarted.ask(1, &hello), Err(DropReason::Replay));
    assert_eq!(restarted.ask(1, &probe), Err(DropReason::UnknownSession));
    assert_eq!(restarted.reflector.sessions(b.now).count(), 0);
    // A clock that was set back by the restart does not make it younger.
    restarted.now = Monotonic::from_nanos(MS);
    assert_eq!(restarted.ask(1, &join), Err(DropReason::Challenge));
}

#[test]
fn a_join_that_comes_again_when_its_session_has_given_way_brings_no_keys_back() {
    let mut b = Bench::new(entries(&[(1000, 1), (1000, 1)]), 4, 8, 100);
    let (mut client, mut other) = (b.client(0, 1), b.client(1, 1));
    b.connect(&mut other, 3).unwrap();
    let [_, join] = b.connect(&mut client, 1).unwrap();
    let up = b.reflector.session_key_of_test();
    b.wait(1);
    let probe = b.next(&mut client);
    let of_other = b.next(&mut other);
    // Another client of the same key takes the only place that it has.
    b.wait(1);
    let mut second = b.client(0, 1);
    b.connect(&mut second, 2).unwrap();
    assert_eq!(b.ask(9, &join), Err(DropReason::Challenge), "elsewhere");
    b.wait(1);
    let mut welcome = b.ask(1, &join).unwrap();
    let again = b.reflector.session_key_of_test();
    assert!(again != up);
    // As often as anybody likes, it is that session, which nobody uses.
    for _ in 0..10 {
        b.wait(1);
        b.ask(1, &join).unwrap();
        assert!(b.reflector.session_key_of_test() == again);
    }
    assert_eq!(b.ask(1, &probe), Err(DropReason::UnknownSession));
    let (meta, now) = (b.meta(9876), b.now);
    let told = client.handle_reply(now, &meta, &mut welcome);
    assert_eq!(told, Err(DropReason::Unmatched));
    assert_eq!(b.reflector.keys()[0].displaced(), 2);
    // Nobody else's session pays for it.
    assert!(b.ask(3, &of_other).is_ok());
    b.wait(15_000);
    assert_eq!(b.ask(1, &join), Err(DropReason::Challenge));
}

#[test]
fn the_welcome_to_a_join_that_comes_again_is_as_good_as_the_one_that_was_lost() {
    let mut b = Bench::new(entries(&[(1000, 4)]), 4, 8, 100);
    let mut others: Vec<TestClient> = (0..2).map(|_| b.client(0, 1)).collect();
    let mut client = b.client(0, 1);
    b.connect(&mut others[0], 2).unwrap();
    let hello = b.next(&mut client);
    let mut challenge = b.ask(1, &hello).unwrap();
    let (meta, now) = (b.meta(9876), b.now);
    client.handle_reply(now, &meta, &mut challenge).unwrap();
    let join = b.next(&mut client);
    b.ask(1, &join).unwrap();
    b.connect(&mut others[1], 3).unwrap();
    b.wait(300);
    let mut welcome = b.ask(1, &join).unwrap();
    let (meta, now) = (b.meta(9876), b.now);
    client.handle_reply(now, &meta, &mut welcome).unwrap();
    assert_eq!(b.reflector.sessions(b.now).count(), 3);
    let probe = b.next(&mut client);
    let mut echo = b.ask(1, &probe).unwrap();
    client.handle_reply(now, &meta, &mut echo).unwrap();
}

#[test]
fn two_clients_with_one_key_are_two_clients() {
    let mut b = Bench::new(entries(&[(1000, 4)]), 4, 8, 100);
    let (mut one, mut two) = (b.client(0, 1), b.client(0, 1));
    b.connect(&mut one, 1).unwrap();
    b.connect(&mut two, 2).unwrap();
    for _ in 0..50 {
        for (client, port) in [(&mut one, 1), (&mut two, 2)] {
            b.wait(1);
            let probe = b.next(client);
            let mut echo = b.ask(port, &probe).unwrap();
            let (meta, now) = (b.meta(9876), b.now);
            assert_eq!(client.handle_reply(now, &meta, &mut echo), Ok(()));
        }
    }
    // Each has streams of its own: neither's losses are the other's.
    assert_eq!(b.reflector.sessions(b.now).count(), 2);
    let packets: Vec<u64> = b.reflector.sessions(b.now).map(|s| s.packets).collect();
    assert_eq!(packets, [50, 50]);
}

#[test]
fn a_key_is_rotated_under_a_running_session() {
    let mut b = Bench::new(entries(&[(1000, 4)]), 4, 8, 100);
    let mut client = b.client(0, 1);
    b.connect(&mut client, 1).unwrap();
    let echo = |b: &mut Bench, client: &mut TestClient| {
        b.wait(1);
        let probe = b.next(client);
        b.ask(1, &probe).map(drop)
    };
    echo(&mut b, &mut client).unwrap();
    // The new one is accepted beside the old one, in another place of the list.
    b.reflector.replace_keys(vec![
        KeyEntry::new(key(7), 0, 1000, 4),
        KeyEntry::new(key(0), 0, 1000, 4),
    ]);
    echo(&mut b, &mut client).unwrap();
    let mut renewed = b.client(7, 1);
    b.connect(&mut renewed, 2).unwrap();
    echo(&mut b, &mut client).unwrap();
    // The old one goes: its sessions end, the new one's go on.
    b.reflector
        .replace_keys(vec![KeyEntry::new(key(7), 0, 1000, 4)]);
    assert_eq!(echo(&mut b, &mut client), Err(DropReason::UnknownSession));
    echo(&mut b, &mut renewed).unwrap();
    let mut old = b.client(0, 1);
    assert_eq!(b.connect(&mut old, 1).unwrap_err(), DropReason::UnknownKey);
    assert_eq!(b.reflector.sessions(b.now).count(), 1);
    // Under the old name, but with another secret, it is another key.
    let impostor = PresharedKey {
        id: key(7).id,
        ..key(0)
    };
    b.reflector
        .replace_keys(vec![KeyEntry::new(impostor, 0, 9, 4)]);
    assert_eq!(echo(&mut b, &mut renewed), Err(DropReason::UnknownSession));
}

#[test]
fn no_nonce_is_used_twice_by_a_client_that_restarts_in_a_loop() {
    let mut b = Bench::new(entries(&[(1000, 4)]), 4, 8, 100);
    let mut knock_nonces = BTreeSet::new();
    let mut sessions = BTreeSet::new();
    for _ in 0..200 {
        b.wait(60);
        let mut client = b.client(0, 1);
        let knocks = b.connect(&mut client, 1).expect("it is never locked out");
        for knock in knocks {
            assert!(knock_nonces.insert(knock[16..40].to_vec()));
        }
        let mut counters = BTreeSet::new();
        for _ in 0..3 {
            b.wait(1);
            let probe = b.next(&mut client);
            assert!(counters.insert(probe[12..20].to_vec()));
            assert!(b.ask(1, &probe).is_ok());
        }
        // Counters begin anew, so the keys must.
        let up = b.reflector.session_key_of_test();
        assert!(sessions.insert(*up.reveal()));
    }
    assert_eq!(b.reflector.sessions(b.now).count(), 4);
}

#[test]
fn nothing_secret_is_printed() {
    let mut b = Bench::new(entries(&[(1000, 4)]), 1, 2, 100);
    let mut client = b.client(0, 1);
    b.connect(&mut client, 1).unwrap();
    let up = b.reflector.session_key_of_test();
    let mut secrets = vec![*key(0).secret.reveal(), *key(0).knock_key().reveal()];
    secrets.push(*up.reveal());
    let printed = std::format!("{:?} {client:?} {:?}", b.reflector, key(0));
    assert!(printed.contains("Secret(..)"));
    for secret in secrets {
        let listed = std::format!("{secret:?}");
        assert!(!printed.contains(listed.trim_matches(['[', ']'])));
        let hex: std::string::String = secret.iter().map(|b| std::format!("{b:02x}")).collect();
        assert!(!printed.contains(&hex));
    }
}
