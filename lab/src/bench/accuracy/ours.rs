//! What our own daemon has recorded.

use std::collections::BTreeMap;
use std::path::Path;

use bufferbane_core::clock::Queueing;
use bufferbane_core::sample::{Sample, Status};
use bufferbane_store::{Filter, Reader, SeriesKind};

use super::super::Fail;
use super::super::setup::Bench;
use super::peers::Said;
use super::site::INTERVAL_MS;
use crate::link::Way;

/// Left out at the beginning, ns: until there is a session, and the floor of the delays is known.
const SETTLE_NS: i64 = 1_000_000_000;

/// Two series.
#[derive(Debug, Default)]
pub(super) struct Ours {
    /// Probes to the reflector. Up and down are differences of two clocks.
    pub(super) udp: Said,
    /// Queueing delay of the same probes, as the store has it.
    pub(super) queue: Said,
    /// When each of them was sent by the client's clock, in order.
    pub(super) sent: Vec<(u64, i64)>,
    /// Pings; their number is that of the packet, 16 bits.
    pub(super) icmp: Said,
    /// Samples that are neither answered nor lost by the line: there is no other way to be wrong.
    pub(super) samples: usize,
}

/// How many probes of the slower series have been answered so far.
pub(super) fn answered(bench: &Bench) -> u64 {
    let Ok(status) = bench.status("daemon.sock") else {
        return 0;
    };
    let series = status["status"]["series"].as_array();
    let received = |s: &serde_json::Value| s["total"]["received"].as_u64().unwrap_or(0);
    series.map_or(0, |list| {
        let of_all = list.iter().map(received).min().unwrap_or(0);
        if list.len() < 2 { 0 } else { of_all }
    })
}

/// Reads the store of a daemon that has been stopped.
pub(super) fn read(store: &Path) -> Result<Ours, Fail> {
    let failed = |e: &dyn std::fmt::Display| Fail::of(store.display(), e);
    let reader = Reader::open(store).map_err(|e| failed(&e))?;
    let (from_ns, to_ns) = reader
        .span()
        .map_err(|e| failed(&e))?
        .ok_or_else(|| failed(&"there are no samples"))?;
    let mut ours = Ours::default();
    for (id, info) in reader.series().map_err(|e| failed(&e))? {
        let filter = Filter {
            from_ns,
            to_ns: to_ns + 1,
            series: vec![id],
        };
        let mut settled = 0;
        for row in reader.samples(&filter) {
            let row = row.map_err(|e| failed(&e))?;
            let s = row.sample;
            ours.samples += 1;
            settled += 1;
            if info.kind == SeriesKind::Udp && s.status.is_lost() {
                let way = match s.status {
                    Status::LostUp => Some(Way::Up),
                    Status::LostDown => Some(Way::Down),
                    _ => None,
                };
                ours.udp.lost.insert(s.seq, way);
            }
            if s.status != Status::Ok || settled < SETTLE_NS / (INTERVAL_MS as i64 * 1_000_000) {
                continue;
            }
            let rtt_ns = s.rtt_ns.unwrap_or(0) as i64;
            if info.kind == SeriesKind::Udp {
                ours.add_probe(&s, row.wall_ns, rtt_ns, row.queueing);
            } else {
                ours.icmp.rtt.insert(s.seq & 0xffff, rtt_ns);
            }
        }
    }
    Ok(ours)
}

impl Ours {
    fn add_probe(&mut self, s: &Sample, wall_ns: i64, rtt_ns: i64, queueing: Option<Queueing>) {
        self.sent.push((s.seq, wall_ns));
        self.udp.rtt.insert(s.seq, rtt_ns);
        if let (Some(up), Some(down)) = (s.raw_up_ns, s.raw_down_ns) {
            self.udp.up.insert(s.seq, up);
            self.udp.down.insert(s.seq, down);
        }
        if let Some(q) = queueing {
            self.queue.up.insert(s.seq, q.up_ns as i64);
            self.queue.down.insert(s.seq, q.down_ns as i64);
        }
    }

    /// Gives every probe the number that `shift` makes of its own.
    pub(super) fn renumber(&mut self, shift: i64) {
        fn moved<T>(map: &mut BTreeMap<u64, T>, shift: i64) {
            *map = std::mem::take(map)
                .into_iter()
                .filter_map(|(n, v)| Some((n.checked_add_signed(shift)?, v)))
                .collect();
        }
        moved(&mut self.udp.lost, shift);
        for said in [&mut self.udp, &mut self.queue] {
            for map in [&mut said.rtt, &mut said.up, &mut said.down] {
                moved(map, shift);
            }
        }
    }
}
