//! What the store knows of a cable line is in the report in every format, and of another line nothing.

use std::path::Path;

use crate::common::{Line, S, START_NS, printed};
use bufferbane_core::detect::cable::{Grants, Loaded, Loss, Reading};
use bufferbane_core::time::Monotonic;
use bufferbane_store::{Event, Severity, Trust, Writer, WriterOptions};
use serde_json::Value;

/// Ten hours of one line, for each of them what `readings` says, and losses at a period if that is not 0.
fn store(path: &Path, readings: &[Reading], period_ns: u64) {
    let hours = 10;
    let begin = 1000 * S;
    Line {
        outage_ns: 0..0,
        ..Line::new(2, 10 * S, hours * 3600 * S)
    }
    .write(path);
    let options = WriterOptions {
        min_free_bytes: 0,
        ..WriterOptions::default()
    };
    let mut w = Writer::open(path, options).unwrap();
    let at = |ns: u64| Monotonic::from_nanos(begin + ns);
    let boot_id = "0c8d0f9a-5a3e-4f63-9a11-3f6f5a1b2c3d";
    let end_ns = hours * 3600 * S;
    let wall_ns = START_NS + end_ns as i64;
    let boot = w
        .begin_boot(boot_id, at(end_ns), wall_ns, Trust::Disciplined)
        .unwrap();
    for hour in 0..hours {
        for reading in readings {
            let (since, until) = (at(hour * 3600 * S), at((hour + 1) * 3600 * S));
            w.cable(since, until, "eth0", *reading);
        }
    }
    let mut event = Event::new(
        "periodic_loss",
        Severity::Warning,
        boot,
        at(3600 * S),
        "loss comes back".into(),
    );
    event.interface = "eth0".into();
    event.end_ns = Some(begin + 5400 * S);
    for (name, value) in [("period_ns", period_ns), ("times", 60)] {
        event.values.insert(name.into(), value.into());
    }
    event.values.insert("strength".into(), 0.9.into());
    if period_ns > 0 {
        w.event(event);
    }
    w.close().unwrap();
}

fn report(path: &Path, more: &[&str]) -> String {
    let args = [
        "report",
        "--from",
        "2026-05-01 18:00",
        "--to",
        "2026-05-02 04:00",
        "--utc",
    ];
    printed(path, &[&args[..], more].concat())
}

#[test]
fn a_cable_has_a_section_with_what_was_found_and_another_line_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let loss = Reading::Loss(Loss {
        probes: 72_000,
        up: 200,
        down: 3,
        idle: 72_000,
    });
    let loaded = Reading::Loaded(Loaded {
        seconds: 60,
        plateau_s: 57,
        plateau_ns: 584_000_000,
        rate_bps: 5_000_000,
        ..Loaded::default()
    });
    let grants = Reading::Grants(Grants {
        period_ns: 2_000_000,
        steps: false,
        strength: 0.4,
        pairs: 20_000,
    });
    let cable = dir.path().join("cable.redb");
    store(&cable, &[grants, loss, loaded], 30 * S);
    let json: Value = serde_json::from_str(&report(&cable, &["--format", "json"])).unwrap();
    let findings = json["cable"]["findings"].as_array().unwrap();
    let kinds: Vec<&str> = findings.iter().filter_map(|f| f["kind"].as_str()).collect();
    let expected = [
        "request_grant",
        "directional_loss",
        "ranging",
        "upstream_buffer",
    ];
    assert_eq!(kinds, expected);
    assert_eq!(findings[0]["values"]["interval_ns"], 2_000_000);
    assert_eq!(findings[0]["values"]["pairs"], 200_000);
    // One of the ten hours had losses of a period: they are those of ranging.
    assert_eq!(findings[1]["values"]["lost_up"], 1800);
    assert_eq!(findings[1]["direction"], "up");
    assert_eq!(findings[3]["values"]["bytes"], 365_000);
    for f in findings {
        assert_eq!(f["interface"], "eth0");
        assert!(
            f["confidence"]
                .as_f64()
                .is_some_and(|c| (0.5..=0.95).contains(&c)),
            "{f}"
        );
        assert!(!f["evidence"].as_array().unwrap().is_empty(), "{f}");
    }
    for (format, heading) in [
        ("text", "\nCable\n"),
        ("md", "\n## Cable\n"),
        ("html", "<h2>Cable</h2>"),
    ] {
        let out = dir.path().join("out");
        report(
            &cable,
            &["--format", format, "--out", out.to_str().unwrap()],
        );
        let said = std::fs::read_to_string(&out).unwrap();
        assert!(said.contains(heading), "{format}");
        let words = said.replace(['\u{a0}', '\n'], " ");
        assert!(
            words.contains("2.00 ms") && words.contains("request and grant"),
            "{format}"
        );
    }
    // Without the names of the house, the findings stay.
    let args = ["--format", "json", "--anonymize"];
    let json: Value = serde_json::from_str(&report(&cable, &args)).unwrap();
    assert_eq!(json["cable"]["findings"][0]["interface"], "uplink 1");

    // What the configuration says is a cable needs no ranging.
    let said = dir.path().join("said.redb");
    store(&said, &[Reading::Said, grants, loss, loaded], 15 * S);
    let json: Value = serde_json::from_str(&report(&said, &["--format", "json"])).unwrap();
    assert_eq!(json["cable"]["configured"], serde_json::json!(["eth0"]));
    let findings = json["cable"]["findings"].as_array().unwrap();
    let kinds: Vec<&str> = findings.iter().filter_map(|f| f["kind"].as_str()).collect();
    let expected = [
        "request_grant",
        "directional_loss",
        "periodicity",
        "upstream_buffer",
    ];
    assert_eq!(kinds, expected);
    let args = ["--format", "json", "--anonymize"];
    let json: Value = serde_json::from_str(&report(&said, &args)).unwrap();
    assert_eq!(json["cable"]["configured"], serde_json::json!(["uplink 1"]));
    // And is told as one where nothing is found of it.
    let quiet = dir.path().join("quiet.redb");
    store(&quiet, &[Reading::Said], 0);
    let words = report(&quiet, &["--format", "text"]).replace(['\u{a0}', '\n'], " ");
    let words: Vec<&str> = words.split_whitespace().collect();
    let words = words.join(" ");
    assert!(
        words.contains("eth0: a cable by the daemon's configuration, of which nothing is found"),
        "{words}"
    );

    // The same without grants: DSL, fibre, a radio; and without a cable's ranging: fibre, a dish.
    for (name, readings, period_ns) in [
        ("dsl", &[loss, loaded][..], 30 * S),
        ("optical", &[grants, loss, loaded], 15 * S),
    ] {
        let other = dir.path().join(name);
        store(&other, readings, period_ns);
        let json: Value = serde_json::from_str(&report(&other, &["--format", "json"])).unwrap();
        assert_eq!(json["cable"], Value::Null, "{name}");
        for format in ["text", "md"] {
            let said = report(&other, &["--format", format]);
            assert!(!said.contains("Cable"), "{name}");
        }
    }
}
