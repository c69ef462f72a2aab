//! The ways to targets: which there were, and what was seen of them when an event began.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bufferbane_core::trace::way::{Against, against};
use bufferbane_store::{KnownPath, Look, Path, PathEnd, Reader, StoreError};
use jiff::tz::TimeZone;
use serde::Serialize;

use super::echoes;
use super::model::{Event, Report, Time};
use super::sizes;
use super::trains::{self, Train};
use super::way::{Hop, Kinds, Way};
use crate::args::Selection;
use crate::show::{clean, count, delay, percent, plural};
use crate::when::{self, Range};

/// What was seen this long after the begin of an event is its beginning, ns: it takes a while to know
/// that something is wrong.
const BEGINNING_NS: i64 = 15_000_000_000;
/// What belongs to an event, a look or a train, was seen at most this long before it, or after the last of a range, ns.
pub(super) const AROUND_NS: i64 = 900_000_000_000;
/// Most ways that are written out.
const MOST_PATHS: usize = 24;

/// A way that a target was reached by.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct KnownWay {
    /// When it was first seen.
    pub(crate) first: Time,
    /// When it was last seen; there may have been others meanwhile.
    pub(crate) last: Time,
    /// How often it was walked.
    pub(crate) walks: u64,
    /// The way, with the sums of all walks.
    #[serde(flatten)]
    pub(crate) way: Way,
}

/// What was seen of a way for an event.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Seen {
    /// When it was walked.
    pub(crate) at: Time,
    /// How long that took.
    pub(crate) took_ns: u64,
    /// How many hops the way had before, where that was known.
    pub(crate) usual_hops: Option<u64>,
    /// From this hop on, from 1, it was another way than before.
    pub(crate) other_from: Option<u64>,
    /// The way.
    #[serde(flatten)]
    pub(crate) way: Way,
}

impl Seen {
    fn of(at_ns: i64, look: Look, kinds: &Kinds) -> Self {
        Self {
            at: Time(at_ns),
            took_ns: look.took_ns,
            usual_hops: look.usual_hops,
            other_from: look.other_from,
            way: Way::of(look.path, kinds),
        }
    }
}

/// `paths`: the ways that were seen in the range.
pub(super) fn known(
    reader: &Reader,
    selection: &Selection,
    range: Range,
) -> Result<Vec<KnownWay>, StoreError> {
    let wanted = |p: &Path| {
        let is = |asked: &Option<String>, name: &str| asked.as_deref().is_none_or(|a| a == name);
        is(&selection.interface, &p.interface) && is(&selection.target, &p.target)
    };
    let kinds = Kinds::read(reader)?;
    let rows = reader.paths(range.from_ns, range.to_ns)?.into_iter();
    let rows = joined(rows.filter(|k| wanted(&k.path)));
    let mut ways: Vec<KnownWay> = rows
        .into_iter()
        .map(|k| KnownWay {
            first: Time(k.first_ns),
            last: Time(k.last_ns),
            walks: k.walks,
            way: Way::of(k.path, &kinds),
        })
        .collect();
    ways.sort_by(|a, b| {
        let of = |k: &KnownWay| (k.way.interface.clone(), k.way.target.clone(), k.first);
        of(a).cmp(&of(b))
    });
    Ok(ways)
}

/// Each run and boot has rows of its own: those of the same way to the same address become one.
fn joined(rows: impl Iterator<Item = KnownPath>) -> Vec<KnownPath> {
    let mut ways: BTreeMap<(String, String, IpAddr), Vec<KnownPath>> = BTreeMap::new();
    for row in rows {
        let path = &row.path;
        let key = (path.interface.clone(), path.target.clone(), path.address);
        let known = ways.entry(key).or_default();
        let is_same = |k: &&mut KnownPath| {
            let (a, b) = (&k.path, &row.path);
            let alike = a.end == b.end && a.hops.len() == b.hops.len();
            alike && against(a.shape(), b.shape()) == Against::Same
        };
        match known.iter_mut().find(is_same) {
            Some(k) => {
                k.first_ns = k.first_ns.min(row.first_ns);
                k.last_ns = k.last_ns.max(row.last_ns);
                k.walks += row.walks;
                k.path.add(row.path);
            }
            None => known.push(row),
        }
    }
    ways.into_values().flatten().collect()
}

/// Puts to each event what was seen for it.
pub(super) fn put_to(
    events: &mut [Event],
    reader: &Reader,
    range: Range,
) -> Result<(), StoreError> {
    let first = events.iter().filter_map(|e| e.start).min();
    let Some(first) = first else {
        return Ok(());
    };
    let kinds = Kinds::read(reader)?;
    let from_ns = first.0.saturating_sub(AROUND_NS);
    for seen in reader.escalations(from_ns, range.to_ns.saturating_add(AROUND_NS))? {
        let of = seen.look.events.clone();
        let told = Seen::of(seen.at_ns, seen.look, &kinds);
        let own = events
            .iter_mut()
            .filter(|e| of.iter().any(|id| id.0 == e.id));
        own.for_each(|e| e.seen.push(told.clone()));
    }
    Ok(())
}

/// What was seen for an event, a sentence each, in order: `at 14:30:02, beginning: the way to quad9 ended
/// after hop 2 of 7, 10.0.0.1 (the provider's first router)`. Packet trains of one direction, within, before or
/// after the event, are one sentence: there may be hundreds. So are close looks that began together.
pub(crate) fn looks(event: &Event, zone: &TimeZone) -> Vec<String> {
    let time = |at: Time| {
        let same_day = event
            .start
            .is_some_and(|t| when::zoned(t.0, zone).date() == when::zoned(at.0, zone).date());
        let time = when::civil(at.0, zone);
        match time.split_once(' ') {
            Some((_, of_day)) if same_day => of_day.to_owned(),
            _ => time,
        }
    };
    let one = |(at, found): (Time, String)| {
        clean(&format!("at {}, {}: {found}", time(at), moment(event, at)))
    };
    let ways = event.seen.iter().map(|s| (s.at, found(s)));
    let mut all: Vec<(Time, String)> = ways.collect();
    let mut left: Vec<&Train> = event.trains.iter().collect();
    left.sort_by_key(|t| t.at);
    while let Some(first) = left.first().copied() {
        let alike = |t: &&Train| {
            t.direction == first.direction && moment(event, t.at) == moment(event, first.at)
        };
        let (own, others): (Vec<&Train>, Vec<&Train>) = left.iter().copied().partition(alike);
        all.extend(trains::found(&own, time).map(|said| (first.at, said)));
        left = others;
    }
    for own in event.close_looks.chunk_by(|a, b| a.at == b.at) {
        let hosts: Vec<_> = own.iter().collect();
        all.push((own[0].at, echoes::found(&hosts, time)));
    }
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(one).collect()
}

fn moment(event: &Event, at: Time) -> &'static str {
    if event.end.is_some_and(|end| at >= end) {
        "afterwards"
    } else if event.start.is_some_and(|s| at.0 - s.0 <= BEGINNING_NS) {
        "beginning"
    } else {
        "meanwhile"
    }
}

fn found(seen: &Seen) -> String {
    let way = &seen.way;
    let target = &way.target;
    let n = way.hops.len();
    let of = match seen.usual_hops {
        Some(usual) if usual as usize > n => format!(" of {usual}"),
        _ => String::new(),
    };
    let mut text = match way.end {
        PathEnd::Unsent => {
            let why = way.unsent.as_deref().unwrap_or("there was no route");
            return format!("nothing could be sent to {target}: {why}");
        }
        _ if n == 0 => {
            return format!("nobody on the way to {target} answered, not even the first hop");
        }
        PathEnd::Silence => format!(
            "the way to {target} ended after hop {n}{of}, {}",
            way.who(n)
        ),
        PathEnd::Refused => format!(
            "hop {n}{of} on the way to {target}, {}, refused what goes there",
            way.who(n)
        ),
        PathEnd::Target => {
            format!(
                "the way to {target} was whole, {}",
                plural(n as u64, "hop", "hops")
            )
        }
    };
    if way.end == PathEnd::Target
        && let Some(last) = way.hops.last().filter(|h| h.answered < h.sent)
    {
        text.push_str(&format!(
            ", but only {} of {} messages to it were answered",
            last.answered, last.sent
        ));
        // No farther: a router that misses some may answer when it likes.
        if let Some(whole) = last_whole(&way.hops) {
            text.push_str(&format!("; hop {whole}, {}, answered all", way.who(whole)));
        }
    }
    if let Some(from) = seen.other_from {
        text.push_str(&format!("; from hop {from} on it was another than before"));
    }
    text
}

/// The last hop, from 1, that answered all that was sent to it; none where each missed some.
fn last_whole(hops: &[Hop]) -> Option<usize> {
    let whole = |h: &Hop| h.sent > 0 && h.answered >= h.sent;
    hops.iter().rposition(whole).map(|i| i + 1)
}

/// The ways of a report, a line each, and the packets that do not pass on them; ways to neighbours are no news.
pub(super) fn lines(report: &Report, zone: &TimeZone) -> Vec<String> {
    let worth = |k: &&KnownWay| k.way.hops.len() > 1 || k.way.end != PathEnd::Target;
    let all = report.paths.iter().filter(worth);
    let number = all.clone().count();
    let mut lines = cut(all.map(|k| line(k, zone)), number);
    let sizes = sizes::lines(&report.path_mtu, zone);
    let number = sizes.len();
    lines.extend(cut(sizes.into_iter(), number));
    lines
}

/// As many of `number` lines as are written out, and how many more there are.
fn cut(lines: impl Iterator<Item = String>, number: usize) -> Vec<String> {
    let mut lines: Vec<String> = lines.take(MOST_PATHS).collect();
    if let Some(more) = number.checked_sub(MOST_PATHS + 1) {
        lines.push(format!(
            "and {} more, in the report as JSON",
            count(more as u64 + 1)
        ));
    }
    lines
}

fn line(known: &KnownWay, zone: &TimeZone) -> String {
    let way = &known.way;
    let seen = if known.walks == 1 {
        format!("seen at {}", when::civil(known.first.0, zone))
    } else {
        format!(
            "seen {} times from {}",
            count(known.walks),
            when::range_label(known.first.0, known.last.0, zone)
        )
    };
    let hops = (1..).zip(&way.hops).map(|(n, hop)| hop_text(way, n, hop));
    let end = match way.end {
        PathEnd::Target => "",
        PathEnd::Refused => "; the last one refuses what goes there",
        _ => "; nobody answers beyond",
    };
    let text = format!(
        "{} → {} ({}), {seen}: {}{end}",
        way.interface,
        way.target,
        way.address,
        hops.collect::<Vec<_>>().join(", ")
    );
    clean(&text)
}

fn hop_text(way: &Way, n: usize, hop: &Hop) -> String {
    let Some(rtt_ns) = hop.rtt_min_ns else {
        return "no answer".into();
    };
    let lost = hop.sent - hop.answered.min(hop.sent);
    // What a router before it does not answer is no loss of the way.
    let is_target = n == way.hops.len() && way.end == PathEnd::Target;
    let loss = if is_target && lost > 0 {
        format!(", {} lost", percent(lost, hop.sent))
    } else {
        String::new()
    };
    format!("{} {}{loss}", way.who(n), delay(rtt_ns))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bufferbane_store::{Direction, PathHop, Severity};

    const S: i64 = 1_000_000_000;

    #[test]
    fn lines_beyond_the_most_are_counted() {
        let lines = |n: usize| cut((0..n).map(|i| i.to_string()), n);
        assert_eq!(lines(MOST_PATHS).len(), MOST_PATHS);
        let more = lines(MOST_PATHS + 7);
        assert_eq!(more.len(), MOST_PATHS + 1);
        assert!(more[MOST_PATHS].starts_with("and 7 more"), "{more:?}");
    }

    /// A way with a hop for each: its last byte and how many of 3 messages it answered.
    fn path(end: PathEnd, hops: &[(&str, u64)]) -> Path {
        let hop = |(address, answered): &(&str, u64)| PathHop {
            addresses: address.parse().into_iter().collect(),
            sent: 3,
            answered: *answered,
            rtt_min_ns: (*answered > 0).then_some(8_100_000),
            rtt_mean_ns: (*answered > 0).then_some(9_000_000),
        };
        Path {
            interface: "eth0".into(),
            target: "quad9".into(),
            address: [9, 9, 9, 9].into(),
            source: None,
            unsent: None,
            provider_link: false,
            end,
            hops: hops.iter().map(hop).collect(),
        }
    }

    fn seen(at_ns: i64, usual_hops: Option<u64>, path: Path) -> Seen {
        let look = Look {
            events: Vec::new(),
            took_ns: 0,
            usual_hops,
            other_from: None,
            path,
        };
        Seen::of(at_ns, look, &Kinds::default())
    }

    #[test]
    fn what_was_seen_is_said_with_its_moment() {
        let home = ("192.168.1.1", 3);
        let provider = ("100.64.0.1", 3);
        let mut event = Event {
            id: 1,
            kind: "outage".into(),
            severity: Severity::Critical,
            interface: "eth0".into(),
            target: None,
            direction: None,
            start: Some(Time(0)),
            end: Some(Time(60 * S)),
            values: serde_json::Map::new(),
            text: String::new(),
            seen: vec![
                seen(2 * S, Some(4), path(PathEnd::Silence, &[home, provider])),
                seen(20 * S, Some(4), path(PathEnd::Silence, &[home])),
                seen(40 * S, None, path(PathEnd::Silence, &[])),
                seen(50 * S, None, path(PathEnd::Unsent, &[])),
                seen(
                    61 * S,
                    Some(4),
                    path(
                        PathEnd::Target,
                        &[home, ("", 0), ("203.0.113.1", 2), ("9.9.9.9", 1)],
                    ),
                ),
            ],
            trains: vec![Train {
                at: Time(30 * S),
                direction: Direction::Up,
                burst_bps: 5_000_000,
                sustained_bps: None,
                confidence: 0.9,
            }],
            close_looks: Vec::new(),
        };
        event.seen[4].other_from = Some(3);
        assert_eq!(
            looks(&event, &TimeZone::UTC),
            [
                "at 00:00:02, beginning: the way to quad9 ended after hop 2 of 4, 100.64.0.1 (the \
                 provider's first router)",
                "at 00:00:20, meanwhile: the way to quad9 ended after hop 1 of 4, 192.168.1.1 (the \
                 home's router)",
                "at 00:00:30, meanwhile: a packet train passed upward at 5.0 Mbit/s (confidence 0.90)",
                "at 00:00:40, meanwhile: nobody on the way to quad9 answered, not even the first hop",
                "at 00:00:50, meanwhile: nothing could be sent to quad9: there was no route",
                "at 00:01:01, afterwards: the way to quad9 was whole, 4\u{a0}hops, but only 1 of 3 messages to it \
                 were answered; hop 1, 192.168.1.1 (the home's router), answered all; from hop 3 on it was \
                 another than before",
            ]
        );
        // Where each hop missed some, nothing is said of them; and the system's word is told.
        let mut lossy = path(PathEnd::Target, &[("192.168.1.1", 2), ("9.9.9.9", 1)]);
        assert_eq!(
            found(&seen(0, None, lossy.clone())),
            "the way to quad9 was whole, 2\u{a0}hops, but only 1 of 3 messages to it were answered"
        );
        lossy.hops.clear();
        (lossy.end, lossy.unsent) = (PathEnd::Unsent, Some("Network is unreachable".into()));
        assert_eq!(
            found(&seen(0, None, lossy)),
            "nothing could be sent to quad9: Network is unreachable"
        );
        event.seen.truncate(1);
        event.trains.clear();
        event.seen[0].at = Time(100_000 * S);
        let said = looks(&event, &TimeZone::UTC);
        assert!(
            said[0].starts_with("at 1970-01-02 03:46:40, afterwards"),
            "{said:?}"
        );
    }

    #[test]
    fn the_same_way_of_many_runs_is_one() {
        let home = ("192.168.1.1", 3);
        let row = |day: i64, end, hops: &[(&str, u64)]| KnownPath {
            first_ns: day * 86_400 * S,
            last_ns: (day * 86_400 + 80_000) * S,
            walks: 90,
            path: path(end, hops),
        };
        let usual = [home, ("100.64.0.1", 3), ("9.9.9.9", 3)];
        let mut rows: Vec<KnownPath> = (0..30).map(|d| row(d, PathEnd::Target, &usual)).collect();
        // A silent hop is no other way; another router, another length and another address are.
        rows.push(row(30, PathEnd::Target, &[home, ("", 0), ("9.9.9.9", 3)]));
        rows.push(row(
            31,
            PathEnd::Target,
            &[home, ("100.64.0.2", 3), ("9.9.9.9", 3)],
        ));
        rows.push(row(32, PathEnd::Silence, &[home, ("100.64.0.1", 3)]));
        let mut elsewhere = row(33, PathEnd::Target, &usual);
        elsewhere.path.address = [9, 9, 9, 10].into();
        rows.push(elsewhere);
        let ways = joined(rows.into_iter());
        let walks: Vec<u64> = ways.iter().map(|k| k.walks).collect();
        assert_eq!(walks, [31 * 90, 90, 90, 90]);
        let all = &ways[0];
        assert_eq!((all.first_ns, all.last_ns), (0, (30 * 86_400 + 80_000) * S));
        assert_eq!(all.path.hops[1].answered, 30 * 3);
        assert_eq!(all.path.hops[1].sent, 31 * 3);
    }

    #[test]
    fn a_way_is_written_with_its_hops_and_the_loss_of_its_target() {
        let hops = [
            ("192.168.1.1", 3),
            ("", 0),
            ("100.64.0.1", 1),
            ("9.9.9.9", 2),
        ];
        let known = KnownWay {
            first: Time(0),
            last: Time(3600 * S),
            walks: 5,
            way: Way::of(path(PathEnd::Target, &hops), &Kinds::default()),
        };
        let said = line(&known, &TimeZone::UTC).replace('\u{a0}', " ");
        assert_eq!(
            said,
            "eth0 → quad9 (9.9.9.9), seen 5 times from 1970-01-01 00:00:00 to 01:00:00 UTC: 192.168.1.1 \
             (the home's router) 8.10 ms, no answer, 100.64.0.1 (the provider's first router) 8.10 ms, \
             9.9.9.9 8.10 ms, 33.3 % lost"
        );
    }
}
