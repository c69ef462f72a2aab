use std::vec;
use std::vec::Vec;

use core::net::SocketAddr;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::*;
use crate::drop_reason::DropReason;
use crate::flight::{LossSlot, Slot};
use crate::packet::{RecvMeta, SendOutcome};
use crate::sample::{Observation, Sample, SeriesIndex, Status};
use crate::time::{Monotonic, Stamp};
use crate::wire::stamp::{ErrorEstimate, Format, Key, Reply, Request};

const MS: u64 = 1_000_000;

fn at(ms: u64) -> Monotonic {
    Monotonic::from_nanos(1_000_000 * MS + ms * MS)
}

fn meta(from: SocketAddr, when: Monotonic) -> RecvMeta {
    RecvMeta {
        at: Stamp::kernel(when),
        from,
        to: None,
        ttl: Some(61),
        tos: None,
        socket_drops: 0,
        truncated: false,
    }
}

fn here() -> SocketAddr {
    ([192, 0, 2, 9], 40_000).into()
}

fn there() -> SocketAddr {
    ([198, 51, 100, 1], 862).into()
}

fn config(key: Option<Key>, counting: Counting) -> StampConfig {
    StampConfig {
        series: SeriesIndex(3),
        remote: there(),
        key,
        format: Format::Ntp,
        counting,
        size: 128,
        interval_ns: 10 * MS,
        spread_permille: 0,
        timeout_ns: 200 * MS,
    }
}

type Prober = StampProber<Vec<Slot>, Vec<LossSlot>>;
type Responder = StampResponder<Vec<Subnet>, Vec<Peer>>;

fn prober(config: StampConfig) -> Prober {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let slots = vec![Slot::default(); 64];
    StampProber::new(
        config,
        at(0),
        slots,
        vec![LossSlot::default(); 64],
        &mut rng,
    )
}

fn responder(key: Option<Key>) -> Responder {
    let home = Subnet {
        address: [192, 0, 2, 0].into(),
        prefix: 24,
    };
    StampResponder::new(vec![home], vec![Peer::default(); 2], key, 1000)
}

const CLOCK: StampClock = StampClock {
    offset_ns: 1_700_000_000_000_000_000,
    synchronised: true,
    error_ns: 1_000_000,
};

/// What a loss pattern made of the probes: `u` lost up, `d` lost down, `.` answered.
fn run(
    prober: &mut Prober,
    mut reflect: impl FnMut(&[u8], Monotonic) -> Vec<u8>,
    pattern: &str,
) -> Vec<Sample> {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut samples: Vec<Sample> = Vec::new();
    let mut out = [0; 1500];
    let mut collect = |p: &mut Prober| {
        while let Some(o) = p.poll_observation() {
            match o {
                Observation::New(s) => samples.push(s),
                Observation::Revised(s) => {
                    *samples.iter_mut().find(|x| x.seq == s.seq).unwrap() = s;
                }
            }
        }
    };
    for (i, fate) in pattern.chars().enumerate() {
        let now = at(10 * i as u64);
        prober.handle_timeout(now);
        let (len, token) = prober
            .poll_transmit(now, 1_800_000_000 * 1000 * MS, &mut rng, &mut out)
            .unwrap();
        assert_eq!(len, 128);
        prober.handle_sent(token, SendOutcome::Stamped(Stamp::kernel(now)));
        if fate != 'u' {
            let reply = reflect(&out[..len], now.saturating_add(2 * MS));
            if fate != 'd' {
                let back = meta(there(), now.saturating_add(5 * MS));
                assert_eq!(prober.handle_reply(&back, &reply), Ok(()));
            }
        }
        collect(prober);
    }
    for _ in 0..4 {
        prober.handle_timeout(at(100_000));
        collect(prober);
    }
    samples.sort_by_key(|s| s.seq);
    samples
}

fn statuses(samples: &[Sample]) -> std::string::String {
    samples
        .iter()
        .map(|s| match s.status {
            Status::Ok => '.',
            Status::LostUp => 'u',
            Status::LostDown => 'd',
            Status::Lost => '?',
            _ => '!',
        })
        .collect()
}

fn through(r: &mut Responder) -> impl FnMut(&[u8], Monotonic) -> Vec<u8> + '_ {
    |request, arrived| {
        let mut out = vec![0; 1500];
        // It answers 1 ms after the request arrived.
        let now = arrived.saturating_add(MS);
        let len = r
            .handle_request(now, &CLOCK, &meta(here(), arrived), request, &mut out)
            .unwrap();
        out.truncate(len);
        out
    }
}

#[test]
fn a_reflector_that_counts_tells_the_direction_and_one_that_does_not_tells_none() {
    let pattern = "....d...u..dd..uuu..ud....";
    let mut r = responder(None);
    let samples = run(
        &mut prober(config(None, Counting::Auto)),
        through(&mut r),
        pattern,
    );
    // Until the first loss upward nothing shows that it counts; a mixture has no order.
    assert_eq!(statuses(&samples), "....?...u..dd..uuu..??....");
    let mut r = responder(None);
    let samples = run(
        &mut prober(config(None, Counting::Stateful)),
        through(&mut r),
        pattern,
    );
    assert_eq!(statuses(&samples), "....d...u..dd..uuu..??....");
    assert_eq!(
        r.answered(),
        pattern.chars().filter(|c| *c != 'u').count() as u64
    );

    let stateless = |request: &[u8], arrived: Monotonic| {
        let request_fields = Request::parse(None, request).unwrap();
        let reply = Reply {
            seq: request_fields.seq,
            timestamp: Format::Ptp.write(CLOCK_NS + arrived.as_nanos()),
            error: ErrorEstimate {
                format: Format::Ptp,
                ..ErrorEstimate::default()
            }
            .write(),
            session: 0,
            receive_timestamp: Format::Ptp.write(CLOCK_NS + arrived.as_nanos()),
            request: request_fields,
            ttl: 64,
        };
        let mut out = vec![0; request.len()];
        reply.emit(None, request, &mut out).unwrap();
        out
    };
    let samples = run(
        &mut prober(config(None, Counting::Auto)),
        stateless,
        pattern,
    );
    assert_eq!(statuses(&samples), "....?...?..??..???..??....");
}

const CLOCK_NS: u64 = 1_700_000_000_000_000_000;

#[test]
fn residence_and_both_ways_are_taken_from_the_timestamps() {
    let key = Key::new(b"a key of some length").unwrap();
    let mut r = responder(Some(key.clone()));
    let samples = run(
        &mut prober(config(Some(key), Counting::Auto)),
        through(&mut r),
        "...",
    );
    let near = |ns: Option<u64>, ms: u64| ns.is_some_and(|ns| ns.abs_diff(ms * MS) <= 2);
    for s in &samples {
        // 5 ms in all, 1 ms of it at the reflector.
        assert!(near(s.rtt_ns, 4), "{s:?}");
        assert_eq!(s.ttl_up, Some(61));
        let sum = s.raw_up_ns.unwrap() + s.raw_down_ns.unwrap();
        assert!((sum - 4 * MS as i64).abs() <= 4, "{s:?}");
        assert!(s.raw_up_ns.unwrap().abs() < 1000 * MS as i64, "{s:?}");
    }
}

#[test]
fn strangers_and_wrong_keys_get_nothing_and_the_rate_is_kept() {
    let key = Key::new(b"a key of some length").unwrap();
    let other = Key::new(b"another key of those").unwrap();
    let request = Request {
        seq: 0,
        timestamp: 1,
        error: 1,
        session: 1,
    };
    let mut sealed = [0; 112];
    request.emit(Some(&key), 112, &mut sealed).unwrap();
    let mut wrong = [0; 112];
    request.emit(Some(&other), 112, &mut wrong).unwrap();
    let mut out = [0; 112];
    let mut r = responder(Some(key));
    let mut ask = |from: SocketAddr, bytes: &[u8], ms| {
        r.handle_request(at(ms), &CLOCK, &meta(from, at(ms)), bytes, &mut out)
    };
    let stranger = ([203, 0, 113, 1], 862).into();
    assert_eq!(ask(stranger, &sealed, 0), Err(DropReason::UnknownKey));
    assert_eq!(ask(here(), &wrong, 0), Err(DropReason::Seal));
    assert_eq!(ask(here(), &sealed[..111], 0), Err(DropReason::Length));
    assert_eq!(ask(here(), &sealed, 0), Ok(112));
    // Of 1000 in a second three are spent.
    let answered = (0..2000)
        .filter(|_| ask(here(), &sealed, 0).is_ok())
        .count();
    assert_eq!(answered, 997);
    assert_eq!(ask(here(), &sealed, 0), Err(DropReason::RateLimit));
    assert_eq!(ask(here(), &sealed, 10), Ok(112));
    // Two senders have a place; a third one gets one when a place has been idle.
    let port = |p| SocketAddr::from(([192, 0, 2, 9], p));
    assert_eq!(ask(port(2), &sealed, 20), Ok(112));
    assert_eq!(ask(port(3), &sealed, 30), Err(DropReason::Full));
    assert_eq!(ask(port(3), &sealed, 70_000), Ok(112));
}

#[test]
fn a_reply_of_another_session_or_from_elsewhere_is_not_taken() {
    let mut p = prober(config(None, Counting::Auto));
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut out = [0; 1500];
    let (len, token) = p.poll_transmit(at(0), 1, &mut rng, &mut out).unwrap();
    p.handle_sent(token, SendOutcome::NoStamp);
    let mut r = responder(None);
    let reply = through(&mut r)(&out[..len], at(1));
    assert_eq!(
        p.handle_reply(&meta(here(), at(2)), &reply),
        Err(DropReason::Unmatched)
    );
    let mut foreign = reply.clone();
    foreign[15] ^= 1;
    assert_eq!(
        p.handle_reply(&meta(there(), at(2)), &foreign),
        Err(DropReason::UnknownSession)
    );
    let mut unsent = reply.clone();
    unsent[27] = 9;
    assert_eq!(
        p.handle_reply(&meta(there(), at(2)), &unsent),
        Err(DropReason::Unmatched)
    );
    assert_eq!(p.handle_reply(&meta(there(), at(2)), &reply), Ok(()));
}

#[test]
fn subnets_hold_what_shares_their_bits() {
    let net = |address: &str, prefix| Subnet {
        address: address.parse().unwrap(),
        prefix,
    };
    let holds = |n: Subnet, ip: &str| n.contains(ip.parse().unwrap());
    assert!(holds(net("10.0.0.0", 8), "10.255.1.1") && !holds(net("10.0.0.0", 8), "11.0.0.1"));
    assert!(holds(net("10.1.2.3", 32), "10.1.2.3") && !holds(net("10.1.2.3", 32), "10.1.2.2"));
    assert!(holds(net("0.0.0.0", 0), "9.9.9.9") && !holds(net("0.0.0.0", 0), "::1"));
    assert!(holds(net("2001:db8::", 32), "2001:db8:1::") && holds(net("::", 0), "::1"));
}
