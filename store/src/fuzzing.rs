//! What the fuzz targets reach of the store, which is private otherwise.

use bufferbane_core::limits::MAX_BLOCK_SAMPLES;
use bufferbane_core::time::Monotonic;

use crate::capacity::Capacity;
use crate::codec::{from_json, to_json};
use crate::loadtest::LoadTest;
use crate::model::{Event, Health, SeriesInfo, Trust};
use crate::tail;
use crate::timemap::{Anchor, TimeMap};

/// Any row of unsealed samples.
///
/// # Panics
/// Where what was read does not survive being written, or is more than its bytes can hold.
pub fn tail(row: &[u8]) {
    let Ok(parts) = tail::decode(row) else {
        return;
    };
    let read: usize = parts.iter().map(|p| p.samples.len()).sum();
    assert!(read <= row.len() * MAX_BLOCK_SAMPLES);
    let again = tail::encode(parts.iter().map(|p| {
        let samples = p.samples.iter().collect();
        (p.series, p.boot, p.rolled_until_ns, samples)
    }));
    assert_eq!(tail::decode(&again).expect("what was just written"), parts);
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
        let _ = health.send_late().map(|h| h.quantile(0.99));
    }
    row::<Capacity>(bytes);

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
        let part = |series, count: usize| {
            let samples: Vec<&Sample> = samples[..count].iter().collect();
            (SeriesId(series), 3, 60_000_000_000, samples)
        };
        let encode = |parts: Vec<_>| tail::encode(parts.into_iter());
        let seeds: Seeds = [
            ("empty", encode(vec![part(1, 0)])),
            ("one", encode(vec![part(1, 1)])),
            (
                "several",
                encode(vec![part(1, 3), part(2, 0), part(300, 20)]),
            ),
            // More than one block of a series.
            ("blocks", encode(vec![part(7, 700)])),
        ]
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .into();
        assert!(seeds.values().all(|row| tail::decode(row).is_ok()));
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
