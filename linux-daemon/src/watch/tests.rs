use bufferbane_core::detect::{Event as Found, SeriesSet, Severity, Value, WELL_LINE};
use bufferbane_core::sample::Status;
use bufferbane_store::{Event, SeriesKind};
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

use super::*;

const S: u64 = 1_000_000_000;

pub(super) fn info(target: &str, address: &str) -> SeriesInfo {
    SeriesInfo {
        interface: "eth0".into(),
        interface_kind: "wired".into(),
        target: target.into(),
        kind: SeriesKind::Icmp,
        family: 4,
        dscp: 0,
        size: 64,
        interval_ns: S / 10,
        address: address.into(),
    }
}

/// Watches a series of each of these.
fn watcher(series: &[SeriesInfo]) -> Watcher {
    let mut watcher = Watcher::new(Monotonic::ZERO, Thresholds::default());
    for (i, info) in series.iter().enumerate() {
        watcher.add(Monotonic::ZERO, SeriesIndex(i as u16), info);
    }
    watcher
}

/// That `members` show something from the begin on.
fn notice(
    watcher: &Watcher,
    kind: Kind,
    members: &[u16],
    values: &[(&'static str, Value)],
) -> Notice {
    let mut series = SeriesSet::default();
    for index in members {
        series.insert(watcher.series[&SeriesIndex(*index)].place);
    }
    let event = Found {
        kind,
        severity: Severity::Critical,
        direction: None,
        line: 0,
        series,
        start: Monotonic::ZERO,
        end: None,
        values: values.iter().copied().collect(),
    };
    Notice {
        id: 1,
        phase: Phase::Begin,
        event,
    }
}

/// A minute of two targets and the gateway, all but the gateway silent for the last half second of
/// it, and ten seconds more.
#[test]
fn an_outage_of_the_line_is_told_with_the_gateway_well() {
    let mut w = watcher(&[
        info("gateway", "192.168.1.1"),
        info("quad9", "9.9.9.9"),
        info("cloudflare", "1.1.1.1"),
    ]);
    let mut told = Vec::new();
    for n in 0..700u64 {
        for i in 0..3u16 {
            let sent = Monotonic::from_nanos(n * S / 10 + u64::from(i));
            let mut sample = Sample::lost(SeriesIndex(i), n, sent, 64);
            if i == 0 || !(595..600).contains(&n) {
                sample.status = Status::Ok;
                sample.rtt_ns = Some(if i == 0 { 500_000 } else { 20_000_000 });
            }
            w.sample(&sample, None);
        }
        told.extend(w.news(Monotonic::from_nanos(n * S / 10)));
    }
    assert_eq!(told.len(), 1, "{told:?}");
    let event = w.event(7, &told[0]);
    assert_eq!((event.kind.as_str(), event.boot), ("micro_outage", 7));
    assert_eq!(event.interface, "eth0");
    assert_eq!(event.start_ns, 595 * S / 10 + 1);
    assert_eq!(event.end_ns, Some(600 * S / 10 + 1));
    assert_eq!(event.values["gateway"], "well");
    assert_eq!(event.values["near"], false);
    assert!(event.text.contains("0.50 s"), "{}", event.text);
}

/// With one far target, nobody knows whether others are well.
#[test]
fn silence_of_the_only_far_target_is_not_told_as_that_of_all() {
    let watcher = watcher(&[info("gateway", "192.168.1.1"), info("quad9", "9.9.9.9")]);
    let told = |far, lost| {
        let values = [("far_targets", far), ("targets_lost", lost)];
        let values = values.map(|(name, n)| (name, Value::Number(n)));
        let notice = notice(&watcher, Kind::Outage, &[1], &values);
        watcher.event(1, &notice).text
    };
    assert_eq!(told(1, 1), "no answer from quad9, the only far target");
    assert_eq!(told(2, 2), "no answer from anywhere");
    let alone = "no answer from quad9, the only far target that was asked meanwhile";
    assert_eq!(told(2, 1), alone);
}

/// Whoever of several tells it: what is of the line has a target only where there is no other.
#[test]
fn what_is_of_the_line_is_of_no_target() {
    let far = [info("quad9", "9.9.9.9"), info("cloudflare", "1.1.1.1")];
    for (targets, kind, target) in [
        (&far[..], Kind::Outage, None),
        (&far, Kind::MicroOutage, None),
        (&far, Kind::Bufferbloat, None),
        (&far, Kind::UploadDegraded, None),
        (&far, Kind::PacketLoss, Some("quad9")),
        (&far[..1], Kind::Outage, Some("quad9")),
    ] {
        let watcher = watcher(targets);
        let event = watcher.event(1, &notice(&watcher, kind, &[0], &[]));
        assert_eq!(event.target.as_deref(), target, "{kind:?}");
        assert_eq!(event.values["targets"], serde_json::json!(["quad9"]));
    }
}

#[test]
fn a_burst_of_losses_is_told_with_how_many_they_were() {
    let watcher = watcher(&[info("quad9", "9.9.9.9"), info("cloudflare", "1.1.1.1")]);
    let lost = [("lost", Value::Number(7))];
    let told = |members: &[u16]| {
        let notice = notice(&watcher, Kind::LossBurst, members, &lost);
        watcher.event(1, &notice).text
    };
    assert_eq!(told(&[0]), "7 probes to quad9 were lost in a row");
    assert_eq!(
        told(&[0, 1]),
        "probes to cloudflare, quad9 were lost in a row, 7 to one of them"
    );
}

/// A store for backups that loses packets is not the gateway, and what has a private address and is far is not near.
#[test]
fn a_host_in_the_house_is_not_told_as_the_gateway() {
    let mut watcher = watcher(&[
        info("gateway", "192.168.1.1"),
        info("nas", "192.168.1.9"),
        info("office", "10.8.0.1"),
        info("quad9", "9.9.9.9"),
    ]);
    let hop = ("eth0".to_owned(), "192.168.1.1".parse().unwrap());
    watcher.set_next_hops([hop].into());
    for n in 0..100 {
        let mut sample = Sample::lost(SeriesIndex(2), n, Monotonic::from_nanos(n * S / 10), 64);
        (sample.status, sample.rtt_ns) = (Status::Ok, Some(30_000_000));
        watcher.sample(&sample, None);
    }
    watcher.news(Monotonic::from_nanos(20 * S));
    let told = |members: &[u16]| {
        let event = watcher.event(1, &notice(&watcher, Kind::PacketLoss, members, &[]));
        let is = |name: &str| event.values.get(name).and_then(|v| v.as_bool());
        (is("near"), is("house"))
    };
    assert_eq!(told(&[0]), (Some(true), None));
    assert_eq!(told(&[1]), (Some(false), Some(true)));
    assert_eq!(told(&[1, 3]), (Some(false), None));
    assert_eq!(told(&[2]), (Some(false), None));
}

/// Large packets vanish over IPv4, IPv6 or both.
#[test]
fn sizes_that_vanish_are_told_of_the_family_whose_they_are() {
    let watcher = watcher(&[4, 6].map(|family| SeriesInfo {
        family,
        ..info("far", "2001:db8::1")
    }));
    let family = |members: &[u16]| {
        let told = watcher.event(1, &notice(&watcher, Kind::MtuBlackHole, members, &[]));
        told.values.get("family").and_then(|f| f.as_u64())
    };
    assert_eq!(
        [family(&[0]), family(&[1]), family(&[0, 1])],
        [Some(4), Some(6), None]
    );
}

/// Who is bad, what with, and who is well.
#[test]
fn what_differs_is_told_with_its_figures() {
    let of = |(interface, family): (&str, u8)| SeriesInfo {
        interface: interface.into(),
        family,
        ..info("far", "192.0.2.1")
    };
    let watcher = watcher(&[("eth0", 4), ("eth0", 6), ("lte0", 4)].map(of));
    let told = |kind, member: u16, values: &[(&'static str, Value)]| {
        watcher.event(1, &notice(&watcher, kind, &[member], values))
    };
    let rates = [
        ("loss", Value::Ratio(0.032)),
        ("loss_of_others", Value::Ratio(0.001)),
    ];
    let fault = told(Kind::RoutingFault, 0, &rates);
    let said =
        "3.2 % of the probes to far were lost, and 0.1 % of those to others at the same moments";
    assert_eq!(fault.text, said);
    let differs = told(Kind::InterfaceDiffers, 0, &[(WELL_LINE, Value::Number(1))]);
    let said = "probes through eth0 took longer than usual, or varied more, while those through lte0 were well at \
                the same moments";
    assert_eq!(differs.text, said);
    assert_eq!(differs.values["well_interface"], "lte0");
    assert_eq!(differs.values["same_gateway"], false);
    assert_eq!(differs.values["interface_kind"], "wired");
    assert!(!differs.values.contains_key(WELL_LINE));
    let delay = ("trouble", Value::Word("delay"));
    let excess = [
        delay,
        ("excess_ns", Value::Number(45_000_000)),
        ("excess_of_others_ns", Value::Number(900_000)),
    ];
    let said =
        "probes to far took 45 ms longer than usual, and those to others 1 ms at the same moments";
    assert_eq!(told(Kind::RoutingFault, 0, &excess).text, said);
    let varied = [
        delay,
        ("varied", Value::Ratio(0.31)),
        ("varied_of_others", Value::Ratio(0.004)),
    ];
    let said = "of neighbouring probes to far 31 % differed much, and of those to others 0 % at the same moments";
    assert_eq!(told(Kind::RoutingFault, 0, &varied).text, said);
    let six = told(Kind::FamilyDiffers, 1, &[("trouble", Value::Word("dead"))]);
    let said = "no probe over IPv6 was answered, while those over IPv4 were at the same moments";
    assert_eq!(
        (six.text.as_str(), &six.values["family"]),
        (said, &6.into())
    );
}

/// One target's trouble is not the line's.
#[test]
fn an_event_is_of_the_line_where_half_of_the_far_targets_show_it() {
    let watcher = watcher(&[
        info("gateway", "192.168.1.1"),
        info("quad9", "9.9.9.9"),
        info("cloudflare", "1.1.1.1"),
        info("google", "8.8.8.8"),
    ]);
    let is_of_line =
        |kind, members: &[u16]| watcher.is_of_line(&notice(&watcher, kind, members, &[]));
    let lossy = |members: &[u16]| is_of_line(Kind::PacketLoss, members);
    assert!(lossy(&[1, 2]) && lossy(&[1, 2, 3]));
    assert!(!lossy(&[1]) && !lossy(&[0, 3]));
    assert!(is_of_line(Kind::MicroOutage, &[2]));
}

/// A minute from `from_s` on of one target that is probed each tenth of a second, silent for the last half second of it,
/// and ten seconds more: what is told.
fn minute_with_an_outage(w: &mut Watcher, index: SeriesIndex, from_s: u64) -> Vec<Event> {
    let mut told = Vec::new();
    for n in 0..700u64 {
        let at = Monotonic::from_nanos(from_s * S + n * S / 10);
        let mut sample = Sample::lost(index, n, at, 64);
        if !(595..600).contains(&n) {
            sample.status = Status::Ok;
            sample.rtt_ns = Some(20_000_000);
        }
        w.sample(&sample, None);
        let news = w.news(at);
        told.extend(news.iter().map(|notice| w.event(0, notice)));
    }
    told
}

fn through(interface: String) -> SeriesInfo {
    SeriesInfo {
        interface,
        ..info("quad9", "9.9.9.9")
    }
}

/// What a reload of the configuration changes holds for what is probed already.
#[test]
fn other_thresholds_hold_at_once() {
    let usual = Thresholds::default();
    let told = |thresholds: Thresholds| {
        let mut w = watcher(&[info("quad9", "9.9.9.9")]);
        w.set_thresholds(thresholds);
        let mut kinds: Vec<String> = Vec::new();
        let mut random = ChaCha12Rng::from_seed([7; 32]);
        for n in 0..6000u64 {
            let at = Monotonic::from_nanos(n * S / 10);
            let mut sample = Sample::lost(SeriesIndex(0), n, at, 64);
            // From the third minute on three in a hundred are lost and one in ten is late; at the fourth all are slow
            // for eight seconds.
            let bad = n > 1800;
            let chance = random.next_u32();
            if !bad || chance % 33 != 0 {
                sample.status = Status::Ok;
                let late = if bad && chance % 10 == 1 {
                    15_000_000
                } else {
                    0
                };
                let slow = if (2400..2480).contains(&n) {
                    120_000_000
                } else {
                    0
                };
                sample.rtt_ns = Some(20_000_000 + late + slow);
            }
            w.sample(&sample, None);
            kinds.extend(w.news(at).iter().map(|notice| w.event(0, notice).kind));
        }
        kinds.sort();
        kinds.dedup();
        kinds
    };
    assert_eq!(told(usual), ["high_jitter", "latency_spike", "packet_loss"]);
    let lossless = Thresholds {
        loss: 0.1,
        loss_critical: 0.2,
        ..usual
    };
    assert_eq!(told(lossless), ["high_jitter", "latency_spike"]);
    let patient = Thresholds {
        spike_for_ns: 20 * S,
        ..usual
    };
    assert_eq!(told(patient), ["high_jitter", "packet_loss"]);
    let calm = Thresholds {
        jitter_ns: 30_000_000,
        jitter_critical_ns: 90_000_000,
        spike_factor: 9.0,
        ..usual
    };
    assert_eq!(told(calm), ["packet_loss"]);
}

/// A default route that moves on, as with PPP, whose interfaces are called otherwise each time.
#[test]
fn interfaces_may_come_and_go_without_end_and_each_is_watched() {
    let mut w = watcher(&[]);
    for round in 0..3 * MAX_LINES as u64 {
        let from_s = 100 * round;
        let index = SeriesIndex(round as u16);
        let name = format!("ppp{round}");
        w.add(
            Monotonic::from_nanos(from_s * S),
            index,
            &through(name.clone()),
        );
        let told = minute_with_an_outage(&mut w, index, from_s);
        let told: Vec<(&str, &str)> = told
            .iter()
            .map(|e| (e.interface.as_str(), e.kind.as_str()))
            .collect();
        assert_eq!(told, [(name.as_str(), "micro_outage")]);
        w.remove(Monotonic::from_nanos((from_s + 80) * S), index);
    }
}

#[test]
fn what_there_is_no_room_for_is_told_and_watched_once_there_is() {
    let all: Vec<SeriesInfo> = (0..=MAX_LINES).map(|n| through(format!("up{n}"))).collect();
    let mut w = watcher(&all);
    let unwatched = |w: &Watcher| -> Vec<String> {
        let all = w.unwatched();
        all.map(|(info, _)| info.interface.clone()).collect()
    };
    let last = format!("up{MAX_LINES}");
    assert_eq!(unwatched(&w), [last.as_str()]);
    w.news(Monotonic::from_nanos(S));
    assert_eq!(unwatched(&w), [last.as_str()]);
    // A line that still has something to tell keeps its name until that is told.
    let index = SeriesIndex(0);
    for n in 0..700u64 {
        let at = Monotonic::from_nanos(n * S / 10);
        w.sample(&Sample::lost(index, n, at, 64), None);
    }
    w.remove(Monotonic::from_nanos(70 * S), index);
    let told: Vec<Event> = w
        .news(Monotonic::from_nanos(80 * S))
        .iter()
        .map(|notice| w.event(0, notice))
        .collect();
    assert!(told.iter().all(|e| e.interface == "up0"), "{told:#?}");
    assert_eq!(unwatched(&w), [] as [&str; 0]);
    let told = minute_with_an_outage(&mut w, SeriesIndex(MAX_LINES as u16), 100);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].interface, last);
}

/// Five minutes of one target; for eight seconds of it a third is lost in runs and the rest slow, which is
/// known to be a test of ours before that or only after it, or is not.
fn told_of_a_load(known: Option<bool>) -> Vec<Event> {
    let mut w = watcher(&[info("quad9", "9.9.9.9")]);
    let (begin, end) = (2000, 2080);
    let at = |n: u64| Monotonic::from_nanos(n * S / 10);
    let mut told = Vec::new();
    for n in 0..3000u64 {
        if known == Some(true) && n == begin || known == Some(false) && n == begin + 5 {
            w.load_begins("eth0", at(begin));
        }
        if known.is_some() && n == end + 5 {
            w.load_ends("eth0", at(end));
        }
        // What was sent just before meets the queue on the way back, and the queue stays a while.
        let loaded = (begin - 5..end + 15).contains(&n);
        let mut sample = Sample::lost(SeriesIndex(0), n, at(n), 64);
        if !loaded || n % 16 > 4 {
            sample.status = Status::Ok;
            sample.rtt_ns = Some(if loaded { 105_000_000 } else { 20_000_000 });
        }
        w.sample(&sample, None);
        let news = w.news(at(n));
        told.extend(news.iter().map(|notice| w.event(0, notice)));
    }
    told
}

#[test]
fn a_test_of_our_own_is_not_trouble() {
    let kinds: Vec<String> = told_of_a_load(None).into_iter().map(|e| e.kind).collect();
    assert!(kinds.contains(&"latency_spike".to_owned()), "{kinds:?}");
    assert!(kinds.contains(&"micro_outage".to_owned()), "{kinds:?}");
    assert_eq!(told_of_a_load(Some(true)), []);
    assert_eq!(told_of_a_load(Some(false)), []);
}

/// A rush that was lost on the way hides no ordinary load where an earlier run measured the line.
#[test]
fn what_is_recalled_says_what_is_much_for_a_line() {
    let at = |s: u64| Monotonic::from_nanos(s * S);
    for recalls in [false, true] {
        let mut w = watcher(&[info("quad9", "9.9.9.9")]);
        if recalls {
            let found = bufferbane_store::Capacity {
                interface: "eth0".into(),
                direction: bufferbane_store::Direction::Up,
                method: bufferbane_store::Method::Test,
                burst_bps: 8_000_000,
                sustained_bps: Some(8_000_000),
                confidence: 0.9,
                events: Vec::new(),
            };
            let before = crate::recorder::Found {
                at_ns: 0,
                capacity: found,
                others_bps: 0,
            };
            w.recall("eth0", vec![(None, before)]);
        }
        for s in 1..=100 {
            let second = Second {
                at: at(s),
                up_bps: if s <= 3 { 90_000_000 } else { 4_000_000 },
                down_bps: 0,
            };
            w.load("eth0", second, true);
        }
        let event = Found {
            start: at(50),
            end: Some(at(60)),
            ..notice(&w, Kind::PacketLoss, &[], &[]).event
        };
        let class = if recalls {
            "loss_under_load"
        } else {
            "loss_without_load"
        };
        assert_eq!(w.loads.class(&event), Some(class));
    }
}

/// Nothing of a fault that lasts is told twice, whatever else is told and over meanwhile.
#[test]
fn a_long_event_is_remembered_however_many_moments_there_are_beside_it() {
    let mut w = watcher(&[info("quad9", "9.9.9.9"), info("google", "8.8.8.8")]);
    let known = |id, is_over| Known {
        id: EventId(id),
        severity: bufferbane_store::Severity::Warning,
        is_over,
        part_of_ns: None,
    };
    let of = |w: &Watcher, id, kind, phase| Notice {
        id,
        phase,
        ..notice(w, kind, &[0], &[])
    };
    let lasts = of(&w, 0, Kind::RoutingFault, Phase::Begin);
    w.remember(&lasts, known(0, false));
    for id in 1..=OPEN as u32 + 50 {
        let moment = of(&w, id, Kind::MicroOutage, Phase::Begin);
        w.remember(&moment, known(id.into(), true));
    }
    let end = of(&w, 0, Kind::RoutingFault, Phase::End);
    assert_eq!(w.told_before(&end), Some(known(0, false)));
    assert!(w.told.len() <= OPEN, "{}", w.told.len());
}

#[test]
fn ways_that_change_are_told_with_whom_and_how_often() {
    let watcher = watcher(&[info("quad9", "9.9.9.9"), info("google", "8.8.8.8")]);
    let told = |members: &[u16], changes| {
        let values = [
            ("ttl_before", Value::Number(57)),
            ("ttl_after", Value::Number(55)),
            ("changes", Value::Number(changes)),
        ];
        watcher.event(1, &notice(&watcher, Kind::RouteChange, members, &values))
    };
    assert_eq!(
        told(&[0], 1).text,
        "replies from quad9 arrive with TTL 55 instead of 57"
    );
    assert_eq!(
        told(&[0], 7).text,
        "replies from quad9 arrive with TTL 55 instead of 57 (7 changes)"
    );
    let both = "replies from google, quad9 arrive with another TTL than before";
    assert_eq!(told(&[0, 1], 2).text, both);
    assert_eq!(told(&[0, 1], 2).target, None);
    assert_eq!(told(&[0, 1], 9).text, format!("{both} (9 changes)"));
}

/// A reload takes a target away that is in trouble.
#[test]
fn what_is_over_because_its_target_is_gone_still_says_who_it_was() {
    let mut watcher = watcher(&[info("nas", "9.9.9.9"), info("quad9", "149.112.112.112")]);
    let lost = notice(&watcher, Kind::PacketLoss, &[0], &[]);
    watcher.remove(Monotonic::from_nanos(S), SeriesIndex(0));
    assert_eq!(watcher.event(1, &lost).target.as_deref(), Some("nas"));
}
