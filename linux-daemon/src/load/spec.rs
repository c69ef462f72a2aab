//! What is to be tested, and how patiently.

use std::sync::mpsc::SyncSender;

use bufferbane_core::wire::load::Offer;
use bufferbane_store::Instead;

use super::{Kind, Path};
use crate::recorder::Order;

/// How long a test waits for its turn, ns.
const TURN_NS: u64 = 120_000_000_000;
/// The same where another reflector may make it, ns: longer than one that does not answer is waited for.
const TURN_WITH_OTHERS_NS: u64 = 8_000_000_000;
/// How long a reflector is waited for that others test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// There is no other.
    Alone,
    /// Another may do it.
    WithOthers,
}

impl Patience {
    pub(super) const fn turn_ns(self) -> u64 {
        match self {
            Self::Alone => TURN_NS,
            Self::WithOthers => TURN_WITH_OTHERS_NS,
        }
    }
}

/// What is to be tested.
pub(super) struct Spec {
    pub(super) path: Path,
    pub(super) kind: Kind,
    /// TCP streams.
    pub(super) up: u8,
    pub(super) down: u8,
    /// Datagrams in place of streams.
    pub(super) offer: Option<Offer>,
    pub(super) dscp: [u8; 8],
    pub(super) load_ns: u64,
    pub(super) congestion: String,
    pub(super) asked_by: &'static str,
    pub(super) patience: Patience,
    /// Reflectors that were asked before this one.
    pub(super) instead_of: Vec<Instead>,
    /// Once it has moved so much, both ways, its streams are ended.
    pub(super) most_bytes: Option<u64>,
    /// The recorder hears from when to when the interface is loaded.
    pub(super) orders: SyncSender<Order>,
}

impl Spec {
    /// Whether there is load upward, and downward.
    pub(super) fn loads(&self) -> (bool, bool) {
        let (up, down) = self.offer.map_or((0, 0), |o| (o.up_bps, o.down_bps));
        (self.up > 0 || up > 0, self.down > 0 || down > 0)
    }
}
