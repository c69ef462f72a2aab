//! Each limit of a reflector at its edge.

mod again;
mod knocks;
mod records;

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::vec;
use std::vec::Vec;

use super::client::{Client, SessionEvent, StreamConfig};
use super::record::StreamRecord;
use super::reflector::{KeyEntry, Reflector, STREAMS_PER_SESSION, Session};
use crate::drop_reason::DropReason;
use crate::flight::{LossSlot, Slot};
use crate::packet::{RecvMeta, SendOutcome};
use crate::sample::{Observation, Sample, SeriesIndex, Status};
use crate::seal::{KeyId, Nonce, PresharedKey, Secret, open, seal};
use crate::time::{Monotonic, Stamp};
use crate::wire::header::SessionHeader;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

const MS: u64 = 1_000_000;

type TestClient = Client<Vec<Slot>, Vec<LossSlot>>;
type TestReflector = Reflector<Vec<KeyEntry>, Vec<Session>, Vec<StreamRecord>>;

fn key(n: u16) -> PresharedKey {
    PresharedKey {
        id: KeyId([n as u8, (n >> 8) as u8, 3, 4, 5, 6, 7, 8]),
        secret: Secret::new([n as u8 ^ 0x55; 32]),
    }
}

/// One key for each of `limits`: packets per second and sessions.
fn entries(limits: &[(u32, u16)]) -> Vec<KeyEntry> {
    let entry = |(i, (pps, sessions)): (usize, &(u32, u16))| {
        KeyEntry::new(key(i as u16), i as u16, *pps, *sessions)
    };
    limits.iter().enumerate().map(entry).collect()
}

/// A reflector and the time by both ends' clocks.
struct Bench {
    reflector: TestReflector,
    rng: ChaCha8Rng,
    now: Monotonic,
    /// Probes that a client may have in flight.
    in_flight: usize,
    /// Where datagrams come from, but for the port.
    from: SocketAddr,
}

impl Bench {
    fn new(keys: Vec<KeyEntry>, sessions: usize, streams: usize, failures: u32) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(77);
        let (sessions, streams) = (
            vec![Session::default(); sessions],
            vec![StreamRecord::default(); streams],
        );
        Self {
            reflector: Reflector::new(keys, sessions, streams, failures, &mut rng),
            rng,
            now: Monotonic::from_nanos(1000 * MS),
            in_flight: 64,
            from: ([192, 0, 2, 7], 0).into(),
        }
    }

    fn wait(&mut self, ms: u64) {
        self.now = self.now.saturating_add(ms * MS);
    }

    fn meta(&self, port: u16) -> RecvMeta {
        let mut from = self.from;
        from.set_port(port);
        RecvMeta {
            at: Stamp::kernel(self.now),
            from,
            to: None,
            ttl: None,
            tos: None,
            socket_drops: 0,
            truncated: false,
        }
    }

    /// What the reflector answers.
    fn ask(&mut self, port: u16, datagram: &[u8]) -> Result<Vec<u8>, DropReason> {
        let (mut request, mut out) = (datagram.to_vec(), [0; 1500]);
        let (meta, now) = (self.meta(port), self.now);
        let answer =
            self.reflector
                .handle_request(now, &meta, &mut request, &mut out, &mut self.rng)?;
        assert!(
            answer.len <= datagram.len(),
            "larger than what asked for it"
        );
        if let Some(token) = answer.token {
            let left = SendOutcome::Stamped(Stamp::kernel(now));
            self.reflector.handle_sent(token, left);
        }
        Ok(out[..answer.len].to_vec())
    }

    fn client(&mut self, n: u16, streams: usize) -> TestClient {
        let mut client = Client::new(key(n), self.now, &mut self.rng);
        for _ in 0..streams {
            let config = StreamConfig {
                series: SeriesIndex(0),
                size: 128,
                interval_ns: MS,
                spread_permille: 0,
                timeout_ns: 100 * MS,
            };
            let (slots, losses) = (
                vec![Slot::default(); self.in_flight],
                vec![LossSlot::default(); 16],
            );
            let added = client.add_stream(config, self.now, slots, losses, &mut self.rng);
            assert!(added.is_ok());
        }
        client
    }

    fn next(&mut self, client: &mut TestClient) -> Vec<u8> {
        let mut out = [0; 1500];
        let (len, _token) = client
            .poll_transmit(self.now, &mut self.rng, &mut out)
            .expect("something to send");
        out[..len].to_vec()
    }

    /// Has it probe to no avail until it takes the reflector for lost.
    fn unheard(&mut self, client: &mut TestClient) {
        for _ in 0..2 {
            self.wait(600);
            self.next(client);
        }
        self.wait(1_000);
        client.handle_timeout(self.now);
        assert!(!client.is_answering());
    }

    /// Knocks twice; both knocks.
    fn connect(&mut self, client: &mut TestClient, port: u16) -> Result<[Vec<u8>; 2], DropReason> {
        let mut said = [Vec::new(), Vec::new()];
        for knock in &mut said {
            *knock = self.next(client);
            let mut answer = self.ask(port, knock)?;
            let (meta, now) = (self.meta(9876), self.now);
            client.handle_reply(now, &meta, &mut answer)?;
        }
        Ok(said)
    }
}

#[test]
fn packets_per_second_are_held_at_the_edge_for_each_session_alone() {
    let mut b = Bench::new(entries(&[(10, 4), (10, 4)]), 4, 8, 100);
    b.in_flight = 2048;
    let (mut greedy, mut other) = (b.client(0, 1), b.client(1, 1));
    b.connect(&mut greedy, 1).unwrap();
    b.connect(&mut other, 2).unwrap();
    let mut answered = 0;
    // A burst of as many as in a second, and from then on one each 100 ms.
    for _ in 0..1000 {
        b.wait(1);
        let probe = b.next(&mut greedy);
        match b.ask(1, &probe) {
            Ok(_) => answered += 1,
            Err(reason) => assert_eq!(reason, DropReason::RateLimit),
        }
    }
    assert_eq!(answered, 10 + 9);
    assert_eq!(
        b.reflector.keys()[0].drops().get(DropReason::RateLimit),
        981
    );
    let probe = b.next(&mut other);
    assert!(b.ask(2, &probe).is_ok());
    assert_eq!(b.reflector.keys()[1].drops().get(DropReason::RateLimit), 0);
}

/// Probes each millisecond for `ms`, answered at once, and how the probes ended by what became known.
fn probe_for(b: &mut Bench, client: &mut TestClient, port: u16, ms: u64) -> Vec<(u64, Sample)> {
    let mut ends = std::collections::BTreeMap::new();
    for _ in 0..ms {
        b.wait(1);
        let now = b.now;
        client.handle_timeout(now);
        let mut out = [0; 1500];
        while let Some((len, token)) = client.poll_transmit(now, &mut b.rng, &mut out) {
            let left = SendOutcome::Stamped(Stamp::kernel(now));
            client.handle_sent(token, left);
            if let Ok(mut answer) = b.ask(port, &out[..len]) {
                let meta = b.meta(9876);
                let _ = client.handle_reply(now, &meta, &mut answer);
            }
        }
        while let Some(o) = client.poll_observation() {
            let (Observation::New(s) | Observation::Revised(s)) = o;
            ends.insert(s.seq, s);
        }
    }
    ends.into_iter().collect()
}

#[test]
fn what_the_reflector_refuses_is_not_lost_by_the_line() {
    // Half of what comes is more than the key may send.
    let mut b = Bench::new(entries(&[(500, 4)]), 4, 8, 100);
    b.in_flight = 1024;
    let mut client = b.client(0, 1);
    b.connect(&mut client, 1).unwrap();
    let ends = probe_for(&mut b, &mut client, 1, 6_000);
    let of = |status| ends.iter().filter(|(_, s)| s.status == status).count();
    let lost = ends.iter().filter(|(_, s)| s.status == Status::Lost);
    // What is lost last may be refused, but nobody has said so yet.
    let unknown = lost.filter(|(_, s)| !s.may_be_dropped()).count();
    assert!(unknown <= 1, "{unknown}");
    assert!(of(Status::Lost) > 1000, "{}", of(Status::Lost));
    assert_eq!(of(Status::LostUp), 0);
    assert_eq!(of(Status::LostDown), 0);
    let told = core::iter::from_fn(|| client.poll_event());
    let told = told.filter(|e| matches!(e, SessionEvent::RemoteDrops(_)));
    assert!(told.count() > 0, "the client was not told");
}

#[test]
fn a_session_that_gave_way_took_no_probe_from_the_line() {
    // Room for one session: the client's own, that somebody else with its key pushes out.
    let mut b = Bench::new(entries(&[(1000, 1)]), 4, 8, 100);
    b.in_flight = 1024;
    let mut client = b.client(0, 1);
    b.connect(&mut client, 1).unwrap();
    let before = probe_for(&mut b, &mut client, 1, 1_030);
    assert!(before.iter().all(|(_, s)| s.status == Status::Ok));
    let mut other = b.client(0, 1);
    b.connect(&mut other, 2).unwrap();
    // Unheard, and after a second known again, from within 64 probes of which some were not heard.
    let ends = probe_for(&mut b, &mut client, 1, 10_000);
    let of = |status| ends.iter().filter(|(_, s)| s.status == status).count();
    assert!(of(Status::Ok) > 7000, "{}", of(Status::Ok));
    assert!(of(Status::Lost) > 900, "{}", of(Status::Lost));
    assert_eq!(of(Status::LostUp), 0);
    assert_eq!(of(Status::LostDown), 0);
}

#[test]
fn an_echo_that_could_not_be_sent_is_told_to_its_client_alone() {
    let mut b = Bench::new(entries(&[(1000, 4), (1000, 4)]), 4, 8, 100);
    let (mut cut_off, mut other) = (b.client(0, 1), b.client(1, 1));
    b.connect(&mut cut_off, 1).unwrap();
    b.connect(&mut other, 2).unwrap();
    let mut told = |client: &mut TestClient, port, fails: bool| {
        b.wait(1);
        let mut probe = b.next(client);
        let (mut out, meta, now) = ([0; 1500], b.meta(port), b.now);
        let answer = b
            .reflector
            .handle_request(now, &meta, &mut probe, &mut out, &mut b.rng);
        let answer = answer.unwrap();
        if let Some(token) = answer.token.filter(|_| fails) {
            b.reflector.handle_sent(token, SendOutcome::Failed(113));
        }
        client
            .handle_reply(now, &meta, &mut out[..answer.len])
            .unwrap();
        let mut rises = 0;
        while let Some(event) = client.poll_event() {
            if let SessionEvent::RemoteDrops(n) = event {
                rises += n;
            }
        }
        rises
    };
    assert_eq!(told(&mut cut_off, 1, true), 0);
    assert_eq!(told(&mut other, 2, false), 0);
    assert_eq!(told(&mut cut_off, 1, false), 1);
    assert_eq!(told(&mut other, 2, false), 0);
}

#[test]
fn failed_opens_have_one_budget_and_it_refills() {
    let mut b = Bench::new(entries(&[(1000, 4)]), 4, 8, 50);
    let mut client = b.client(0, 1);
    b.connect(&mut client, 1).unwrap();
    b.wait(1);
    let probe = b.next(&mut client);
    let mut bad = probe.clone();
    *bad.last_mut().unwrap() ^= 1;
    for n in 0..60 {
        let reason = b.ask(n, &bad).unwrap_err();
        let wanted = if n < 50 {
            DropReason::Seal
        } else {
            DropReason::FailureBudget
        };
        assert_eq!(reason, wanted, "{n}");
    }
    assert_eq!(b.reflector.counters().get(DropReason::Seal), 50);
    assert_eq!(b.reflector.counters().get(DropReason::FailureBudget), 10);
    b.wait(20);
    assert_eq!(b.ask(2, &bad), Err(DropReason::Seal));
    assert_eq!(b.ask(2, &bad), Err(DropReason::FailureBudget));
    // The client is where it was, so it is heard amid all that; elsewhere it waits for the budget.
    assert_eq!(b.ask(2, &probe), Err(DropReason::FailureBudget));
    assert!(b.ask(1, &probe).is_ok());
    let probe = {
        b.wait(1);
        b.next(&mut client)
    };
    assert_eq!(b.ask(2, &probe), Err(DropReason::FailureBudget));
    b.wait(20);
    assert!(b.ask(2, &probe).is_ok());
}

#[test]
fn failed_knocks_are_of_the_same_budget() {
    let mut b = Bench::new(entries(&[(1000, 4)]), 4, 8, 50);
    let mut client = b.client(0, 1);
    let hello = b.next(&mut client);
    let mut bad = hello.clone();
    *bad.last_mut().unwrap() ^= 1;
    let tried = (0..60).map(|n| b.ask(n, &bad).unwrap_err());
    let opened = tried.filter(|reason| *reason == DropReason::Seal).count();
    assert_eq!(opened, 50);
    assert_eq!(b.ask(1, &hello), Err(DropReason::FailureBudget));
    b.wait(20);
    assert!(b.ask(1, &hello).is_ok());
}

#[test]
fn a_client_that_moves_amid_failures_is_told_what_was_passed_over() {
    let mut b = Bench::new(entries(&[(1000, 4)]), 4, 8, 50);
    let mut client = b.client(0, 1);
    b.connect(&mut client, 1).unwrap();
    b.wait(1);
    let probe = b.next(&mut client);
    let mut bad = probe.clone();
    *bad.last_mut().unwrap() ^= 1;
    while b.ask(3, &bad) != Err(DropReason::FailureBudget) {}
    // It may have been the client's own, but that is heard where it was.
    b.ask(1, &probe).unwrap();
    assert_eq!(b.reflector.own_drops_of_test(), 0);
    b.wait(1);
    let probe = b.next(&mut client);
    assert_eq!(b.ask(2, &probe), Err(DropReason::FailureBudget));
    b.wait(100);
    let probe = b.next(&mut client);
    b.ask(2, &probe).unwrap();
    assert_eq!(b.reflector.own_drops_of_test(), 1);
    b.wait(1);
    let probe = b.next(&mut client);
    b.ask(2, &probe).unwrap();
    assert_eq!(b.reflector.own_drops_of_test(), 1);
}

#[test]
fn a_client_at_a_link_local_address_is_heard_amid_failures_too() {
    let mut b = Bench::new(entries(&[(1000, 4)]), 4, 8, 50);
    let address = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);
    b.from = SocketAddrV6::new(address, 0, 0, 3).into();
    let mut client = b.client(0, 1);
    b.connect(&mut client, 1).unwrap();
    b.wait(1);
    let probe = b.next(&mut client);
    let mut bad = probe.clone();
    *bad.last_mut().unwrap() ^= 1;
    while b.ask(2, &bad) != Err(DropReason::FailureBudget) {}
    assert!(b.ask(1, &probe).is_ok());
}

#[test]
fn sessions_of_a_key_and_of_all_end_at_their_numbers() {
    let mut b = Bench::new(entries(&[(1000, 3), (1000, 9), (1000, 9)]), 5, 10, 100);
    let mut clients: Vec<TestClient> = (0..4).map(|_| b.client(0, 1)).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        b.wait(100);
        b.connect(client, i as u16).unwrap();
        b.wait(1);
        let probe = b.next(client);
        b.ask(i as u16, &probe).unwrap();
    }
    // The longest idle of the key gave way to the fourth.
    assert_eq!(b.reflector.keys()[0].displaced(), 1);
    assert_eq!(b.reflector.sessions(b.now).count(), 3);
    b.wait(1);
    let probe = b.next(&mut clients[0]);
    assert_eq!(b.ask(0, &probe), Err(DropReason::UnknownSession));
    for client in &mut clients[1..] {
        let probe = b.next(client);
        assert!(b.ask(1, &probe).is_ok());
    }
    // Two places are left: the second key may have nine, and displaces only itself.
    let mut of_second: Vec<TestClient> = (0..3).map(|_| b.client(1, 1)).collect();
    for client in &mut of_second {
        b.wait(100);
        b.connect(client, 20).unwrap();
        b.wait(1);
        let probe = b.next(client);
        b.ask(20, &probe).unwrap();
    }
    assert_eq!(b.reflector.keys()[0].displaced(), 1);
    assert_eq!(b.reflector.keys()[1].displaced(), 1);
    // A key without a session finds no room, until a session has been idle for five minutes.
    let mut third = b.client(2, 1);
    assert_eq!(b.connect(&mut third, 30).unwrap_err(), DropReason::Full);
    assert_eq!(b.reflector.keys()[2].drops().get(DropReason::Full), 1);
    b.wait(299_000);
    let mut third = b.client(2, 1);
    assert_eq!(b.connect(&mut third, 30).unwrap_err(), DropReason::Full);
    b.wait(1_002);
    let mut third = b.client(2, 1);
    b.connect(&mut third, 30).unwrap();
    assert_eq!(b.reflector.sessions(b.now).count(), 1);
    let of_each = [0, 1, 2, 3].map(|key| b.reflector.sessions_of(b.now, key).count());
    assert_eq!(of_each, [0, 0, 1, 0]);
}

#[test]
fn a_session_has_eight_streams_and_no_ninth() {
    let mut b = Bench::new(entries(&[(1000, 3)]), 1, 16, 100);
    let mut client = b.client(0, STREAMS_PER_SESSION);
    b.connect(&mut client, 1).unwrap();
    b.wait(1);
    let mut probe = Vec::new();
    for _ in 0..STREAMS_PER_SESSION {
        probe = b.next(&mut client);
        assert!(b.ask(1, &probe).is_ok());
    }
    // The client numbers its streams itself: a ninth under the right key.
    let up = b.reflector.session_key_of_test();
    let counter = u64::from_be_bytes(probe[12..20].try_into().unwrap());
    open(&up, Nonce::Counter(counter), &mut probe, SessionHeader::LEN).unwrap();
    probe[12..20].copy_from_slice(&(counter + 1).to_be_bytes());
    probe[21] = STREAMS_PER_SESSION as u8;
    seal(
        &up,
        Nonce::Counter(counter + 1),
        &mut probe,
        SessionHeader::LEN,
    )
    .unwrap();
    assert_eq!(b.ask(1, &probe), Err(DropReason::Field));
    assert_eq!(b.reflector.keys()[0].drops().get(DropReason::Field), 1);
}

#[test]
fn ten_thousand_sessions_are_found_at_once_and_fit_into_sixteen_mebibytes() {
    const SESSIONS: usize = 10_000;
    // Room for more is not touched before it is used.
    let each = size_of::<Session>() + size_of::<StreamRecord>();
    std::println!("{each} bytes for a session with a stream");
    let limits = vec![(1000, 16); SESSIONS / 10];
    let keys = limits.len() * size_of::<KeyEntry>();
    assert!(each * SESSIONS + keys < 16 << 20, "{each}, {keys}");
    let mut b = Bench::new(entries(&limits), SESSIONS, 2 * SESSIONS, 100);
    let mut clients: Vec<TestClient> = Vec::new();
    for i in 0..SESSIONS {
        let mut client = b.client((i % limits.len()) as u16, 1);
        b.connect(&mut client, i as u16).unwrap();
        clients.push(client);
    }
    assert_eq!(b.reflector.sessions(b.now).count(), SESSIONS);
    b.wait(1);
    for (i, client) in clients.iter_mut().enumerate() {
        let probe = b.next(client);
        b.ask(i as u16, &probe).unwrap();
    }
    assert_eq!(b.reflector.answered(), 3 * SESSIONS as u64);
    let displaced: u64 = b.reflector.keys().iter().map(KeyEntry::displaced).sum();
    assert_eq!(displaced, 0);
}
