//! Reports for tests, with no more in them than these need.

use bufferbane_store::Severity;

use super::model::{
    Event, Health, Jitter, LossRuns, Report, SCHEMA, SendLate, Series, Spread, Stamps, Time,
    Timestamps,
};

const S: i64 = 1_000_000_000;
/// How long a report is, s: a day.
const DAY_S: i64 = 86_400;

/// A day's report of `series` and `events`; its outages are not counted, nor is anything judged.
pub(super) fn report(series: Vec<Series>, events: Vec<Event>) -> Report {
    Report {
        schema: SCHEMA,
        generated: Time(DAY_S * S),
        from: Time(0),
        to: Time(DAY_S * S),
        host: String::new(),
        verdicts: Vec::new(),
        series,
        throughput: Vec::new(),
        bufferbloat: Vec::new(),
        health: Health {
            send_late_ns: SendLate::default(),
            dropped_samples: None,
            socket_drops: None,
            skipped_slots: None,
            sent_late: None,
            unstamped: None,
            cpu_share: None,
            probe_cpu_share: None,
            reflector_overload: None,
            own_trouble: Vec::new(),
            gaps: Vec::new(),
        },
        clock: Vec::new(),
        load: Vec::new(),
        capacity: Vec::new(),
        cable: None,
        grades: Vec::new(),
        outages: Vec::new(),
        compared: Vec::new(),
        paths: Vec::new(),
        path_mtu: Vec::new(),
        events,
    }
}

/// A wired series of `eth0` beyond the house.
pub(super) fn series(target: &str, sent: u64, lost: u64) -> Series {
    let none = Spread::default();
    let stamps = Stamps::default();
    Series {
        interface: "eth0".into(),
        interface_kind: "wired".into(),
        target: target.into(),
        kind: "udp",
        of_service: false,
        interval_ns: 50_000_000,
        sent,
        received: sent - lost,
        failures: Default::default(),
        lost,
        lost_up: None,
        lost_down: None,
        late: 0,
        duplicated: 0,
        reordered: 0,
        reordered_up: None,
        unsent: 0,
        family: 4,
        dscp: 0,
        size: 128,
        rtt_ns: none,
        ipdv_ns: none,
        jitter_ns: Jitter {
            mean: None,
            last: None,
        },
        queue_up_ns: None,
        queue_down_ns: None,
        dscp_seen: None,
        ecn_seen: None,
        dscp_changes: 0,
        ttl_up: None,
        ttl_down: None,
        ttl_changes: 0,
        timestamps: Timestamps {
            tx: stamps,
            rx: stamps,
            remote_rx: stamps,
            remote_tx: stamps,
        },
        loss_runs: LossRuns {
            count: 0,
            longest: 0,
            longest_ns: 0,
            histogram: Vec::new(),
        },
        gaps: Vec::new(),
    }
}

/// An event of `eth0` that names `targets`.
pub(super) fn event(kind: &str, targets: &[&str], from_s: i64, to_s: Option<i64>) -> Event {
    let mut values = serde_json::Map::new();
    values.insert("targets".into(), targets.into());
    Event {
        id: from_s.unsigned_abs(),
        kind: kind.into(),
        severity: Severity::Critical,
        interface: "eth0".into(),
        target: match targets {
            [one] => Some((*one).into()),
            _ => None,
        },
        direction: None,
        start: Some(Time(from_s * S)),
        end: to_s.map(|s| Time(s * S)),
        values,
        text: String::new(),
        seen: Vec::new(),
        trains: Vec::new(),
        close_looks: Vec::new(),
    }
}
