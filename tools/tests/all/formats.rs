//! What one format says every other says too, and all say what the exported samples come to when
//! somebody counts them by hand.

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::{Line, S, printed};
use serde_json::Value;

const ALL: [&str; 4] = ["--from", "2026-05-01 17:59", "--to", "2026-05-01 20:01"];

/// What the samples of one series come to.
#[derive(Default)]
struct Naive {
    sent: u64,
    lost: u64,
    lost_up: u64,
    lost_down: u64,
    longest_run: u64,
    run: u64,
    rtt_ns: Vec<u64>,
}

impl Naive {
    fn add(&mut self, status: &str, rtt_ns: Option<u64>) {
        if status == "duplicate" || status == "unsent" {
            return;
        }
        self.sent += 1;
        self.lost_up += u64::from(status == "lost_up");
        self.lost_down += u64::from(status == "lost_down");
        if status.starts_with("lost") {
            self.lost += 1;
            self.run += 1;
            self.longest_run = self.longest_run.max(self.run);
        } else {
            self.run = 0;
        }
        self.rtt_ns.extend(rtt_ns);
    }

    /// By nearest rank.
    fn quantile_ns(&self, q: f64) -> f64 {
        let rank = (q * self.rtt_ns.len() as f64).ceil().max(1.0) as usize;
        self.rtt_ns[rank - 1] as f64
    }
}

/// The rows of an export by the names in its header. No field in these has a comma.
fn rows(text: &str) -> Vec<BTreeMap<&str, &str>> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    lines
        .map(|l| header.iter().copied().zip(l.split(',')).collect())
        .collect()
}

/// A number as people read it: `2 585 800`, `0.17 %`, `17.69`, and what one of its last digit is worth.
fn number(text: &str) -> (f64, f64) {
    let digits: String = text
        .chars()
        .filter(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    let decimals = digits.split_once('.').map_or(0, |(_, d)| d.len());
    let value = digits.parse().unwrap_or_else(|_| panic!("{text:?}"));
    (value, 10f64.powi(-(decimals as i32)))
}

/// Holds a figure in words against the truth: it may be rounded, and a percentile be off by 1 %.
fn holds(what: &str, text: &str, truth: f64, off: f64) {
    let (said, digit) = number(text);
    let allowed = digit * 0.501 + truth * off;
    assert!(
        (said - truth).abs() <= allowed,
        "{what}: {text} for {truth}"
    );
}

/// Figures of a series in each format for people, by the heading of the column.
type Figures = BTreeMap<&'static str, String>;

/// The columns that all three have, in the order of the text and of Markdown.
const COLUMNS: [&str; 9] = [
    "sent", "lost", "up", "down", "median", "p95", "p99", "max", "jitter",
];

fn of_text(report: &str, target: &str) -> Figures {
    let row = report
        .lines()
        .find(|l| l.starts_with(&format!("eth0  {target} ")))
        .unwrap();
    let cells = row.split("  ").map(str::trim).filter(|c| !c.is_empty());
    let cells: Vec<&str> = cells.collect();
    let figures = COLUMNS.into_iter().zip(&cells[3..]);
    figures.map(|(name, c)| (name, (*c).to_owned())).collect()
}

fn of_markdown(report: &str, target: &str) -> Figures {
    let row = report
        .lines()
        .find(|l| l.starts_with(&format!("| eth0 | {target} ")))
        .unwrap();
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    let columns = COLUMNS.into_iter().chain(["longest"]);
    let figures = columns.zip(&cells[4..]);
    figures.map(|(name, c)| (name, (*c).to_owned())).collect()
}

fn of_page(page: &str, target: &str) -> Figures {
    let table = &page[page.find("<table class=\"figures\"").unwrap()..];
    let row = table
        .split("<tr")
        .find(|r| r.contains(&format!("eth0 → {target}")))
        .unwrap();
    [
        ("sent", "Sent"),
        ("lost", "Lost"),
        ("up", "Lost up"),
        ("down", "Lost down"),
        ("longest", "Longest run"),
        ("median", "RTT median"),
        ("p95", "p95"),
        ("p99", "p99"),
        ("max", "max"),
        ("jitter", "Jitter ms"),
    ]
    .into_iter()
    .map(|(name, label)| {
        let cell = row
            .split(&format!("data-label=\"{label}\">"))
            .nth(1)
            .unwrap();
        (name, cell.split('<').next().unwrap().to_owned())
    })
    .collect()
}

/// All that is asked of one store.
struct Said {
    samples: String,
    json: Value,
    text: String,
    markdown: String,
    page: String,
}

impl Said {
    fn of(store: &Path) -> Self {
        let ask = |command: &[&str]| {
            let said = printed(store, &[command, &ALL[..], &["--utc"]].concat());
            // What keeps numbers and units together.
            said.replace('\u{a0}', " ")
        };
        Self {
            samples: ask(&["export", "--format", "csv"]),
            json: serde_json::from_str(&ask(&["report", "--format", "json"])).unwrap(),
            text: ask(&["report", "--format", "text"]),
            markdown: ask(&["report", "--format", "md"]),
            page: ask(&["report", "--format", "html"]),
        }
    }
}

/// Two hours, so that the reports are made from rollups, and events and tests in them.
fn line() -> Line {
    let mut line = Line::new(4, S / 2, 7_200 * S);
    line.events = 3;
    line.load_tests = 3;
    line
}

/// What quick echoes found stands beside the event, the same in each format.
#[test]
fn every_format_tells_the_close_look_of_an_event() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("s.redb");
    line().write(&store);
    let said = Said::of(&store);
    let events = said.json["events"].as_array().unwrap();
    let looks = events.iter().filter_map(|e| e["close_looks"].as_array());
    let looks: Vec<&Value> = looks.flatten().collect();
    let [gateway, far] = looks[..] else {
        panic!("{looks:?}");
    };
    assert_eq!(gateway["target"], "gateway");
    assert_eq!(far["halves"].as_array().unwrap().len(), 20);
    let figure = |of: &Value, name: &str| of[name].as_u64().unwrap();
    let ms = |of: &Value, name: &str| figure(of, name) as f64 / 1e6;
    let (sent, answered) = (figure(far, "sent"), figure(far, "answered"));
    let sums = |i: usize| {
        let halves = far["halves"].as_array().unwrap().iter();
        halves.map(|h| h[i].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((sums(0), sums(1)), (sent, answered));
    let listed = printed(&store, &[&["events"], &ALL[..], &["--utc"]].concat());
    for text in [&said.text, &said.markdown, &said.page, &listed] {
        let words: Vec<&str> = text.split_whitespace().collect();
        let words = words.join(" ").replace('\u{a0}', " ");
        let (_, told) = words
            .split_once("quick echoes: gateway answered all ")
            .unwrap();
        let told = &told[..told.find(" (median 400 µs, the slowest 900 µs)").unwrap() + 200];
        assert!(
            told.starts_with(&figure(gateway, "sent").to_string()),
            "{told}"
        );
        let of_far = format!(
            "vienna left {} of {sent} unanswered, in one silence of ",
            sent - answered
        );
        let (_, silence) = told.split_once(&of_far).unwrap();
        holds(
            "silence",
            silence.split(" s from").next().unwrap(),
            ms(far, "silence_ns") / 1e3,
            0.0,
        );
    }
}

#[test]
fn every_format_says_what_the_samples_come_to() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("s.redb");
    line().write(&store);
    let said = Said::of(&store);
    let mut truth: BTreeMap<&str, Naive> = BTreeMap::new();
    let listed = rows(&said.samples);
    for row in &listed {
        let of = truth.entry(row["target"]).or_default();
        of.add(row["status"], row["rtt_ns"].parse().ok());
    }
    assert_eq!(truth.len(), 4);
    for (target, of) in &mut truth {
        of.rtt_ns.sort_unstable();
        let series = said.json["series"].as_array().unwrap();
        let json = series.iter().find(|s| s["target"] == **target).unwrap();
        assert!(of.sent > 13_000 && of.lost > 100, "{target}");
        assert_eq!(json["sent"], of.sent);
        assert_eq!(json["lost"], of.lost);
        assert_eq!(json["loss_runs"]["longest"], of.longest_run);
        let directed = json["kind"] == "udp";
        assert_eq!(directed, *target == "vienna");
        let exact = |name: &str| json["rtt_ns"][name].as_u64().unwrap() as f64;
        for (name, q) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
            let (said, truth) = (exact(name), of.quantile_ns(q));
            assert!(
                (said - truth).abs() <= truth * 0.01,
                "{target} {name}: {said} for {truth}"
            );
        }
        assert_eq!(exact("max"), *of.rtt_ns.last().unwrap() as f64);
        for (format, figures) in [
            ("text", of_text(&said.text, target)),
            ("Markdown", of_markdown(&said.markdown, target)),
            ("HTML", of_page(&said.page, target)),
        ] {
            let holds = |name: &str, truth: f64, off: f64| {
                holds(
                    &format!("{target}, {format}: {name}"),
                    &figures[name],
                    truth,
                    off,
                );
            };
            let share = |n: u64| n as f64 * 100.0 / of.sent as f64;
            holds("sent", of.sent as f64, 0.0);
            holds("lost", share(of.lost), 0.0);
            if directed {
                assert_eq!(json["lost_up"], of.lost_up);
                assert_eq!(json["lost_down"], of.lost_down);
                holds("up", share(of.lost_up), 0.0);
                holds("down", share(of.lost_down), 0.0);
            } else {
                assert!(json["lost_up"].is_null() && json["lost_down"].is_null());
                assert_eq!((&*figures["up"], &*figures["down"]), ("–", "–"));
            }
            holds("median", of.quantile_ns(0.5) / 1e6, 0.01);
            holds("p95", of.quantile_ns(0.95) / 1e6, 0.01);
            holds("p99", of.quantile_ns(0.99) / 1e6, 0.01);
            holds("max", exact("max") / 1e6, 0.0);
            // And exactly what JSON says, rounded.
            holds("median", exact("p50") / 1e6, 0.0);
            holds("p99", exact("p99") / 1e6, 0.0);
            let jitter = json["jitter_ns"]["mean"].as_u64().unwrap();
            holds("jitter", jitter as f64 / 1e6, 0.0);
            // The text has runs in a sentence.
            if format != "text" {
                holds("longest", of.longest_run as f64, 0.0);
            }
        }
        let run = of.longest_run;
        assert!(said.text.contains(&format!("longest run {run} within")));
    }
    // Minutes add up to the same.
    let minutes = printed(
        &store,
        &[
            &["export", "--what", "rollups", "--format", "csv"],
            &ALL[..],
        ]
        .concat(),
    );
    for (target, of) in &truth {
        let minutes = rows(&minutes);
        let own = || minutes.iter().filter(|r| r["target"] == *target);
        let sum = |name: &str| own().map(|r| r[name].parse::<u64>().unwrap()).sum::<u64>();
        assert_eq!((sum("sent"), sum("lost")), (of.sent, of.lost), "{target}");
        let most = own().map(|r| r["rtt_max_ns"].parse::<u64>().unwrap_or(0));
        assert_eq!(most.max(), of.rtt_ns.last().copied());
    }
}

#[test]
fn every_format_tells_the_same_outages_and_tests() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("s.redb");
    line().write(&store);
    let said = Said::of(&store);
    let ask = |what| {
        let export = ["export", "--what", what, "--format", "json"];
        let text = printed(&store, &[&export[..], &ALL].concat());
        let lines = text.lines();
        lines
            .map(|l| serde_json::from_str(l).unwrap())
            .collect::<Vec<Value>>()
    };
    let events = ask("events");
    assert_eq!(events.len(), 3);
    assert_eq!(said.json["events"].as_array().unwrap().len(), 3);
    // All three overlap: one outage, from the first begin to the last end.
    let time = |e: &Value, name: &str| e[name].as_i64().unwrap();
    let from = events.iter().map(|e| time(e, "start_ns")).min().unwrap();
    let to = events.iter().map(|e| time(e, "end_ns")).max().unwrap();
    let outage = &said.json["outages"][0];
    assert_eq!(
        (&outage["count"], &outage["total_ns"]),
        (&1.into(), &(to - from).into())
    );
    let lasted = format!("{} min", (to - from) / (60 * S as i64));
    for (format, report) in [
        ("text", &said.text),
        ("Markdown", &said.markdown),
        ("HTML", &said.page),
    ] {
        let lasts = format!(" for {lasted}");
        let (_, said) = report
            .split_once("eth0: cut off once, at ")
            .unwrap_or_else(|| panic!("{format}"));
        let sentence = said.split_once('.').map_or(said, |(s, _)| s);
        assert!(sentence.ends_with(&lasts), "{format}: {sentence}");
        assert_eq!(
            report.matches("the cable was pulled").count(),
            3,
            "{format}"
        );
    }
    let tests = ask("tests");
    let told = said.json["throughput"].as_array().unwrap();
    assert_eq!((tests.len(), told.len()), (3, 3));
    for (listed, told) in tests.iter().zip(told) {
        for name in ["mean_bps", "p10_bps", "p90_bps", "bytes", "direction"] {
            assert_eq!(listed[name], told[name], "{name}");
        }
        let mbit = listed["mean_bps"].as_f64().unwrap() / 1e6;
        for report in [&said.text, &said.markdown, &said.page] {
            assert!(report.contains(&format!("{mbit:.1} Mbit/s")), "{mbit}");
        }
    }
}
