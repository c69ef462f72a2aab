//! What the log of the emulated line says of a test.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use bufferbane_core::load::latency::Spread;

use super::super::Fail;
use super::ask::{self, Told};
use super::{Row, Truth};
use crate::link::{Flow, Link, Passage, Way};

/// Bytes of UDP payload of a test's probes. What the daemon sends beside them is to have another size.
const PROBE_BYTES: u16 = 128;

/// Has the daemon behind `socket` test the line one way, and holds what it says against the line's log.
///
/// # Errors
/// Where there is no test, or the log does not have everything.
pub fn hold(link: &Link, socket: &Path, way: Way, seconds: u64) -> Result<Row, Fail> {
    drop(link.take_log());
    let told = ask::ask(socket, way, seconds)?;
    if link.missed() + link.left_out() > 0 {
        return Err(Fail::Failed(format!(
            "the line missed {} packets and left {} out of its log",
            link.missed(),
            link.left_out()
        )));
    }
    let truth = truth_of_log(&link.take_log().concat(), &told)?;
    Ok(Row::new(&told, truth))
}

/// What the line did while a test was run.
///
/// # Errors
/// Where the log has none of its probes.
pub fn truth_of_log(log: &[Passage], told: &Told) -> Result<Truth, Fail> {
    let delivered = log
        .iter()
        .filter(|p| p.way == told.way)
        .filter_map(|p| Some((p, p.fate.delivered_ns()?)));
    let mut streams: HashMap<Flow, Pieces> = HashMap::new();
    let mut payload = 0;
    for (p, at) in delivered.clone() {
        if matches!(p.flow, Flow::Tcp(..)) {
            let (sequence, bytes) = ((p.mark >> 32) as u32, p.mark as u32);
            let new = streams.entry(p.flow).or_default().add(sequence, bytes);
            payload += if told.steady.contains(&at) { new } else { 0 };
        }
    }
    let held = |during: &Range<i64>| {
        let mut held: Vec<u64> = delivered
            .clone()
            .filter(|(p, _)| matches!(p.flow, Flow::Udp(_, _, PROBE_BYTES)))
            .filter(|(p, _)| during.contains(&p.arrival_ns))
            .map(|(p, at)| (at - p.arrival_ns).unsigned_abs())
            .collect();
        Spread::of(&mut held)
    };
    let (idle, loaded) = held(&told.idle)
        .zip(held(&told.steady))
        .ok_or_else(|| Fail::Failed("the line's log has none of the test's probes".into()))?;
    let ns = told.steady.end.abs_diff(told.steady.start).max(1);
    let bits = u128::from(payload) * 8_000_000_000 / u128::from(ns);
    Ok(Truth {
        rate_bps: u64::try_from(bits).unwrap_or(u64::MAX),
        idle,
        loaded,
    })
}

/// What of a TCP stream has come, so that bytes that come again are not counted again.
#[derive(Default)]
struct Pieces {
    /// The first sequence number.
    base: Option<u32>,
    /// Begin and end of each piece, since that.
    pieces: BTreeMap<u32, u32>,
}

impl Pieces {
    /// So many bytes from `sequence` on came: how many of them for the first time.
    fn add(&mut self, sequence: u32, bytes: u32) -> u64 {
        let base = *self.base.get_or_insert(sequence);
        // Before the first that is known, by reordering: as good as known.
        let offset = sequence.wrapping_sub(base);
        if bytes == 0 || offset > u32::MAX / 2 {
            return 0;
        }
        let end = offset.saturating_add(bytes);
        let (mut from, mut to) = (offset, end);
        let mut new = u64::from(to - from);
        let touching: Vec<(u32, u32)> = self
            .pieces
            .range(..=to)
            .rev()
            .map(|(a, b)| (*a, *b))
            .take_while(|(_, b)| *b >= from)
            .collect();
        for (a, b) in touching {
            new -= u64::from(b.min(end).saturating_sub(a.max(offset)));
            (from, to) = (from.min(a), to.max(b));
            self.pieces.remove(&a);
        }
        self.pieces.insert(from, to);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Fate;

    #[test]
    fn bytes_of_a_stream_count_once() {
        let mut pieces = Pieces::default();
        let base = u32::MAX - 500;
        let mut add = |from: u32, bytes| pieces.add(base.wrapping_add(from), bytes);
        assert_eq!(
            [add(0, 1000), add(2000, 1000), add(0, 1000)],
            [1000, 1000, 0]
        );
        // Over a hole and parts of both sides.
        assert_eq!([add(500, 2000), add(0, 4000), add(0, 0)], [1000, 1000, 0]);
        assert_eq!(pieces.pieces.len(), 1);
    }

    #[test]
    fn a_log_says_payload_and_waits_of_the_steady_part_one_way() {
        const MS: i64 = 1_000_000;
        let packet = |way, at: i64, took: i64, bytes: u32, flow| Passage {
            flow,
            mark: ((at * 1000) as u64) << 32 | u64::from(bytes - 66),
            fate: Fate::Delivered((at + took) * MS),
            ..Passage::arrived(way, at * MS, bytes)
        };
        let (data, probe) = (Flow::Tcp(1, 2), Flow::Udp(1, 2, PROBE_BYTES));
        let mut log = vec![
            packet(Way::Up, 100, 10, 170, probe),
            packet(Way::Up, 1500, 60, 170, probe),
            // The daemon's own, and those of the other way.
            packet(Way::Up, 1500, 999, 242, Flow::Udp(1, 2, 200)),
            packet(Way::Down, 1500, 999, 170, probe),
            packet(Way::Down, 1500, 10, 1066, data),
        ];
        log.extend((0..100).map(|i| packet(Way::Up, 990 + i * 10, 10, 1066, data)));
        // Delivered after the end.
        log.push(packet(Way::Up, 1990, 30, 1066, data));
        // Sent again.
        let again = packet(Way::Up, 1500, 10, 1066, data);
        log.push(packet(Way::Up, 1505, 10, 1066, data));
        log.last_mut().expect("one").mark = again.mark;
        let mut lost = packet(Way::Up, 1500, 0, 1066, data);
        lost.fate = Fate::Buffer;
        log.push(lost);
        let told = Told {
            way: Way::Up,
            idle: 0..1000 * MS,
            steady: 1000 * MS..2000 * MS,
            rate_bps: 0,
            others_bps: None,
            increase: Spread::default(),
        };
        let truth = truth_of_log(&log, &told).expect("there are probes");
        assert_eq!(truth.rate_bps, 100 * 8 * 1000);
        assert_eq!(truth.loaded.above(truth.idle).p50, 50 * MS as u64);
    }
}
