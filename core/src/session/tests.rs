mod lost;
mod orders;

use std::collections::VecDeque;
use std::vec;
use std::vec::Vec;

use super::client::{Client, SessionEvent, StreamConfig};
use super::record::StreamRecord;
use super::reflector::{ClockFacts, KeyEntry, Reflector, Session};
use crate::drop_reason::DropReason;
use crate::flight::{LossSlot, Slot};
use crate::packet::{RecvMeta, SendOutcome};
use crate::sample::{Observation, Sample, SeriesIndex, Status};
use crate::seal::{KeyId, PresharedKey, Secret};
use crate::time::{ClockSource, Monotonic, Stamp};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

const MS: u64 = 1_000_000;
/// How far the reflector's clock is ahead.
const OFFSET: u64 = 5_000_000 * MS;

type TestClient = Client<Vec<Slot>, Vec<LossSlot>>;
type TestReflector = Reflector<Vec<KeyEntry>, Vec<Session>, Vec<StreamRecord>>;

fn key(n: u8) -> PresharedKey {
    PresharedKey {
        id: KeyId([n; 8]),
        secret: Secret::new([n ^ 0x55; 32]),
    }
}

fn reflector(seed: u64, sessions: usize) -> TestReflector {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Reflector::new(
        vec![
            KeyEntry::new(key(1), 0, 1000, 4),
            KeyEntry::new(key(2), 1, 1000, 4),
        ],
        vec![Session::default(); sessions],
        vec![StreamRecord::default(); sessions * 2],
        1000,
        &mut rng,
    )
}

fn meta(now: u64, from: [u8; 4], port: u16) -> RecvMeta {
    RecvMeta {
        at: Stamp::kernel(Monotonic::from_nanos(now)),
        from: (from, port).into(),
        to: None,
        ttl: Some(60),
        tos: Some(0),
        socket_drops: 0,
        truncated: false,
    }
}

/// Which way the world drops a datagram at a moment, in ms.
type Fate = fn(u64) -> (bool, bool);

struct World {
    rng: ChaCha8Rng,
    now_ms: u64,
    client: TestClient,
    reflector: TestReflector,
    /// (arrives at, upward, bytes)
    wire: VecDeque<(u64, bool, Vec<u8>)>,
    port: u16,
    /// What the reflector's socket has dropped so far.
    drops: u32,
    /// Every answer of this millisecond comes 200 ms later than the others.
    straggler_ms: Option<u64>,
    fate: Fate,
    samples: Vec<Sample>,
    events: Vec<SessionEvent>,
    up_bytes: usize,
    down_bytes: usize,
}

impl World {
    fn new(fate: Fate) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut client = Client::new(key(1), Monotonic::ZERO, &mut rng);
        let config = StreamConfig {
            series: SeriesIndex(0),
            size: 128,
            interval_ns: 50 * MS,
            spread_permille: 0,
            timeout_ns: 3000 * MS,
        };
        client
            .add_stream(
                config,
                Monotonic::ZERO,
                vec![Slot::default(); 256],
                vec![LossSlot::default(); 8192],
                &mut rng,
            )
            .unwrap();
        Self {
            rng,
            now_ms: 0,
            client,
            reflector: reflector(9, 4),
            wire: VecDeque::new(),
            port: 1000,
            drops: 0,
            straggler_ms: None,
            fate,
            samples: Vec::new(),
            events: Vec::new(),
            up_bytes: 0,
            down_bytes: 0,
        }
    }

    /// 20 ms up, 10 ms down.
    fn run_until(&mut self, end_ms: u64) {
        while self.now_ms < end_ms {
            let now = Monotonic::from_nanos(self.now_ms * MS);
            let remote_now = now.saturating_add(OFFSET);
            self.client.handle_timeout(now);
            let mut out = [0; 1500];
            while let Some((len, token)) = self.client.poll_transmit(now, &mut self.rng, &mut out) {
                self.client
                    .handle_sent(token, SendOutcome::Stamped(Stamp::kernel(now)));
                self.up_bytes += len;
                if !(self.fate)(self.now_ms).0 {
                    self.wire
                        .push_back((self.now_ms + 20, true, out[..len].to_vec()));
                }
            }
            let now_ms = self.now_ms;
            let (due, rest): (Vec<_>, Vec<_>) =
                self.wire.drain(..).partition(|(at, ..)| *at <= now_ms);
            self.wire = rest.into();
            for (_, up, mut bytes) in due {
                if up {
                    let mut m = meta(remote_now.as_nanos(), [192, 0, 2, 7], self.port);
                    m.socket_drops = self.drops;
                    let answer = self.reflector.handle_request(
                        remote_now.saturating_add(MS / 2),
                        &m,
                        &mut bytes,
                        &mut out,
                        &mut self.rng,
                    );
                    if let Ok(answer) = answer {
                        assert!(answer.len <= bytes.len());
                        self.down_bytes += answer.len;
                        if let Some(token) = answer.token {
                            let left = Stamp::kernel(remote_now.saturating_add(MS));
                            self.reflector
                                .handle_sent(token, SendOutcome::Stamped(left));
                        }
                        if !(self.fate)(self.now_ms).1 {
                            let is_straggler =
                                self.straggler_ms.take_if(|from| *from <= now_ms).is_some();
                            self.wire.push_back((
                                now_ms + if is_straggler { 211 } else { 11 },
                                false,
                                out[..answer.len].to_vec(),
                            ));
                        }
                    }
                } else {
                    let _ = self.client.handle_reply(
                        now,
                        &meta(now.as_nanos(), [203, 0, 113, 1], 9876),
                        &mut bytes,
                    );
                }
            }
            while let Some(o) = self.client.poll_observation() {
                match o {
                    Observation::New(s) => self.samples.push(s),
                    Observation::Revised(s) => {
                        *self.samples.iter_mut().find(|x| x.seq == s.seq).unwrap() = s;
                    }
                }
            }
            while let Some(e) = self.client.poll_event() {
                self.events.push(e);
            }
            self.now_ms += 1;
        }
        self.samples.sort_by_key(|s| s.seq);
    }

    fn statuses(&self, from_ms: u64, to_ms: u64) -> Vec<Status> {
        let range = from_ms * MS..to_ms * MS;
        self.samples
            .iter()
            .filter(|s| range.contains(&s.sent.as_nanos()))
            .map(|s| s.status)
            .collect()
    }
}

#[test]
fn a_session_measures_the_line_without_the_far_ends_residence() {
    let mut w = World::new(|_| (false, false));
    w.run_until(5_000);
    assert_eq!(w.events[0], SessionEvent::Established);
    assert_eq!(w.events[1], address_seen(1000, true));
    assert_eq!(w.events[2..], [remote_clock(false, false)]);
    assert!(w.samples.len() > 90);
    let settled = &w.samples[..w.samples.len() - 2];
    for s in settled {
        assert_eq!((s.status, s.rtt_ns), (Status::Ok, Some(30 * MS)), "{s:?}");
        assert_eq!(s.raw_up_ns, Some((OFFSET + 20 * MS) as i64));
        assert_eq!(s.raw_down_ns, Some(10 * MS as i64 - OFFSET as i64));
        assert_eq!(s.remote_tx_clock, ClockSource::Kernel);
        assert_eq!(
            (s.ttl_up, s.ttl_down, s.tos_seen),
            (Some(60), Some(60), Some(0))
        );
    }
    assert!(w.down_bytes <= w.up_bytes);
}

fn address_seen(port: u16, new_socket: bool) -> SessionEvent {
    SessionEvent::AddressSeen {
        address: ([192, 0, 2, 7], port).into(),
        new_socket,
    }
}

const fn remote_clock(disciplined: bool, set: bool) -> SessionEvent {
    SessionEvent::RemoteClock { disciplined, set }
}

#[test]
fn what_becomes_of_the_reflectors_wall_clock_is_told_once() {
    let mut w = World::new(|_| (false, false));
    w.run_until(1_000);
    for (until_ms, disciplined, epoch) in [(2_000, true, 0), (3_000, true, 1), (4_000, false, 1)] {
        w.reflector.set_clock(ClockFacts { epoch, disciplined });
        w.run_until(until_ms);
    }
    // Another run of it counts from another beginning.
    w.reflector = reflector(77, 4);
    w.run_until(12_000);
    let told = w
        .events
        .iter()
        .filter(|e| matches!(e, SessionEvent::RemoteClock { .. }));
    let told: Vec<SessionEvent> = told.copied().collect();
    let expected = [
        remote_clock(false, false),
        remote_clock(true, false),
        remote_clock(true, true),
        remote_clock(false, false),
        remote_clock(false, false),
    ];
    assert_eq!(told, expected);
}

#[test]
fn losses_know_their_direction() {
    let mut w = World::new(|ms| ((2000..2600).contains(&ms), (4000..4600).contains(&ms)));
    w.run_until(12_000);
    assert_eq!(w.statuses(2000, 2600), [Status::LostUp; 12]);
    let down = w.statuses(3980, 4580);
    assert_eq!(down, [Status::LostDown; 12], "{down:?}");
    assert!(w.statuses(5000, 9000).iter().all(|s| *s == Status::Ok));
}

#[test]
fn a_run_longer_than_the_record_has_its_direction_from_the_counts() {
    let mut w = World::new(|ms| ((10_000..300_000).contains(&ms), false));
    w.run_until(310_000);
    let run = w.statuses(10_000, 299_900);
    assert_eq!(run.len(), 5798);
    let up = run.iter().filter(|s| **s == Status::LostUp).count();
    assert_eq!(up, run.len());
    assert!(w.events.contains(&SessionEvent::Lost) && w.events.contains(&SessionEvent::Back));

    let mut w = World::new(|ms| (false, (10_000..300_000).contains(&ms)));
    w.run_until(310_000);
    let run = w.statuses(10_000, 299_900);
    let down = run.iter().filter(|s| **s == Status::LostDown).count();
    assert!(down + 1 >= run.len(), "{down} of {}", run.len());
}

#[test]
fn a_restarted_reflector_is_found_within_three_seconds_and_claims_no_direction() {
    let mut w = World::new(|_| (false, false));
    w.run_until(3_000);
    w.reflector = reflector(77, 4);
    w.run_until(12_000);
    assert!(w.events.contains(&SessionEvent::RemoteRestarted));
    assert!(w.statuses(6_000, 8_000).iter().all(|s| *s == Status::Ok));
    let between = w.statuses(3_000, 6_000);
    assert!(between.contains(&Status::Lost));
    assert!(
        !between
            .iter()
            .any(|s| matches!(s, Status::LostUp | Status::LostDown)),
        "{between:?}"
    );
}

#[test]
fn another_address_interrupts_nothing() {
    let mut w = World::new(|_| (false, false));
    w.run_until(3_000);
    w.port = 2000;
    w.run_until(6_000);
    assert!(w.events.contains(&address_seen(2000, false)));
    // What was on its way to the old one does not arrive.
    while !w.wire.is_empty() {
        w.run_until(w.now_ms + 1);
    }
    w.client.handle_new_socket();
    w.port = 2001;
    w.run_until(9_000);
    w.port = 2000;
    w.run_until(12_000);
    let last = &w.events[w.events.len() - 2..];
    assert_eq!(last, [address_seen(2001, true), address_seen(2000, false)]);
    assert!(w.statuses(1_000, 11_500).iter().all(|s| *s == Status::Ok));
}

/// Until a join has come from there, a reflector sends no trains and no test's datagrams, and lets no stream in.
#[test]
fn another_address_is_proven_by_a_join_though_not_at_each_change() {
    let mut w = World::new(|_| (false, false));
    w.run_until(12_000);
    let first = w.client.keys_since();
    w.port = 2000;
    w.run_until(13_000);
    let second = w.client.keys_since();
    assert!(second > first, "{second:?}");
    // A NAT with another port each second.
    for second in 0..9 {
        w.port += 1;
        w.run_until(14_000 + 1000 * second);
    }
    assert_eq!(w.client.keys_since(), second);
    w.run_until(25_000);
    let third = w.client.keys_since();
    assert!(third > second);
    w.run_until(60_000);
    assert_eq!(w.client.keys_since(), third);
    assert!(w.statuses(1_000, 58_000).iter().all(|s| *s == Status::Ok));
}

#[test]
fn an_overtaken_answer_says_nothing_of_the_present() {
    let mut w = World::new(|_| (false, false));
    w.run_until(3_000);
    w.straggler_ms = Some(3_000);
    w.run_until(3_080);
    assert_eq!(w.straggler_ms, None);
    // The straggler was sent before the address changed and the far end's socket overflowed.
    (w.port, w.drops) = (2000, 80);
    w.run_until(6_000);
    assert!(w.samples.iter().any(|s| s.rtt_ns == Some(230 * MS)));
    let addresses = w.events.iter();
    let addresses = addresses.filter(|e| matches!(e, SessionEvent::AddressSeen { .. }));
    assert_eq!(addresses.count(), 2, "{:?}", w.events);
    let told: u32 = w
        .events
        .iter()
        .map(|e| match e {
            SessionEvent::RemoteDrops(n) => *n,
            _ => 0,
        })
        .sum();
    assert_eq!(told, 80);
}

#[test]
fn an_answer_that_came_in_time_is_not_late_because_the_driver_was() {
    let mut w = World::new(|_| (false, false));
    w.run_until(3_000);
    while w.wire.iter().all(|(_, up, _)| *up) {
        w.run_until(w.now_ms + 1);
    }
    // The driver stands still for longer than the time-out, and then looks at the clock first.
    let arrived = w.now_ms + 25;
    let before = w.samples.len();
    w.now_ms += 5_000;
    let now = Monotonic::from_nanos(w.now_ms * MS);
    w.client.handle_timeout(now);
    let answers: Vec<_> = w.wire.drain(..).filter(|(_, up, _)| !up).collect();
    for (_, _, mut bytes) in answers {
        let m = meta(arrived * MS, [203, 0, 113, 1], 9876);
        w.client.handle_reply(now, &m, &mut bytes).unwrap();
    }
    w.run_until(w.now_ms + 1);
    let told = &w.samples[before..];
    assert!(told.iter().any(|s| s.status == Status::Ok), "{told:?}");
    assert!(told.iter().all(|s| s.status != Status::Late), "{told:?}");
}

#[test]
fn a_captured_knock_earns_one_challenge_and_a_replayed_probe_nothing() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut r = reflector(4, 4);
    let mut client: TestClient = Client::new(key(1), Monotonic::ZERO, &mut rng);
    let now = Monotonic::from_nanos(1000 * MS);
    let (mut out, mut answer) = ([0; 1500], [0; 1500]);
    let (len, _) = client.poll_transmit(now, &mut rng, &mut out).unwrap();
    let hello = out[..len].to_vec();
    let from = |port| meta(now.as_nanos(), [192, 0, 2, 7], port);
    let knock = |r: &mut TestReflector, bytes: &[u8], port, out: &mut [u8]| {
        r.handle_request(
            now,
            &from(port),
            &mut bytes.to_vec(),
            out,
            &mut ChaCha8Rng::seed_from_u64(port.into()),
        )
        .map(|a| a.len)
    };
    let len = knock(&mut r, &hello, 1, &mut answer).unwrap();
    assert!(len < hello.len());
    client
        .handle_reply(now, &from(9), &mut answer[..len])
        .unwrap();
    let (len, _) = client.poll_transmit(now, &mut rng, &mut out).unwrap();
    let join = out[..len].to_vec();
    // Another address, another reflector, an old challenge: nothing.
    assert_eq!(
        knock(&mut r, &join, 2, &mut answer),
        Err(DropReason::Challenge)
    );
    assert_eq!(
        knock(&mut reflector(5, 4), &join, 1, &mut answer),
        Err(DropReason::Challenge)
    );
    let len = knock(&mut r, &join, 1, &mut answer).unwrap();
    let welcome = answer[..len].to_vec();
    assert_eq!(r.sessions(now).count(), 1);
    // The same knock again finds the same session: no second one, no second set of keys.
    knock(&mut r, &join, 1, &mut answer).unwrap();
    assert_eq!(r.sessions(now).count(), 1);
    client
        .handle_reply(now, &from(9), &mut welcome.clone())
        .unwrap();
    assert_eq!(
        client.handle_reply(now, &from(9), &mut welcome.clone()),
        Err(DropReason::Unmatched)
    );
    let late = now.saturating_add(16_000 * MS);
    let old = r.handle_request(late, &from(1), &mut join.clone(), &mut answer, &mut rng);
    assert_eq!(old.unwrap_err(), DropReason::Challenge);

    let config = StreamConfig {
        series: SeriesIndex(0),
        size: 200,
        interval_ns: 50 * MS,
        spread_permille: 0,
        timeout_ns: 1000 * MS,
    };
    client
        .add_stream(
            config,
            now,
            vec![Slot::default(); 64],
            vec![LossSlot::default(); 64],
            &mut rng,
        )
        .unwrap();
    let (len, _) = client.poll_transmit(now, &mut rng, &mut out).unwrap();
    let probe = out[..len].to_vec();
    assert_eq!(knock(&mut r, &probe, 1, &mut answer), Ok(200));
    assert_eq!(
        knock(&mut r, &probe, 1, &mut answer),
        Err(DropReason::Replay)
    );
    assert_eq!(
        knock(&mut reflector(5, 4), &probe, 1, &mut answer),
        Err(DropReason::UnknownSession)
    );
    for (i, reason) in [
        (0, DropReason::Magic),
        (4, DropReason::Version),
        (5, DropReason::Type),
        (60, DropReason::Seal),
    ] {
        let mut bad = probe.clone();
        bad[i] ^= 0xff;
        assert_eq!(knock(&mut r, &bad, 1, &mut answer), Err(reason));
    }
    assert_eq!(r.counters().get(DropReason::Seal), 1);
    // What opened is the key's; what did not is nobody's. Both outlive a change of the limits.
    r.replace_keys(vec![
        KeyEntry::new(key(2), 0, 9, 9),
        KeyEntry::new(key(1), 1, 9, 9),
    ]);
    let (other, mine) = (&r.keys()[0], &r.keys()[1]);
    assert_eq!((other.answered(), mine.answered()), (0, 4));
    assert_eq!(mine.drops().get(DropReason::Replay), 1);
    assert_eq!(mine.drops().get(DropReason::Challenge), 2);
    assert_eq!(mine.drops().get(DropReason::Seal), 0);
}

#[test]
fn a_client_that_restarts_in_a_loop_only_displaces_itself() {
    let mut r = reflector(4, 8);
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let (mut out, mut answer) = ([0; 1500], [0; 1500]);
    for i in 0..40u64 {
        let now = Monotonic::from_nanos((i + 1) * 1000 * MS);
        let owner = if i == 0 { 2 } else { 1 };
        let mut client: TestClient = Client::new(key(owner), now, &mut rng);
        for _ in 0..2 {
            let (len, _) = client.poll_transmit(now, &mut rng, &mut out).unwrap();
            let m = meta(now.as_nanos(), [192, 0, 2, owner], 5);
            let a = r
                .handle_request(now, &m, &mut out[..len], &mut answer, &mut rng)
                .unwrap();
            client.handle_reply(now, &m, &mut answer[..a.len]).unwrap();
        }
        assert_eq!(client.poll_event(), Some(SessionEvent::Established));
    }
    let now = Monotonic::from_nanos(41_000 * MS);
    let keys: Vec<u16> = r.sessions(now).map(|s| s.key).collect();
    assert_eq!(keys.iter().filter(|k| **k == 0).count(), 4);
    assert_eq!(keys.iter().filter(|k| **k == 1).count(), 1);
}

proptest! {
    #[test]
    fn strangers_get_nothing(bytes: Vec<u8>, kind in 0u8..64, header: bool) {
        let mut r = reflector(1, 2);
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut client: TestClient = Client::new(key(1), Monotonic::ZERO, &mut rng);
        let mut bytes = bytes;
        if header {
            let mut with = Vec::from(*b"BFBN\x01");
            with.push(kind);
            with.extend_from_slice(&[0, 0]);
            with.extend_from_slice(&[1; 8]);
            with.append(&mut bytes);
            bytes = with;
        }
        let m = meta(1, [192, 0, 2, 1], 1);
        let mut out = [0; 2000];
        let answer = r.handle_request(Monotonic::from_nanos(1), &m, &mut bytes.clone(), &mut out, &mut rng);
        prop_assert!(answer.is_err());
        prop_assert!(r.open_order(Monotonic::from_nanos(1), &m, &mut bytes.clone()).is_err());
        prop_assert!(client.open_report(Monotonic::ZERO, &mut bytes.clone()).is_err());
        prop_assert!(client.handle_reply(Monotonic::ZERO, &m, &mut bytes).is_err());
        prop_assert!(out.iter().all(|b| *b == 0));
    }
}
