//! What events say in figures, against what the line wrote down.

use std::net::IpAddr;

use bufferbane_lab::link::{Fate, Flow, Passage, Way};
use serde_json::Value;

use super::line::PROBE_BYTES;

const MS: i64 = 1_000_000;
/// Two intervals of the fastest stream.
const EDGE_NS: i64 = 100 * MS;
/// From a probe's departure to its arrival at the line, and to that of its answer.
const ON_THE_WAY_NS: i64 = 30 * MS;

/// Holds the events of `report` against the `log` of the line in trouble; what does not agree, in words. `hosts` are
/// far ones by name.
pub(super) fn hold(log: &[Passage], report: &Value, hosts: &[(&str, &str)]) -> Vec<String> {
    let to_ns = time_ns(&report["to"]);
    let mut wrong = Vec::new();
    let events = || report["events"].as_array().into_iter().flatten();
    // What is lost in a row is no part of the scattered loss beside it.
    let is_scattered = !events().any(|e| e["kind"] == "loss_burst");
    for event in events() {
        let (start_ns, end_ns) = (time_ns(&event["start"]), time_ns(&event["end"]));
        let values = &event["values"];
        let number = |name: &str| values[name].as_f64().unwrap_or(f64::NAN);
        let during = |p: &&Passage, slack_ns: i64| {
            (start_ns - slack_ns..=end_ns + slack_ns).contains(&p.arrival_ns)
        };
        let mut expect = |what: &str, said: f64, truth: f64, within: f64| {
            // What is not a number is not near either.
            let is_near = (said - truth).abs() <= within;
            if !is_near {
                let kind = &event["kind"];
                wrong.push(format!("{kind} says {what} {said}, the line {truth}"));
            }
        };
        match event["kind"].as_str().unwrap_or_default() {
            "micro_outage" => {
                let cut = log.iter().filter(|p| is_lost(p) && during(p, EDGE_NS));
                let (first, last) = (cut.clone().map(at).min(), cut.map(at).max());
                for (what, said, truth) in [("start", start_ns, first), ("end", end_ns, last)] {
                    let off_ns = truth.map_or(f64::NAN, |t| (said - t) as f64);
                    expect(what, off_ns, 0.0, EDGE_NS as f64);
                }
                let named = values["targets"].as_array().map_or(0, Vec::len);
                expect("targets", named as f64, hosts.len() as f64, 0.0);
            }
            "packet_loss" => {
                let name = values["measured_to"].as_str().unwrap_or_default();
                let Some((_, host)) = hosts.iter().find(|(n, _)| *n == name) else {
                    continue;
                };
                let host: IpAddr = host.parse().expect("an address");
                let of = |way: Way, is: fn(&Passage) -> bool| {
                    let own = log.iter().filter(|p| p.far == host && p.way == way);
                    let own = own.filter(|p| is_probe(p) && is(p));
                    own.filter(|p| during(p, ON_THE_WAY_NS)).count() as f64
                };
                let (up, down) = (of(Way::Up, is_lost), of(Way::Down, is_lost));
                let sent = of(Way::Up, |_| true);
                let (lost, share) = (up + down, (up + down) / sent);
                if is_scattered && to_ns - end_ns > 1_000 * MS {
                    // What is over is told of one series, and its edges are those of all.
                    let allowed = |truth: f64| 2.0 + 0.05 * truth;
                    let probes = number("probes");
                    expect("probes", probes, sent, allowed(sent));
                    expect("losses", number("loss") * probes, lost, allowed(lost));
                    if ["vienna", "berlin"].contains(&name) {
                        expect("lost_up", number("lost_up"), up, allowed(up));
                        expect("lost_down", number("lost_down"), down, allowed(down));
                    }
                } else {
                    // It was told of the time up to some moment of it.
                    expect("loss", number("loss"), share, 0.6 * share);
                }
            }
            "loss_burst" => {
                // One of a series is the longest, and which ones are bursts is not for the line to say.
                let ways = hosts.iter().flat_map(|h| Way::BOTH.map(|way| (h, way)));
                let runs = ways.flat_map(|((_, host), way)| {
                    let host: IpAddr = host.parse().expect("an address");
                    let own = log.iter().filter(|p| p.far == host && p.way == way);
                    let mut own: Vec<_> =
                        own.filter(|p| is_probe(p) && during(p, EDGE_NS)).collect();
                    own.sort_by_key(|p| p.arrival_ns);
                    let runs = own.chunk_by(|a, b| is_lost(a) == is_lost(b));
                    let runs = runs.filter(|r| is_lost(r[0]));
                    runs.map(|r| r.len() as f64).collect::<Vec<_>>()
                });
                let lost = number("lost");
                let near = |a: &f64, b: &f64| (a - lost).abs().total_cmp(&(b - lost).abs());
                let truth = runs.min_by(near).unwrap_or(f64::NAN);
                expect("lost", lost, truth, 0.0);
            }
            "latency_spike" => {
                let took = |is: &dyn Fn(&&Passage) -> bool| {
                    let up = log.iter().filter(|p| p.way == Way::Up && is(p));
                    median(up.filter_map(Passage::took_ns).collect())
                };
                let bad = |p: &&Passage| during(p, 0);
                let excess_ns = took(&bad) - took(&|p| p.arrival_ns < start_ns - 1_000 * MS);
                let allowed = 2.0 * MS as f64;
                expect("excess_ns", number("excess_ns"), excess_ns as f64, allowed);
            }
            "periodic_loss" => {
                let cut = log.iter().filter(|p| is_lost(p)).map(at);
                let mut cut: Vec<i64> = cut.collect();
                cut.sort_unstable();
                let runs = cut.chunk_by(|a, b| b - a < 1_000 * MS);
                let begins: Vec<i64> = runs.map(|run| run[0]).collect();
                let period_ns = median(begins.windows(2).map(|w| w[1] - w[0]).collect());
                let allowed = 0.01 * period_ns as f64;
                expect("period_ns", number("period_ns"), period_ns as f64, allowed);
            }
            _ => {}
        }
    }
    wrong
}

/// Whether `report` says of each `routing_fault`, of which there has to be one, that loss starts at this hop; if not, in
/// words.
pub(super) fn hold_start(report: &Value, hop: u64) -> Option<String> {
    let events = report["events"].as_array().into_iter().flatten();
    let faults = events.filter(|e| e["kind"] == "routing_fault");
    let started: Vec<&Value> = faults.map(|e| &e["values"]).collect();
    let is_right = |v: &&Value| {
        v["from_hop"] == hop && v["well_to_hop"] == hop - 1 && v["from_hop_by"] == "loss"
    };
    let all = !started.is_empty() && started.iter().all(is_right);
    (!all).then(|| format!("it starts at hop {hop}, and told is {started:?}"))
}

/// RFC 3339, as ns since 1970; of what lasts none.
fn time_ns(time: &Value) -> i64 {
    let time = time.as_str().map(str::parse::<jiff::Timestamp>);
    time.map_or(i64::MAX / 2, |t| t.expect("a time").as_nanosecond() as i64)
}

const fn at(p: &Passage) -> i64 {
    p.arrival_ns
}

fn is_lost(p: &Passage) -> bool {
    matches!(p.fate, Fate::Lost | Fate::Outage)
}

/// Whether it is one of a series' probes, or its answer; those of a close look have another size.
fn is_probe(p: &Passage) -> bool {
    match p.flow {
        Flow::Udp(_, _, bytes) => bytes == PROBE_BYTES,
        // After the headers of Ethernet and IPv4.
        Flow::Echo(..) => p.bytes == 34 + u32::from(PROBE_BYTES),
        _ => false,
    }
}

fn median(mut all: Vec<i64>) -> i64 {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or(0)
}
