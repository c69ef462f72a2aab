//! The page, read as a collector reads it.

use std::collections::BTreeMap;

use bufferbane_core::clock::Queueing;
use bufferbane_core::sample::{Flags, Sample, SeriesIndex, Status as Outcome};
use bufferbane_core::time::Monotonic;
use bufferbane_store::{Event, EventId, Larger, PathSize, SeriesInfo, SeriesKind, Severity};
use proptest::prelude::*;

use super::{Format, Meters, Reading, page};
use crate::radio::Radio;
use crate::status::{HeldStatus, RemoteStatus, SizeStatus, Status};

/// Values by sample, labels included.
type Values = BTreeMap<String, f64>;

/// Reads OpenMetrics strictly: families whole and described, in their units, samples of names that
/// their type allows, none twice, histograms that add up. Gives all values, and those that must not
/// go back.
fn read(text: &str) -> (Values, Values) {
    let body = text.strip_suffix("# EOF\n").expect("an end");
    let (mut all, mut counters) = (Values::new(), Values::new());
    let mut families: BTreeMap<&str, &str> = BTreeMap::new();
    let (mut family, mut helped) = ("", true);
    let mut bucket: Option<(String, f64, f64)> = None;
    for line in body.lines() {
        if let Some(description) = line.strip_prefix("# ") {
            let mut words = description.splitn(3, ' ');
            let mut word = || words.next().expect(line);
            match (word(), word(), word()) {
                ("TYPE", name, kind) => {
                    assert!(helped, "{family} has no help");
                    assert!(families.insert(name, kind).is_none(), "{name} comes twice");
                    (family, helped) = (name, false);
                }
                ("UNIT", name, unit) => {
                    assert_eq!(name, family);
                    assert!(name.ends_with(&format!("_{unit}")), "{line}");
                }
                ("HELP", name, help) => {
                    assert_eq!(name, family);
                    assert!(help.ends_with('.'), "{line}");
                    helped = true;
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        let (name, value) = line.rsplit_once(' ').expect(line);
        let value: f64 = value.parse().expect(line);
        let bare = name.split('{').next().unwrap();
        let suffix = bare.strip_prefix(family).expect(line);
        match families[family] {
            "counter" => assert_eq!(suffix, "_total", "{line}"),
            "gauge" => assert_eq!(suffix, "", "{line}"),
            "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
            kind => panic!("{kind}"),
        }
        if families[family] != "gauge" {
            counters.insert(name.to_owned(), value);
        }
        assert!(all.insert(name.to_owned(), value).is_none(), "{line} twice");
        if suffix == "_bucket" {
            let (series, edge) = name
                .split_once(",le=\"")
                .or_else(|| name.split_once("{le=\""))
                .expect(line);
            let edge: f64 = edge.trim_end_matches("\"}").parse().expect(line);
            if let Some((before, below, less)) = &bucket
                && before == series
            {
                assert!(*below < edge && *less <= value, "{line}");
            }
            bucket = Some((series.to_owned(), edge, value));
        } else if suffix == "_count" {
            let (_, edge, last) = bucket.take().expect("buckets");
            assert_eq!((edge, last), (f64::INFINITY, value), "{line}");
        }
    }
    assert!(helped && bucket.is_none());
    (all, counters)
}

fn info(target: &str) -> SeriesInfo {
    SeriesInfo {
        interface: "wan".into(),
        interface_kind: "wired".into(),
        target: target.into(),
        kind: SeriesKind::Udp,
        family: 4,
        dscp: 46,
        size: 128,
        interval_ns: 50_000_000,
        address: "192.0.2.1".into(),
    }
}

fn sample(series: u16, status: Outcome, rtt_ns: Option<u64>) -> Sample {
    let mut sample = Sample::lost(SeriesIndex(series), 1, Monotonic::ZERO, 128);
    (sample.status, sample.rtt_ns) = (status, rtt_ns);
    sample
}

fn queueing(up_ns: u64, down_ns: u64) -> Option<Queueing> {
    Some(Queueing {
        up_ns,
        down_ns,
        err_ns: 0,
        quality: 100,
    })
}

fn read_of(meters: &Meters) -> (Values, Values) {
    let mut status = Status::default();
    let receiver = RemoteStatus::default();
    status.remote_write.insert("http://a/w".into(), receiver);
    status.sizes.push(SizeStatus {
        size: PathSize {
            interface: "wan".into(),
            target: "narrow".into(),
            address: [192, 0, 2, 1].into(),
            interface_bytes: 1500,
            passes_bytes: 1492,
            larger: Larger::Told,
            told_by: None,
            direction: None,
        },
        first_ns: 0,
        last_ns: 0,
        searches: 1,
    });
    status.size_search_bytes = 4000;
    status.close_looks_skipped = 7;
    status.held.push(HeldStatus {
        interface: "wan".into(),
        target: "shell".into(),
        address: "192.0.2.1:22".into(),
        open_ns: Some(5),
        lost: [("connection reset".to_owned(), 2)].into(),
        closed: 1,
        last_open_ns: None,
        last_end: None,
    });
    read(&page(Format::OpenMetrics, &status, meters))
}

const FAR: &str =
    "interface=\"wan\",target=\"far\",kind=\"udp\",family=\"4\",dscp=\"46\",size=\"128\"";

#[test]
fn what_became_of_probes_is_counted_once() {
    let mut m = Meters::default();
    m.begin(SeriesIndex(3), &info("far"));
    m.sample(
        &sample(3, Outcome::Ok, Some(20_000_000)),
        queueing(400_000, 7_000_000),
    );
    let mut overtaken = sample(3, Outcome::Ok, Some(20_000_001));
    overtaken.flags = Flags::REORDERED;
    m.sample(&overtaken, None);
    m.sample(&sample(3, Outcome::Duplicate, Some(21_000_000)), None);
    m.sample(&sample(3, Outcome::Unsent, None), None);
    m.sample(&sample(3, Outcome::LostUp, None), None);
    // Three that are lost at first: of one nothing more comes.
    for _ in 0..3 {
        m.sample(&sample(3, Outcome::Lost, None), None);
    }
    m.revise(&sample(3, Outcome::LostDown, None));
    m.revise(&sample(3, Outcome::Late, Some(900_000_000)));
    // Nobody told of this one's series.
    m.sample(&sample(4, Outcome::Lost, None), None);
    let (all, _) = read_of(&m);
    let get = |name: &str| all[&format!("bufferbane_{name}")];
    for (name, n) in [
        ("sent", 6.0),
        ("received", 2.0),
        ("lost", 4.0),
        ("late", 1.0),
        ("duplicated", 1.0),
        ("reordered", 1.0),
        ("unsent", 1.0),
    ] {
        assert_eq!(get(&format!("probes_{name}_total{{{FAR}}}")), n, "{name}");
    }
    for (name, n) in [
        (
            "probes_lost_in_direction_total{{FAR},direction=\"up\"}",
            1.0,
        ),
        (
            "probes_lost_in_direction_total{{FAR},direction=\"down\"}",
            1.0,
        ),
        ("rtt_seconds_bucket{{FAR},le=\"0.015\"}", 0.0),
        ("rtt_seconds_bucket{{FAR},le=\"0.02\"}", 1.0),
        ("rtt_seconds_bucket{{FAR},le=\"0.03\"}", 2.0),
        ("rtt_seconds_bucket{{FAR},le=\"1.0\"}", 3.0),
        ("rtt_seconds_count{{FAR}}", 3.0),
        ("rtt_seconds_sum{{FAR}}", 0.940_000_001),
        (
            "queueing_seconds_bucket{{FAR},direction=\"up\",le=\"0.0005\"}",
            1.0,
        ),
        ("queueing_seconds_sum{{FAR},direction=\"down\"}", 0.007),
        ("series_probed{{FAR}}", 1.0),
    ] {
        assert_eq!(get(&name.replace("{FAR}", FAR)), n, "{name}");
    }
}

#[test]
fn interfaces_and_events_are_counted_through_their_changes() {
    let mut m = Meters::default();
    let read = |index, up_bytes, down_bytes| Reading {
        index,
        up_bytes,
        down_bytes,
    };
    m.carried("wan", read(2, 1000, 5000));
    m.carried("wan", read(2, 1500, 9000));
    // It came back as another.
    m.carried("wan", read(7, 10, 20));
    m.carried("wan", read(7, 110, 21));
    let radio = Radio {
        signal_dbm: Some(-81),
        up_bps: Some(6_500_000),
        down_bps: None,
    };
    m.radios([("gone", radio)].into_iter());
    m.radios([("wlan", radio)].into_iter());
    let mut event = Event::new(
        "outage",
        Severity::Critical,
        1,
        Monotonic::ZERO,
        String::new(),
    );
    event.interface = "wan".into();
    // Two begin, one of which changes, and ends; the other ends, and is back; another was a moment's.
    m.event(EventId(40), &event);
    m.event(EventId(41), &event);
    m.event(EventId(40), &event);
    let mut over = event.clone();
    over.end_ns = Some(5);
    m.event(EventId(40), &over);
    m.event(EventId(40), &over);
    m.event(EventId(41), &over);
    m.event(EventId(41), &event);
    over.interface.clear();
    over.kind = "config_reload".into();
    m.event(EventId(42), &over);
    let (all, _) = read_of(&m);
    for (name, n) in [
        ("interface_transmit_bytes_total{interface=\"wan\"}", 600.0),
        ("interface_receive_bytes_total{interface=\"wan\"}", 4001.0),
        ("wifi_signal_dbm{interface=\"wlan\"}", -81.0),
        (
            "wifi_rate_bits_per_second{interface=\"wlan\",direction=\"up\"}",
            6_500_000.0,
        ),
        ("events_total{interface=\"wan\",kind=\"outage\"}", 2.0),
        ("events_open{interface=\"wan\",kind=\"outage\"}", 1.0),
        ("events_total{interface=\"wan\",kind=\"packet_loss\"}", 0.0),
        ("events_total{interface=\"\",kind=\"config_reload\"}", 1.0),
        ("events_open{interface=\"\",kind=\"config_reload\"}", 0.0),
    ] {
        assert_eq!(all[&format!("bufferbane_{name}")], n, "{name}");
    }
    assert!(!all.keys().any(|name| name.contains("gone")));
}

#[test]
fn connections_that_are_held_are_told_with_how_they_ended() {
    let (all, counters) = read_of(&Meters::default());
    let labels = "interface=\"wan\",target=\"shell\",address=\"192.0.2.1:22\"";
    assert_eq!(
        all[&format!("bufferbane_held_connection_open{{{labels}}}")],
        1.0
    );
    for (reason, n) in [("connection reset", 2.0), ("closed by the far end", 1.0)] {
        let name =
            format!("bufferbane_held_connections_ended_total{{{labels},reason=\"{reason}\"}}");
        assert_eq!(counters[&name], n);
    }
}

#[test]
fn the_largest_packets_that_pass_are_told() {
    let (all, counters) = read_of(&Meters::default());
    let labels = "interface=\"wan\",target=\"narrow\",family=\"4\",larger=\"told\"";
    assert_eq!(
        all[&format!("bufferbane_path_mtu_bytes{{{labels}}}")],
        1492.0
    );
    assert_eq!(counters["bufferbane_path_mtu_search_bytes_total"], 4000.0);
    assert_eq!(counters["bufferbane_close_looks_skipped_total"], 7.0);
}

/// What `docs/metrics.md` says of names and numbers of samples.
#[test]
fn the_documentation_has_every_name() {
    let mut m = Meters::default();
    m.begin(SeriesIndex(0), &info("far"));
    m.begin(SeriesIndex(1), &info("near"));
    m.sample(&sample(0, Outcome::Ok, Some(1)), queueing(1, 1));
    let read_one = Reading {
        index: 1,
        up_bytes: 0,
        down_bytes: 0,
    };
    m.carried("wan", read_one);
    let radio = Radio {
        signal_dbm: Some(-81),
        up_bps: Some(1),
        down_bps: Some(2),
    };
    m.radios([("wan", radio)].into_iter());
    let documented = include_str!("../../../docs/metrics.md");
    let (all, counters) = read_of(&m);
    for name in all.keys() {
        let mut bare = name.split('{').next().unwrap();
        if counters.contains_key(name) && !bare.ends_with("_total") {
            bare = bare.rsplit_once('_').unwrap().0;
        }
        assert!(documented.contains(&format!("| `{bare}` |")), "{bare}");
    }
    let of = |target| all.keys().filter(|n| n.contains(target)).count();
    let said = format!(
        "A series of a reflector has {} samples, of a target without directions {}.",
        of("target=\"far\""),
        of("target=\"near\"")
    );
    assert!(documented.contains(&said), "{said}");
}

/// A router whose targets come and go for years does not fill the memory, and never shows less than
/// what is probed.
#[test]
fn series_that_went_make_room_for_others() {
    let mut m = Meters::default();
    m.begin(SeriesIndex(0), &info("stays"));
    m.sample(&sample(0, Outcome::Ok, Some(1)), None);
    for n in 0..5000 {
        let index = SeriesIndex(1 + n % 7);
        m.begin(index, &info(&format!("t{n}")));
        m.sample(&sample(index.0, Outcome::Ok, Some(1)), None);
        m.end(index);
    }
    assert_eq!(m.series().count(), 1024);
    let probed: Vec<_> = m.series().filter(|(_, is_probed)| *is_probed).collect();
    assert_eq!(probed.len(), 1);
    assert_eq!(probed[0].0.labels.target, "stays");
    assert_eq!(probed[0].0.counts.received, 1);
    read_of(&m);
}

proptest! {
    #[test]
    fn no_counter_ever_goes_back(
        steps in proptest::collection::vec((0u8..8, 0u16..3, 0u64..9_000_000_000), 1..60),
    ) {
        let mut m = Meters::default();
        let mut before = Values::new();
        for (n, (what, series, value)) in steps.into_iter().enumerate() {
            let status = Outcome::ALL[(value % 7) as usize];
            let rtt_ns = status.is_answered().then_some(value);
            let name = format!("target {}", value % 4);
            match what {
                0 => m.begin(SeriesIndex(series), &info(&name)),
                1 => m.end(SeriesIndex(series)),
                2..5 => m.sample(&sample(series, status, rtt_ns), queueing(value / 3, value)),
                5 => m.revise(&sample(series, status, rtt_ns)),
                6 => m.carried(&name, Reading {
                    index: u32::from(series),
                    up_bytes: value,
                    down_bytes: value / 2,
                }),
                _ => {
                    let kind = if series == 0 { "outage" } else { "packet_loss" };
                    let mut event =
                        Event::new(kind, Severity::Info, 1, Monotonic::ZERO, String::new());
                    event.end_ns = value.is_multiple_of(2).then_some(value);
                    m.event(EventId(n as u64 / 2), &event);
                }
            }
            let (_, counters) = read_of(&m);
            for (name, was) in &before {
                let is = counters.get(name).copied();
                prop_assert!(is.is_some_and(|is| is >= *was), "{name}: {was}, then {is:?}");
            }
            before = counters;
        }
    }
}
