//! One test for people, at its end.

use bufferbane_store::{Datagrams, Direction, LoadTest, Protocol};

use super::{lost_share, others_part, rate, why_not_known, word};
use crate::show::{self, clean};

/// A test for people, at its end.
pub(crate) fn describe(test: &LoadTest) -> String {
    let mut out = format!(
        "{} through {} to {}, {} s {}\n\n",
        match test.kind.as_str() {
            "up" => "Upload",
            "down" => "Download",
            "both" => "Both directions at once",
            _ => "Realtime response under load (RRUL)",
        },
        clean(&test.interface),
        clean(&test.reflector),
        (test.load_end_ns.saturating_sub(test.load_start_ns) + 500_000_000) / 1_000_000_000,
        match test.protocol {
            Protocol::Tcp => format!("with {}", clean(&test.congestion)),
            Protocol::Udp => "of UDP at a given rate".to_owned(),
        },
    );
    for other in &test.instead_of {
        let (name, why) = (clean(&other.reflector), clean(&other.why));
        out.push_str(&format!("Instead of {name}: {why}\n"));
    }
    if !test.instead_of.is_empty() {
        out.push('\n');
    }
    let mut rows = Vec::new();
    for way in &test.ways {
        let d = &way.delay;
        rows.push(vec![
            word(way.direction).to_owned(),
            rate(way.mean_bps),
            format!("{} – {}", rate(way.p10_bps), rate(way.p90_bps)),
            millis(d.increase.p50),
            millis(d.increase.p90),
            millis(d.increase.p99),
            show::bytes(way.queue_bytes),
        ]);
        let row = rows.last_mut().into_iter();
        row.for_each(|row| match &way.datagrams {
            None => row.extend([show::count(way.retransmits), way.grade.clone()]),
            Some(d) => row.extend([lost_share(d).unwrap_or_else(|| "not known".into())]),
        });
    }
    let columns = [
        "",
        "rate",
        "10 % – 90 %",
        "added ms",
        "p90",
        "p99",
        "in queue",
    ];
    let last: &[&str] = match test.protocol {
        Protocol::Tcp => &["retrans", "grade"],
        Protocol::Udp => &["lost"],
    };
    out.push_str(&show::table(&[&columns[..], last].concat(), &rows, 1));
    for (way, d) in test
        .ways
        .iter()
        .filter_map(|w| Some((w, w.datagrams.as_ref()?)))
    {
        out.push_str(&format!(
            "Datagrams {}: {} sent{}, {} received, {}, {} reordered, {} duplicated\n",
            word(way.direction),
            show::count(d.sent),
            at_rate(d, test, way.direction),
            show::count(d.received),
            d.lost.map_or_else(
                || format!("lost {}", why_not_known(d, way.direction)),
                |lost| {
                    // Where nobody knows what the sender dropped, it may be among them.
                    let or = match d.sender_drops {
                        None if lost > 0 => " or in the sender's own queue",
                        _ => "",
                    };
                    format!("{} lost on the way{or}", show::count(lost))
                }
            ),
            show::count(d.reordered),
            show::count(d.duplicated),
        ));
    }
    for (way, others) in test.ways.iter().filter_map(|w| Some((w, others_part(w)?))) {
        out.push_str(&format!(
            "Others carried {} {} meanwhile\n",
            rate(others),
            word(way.direction)
        ));
    }
    out.push('\n');
    out.push_str(&latency(test));
    if let Some(rpm) = test.rpm {
        let stable = if test.rpm_stable {
            ""
        } else {
            ", not stable yet"
        };
        out.push_str(&format!(
            "Responsiveness: {rpm} round trips per minute{stable} ({})\n",
            clean(&test.rpm_variant)
        ));
    }
    out.push_str(&match test.recovery_ns {
        Some(ns) => format!("Latency was back {:.1} s after the load\n", ns as f64 / 1e9),
        None => "Latency was not back within the time that was looked at\n".to_owned(),
    });
    let graded = test.ways.iter().filter(|_| test.protocol == Protocol::Tcp);
    for way in graded {
        out.push_str(&format!("Grade {}: {}\n", word(way.direction), way.grade));
    }
    out.replace('\u{a0}', " ")
}

/// ` at 8.0 Mbit/s`; where not all could be sent, how fast it was and who held it up.
fn at_rate(d: &Datagrams, test: &LoadTest, direction: Direction) -> String {
    let bits = u128::from(d.sent) * u128::from(d.size) * 8;
    let load_ns = test.load_end_ns.saturating_sub(test.load_start_ns).max(1);
    let sent_bps = bits * 1_000_000_000 / u128::from(load_ns);
    // The load's ends are known to some milliseconds.
    if sent_bps * 20 >= u128::from(d.offered_bps) * 19 {
        return format!(" at {}", rate(d.offered_bps));
    }
    let sender = match direction {
        Direction::Up | Direction::Both => "this host",
        Direction::Down => "the reflector",
    };
    format!(
        " at {} of {} that were to be ({sender} itself could send no more)",
        rate(u64::try_from(sent_bps).unwrap_or(u64::MAX)),
        rate(d.offered_bps)
    )
}

/// Latency without load and under it, one way each where that was loaded, and of the round trip.
fn latency(test: &LoadTest) -> String {
    let ways = test.ways.iter().map(|w| (word(w.direction), w.delay));
    let trips = [("round trip", Some(test.rtt)), ("by ICMP", test.icmp)];
    let trips = trips
        .into_iter()
        .filter_map(|(name, delay)| Some((name, delay?)));
    let rows: Vec<Vec<String>> = ways
        .chain(trips)
        .map(|(name, d)| {
            let of = [d.idle, d.loaded].map(|p| [p.p50, p.p90, p.p99].map(millis));
            [name.to_owned()]
                .into_iter()
                .chain(of.into_iter().flatten())
                .collect()
        })
        .collect();
    let columns = ["", "idle ms", "p90", "p99", "loaded ms", "p90", "p99"];
    show::table(&columns, &rows, 1)
}

/// `12.3`.
fn millis(ns: u64) -> String {
    format!("{:.1}", ns as f64 / 1e6)
}
