//! What a row of a series says beside its figures.

use super::super::model::{Series, Spread, Stamps};
use crate::show::{count, millis_or_dash, percent};

/// A series' losses with their directions: `43 (0.06 %): 40 up, 3 down`.
pub(crate) fn loss_of(s: &Series) -> String {
    let mut text = format!("{} ({})", count(s.lost), percent(s.lost, s.sent));
    if let (Some(up), Some(down)) = (s.lost_up, s.lost_down)
        && s.lost > 0
    {
        text.push_str(&format!(": {} up, {} down", count(up), count(down)));
        let unknown = s.lost.saturating_sub(up + down);
        if unknown > 0 {
            text.push_str(&format!(", {} unknown", count(unknown)));
        }
    }
    text
}

/// What else happened to probes of a series, nothing where nothing did.
pub(crate) fn oddities(s: &Series) -> Vec<String> {
    let counts = [
        (s.late, "late"),
        (s.duplicated, "duplicated"),
        (s.reordered, "reordered"),
        (s.unsent, "not sent"),
    ]
    .into_iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, what)| format!("{} {what}", count(n)));
    let failures = s.failures.iter();
    let failures = failures.map(|(why, n)| format!("{} {why}", count(*n)));
    let counts = failures.chain(counts);
    counts.chain(marks(s)).chain(queueing(s)).collect()
}

/// What became of the marks in the headers on the way.
fn marks(s: &Series) -> Vec<String> {
    let mut marks = Vec::new();
    match s.dscp_seen {
        Some(seen) if seen != s.dscp => {
            marks.push(format!("DSCP {} arrives as {seen}", s.dscp));
        }
        _ => {}
    }
    if s.dscp_changes > 0 {
        marks.push(format!("DSCP or ECN changed {}", times(s.dscp_changes)));
    }
    if s.ttl_changes > 0 {
        marks.push(format!("hops changed {}", times(s.ttl_changes)));
    }
    marks
}

fn times(n: u64) -> String {
    match n {
        1 => "once".into(),
        n => format!("{} times", count(n)),
    }
}

/// How long packets waited in queues each way, in a phrase.
fn queueing(s: &Series) -> Option<String> {
    let way = |spread: &Spread| {
        format!(
            "{} median, {} p95, {} at most",
            millis_or_dash(spread.p50),
            millis_or_dash(spread.p95),
            millis_or_dash(spread.max)
        )
    };
    let (up, down) = (s.queue_up_ns.as_ref()?, s.queue_down_ns.as_ref()?);
    Some(format!("queued up {}, down {} ms", way(up), way(down)))
}

/// Who took the time stamps of a series, in a sentence.
pub(crate) fn stamps_of(s: &Series) -> String {
    let t = &s.timestamps;
    let near = format!("sent {}, received {}", clocks(&t.tx), clocks(&t.rx));
    if s.kind == "udp" {
        format!(
            "{near}; far end: received {}, sent {}",
            clocks(&t.remote_rx),
            clocks(&t.remote_tx)
        )
    } else {
        near
    }
}

fn clocks(s: &Stamps) -> String {
    let all = [
        (s.nic, "network card"),
        (s.kernel, "kernel"),
        (s.user, "program"),
        (s.none, "none"),
    ];
    let total: u64 = all.iter().map(|(n, _)| n).sum();
    let used: Vec<String> = all
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, name)| match n {
            n if n == total => name.to_owned(),
            n => format!("{name} {}", percent(n, total)),
        })
        .collect();
    if used.is_empty() {
        "–".into()
    } else {
        used.join(" + ")
    }
}
