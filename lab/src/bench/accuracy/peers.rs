//! What the other tools print.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::super::Fail;
use crate::link::Way;

/// What a tool says, ns, by the number of the packet.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    pub(super) rtt: BTreeMap<u64, i64>,
    pub(super) up: BTreeMap<u64, i64>,
    pub(super) down: BTreeMap<u64, i64>,
    /// What it says was lost, and which way where it says so.
    pub(super) lost: BTreeMap<u64, Option<Way>>,
}

fn text(path: &Path) -> Result<String, Fail> {
    std::fs::read_to_string(path).map_err(|e| Fail::of(path.display(), e))
}

/// A decimal number of milliseconds, in ns.
fn millis(word: &str) -> Option<i64> {
    Some((word.parse::<f64>().ok()? * 1e6).round() as i64)
}

/// The word that follows `before` in `line`.
fn after<'a>(line: &'a str, before: &str) -> Option<&'a str> {
    let rest = &line[line.find(before)? + before.len()..];
    rest.split([' ', ']', ',']).next()
}

fn ping_line(line: &str) -> Option<(u64, i64)> {
    Some((
        after(line, "icmp_seq=")?.parse().ok()?,
        millis(after(line, "time=")?)?,
    ))
}

fn fping_line(line: &str) -> Option<(u64, i64)> {
    Some((
        after(line, "[")?.parse().ok()?,
        millis(after(line, " bytes, ")?)?,
    ))
}

/// `ping`'s lines: `64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=40.3 ms`.
pub(super) fn ping(path: &Path) -> Result<Said, Fail> {
    lines(path, ping_line)
}

/// `fping -c`'s lines: `10.0.0.1 : [0], 64 bytes, 40.3 ms (40.3 avg, 0% loss)`.
pub(super) fn fping(path: &Path) -> Result<Said, Fail> {
    lines(path, fping_line)
}

fn lines(path: &Path, read: fn(&str) -> Option<(u64, i64)>) -> Result<Said, Fail> {
    Ok(Said {
        rtt: text(path)?.lines().filter_map(read).collect(),
        ..Said::default()
    })
}

/// `irtt client -o FILE.json`.
pub(super) fn irtt(path: &Path) -> Result<Said, Fail> {
    let value: Value =
        serde_json::from_str(&text(path)?).map_err(|e| Fail::of(path.display(), e))?;
    let trips = value["round_trips"]
        .as_array()
        .ok_or_else(|| Fail::of(path.display(), "there are no round_trips"))?;
    let mut said = Said::default();
    for trip in trips {
        let Some(number) = trip["seqno"].as_u64() else {
            continue;
        };
        match trip["lost"].as_str() {
            Some("true") => drop(said.lost.insert(number, None)),
            Some("true_up") => drop(said.lost.insert(number, Some(Way::Up))),
            Some("true_down") => drop(said.lost.insert(number, Some(Way::Down))),
            _ => {}
        }
        for (key, map) in [
            ("rtt", &mut said.rtt),
            ("send", &mut said.up),
            ("receive", &mut said.down),
        ] {
            if let Some(ns) = trip["delay"][key].as_i64() {
                map.insert(number, ns);
            }
        }
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_printed() {
        assert_eq!(
            ping_line("64 bytes from 10.99.0.2: icmp_seq=17 ttl=64 time=40.3 ms"),
            Some((17, 40_300_000))
        );
        assert_eq!(ping_line("5 packets transmitted, 5 received"), None);
        assert_eq!(
            fping_line("10.99.0.3 : [12], 64 bytes, 0.057 ms (0.051 avg, 0% loss)"),
            Some((12, 57_000))
        );
        assert_eq!(fping_line("10.99.0.3 : xmt/rcv/%loss = 5/5/0%"), None);
    }
}
