//! What is known of a cable line: the findings of core, in words.

use std::collections::BTreeMap;

use bufferbane_core::detect::cable::{self, Finding, FindingKind, Reading, Seen, Told};
use bufferbane_core::detect::{Direction, Value as Figure};
use bufferbane_store::{Direction as Way, Reader, SeriesInfo, StoreError};
use serde::Serialize;
use serde_json::{Map, Value};

use super::model::{Event, Report, Series, Time};
use crate::args::Selection;
use crate::show::{bytes, count, delay, plural};
use crate::when::Range;

/// Where a cable modem answers, and some optical ones and dishes.
const MODEM: &str = "192.168.100.1";
/// Of a whole.
const PERCENT: f64 = 100.0;

/// What is known of the cable lines among the interfaces.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Cable {
    /// By interface.
    pub(crate) findings: Vec<Found>,
    /// Interfaces that cables are at by the daemon's configuration.
    pub(crate) configured: Vec<String>,
    /// Wi-Fi interfaces of which nothing is found for that reason alone: a radio has instants to send at, and
    /// loses and delays what it sends, as a cable does.
    pub(crate) left_out: Vec<String>,
}

/// One finding.
#[derive(Debug, Serialize)]
pub(crate) struct Found {
    /// One of the documented words, such as `request_grant`.
    pub(crate) kind: &'static str,
    /// The interface.
    pub(crate) interface: String,
    /// Which way, where that is known.
    pub(crate) direction: Option<Way>,
    /// How sure, 0 to 1.
    pub(crate) confidence: f64,
    /// From the first evidence.
    pub(crate) since: Time,
    /// To the last.
    pub(crate) until: Time,
    /// Figures.
    pub(crate) values: Map<String, Value>,
    /// A sentence for people.
    pub(crate) text: String,
    /// What shows it.
    pub(crate) evidence: Vec<String>,
}

/// What the store and the events of a range say of cables; `None` where no line is shown to be one.
pub(crate) fn of(
    reader: &Reader,
    selection: &Selection,
    range: Range,
    series: (&[SeriesInfo], &[Series]),
    events: &[Event],
) -> Result<Option<Cable>, StoreError> {
    type Readings = Vec<(u64, u64, Reading)>;
    let mut lines: BTreeMap<String, Readings> = BTreeMap::new();
    let (infos, series) = series;
    let modems: Vec<&str> = infos
        .iter()
        .zip(series)
        .filter(|(info, s)| info.address == MODEM && s.received > 0)
        .map(|(info, _)| info.interface.as_str())
        .collect();
    for row in reader.cable(range.from_ns, range.to_ns)? {
        let asked = selection.interface.as_ref();
        if asked.is_none_or(|asked| *asked == row.interface) {
            let of = (row.since_ns.unsigned_abs(), row.until_ns.unsigned_abs());
            let readings = lines.entry(row.interface).or_default();
            readings.push((of.0, of.1, row.reading));
        }
    }
    for modem in &modems {
        lines.entry((*modem).to_owned()).or_default();
    }
    let mut cable = Cable::default();
    for (interface, readings) in lines {
        if readings.iter().any(|(_, _, r)| *r == Reading::Said) {
            cable.configured.push(interface.clone());
        }
        let told: Vec<Told> = events
            .iter()
            .filter(|e| e.interface == interface)
            .filter_map(|e| told(e, range))
            .collect();
        let modem = modems.contains(&interface.as_str());
        let found = cable::judge(readings.into_iter(), &told, modem);
        let mut of_line = infos.iter().filter(|i| i.interface == interface);
        let is_wifi = of_line.any(|i| i.interface_kind == "wifi");
        cable.add(interface, is_wifi, &found, range);
    }
    Ok(cable.some())
}

impl Cable {
    /// Adds what is found of an interface.
    fn add(&mut self, interface: String, is_wifi: bool, found: &[Finding], range: Range) {
        if !is_wifi {
            let all = found.iter().map(|f| one(&interface, f, range));
            self.findings.extend(all);
        } else if !found.is_empty() {
            self.left_out.push(interface);
        }
    }

    /// With what another store says.
    pub(super) fn merge(&mut self, more: Self) {
        self.findings.extend(more.findings);
        for (own, more) in [
            (&mut self.configured, more.configured),
            (&mut self.left_out, more.left_out),
        ] {
            for interface in more {
                if !own.contains(&interface) {
                    own.push(interface);
                }
            }
        }
    }

    /// Each place that an interface is named at.
    pub(super) fn interfaces(&mut self) -> impl Iterator<Item = &mut String> {
        let lists = self.configured.iter_mut().chain(&mut self.left_out);
        lists.chain(self.findings.iter_mut().map(|f| &mut f.interface))
    }

    fn some(self) -> Option<Self> {
        let is_empty =
            self.findings.is_empty() && self.left_out.is_empty() && self.configured.is_empty();
        (!is_empty).then_some(self)
    }

    /// Configured ones of which there is nothing to tell.
    fn quiet(&self) -> impl Iterator<Item = &String> {
        let told = |i: &&String| {
            self.left_out.contains(i) || self.findings.iter().any(|f| f.interface == **i)
        };
        self.configured.iter().filter(move |i| !told(i))
    }
}

/// An event as evidence; `None` where it says nothing of a cable.
fn told(e: &Event, range: Range) -> Option<Told> {
    let number = |name: &str| e.values.get(name).and_then(Value::as_u64).unwrap_or(0);
    let word = |name: &str| e.values.get(name).and_then(Value::as_str);
    let seen = match e.kind.as_str() {
        "periodic_loss" => Seen::Period {
            period_ns: number("period_ns"),
            times: number("times"),
            strength: e.values.get("strength")?.as_f64()?,
        },
        "micro_outage" | "outage" => Seen::Outage {
            near_well: word("gateway") != Some("down"),
        },
        "peak_hour_congestion" => Seen::Evening {
            days: number("days"),
            hours: (number("from_hour"), number("to_hour")),
            night_ns: number("night_ns"),
            evening_ns: number("evening_ns"),
            idle: word("load") == Some("idle"),
        },
        "routing_fault" | "family_differs" | "mtu_black_hole" => Seen::Elsewhere,
        _ => return None,
    };
    // What the near gateway shows too is in the house.
    if e.values.get("near").and_then(Value::as_bool) == Some(true) {
        return None;
    }
    Some(Told {
        seen,
        direction: e.direction.map(|d| match d {
            Way::Up => Direction::Up,
            Way::Down => Direction::Down,
            Way::Both => Direction::Both,
        }),
        start_ns: e.start?.0.unsigned_abs(),
        end_ns: e.end.map_or(range.to_ns, |t| t.0).unsigned_abs(),
    })
}

fn one(interface: &str, f: &Finding, range: Range) -> Found {
    let mut values = Map::new();
    for (name, value) in &f.values {
        let value = match *value {
            Figure::Number(n) => n.into(),
            Figure::Ratio(r) => ((r * 1e4).round() / 1e4).into(),
            Figure::Word(w) => w.into(),
        };
        values.insert((*name).to_owned(), value);
    }
    let (text, evidence) = words(f);
    let within = |ns: u64| Time(ns.cast_signed().clamp(range.from_ns, range.to_ns));
    Found {
        kind: f.kind.as_str(),
        interface: interface.to_owned(),
        direction: f.direction.map(|d| match d {
            Direction::Up => Way::Up,
            Direction::Down => Way::Down,
            Direction::Both => Way::Both,
        }),
        confidence: (f.confidence * 100.0).round() / 100.0,
        since: within(f.since_ns),
        until: within(f.until_ns),
        values,
        text,
        evidence,
    }
}

/// What a finding says, and what shows it.
fn words(f: &Finding) -> (String, Vec<String>) {
    let get = |name: &str| f.values.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    let number = |name: &str| match get(name) {
        Some(Figure::Number(n)) => n,
        _ => 0,
    };
    let ratio = |name: &str| match get(name) {
        Some(Figure::Ratio(r)) => r,
        _ => 0.0,
    };
    let is = |name: &str, word: &'static str| get(name) == Some(Figure::Word(word));
    let percent = |share: f64| format!("{:.1}\u{a0}%", PERCENT * share);
    let way = match f.direction {
        Some(Direction::Up) => "upstream",
        Some(Direction::Down) => "downstream",
        Some(Direction::Both) => "in both directions",
        None => "in a direction that is not known",
    };
    let while_idle = if is("load", "idle") {
        "while the house used the line little"
    } else {
        "whatever the house did meanwhile: its load is not known"
    };
    match f.kind {
        FindingKind::RequestGrant => (
            format!(
                "Packets leave upstream on request and grant, once in {:.2}\u{a0}ms, as a cable's do (DOCSIS \
                 MAP interval), and those of optical and mobile networks.",
                number("interval_ns") as f64 / 1e6
            ),
            vec![if is("shows_in", "waits") {
                format!(
                    "what probes wait upstream comes in steps of that: {} of neighbouring probes",
                    plural(number("pairs"), "pair", "pairs")
                )
            } else {
                format!(
                    "probes are sent at random instants and leave at certain ones: {} of neighbouring \
                     probes",
                    plural(number("pairs"), "pair", "pairs")
                )
            }],
        ),
        FindingKind::DirectionalLoss => (
            format!(
                "Loss is {way}: {} of the probes, apart from outages, {while_idle}.",
                percent_fine(ratio("loss"))
            ),
            vec![format!(
                "{} lost upstream and {} downstream of {}",
                count(number("lost_up")),
                count(number("lost_down")),
                plural(number("probes"), "probe", "probes")
            )],
        ),
        FindingKind::Periodicity => (
            format!(
                "Losses or delays come back every {:.2}\u{a0}s: something disturbs the line at a fixed \
                 period.",
                number("period_ns") as f64 / 1e9
            ),
            vec![format!(
                "{}, {} of the losses of that time",
                plural(number("times"), "time", "times"),
                percent(ratio("strength"))
            )],
        ),
        FindingKind::UpstreamBuffer => (
            format!(
                "The upstream buffer holds about {}, which is {} at {:.1}\u{a0}Mbit/s; no queue manager (AQM) \
                 keeps it short.",
                bytes(number("bytes")),
                delay(number("plateau_ns")),
                number("rate_bps") as f64 / 1e6
            ),
            vec![format!(
                "under the household's own load the delay upstream rose to the same flat top for {} s",
                count(number("seconds"))
            )],
        ),
        FindingKind::Aqm => (
            format!(
                "A queue manager (AQM) keeps the upstream queue at about {} under load.",
                delay(number("loaded_queue_ns"))
            ),
            vec![format!(
                "{} s of load, in which {} dropped by themselves",
                count(number("seconds")),
                plural(number("drops"), "probe was", "probes were")
            )],
        ),
        FindingKind::BondedChannel => {
            let mut evidence = vec![format!(
                "{} of the probes lost upstream, evenly, for {} s in {}",
                percent(ratio("loss")),
                count(number("seconds")),
                plural(number("times"), "stretch", "stretches")
            )];
            if get("loss_of_large").is_some() {
                evidence.push(format!(
                    "{} of the large ones",
                    percent(ratio("loss_of_large"))
                ));
            }
            (
                format!(
                    "At times one packet in {} is lost upstream, as if one of {} bonded channels were dead.",
                    number("channels"),
                    number("channels")
                ),
                evidence,
            )
        }
        FindingKind::Ranging => (
            format!(
                "The line is disturbed every {:.1}\u{a0}s, as often as a cable modem's ranging (station \
                 maintenance) is due: that is not seen on a healthy line.",
                number("period_ns") as f64 / 1e9
            ),
            vec![format!(
                "{}; besides, {} as long as its time-outs (T3, T4) last",
                plural(number("times"), "time", "times"),
                plural(number("outages"), "outage", "outages")
            )],
        ),
        FindingKind::EveningCongestion => (
            format!(
                "The segment is congested in the evening, {way}: {} from {} to {} o'clock instead of {} at \
                 night, {while_idle}.",
                delay(number("evening_ns")),
                number("from_hour"),
                number("to_hour"),
                delay(number("night_ns"))
            ),
            vec![format!("{} days in a row", number("days"))],
        ),
    }
}

/// A share that may be far below one percent.
fn percent_fine(share: f64) -> String {
    format!("{:.2}\u{a0}%", PERCENT * share)
}

/// Findings as lines of a list, each with what shows it and how sure it is.
pub(crate) fn lines(report: &Report) -> Vec<String> {
    let left_out = report.cable.iter().flat_map(|c| &c.left_out);
    let left_out = left_out.map(|interface| {
        format!(
            "{interface}: what is seen may be a cable's, but over Wi-Fi nothing is said of that: the radio does \
             the same. A host on the wire can tell."
        )
    });
    let quiet = report.cable.iter().flat_map(Cable::quiet);
    let quiet = quiet.map(|interface| {
        format!(
            "{interface}: a cable by the daemon's configuration, of which nothing is found that cables do; probes of a \
             reflector, which tell directions, would show grants, losses and the buffer."
        )
    });
    let findings = report.cable.iter().flat_map(|c| &c.findings);
    findings
        .map(|f| {
            format!(
                "{}: {} ({}; confidence {:.2})",
                f.interface,
                f.text,
                f.evidence.join("; "),
                f.confidence
            )
        })
        .chain(left_out)
        .chain(quiet)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bufferbane_core::detect::cable::{Channel, Grants, Loaded, Loss};

    /// Every finding there is has words that name its figures.
    #[test]
    fn findings_have_words_with_their_figures() {
        const S: u64 = 1_000_000_000;
        let hour = |reading| (0, 3600 * S, reading);
        let readings = [
            hour(Reading::Grants(Grants {
                period_ns: 2_000_000,
                steps: false,
                strength: 0.5,
                pairs: 20_000,
            })),
            hour(Reading::Loss(Loss {
                probes: 72_000,
                up: 900,
                down: 2,
                idle: 0,
            })),
            hour(Reading::Channel(Channel {
                probes: 1200,
                lost: 300,
                large_probes: 600,
                large_lost: 270,
                edges: 0,
            })),
            hour(Reading::Loaded(Loaded {
                seconds: 100,
                plateau_s: 90,
                plateau_ns: 584_000_000,
                rate_bps: 5_000_000,
                ..Loaded::default()
            })),
        ];
        let evening = Told {
            seen: Seen::Evening {
                days: 4,
                hours: (19, 23),
                night_ns: 12_000_000,
                evening_ns: 30_000_000,
                idle: true,
            },
            direction: Some(Direction::Up),
            start_ns: 0,
            end_ns: 3600 * S,
        };
        let ranging = Told {
            seen: Seen::Period {
                period_ns: 30 * S,
                times: 60,
                strength: 0.9,
            },
            direction: None,
            start_ns: 3600 * S,
            end_ns: 5400 * S,
        };
        let found = cable::judge(readings.into_iter(), &[evening, ranging], false);
        let range = Range {
            from_ns: 0,
            to_ns: 7200 * S as i64,
            begin_typed: false,
        };
        let mut over_wifi = Cable::default();
        over_wifi.add("wlan0".into(), true, &[], range);
        assert!(over_wifi.left_out.is_empty());
        over_wifi.add("wlan0".into(), true, &found, range);
        let over_wifi = over_wifi.some().unwrap();
        assert_eq!(
            (over_wifi.findings.len(), &over_wifi.left_out[..]),
            (0, &["wlan0".to_owned()][..])
        );
        let said: Vec<String> = found
            .iter()
            .map(|f| one("wan", f, range))
            .map(|f| {
                format!("{} {}", f.text, f.evidence.join(" ")).replace(char::is_whitespace, " ")
            })
            .collect();
        let expected = [
            &["2.00 ms", "20 000 pairs"][..],
            &["upstream: 0.46 %", "its load is not known"],
            &["one of 4", "25.0 %", "45.0 % of the large"],
            &["every 30.0 s", "60 times", "0 outages"],
            &["584", "5.0 Mbit/s"],
            &["from 19 to 23", "30.0 ms", "4 days", "used the line little"],
        ];
        assert_eq!(said.len(), expected.len(), "{said:#?}");
        for (text, words) in said.iter().zip(expected) {
            for word in words {
                assert!(text.contains(word), "{word:?} is not in {text:?}");
            }
        }
    }
}
