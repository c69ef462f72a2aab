//! Every capacity of core in one place, with the relations that must hold between them.

/// Smallest UDP payload of a probe, bytes: what header, fields and seal need (docs/protocol.md).
pub const MIN_PROBE_SIZE: usize = 128;
/// Largest UDP payload this protocol sends or accepts, bytes: fits 1500-byte links under IPv6.
pub const MAX_DATAGRAM: usize = 1452;

/// How many of the latest requests of a stream the far end remembers, one bit each.
pub const RECEIVE_RECORD_BITS: usize = 4096;
/// Width of the sealed-packet replay window, packets.
pub const REPLAY_WINDOW: usize = 1024;

/// Shortest interval of a probe stream, ns.
pub const MIN_INTERVAL_NS: u64 = 1_000_000;
/// Longest interval of a probe stream, ns.
pub const MAX_INTERVAL_NS: u64 = 3_600_000_000_000;
/// A probe that has no answer after this long is lost, ns. Late answers are still recognised.
pub const DEFAULT_TIMEOUT_NS: u64 = 3_000_000_000;

/// Slowest that the datagrams of a test are asked for, each way, bit/s of UDP payload.
pub const MIN_LOAD_BPS: u64 = 100_000;
/// Fastest that a reflector sends or takes them, each way, bit/s of UDP payload: what a host moves beside its
/// probes and echoes.
pub const MAX_LOAD_BPS: u64 = 1_000_000_000;
/// Most of them in a second, each way: small ones cost as much as large ones.
pub const MAX_LOAD_PPS: u64 = 125_000;

/// A probe that leaves this much after its deadline is marked as sent late, ns; on fast streams,
/// one that leaves a whole slot late. An idle host is later than this once in thousands of probes.
pub const SENT_LATE_NS: u64 = 5_000_000;

/// Most samples in one packed block of the store.
pub const MAX_BLOCK_SAMPLES: usize = 2048;

const _: () = assert!(MIN_PROBE_SIZE <= MAX_DATAGRAM);
const _: () = assert!(RECEIVE_RECORD_BITS.is_multiple_of(64));
const _: () = assert!(REPLAY_WINDOW.is_multiple_of(64) && REPLAY_WINDOW >= 1024);
const _: () = assert!(MIN_LOAD_BPS < MAX_LOAD_BPS);
const _: () = assert!(MIN_INTERVAL_NS < DEFAULT_TIMEOUT_NS && DEFAULT_TIMEOUT_NS < MAX_INTERVAL_NS);
