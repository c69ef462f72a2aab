//! The fuzz targets without a fuzzer: each goes through its seed corpus, which is made of real
//! messages, in every ordinary test run. The targets of other crates are gone through there.

extern crate self as libfuzzer_sys;

#[path = "../../fuzz/replay.rs"]
mod replay;

use bufferbane_core::clock::Knot;
use bufferbane_core::household::{Household, MAX_ENCODED_MINUTE, Minute, Seen};
use bufferbane_core::record;
use bufferbane_core::sample::{Flags, Sample, SeriesIndex, Status};
use bufferbane_core::stats::summary::{MAX_ENCODED, Summary};
use bufferbane_core::time::{ClockSource, Monotonic};
use bufferbane_core::wire::icmp::{Echo, Version, checksum};
use replay::{Seeds, folder, replay};

/// In place of libFuzzer's: the target's body as a function.
#[macro_export]
macro_rules! fuzz_target {
    (|$bytes:ident: &[u8]| $body:block) => {
        pub(crate) fn run($bytes: &[u8]) $body
    };
}

macro_rules! targets {
    ($($name:ident $file:literal)*) => {
        $(
            #[path = $file]
            #[allow(unused_attributes, reason = "no_main is for the fuzzer's program")]
            mod $name;
        )*
        const TARGETS: &[(&str, fn(&[u8]))] = &[$((stringify!($name), $name::run)),*];
    };
}

targets! {
    block "../../fuzz/fuzz_targets/block.rs"
    floor "../../fuzz/fuzz_targets/floor.rs"
    household "../../fuzz/fuzz_targets/household.rs"
    icmp "../../fuzz/fuzz_targets/icmp.rs"
    load "../../fuzz/fuzz_targets/load.rs"
    session "../../fuzz/fuzz_targets/session.rs"
    sizes "../../fuzz/fuzz_targets/sizes.rs"
    stamp "../../fuzz/fuzz_targets/stamp.rs"
    strangers "../../fuzz/fuzz_targets/strangers.rs"
    summary "../../fuzz/fuzz_targets/summary.rs"
    trace "../../fuzz/fuzz_targets/trace.rs"
    train "../../fuzz/fuzz_targets/train.rs"
}

/// One second of a line at 20 Hz: answered, late, lost in each direction, doubled, not sent.
fn samples() -> Vec<Sample> {
    (0..20)
        .map(|i| {
            let sent = Monotonic::from_nanos(1_000_000_000 + i * 50_000_000 + i * i * 1000);
            let mut s = Sample::lost(SeriesIndex(0), i, sent, 128);
            s.tx_clock = ClockSource::Kernel;
            s.send_late_ns = 20_000 + i as i64;
            s.status = match i {
                3 => Status::LostUp,
                7 | 8 => Status::LostDown,
                11 => Status::Lost,
                13 => Status::Unsent,
                15 => Status::Late,
                17 => Status::Duplicate,
                _ => Status::Ok,
            };
            if s.status == Status::Unsent {
                s.errno = 101;
            }
            if s.status.is_answered() {
                s.rtt_ns = Some(20_000_000 + i * i * 7_000);
                s.raw_up_ns = Some(5_000_000_000 + i as i64 * 1000);
                s.raw_down_ns = Some(-4_980_000_000);
                s.rx_clock = ClockSource::Kernel;
                s.remote_rx_clock = ClockSource::Kernel;
                s.remote_tx_clock = ClockSource::Kernel;
                (s.ttl_up, s.ttl_down, s.tos_seen) = (Some(57), Some(58), Some(0));
                s.flags = Flags::from_bits(u8::from(i == 5));
            }
            s
        })
        .collect()
}

fn block() -> Seeds {
    let all = samples();
    let encode = |samples: &[Sample]| {
        let mut out = vec![0; 1 << 16];
        let len = record::encode(samples, &mut out).unwrap();
        assert!(record::decode(&out[..len]).unwrap().eq(samples.to_vec()));
        out[..len].to_vec()
    };
    [("one", &all[..1]), ("answered", &all[..3]), ("all", &all)]
        .into_iter()
        .flat_map(|(name, samples)| {
            let whole = encode(samples);
            // And what stands between a block's begin and its checksum, which the target adds.
            let within = whole[2..whole.len() - 4].to_vec();
            [
                (name.to_owned(), whole),
                (format!("{name}-columns"), within),
            ]
        })
        .collect()
}

fn summary() -> Seeds {
    let encode = |summary: &Summary| {
        let mut out = vec![0; MAX_ENCODED];
        let len = summary.encode(&mut out).unwrap();
        assert!(Summary::decode(&out[..len]).unwrap() == *summary);
        out[..len].to_vec()
    };
    let mut of_all = Summary::new();
    samples().iter().for_each(|s| of_all.add(s));
    let mut merged = of_all.clone();
    merged.merge(&of_all);
    let mut seeds: Seeds = [
        ("empty", &Summary::new()),
        ("second", &of_all),
        ("merged", &merged),
    ]
    .map(|(name, s)| (name.to_owned(), encode(s)))
    .into();
    // Two to be merged, the first short enough for its length in front.
    let mut of_one = Summary::new();
    of_one.add(&samples()[0]);
    let first = encode(&of_one);
    let pair = [&[first.len() as u8], &first[..], &encode(&of_all)].concat();
    assert!(first.len() < 256);
    seeds.insert("pair".into(), pair);
    seeds
}

/// What the target reads before a knot: where it is, and where it is asked.
fn floor() -> Seeds {
    let knot = |up_ns, down_ns, slope_ppb, begins| Knot {
        at: Monotonic::from_nanos(60_000_000_000),
        begins,
        quality: 90,
        up_ns,
        down_ns,
        slope_ppb,
        err_ns: 1_000,
    };
    [
        ("level", knot(5_000_000_000, -4_990_000_000, 0, true)),
        ("drifting", knot(-70_000, 20_070_000, 35_000, false)),
        ("extreme", knot(i64::MAX, i64::MIN, i32::MIN, false)),
    ]
    .map(|(name, k)| {
        let mut out = [0; Knot::MAX_ENCODED];
        let len = k.encode(&mut out).unwrap();
        let times = [k.at.as_nanos(), 65_000_000_000].map(u64::to_le_bytes);
        (name.to_owned(), [&times.concat(), &out[..len]].concat())
    })
    .into()
}

/// A quiet minute, one of a full upload, and one without anything.
fn household() -> Seeds {
    let minute = |seconds_of_load: u64| {
        let (mut h, mut sent) = (Household::new(), 0);
        for n in 0..1300u64 {
            let now = Monotonic::from_nanos(n * 100_000_000);
            let loaded = n < seconds_of_load * 10;
            sent += if loaded { 125_000 } else { 300 };
            h.handle_counters(now, sent, n * 700);
            h.handle_probe(&Seen {
                sent: now,
                rtt_ns: Some(20_000_000),
                queue_up_ns: Some(if loaded {
                    180_000_000
                } else {
                    1_000_000 + n * 10
                }),
                queue_down_ns: Some(n * 7 % 50_000),
                ..Seen::default()
            });
            h.handle_timeout(now);
            while h.poll_second().is_some() || h.poll_estimate().is_some() {}
            if let Some((_, minute)) = h.poll_minute() {
                return minute;
            }
        }
        Minute::new()
    };
    [
        ("empty", Minute::new()),
        ("quiet", minute(0)),
        ("full", minute(40)),
    ]
    .map(|(name, m)| {
        let mut out = vec![0; MAX_ENCODED_MINUTE];
        let len = m.encode(&mut out).unwrap();
        (name.to_owned(), out[..len].to_vec())
    })
    .into()
}

fn icmp() -> Seeds {
    let echo = Echo {
        identifier: 0x4246,
        cookie: 0x0102_0304_0506_0708,
        seq: 7,
    };
    let mut seeds = Seeds::new();
    for (version, name, reply) in [(Version::V4, "v4", 0), (Version::V6, "v6", 129)] {
        for size in [24, 64, 1472] {
            let mut out = vec![0; size];
            echo.emit_request(version, size, &mut out).unwrap();
            seeds.insert(format!("{name}-request-{size}"), out.clone());
            out[0] = reply;
            if version == Version::V4 {
                out[2..4].fill(0);
                let sum = checksum(&out);
                out[2..4].copy_from_slice(&sum.to_be_bytes());
            }
            assert!(Echo::parse_reply(version, &out).is_ok(), "{name} {size}");
            if size == 64 && version == Version::V4 {
                let mut header = vec![0x45, 0, 0, 84, 0, 1, 0, 0, 57, 1, 0, 0];
                header.extend([192, 0, 2, 1, 192, 0, 2, 7]);
                seeds.insert("v4-packet".into(), [header, out.clone()].concat());
            }
            seeds.insert(format!("{name}-reply-{size}"), out);
        }
    }
    seeds
}

/// The messages of the vector file: whoever has another key says just these to a reflector.
fn strangers() -> Seeds {
    let text = include_str!("vectors/messages.txt").replace("\\\n", "");
    let mut section = "";
    let mut seeds = Seeds::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some(hex) = line.strip_prefix("datagram = ") {
            let hex: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
            let bytes = hex
                .chunks(2)
                .map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap());
            let name = section.replace([' ', '/'], "-");
            seeds.insert(name, bytes.collect());
        }
    }
    assert!(seeds.len() >= 8 && seeds.values().all(|s| s.starts_with(b"BFBN")));
    seeds
}

/// Both STAMP formats, without and with room for more than the base packet.
fn stamp() -> Seeds {
    [
        ("request-44", 44),
        ("request-112", 112),
        ("padded-200", 200),
    ]
    .map(|(name, len)| {
        let mut bytes = vec![0; len];
        bytes[..4].copy_from_slice(&7u32.to_be_bytes());
        bytes[4..12].copy_from_slice(&0xea53_1e80_8000_0000u64.to_be_bytes());
        // Synchronised, a scale of 16, a multiplier of 1.
        bytes[12..14].copy_from_slice(&0x9001u16.to_be_bytes());
        (name.to_owned(), bytes)
    })
    .into()
}

/// What the target reads four bytes at a time: time passes, a datagram arrives, a stamp comes.
fn session() -> Seeds {
    const PASS_50_MS: [u8; 4] = [0, 50, 0, 0];
    const DELIVER: [u8; 4] = [2, 0, 0, 0];
    const DELIVER_TWICE: [u8; 4] = [2, 0, 1, 0];
    const STAMPED: [u8; 4] = [4, 0, 2, 0];
    const NO_STAMP: [u8; 4] = [4, 0, 0, 0];
    const FAILED: [u8; 4] = [4, 0, 1, 101];
    const OTHER_PLAINTEXT: [u8; 4] = [5, 0, 3, 0xff];
    const MINUTES_PASS: [u8; 4] = [0, 255, 3, 0];
    const CAR: [u8; 4] = [9, 0, 0, 4];
    const ASK_ARRIVALS: [u8; 4] = [8, 1, 0, 40];
    const ASK_TRAIN: [u8; 4] = [8, 2, 8, 40];
    let greet = [PASS_50_MS, DELIVER, DELIVER, PASS_50_MS, DELIVER, DELIVER];
    let probe = [PASS_50_MS, STAMPED, DELIVER, DELIVER];
    let sequence = |parts: &[&[[u8; 4]]]| parts.concat().concat();
    [
        ("greeting", sequence(&[&greet])),
        ("probes", sequence(&[&greet, &probe, &probe, &probe])),
        (
            "losses",
            sequence(&[&greet, &[PASS_50_MS, PASS_50_MS, NO_STAMP, FAILED], &probe]),
        ),
        (
            "replays",
            sequence(&[&greet, &[PASS_50_MS, DELIVER_TWICE, DELIVER_TWICE, DELIVER]]),
        ),
        (
            "forged-greeting",
            sequence(&[&[PASS_50_MS, OTHER_PLAINTEXT, DELIVER], &greet]),
        ),
        (
            "trains",
            sequence(&[
                &greet,
                &[CAR, DELIVER, ASK_ARRIVALS, DELIVER, DELIVER],
                &[ASK_TRAIN, DELIVER, DELIVER, DELIVER, DELIVER],
            ]),
        ),
        (
            "silence",
            sequence(&[&greet, &probe, &[MINUTES_PASS; 8], &greet, &probe]),
        ),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into()
}

/// What the target reads four bytes at a time: an order and its report go to and fro, datagrams leave and
/// arrive.
fn load() -> Seeds {
    const ORDER: [u8; 4] = [2, 0, 0, 0];
    const ORDER_ARRIVES: [u8; 4] = [3, 0, 0, 0];
    const REPORT_ARRIVES: [u8; 4] = [4, 0, 0, 0];
    const LOAD: [u8; 4] = [1, 0, 0, 0];
    const UNLOAD: [u8; 4] = [1, 0, 1, 0];
    const STOP: [u8; 4] = [1, 0, 2, 0];
    const SEND: [u8; 4] = [5, 0, 0, 0];
    const ARRIVES: [u8; 4] = [6, 0, 0, 0];
    const ARRIVES_TWICE: [u8; 4] = [6, 0, 1, 0];
    const ARRIVES_CHANGED: [u8; 4] = [6, 1, 2, 30];
    const DEPART: [u8; 4] = [7, 0, 0, 0];
    const NOT_SENT: [u8; 4] = [7, 0, 2, 0];
    const DEPART_UNHEARD: [u8; 4] = [7, 0, 4, 0];
    const COMES: [u8; 4] = [8, 0, 0, 0];
    const OVERTAKES: [u8; 4] = [8, 1, 0, 0];
    const PASS_30_MS: [u8; 4] = [0, 30, 0, 0];
    const SECONDS_PASS: [u8; 4] = [0, 95, 1, 0];
    const PROBE: [u8; 4] = [9, 0, 0, 0];
    const ORDER_LIES_OF_RATE: [u8; 4] = [3, 0, 0x88, 0x3f];
    const REPORT_LIES_OF_BINS: [u8; 4] = [4, 0, 0x68, 0xff];
    const FROM_ELSEWHERE: [u8; 4] = [3, 0, 4, 0];
    let ask = [ORDER, ORDER_ARRIVES, REPORT_ARRIVES];
    let both_ways = [
        PASS_30_MS, PROBE, SEND, DEPART, ARRIVES, ARRIVES, COMES, OVERTAKES,
    ];
    let end = [
        SECONDS_PASS,
        PROBE,
        UNLOAD,
        ORDER,
        ORDER_ARRIVES,
        REPORT_ARRIVES,
    ];
    let stop = [STOP, ORDER, ORDER_ARRIVES, REPORT_ARRIVES];
    let sequence = |parts: &[&[[u8; 4]]]| parts.concat().concat();
    [
        (
            "whole",
            sequence(&[&ask, &[LOAD], &ask, &both_ways, &both_ways, &end, &stop]),
        ),
        (
            "spoilt",
            sequence(&[
                &ask,
                &[LOAD],
                &ask,
                &[
                    PASS_30_MS,
                    SEND,
                    NOT_SENT,
                    ARRIVES_TWICE,
                    ARRIVES_CHANGED,
                    ARRIVES,
                ],
                &both_ways,
                &stop,
            ]),
        ),
        (
            "lies",
            sequence(&[
                &[ORDER, ORDER_LIES_OF_RATE, REPORT_ARRIVES, LOAD],
                &[ORDER, ORDER_ARRIVES, REPORT_LIES_OF_BINS],
                &both_ways,
                &stop,
            ]),
        ),
        (
            "moves",
            sequence(&[
                &ask,
                &[LOAD, ORDER, FROM_ELSEWHERE, REPORT_ARRIVES, DEPART_UNHEARD],
                &both_ways,
                &[SECONDS_PASS, SECONDS_PASS],
                &ask,
                &both_ways,
            ]),
        ),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into()
}

/// What the target reads: how is traced, and then who says what (type, code) how much later.
fn trace() -> Seeds {
    const NINE_HOPS: u8 = 9 << 3;
    let exceeded = |kind: u8| (1..9).flat_map(move |n| [n, kind, 0, 5, 0]);
    let with = |how: u8, said: &mut dyn Iterator<Item = u8>| -> Vec<u8> {
        std::iter::once(NINE_HOPS | how).chain(said).collect()
    };
    let unreachable = [[1, 11, 0, 5, 0], [1, 3, 0, 5, 0]];
    let from_target = [[1, 11, 0, 5, 0], [9, 3, 3, 5, 0]];
    [
        ("udp", with(0, &mut exceeded(11))),
        ("echo", with(2, &mut exceeded(11))),
        ("echo-raw-v6", with(5, &mut exceeded(3))),
        ("refused", with(2, &mut unreachable.concat().into_iter())),
        ("reached", with(0, &mut from_target.concat().into_iter())),
        ("silence", with(2, &mut std::iter::empty())),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into()
}

/// What the target reads: how is searched and up to which size, and then, in turn, whether a message is sent, and
/// who says what how much later.
fn sizes() -> Seeds {
    const SENT: &[u8] = &[0];
    const NOT_SENT: &[u8] = &[7];
    /// That the message is too big, by the host (0) or another (1), with the size that is not: 1420.
    const TOO_BIG: &[u8] = &[1, 3, 4, 5, 5, 140, 0];
    /// The message, answered.
    const REPLY: &[u8] = &[4, 0, 0, 5, 0, 0, 0];
    const CUT_REPLY: &[u8] = &[0x34, 0, 0, 5, 0, 0, 0];
    /// Nobody has the port.
    const PORT: &[u8] = &[2, 3, 3, 5, 0, 0, 0];
    let with = |how: u8, said: &[&[u8]]| [&[how, 5, 220], &said.concat()[..]].concat();
    let answered = [SENT, REPLY, SENT, REPLY];
    [
        ("whole", with(4, &answered)),
        ("whole-v6", with(5, &answered)),
        ("udp", with(0, &[SENT, PORT, SENT, PORT])),
        ("told", with(4, &[SENT, REPLY, SENT, TOO_BIG, SENT, REPLY])),
        ("refused", with(4, &[SENT, REPLY, NOT_SENT, SENT, REPLY])),
        ("cut", with(4, &[SENT, CUT_REPLY, SENT, CUT_REPLY])),
        ("vanishing", with(4, &[SENT, REPLY])),
        ("silence", with(2, &[])),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into()
}

/// What the target reads: which way and how many, and then ten bytes of each arrival.
fn train() -> Seeds {
    let arrivals = |way: u8, gap_ns: u32, batch: u32| -> Vec<u8> {
        let one = |i: u32| {
            let at = (i - i % batch) * gap_ns + i % batch * 1000;
            let index = (i as u16).to_be_bytes();
            [&index[..], &at.to_be_bytes(), &(i * 8000).to_be_bytes()].concat()
        };
        let begin = [way, 30];
        begin.into_iter().chain((0..60).flat_map(one)).collect()
    };
    [
        ("plain", arrivals(0, 1_200_000, 1)),
        ("batches", arrivals(0, 1_200_000, 4)),
        ("down", arrivals(1, 120_000, 1)),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into()
}

fn seeds(target: &str) -> Seeds {
    match target {
        "block" => block(),
        "floor" => floor(),
        "household" => household(),
        "icmp" => icmp(),
        "load" => load(),
        "session" => session(),
        "sizes" => sizes(),
        "stamp" => stamp(),
        "strangers" => strangers(),
        "summary" => summary(),
        "trace" => trace(),
        "train" => train(),
        _ => panic!("{target} has no seeds"),
    }
}

#[test]
fn every_target_goes_through_its_corpus() {
    for (target, run) in TARGETS {
        replay(target, &seeds(target), run);
    }
}

#[test]
fn every_fuzz_target_has_a_corpus_and_is_run() {
    let script = std::fs::read_to_string(folder().join("check.sh")).unwrap();
    let manifest = std::fs::read_to_string(folder().join("Cargo.toml")).unwrap();
    let list = script.lines().find_map(|l| l.strip_prefix("all=("));
    let list: Vec<&str> = list.unwrap().trim_end_matches(')').split(' ').collect();
    for entry in std::fs::read_dir(folder().join("fuzz_targets")).unwrap() {
        let file = entry.unwrap().file_name();
        let name = file.to_string_lossy().replace(".rs", "");
        assert!(manifest.contains(&format!("\"{name}\"")), "{name}");
        // It is there to fail.
        if name != "canary" {
            assert!(list.contains(&name.as_str()), "{name}");
            let seeds = std::fs::read_dir(folder().join("corpus").join(&name)).unwrap();
            assert!(seeds.count() >= 3, "{name}");
        }
    }
}
