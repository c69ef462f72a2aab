//! Whose records of streams there is room for, and who gives way.

use super::*;
use crate::sample::Sample;
use crate::time::ClockSource;

#[test]
fn records_of_streams_go_with_a_run_from_session_to_session_and_end_with_it() {
    let mut b = Bench::new(entries(&[(1000, 2), (1000, 3)]), 5, 3, 100);
    b.in_flight = 512;
    let probe = |b: &mut Bench, client: &mut TestClient, port: u16| {
        b.wait(1);
        let probe = b.next(client);
        let mut echo = b.ask(port, &probe)?;
        let (meta, now) = (b.meta(9876), b.now);
        client.handle_reply(now, &meta, &mut echo)
    };
    let mut staying = b.client(1, 1);
    b.connect(&mut staying, 1).unwrap();
    probe(&mut b, &mut staying, 1).unwrap();
    // Clients that run for a moment only never take more than the two sessions that they may have.
    for _ in 0..100 {
        let mut passing = b.client(0, 1);
        b.wait(60);
        b.connect(&mut passing, 2).unwrap();
        probe(&mut b, &mut passing, 2).unwrap();
        probe(&mut b, &mut staying, 1).unwrap();
    }
    assert_eq!(b.reflector.records_of_test(), 3);
    // New keys for the same run need no new record, also when the session before has given way.
    for round in 1..5 {
        b.unheard(&mut staying);
        while b.connect(&mut staying, 1).is_err() {
            b.wait(1);
        }
        probe(&mut b, &mut staying, 1).unwrap();
        assert_eq!(b.reflector.records_of_test(), 3, "{round}");
    }
    assert_eq!(b.reflector.keys()[1].displaced(), 2);
    // Without its key, a run leaves nothing behind.
    b.reflector.replace_keys(entries(&[(1000, 2)]));
    assert_eq!(b.reflector.records_of_test(), 2);
    b.reflector.replace_keys(Vec::new());
    assert_eq!(b.reflector.records_of_test(), 0);
}

#[test]
fn one_client_takes_no_record_that_another_needs() {
    let mut b = Bench::new(entries(&[(1000, 4), (1000, 4)]), 5, 10, 100);
    let probe_all = |b: &mut Bench, client: &mut TestClient, port: u16, streams: usize| {
        b.wait(1);
        let answers = (0..streams).map(|_| {
            let probe = b.next(client);
            b.ask(port, &probe).map(drop)
        });
        let answers: Vec<_> = answers.collect();
        assert_eq!(answers, vec![Ok(()); streams], "{port}");
    };
    // All there is room for, and all of it probed all the time.
    let mut greedy: Vec<TestClient> = (0..4).map(|_| b.client(0, 4)).collect();
    for (port, client) in greedy.iter_mut().enumerate() {
        b.connect(client, port as u16).unwrap();
        probe_all(&mut b, client, port as u16, 4);
    }
    assert_eq!(b.reflector.records_of_test(), 10);
    assert_eq!(b.reflector.keys()[0].records_displaced(), 6);
    // Eight are what four sessions are sure of: two are taken from it, and none from whoever came.
    let mut late = b.client(1, 2);
    b.connect(&mut late, 20).unwrap();
    for _ in 0..50 {
        probe_all(&mut b, &mut late, 20, 2);
        for (port, client) in greedy.iter_mut().enumerate() {
            probe_all(&mut b, client, port as u16, 4);
        }
    }
    assert_eq!(b.reflector.records_of_test(), 10);
    assert_eq!(b.reflector.keys()[1].records_displaced(), 0);
    assert!(b.reflector.keys()[0].records_displaced() >= 8 + 50 * 8);
    assert_eq!(b.reflector.counters().get(DropReason::Full), 0);
    // Whose they are is still known when keys come anew, and all are given back with their key.
    b.reflector.replace_keys(entries(&[(1000, 4), (1000, 4)]));
    probe_all(&mut b, &mut greedy[0], 0, 4);
    probe_all(&mut b, &mut late, 20, 2);
    assert_eq!(b.reflector.keys()[1].records_displaced(), 0);
    b.reflector
        .replace_keys(vec![KeyEntry::new(key(1), 0, 1000, 4)]);
    assert_eq!(b.reflector.records_of_test(), 2);
    let mut second = b.client(1, 8);
    b.connect(&mut second, 21).unwrap();
    probe_all(&mut b, &mut second, 21, 8);
    assert_eq!(b.reflector.keys()[0].records_displaced(), 0);
}

#[test]
fn what_is_beyond_the_sure_records_is_shared_evenly_and_stays_where_it_is() {
    let mut b = Bench::new(entries(&[(1000, 4), (1000, 4)]), 5, 10, 100);
    let (mut first, mut second) = (b.client(0, 8), b.client(1, 8));
    b.connect(&mut first, 1).unwrap();
    b.connect(&mut second, 2).unwrap();
    for (client, port) in [(&mut first, 1), (&mut second, 2)] {
        b.wait(1);
        for _ in 0..8 {
            let probe = b.next(client);
            b.ask(port, &probe).unwrap();
        }
    }
    // Five each: the first gave three, and what more the second had came out of its own.
    let displaced = |b: &Bench| [0, 1].map(|i| b.reflector.keys()[i].records_displaced());
    assert_eq!(displaced(&b), [3, 3]);
    // From now on nobody takes from the other.
    for _ in 0..20 {
        b.wait(1);
        let before = displaced(&b);
        let probe = b.next(&mut first);
        b.ask(1, &probe).unwrap();
        assert_eq!(displaced(&b)[1], before[1]);
    }
    // A client that is silent for five minutes leaves all to the other.
    b.wait(301_000);
    let before = displaced(&b);
    for _ in 0..8 {
        let probe = b.next(&mut second);
        b.ask(2, &probe).unwrap();
    }
    assert_eq!(displaced(&b), before);
    assert_eq!(b.reflector.records_of_test(), 8);
}

#[test]
fn a_stream_that_takes_anothers_place_takes_none_of_its_stamps_nor_directions() {
    let mut b = Bench::new(entries(&[(1000, 4)]), 1, 1, 100);
    let mut client = b.client(0, 2);
    b.connect(&mut client, 1).unwrap();
    // Both streams have but one record, in turn: all that is known is how long echoes waited for the program.
    let mut ends = Vec::new();
    for _ in 0..400 {
        b.wait(1);
        let now = b.now;
        client.handle_timeout(now);
        let mut out = [0; 1500];
        let mut late = Vec::new();
        while let Some((len, token)) = client.poll_transmit(now, &mut b.rng, &mut out) {
            client.handle_sent(token, SendOutcome::Stamped(Stamp::kernel(now)));
            let (meta, mut answer) = (b.meta(1), [0; 1500]);
            let echo =
                b.reflector
                    .handle_request(now, &meta, &mut out[..len], &mut answer, &mut b.rng);
            let echo = echo.unwrap();
            late.extend(echo.token);
            client
                .handle_reply(now, &b.meta(9876), &mut answer[..echo.len])
                .unwrap();
        }
        // Each stamp comes when the other stream has the place.
        let left = Stamp::kernel(now.saturating_add(500_000));
        for token in late {
            b.reflector.handle_sent(token, SendOutcome::Stamped(left));
        }
        while let Some(o) = client.poll_observation() {
            let (Observation::New(s) | Observation::Revised(s)) = o;
            ends.push(s);
        }
    }
    assert!(ends.len() > 700, "{}", ends.len());
    let honest = |s: &Sample| s.status == Status::Ok && s.remote_tx_clock == ClockSource::User;
    assert!(ends.iter().all(honest), "{ends:?}");
}
