//! What the fuzz targets reach of the store, which is private otherwise.

use bufferbane_core::limits::MAX_BLOCK_SAMPLES;
use bufferbane_core::stats::histogram::Histogram;
use bufferbane_core::time::Monotonic;

use crate::capacity::Capacity;
use crate::codec::{from_json, to_json};
use crate::loadtest::LoadTest;
use crate::model::{Event, Health, SeriesInfo, Trust};
use crate::paths::{Look, StoredPath};
use crate::tail::{self, Change, Form, Row, Tail, Wanted};
use crate::timemap::{Anchor, TimeMap};

/// Any rows of unsealed samples: the first byte is the length of the first row of two, and the whole is a
/// row of an earlier version, too.
///
/// # Panics
/// Where what was read does not survive being written, or is more than its bytes can hold.
pub fn tail(bytes: &[u8]) {
    tail_row(bytes, Form::Whole);
    let Some((len, rows)) = bytes.split_first() else {
        return;
    };
    let (first, second) = rows.split_at(rows.len().min(usize::from(*len)));
    let mut tail = Tail::default();
    for row in [first, second] {
        let Some(row) = tail_row(row, Form::Changes) else {
            return;
        };
        if tail.take(row).is_err() {
            return;
        }
    }
    let (parts, _) = tail.into_parts();
    let read: usize = parts.iter().map(|p| p.samples.len()).sum();
    assert!(read <= rows.len() * MAX_BLOCK_SAMPLES);
    // All that there is, as one row.
    let whole = tail::encode(parts.iter().map(|p| Change {
        series: p.series,
        boot: p.boot,
        rolled_until_ns: p.rolled_until_ns,
        gone: 0,
        kept: 0,
        samples: p.samples.iter().collect(),
    }));
    let mut again = Tail::default();
    let changes = tail::decode(&whole, Form::Changes, Wanted::All).expect("what was just written");
    again.take(changes).expect("nothing is kept of nothing");
    assert_eq!(again.into_parts().0, parts);
}

fn tail_row(row: &[u8], form: Form) -> Option<Row> {
    let decoded = tail::decode(row, form, Wanted::All).ok()?;
    let read: usize = decoded.changes.iter().map(|c| c.samples.len()).sum();
    assert!(read <= row.len() * MAX_BLOCK_SAMPLES);
    let mut again = tail::encode(decoded.changes.iter().map(|c| Change {
        series: c.series,
        boot: c.boot,
        rolled_until_ns: c.rolled_until_ns,
        gone: c.gone,
        kept: c.kept,
        samples: c.samples.iter().collect(),
    }));
    decoded.waiting.iter().for_each(|w| w.encode(&mut again));
    let read = tail::decode(&again, Form::Changes, Wanted::All).expect("what was just written");
    assert_eq!(read, decoded);
    Some(decoded)
}

fn row<T: serde::de::DeserializeOwned + serde::Serialize>(json: &[u8]) {
    if let Ok(value) = from_json::<T>(json) {
        let text = to_json(&value).expect("what was read can be written");
        assert!(from_json::<T>(&text).is_ok());
    }
}

/// Any row of text, and any anchors.
///
/// # Panics
/// Where what was read does not survive being written, or time is mapped outside of what it is in.
pub fn rows(bytes: &[u8]) {
    row::<SeriesInfo>(bytes);
    row::<Event>(bytes);
    row::<LoadTest>(bytes);
    row::<Health>(bytes);
    if let Ok(health) = from_json::<Health>(bytes) {
        let mut sum = Histogram::new();
        let _ = health
            .add_send_late_to(&mut sum)
            .map(|()| sum.quantile(0.99));
    }
    row::<Capacity>(bytes);
    row::<Look>(bytes);
    row::<StoredPath>(bytes);

    let mut anchors: Vec<Anchor> = bytes
        .as_chunks::<18>()
        .0
        .iter()
        .map(|b| Anchor {
            boot: u32::from(b[0] % 4),
            mono: Monotonic::from_nanos(number(&b[1..9])),
            wall_ns: number(&b[9..17]) as i64,
            trust: Trust::from_u8(b[17] % 4),
        })
        .collect();
    anchors.sort_by_key(|a| (a.boot, a.mono));
    let map = TimeMap::new(&anchors);
    for a in &anchors {
        for ns in [0, a.mono.as_nanos(), u64::MAX] {
            assert!(map.wall_ns(a.boot, ns).is_some());
        }
        let to_ns = a.wall_ns.saturating_add(1_000_000_000);
        for s in map.clip(a.wall_ns, to_ns) {
            assert!(s.from_ns < s.to_ns);
        }
        let _ = map.older_than(a.boot, a.wall_ns);
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

#[cfg(test)]
mod tests {
    use bufferbane_core::sample::{Sample, SeriesIndex, Status};
    use bufferbane_core::stats::histogram::Histogram;

    use super::*;
    use crate::model::{SeriesId, Severity};
    use crate::replay::{Seeds, replay};
    use crate::waiting::{For, Waiting};

    #[test]
    fn the_tail_goes_through_its_corpus() {
        let samples: Vec<Sample> = (0..700u64)
            .map(|i| {
                let sent = Monotonic::from_nanos(5_000_000_000 + i * 1_000_000_000 + i * i);
                let mut s = Sample::lost(SeriesIndex(0), i, sent, 64);
                if i % 9 != 4 {
                    s.status = Status::Ok;
                    s.rtt_ns = Some(20_000_000 + i * 977 % 1_000_000);
                }
                s
            })
            .collect();
        // Series, samples that are gone and that are kept, and those that are added.
        let change = |series, gone, kept, added: std::ops::Range<usize>| Change {
            series: SeriesId(series),
            boot: 3,
            rolled_until_ns: 60_000_000_000,
            gone,
            kept,
            samples: samples[added].iter().collect(),
        };
        let rows = |first: Vec<_>, second: Vec<_>| {
            let [first, second] = [first, second].map(|r| tail::encode(r.into_iter()));
            let len = u8::try_from(first.len()).unwrap();
            [vec![len], first, second].concat()
        };
        let seeds: Seeds = [
            ("empty", rows(vec![change(1, 0, 0, 0..0)], vec![])),
            ("one", rows(vec![], vec![change(1, 0, 0, 0..1)])),
            (
                "several",
                rows(
                    vec![change(1, 0, 0, 0..5), change(300, 0, 0, 0..9)],
                    vec![
                        change(1, 2, 3, 5..8),
                        change(2, 0, 0, 0..0),
                        change(300, 0, 6, 6..20),
                    ],
                ),
            ),
            // What is kept of it was never there.
            (
                "short",
                rows(vec![change(1, 0, 0, 0..2)], vec![change(1, 1, 2, 3..4)]),
            ),
            // More than one block of a series.
            ("blocks", rows(vec![], vec![change(7, 0, 0, 0..700)])),
            ("waiting", {
                let waiting = |table, interface: &str| Waiting {
                    table,
                    boot: 3,
                    at_ns: 120_000_000_000,
                    interface: interface.to_owned(),
                    value: b"a row of a minute".to_vec(),
                };
                let mut bytes = rows(vec![], vec![change(1, 0, 0, 0..1)]);
                waiting(For::Health, "").encode(&mut bytes);
                waiting(For::Load, "eth0").encode(&mut bytes);
                bytes
            }),
            // Of an earlier version.
            (
                "whole",
                tail::encode_whole(SeriesId(1), 3, 60_000_000_000, &samples[..20]),
            ),
        ]
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .into();
        assert!(tail_row(&seeds["whole"], Form::Whole).is_some());
        replay("tail", &seeds, tail);
    }

    #[test]
    fn rows_go_through_their_corpus() {
        let event = Event::new(
            "outage",
            Severity::Warning,
            3,
            Monotonic::from_nanos(7_000_000_000),
            "no answer from vienna".into(),
        );
        let mut health = Health::default();
        let mut late = Histogram::new();
        late.add(40_000);
        health.set_send_late(&late);
        let anchors = [
            (1, 5, 5, 0),
            (1, 60, 1_800_000_060, 3),
            (2, 9, 1_800_000_900, 2),
        ];
        let anchors = anchors.map(|(boot, mono_s, wall_s, trust)| {
            let (mono, wall) = (mono_s * 1_000_000_000u64, wall_s * 1_000_000_000u64);
            let numbers = [mono.to_be_bytes(), wall.to_be_bytes()].concat();
            [vec![boot], numbers, vec![trust]].concat()
        });
        let seeds: Seeds = [
            ("event", to_json(&event).unwrap()),
            ("health", to_json(&health).unwrap()),
            ("anchors", anchors.concat()),
        ]
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .into();
        assert!(from_json::<Event>(&seeds["event"]).is_ok());
        assert!(from_json::<Health>(&seeds["health"]).is_ok());
        replay("rows", &seeds, rows);
    }
}
