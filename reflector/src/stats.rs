//! What the reflector says about itself.

use std::net::SocketAddr;

use bufferbane_core::drop_reason::DropCounters;
use bufferbane_core::session::reflector::SessionFacts;
use bufferbane_core::stats::histogram::Histogram;
use bufferbane_linux_io::EngineCounters;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::datagrams::DatagramCounts;
use crate::streams::TestCounts;
use crate::train::TrainCounts;

/// What is counted for one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyCounts {
    /// Whose it is.
    pub(crate) client: u16,
    pub(crate) answered: u64,
    /// Sessions that gave way at the limit of the key.
    pub(crate) displaced: u64,
    /// Records of streams that gave way where all were taken.
    pub(crate) records_displaced: u64,
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
    pub(crate) orders_lost: u64,
    /// Of STAMP, where it is answered: answered, dropped.
    pub(crate) stamp: Option<(u64, DropCounters)>,
    pub(crate) trains: TrainCounts,
    pub(crate) datagrams: DatagramCounts,
    /// Of all sockets together.
    pub(crate) socket_drops: u64,
    pub(crate) engine: EngineCounters,
    /// From a probe's arrival to its echo's departure, by the kernel's stamps.
    pub(crate) residence: Box<Histogram>,
    pub(crate) disciplined: bool,
    pub(crate) clock_epoch: u32,
    /// For each key, in the order of clients.
    pub(crate) keys: Vec<KeyCounts>,
    /// How many sessions there are.
    pub(crate) session_count: usize,
}

/// What the echo thread hands back.
pub(crate) enum Filled {
    Counts(Box<Snapshot>),
    Sessions(Listed),
}

/// The sessions of the first clients, in room made beforehand. They are asked for some clients at a time: to copy
/// all of them at once would hold up echoes.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// When the last of them were listed, ns.
    pub(crate) now_ns: u64,
    /// Of how many clients they are.
    pub(crate) clients: usize,
    /// Whether these are all.
    pub(crate) is_whole: bool,
    /// Client and session, in the order of clients.
    pub(crate) sessions: Vec<(usize, SessionFacts)>,
}

impl Listed {
    /// With room for that many.
    pub(crate) fn with_room(sessions: usize) -> Self {
        Self {
            sessions: Vec::with_capacity(sessions),
            ..Self::default()
        }
    }
}

impl Snapshot {
    /// With room for that many keys.
    pub(crate) fn with_room(keys: usize) -> Self {
        Self {
            now_ns: 0,
            started_ns: 0,
            answered: 0,
            drops: DropCounters::default(),
            overload: 0,
            orders_lost: 0,
            stamp: None,
            trains: TrainCounts::default(),
            datagrams: DatagramCounts::default(),
            socket_drops: 0,
            engine: EngineCounters::default(),
            residence: Box::default(),
            disciplined: false,
            clock_epoch: 0,
            keys: Vec::with_capacity(keys),
            session_count: 0,
        }
    }
}

/// The statistics as an object of JSON. Durations are ns, counts are since the start. What it says of sessions is
/// put together as it is written: a tree of thousands would take more memory than the sessions themselves.
#[derive(Serialize)]
pub(crate) struct Status<'a> {
    #[serde(flatten)]
    pub(crate) totals: Map<String, Value>,
    clients: Clients<'a>,
}

/// One after the other.
struct Clients<'a> {
    of: Box<Snapshot>,
    names: &'a [String],
    listed: Listed,
}

#[derive(Serialize)]
struct ClientStatus<'a> {
    name: &'a str,
    answered: u64,
    sessions_displaced: u64,
    streams_displaced: u64,
    drops: Map<String, Value>,
    sessions: Sessions<'a>,
}

/// The sessions of one client.
struct Sessions<'a> {
    now_ns: u64,
    of_client: &'a [(usize, SessionFacts)],
}

#[derive(Serialize)]
struct SessionStatus {
    address: SocketAddr,
    age_ns: u64,
    idle_ns: u64,
    packets: u64,
}

impl<'a> Status<'a> {
    pub(crate) fn new(
        s: Box<Snapshot>,
        listed: Listed,
        clients: &'a [String],
        listen: &[SocketAddr],
    ) -> Self {
        Self {
            totals: totals_json(&s, listen),
            clients: Clients {
                of: s,
                names: clients,
                listed,
            },
        }
    }
}

impl Serialize for Clients<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let clients = self.names.iter().map(String::as_str).enumerate();
        let told = |(client, name)| ClientStatus::new(&self.of, &self.listed, client, name);
        serializer.collect_seq(clients.map(told))
    }
}

impl<'a> ClientStatus<'a> {
    fn new(s: &Snapshot, listed: &'a Listed, client: usize, name: &'a str) -> Self {
        let keys = of_client(&s.keys, client, |k| k.client.into());
        let mut drops = Map::new();
        for (reason, n) in keys.iter().flat_map(|k| k.drops.iter()) {
            if n > 0 {
                let sum = drops.get(reason.as_str()).and_then(Value::as_u64);
                drops.insert(reason.as_str().into(), (sum.unwrap_or(0) + n).into());
            }
        }
        Self {
            name,
            answered: keys.iter().map(|k| k.answered).sum(),
            sessions_displaced: keys.iter().map(|k| k.displaced).sum(),
            streams_displaced: keys.iter().map(|k| k.records_displaced).sum(),
            drops,
            sessions: Sessions {
                now_ns: listed.now_ns,
                of_client: of_client(&listed.sessions, client, |(c, _)| *c),
            },
        }
    }
}

/// Those of `all`, which stand in the order of clients, that are of one.
fn of_client<T>(all: &[T], client: usize, whose: impl Fn(&T) -> usize) -> &[T] {
    let begin = all.partition_point(|one| whose(one) < client);
    let rest = &all[begin..];
    &rest[..rest.partition_point(|one| whose(one) == client)]
}

impl Serialize for Sessions<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let told = |(_, f): &(usize, SessionFacts)| SessionStatus {
            address: f.address,
            age_ns: self.now_ns.saturating_sub(f.since.as_nanos()),
            idle_ns: self.now_ns.saturating_sub(f.used.as_nanos()),
            packets: f.packets,
        };
        serializer.collect_seq(self.of_client.iter().map(told))
    }
}

fn totals_json(s: &Snapshot, listen: &[SocketAddr]) -> Map<String, Value> {
    let totals = json!({
        "schema": "bufferbane.reflector-status/1",
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_ns": s.now_ns.saturating_sub(s.started_ns),
        "listen": listen,
        "received": s.engine.received,
        "answered": s.answered,
        "drops": drops_json(&s.drops),
        "socket_drops": s.socket_drops,
        "overload": s.overload,
        "orders_lost": s.orders_lost,
        "send_errors": s.engine.send_errors,
        "joined": s.engine.joined,
        "stamps": s.engine.stamps,
        "unstamped": s.engine.unstamped,
        "sessions": s.session_count,
        "residence_ns": {
            "count": s.residence.count(),
            "min": s.residence.min(),
            "p50": s.residence.quantile(0.5),
            "p99": s.residence.quantile(0.99),
            "max": s.residence.max(),
        },
        "clock": { "disciplined": s.disciplined, "epoch": s.clock_epoch },
        "trains": {
            "received": s.trains.received,
            "granted": s.trains.granted,
            "sent": s.trains.sent,
        },
        "datagrams": {
            "received": s.datagrams.received,
            "sent": s.datagrams.sent,
        },
        "stamp": s.stamp.as_ref().map(|(answered, drops)| json!({
            "answered": answered,
            "drops": drops_json(drops),
        })),
    });
    match totals {
        Value::Object(totals) => totals,
        _ => Map::new(),
    }
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

/// Only reasons that occurred.
fn drops_json(drops: &DropCounters) -> Value {
    let occurred = drops.iter().filter(|(_, n)| *n > 0);
    Value::Object(
        occurred
            .map(|(r, n)| (r.as_str().to_owned(), n.into()))
            .collect(),
    )
}

/// The same for people, in lines.
#[must_use]
pub fn to_text(status: &Value) -> String {
    let number = |v: &Value| v.as_u64().unwrap_or(0);
    let delay = |v: &Value| match v.as_u64() {
        Some(ns) if ns < 1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        Some(ns) => format!("{:.1} ms", ns as f64 / 1e6),
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
            delay(&residence["p50"]),
            delay(&residence["p99"]),
            delay(&residence["max"])
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
    let datagrams = &status["datagrams"];
    if datagrams.is_object() {
        lines.push(format!(
            "tests over UDP: {} datagrams from clients, {} to clients",
            number(&datagrams["received"]),
            number(&datagrams["sent"])
        ));
    }
    let trains = &status["trains"];
    if trains.is_object() {
        lines.push(format!(
            "trains: {} datagrams from clients, {} in {} trains to clients",
            number(&trains["received"]),
            number(&trains["sent"]),
            number(&trains["granted"])
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
        let mut s = Box::new(Snapshot::with_room(3));
        s.now_ns = 10_000_000_000;
        let mut drops = DropCounters::default();
        drops.count(DropReason::Replay);
        let counts = |client, answered, displaced, drops| KeyCounts {
            client,
            answered,
            displaced,
            records_displaced: 10 * displaced,
            drops,
        };
        s.keys = vec![
            counts(0, 5, 1, drops),
            counts(0, 2, 3, drops),
            counts(2, 7, 0, DropCounters::default()),
        ];
        let session = |n| SessionFacts {
            key: n,
            address: ([192, 0, 2, 1], 5).into(),
            since: Monotonic::from_nanos(1_000_000_000),
            used: Monotonic::from_nanos(9_000_000_000),
            packets: 2,
        };
        let listed = Listed {
            now_ns: 10_000_000_000,
            clients: 3,
            is_whole: true,
            sessions: vec![(0, session(1)), (2, session(2)), (2, session(2))],
        };
        s.residence.add(5000);
        s.residence.add(88_000_000);
        // The one in the middle has no key.
        let names = ["home", "shed", "office"].map(str::to_owned);
        let at = [([127, 0, 0, 1], 9876).into()];
        let v = serde_json::to_value(Status::new(s, listed, &names, &at)).unwrap();
        assert_eq!(v["clients"][0]["answered"], 7);
        assert_eq!(v["clients"][0]["sessions_displaced"], 4);
        assert_eq!(v["clients"][0]["streams_displaced"], 40);
        assert_eq!(v["clients"][0]["drops"], json!({"replay": 2}));
        assert_eq!(v["clients"][0]["sessions"][0]["address"], "192.0.2.1:5");
        assert_eq!(v["clients"][1]["answered"], 0);
        assert_eq!(v["clients"][1]["sessions"], json!([]));
        assert_eq!(v["clients"][2]["answered"], 7);
        assert_eq!(
            v["clients"][2]["sessions"].as_array().map(Vec::len),
            Some(2)
        );
        assert_eq!(v["residence_ns"]["p50"], 5000);
        let text = to_text(&v);
        assert!(
            text.contains("median 5.0 µs") && text.contains("longest 88.0 ms"),
            "{text}"
        );
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
