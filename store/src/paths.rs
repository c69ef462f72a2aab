//! The ways to targets, hop by hop: which there were, and what was seen of them when something looked
//! wrong.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bufferbane_core::time::Monotonic;
use bufferbane_core::trace::ADDRESSES;
use redb::{ReadableTable, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::codec::{from_json, to_json};
use crate::echoes::{self, Echoes};
use crate::error::StoreError;
use crate::model::EventId;
use crate::reader::Reader;
use crate::retention::row_bytes;
use crate::sizes::{self, StoredSize};
use crate::tables::{ECHOES, ESCALATIONS, LineTime, PATHS, SIZES};
use crate::writer::Writer;

/// Where a way ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathEnd {
    /// The last hop is the target.
    Target,
    /// The router at the last hop refuses what is sent there.
    Refused,
    /// Behind the last hop nobody answers.
    Silence,
    /// Nothing could be sent; there are no hops.
    Unsent,
}

/// One hop of a way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathHop {
    /// Who answered, in the order of their first answers; nobody where it is silent.
    pub addresses: Vec<IpAddr>,
    /// Messages sent to it.
    pub sent: u64,
    /// Messages that were answered in time.
    pub answered: u64,
    /// Shortest round-trip time, ns.
    pub rtt_min_ns: Option<u64>,
    /// Mean round-trip time, ns.
    pub rtt_mean_ns: Option<u64>,
}

impl AsRef<[IpAddr]> for PathHop {
    fn as_ref(&self) -> &[IpAddr] {
        &self.addresses
    }
}

impl PathHop {
    fn add(&mut self, more: Self) {
        for address in more.addresses {
            if !self.addresses.contains(&address) && self.addresses.len() < ADDRESSES {
                self.addresses.push(address);
            }
        }
        self.rtt_mean_ns = match (self.rtt_mean_ns, more.rtt_mean_ns) {
            (Some(a), Some(b)) => {
                let [of_a, of_b] = [self.answered, more.answered].map(u128::from);
                let sum = u128::from(a) * of_a + u128::from(b) * of_b;
                u64::try_from(sum / (of_a + of_b).max(1)).ok()
            }
            (a, b) => a.or(b),
        };
        self.rtt_min_ns = match (self.rtt_min_ns, more.rtt_min_ns) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.sent = self.sent.saturating_add(more.sent);
        self.answered = self.answered.saturating_add(more.answered);
    }
}

/// A way to a target, as it was walked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// The interface it leaves through.
    pub interface: String,
    /// The target's or reflector's name.
    pub target: String,
    /// Its address.
    pub address: IpAddr,
    /// The address that is sent from, where the kernel told.
    pub source: Option<IpAddr>,
    /// Whether the link that it leaves by is the provider's: who shares the source's network there is no router of
    /// the home. Older rows lack it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub provider_link: bool,
    /// Where it ends.
    pub end: PathEnd,
    /// Why nothing could be sent, in the system's words, where `end` is [`PathEnd::Unsent`]; none where there
    /// was no route. Older rows lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsent: Option<String>,
    /// The hops, the nearest first.
    pub hops: Vec<PathHop>,
}

impl Path {
    /// The hops, and whether the last one is the target: what ways are compared by.
    #[must_use]
    pub fn shape(&self) -> (&[PathHop], bool) {
        (&self.hops, self.end == PathEnd::Target)
    }

    /// Adds walks of the same way: what is known of either, and sums of both.
    pub fn add(&mut self, more: Self) {
        if self.end != PathEnd::Target {
            self.end = more.end;
        }
        if more.source.is_some() {
            (self.source, self.provider_link) = (more.source, more.provider_link);
        }
        for (i, hop) in more.hops.into_iter().enumerate() {
            match self.hops.get_mut(i) {
                Some(known) => known.add(hop),
                None => self.hops.push(hop),
            }
        }
    }

    /// Whether a hop's address is the provider's rather than the household's.
    #[must_use]
    pub fn is_providers(&self, address: IpAddr) -> bool {
        let home = self.source.filter(|_| !self.provider_link);
        bufferbane_core::path::is_providers(address, home)
    }

    /// Which hop is the first that is the provider's, from 1.
    #[must_use]
    pub fn provider(&self) -> Option<usize> {
        let provider = |a: &IpAddr| self.is_providers(*a);
        let at = self
            .hops
            .iter()
            .position(|h| h.addresses.iter().any(provider));
        // The target is nobody's router.
        at.map(|i| i + 1)
            .filter(|n| self.end != PathEnd::Target || *n < self.hops.len())
    }
}

/// A way that a target was reached by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPath {
    /// When it was first seen, wall time in ns since 1970.
    pub first_ns: i64,
    /// When it was last seen; there may have been others meanwhile.
    pub last_ns: i64,
    /// How often it was walked.
    pub walks: u64,
    /// The way, with the sums of all walks.
    pub path: Path,
}

/// What was seen of a way when something looked wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escalation {
    /// When it was walked, wall time in ns since 1970.
    pub at_ns: i64,
    /// See [`Look`].
    pub look: Look,
}

/// What was seen of a way, and what that belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// The events it belongs to.
    pub events: Vec<EventId>,
    /// How long it took, ns.
    pub took_ns: u64,
    /// How many hops the way had before, where that was known.
    pub usual_hops: Option<u64>,
    /// From this hop on, from 1, it was another way than before.
    pub other_from: Option<u64>,
    /// The way.
    #[serde(flatten)]
    pub path: Path,
}

/// A row of `paths`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredPath {
    /// From the row's instant to when it was last seen.
    lasted_ns: u64,
    walks: u64,
    #[serde(flatten)]
    path: Path,
}

/// Rows by when they begin and whose they are.
pub(crate) type Rows<T> = BTreeMap<(u64, String), T>;

/// What waits for the next commit.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    paths: Rows<StoredPath>,
    looks: Rows<Look>,
    pub(crate) sizes: Rows<StoredSize>,
    pub(crate) echoes: Rows<Echoes>,
}

impl Pending {
    pub(crate) fn write(&self, tx: &WriteTransaction, boot: u32) -> Result<(), StoreError> {
        let mut table = tx.open_table(PATHS)?;
        for ((first, which), row) in &self.paths {
            table.insert((boot, *first, which.as_str()), to_json(row)?.as_slice())?;
        }
        let mut table = tx.open_table(ESCALATIONS)?;
        for ((at, which), row) in &self.looks {
            table.insert((boot, *at, which.as_str()), to_json(row)?.as_slice())?;
        }
        sizes::write(&self.sizes, tx, boot)?;
        echoes::write(&self.echoes, tx, boot)
    }
}

fn which(path: &Path) -> String {
    format!("{} {} {}", path.interface, path.target, path.address)
}

impl Writer {
    /// Records a way of this boot that was first seen at `first` and last at `last`, in so many walks.
    /// One to the same target, first seen at the same instant, takes the place of an earlier one.
    pub fn path(&mut self, first: Monotonic, last: Monotonic, walks: u64, path: Path) {
        let which = which(&path);
        let row = StoredPath {
            lasted_ns: last.saturating_since(first),
            walks,
            path,
        };
        let rows = &mut self.pending_paths().paths;
        rows.insert((first.as_nanos(), which), row);
    }

    /// Records what was seen of a way at `at` in this boot. One of the same target and instant takes the
    /// place of an earlier one.
    pub fn escalation(&mut self, at: Monotonic, look: Look) {
        let which = which(&look.path);
        let rows = &mut self.pending_paths().looks;
        rows.insert((at.as_nanos(), which), look);
    }
}

impl Reader {
    /// The ways that were seen between two wall times, ns since 1970, the end exclusive, by when they
    /// were first seen.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn paths(&self, from_ns: i64, to_ns: i64) -> Result<Vec<KnownPath>, StoreError> {
        let mut rows = Vec::new();
        // A way may have been first seen long before: there are few rows.
        self.each_line_row(PATHS, i64::MIN, to_ns, |first_ns, _, bytes| {
            let row: StoredPath = from_json(bytes)?;
            let last_ns = first_ns.saturating_add_unsigned(row.lasted_ns);
            if last_ns >= from_ns {
                rows.push(KnownPath {
                    first_ns,
                    last_ns,
                    walks: row.walks,
                    path: row.path,
                });
            }
            Ok(())
        })?;
        Ok(rows)
    }

    /// What was seen of ways from `from_ns` on and before `to_ns` of wall time, ns since 1970, in order.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn escalations(&self, from_ns: i64, to_ns: i64) -> Result<Vec<Escalation>, StoreError> {
        let mut rows = Vec::new();
        self.each_line_row(ESCALATIONS, from_ns, to_ns, |at_ns, _, bytes| {
            let look = from_json(bytes)?;
            rows.push(Escalation { at_ns, look });
            Ok(())
        })?;
        Ok(rows)
    }
}

/// Gives up the oldest rows of ways, looks, sizes and close looks, boot by boot, until so many `bytes` are free or `rows` have
/// gone. Says how many bytes and rows went. A way that this run still sees comes back with its next walk.
pub(crate) fn forget_oldest(
    tx: &WriteTransaction,
    bytes: u64,
    rows: u64,
) -> Result<(u64, u64), StoreError> {
    let mut tables = [
        tx.open_table(PATHS)?,
        tx.open_table(ESCALATIONS)?,
        tx.open_table(SIZES)?,
        tx.open_table(ECHOES)?,
    ];
    let (mut freed, mut gone) = (0, 0);
    while freed < bytes && gone < rows {
        let mut oldest: Option<((u32, u64), usize)> = None;
        for (i, table) in tables.iter().enumerate() {
            let first = table.first()?.map(|(key, _)| {
                let key: LineTime<'_> = key.value();
                ((key.0, key.1), i)
            });
            oldest = match (oldest, first) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        let Some((_, i)) = oldest else {
            break;
        };
        let row = tables[i].pop_first()?;
        freed += row.map_or(0, |(_, row)| row_bytes(row.value().len() as u64));
        gone += 1;
    }
    Ok((freed, gone))
}

/// For how long a row of any of these tables holds from its instant on.
#[derive(Deserialize)]
struct Lasted {
    /// A look has none: it is of that instant.
    #[serde(default)]
    lasted_ns: u64,
}

/// Gives up what was last seen in each boot before its instant, ns since boot. Says whether there was any.
pub(crate) fn forget(tx: &WriteTransaction, ends: &[(u32, u64)]) -> Result<bool, StoreError> {
    let mut any = false;
    for table in [PATHS, ESCALATIONS, SIZES, ECHOES] {
        let mut rows = tx.open_table(table)?;
        for (boot, end) in ends {
            rows.retain_in((*boot, 0, "")..(*boot, *end, ""), |(_, first, _), bytes| {
                // What cannot be read helps nobody.
                let lasted_ns = from_json::<Lasted>(bytes).map_or(0, |r| r.lasted_ns);
                let stays = first.saturating_add(lasted_ns) >= *end;
                any |= !stays;
                stays
            })?;
        }
    }
    Ok(any)
}
