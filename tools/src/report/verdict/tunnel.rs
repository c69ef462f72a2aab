//! What a verdict says of a tunnel: what goes through it goes through the line beneath as well, and what it does by itself
//! is not that line's doing.

use bufferbane_core::detect::verdict::{Cause, Judgement};

use super::super::model::Report;
use super::{is_outage, listed, sure, way};
use crate::show::{clean, plural};

/// The word for it.
pub(super) const CAUSE: &str = "tunnel";

/// Whether an interface is a tunnel.
pub(in super::super) fn is_one(report: &Report, interface: &str) -> bool {
    let mut own = report.series.iter().filter(|s| s.interface == interface);
    own.any(|s| s.interface_kind == "tunnel")
}

/// Whether what is judged to be the access line's is a tunnel's.
pub(super) fn is_its(report: &Report, j: &Judgement, interface: &str) -> bool {
    let is_of_line = matches!(
        j.cause,
        Cause::AccessLoss | Cause::AccessOutages | Cause::AccessDelay
    );
    is_of_line && is_one(report, interface)
}

/// What is at fault, for people.
pub(super) fn sentence(report: &Report, j: &Judgement, interface: &str) -> String {
    let way = way(j);
    let what = match j.cause {
        Cause::AccessLoss => format!("the tunnel loses packets{way}"),
        Cause::AccessDelay => format!("the tunnel delays packets{way}"),
        _ if j.events == 1 => format!("the tunnel went dead{way} once"),
        _ => format!(
            "the tunnel goes dead{way} now and then, {} in all",
            plural(j.events.into(), "time", "times")
        ),
    };
    let (well, bad) = beneath(report, j);
    let where_from = match (&well[..], &bad[..]) {
        ([], []) => "its far end, or the line beneath it, which is not watched".to_owned(),
        (_, [_, ..]) => format!(
            "{} had trouble meanwhile, and it may run over that",
            listed(&bad)
        ),
        (well, []) => format!(
            "its far end, or the way there; {} had no such trouble meanwhile",
            listed(well)
        ),
    };
    format!(
        "On {}, {}: {what}: {where_from}.",
        clean(interface),
        sure(j)
    )
}

/// The other lines, by whether something of the kind was seen there at these times.
fn beneath(report: &Report, j: &Judgement) -> (Vec<String>, Vec<String>) {
    let is_like = |kind: &str| match j.cause {
        Cause::AccessDelay => ["latency_spike", "high_jitter", "bufferbloat"].contains(&kind),
        _ => ["packet_loss", "loss_burst", "periodic_loss"].contains(&kind),
    };
    let mut lines: Vec<&str> = report.series.iter().map(|s| s.interface.as_str()).collect();
    lines.sort_unstable();
    lines.dedup();
    let lines = lines.into_iter().filter(|l| !is_one(report, l));
    let (bad, well): (Vec<&str>, Vec<&str>) = lines.partition(|line| {
        report.events.iter().any(|e| {
            let start = e.start.map_or(0, |t| t.0.unsigned_abs());
            let end = e.end.unwrap_or(report.to).0.unsigned_abs();
            let meanwhile = start <= j.until_ns && end >= j.since_ns;
            e.interface == *line && meanwhile && (is_outage(e) || is_like(&e.kind))
        })
    });
    let names = |lines: Vec<&str>| lines.into_iter().map(clean).collect();
    (names(well), names(bad))
}
