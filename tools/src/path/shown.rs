//! A traced way, for people and for programs.

use bufferbane_core::trace::{End, Hop, Transport};
use bufferbane_core::wire::icmp::Refusal;
use serde_json::{Value, json};

use super::Found;
use crate::show::{clean, millis, percent, plural, stretch, table};

const HEADINGS: [&str; 9] = [
    "hop", "address", "loss", "sent", "best", "median", "p95", "worst", "spread",
];

/// The value that a share `permille` of the sorted `values` does not exceed.
fn quantile(values: &[u64], permille: usize) -> Option<u64> {
    let rank = (values.len() * permille).div_ceil(1000).max(1);
    values.get(rank - 1).copied()
}

fn mean(values: &[u64]) -> Option<f64> {
    let n = values.len();
    (n > 0).then(|| values.iter().map(|v| *v as f64).sum::<f64>() / n as f64)
}

/// Standard deviation of what was seen; one value has none.
fn spread(values: &[u64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    let squares = values.iter().map(|v| (*v as f64 - mean).powi(2));
    Some((squares.sum::<f64>() / (values.len() - 1) as f64).sqrt())
}

/// Times of a hop in milliseconds, in the order of the headings.
fn times(values: &[u64]) -> [String; 5] {
    let quantiles = [
        values.first().copied(),
        quantile(values, 500),
        quantile(values, 950),
        values.last().copied(),
        spread(values).map(|s| s.round() as u64),
    ];
    quantiles.map(|ns| ns.map_or_else(|| "–".into(), millis))
}

fn refusal(why: Refusal) -> (&'static str, &'static str) {
    match why {
        Refusal::Network => ("network", "it has no route there"),
        Refusal::Host => ("host", "the host does not answer on its link"),
        Refusal::Port => ("port", "nobody listens there"),
        Refusal::Prohibited => ("prohibited", "it is forbidden"),
        Refusal::Other(_) => ("other", "it gives another reason"),
    }
}

/// Whether a hop misses more than one behind it: a loss that is not one of the way.
fn spares_itself(hops: &[Hop]) -> bool {
    let share = |h: &Hop| f64::from(h.answered) / f64::from(h.sent.max(1));
    let worse = |i: usize, h: &Hop| hops[i + 1..].iter().any(|behind| share(behind) > share(h));
    let mut heard = hops.iter().enumerate().filter(|(_, h)| h.answered > 0);
    heard.any(|(i, h)| worse(i, h))
}

/// The way as text.
pub(super) fn text(found: &Found) -> String {
    let hops = found.trace.hops();
    let way = &found.way;
    let address = way.address.to_string();
    let who = if found.target == address {
        address.clone()
    } else {
        format!("{} ({address})", clean(&found.target))
    };
    let from = way
        .source
        .map_or_else(String::new, |ip| format!(" from {ip}"));
    let mark = way
        .mark
        .map_or_else(String::new, |m| format!(" with mark {m}"));
    let mut out = format!(
        "{who} through {}{from}{mark}, IPv{}, {}, {} of {}; times in ms\n\n",
        clean(&way.interface.name),
        if way.address.is_ipv4() { 4 } else { 6 },
        match found.transport {
            Transport::Echo { .. } => "echo requests",
            Transport::Udp => "UDP",
        },
        plural(found.rounds.into(), "round", "rounds"),
        stretch(found.round_ns),
    );
    let mut rows = Vec::new();
    for (i, (hop, rtts)) in hops.iter().zip(&found.rtts).enumerate() {
        let mut addresses = hop.addresses.iter();
        let mut row = vec![(i + 1).to_string()];
        match addresses.next() {
            None => row.push("no answer".into()),
            Some(first) => {
                let lost = hop.sent - hop.answered;
                row.push(first.to_string());
                row.push(percent(lost.into(), hop.sent.into()));
                row.push(hop.sent.to_string());
                row.extend(times(rtts));
            }
        }
        row.resize(HEADINGS.len(), String::new());
        rows.push(row);
        for other in addresses {
            let mut row = vec![String::new(), other.to_string()];
            row.resize(HEADINGS.len(), String::new());
            rows.push(row);
        }
    }
    out.push_str(&table(&HEADINGS, &rows, 2));
    out.push('\n');
    let last = hops.len();
    match found.trace.end() {
        End::Target => out.push_str(&format!(
            "{address} is {} away.\n",
            plural(last as u64, "hop", "hops")
        )),
        End::Silence => out.push_str(&format!("Nobody answers beyond hop {last}.\n")),
        End::Refused(why) => out.push_str(&format!(
            "Hop {last} sends nothing on to {address}: {}.\n",
            refusal(why).1
        )),
    }
    if way.kind == "tunnel" {
        out.push_str(
            "Hop 1 is the tunnel's far end: the line that the tunnel's packets travel over is not seen here.\n",
        );
    }
    if spares_itself(hops) {
        out.push_str(
            "What a hop misses and one behind it does not is not lost on the way: that router answers \
             only some of what ends there.\n",
        );
    }
    if !way.others.is_empty() {
        out.push_str(&format!(
            "The daemon probes it through {} too: --interface walks that way.\n",
            clean(&way.others.join(", "))
        ));
    }
    if let Some(size) = &found.size {
        out.push_str(&size.text());
    }
    out
}

/// The way as JSON.
pub(super) fn json(found: &Found) -> Value {
    let hops = found.trace.hops().iter().zip(&found.rtts).enumerate();
    let hops: Vec<Value> = hops
        .map(|(i, (hop, rtts))| {
            let addresses: Vec<String> = hop.addresses.iter().map(ToString::to_string).collect();
            let lost = hop.sent - hop.answered;
            json!({
                "hop": i + 1,
                "addresses": addresses,
                "sent": hop.sent,
                "received": hop.answered,
                "loss": if hop.sent == 0 { None } else { Some(f64::from(lost) / f64::from(hop.sent)) },
                "rtt_ns": (!rtts.is_empty()).then(|| json!({
                    "min": rtts.first(),
                    "p50": quantile(rtts, 500),
                    "p95": quantile(rtts, 950),
                    "max": rtts.last(),
                    "mean": mean(rtts).map(|m| m.round() as u64),
                    "stddev": spread(rtts).map(|s| s.round() as u64),
                })),
            })
        })
        .collect();
    let (end, why) = match found.trace.end() {
        End::Target => ("target", None),
        End::Silence => ("silence", None),
        End::Refused(why) => ("refused", Some(refusal(why).0)),
    };
    json!({
        "schema": "bufferbane.path/1",
        "target": found.target,
        "address": found.way.address.to_string(),
        "family": if found.way.address.is_ipv4() { 4 } else { 6 },
        "interface": found.way.interface.name,
        "interface_kind": found.way.kind,
        "source": found.way.source.map(|ip| ip.to_string()),
        "mark": found.way.mark,
        "protocol": match found.transport {
            Transport::Echo { .. } => "icmp",
            Transport::Udp => "udp",
        },
        "rounds": found.rounds,
        "interval_ns": found.round_ns,
        "end": end,
        "refused": why,
        "hops": hops,
        "path_mtu": found.size.as_ref().map(super::size::Size::json),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_few_values_are_values_that_were_seen() {
        assert_eq!(quantile(&[], 500), None);
        assert_eq!(quantile(&[7], 500), Some(7));
        assert_eq!(quantile(&[1, 2, 3, 4], 500), Some(2));
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(quantile(&hundred, 950), Some(95));
        assert_eq!((spread(&[5]), spread(&[4, 6])), (None, Some(2f64.sqrt())));
    }

    #[test]
    fn a_loss_is_the_ways_only_where_it_goes_on() {
        let hop = |answered| Hop {
            sent: 10,
            answered,
            ..Hop::default()
        };
        assert!(spares_itself(&[hop(10), hop(3), hop(10)]));
        assert!(!spares_itself(&[hop(10), hop(8), hop(8), hop(7)]));
        // One that never answers is said to be so already.
        assert!(!spares_itself(&[hop(10), hop(0), hop(10)]));
    }
}
