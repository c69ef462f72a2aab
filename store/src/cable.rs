//! What lines showed of what cables do, hour by hour: sums that can be added up, so that nobody has
//! to read samples again.

use bufferbane_core::detect::cable::{Channel, Grants, Loaded, Loss, Reading};
use bufferbane_core::time::Monotonic;
use serde::{Deserialize, Serialize};

use crate::codec::from_json;
use crate::error::StoreError;
use crate::reader::Reader;
use crate::tables::CABLE;
use crate::writer::Writer;

/// The longest stretch of one row, and some, ns.
const LONGEST_NS: i64 = 2 * 3600 * 1_000_000_000;

/// What a line showed over a stretch.
#[derive(Clone, Debug, PartialEq)]
pub struct CableReading {
    /// The interface.
    pub interface: String,
    /// From when on, wall time in ns since 1970.
    pub since_ns: i64,
    /// Until when.
    pub until_ns: i64,
    /// What.
    pub reading: Reading,
}

/// A row.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    interface: String,
    /// How long it lasted.
    lasted_ns: u64,
    #[serde(flatten)]
    what: What,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum What {
    Grants {
        period_ns: u64,
        steps: bool,
        strength: f64,
        pairs: u64,
    },
    Loss {
        probes: u64,
        up: u64,
        down: u64,
        idle: u64,
    },
    Channel {
        probes: u64,
        lost: u64,
        large_probes: u64,
        large_lost: u64,
        edges: u64,
    },
    Loaded {
        seconds: u64,
        plateau_s: u64,
        plateau_ns: u64,
        rate_bps: u64,
        managed_s: u64,
        managed_ns: u64,
        drops: u64,
        in_rows: u64,
    },
    Said {},
}

impl What {
    const fn of(reading: Reading) -> (Self, &'static str) {
        match reading {
            Reading::Grants(Grants {
                period_ns,
                steps,
                strength,
                pairs,
            }) => (
                Self::Grants {
                    period_ns,
                    steps,
                    strength,
                    pairs,
                },
                "grants",
            ),
            Reading::Loss(Loss {
                probes,
                up,
                down,
                idle,
            }) => (
                Self::Loss {
                    probes,
                    up,
                    down,
                    idle,
                },
                "loss",
            ),
            Reading::Channel(Channel {
                probes,
                lost,
                large_probes,
                large_lost,
                edges,
            }) => (
                Self::Channel {
                    probes,
                    lost,
                    large_probes,
                    large_lost,
                    edges,
                },
                "channel",
            ),
            Reading::Loaded(Loaded {
                seconds,
                plateau_s,
                plateau_ns,
                rate_bps,
                managed_s,
                managed_ns,
                drops,
                in_rows,
            }) => (
                Self::Loaded {
                    seconds,
                    plateau_s,
                    plateau_ns,
                    rate_bps,
                    managed_s,
                    managed_ns,
                    drops,
                    in_rows,
                },
                "loaded",
            ),
            Reading::Said => (Self::Said {}, "said"),
        }
    }

    const fn reading(self) -> Reading {
        match self {
            Self::Grants {
                period_ns,
                steps,
                strength,
                pairs,
            } => Reading::Grants(Grants {
                period_ns,
                steps,
                strength,
                pairs,
            }),
            Self::Loss {
                probes,
                up,
                down,
                idle,
            } => Reading::Loss(Loss {
                probes,
                up,
                down,
                idle,
            }),
            Self::Channel {
                probes,
                lost,
                large_probes,
                large_lost,
                edges,
            } => Reading::Channel(Channel {
                probes,
                lost,
                large_probes,
                large_lost,
                edges,
            }),
            Self::Loaded {
                seconds,
                plateau_s,
                plateau_ns,
                rate_bps,
                managed_s,
                managed_ns,
                drops,
                in_rows,
            } => Reading::Loaded(Loaded {
                seconds,
                plateau_s,
                plateau_ns,
                rate_bps,
                managed_s,
                managed_ns,
                drops,
                in_rows,
            }),
            Self::Said {} => Reading::Said,
        }
    }
}

impl Writer {
    /// Records what a line of this boot showed between two instants. One of the same interface, kind
    /// and begin takes the place of an earlier one.
    pub fn cable(&mut self, since: Monotonic, until: Monotonic, interface: &str, reading: Reading) {
        let (what, kind) = What::of(reading);
        let row = Stored {
            interface: interface.to_owned(),
            lasted_ns: until.saturating_since(since),
            what,
        };
        let which = format!("{interface} {kind}");
        let rows = &mut self.pending_lines().cables;
        rows.insert((since.as_nanos(), which), row);
    }
}

impl Reader {
    /// What lines showed in stretches that touch `[from, to)` of wall time, ns since 1970, by their
    /// begin.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn cable(&self, from_ns: i64, to_ns: i64) -> Result<Vec<CableReading>, StoreError> {
        let mut rows = Vec::new();
        let begin_ns = from_ns.saturating_sub(LONGEST_NS);
        self.each_line_row(CABLE, begin_ns, to_ns, |since_ns, _, bytes| {
            let row: Stored = from_json(bytes)?;
            let until_ns = since_ns.saturating_add_unsigned(row.lasted_ns);
            if until_ns > from_ns {
                rows.push(CableReading {
                    interface: row.interface,
                    since_ns,
                    until_ns,
                    reading: row.what.reading(),
                });
            }
            Ok(())
        })?;
        Ok(rows)
    }
}
