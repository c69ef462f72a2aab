//! What is exported is the same in every format, whoever reads it and whatever is in it.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::common::{Line, S, printed};

/// A line whose names and events are made to do harm, with ten thousand events.
fn hostile(store: &Path) {
    let mut line = Line::new(2, S, 600 * S);
    line.series[0].0 = "=cmd|'/C calc'!A0".into();
    line.series[0].1 = "<script>alert(1)</script>, \"quoted\"\r\nnext,line".into();
    line.event_text = "=HYPERLINK(\"x\")</td>\u{1b}[31m\n,;\t\u{202e}".into();
    line.events = 10_000;
    line.load_tests = 3;
    line.write(store);
}

const WHAT: [&str; 4] = ["samples", "rollups", "events", "tests"];

/// DuckDB and pyarrow are asked: what a file says is what they say it says.
#[test]
fn other_programs_read_the_same_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("s.redb");
    hostile(&store);
    for what in WHAT {
        for format in ["csv", "json", "parquet"] {
            let file = dir.path().join(format!("{what}.{format}"));
            let out = file.to_str().unwrap();
            printed(
                &store,
                &["export", "--what", what, "--format", format, "--out", out],
            );
        }
    }
    let python = std::env::var("BUFFERBANE_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut read = Command::new(python);
    read.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/exports.py"))
        .arg(dir.path());
    let output = match read.output() {
        Ok(output) => output,
        Err(e) => return unavailable(&format!("python3 cannot be started: {e}")),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(77) {
        return unavailable(said.trim());
    }
    assert!(output.status.success(), "{said}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("events: 10000 rows"), "{said}");
}

#[test]
fn ten_thousand_hostile_events_spoil_no_report() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("s.redb");
    hostile(&store);
    let all = ["--from", "2026-05-01 17:59", "--to", "2026-05-01 18:11"];
    let report = |format| {
        printed(
            &store,
            &[&["report", "--format", format], &all[..]].concat(),
        )
    };
    let page = report("html");
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
    assert!(!page.contains("<script>alert") && !page.contains("</td>\u{fffd}[31m"));
    for format in ["html", "md", "text"] {
        let text = report(format);
        assert!(
            !text.contains('\u{1b}') && !text.contains('\u{202e}'),
            "{format}"
        );
    }
    let json: serde_json::Value = serde_json::from_str(&report("json")).unwrap();
    assert_eq!(json["events"].as_array().unwrap().len(), 10_000);
    let svg = printed(
        &store,
        &[&["chart", "timeline", "--format", "svg"], &all[..]].concat(),
    );
    assert!(
        svg.len() < 200_000 && !svg.contains("<script"),
        "{}",
        svg.len()
    );
}

/// A test that cannot run says so; where `CI` is set, it fails.
fn unavailable(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    let _ = std::io::stderr().write_all(format!("SKIPPED: {why}\n").as_bytes());
}
