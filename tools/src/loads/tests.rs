use super::*;
use bufferbane_store::{Percentiles, TestWay};

fn test() -> LoadTest {
    let p = |p50, p90, p99| Percentiles { p50, p90, p99 };
    let ms = 1_000_000;
    let delay = LoadedDelay {
        idle: p(ms, 2 * ms, 3 * ms),
        loaded: p(161 * ms, 172 * ms, 183 * ms),
        increase: p(160 * ms, 170 * ms, 180 * ms),
    };
    LoadTest {
        boot: 1,
        start_ns: 0,
        end_ns: 20_000 * ms,
        load_start_ns: 3_000 * ms,
        load_end_ns: 11_000 * ms,
        ramp_ns: 2_000 * ms,
        interface: "eth0".into(),
        reflector: "vienna".into(),
        kind: "up".into(),
        protocol: bufferbane_store::Protocol::Tcp,
        asked_by: "command".into(),
        congestion: "cubic".into(),
        cut_short: false,
        instead_of: Vec::new(),
        ways: vec![TestWay {
            direction: Direction::Up,
            streams: 4,
            bytes: 10_000_000,
            mean_bps: 10_360_000,
            p10_bps: 9_900_000,
            p90_bps: 10_500_000,
            retransmits: 7,
            cwnd_bytes: 250_000,
            rtt_us: 170_000,
            bins: vec![125_000; 80],
            delay,
            queue_bytes: 207_200,
            grade: "C".into(),
            lost: 0,
            others_bps: None,
            datagrams: None,
        }],
        rtt: delay,
        icmp: None,
        rpm: Some(340),
        rpm_stable: true,
        rpm_variant: "a variant".into(),
        recovery_ns: Some(1_500 * ms),
        probes: Vec::new(),
    }
}

#[test]
fn a_test_is_told_with_its_grade() {
    let text = describe(&test());
    for said in [
        "Upload through eth0 to vienna, 8 s with cubic",
        "10.4 Mbit/s",
        "160.0",
        "340 round trips per minute (a variant)",
        "back 1.5 s after",
        "Grade up: C",
    ] {
        assert!(text.contains(said), "{said} not in {text}");
    }
}

#[test]
fn echoes_are_told_beside_probes_where_there_were_any() {
    let mut test = test();
    assert!(!describe(&test).contains("ICMP"));
    test.icmp = Some(test.rtt);
    let text = describe(&test);
    let row = text
        .lines()
        .find(|l| l.starts_with("by ICMP"))
        .expect("a row of its own");
    let figures: Vec<&str> = row.split_whitespace().skip(2).collect();
    assert_eq!(figures, ["1.0", "2.0", "3.0", "161.0", "172.0", "183.0"]);
    let told = serde_json::to_value(bufferbloat(5, &test)).unwrap();
    assert!(told[0].get("icmp").is_none());
    assert_eq!(told[1]["direction"], "both");
    assert_eq!(told[1]["icmp"]["increase_p90_ns"], 170_000_000);
    assert_eq!(told[0]["loaded_p99_ns"], 183_000_000);
}

#[test]
fn arrays_have_the_keys_that_programs_rely_on() {
    let t: Vec<Throughput> = throughput(5, &test()).collect();
    let json = serde_json::to_value(&t).unwrap();
    assert_eq!(json[0]["direction"], "up");
    for key in [
        "at",
        "interface",
        "reflector",
        "mean_bps",
        "p10_bps",
        "p90_bps",
        "bytes",
        "retransmits",
        "streams",
    ] {
        assert!(!json[0][key].is_null(), "{key}");
    }
    let b = bufferbloat(5, &test());
    let json = serde_json::to_value(&b).unwrap();
    assert_eq!(json[1]["direction"], "both");
    assert_eq!(json[0]["increase_ns"], 160_000_000);
    assert_eq!(
        (&json[0]["rpm"], &json[0]["grade"]),
        (&340.into(), &"C".into())
    );
    let cut = LoadTest {
        cut_short: true,
        ..test()
    };
    let cut: Vec<Throughput> = throughput(5, &cut).collect();
    let told = |t| lines(t, &b, |_| "now".into(), 5);
    assert!(told(&cut)[0].contains("cut short") && !told(&t)[0].contains("cut short"));
    let instead = LoadTest {
        instead_of: vec![Instead {
            reflector: "oslo".into(),
            why: "is busy".into(),
        }],
        ..test()
    };
    assert!(describe(&instead).contains("Instead of oslo: is busy\n"));
    let instead: Vec<Throughput> = throughput(5, &instead).collect();
    assert!(told(&instead)[0].contains(", instead of oslo"));
    let lines = told(&t);
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].contains("eth0 → vienna up: 10.4 Mbit/s"),
        "{lines:?}"
    );
    assert!(
        lines[0].contains("(90th percentile 170\u{a0}ms): grade C, 340 RPM"),
        "{lines:?}"
    );
}

#[test]
fn what_others_carried_is_said_where_it_may_be_why_a_test_found_no_more() {
    let mut test = test();
    let said = |test: &LoadTest| describe(test).contains("Others carried");
    for (others_bps, is_said) in [
        (None, false),
        (Some(1_290_000), false),
        (Some(1_300_000), true),
    ] {
        test.ways[0].others_bps = others_bps;
        assert_eq!(said(&test), is_said, "{others_bps:?}");
        let told: Vec<Throughput> = throughput(5, &test).collect();
        let json = serde_json::to_value(&told).unwrap();
        assert_eq!(json[0]["others_bps"], serde_json::json!(others_bps));
    }
    assert!(describe(&test).contains("Others carried 1.3 Mbit/s up meanwhile\n"));
}

#[test]
fn what_load_adds_is_of_tests_that_loaded_one_way_and_of_two_between_both() {
    let with = |kind: &str, p90_ms: u64| {
        let mut test = test();
        test.kind = kind.into();
        test.ways[0].delay.increase.p90 = p90_ms * 1_000_000;
        bufferbloat(5, &test)
    };
    let of = |all: &[Vec<Bufferbloat>]| {
        added(&all.concat(), "eth0", Direction::Up).map(|ns| ns / 100_000)
    };
    let (both, rrul) = (with("both", 90), with("rrul", 300));
    assert_eq!(of(&[]), None);
    assert_eq!(of(&[both.clone(), rrul.clone()]), Some(1950));
    assert_eq!(of(&[both.clone(), with("up", 55)]), Some(550));
    let three = [with("up", 50), with("up", 70), rrul, with("up", 55)];
    assert_eq!(of(&three), Some(550));
}

#[test]
fn what_nobody_feels_is_told_as_none() {
    let mut test = test();
    test.ways[0].delay.increase.p50 = 116;
    let told = |test: &LoadTest| {
        let t: Vec<Throughput> = throughput(5, test).collect();
        lines(&t, &bufferbloat(5, test), |_| "now".into(), 5).concat()
    };
    let line = told(&test);
    assert!(
        line.contains("latency no higher under load (90th percentile 170\u{a0}ms)"),
        "{line}"
    );
    test.ways[0].delay.increase.p90 = 7_000;
    let line = told(&test);
    assert!(line.contains("(90th percentile no higher)"), "{line}");
}

#[test]
fn of_datagrams_losses_are_said_and_no_grade() {
    let mut test = LoadTest {
        protocol: Protocol::Udp,
        congestion: String::new(),
        rpm: None,
        ..test()
    };
    test.ways[0].datagrams = Some(Datagrams {
        offered_bps: 12_000_000,
        size: 1200,
        sent: 10_000,
        received: 8_750,
        lost: Some(1_250),
        sender_drops: Some(0),
        receiver_drops: 0,
        reordered: 3,
        duplicated: 2,
    });
    let t: Vec<Throughput> = throughput(5, &test).collect();
    let json = serde_json::to_value(&t).unwrap();
    assert_eq!(json[0]["protocol"], "udp");
    assert_eq!(json[0]["datagrams"]["lost"], 1250);
    let b = bufferbloat(5, &test);
    let line = &lines(&t, &b, |_| "now".into(), 5)[0];
    let share = "of 12.0 Mbit/s over UDP, 12.5\u{a0}% lost; latency";
    assert!(line.contains(share), "{line}");
    let told = describe(&test);
    let counts =
        "up: 10 000 sent at 12.0 Mbit/s, 8 750 received, 1 250 lost on the way, 3 reordered, 2 dup";
    assert!(told.contains(counts), "{told}");
    // A shaper on the host itself: what it does not take was not sent, and the line has not lost it.
    let mut held_up = test.clone();
    if let Some(d) = &mut held_up.ways[0].datagrams {
        (d.sent, d.received, d.lost) = (5_000, 5_000, Some(0));
    }
    let counts = "5 000 sent at 6.0 Mbit/s of 12.0 Mbit/s that were to be (this host itself";
    assert!(
        describe(&held_up).contains(counts),
        "{}",
        describe(&held_up)
    );
    // Of an older daemon, or reflector, nobody knows what it dropped itself.
    if let Some(d) = &mut test.ways[0].datagrams {
        d.sender_drops = None;
    }
    let counts = "1 250 lost on the way or in the sender's own queue, 3 reordered";
    assert!(describe(&test).contains(counts), "{}", describe(&test));
    for text in [line, &told] {
        let text = text.to_lowercase();
        assert!(
            !text.contains("grade") && !text.contains("retrans"),
            "{text}"
        );
    }
}

#[test]
fn what_a_host_dropped_makes_the_loss_unknown() {
    let mut test = LoadTest {
        protocol: Protocol::Udp,
        ..test()
    };
    test.ways[0].datagrams = Some(Datagrams {
        sent: 10_000,
        received: 8_750,
        lost: None,
        receiver_drops: 1_240,
        ..Datagrams::default()
    });
    let t: Vec<Throughput> = throughput(5, &test).collect();
    let json = serde_json::to_value(&t).unwrap();
    assert_eq!(json[0]["datagrams"]["lost"], serde_json::Value::Null);
    assert_eq!(json[0]["datagrams"]["receiver_drops"], 1240);
    let line = &lines(&t, &bufferbloat(5, &test), |_| "now".into(), 5)[0];
    let why = "lost not known: the reflector itself dropped 1 240 datagrams";
    for text in [line, &describe(&test)] {
        let text = text.replace('\u{a0}', " ");
        assert!(text.contains(why) && !text.contains("% lost"), "{text}");
    }
    let told = |direction, sender_drops, receiver_drops| {
        let d = Datagrams {
            sender_drops,
            receiver_drops,
            ..Datagrams::default()
        };
        lost(&d, direction).replace('\u{a0}', " ")
    };
    for (direction, drops, why) in [
        (
            Direction::Up,
            (Some(300), 0),
            "lost not known: this host dropped 300 packets in its own queue",
        ),
        (
            Direction::Down,
            (Some(1), 2),
            "lost not known: the reflector's host dropped 1 packet in its own queue, and this host itself \
             dropped 2 datagrams",
        ),
        (
            Direction::Down,
            (Some(0), 1),
            "lost not known: this host itself dropped 1 datagram",
        ),
    ] {
        assert_eq!(told(direction, drops.0, drops.1), why);
    }
}

#[test]
fn what_load_adds_is_graded_as_each_test_is_and_by_tests_that_say_something_of_the_line() {
    let of = |p50, p90, change: fn(&mut LoadTest)| {
        let mut test = test();
        test.ways[0].delay.increase.p50 = p50;
        test.ways[0].delay.increase.p90 = p90;
        test.ways[0].grade = test.ways[0].delay.grade().as_str().into();
        change(&mut test);
        bufferbloat(5, &test)
    };
    let ms = 1_000_000;
    let low_median = of(4 * ms, 149 * ms, |_| {});
    let added_ns = added(&low_median, "eth0", Direction::Up);
    assert_eq!(added_ns, Some(149 * ms));
    let letter = bufferbane_core::load::grade::Grade::of_increase(149 * ms).as_str();
    assert_eq!((letter, low_median[0].grade.as_str()), ("C", "C"));
    let at_a_rate = of(ms, ms, |t| t.protocol = Protocol::Udp);
    let elsewhere = of(ms, ms, |t| {
        t.instead_of.push(Instead {
            reflector: "oslo".into(),
            why: "is busy".into(),
        });
    });
    let wlan = of(ms, ms, |t| t.interface = "wlan0".into());
    let all = [low_median, at_a_rate, elsewhere, wlan].concat();
    assert_eq!(added(&all, "eth0", Direction::Up), added_ns);
    assert_eq!(added(&all, "eth0", Direction::Down), None);
}
