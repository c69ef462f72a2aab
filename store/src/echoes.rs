//! Close looks: quick echoes to a host when something looked wrong, and what became of them.

use std::net::IpAddr;

use bufferbane_core::look::{Found, Regular, Rtt};
use bufferbane_core::time::Monotonic;
use redb::WriteTransaction;
use serde::{Deserialize, Serialize};

use crate::codec::{from_json, to_json};
use crate::error::StoreError;
use crate::model::EventId;
use crate::paths::Rows;
use crate::reader::Reader;
use crate::tables::ECHOES;
use crate::writer::Writer;

/// What a close look at a host found. What is unanswered is no loss of the line by itself: hosts answer when they like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echoes {
    /// The events it belongs to.
    pub events: Vec<EventId>,
    /// The interface that echoes left through.
    pub interface: String,
    /// The target's or reflector's name.
    pub target: String,
    /// Its address.
    pub address: IpAddr,
    /// Echoes that left.
    pub sent: u64,
    /// Of these, the answered.
    pub answered: u64,
    /// Of the others, those of which somebody said that they do not get there.
    pub refused: u64,
    /// Echoes that this host did not let out; they are not among the sent.
    pub unsent: u64,
    /// How often one or more in a row were unanswered.
    pub runs: u64,
    /// The longest of these runs: how long after the look's begin it began, and how long it lasted, ns.
    pub silence_after_ns: Option<u64>,
    /// See `silence_after_ns`.
    pub silence_ns: Option<u64>,
    /// Shortest round-trip time, ns.
    pub rtt_min_ns: Option<u64>,
    /// Median, ns.
    pub rtt_median_ns: Option<u64>,
    /// 95th percentile, ns.
    pub rtt_p95_ns: Option<u64>,
    /// Longest, ns.
    pub rtt_max_ns: Option<u64>,
    /// Of each half second how many left and how many of them were answered.
    pub halves: Vec<(u64, u64)>,
    /// The regular pings of the same host that were sent meanwhile; `None` where that is not known, or not yet.
    pub regular_sent: Option<u64>,
    /// Of these, the answered.
    pub regular_answered: Option<u64>,
}

impl Echoes {
    /// What a look that began at `begun` found of a host, by its interface, name and address.
    #[must_use]
    pub fn new(
        (interface, target, address): (String, String, IpAddr),
        begun: Monotonic,
        found: &Found,
    ) -> Self {
        let rtt = |of: fn(Rtt) -> u64| found.rtt.map(of);
        Self {
            events: Vec::new(),
            interface,
            target,
            address,
            sent: found.sent,
            answered: found.answered,
            refused: found.refused,
            unsent: found.unsent,
            runs: found.runs,
            silence_after_ns: found.silence.map(|s| s.from.saturating_since(begun)),
            silence_ns: found.silence.map(|s| s.lasted_ns),
            rtt_min_ns: rtt(|r| r.min_ns),
            rtt_median_ns: rtt(|r| r.median_ns),
            rtt_p95_ns: rtt(|r| r.p95_ns),
            rtt_max_ns: rtt(|r| r.max_ns),
            halves: found.bins.iter().map(|b| (b.sent, b.answered)).collect(),
            regular_sent: None,
            regular_answered: None,
        }
    }

    /// Puts to it what became of the regular pings of its time.
    pub fn compare(&mut self, regular: Regular) {
        self.regular_sent = Some(regular.sent);
        self.regular_answered = Some(regular.answered);
    }

    /// Whether the host answers only so many echoes a second, as far as the regular pings tell.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        let (Some(sent), Some(answered)) = (self.regular_sent, self.regular_answered) else {
            return false;
        };
        let regular = Regular { sent, answered };
        bufferbane_core::look::is_limited(self.sent, self.answered, regular)
    }
}

/// A close look, and when it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownEchoes {
    /// Wall time in ns since 1970.
    pub at_ns: i64,
    /// See [`Echoes`].
    pub echoes: Echoes,
}

pub(crate) fn write(
    rows: &Rows<Echoes>,
    tx: &WriteTransaction,
    boot: u32,
) -> Result<(), StoreError> {
    let mut table = tx.open_table(ECHOES)?;
    for ((at, which), row) in rows {
        table.insert((boot, *at, which.as_str()), to_json(row)?.as_slice())?;
    }
    Ok(())
}

impl Writer {
    /// Records a close look that began at `at` in this boot. One of the same target and instant takes the place of an
    /// earlier one.
    pub fn echoes(&mut self, at: Monotonic, echoes: Echoes) {
        let which = format!("{} {} {}", echoes.interface, echoes.target, echoes.address);
        let rows = &mut self.pending_paths().echoes;
        rows.insert((at.as_nanos(), which), echoes);
    }
}

impl Reader {
    /// Close looks that began from `from_ns` on and before `to_ns` of wall time, ns since 1970, in order.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn echoes(&self, from_ns: i64, to_ns: i64) -> Result<Vec<KnownEchoes>, StoreError> {
        let mut rows = Vec::new();
        self.each_line_row(ECHOES, from_ns, to_ns, |at_ns, _, bytes| {
            let echoes = from_json(bytes)?;
            rows.push(KnownEchoes { at_ns, echoes });
            Ok(())
        })?;
        Ok(rows)
    }
}
