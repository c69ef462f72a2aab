//! What comes again or has another length than it should, and what is kept where keys are read again.

use super::*;
use crate::limits::MAX_DATAGRAM;

#[test]
fn what_answered_an_earlier_knock_answers_no_later_one() {
    let mut b = Bench::new(entries(&[(1000, 4)]), 4, 8, 100);
    let mut client = b.client(0, 1);
    let mut answers: Vec<Vec<u8>> = Vec::new();
    for _ in 0..2 {
        for n in 0..2 {
            let knock = b.next(&mut client);
            let mut answer = b.ask(1, &knock).unwrap();
            let (meta, now) = (b.meta(9876), b.now);
            if let Some(mut earlier) = answers.get(n).cloned() {
                let told = client.handle_reply(now, &meta, &mut earlier);
                assert_eq!(told, Err(DropReason::Unmatched), "{n}");
            }
            answers.push(answer.clone());
            client.handle_reply(now, &meta, &mut answer).unwrap();
        }
        // In silence it knocks again.
        b.unheard(&mut client);
    }
    // The first, in which nothing came, gave way.
    assert_eq!(b.reflector.sessions(b.now).count(), 1);
}

#[test]
fn what_is_longer_than_any_datagram_or_was_cut_is_not_opened() {
    let mut b = Bench::new(entries(&[(1000, 4)]), 4, 8, 100);
    let mut client = b.client(0, 1);
    b.connect(&mut client, 1).unwrap();
    b.wait(1);
    let probe = b.next(&mut client);
    let mut long = probe.clone();
    long.resize(MAX_DATAGRAM + 1, 0);
    assert_eq!(b.ask(1, &long), Err(DropReason::Length));
    long.truncate(MAX_DATAGRAM);
    assert_eq!(b.ask(1, &long), Err(DropReason::Seal));
    let cut = RecvMeta {
        truncated: true,
        ..b.meta(1)
    };
    let (mut request, mut out, now) = (probe.clone(), [0; 1500], b.now);
    let answer = b
        .reflector
        .handle_request(now, &cut, &mut request, &mut out, &mut b.rng);
    assert_eq!(answer, Err(DropReason::Truncated));
    assert!(b.ask(1, &probe).is_ok());
}

#[test]
fn keys_that_are_read_again_know_what_came_before() {
    let mut b = Bench::new(entries(&[(10, 4)]), 4, 8, 100);
    let mut client = b.client(0, 1);
    b.connect(&mut client, 1).unwrap();
    let mut hello = Vec::new();
    for _ in 1..60 {
        let mut other = b.client(0, 1);
        hello = b.next(&mut other);
        b.ask(1, &hello).unwrap();
    }
    b.wait(10);
    for n in 0..20 {
        b.wait(1);
        let probe = b.next(&mut client);
        assert_eq!(b.ask(1, &probe).is_ok(), n < 10, "{n}");
    }
    assert_eq!(b.reflector.own_drops_of_test(), 10);
    b.reflector.replace_keys(entries(&[(10, 4)]));
    assert_eq!(b.reflector.own_drops_of_test(), 10);
    assert_eq!(b.ask(1, &hello), Err(DropReason::Replay));
    let mut other = b.client(0, 1);
    let hello = b.next(&mut other);
    assert_eq!(b.ask(1, &hello), Err(DropReason::RateLimit));
}
