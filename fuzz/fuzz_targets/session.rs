//! A session whose sealed plaintext of every kind, times and order are arbitrary, and a throughput test
//! and trains within it: no panic, no answer larger than its request but trains to an address that is
//! proven, every probe's end reported once.
#![no_main]

use std::collections::HashMap;

use bufferbane_core::flight::{LossSlot, Slot};
use bufferbane_core::load::guest::{Guest, Wish};
use bufferbane_core::load::host::{Asker, Host, HostLimits, MAX_TESTS, Room};
use bufferbane_core::load::write_token;
use bufferbane_core::packet::{RecvMeta, SendOutcome, SendToken};
use bufferbane_core::sample::{Observation, SeriesIndex, Status};
use bufferbane_core::seal::{KeyId, Nonce, PresharedKey, Secret, SessionKeys, open, seal};
use bufferbane_core::session::client::{Client, StreamConfig};
use bufferbane_core::session::record::StreamRecord;
use bufferbane_core::session::reflector::{KeyEntry, Reflector, Session};
use bufferbane_core::time::{Monotonic, Stamp};
use bufferbane_core::train::host::{Host as TrainHost, Record};
use bufferbane_core::wire::train::{Ask, Car, MIN_TRAIN_SIZE};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

const KNOCK_HEADER: usize = 40;
const SESSION_HEADER: usize = 20;
const WELCOME: u8 = 4;
const ORDER: u8 = 32;
const REPORT: u8 = 33;
const TRAIN: u8 = 48;
const TRAIN_ASK: u8 = 49;
const TRAIN_REPORT: u8 = 50;
/// Bytes of the day that are left for trains to the client.
const DAY: u64 = 1 << 20;
/// Datagrams of such a train that leave at once.
const CARS: usize = 4;

/// Where the keys are that a datagram is sealed with.
struct Seals<'a> {
    key: &'a PresharedKey,
    knock: &'a Secret,
    /// By the session's number as it stands in the header.
    sessions: HashMap<[u8; 4], SessionKeys>,
}

impl Seals<'_> {
    /// Learns the keys of the session that a welcome begins.
    fn learn(&mut self, welcome: &[u8]) {
        let mut copy = welcome.to_vec();
        if copy[5] != WELCOME {
            return;
        }
        let nonce = Nonce::Random(welcome[16..40].try_into().unwrap());
        if let Ok(body) = open(self.knock, nonce, &mut copy, KNOCK_HEADER) {
            let (client, server) = (
                body[..32].try_into().unwrap(),
                body[32..64].try_into().unwrap(),
            );
            let keys = self.key.session_keys(client, server);
            self.sessions.insert(body[72..76].try_into().unwrap(), keys);
        }
    }

    /// Changes byte `at` of the plaintext of a datagram, under a right seal and, in a session, a
    /// counter that is as much higher.
    fn change(&self, up: bool, datagram: &mut [u8], at: u8, to: u8, higher: u64) {
        let knocks = datagram[5] <= WELCOME;
        let header_len = if knocks { KNOCK_HEADER } else { SESSION_HEADER };
        if datagram.len() <= header_len {
            return;
        }
        let mut copy = datagram.to_vec();
        let (secret, nonce, counter) = if knocks {
            let nonce: [u8; 24] = datagram[16..40].try_into().unwrap();
            (self.knock, Nonce::Random(nonce), None)
        } else {
            let number: [u8; 4] = datagram[8..12].try_into().unwrap();
            let Some(keys) = self.sessions.get(&number) else {
                return;
            };
            let counter = u64::from_be_bytes(datagram[12..20].try_into().unwrap());
            let secret = if up { &keys.up } else { &keys.down };
            (secret, Nonce::Counter(counter), Some(counter))
        };
        let Ok(body) = open(secret, nonce, &mut copy, header_len) else {
            return;
        };
        let i = header_len + usize::from(at) % body.len();
        copy[i] = to;
        let nonce = match counter.map(|c| c.saturating_add(higher)) {
            Some(counter) => {
                copy[12..20].copy_from_slice(&counter.to_be_bytes());
                Nonce::Counter(counter)
            }
            None => nonce,
        };
        assert!(seal(secret, nonce, &mut copy, header_len).is_ok());
        datagram.copy_from_slice(&copy);
    }
}

type FuzzReflector<'a> = Reflector<&'a mut [KeyEntry], &'a mut [Session], &'a mut [StreamRecord]>;

/// What the reflector has to do with trains.
struct Trains<'a> {
    host: TrainHost<&'a mut [Record], ()>,
    left: u64,
}

impl Trains<'_> {
    /// The answer to an ask, and the begin of the train that it may have earned.
    fn answer(
        &mut self,
        now: Monotonic,
        meta: &RecvMeta,
        reflector: &mut FuzzReflector<'_>,
        datagram: &mut [u8],
    ) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        let len = datagram.len();
        let Ok((from, ask)) = reflector.open_ask(now, meta, datagram) else {
            return sent;
        };
        let left = Some(self.left);
        let Ok(mut answer) = self.host.handle_ask(now, from, (), &ask, left) else {
            return sent;
        };
        assert!(answer.granted == 0 || from.proven);
        self.left = self
            .left
            .checked_sub(answer.granted)
            .expect("no more than was left");
        answer.fit(len);
        let mut report = vec![0; len];
        let written =
            reflector.write_train_report(from, &answer.report, answer.arrivals, &mut report);
        sent.extend(written.map(|()| report));
        for _ in 0..CARS {
            let Some(departure) = self.host.poll_car(now) else {
                break;
            };
            assert!(departure.to.proven);
            let mut car = vec![0; departure.size.into()];
            match reflector.write_car(departure.to, &departure.car, &mut car) {
                Some(()) => sent.push(car),
                None => self.host.abandon(departure.to),
            }
        }
        sent
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let key = PresharedKey {
        id: KeyId([1; 8]),
        secret: Secret::new([2; 32]),
    };
    let knock = key.knock_key();
    let mut now = Monotonic::from_nanos(1_000_000_000);
    let mut keys = [KeyEntry::new(key.clone(), 0, 1000, 2)];
    let mut sessions = [Session::default(), Session::default()];
    let mut streams = [StreamRecord::default(); 2];
    let mut reflector = Reflector::new(
        &mut keys[..],
        &mut sessions[..],
        &mut streams[..],
        100,
        &mut rng,
    );
    let mut seals = Seals {
        key: &key,
        knock: &knock,
        sessions: HashMap::new(),
    };
    let mut client = Client::new(key.clone(), now, &mut rng);
    let wish = Wish {
        streams_up: 1,
        streams_down: 1,
        time_ms: 1000,
        dscp: [0; 8],
        congestion: [0; 16],
        prefix: None,
        offer: None,
    };
    let mut guest = Guest::new(wish, 7, now);
    let limits = HostLimits {
        concurrent: 2,
        streams: 4,
    };
    let room = std::iter::repeat_with(Room::default).take(MAX_TESTS);
    let mut host = Host::new(limits, room.collect::<Vec<_>>());
    let mut records = [Record::default(), Record::default()];
    let mut trains = Trains {
        host: TrainHost::new(&mut records[..]),
        left: DAY,
    };
    let config = StreamConfig {
        series: SeriesIndex(0),
        size: 128,
        interval_ns: 10_000_000,
        spread_permille: 1000,
        timeout_ns: 100_000_000,
    };
    let slots = vec![Slot::default(); 32];
    let added = client.add_stream(config, now, slots, vec![LossSlot::default(); 32], &mut rng);
    assert!(added.is_ok());
    let mut tokens: Vec<SendToken> = Vec::new();
    let mut wire: Vec<(bool, Vec<u8>)> = Vec::new();
    let mut reported = std::collections::BTreeSet::new();
    let mut out = [0; 2048];
    for op in bytes.chunks(4) {
        let arg = |i: usize| op.get(i).copied().unwrap_or(0);
        let meta = RecvMeta {
            at: Stamp::kernel(now.saturating_sub(u64::from(arg(3)) * 1000)),
            from: ([192, 0, 2, arg(3) & 1], 1).into(),
            to: None,
            ttl: Some(arg(3)),
            tos: Some(arg(2)),
            socket_drops: u32::from(arg(1) >> 6),
            truncated: false,
        };
        match arg(0) % 10 {
            0 | 1 => {
                now = now.saturating_add(
                    u64::from(arg(1)) * 1_000_000 * (1 + u64::from(arg(2) & 3) * 40),
                );
                client.handle_timeout(now);
                while let Some((len, token)) = client.poll_transmit(now, &mut rng, &mut out) {
                    tokens.push(token);
                    wire.push((true, out[..len].to_vec()));
                }
            }
            2 | 3 if !wire.is_empty() => {
                let at = usize::from(arg(1)) % wire.len();
                let (up, mut datagram) = if arg(2) & 1 == 0 {
                    wire.swap_remove(at)
                } else {
                    wire[at].clone()
                };
                if up && datagram[5] == ORDER {
                    if let Ok((from, order)) = reflector.open_order(now, &meta, &mut datagram) {
                        let asker = Asker {
                            client: from.client,
                            bytes_left: (arg(2) & 2 > 0).then_some(1 << (arg(2) >> 2)),
                            congestion_known: arg(2) & 4 == 0,
                            port: 9,
                            max_rate_bps: None,
                            proven: from.proven,
                            may_announce: true,
                            figures: None,
                        };
                        let report = host.handle_order(now, &asker, &order, &mut rng);
                        if let Some(sealed) =
                            report.ok().and_then(|r| reflector.write_report(from, &r))
                        {
                            assert!(sealed.len() <= datagram.len());
                            wire.push((false, sealed.to_vec()));
                        }
                    }
                } else if up && datagram[5] == TRAIN {
                    if let Ok((from, car)) = reflector.open_car(now, &meta, &mut datagram) {
                        let drops = meta.socket_drops;
                        let _ = trains.host.handle_car(from, meta.at, &car, drops);
                    }
                } else if up && datagram[5] == TRAIN_ASK {
                    let sent = trains.answer(now, &meta, &mut reflector, &mut datagram);
                    wire.extend(sent.into_iter().map(|d| (false, d)));
                } else if !up && datagram[5] == TRAIN {
                    let _ = client.open_car(now, &mut datagram);
                } else if !up && datagram[5] == TRAIN_REPORT {
                    let _ = client.open_train_report(now, &mut datagram);
                } else if !up && datagram[5] == REPORT {
                    if let Ok(report) = client.open_report(now, &mut datagram) {
                        let _ = guest.handle_report(now, &report);
                    }
                } else if up {
                    let answer =
                        reflector.handle_request(now, &meta, &mut datagram, &mut out, &mut rng);
                    if let Ok(answer) = answer {
                        assert!(answer.len <= datagram.len());
                        seals.learn(&out[..answer.len]);
                        wire.push((false, out[..answer.len].to_vec()));
                        if let Some(token) = answer.token {
                            reflector.handle_sent(token, SendOutcome::Stamped(Stamp::kernel(now)));
                        }
                    }
                } else {
                    let _ = client.handle_reply(now, &meta, &mut datagram);
                }
            }
            4 if !tokens.is_empty() => {
                let token = tokens.swap_remove(usize::from(arg(1)) % tokens.len());
                let outcome = match arg(2) % 3 {
                    0 => SendOutcome::NoStamp,
                    1 => SendOutcome::Failed(i32::from(arg(3))),
                    _ => SendOutcome::Stamped(Stamp::kernel(now)),
                };
                client.handle_sent(token, outcome);
            }
            // Another plaintext under a right seal.
            5 if !wire.is_empty() => {
                let at = usize::from(arg(1)) % wire.len();
                let (up, datagram) = &mut wire[at];
                let higher = u64::from(arg(0) / 10) << (arg(2) >> 3);
                seals.change(*up, datagram, arg(2), arg(3), higher);
            }
            // The throughput test goes on.
            6 => {
                guest.handle_timeout(now);
                host.handle_timeout(now);
                if arg(1) & 1 == 0
                    && let Some(order) = guest.poll_order(now)
                    && let Some(sealed) = client.write_order(&order)
                {
                    wire.push((true, sealed.to_vec()));
                }
                while host.poll_ended().is_some() {}
            }
            // A stream of it begins, with a token that is right but for one byte, or right.
            7 => {
                if let Some(grant) = guest.grant() {
                    let mut token = write_token(grant.handle, &grant.secret, arg(1) & 7);
                    let i = usize::from(arg(2)) % token.len();
                    if arg(1) & 8 > 0 {
                        token[i] ^= arg(3);
                    }
                    if let Ok(admitted) = host.admit(now, &token) {
                        let bytes = u64::from(arg(2)) << (arg(3) & 63);
                        host.received(admitted.test, admitted.stream, now, bytes);
                        host.sent(admitted.test, now, bytes);
                        host.in_band(admitted.test, now, bytes);
                    }
                }
            }
            // Something is asked about a train.
            8 => {
                let ask = Ask {
                    op: arg(1) & 3,
                    reserved: 0,
                    count: (u16::from(arg(2)) * 3).into(),
                    train: u32::from(arg(1) >> 6).into(),
                    size: (u16::from(arg(3)) * 6).into(),
                    first: u16::from(arg(2)).into(),
                    number: 1.into(),
                    reserved2: [0; 16],
                };
                let out = &mut out[..MIN_TRAIN_SIZE + usize::from(arg(3))];
                if client.write_ask(&ask, out).is_some() {
                    wire.push((true, out.to_vec()));
                }
            }
            // Or a datagram of one is sent.
            9 => {
                let car = Car {
                    train: u32::from(arg(1) >> 6).into(),
                    index: u16::from(arg(2)).into(),
                    count: (u16::from(arg(3)) * 3).into(),
                    sent_ns: 0.into(),
                    reserved: 0.into(),
                };
                let out = &mut out[..MIN_TRAIN_SIZE];
                if client.write_car(&car, out).is_some() {
                    wire.push((true, out.to_vec()));
                }
            }
            _ => {}
        }
        while let Some(o) = client.poll_observation() {
            if let Observation::New(s) = o
                && s.status != Status::Duplicate
            {
                assert!(reported.insert(s.seq), "probe {} ended twice", s.seq);
            }
        }
        while client.poll_event().is_some() {}
    }
});
