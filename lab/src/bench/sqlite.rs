//! A sample as a row of SQLite: every column of it, as a block of ours says all of them.

use bufferbane_core::sample::Sample;
use rusqlite::{Result, Statement, params};

/// The columns of a table of samples.
pub(super) const COLUMNS: &str = "
    series INTEGER NOT NULL, time_ns INTEGER NOT NULL, seq INTEGER NOT NULL,
    status INTEGER NOT NULL, flags INTEGER NOT NULL, size INTEGER NOT NULL, rtt_ns INTEGER,
    raw_up_ns INTEGER, raw_down_ns INTEGER, send_late_ns INTEGER NOT NULL,
    errno INTEGER NOT NULL, tx_clock INTEGER NOT NULL, rx_clock INTEGER NOT NULL,
    remote_rx_clock INTEGER NOT NULL, remote_tx_clock INTEGER NOT NULL, ttl_up INTEGER,
    ttl_down INTEGER, tos_seen INTEGER";

/// What [`insert`] fills: a row of the table `sample`.
pub(super) const INSERT: &str = "
    INSERT INTO sample (series, time_ns, seq, status, flags, size, rtt_ns, raw_up_ns, raw_down_ns,
        send_late_ns, errno, tx_clock, rx_clock, remote_rx_clock, remote_tx_clock, ttl_up, ttl_down,
        tos_seen)
    VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";

/// Writes a sample of `series`, at what `time_ns` counts, by [`INSERT`].
pub(super) fn insert(
    insert: &mut Statement<'_>,
    series: u32,
    time_ns: i64,
    s: &Sample,
) -> Result<usize> {
    insert.execute(params![
        series,
        time_ns,
        s.seq.cast_signed(),
        s.status as u8,
        s.flags.bits(),
        s.size,
        s.rtt_ns.map(u64::cast_signed),
        s.raw_up_ns,
        s.raw_down_ns,
        s.send_late_ns,
        s.errno,
        s.tx_clock as u8,
        s.rx_clock as u8,
        s.remote_rx_clock as u8,
        s.remote_tx_clock as u8,
        s.ttl_up,
        s.ttl_down,
        s.tos_seen,
    ])
}
