//! `bbtool` as people and programs use it, on a store with a known line in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::common::{Line, S, bbtool};
use bufferbane_store::SeriesKind;
use serde_json::Value;

/// Two series at 5 Hz for ten minutes, with a gap and an outage.
struct Given {
    dir: tempfile::TempDir,
    store: PathBuf,
}

impl Given {
    fn new(change: impl FnOnce(&mut Line)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("s.redb");
        let mut line = Line::new(2, S / 5, 600 * S);
        change(&mut line);
        line.write(&store);
        Self { dir, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs it; it has to end well.
    fn ok(&self, args: &[&str]) -> String {
        let output = bbtool(&self.store, args);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{args:?}: {}",
            errors(&output)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }
}

/// The program with nothing but these arguments.
fn bbtool_alone(args: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_bbtool");
    std::process::Command::new(program)
        .args(args)
        .output()
        .unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const ALL: [&str; 4] = ["--from", "2026-05-01 17:59", "--to", "2026-05-01 18:11"];

fn with<'a>(command: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [command, &ALL, more].concat()
}

/// The export's rows by the names in its header.
fn csv(text: &str) -> Vec<BTreeMap<&str, &str>> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    lines
        .map(|l| header.iter().copied().zip(l.split(',')).collect())
        .collect()
}

#[test]
fn the_report_counts_what_the_export_lists() {
    let given = Given::new(|_| {});
    let report = given.json(&with(&["report"], &["--format", "json"]));
    assert_eq!(report["schema"], "bufferbane.report/1");
    let text = given.ok(&with(&["export"], &["--format", "csv"]));
    assert_eq!(
        text.lines().next().unwrap(),
        "time_ns,interface,target,kind,seq,size,dscp,status,rtt_ns,raw_up_ns,raw_down_ns,\
         queue_up_ns,queue_down_ns,send_late_ns,tx_clock,rx_clock,remote_rx_clock,\
         remote_tx_clock,err_ns,errno,flags,dscp_seen,ecn_seen,ttl_up,ttl_down,boot,mono_ns,test"
    );
    let rows = csv(&text);
    let times: Vec<i64> = rows.iter().map(|r| r["time_ns"].parse().unwrap()).collect();
    assert!(times.is_sorted());
    let series = report["series"].as_array().unwrap();
    assert_eq!(series.len(), 2);
    for s in series {
        let own = || rows.iter().filter(|r| s["target"] == r["target"]);
        let of = |status: &[&str]| own().filter(|r| status.contains(&r["status"])).count() as u64;
        assert!(of(&["ok"]) > 2500);
        assert_eq!(s["sent"], own().count() as u64);
        assert_eq!(s["late"], of(&["late"]));
        let lost = of(&["lost", "lost_up", "lost_down"]);
        assert!(lost > 30);
        assert_eq!(s["lost"], lost, "{s}");
        if s["kind"] == "udp" {
            assert_eq!(s["lost_up"], of(&["lost_up"]));
            assert_eq!(s["lost_down"], of(&["lost_down"]));
        } else {
            assert!(s["lost_up"].is_null() && s["lost_down"].is_null());
        }
        let mut rtt: Vec<u64> = own()
            .filter(|r| r["status"] == "ok")
            .map(|r| r["rtt_ns"].parse().unwrap())
            .collect();
        rtt.sort_unstable();
        let near = |told: &Value, exact: u64| {
            let told = told.as_u64().unwrap();
            assert!(
                told.abs_diff(exact) * 100 <= exact,
                "{told} for {exact}: {s}"
            );
        };
        near(&s["rtt_ns"]["p50"], rtt[rtt.len() / 2]);
        near(&s["rtt_ns"]["p99"], rtt[rtt.len() * 99 / 100]);
        near(&s["rtt_ns"]["min"], rtt[0]);
        let mut answered: Vec<(u64, f64)> = own()
            .filter(|r| ["ok", "late"].contains(&r["status"]))
            .filter_map(|r| Some((r["seq"].parse().unwrap(), r["rtt_ns"].parse().ok()?)))
            .collect();
        answered.sort_by_key(|a| a.0);
        let smoothed: Vec<f64> = answered
            .windows(2)
            .scan(0.0, |j, pair| {
                *j += ((pair[1].1 - pair[0].1).abs() - *j) / 16.0;
                Some(*j)
            })
            .collect();
        let mean = smoothed.iter().sum::<f64>() / smoothed.len() as f64;
        near(&s["jitter_ns"]["mean"], mean as u64);
        near(&s["jitter_ns"]["last"], *smoothed.last().unwrap() as u64);
    }
    // JSON lines say the same as CSV.
    let lines = given.ok(&with(&["export"], &["--format", "json"]));
    assert_eq!(lines.lines().count(), rows.len());
    for (line, row) in lines.lines().zip(&rows) {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["seq"].to_string(), row["seq"]);
        assert_eq!(line["rtt_ns"].as_u64(), row["rtt_ns"].parse().ok());
        assert_eq!(line["status"], row["status"]);
    }
}

#[test]
fn parquet_holds_what_csv_lists() {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;
    let given = Given::new(|_| {});
    let text = given.ok(&with(&["export"], &[]));
    let rows = csv(&text);
    let path = given.path("samples.parquet");
    let to = path.to_str().unwrap();
    given.ok(&with(&["export"], &["--format", "parquet", "--out", to]));
    let file = std::fs::File::open(&path).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    let mut count = 0;
    for (row, listed) in reader.get_row_iter(None).unwrap().zip(&rows) {
        let row = row.unwrap();
        assert_eq!(row.get_long(0).unwrap().to_string(), listed["time_ns"]);
        assert_eq!(row.get_string(2).unwrap(), listed["target"]);
        // Null where CSV has nothing.
        assert_eq!(row.get_long(8).ok(), listed["rtt_ns"].parse().ok());
        count += 1;
    }
    assert_eq!(count, rows.len());
}

#[test]
fn before_and_after_are_told_apart_and_names_are_left_out() {
    let given = Given::new(|_| {});
    let compare = [
        "report",
        "--json",
        "--anonymize",
        "--compare",
        "2026-05-01 18:00..2026-05-01 18:05",
        "2026-05-01 18:05..2026-05-01 18:10",
    ];
    let text = given.ok(&compare);
    for name in ["eth0", "vienna", "gateway"] {
        assert!(!text.contains(name), "{name}");
    }
    let report: Value = serde_json::from_str(&text).unwrap();
    let changes = report["compared"][0]["changes"].as_array().unwrap();
    // Five blocks of a minute are too few to say anything.
    assert!(changes.iter().all(|c| c["says"] == "too short to say"));
    let wrong = bbtool(&given.store, &["report", "--compare", "yesterday"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn a_silent_resolver_is_no_word_against_the_line() {
    let given = Given::new(|line| {
        let series = |target: &str, kind| ("eth0".to_owned(), target.to_owned(), kind);
        line.series = vec![
            series("cloudflare", SeriesKind::Icmp),
            series("quad9", SeriesKind::Icmp),
            series("resolver", SeriesKind::Dns),
            series("resolver-2", SeriesKind::Dns),
        ];
        line.silent = vec!["resolver".into(), "resolver-2".into()];
        (line.gap_ns, line.outage_ns, line.events) = (0..0, 0..0, 0);
    });
    let report = given.json(&[
        "report",
        "--json",
        "--from",
        "2026-05-01 18:00",
        "--to",
        "2026-05-01 18:10",
    ]);
    let silent = &report["series"][2];
    assert_eq!(
        (&silent["target"], &silent["received"]),
        (&"resolver".into(), &0.into())
    );
    let verdict = &report["verdicts"][0];
    assert_eq!(verdict["cause"], "nothing_wrong", "{verdict:#}");
    let evidence = verdict["evidence"].to_string();
    assert!(
        evidence.contains("quad9") && !evidence.contains("resolver"),
        "{evidence}"
    );

    // One loss of the line's own makes a paragraph, and that names nobody else.
    let text = given.ok(&with(&["report"], &[])).replace('\u{a0}', " ");
    assert!(text.contains("packets to "), "{text}");
    assert!(!text.contains("to resolver"), "{text}");
    assert!(text.contains(": 6 000 packets, one every"), "{text}");
}

#[test]
fn two_stores_stand_side_by_side() {
    let given = Given::new(|_| {});
    let other = given.path("laptop.redb");
    Line::new(1, S / 5, 600 * S).write(&other);
    let report = given.json(&with(
        &["report"],
        &["--json", "--also", other.to_str().unwrap()],
    ));
    let names: Vec<&str> = report["series"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["interface"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["s: eth0", "s: eth0", "laptop: eth0"]);
}

#[test]
fn no_name_is_left_in_any_format_of_two_stores_without_names() {
    let given = Given::new(|l| l.load_tests = 2);
    let other = given.path("laptop.redb");
    let mut line = Line::new(1, S / 5, 600 * S);
    line.load_tests = 1;
    line.write(&other);
    let other = other.to_str().unwrap();
    let host = nix::unistd::gethostname().unwrap();
    let host = host.to_str().unwrap();
    for format in ["html", "md", "text", "json"] {
        let options = ["--format", format, "--also", other];
        let named = given.ok(&with(&["report"], &options));
        assert!(
            named.contains("eth0") && named.contains("laptop"),
            "{format}"
        );
        let words = |text: String| {
            let plain = text.replace("&#39;", "'").replace(['\\', '\u{a0}'], " ");
            plain.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let named = words(named);
        let looked = if format == "json" {
            "\"end\": \"silence\", \"provider_hop\": 2"
        } else {
            "beginning: the way to vienna ended after hop 2 of 3, 100.64.7.1 (the provider's first router)"
        };
        assert!(named.contains(looked), "{format}: {named}");
        let close = if format == "json" {
            "\"target\": \"vienna\", \"address\": \"192.0.2.1\", \"sent\": 200, \"answered\": 60,"
        } else {
            "beginning: quick echoes: gateway answered all 200 (median 400 µs, the slowest 900 µs); vienna left 140 of \
             200 unanswered, in one silence of 7.00 s from "
        };
        assert!(named.contains(close), "{format}: {named}");
        let options = [&options[..], &["--anonymize"]].concat();
        let report = given.ok(&with(&["report"], &options));
        // A host may be called what is in every page.
        let names = [
            "eth0",
            "vienna",
            "laptop",
            "192.0.2.1",
            "100.64.7.1",
            "10.77.0.254",
        ];
        let is_telling = host.len() > 7;
        for name in names.into_iter().chain(is_telling.then_some(host)) {
            assert!(!report.contains(name), "{name} in {format}");
        }
        assert!(report.contains("uplink 1"), "{format}");
    }
}

#[test]
fn load_and_capacity_are_drawn_with_the_methods_told_apart() {
    let given = Given::new(|l| l.load_tests = 1);
    let chart = given.ok(&with(&["chart", "load"], &["--format", "svg"]));
    for says in [
        "capacity by a test",
        "capacity seen in use",
        "4\u{a0}estimates",
        "10.4 Mbit/s",
    ] {
        assert!(chart.contains(says), "{says}");
    }
    let report = given.json(&with(&["report"], &["--json"]));
    assert_eq!(report["load"][0]["up_bps"]["max"], 9_000_000);
    assert_eq!(report["capacity"].as_array().unwrap().len(), 4);
    let without = Given::new(|_| {});
    let output = bbtool(
        &without.store,
        &with(&["chart", "load"], &["--format", "svg"]),
    );
    assert_eq!(output.status.code(), Some(3), "{}", errors(&output));
}

#[test]
fn every_chart_is_drawn_in_both_formats() {
    let given = Given::new(|l| l.load_tests = 3);
    for kind in [
        "latency",
        "jitter",
        "loss",
        "distribution",
        "comparison",
        "heatmap",
        "timeline",
        "throughput",
        "bufferbloat",
        "test",
        "load",
    ] {
        for (format, begin) in [("png", &b"\x89PNG"[..]), ("svg", b"<svg")] {
            let file = given.path(&format!("{kind}.{format}"));
            let to = file.to_str().unwrap();
            given.ok(&with(
                &["chart", kind],
                &["--format", format, "--out", to, "--width", "700"],
            ));
            let bytes = std::fs::read(&file).unwrap();
            assert!(bytes.starts_with(begin) && bytes.len() > 2000, "{kind}");
        }
    }
}

#[test]
fn charts_of_tests_say_what_was_tested_and_that_there_was_none() {
    let given = Given::new(|l| l.load_tests = 2);
    let one = given.ok(&with(
        &["chart", "test"],
        &["--format", "svg", "--test", "0"],
    ));
    for says in [
        "10.4 Mbit/s",
        "up p90 +159\u{a0}ms (C)",
        "2\u{a0}probes",
        "cubic",
        "18:00:00",
    ] {
        assert!(one.contains(says), "{says}");
    }
    let newest = given.ok(&with(&["chart", "test"], &["--format", "svg"]));
    assert!(newest.contains("18:00:30") && !newest.contains("18:00:05"));
    let many = given.ok(&with(&["chart", "throughput"], &["--format", "svg"]));
    assert!(many.contains("2\u{a0}tests") && many.contains("median 10.4 Mbit/s"));
    let missing = with(
        &["chart", "bufferbloat"],
        &["--format", "svg", "--test", "7"],
    );
    let output = bbtool(&given.store, &missing);
    assert_eq!(output.status.code(), Some(3), "{}", errors(&output));
    assert!(errors(&output).contains("no throughput test"));
}

#[test]
fn a_store_that_was_not_closed_is_read_all_the_same() {
    let given = Given::new(|l| l.close = false);
    let report = given.json(&with(&["report"], &["--format", "json"]));
    assert!(report["series"][0]["sent"].as_u64() > Some(2500));
    assert!(given.ok(&["store", "check"]).contains(": whole\n"));
}

#[test]
fn lists_are_for_people_and_for_programs() {
    let given = Given::new(|_| {});
    let events = given.json(&with(&["events"], &["--json"]));
    let events = events.as_array().unwrap();
    assert!(events.iter().any(|e| e["text"] == "the cable was pulled"));
    assert!(given.ok(&with(&["events"], &[])).contains("cable"));
    let targets = given.json(&["targets", "--json"]);
    assert_eq!(targets.as_array().unwrap().len(), 2);
    assert!(given.ok(&["targets"]).contains("vienna"));
}

#[test]
fn status_without_a_daemon_is_that_of_the_store_that_is_named() {
    let given = Given::new(|_| {});
    let status = given.json(&["status", "--json"]);
    assert_eq!(status["running"], false);
    assert_eq!(status["store"]["path"], given.store.to_str().unwrap());
    assert_eq!(status["series"].as_array().unwrap().len(), 2);
    let first = status["store"]["first"].as_str().unwrap();
    let said = given.ok(&["status", "--utc"]);
    let civil = first[..19].replace('T', " ");
    assert!(
        said.contains("no daemon that writes to it answers"),
        "{said}"
    );
    assert!(said.contains("vienna") && said.contains(&civil), "{said}");
}

#[test]
fn no_option_is_taken_and_ignored() {
    let given = Given::new(|_| {});
    let copy = given.path("copy.redb");
    let copied = given.json(&["store", "copy", copy.to_str().unwrap(), "--json"]);
    assert_eq!(copied["copy"], copy.to_str().unwrap());
    let gone = given.json(&["store", "prune", "--samples", "1d", "--yes", "--json"]);
    assert!(gone["removed"]["blocks"].as_u64() > Some(0), "{gone}");
    assert_eq!(gone["removed"]["events"], 0, "{gone}");
    let gone = given.json(&["store", "prune", "--events", "1d", "--yes", "--json"]);
    assert!(gone["removed"]["events"].as_u64() > Some(0), "{gone}");
    assert_eq!(gone["removed"]["blocks"], 0, "{gone}");
    let small = given.json(&["store", "compact", "--json"]);
    assert!(small["file_bytes"].as_u64() <= small["file_bytes_before"].as_u64());
    let utc = given.ok(&["store", "check", "--utc"]);
    assert!(utc.contains("UTC"), "{utc}");
    // What a command could not honour it does not take.
    for args in [
        &["chart", "latency", "--json"][..],
        &["test", "--utc"],
        &["store", "copy", "x", "--utc"],
        &["keygen", "a", "--store", "x"],
        &["live", "--json"],
    ] {
        let output = bbtool_alone(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn usage_data_and_failure_have_exit_codes_of_their_own() {
    let given = Given::new(|_| {});
    let fails = |args: &[&str], code: i32, says: &str| {
        let output = bbtool(&given.store, args);
        let said = errors(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(says), "{args:?}: {said}");
    };
    fails(&["report", "--last", "5 bananas"], 2, "5 bananas");
    fails(&["report", "--format", "pdf"], 2, "pdf");
    fails(&["chart", "pie"], 2, "pie");
    fails(&["rapport"], 2, "rapport");
    fails(
        &["report", "--from", "2020-01-01", "--to", "2020-01-02"],
        3,
        "",
    );
    let nobody = bbtool_alone(&["status", "--socket", "/nonexistent/control"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(errors(&nobody).contains("--store FILE says what a store holds"));
    let missing = bbtool(Path::new("/nonexistent/s.redb"), &["report"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(errors(&missing).contains("/nonexistent/s.redb"));
    // A foreign file is not touched.
    let foreign = given.path("foreign");
    std::fs::write(&foreign, "a letter to my provider").unwrap();
    let output = bbtool(&foreign, &["report"]);
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    assert_eq!(
        std::fs::read_to_string(&foreign).unwrap(),
        "a letter to my provider"
    );
}

#[test]
fn a_damaged_store_is_told_in_a_sentence_and_stays_as_it_is() {
    let given = Given::new(|_| {});
    let whole = std::fs::read(&given.store).unwrap();
    let mut torn = whole.clone();
    torn[16 << 10..].fill(0xff);
    for (name, bytes) in [
        ("torn.redb", &torn[..]),
        ("short.redb", &whole[..whole.len() / 2]),
        ("empty.redb", &[]),
    ] {
        let path = given.path(name);
        std::fs::write(&path, bytes).unwrap();
        for args in [
            &["report"][..],
            &["export"],
            &["events"],
            &["status"],
            &["store", "check"],
            &["store", "compact"],
            &["store", "prune", "--samples", "1d", "--yes"],
        ] {
            let output = bbtool(&path, args);
            let said = errors(&output);
            let why = if bytes.is_empty() {
                "no store there"
            } else {
                "damaged"
            };
            assert_eq!(output.status.code(), Some(1), "{name} {args:?}: {said}");
            assert!(
                said.contains(why) && said.lines().count() == 1,
                "{name} {args:?}: {said}"
            );
            assert!(std::fs::read(&path).unwrap() == bytes, "{name} {args:?}");
        }
    }
}

#[test]
fn old_data_goes_only_when_somebody_says_yes() {
    let given = Given::new(|_| {});
    let rows = || bbtool(&given.store, &with(&["export"], &[])).stdout.len();
    let sent = || {
        let report = given.json(&with(&["report"], &["--format", "json"]));
        report["series"][0]["sent"].as_u64().unwrap()
    };
    let before = (rows(), sent());
    let asked = bbtool(&given.store, &["store", "prune", "--samples", "1d"]);
    assert_ne!(asked.status.code(), Some(0), "{}", errors(&asked));
    assert_eq!((rows(), sent()), before);
    given.ok(&["store", "prune", "--samples", "1d", "--yes"]);
    // The samples are gone; what they came to stays in the summaries.
    assert_eq!(rows(), 0);
    assert_eq!(sent(), before.1);
    given.ok(&["store", "compact"]);
    assert_eq!(sent(), before.1);
}

#[test]
fn a_new_key_is_private_and_its_blocks_name_it() {
    let given = Given::new(|_| {});
    let dir = given.dir.path().to_str().unwrap();
    let said = given.ok(&["keygen", "vienna", "--dir", dir]);
    assert!(said.contains("[[reflector]]") && said.contains("[[client]]"));
    // What the key may cost can be limited where it is pasted.
    let client = &said[said.find("[[client]]").unwrap()..];
    for limit in ["\n#max_pps = ", "\n#max_rate = ", "\n#daily_bytes = "] {
        assert!(client.contains(limit), "{limit} in {client}");
    }
    let file = given.path("vienna.key");
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let key = std::fs::read(&file).unwrap();
    let again = bbtool(&given.store, &["keygen", "vienna", "--dir", dir]);
    assert_ne!(again.status.code(), Some(0));
    assert_eq!(std::fs::read(&file).unwrap(), key, "never overwritten");
}
