//! What tests of errands begin with.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bufferbane_core::time::Monotonic;
use bufferbane_store::{SeriesInfo, SeriesKind};

use super::Worker;

const S: u64 = 1_000_000_000;

impl<E, R> Worker<E, R> {
    /// One whose thread the test is.
    pub(crate) fn by_hand() -> (Self, Receiver<E>, SyncSender<R>) {
        let (errands, queue) = sync_channel(1);
        let (back, returns) = sync_channel(1);
        let worker = Self {
            errands,
            returns,
            flags: Arc::default(),
        };
        (worker, queue, back)
    }
}

/// Second `s`.
pub(crate) fn at(s: u64) -> Monotonic {
    Monotonic::from_nanos(s * S)
}

/// A series through `eth0`.
pub(crate) fn info(kind: SeriesKind, target: &str, address: &str) -> SeriesInfo {
    SeriesInfo {
        interface: "eth0".into(),
        interface_kind: "wired".into(),
        target: target.into(),
        kind,
        family: 4,
        dscp: 0,
        size: 64,
        interval_ns: S / 20,
        address: address.into(),
    }
}

/// A gateway, a reflector and a host beyond it, and a service, which nobody runs errands to.
pub(crate) fn infos() -> [SeriesInfo; 4] {
    [
        info(SeriesKind::Icmp, "gateway", "192.168.1.1"),
        info(SeriesKind::Udp, "vienna", "203.0.113.9"),
        info(SeriesKind::Icmp, "quad9", "9.9.9.9"),
        info(SeriesKind::Dns, "resolver", "9.9.9.9:53/udp"),
    ]
}
