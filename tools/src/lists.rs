//! `bbtool events`, `status` and `targets`.

use std::time::Duration;

use bufferbane_store::{Reader, SeriesInfo};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::args::{Events, Place, Status, Targets};
use crate::control::{self, ControlError};
use crate::fail::Fail;
use crate::show::{bytes, clean, count, millis_or_dash, percent, stretch, table};
use crate::{out, report, source, when};

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
const SECOND_NS: u64 = 1_000_000_000;

/// `bbtool events`.
pub(crate) fn events(args: &Events) -> Result<(), Fail> {
    let selection = args.selection();
    selection.range(when::now_ns())?;
    let reader = source::open(&args.place())?;
    let range = report::range_of_events(&selection, &reader, when::now_ns())?;
    let events = report::events(&reader, &selection, range)?;
    if args.json {
        return out::print_json(&events);
    }
    if events.is_empty() {
        return out::print("no events\n");
    }
    let zone = when::zone(selection.utc);
    let mut text = String::new();
    for e in &events {
        text.push_str(report::event_line(e, &zone).trim_start());
        text.push('\n');
        for look in report::looks(e, &zone) {
            text.push_str(&format!("  {look}\n"));
        }
    }
    out::print(&text.replace('\u{a0}', " "))
}

/// `bbtool status`.
pub(crate) fn status(args: &Status) -> Result<(), Fail> {
    let place = args.place();
    let status = match control::ask(&place.socket, "status", PATIENCE) {
        Ok(mut answer) => answer["status"].take(),
        Err(ControlError::Absent) if place.store_is_named => return held(args, &place),
        Err(e @ ControlError::Absent) => {
            return Err(Fail::Failed(format!(
                "{e}; --store FILE says what a store holds"
            )));
        }
        Err(e) => return Err(Fail::Failed(e.to_string())),
    };
    if place.store_is_named && !source::is_its_store(&place, &status) {
        return held(args, &place);
    }
    if args.json {
        return out::print_json(&status);
    }
    out::print(&status_text(&status, &when::zone(args.utc)).replace('\u{a0}', " "))
}

/// What a store holds to which no daemon that answers writes.
fn held(args: &Status, place: &Place) -> Result<(), Fail> {
    let reader = source::open(place)?;
    let listed = Listed::of(&reader, None)?;
    let span = reader.span()?;
    let file_bytes = std::fs::metadata(&place.store).map_or(0, |m| m.len());
    if args.json {
        return out::print_json(&json!({
            "running": false,
            "store": {
                "path": place.store.display().to_string(),
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
        place.store.display(),
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
fn size_text(size: &Value) -> String {
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
    format!(
        "path MTU {} to {} ({}): {} bytes of {}; {larger}\n",
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
        out.push_str(&size_text(size));
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

/// `bbtool targets`.
pub(crate) fn targets(args: &Targets) -> Result<(), Fail> {
    let place = args.place();
    let running = match control::ask(&place.socket, "targets", PATIENCE) {
        Ok(answer) => answer["targets"].as_array().cloned(),
        Err(ControlError::Absent) => None,
        Err(e) => {
            out::warn(&format!("what is probed now is not known: {e}"));
            None
        }
    };
    let reader = source::open(&place)?;
    let listed = Listed::of(&reader, running.as_deref())?;
    if listed.0.is_empty() {
        return Err(Fail::NoData("nothing has been recorded yet".into()));
    }
    if args.json {
        return out::print_json(&listed.json());
    }
    let text = listed.text(&when::zone(args.utc));
    out::print(&text.replace('\u{a0}', " "))
}

/// A series in a list.
struct Item {
    info: SeriesInfo,
    /// When its first and last sample were sent, ns since 1970.
    extent: Option<(i64, i64)>,
    /// Whether it is probed now, where that is known.
    probed: Option<bool>,
}

/// All series of a store, in the order people read them.
struct Listed(Vec<Item>);

impl Listed {
    /// What `reader` has, of which the daemon probes those in `running`.
    fn of(reader: &Reader, running: Option<&[Value]>) -> Result<Self, Fail> {
        let is = |t: &Value, info: &SeriesInfo| {
            t["interface"] == info.interface.as_str()
                && t["target"] == info.target.as_str()
                && t["kind"] == info.kind.as_str()
                && t["family"] == info.family
                && t["address"] == info.address.as_str()
                && t["interval_ns"] == info.interval_ns
        };
        let mut all = Vec::new();
        for (id, info) in source::sorted(reader.series()?) {
            let extent = reader.extent(id, i64::MIN, i64::MAX)?;
            let probed = running.map(|all| all.iter().any(|t| is(t, &info)));
            all.push(Item {
                info,
                extent,
                probed,
            });
        }
        Ok(Self(all))
    }

    fn json(&self) -> Vec<Value> {
        let one = |item: &Item| {
            let (info, extent) = (&item.info, item.extent);
            json!({
                "interface": info.interface,
                "interface_kind": info.interface_kind,
                "target": info.target,
                "kind": info.kind.as_str(),
                "family": info.family,
                "address": info.address,
                "dscp": info.dscp,
                "size": info.size,
                "interval_ns": info.interval_ns,
                "first": extent.map(|e| when::rfc3339(e.0)),
                "last": extent.map(|e| when::rfc3339(e.1)),
                "probed_now": item.probed,
            })
        };
        self.0.iter().map(one).collect()
    }

    fn text(&self, zone: &TimeZone) -> String {
        let mut rows = Vec::new();
        for Item {
            info,
            extent,
            probed,
        } in &self.0
        {
            let time = |t: Option<i64>| t.map_or_else(|| "–".into(), |t| when::civil(t, zone));
            rows.push(vec![
                clean(&info.interface),
                clean(&info.target),
                format!("{}{}", info.kind.as_str(), info.family),
                clean(&info.address),
                match probed {
                    Some(true) => "yes".into(),
                    Some(false) => "no".into(),
                    None => "–".into(),
                },
                stretch(info.interval_ns),
                time(extent.map(|e| e.0)),
                time(extent.map(|e| e.1)),
            ]);
        }
        let headings = [
            "over", "to", "by", "address", "probed", "every", "first", "last",
        ];
        table(&headings, &rows, 5)
    }
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
            }],
            "store": {"path": "/x", "file_bytes": 5_000_000, "full": true},
            "troubles": ["wlan0: no such interface"],
            "scheduled_tests": [{
                "interface": "lte0", "budget_bytes": 0, "probe_bytes": 1_048_576, "spent_bytes": 0,
                "waits": "it is cellular", "caveat": "nobody knows",
            }],
            "wifi": {"wlan0": {"signal_dbm": -71, "up_bps": 72_200_000, "down_bps": null}},
            "held": [{
                "interface": "eth0", "target": "shell", "address": "192.0.2.1:22", "open_ns": 60_000_000_000_u64,
                "lost": {"connection reset": 2}, "closed": 1, "last_open_ns": 7_000_000_000_u64,
                "last_end": "connection reset",
            }],
            "sizes": [
                {"interface": "eth0", "target": "a", "address": "192.0.2.1", "interface_bytes": 1500,
                 "passes_bytes": 1500, "larger": "none", "told_by": null, "direction": null},
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
            "Wi-Fi wlan0: -71 dBm, 72 Mbit/s up\n",
            "tests through lte0: 0 B in the last 30 days; probes and trains move 1.0 MiB, the budget is 0 B; none \
             now: it is cellular\n  nobody knows\n",
            "connection eth0 to shell (192.0.2.1:22): open for 60 s; before 2 lost (connection reset), 1 closed by the far \
             end; the last after 7 s: connection reset\n",
            "path MTU eth0 to a (192.0.2.1): 1500 bytes of 1500; as the interface\n",
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
        assert!(status_text(&json!({}), &TimeZone::UTC).contains("bufferbaned –"));
    }
}
