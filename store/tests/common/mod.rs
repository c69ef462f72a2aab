//! What tests of the store make and read.

use std::path::Path;

use bufferbane_core::sample::{Sample, SeriesIndex, Status};
use bufferbane_core::time::{ClockSource, Monotonic};
use bufferbane_store::{
    Filter, Reader, SeriesId, SeriesInfo, SeriesKind, Trust, Writer, WriterOptions,
};

pub(crate) const S: u64 = 1_000_000_000;
/// What the wall clock shows when the first boot begins, ns since 1970.
pub(crate) const START_WALL_NS: i64 = 1_790_000_000 * S as i64;

pub(crate) fn info(target: &str) -> SeriesInfo {
    SeriesInfo {
        interface: "eth0".into(),
        interface_kind: "wired".into(),
        target: target.into(),
        kind: SeriesKind::Icmp,
        family: 4,
        dscp: 0,
        size: 64,
        interval_ns: S,
        address: "192.0.2.1".into(),
    }
}

/// A probe that was answered after `rtt_ns`, or was lost.
pub(crate) fn sample(seq: u64, sent_ns: u64, rtt_ns: Option<u64>) -> Sample {
    let mut s = Sample::lost(SeriesIndex(0), seq, Monotonic::from_nanos(sent_ns), 64);
    s.tx_clock = ClockSource::Kernel;
    if let Some(rtt_ns) = rtt_ns {
        s.status = Status::Ok;
        s.rtt_ns = Some(rtt_ns);
        s.rx_clock = ClockSource::Kernel;
    }
    s
}

/// One that writes however full the disk is.
pub(crate) fn options() -> WriterOptions {
    WriterOptions {
        min_free_bytes: 0,
        ..WriterOptions::default()
    }
}

/// In no boot yet.
pub(crate) fn open(path: &Path) -> Writer {
    Writer::open(path, options()).unwrap()
}

/// In the first boot, whose clock is right.
pub(crate) fn writer(path: &Path) -> Writer {
    let mut w = open(path);
    w.begin_boot("boot-a", Monotonic::ZERO, START_WALL_NS, Trust::Disciplined)
        .unwrap();
    w
}

/// Every sample there is: its series, its wall time in ns since 1970, and itself.
pub(crate) fn everything(path: &Path) -> Vec<(SeriesId, i64, Sample)> {
    let r = Reader::open(path).unwrap();
    let series = r.series().unwrap().into_keys().collect();
    r.samples(&Filter {
        from_ns: i64::MIN,
        to_ns: i64::MAX,
        series,
    })
    .map(|row| row.map(|r| (r.series, r.wall_ns, r.sample)).unwrap())
    .collect()
}
