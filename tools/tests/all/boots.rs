//! A router that boots in 1970: what it recorded before it knew the time is shown where it happened.

use crate::common::{S, START_NS, printed};
use bufferbane_core::sample::{Sample, SeriesIndex, Status};
use bufferbane_core::time::{ClockSource, Monotonic};
use bufferbane_store::{SeriesInfo, SeriesKind, Severity, Trust, Writer, WriterOptions};
use serde_json::Value;

/// The time is learned so long after the first probe, ns.
const LEARNED_NS: u64 = 60 * S;

#[test]
fn what_was_recorded_in_1970_is_exported_and_reported_where_it_happened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let options = WriterOptions {
        min_free_bytes: 0,
        ..WriterOptions::default()
    };
    let mut w = Writer::open(&path, options).unwrap();
    // 20 s after power-on the clock shows 1970-01-01 00:00:25.
    let up_ns = 20 * S;
    let instant = |ns: u64| Monotonic::from_nanos(up_ns + ns);
    let boot = w
        .begin_boot("1970", instant(0), 25 * S as i64, Trust::None)
        .unwrap();
    let series = w.series(&SeriesInfo {
        interface: "wan".into(),
        interface_kind: "wired".into(),
        target: "gateway".into(),
        kind: SeriesKind::Icmp,
        family: 4,
        dscp: 0,
        size: 64,
        interval_ns: S,
        address: "192.0.2.1".into(),
    });
    for i in 0..2 * LEARNED_NS / S {
        if i * S == LEARNED_NS {
            // NTP answers: now it is START_NS and a minute.
            let now_ns = START_NS + LEARNED_NS as i64;
            let mut event = bufferbane_store::Event::new(
                "clock_step",
                Severity::Info,
                boot,
                instant(i * S),
                "the clock was set".into(),
            );
            event.end_ns = Some(event.start_ns);
            w.event(event);
            w.anchor(instant(i * S), now_ns, Trust::Disciplined);
            // What came before is durable already, under no other time than the boot's own.
            w.commit().unwrap();
        }
        let mut s = Sample::lost(SeriesIndex(0), i, instant(i * S), 64);
        s.status = Status::Ok;
        s.rtt_ns = Some(1_000_000 + i);
        (s.tx_clock, s.rx_clock) = (ClockSource::Kernel, ClockSource::Kernel);
        w.record(series, s);
    }
    w.close().unwrap();

    let text = printed(&path, &["export", "--utc", "--format", "json"]);
    let rows: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(rows.len(), 120);
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(row["seq"], i);
        assert_eq!(row["time_ns"], START_NS + i as i64 * S as i64, "{row}");
        assert_eq!(row["mono_ns"], up_ns + i as u64 * S);
    }
    // The minute before the clock was set is a minute of that evening like any other.
    let minute = |from: &str, to: &str| -> Value {
        let range = ["--utc", "--from", from, "--to", to];
        let report = printed(
            &path,
            &[&["report", "--format", "json"], &range[..]].concat(),
        );
        serde_json::from_str(&report).unwrap()
    };
    let before = minute("2026-05-01 18:00", "2026-05-01 18:01");
    assert_eq!(before["series"][0]["sent"], 60, "{before:#}");
    let after = minute("2026-05-01 18:01", "2026-05-01 18:02");
    assert_eq!(after["series"][0]["sent"], 60);
    assert_eq!(
        after["events"][0]["start"],
        "2026-05-01T18:01:00.000000000Z"
    );
    // And the year that its clock showed at first has nothing.
    let range = ["--from", "1970-01-01", "--to", "1971-01-01"];
    let none = crate::common::bbtool(&path, &[&["report"], &range[..]].concat());
    assert_eq!(none.status.code(), Some(3));
}
