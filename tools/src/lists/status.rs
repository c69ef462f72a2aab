//! `bbtool status`: what the daemon does now, or what a store holds to which none writes.

use std::path::Path;

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::{Listed, PATIENCE};
use crate::args::{Place, Status};
use crate::control::{self, ControlError};
use crate::fail::Fail;
use crate::show::{bytes, clean, count, millis_or_dash, percent, stretch, table};
use crate::{out, source, when};

const SECOND_NS: u64 = 1_000_000_000;

/// `bbtool status`.
pub(crate) fn status(args: &Status) -> Result<(), Fail> {
    let place = args.place();
    let status = match control::ask(&place.socket, "status", PATIENCE) {
        Ok(mut answer) => answer["status"].take(),
        Err(e @ ControlError::Absent) => {
            return match &place.store {
                Some(store) => held(args, &place, store),
                None => Err(Fail::Failed(format!(
                    "{e}; --store FILE says what a store holds"
                ))),
            };
        }
        Err(e) => return Err(Fail::Failed(e.to_string())),
    };
    if let Some(store) = &place.store
        && !source::is_its_store(store, &status)
    {
        return held(args, &place, store);
    }
    if args.json {
        return out::print_json(&status);
    }
    out::print(&status_text(&status, &when::zone(args.utc)).replace('\u{a0}', " "))
}

/// What `store` holds, to which no daemon that answers writes.
fn held(args: &Status, place: &Place, store: &Path) -> Result<(), Fail> {
    let reader = source::open(place)?;
    let listed = Listed::of(&reader, None)?;
    let span = reader.span()?;
    let file_bytes = std::fs::metadata(store).map_or(0, |m| m.len());
    if args.json {
        return out::print_json(&json!({
            "running": false,
            "store": {
                "path": store.display().to_string(),
                "file_bytes": file_bytes,
                "first": span.map(|s| when::rfc3339(s.0)),
                "last": span.map(|s| when::rfc3339(s.1)),
            },
            "series": listed.json(),
        }));
    }
    let zone = when::zone(args.utc);
    let extent = span.map_or_else(
        || "nothing recorded yet".to_owned(),
        |s| when::range_label(s.0, s.1, &zone),
    );
    let text = format!(
        "no daemon that writes to it answers at {}\nstore {}: {}, {extent}\n\n{}",
        place.socket.display(),
        store.display(),
        bytes(file_bytes),
        listed.text(&zone)
    );
    out::print(&text.replace('\u{a0}', " "))
}

/// A text of the answer, without what would steer a terminal.
fn text(v: &Value) -> String {
    clean(v.as_str().unwrap_or("–"))
}

fn number(v: &Value) -> u64 {
    v.as_u64().unwrap_or(0)
}

/// What is said of the scheduled tests through one uplink.
fn scheduled_text(tests: &Value) -> String {
    let mut out = format!(
        "tests through {}: {} in the last 30 days; probes and trains move {}, the budget is {}",
        text(&tests["interface"]),
        bytes(number(&tests["spent_bytes"])),
        bytes(number(&tests["probe_bytes"])),
        bytes(number(&tests["budget_bytes"])),
    );
    if let Some(why) = tests["waits"].as_str() {
        out.push_str(&format!("; none now: {}", clean(why)));
    }
    if let Some(caveat) = tests["caveat"].as_str() {
        out.push_str(&format!("\n  {}", clean(caveat)));
    }
    if let Some(why) = tests["failed"].as_str() {
        out.push_str(&format!("\n  the latest failed: {}", clean(why)));
    }
    out.push('\n');
    out
}

/// How it is going with a connection that is held open.
fn held_text(held: &Value) -> String {
    let now = match held["open_ns"].as_u64() {
        Some(ns) => format!("open for {}", stretch(ns)),
        None => "not open".to_owned(),
    };
    let lost = held["lost"].as_object().into_iter().flatten();
    let ends = lost.map(|(why, n)| format!("{} lost ({})", count(number(n)), clean(why)));
    let mut ends: Vec<String> = ends.collect();
    if number(&held["closed"]) > 0 {
        ends.push(format!(
            "{} closed by the far end",
            count(number(&held["closed"]))
        ));
    }
    let mut out = format!(
        "connection {} to {} ({}): {now}",
        text(&held["interface"]),
        text(&held["target"]),
        text(&held["address"]),
    );
    if !ends.is_empty() {
        out.push_str(&format!("; before {}", ends.join(", ")));
    }
    if let (Some(ns), Some(why)) = (held["last_open_ns"].as_u64(), held["last_end"].as_str()) {
        out.push_str(&format!("; the last after {}: {}", stretch(ns), clean(why)));
    }
    out.push('\n');
    out
}

/// The largest packet that passes to a target.
fn size_text(size: &Value, zone: &TimeZone) -> String {
    let larger = match size["larger"].as_str() {
        Some("none") if size["direction"] == "up" => {
            "as the interface, on the way there only: of the way back nothing is known".to_owned()
        }
        Some("none") => "as the interface".to_owned(),
        Some("told") if size["told_by"].is_string() => {
            format!("larger ones are refused by {}", text(&size["told_by"]))
        }
        Some("told") => "this host sends no larger ones".to_owned(),
        _ => {
            let way = match size["direction"].as_str() {
                Some("up") => " on the way up",
                Some("down") => " on the way down, or the target answers no larger echoes",
                _ => ", or the target answers no larger echoes",
            };
            format!("LARGER ONES VANISH{way}")
        }
    };
    // Of a daemon from before they were told.
    let found = size["last_ns"].as_i64().map_or_else(String::new, |ns| {
        format!("; found at {}", when::civil(ns, zone))
    });
    format!(
        "path MTU {} to {} ({}): {} bytes of {}; {larger}{found}\n",
        text(&size["interface"]),
        text(&size["target"]),
        text(&size["address"]),
        number(&size["passes_bytes"]),
        number(&size["interface_bytes"]),
    )
}

/// How it is going with a receiver of remote-write.
fn push_text(receiver: &str, r: &Value) -> String {
    let batches = |what: &str| number(&r[what]["batches"]);
    let mut out = format!(
        "push to {}: {} batches taken",
        clean(receiver),
        count(batches("taken"))
    );
    for (what, n) in [
        ("refused", batches("refused")),
        ("given up", batches("given_up")),
        ("damaged", number(&r["damaged_batches"])),
    ] {
        if n > 0 {
            out.push_str(&format!(", {} {what}", count(n)));
        }
    }
    if number(&r["queue_batches"]) > 0 {
        out.push_str(&format!(
            ", {} wait ({})",
            count(number(&r["queue_batches"])),
            bytes(number(&r["queue_bytes"]))
        ));
    }
    if r["waits_for_clock"].as_bool() == Some(true) {
        out.push_str("; nothing is pushed before the clock is synchronised (clock = \"any\")");
    }
    for why in ["waits_because", "refused_because"] {
        if r[why].is_string() {
            out.push_str(&format!("; {}", text(&r[why])));
        }
    }
    out.push('\n');
    out
}

/// How a Wi-Fi interface hears its access point.
fn radio_text(interface: &str, radio: &Value) -> String {
    let mut parts = Vec::new();
    if let Some(dbm) = radio["signal_dbm"].as_i64() {
        parts.push(format!("{dbm} dBm"));
    }
    for (name, way) in [("up_bps", "up"), ("down_bps", "down")] {
        if let Some(bps) = radio[name].as_u64() {
            parts.push(format!("{:.0} Mbit/s {way}", bps as f64 / 1e6));
        }
    }
    format!("Wi-Fi {}: {}\n", clean(interface), parts.join(", "))
}

/// What has begun and is not over, a line each; all else `bbtool events` lists.
fn now_text(event: &Value, zone: &TimeZone) -> String {
    let place = [&event["interface"], &event["target"]];
    let place: Vec<&str> = place
        .into_iter()
        .filter_map(|p| p.as_str())
        .filter(|p| !p.is_empty())
        .collect();
    let place = clean(&place.join(" → "));
    let words = [text(&event["severity"]), text(&event["kind"]), place];
    let words: Vec<String> = words.into_iter().filter(|w| !w.is_empty()).collect();
    let told = event["at_ns"].as_i64().map_or_else(String::new, |ns| {
        format!(", told at {}", when::civil(ns, zone))
    });
    format!("now: {}{told}: {}\n", words.join(" "), text(&event["text"]))
}

/// Whether it is a step of a page that is asked for: what it fails with the page fails with, too.
fn is_step(s: &Value, all: &Value) -> bool {
    let mut all = all.as_array().into_iter().flatten();
    s["kind"] != "http"
        && all.any(|p| {
            p["kind"] == "http" && p["interface"] == s["interface"] && p["target"] == s["target"]
        })
}

fn status_text(status: &Value, zone: &TimeZone) -> String {
    let store = &status["store"];
    let full = if store["full"].as_bool() == Some(true) {
        "; THE DISK IS FULL, nothing is being recorded"
    } else {
        ""
    };
    let uptime_ns = number(&status["uptime_s"]).saturating_mul(SECOND_NS);
    let mut out = format!(
        "bufferbaned {}, up {} since {}, CPU {} ({}), {} resident\n\
         store {}: {}, {} samples not yet durable, {} lost to ourselves{full}\n\
         {} reports wait for the recorder\n",
        text(&status["version"]),
        stretch(uptime_ns),
        when::civil(when::now_ns().saturating_sub_unsigned(uptime_ns), zone),
        stretch(number(&status["cpu_ns"])),
        percent(number(&status["cpu_ns"]), uptime_ns),
        bytes(number(&status["resident_bytes"])),
        text(&store["path"]),
        bytes(number(&store["file_bytes"])),
        count(number(&store["uncommitted_samples"])),
        count(number(&store["dropped_samples"])),
        count(number(&status["queue_length"])),
    );
    for trouble in status["troubles"].as_array().into_iter().flatten() {
        out.push_str(&format!("trouble: {}\n", text(trouble)));
    }
    let events = status["events"].as_array().into_iter().flatten();
    // What cannot be probed has been told as trouble.
    let events =
        events.filter(|e| e["ongoing"].as_bool() == Some(true) && e["kind"] != "not_probed");
    for event in events {
        out.push_str(&now_text(event, zone));
    }
    for (interface, radio) in status["wifi"].as_object().into_iter().flatten() {
        out.push_str(&radio_text(interface, radio));
    }
    for tests in status["scheduled_tests"].as_array().into_iter().flatten() {
        out.push_str(&scheduled_text(tests));
    }
    for (receiver, r) in status["remote_write"].as_object().into_iter().flatten() {
        out.push_str(&push_text(receiver, r));
    }
    for held in status["held"].as_array().into_iter().flatten() {
        out.push_str(&held_text(held));
    }
    for size in status["sizes"].as_array().into_iter().flatten() {
        out.push_str(&size_text(size, zone));
    }
    let drops: Vec<String> = status["drops"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, n)| number(n) > 0)
        .map(|(reason, n)| format!("{} {}", count(number(n)), clean(reason)))
        .collect();
    if !drops.is_empty() {
        out.push_str(&format!("datagrams not used: {}\n", drops.join(", ")));
    }
    let rows: Vec<Vec<String>> = status["series"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|s| {
            let (now, all) = (&s["last_second"], &s["total"]);
            vec![
                text(&s["interface"]),
                text(&s["target"]),
                format!("{}{}", text(&s["kind"]), number(&s["family"])),
                text(&s["address"]),
                stretch(number(&s["interval_ns"])),
                millis_or_dash(now["rtt_ns"].as_u64()),
                format!("{}/{}", number(&now["received"]), number(&now["sent"])),
                count(number(&all["sent"])),
                percent(number(&all["lost"]), number(&all["sent"])),
                count(number(&all["unsent"])),
            ]
        })
        .collect();
    let headings = [
        "over", "to", "by", "address", "every", "RTT ms", "last s", "sent", "lost", "unsent",
    ];
    out.push('\n');
    out.push_str(&table(&headings, &rows, 4));
    for s in status["series"].as_array().into_iter().flatten() {
        if is_step(s, &status["series"]) {
            continue;
        }
        let failures = s["failures"].as_object().into_iter().flatten();
        let failures: Vec<String> = failures
            .map(|(why, n)| format!("{} {}", count(number(n)), clean(why)))
            .collect();
        if !failures.is_empty() {
            out.push_str(&format!(
                "{} {} failed: {}\n",
                text(&s["interface"]),
                text(&s["target"]),
                failures.join(", ")
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_shown_even_where_parts_are_missing() {
        let said = status_text(&json!({
            "version": "0.1.0", "uptime_s": 7200, "cpu_ns": 7_200_000_000u64,
            "resident_bytes": 9_437_184, "queue_length": 0,
            "series": [{
                "interface": "eth0", "target": "vie\u{1b}nna", "kind": "udp", "family": 4,
                "address": "192.0.2.1:9876", "interval_ns": 50_000_000,
                "last_second": {"sent": 20, "received": 19, "lost": 1, "unsent": 0, "rtt_ns": 23_400_000},
                "total": {"sent": 144_000, "received": 143_900, "lost": 100, "unsent": 0, "rtt_ns": null},
                "failures": {"SERVFAIL": 12, "other": 1},
            },
            {"interface": "eth0", "target": "shop", "kind": "tls", "failures": {"certificate expired": 3}},
            {"interface": "eth0", "target": "shop", "kind": "http", "failures": {"certificate expired": 3}}],
            "store": {"path": "/x", "file_bytes": 5_000_000, "full": true},
            "troubles": ["wlan0: no such interface"],
            "events": [
                {"id": 1, "at_ns": 0, "kind": "outage", "severity": "critical", "interface": "eth0", "target": null,
                 "text": "no answer from anywhere", "ongoing": false},
                {"id": 2, "at_ns": 60_000_000_000_i64, "kind": "dns_slow", "severity": "warning", "interface": "eth0",
                 "target": "quad9", "text": "it takes long", "ongoing": true},
                {"id": 3, "at_ns": 61_000_000_000_i64, "kind": "store_full", "severity": "critical", "interface": "",
                 "target": null, "text": "nothing is recorded", "ongoing": true},
                {"id": 4, "at_ns": 0, "kind": "not_probed", "severity": "warning", "interface": "wlan0", "target": "a",
                 "text": "no such interface", "ongoing": true},
            ],
            "scheduled_tests": [{
                "interface": "lte0", "budget_bytes": 0, "probe_bytes": 1_048_576, "spent_bytes": 0,
                "waits": "it is cellular", "caveat": "nobody knows", "failed": "busy",
            }],
            "wifi": {"wlan0": {"signal_dbm": -71, "up_bps": 72_200_000, "down_bps": null}},
            "held": [{
                "interface": "eth0", "target": "shell", "address": "192.0.2.1:22", "open_ns": 60_000_000_000_u64,
                "lost": {"connection reset": 2}, "closed": 1, "last_open_ns": 7_000_000_000_u64,
                "last_end": "connection reset",
            }],
            "sizes": [
                {"interface": "eth0", "target": "a", "address": "192.0.2.1", "interface_bytes": 1500,
                 "passes_bytes": 1500, "larger": "none", "told_by": null, "direction": null,
                 "first_ns": 0, "last_ns": 61_000_000_000_u64, "searches": 2},
                {"interface": "eth0", "target": "b", "address": "192.0.2.2", "interface_bytes": 1500,
                 "passes_bytes": 1492, "larger": "told", "told_by": "192.0.2.9", "direction": null},
                {"interface": "eth0", "target": "c", "address": "192.0.2.3", "interface_bytes": 1500,
                 "passes_bytes": 1400, "larger": "silent", "told_by": null, "direction": "up"},
                {"interface": "eth0", "target": "d", "address": "192.0.2.4", "interface_bytes": 1500,
                 "passes_bytes": 1028, "larger": "silent", "told_by": null, "direction": null},
                {"interface": "eth0", "target": "e", "address": "192.0.2.5", "interface_bytes": 1500,
                 "passes_bytes": 1500, "larger": "none", "told_by": null, "direction": "up"},
            ],
            "drops": {"seal": 3, "length": 0},
            "remote_write": {"http://a/w": {
                "taken": {"batches": 7}, "refused": {"batches": 0}, "given_up": {"batches": 2},
                "queue_batches": 3, "queue_bytes": 12_288, "waits_because": "timeout",
            }},
        }), &TimeZone::UTC)
        .replace('\u{a0}', " ");
        for part in [
            "up 2 h since 20",
            ", CPU 7.2 s (0.10 %), 9.0 MiB resident",
            "THE DISK IS FULL",
            "trouble: wlan0",
            "now: warning dns_slow eth0 → quad9, told at 1970-01-01 00:01:00: it takes long\n",
            "now: critical store_full, told at 1970-01-01 00:01:01: nothing is recorded\n",
            "Wi-Fi wlan0: -71 dBm, 72 Mbit/s up\n",
            "tests through lte0: 0 B in the last 30 days; probes and trains move 1.0 MiB, the budget is 0 B; none \
             now: it is cellular\n  nobody knows\n  the latest failed: busy\n",
            "connection eth0 to shell (192.0.2.1:22): open for 60 s; before 2 lost (connection reset), 1 closed by the far \
             end; the last after 7 s: connection reset\n",
            "path MTU eth0 to a (192.0.2.1): 1500 bytes of 1500; as the interface; found at 1970-01-01 00:01:01\n",
            "path MTU eth0 to b (192.0.2.2): 1492 bytes of 1500; larger ones are refused by 192.0.2.9\n",
            "path MTU eth0 to c (192.0.2.3): 1400 bytes of 1500; LARGER ONES VANISH on the way up\n",
            "path MTU eth0 to d (192.0.2.4): 1028 bytes of 1500; LARGER ONES VANISH, or the target answers no larger \
             echoes\n",
            "path MTU eth0 to e (192.0.2.5): 1500 bytes of 1500; as the interface, on the way there only: of the way \
             back nothing is known\n",
            "not used: 3 seal\n",
            "push to http://a/w: 7 batches taken, 2 given up, 3 wait (12.0 KiB); timeout\n",
            "vie\u{fffd}nna",
            "23.40   19/20  144 000",
            "failed: 12 SERVFAIL, 1 other\n",
        ] {
            assert!(said.contains(part), "{part}:\n{said}");
        }
        assert_eq!(said.matches("certificate expired").count(), 1, "{said}");
        assert!(!said.contains("outage"), "that is over:\n{said}");
        assert!(!said.contains("not_probed"), "that was told:\n{said}");
        assert!(status_text(&json!({}), &TimeZone::UTC).contains("bufferbaned –"));
    }
}
