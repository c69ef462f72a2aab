//! The largest packets that pass on the ways to targets.

use std::collections::BTreeMap;

use bufferbane_store::{Direction, KnownSize, Larger, Reader, StoreError};
use jiff::tz::TimeZone;
use serde::Serialize;

use super::model::Time;
use crate::args::Selection;
use crate::show::{clean, count};
use crate::when::{self, Range};

/// What was found of a way.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PathMtu {
    /// The interface that packets leave through.
    pub(crate) interface: String,
    /// The target's or reflector's name.
    pub(crate) target: String,
    /// Its address.
    pub(crate) address: String,
    /// When it was first found.
    pub(crate) first: Time,
    /// When it was last found.
    pub(crate) last: Time,
    /// How many searches found it.
    pub(crate) searches: u64,
    /// The largest IP packet that the interface takes, but no more than is looked for: 9216.
    pub(crate) interface_bytes: u64,
    /// The largest that passes.
    pub(crate) passes_bytes: u64,
    /// What becomes of larger ones: `none` (there are none), `told` or `silent`.
    pub(crate) larger: Larger,
    /// Which router says that they are too big.
    pub(crate) told_by: Option<String>,
    /// The direction in which they vanish, where that is known; where they do not, `up` if only the way there could be
    /// searched.
    pub(crate) direction: Option<Direction>,
}

/// `path_mtu`: what was found in the range.
pub(super) fn found(
    reader: &Reader,
    selection: &Selection,
    range: Range,
) -> Result<Vec<PathMtu>, StoreError> {
    let is = |asked: &Option<String>, name: &str| asked.as_deref().is_none_or(|a| a == name);
    let rows = reader.sizes(range.from_ns, range.to_ns)?.into_iter();
    let rows = rows.filter(|k| {
        is(&selection.interface, &k.size.interface) && is(&selection.target, &k.size.target)
    });
    Ok(joined(rows))
}

/// Each run and boot has rows of its own: those that say the same of the same way become one.
fn joined(rows: impl Iterator<Item = KnownSize>) -> Vec<PathMtu> {
    let mut ways: BTreeMap<(String, String, String), Vec<PathMtu>> = BTreeMap::new();
    for KnownSize {
        first_ns,
        last_ns,
        searches,
        size,
    } in rows
    {
        let new = PathMtu {
            first: Time(first_ns),
            last: Time(last_ns),
            searches,
            address: size.address.to_string(),
            interface: size.interface,
            target: size.target,
            interface_bytes: size.interface_bytes,
            passes_bytes: size.passes_bytes,
            larger: size.larger,
            told_by: size.told_by.map(|a| a.to_string()),
            direction: size.direction,
        };
        let key = (
            new.interface.clone(),
            new.target.clone(),
            new.address.clone(),
        );
        let known = ways.entry(key).or_default();
        let said = |p: &PathMtu| {
            (
                p.interface_bytes,
                p.passes_bytes,
                p.larger,
                p.told_by.clone(),
                p.direction,
            )
        };
        match known.iter_mut().find(|k| said(k) == said(&new)) {
            Some(k) => {
                k.first = k.first.min(new.first);
                k.last = k.last.max(new.last);
                k.searches += new.searches;
            }
            None => known.push(new),
        }
    }
    ways.into_values().flatten().collect()
}

/// Ways that do not carry all that their interface takes, first those on which packets vanish, a line each; those of one
/// interface on which the same router tells of the same size have one together.
pub(super) fn lines(path_mtu: &[PathMtu], zone: &TimeZone) -> Vec<String> {
    let mut groups: Vec<Vec<&PathMtu>> = Vec::new();
    for p in path_mtu {
        let told = |p: &PathMtu| {
            let of = (
                p.interface.clone(),
                p.interface_bytes,
                p.passes_bytes,
                p.told_by.clone(),
            );
            (p.larger == Larger::Told).then_some(of)
        };
        let own = told(p);
        let alike = groups
            .iter_mut()
            .find(|g| own.is_some() && g.first().is_some_and(|first| told(first) == own));
        match alike {
            Some(group) => group.push(p),
            None => groups.push(vec![p]),
        }
    }
    groups.sort_by_key(|g| g.first().is_none_or(|p| p.larger != Larger::Silent));
    let lines = groups.iter().filter_map(|g| line(g, zone));
    lines.map(|l| clean(&l)).collect()
}

/// What was found of ways of which the same is to be said, if anything is.
fn line(ways: &[&PathMtu], zone: &TimeZone) -> Option<String> {
    let p = ways.first()?;
    let larger = match (p.larger, &p.told_by) {
        (Larger::None, _) => return None,
        (Larger::Told, Some(by)) => format!(
            "of the {} that the interface takes; {by} tells whoever sends larger ones, so nothing is wrong with that",
            p.interface_bytes
        ),
        (Larger::Told, None) => "and this host itself sends no larger ones".to_owned(),
        (Larger::Silent, _) => {
            let way = match p.direction {
                Some(Direction::Up) => " on the way up",
                Some(Direction::Down) => " on the way down, or the host answers no larger echoes",
                _ => ", or the host answers no larger echoes",
            };
            format!("and larger ones vanish without a word{way}")
        }
    };
    let searches = ways.iter().map(|p| p.searches).sum();
    let first = ways.iter().map(|p| p.first).min()?;
    let last = ways.iter().map(|p| p.last).max()?;
    let seen = if searches == 1 {
        format!("found at {}", when::civil(first.0, zone))
    } else {
        format!(
            "found {} times from {}",
            count(searches),
            when::range_label(first.0, last.0, zone)
        )
    };
    let more = match ways.len() - 1 {
        0 => String::new(),
        n => format!(" and {} more", count(n as u64)),
    };
    Some(format!(
        "{} → {} ({}){more}, {seen}: IP packets of up to {} bytes pass, {larger}",
        p.interface, p.target, p.address, p.passes_bytes
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bufferbane_store::PathSize;

    fn row(day: i64, passes_bytes: u64, larger: Larger) -> KnownSize {
        const DAY_NS: i64 = 86_400_000_000_000;
        KnownSize {
            first_ns: day * DAY_NS,
            last_ns: day * DAY_NS + DAY_NS / 2,
            searches: 6,
            size: PathSize {
                interface: "eth0".into(),
                target: "quad9".into(),
                address: [9, 9, 9, 9].into(),
                interface_bytes: 1500,
                passes_bytes,
                larger,
                told_by: (larger == Larger::Told).then_some([10, 0, 0, 1].into()),
                direction: (larger == Larger::Silent).then_some(Direction::Up),
            },
        }
    }

    #[test]
    fn what_was_found_is_said_and_the_same_of_many_runs_is_one() {
        let rows = [
            row(0, 1492, Larger::Told),
            row(1, 1492, Larger::Told),
            row(2, 1400, Larger::Silent),
            row(3, 1492, Larger::Told),
        ];
        let found = joined(rows.into_iter());
        let said: Vec<String> = found
            .iter()
            .map(|p| line(&[p], &TimeZone::UTC).unwrap().replace('\u{a0}', " "))
            .collect();
        assert_eq!(
            said,
            [
                "eth0 → quad9 (9.9.9.9), found 18 times from 1970-01-01 00:00:00 to 1970-01-04 12:00:00 UTC: IP \
                 packets of up to 1492 bytes pass, of the 1500 that the interface takes; 10.0.0.1 tells whoever \
                 sends larger ones, so nothing is wrong with that",
                "eth0 → quad9 (9.9.9.9), found 6 times from 1970-01-03 00:00:00 to 12:00:00 UTC: IP packets of up \
                 to 1400 bytes pass, and larger ones vanish without a word on the way up",
            ]
        );
    }

    /// Behind PPPoE every way is narrow, and the same router says so.
    #[test]
    fn ways_of_which_one_router_tells_the_same_are_one_line() {
        let rows = (1..=30).flat_map(|n| {
            let of = |larger, passes_bytes| {
                let mut row = row(0, passes_bytes, larger);
                row.size.address = [203, 0, 113, n].into();
                row.size.target = format!("t{n:02}");
                row
            };
            let mut other = of(Larger::Told, 1492);
            other.size.interface = "lte0".into();
            let mute = (n < 3).then(|| of(Larger::Silent, 1400));
            [of(Larger::Told, 1492), of(Larger::None, 1500), other]
                .into_iter()
                .chain(mute)
        });
        let lines = lines(&joined(rows), &TimeZone::UTC);
        assert_eq!(lines.len(), 4, "{lines:?}");
        let vanish = |l: &String| l.contains("vanish");
        assert!(lines[..2].iter().all(vanish), "{lines:?}");
        let lines: Vec<String> = lines.iter().map(|l| l.replace('\u{a0}', " ")).collect();
        let one = "eth0 → t01 (203.0.113.1) and 29 more, found 180 times";
        assert!(lines[2].starts_with(one), "{lines:?}");
    }
}
