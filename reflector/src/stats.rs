//! What the reflector says about itself.

use std::net::SocketAddr;

use bufferbane_core::drop_reason::DropCounters;
use bufferbane_core::session::reflector::SessionFacts;
use bufferbane_core::stats::histogram::Histogram;
use bufferbane_linux_io::EngineCounters;
use serde_json::{Map, Value, json};

use crate::streams::TestCounts;

/// What is counted for one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyCounts {
    /// Whose it is.
    pub(crate) client: u16,
    pub(crate) answered: u64,
    /// Sessions that gave way at the limit of the key.
    pub(crate) displaced: u64,
    pub(crate) drops: DropCounters,
}

/// The echo thread's counts at one moment, plain, with room made beforehand: filling it in
/// allocates nothing.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) now_ns: u64,
    pub(crate) started_ns: u64,
    pub(crate) answered: u64,
    pub(crate) drops: DropCounters,
    pub(crate) overload: u64,
    /// Of STAMP, where it is answered: answered, dropped.
    pub(crate) stamp: Option<(u64, DropCounters)>,
    /// Of all sockets together.
    pub(crate) socket_drops: u64,
    pub(crate) engine: EngineCounters,
    /// From a probe's arrival to its echo's departure, by the kernel's stamps.
    pub(crate) residence: Box<Histogram>,
    pub(crate) disciplined: bool,
    pub(crate) clock_epoch: u32,
    /// For each key.
    pub(crate) keys: Vec<KeyCounts>,
    pub(crate) sessions: Vec<SessionFacts>,
}

impl Snapshot {
    /// With room for that many keys and sessions.
    pub(crate) fn with_room(keys: usize, sessions: usize) -> Self {
        Self {
            now_ns: 0,
            started_ns: 0,
            answered: 0,
            drops: DropCounters::default(),
            overload: 0,
            stamp: None,
            socket_drops: 0,
            engine: EngineCounters::default(),
            residence: Box::default(),
            disciplined: false,
            clock_epoch: 0,
            keys: Vec::with_capacity(keys),
            sessions: Vec::with_capacity(sessions),
        }
    }
}

/// The statistics as an object of JSON. Durations are ns, counts are since the start.
pub(crate) fn to_json(s: &Snapshot, clients: &[String], listen: &[SocketAddr]) -> Value {
    let clients: Vec<Value> = clients
        .iter()
        .enumerate()
        .map(|(index, name)| client_json(s, index, name))
        .collect();
    json!({
        "schema": "bufferbane.reflector-status/1",
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_ns": s.now_ns.saturating_sub(s.started_ns),
        "listen": listen,
        "received": s.engine.received,
        "answered": s.answered,
        "drops": drops_json(&s.drops),
        "socket_drops": s.socket_drops,
        "overload": s.overload,
        "send_errors": s.engine.send_errors,
        "stamps": s.engine.stamps,
        "unstamped": s.engine.unstamped,
        "sessions": s.sessions.len(),
        "residence_ns": {
            "count": s.residence.count(),
            "min": s.residence.min(),
            "p50": s.residence.quantile(0.5),
            "p99": s.residence.quantile(0.99),
            "max": s.residence.max(),
        },
        "clock": { "disciplined": s.disciplined, "epoch": s.clock_epoch },
        "stamp": s.stamp.as_ref().map(|(answered, drops)| json!({
            "answered": answered,
            "drops": drops_json(drops),
        })),
        "clients": clients,
    })
}

/// What the streams thread counts, as an object of JSON.
pub(crate) fn tests_json(c: &TestCounts) -> Value {
    json!({
        "running": c.running,
        "granted": c.granted,
        "busy": c.busy,
        "refused": c.refused,
        "bytes_received": c.received,
        "bytes_sent": c.sent,
        "streams_dropped": drops_json(&c.drops),
        "trouble": c.trouble,
    })
}

fn client_json(s: &Snapshot, index: usize, name: &str) -> Value {
    let keys = || s.keys.iter().filter(|k| usize::from(k.client) == index);
    let mut drops = Map::new();
    for (reason, n) in keys().flat_map(|k| k.drops.iter()).filter(|(_, n)| *n > 0) {
        let sum = drops.get(reason.as_str()).and_then(Value::as_u64);
        drops.insert(reason.as_str().into(), (sum.unwrap_or(0) + n).into());
    }
    let of_client = |f: &&SessionFacts| {
        let key = s.keys.get(usize::from(f.key));
        key.is_some_and(|k| usize::from(k.client) == index)
    };
    let sessions: Vec<Value> = s
        .sessions
        .iter()
        .filter(of_client)
        .map(|f| {
            json!({
                "address": f.address,
                "age_ns": s.now_ns.saturating_sub(f.since.as_nanos()),
                "idle_ns": s.now_ns.saturating_sub(f.used.as_nanos()),
                "packets": f.packets,
            })
        })
        .collect();
    json!({
        "name": name,
        "answered": keys().map(|k| k.answered).sum::<u64>(),
        "sessions_displaced": keys().map(|k| k.displaced).sum::<u64>(),
        "drops": drops,
        "sessions": sessions,
    })
}

/// Only reasons that occurred.
fn drops_json(drops: &DropCounters) -> Value {
    let occurred = drops.iter().filter(|(_, n)| *n > 0);
    Value::Object(
        occurred
            .map(|(r, n)| (r.as_str().to_owned(), n.into()))
            .collect(),
    )
}

/// The same for people: what `to_json` made, in lines.
#[must_use]
pub fn to_text(status: &Value) -> String {
    let number = |v: &Value| v.as_u64().unwrap_or(0);
    let micros = |v: &Value| match v.as_u64() {
        Some(ns) => format!("{:.1} µs", ns as f64 / 1000.0),
        None => "-".to_owned(),
    };
    let list = |v: &Value| match v.as_object() {
        Some(m) if !m.is_empty() => {
            let parts: Vec<String> = m.iter().map(|(k, n)| format!("{k} {n}")).collect();
            parts.join(", ")
        }
        _ => "none".to_owned(),
    };
    let listen: Vec<&str> = status["listen"]
        .as_array()
        .map(|l| l.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let residence = &status["residence_ns"];
    let mut lines = vec![
        format!(
            "bufferbane-reflector {}, up {}, on {}",
            status["version"].as_str().unwrap_or("?"),
            seconds(number(&status["uptime_ns"])),
            listen.join(", ")
        ),
        format!(
            "{} received, {} answered; dropped: {}; lost by the socket: {}; overload: {}",
            number(&status["received"]),
            number(&status["answered"]),
            list(&status["drops"]),
            number(&status["socket_drops"]),
            number(&status["overload"])
        ),
        format!(
            "residence: median {}, 99 % below {}, longest {}",
            micros(&residence["p50"]),
            micros(&residence["p99"]),
            micros(&residence["max"])
        ),
    ];
    let tests = &status["tests"];
    if tests.is_object() {
        lines.push(format!(
            "tests: {} running, {} granted, {} told to wait, {} refused; {} bytes in, {} bytes \
             out; streams turned away: {}",
            number(&tests["running"]),
            number(&tests["granted"]),
            number(&tests["busy"]),
            number(&tests["refused"]),
            number(&tests["bytes_received"]),
            number(&tests["bytes_sent"]),
            list(&tests["streams_dropped"])
        ));
    }
    if let Some(answered) = status["stamp"]["answered"].as_u64() {
        let drops = list(&status["stamp"]["drops"]);
        lines.push(format!("STAMP: {answered} answered; dropped: {drops}"));
    }
    for client in status["clients"].as_array().into_iter().flatten() {
        lines.push(format!(
            "client {}: {} answered; dropped: {}",
            client["name"].as_str().unwrap_or("?"),
            number(&client["answered"]),
            list(&client["drops"])
        ));
        for session in client["sessions"].as_array().into_iter().flatten() {
            lines.push(format!(
                "  session from {}, {} old, idle {}, {} packets",
                session["address"].as_str().unwrap_or("?"),
                seconds(number(&session["age_ns"])),
                seconds(number(&session["idle_ns"])),
                number(&session["packets"])
            ));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// A duration to the second, with the unit that suits it.
fn seconds(ns: u64) -> String {
    let s = ns / 1_000_000_000;
    match s {
        0..120 => format!("{s} s"),
        120..7200 => format!("{} min", s / 60),
        7200..172_800 => format!("{} h", s / 3600),
        _ => format!("{} days", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bufferbane_core::drop_reason::DropReason;
    use bufferbane_core::time::Monotonic;

    #[test]
    fn a_clients_figures_are_those_of_all_its_keys() {
        let mut s = Snapshot::with_room(3, 1);
        s.now_ns = 10_000_000_000;
        let mut drops = DropCounters::default();
        drops.count(DropReason::Replay);
        let counts = |client, answered, displaced, drops| KeyCounts {
            client,
            answered,
            displaced,
            drops,
        };
        s.keys = vec![
            counts(0, 5, 1, drops),
            counts(1, 7, 0, DropCounters::default()),
            counts(0, 2, 3, drops),
        ];
        s.sessions.push(SessionFacts {
            key: 2,
            address: ([192, 0, 2, 1], 5).into(),
            since: Monotonic::from_nanos(1_000_000_000),
            used: Monotonic::from_nanos(9_000_000_000),
            packets: 2,
        });
        s.residence.add(5000);
        let names = ["home".to_owned(), "office".to_owned()];
        let v = to_json(&s, &names, &[([127, 0, 0, 1], 9876).into()]);
        assert_eq!(v["clients"][0]["answered"], 7);
        assert_eq!(v["clients"][0]["sessions_displaced"], 4);
        assert_eq!(v["clients"][0]["drops"], json!({"replay": 2}));
        assert_eq!(v["clients"][0]["sessions"][0]["address"], "192.0.2.1:5");
        assert_eq!(v["clients"][1]["sessions"], json!([]));
        assert_eq!(v["residence_ns"]["p50"], 5000);
        let text = to_text(&v);
        assert!(
            text.contains("client home: 7 answered; dropped: replay 2"),
            "{text}"
        );
        assert!(
            text.contains("session from 192.0.2.1:5, 9 s old, idle 1 s"),
            "{text}"
        );
    }
}
