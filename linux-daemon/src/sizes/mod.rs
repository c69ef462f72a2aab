//! The largest packets that pass on the ways to targets beyond the access line: searched for now and then, and
//! when something speaks for another size or against the one that is known.
//!
//! Searching happens on a thread of its own (`worker`), one way at a time. The recorder drives this, and never
//! waits for it. docs/paths.md says when what is searched, and what is made of it.

mod judge;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::mpsc::TryRecvError;

use bufferbane_core::sample::SeriesIndex;
use bufferbane_core::time::Monotonic;
use bufferbane_store::{Direction, Event, Larger, PathSize, SeriesInfo, SeriesKind};

use crate::errands::Key;
use crate::errands::spent::Spent;
use crate::scout::Way;
use crate::watch;
use judge::Holes;
use worker::{Errand, Searched, Worker};

const S: u64 = 1_000_000_000;
/// The first search comes this long after a target is probed, and up to `SPREAD_NS` later, ns: a start has enough
/// to do, and not all hosts start alike.
const FIRST_NS: u64 = 30 * S;
const SPREAD_NS: u64 = 60 * S;
/// How soon a way is searched again, ns.
const AGAIN_NS: u64 = 4 * 3600 * S;
/// The same where packets vanish, so that the end of that is known, or where nothing was found, ns; twice as late each
/// time that says the same, up to `AGAIN_NS`: such a search sends some hundred kilobytes, and mostly it is the host.
const SOON_NS: u64 = 1800 * S;
/// After the host's routes have changed: when they have settled, ns.
const SETTLED_NS: u64 = 10 * S;
/// Between two searches, ns.
const APART_NS: u64 = 2 * S;
/// A search that something speaks for is not made sooner than this after the one before, ns.
const RECENT_NS: u64 = 300 * S;
/// Ways that are searched at most.
const TARGETS: usize = 128;
/// What searches on a way that is well move in 30 days, both ways, bytes: an IPv6 echo of the smallest size and one
/// of the largest that most interfaces take, each time. Others move more: [`Sizes::month_bytes`].
pub(crate) const MONTH_BYTES: u64 = 30 * 86_400 * S / AGAIN_NS * 2 * (1280 + 1500);

/// IPv4 (4) or IPv6 (6) through an interface.
pub(crate) type Place = (String, u8);

/// Where the sizes vanish of which an event tells: at both of its interface where it does not say at which.
pub(crate) fn places(event: &Event) -> impl Iterator<Item = Place> + use<'_> {
    let family = event.values.get("family").and_then(|f| f.as_u64());
    let all = [4, 6].into_iter();
    all.filter(move |f| family.is_none_or(|own| own == u64::from(*f)))
        .map(|f| (event.interface.clone(), f))
}

fn place(key: &Key) -> Place {
    (key.0.clone(), if key.2.is_ipv4() { 4 } else { 6 })
}

/// Whether the way of a series of this kind to an address is searched. On the way to a neighbour there is nothing but
/// one link.
pub(crate) fn is_searched(kind: SeriesKind, address: IpAddr) -> bool {
    !kind.asks_a_service() && watch::is_far_at(kind, address)
}

/// What is to be recorded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// What was found: when first and last, and how often.
    Size(Monotonic, Monotonic, u64, PathSize),
    /// Large packets vanish at a place since then, or do so differently.
    Hole(Place, Monotonic, Hole),
    /// They do not, at this time.
    Mended(Place, Monotonic),
    /// Whether they still do nobody can say since then: none of these targets is probed any more.
    Unwatched(Place, Monotonic),
}

/// Large packets vanish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    /// The largest IP packet that passes everywhere, bytes.
    pub(crate) passes_bytes: u64,
    /// The largest that the interface takes.
    pub(crate) interface_bytes: u64,
    /// In which direction, where that is known and the same everywhere.
    pub(crate) direction: Option<Direction>,
    /// Targets on whose ways they do.
    pub(crate) targets: Vec<String>,
}

/// A way that is searched.
#[derive(Debug)]
struct Target {
    series: BTreeSet<SeriesIndex>,
    due: Monotonic,
    searched: Option<Monotonic>,
    /// How long to wait after a search that says no more than the one before, ns.
    wait_ns: u64,
    known: Option<Known>,
}

impl Target {
    /// The last search said no more than the one before.
    fn put_off(&mut self, now: Monotonic) {
        self.due = now.saturating_add(self.wait_ns);
        self.wait_ns = (2 * self.wait_ns).min(AGAIN_NS);
    }
}

/// What is known of it.
#[derive(Debug)]
pub(crate) struct Known {
    /// When it was first found.
    pub(crate) first: Monotonic,
    /// When it was found last.
    pub(crate) last: Monotonic,
    /// How many searches found it.
    pub(crate) searches: u64,
    /// What they found.
    pub(crate) size: PathSize,
}

/// See the module.
pub(crate) struct Sizes {
    /// How packets leave through interfaces that are configured.
    uplinks: BTreeMap<String, Way>,
    targets: BTreeMap<Key, Target>,
    /// Gone where its thread has ended, which takes a fault of ours.
    worker: Option<Worker>,
    out: Option<Key>,
    /// When a search ended last.
    done: Monotonic,
    holes: Holes,
    /// Why nothing can be searched, as it was said last.
    trouble: Option<String>,
    /// Bytes that were sent, IP headers included.
    bytes: u64,
    spent: Spent,
}

impl Sizes {
    /// Without anything to search.
    pub(crate) fn new(now: Monotonic, uplinks: BTreeMap<String, Way>) -> Self {
        let worker = worker::start()
            .inspect_err(|e| log::warn!("the sizes that pass are not searched for: {e}"));
        Self {
            uplinks,
            targets: BTreeMap::new(),
            worker: worker.ok(),
            out: None,
            done: now,
            holes: Holes::default(),
            trouble: None,
            bytes: 0,
            spent: Spent::new(),
        }
    }

    /// How packets leave from now on.
    pub(crate) fn set(&mut self, uplinks: BTreeMap<String, Way>) {
        self.uplinks = uplinks;
    }

    /// A series that is probed from now on. `random` spreads the searches of different hosts.
    pub(crate) fn add(
        &mut self,
        now: Monotonic,
        index: SeriesIndex,
        info: &SeriesInfo,
        random: u32,
    ) {
        self.remove(index);
        let Ok(address) = info.address.parse::<IpAddr>() else {
            return;
        };
        if !is_searched(info.kind, address) {
            return;
        }
        let key = (info.interface.clone(), info.target.clone(), address);
        if self.targets.len() >= TARGETS && !self.targets.contains_key(&key) {
            return;
        }
        let later = (u128::from(SPREAD_NS) * u128::from(random)) >> 32;
        let due = now.saturating_add(FIRST_NS + later as u64);
        let target = self.targets.entry(key).or_insert_with(|| Target {
            series: BTreeSet::new(),
            due,
            searched: None,
            wait_ns: SOON_NS,
            known: None,
        });
        target.series.insert(index);
    }

    /// A series is no longer probed.
    pub(crate) fn remove(&mut self, index: SeriesIndex) {
        self.targets.retain(|_, t| {
            t.series.remove(&index);
            !t.series.is_empty()
        });
    }

    /// The host's routes are others than before.
    pub(crate) fn rerouted(&mut self, now: Monotonic) {
        self.hurry(now, SETTLED_NS, |_| true);
    }

    /// Something speaks for sizes that vanish on the way to a target through an interface, or to any.
    pub(crate) fn suspect(&mut self, now: Monotonic, interface: &str, target: Option<&str>) {
        self.hurry(now, 0, |key| {
            key.0 == interface && target.is_none_or(|t| t == key.1)
        });
    }

    fn hurry(&mut self, now: Monotonic, in_ns: u64, is_meant: impl Fn(&Key) -> bool) {
        for (_, t) in self.targets.iter_mut().filter(|(key, _)| is_meant(key)) {
            let earliest = t.searched.map_or(now, |at| at.saturating_add(RECENT_NS));
            t.due = t.due.min(earliest.max(now.saturating_add(in_ns)));
        }
    }

    /// What is known now of each way.
    pub(crate) fn known(&self) -> impl Iterator<Item = &Known> {
        self.targets.values().filter_map(|t| t.known.as_ref())
    }

    fn size_to(&self, key: &Key) -> Option<&PathSize> {
        Some(&self.targets.get(key)?.known.as_ref()?.size)
    }

    /// Bytes that searches have sent so far, IP headers included.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Of these, those of the last 30 days through each interface.
    pub(crate) fn month_bytes(&mut self, now: Monotonic) -> BTreeMap<String, u64> {
        self.spent.month(now)
    }

    /// Puts what searches have found to an event that says that sizes vanish: of two places the size that passes at both.
    pub(crate) fn explain(&self, event: &mut Event) {
        let holes = places(event).filter_map(|place| self.hole_at(&place));
        let Some(hole) = holes.min_by_key(|hole| hole.passes_bytes) else {
            return;
        };
        event
            .values
            .insert("passes_bytes".into(), hole.passes_bytes.into());
        event
            .values
            .insert("interface_bytes".into(), hole.interface_bytes.into());
        event.direction = event.direction.or(hole.direction);
    }

    /// Takes in what was found, and sends what is due.
    pub(crate) fn tick(&mut self, now: Monotonic) -> Vec<News> {
        let mut news = Vec::new();
        match self.worker.as_ref().map(|w| w.returns.try_recv()) {
            Some(Ok(searched)) => {
                self.done = now;
                if let Some(key) = self.out.take() {
                    let before = self.size_to(&key).cloned();
                    let is_news = self.take(now, &key, searched, &mut news);
                    self.judge(now, &key, is_news, &mut news);
                    // Where they vanish an event says so.
                    let is_event = news.iter().any(|n| matches!(n, News::Hole(..)));
                    let found = self
                        .size_to(&key)
                        .filter(|s| !is_event && Some(*s) != before.as_ref());
                    if let Some(size) = found {
                        log::info!("{}", sentence(size));
                    }
                }
            }
            Some(Err(TryRecvError::Disconnected)) => {
                log::error!(
                    "the sizes that pass are no longer searched for: the thread that did has ended, which is a \
                     fault of this program; please report it with what the journal says before, and restart"
                );
                (self.worker, self.out) = (None, None);
            }
            Some(Err(TryRecvError::Empty)) | None => {}
        }
        self.send(now);
        self.unwatched(now, &mut news);
        news
    }

    /// Takes in what was found; whether anything was.
    fn take(
        &mut self,
        now: Monotonic,
        key: &Key,
        searched: Searched,
        news: &mut Vec<News>,
    ) -> bool {
        self.bytes += searched.bytes;
        self.spent.add(now, &key.0, searched.bytes);
        let Some(target) = self.targets.get_mut(key) else {
            return false;
        };
        target.searched = Some(searched.begun);
        let size = match searched.found {
            Ok(Some(size)) => size,
            Ok(None) => {
                target.put_off(now);
                return false;
            }
            Err(why) => {
                target.put_off(now);
                if self.trouble.as_ref() != Some(&why) {
                    let (interface, name, _) = key;
                    log::info!("no size is searched for to {name} through {interface}: {why}");
                    self.trouble = Some(why);
                }
                return false;
            }
        };
        self.trouble = None;
        let at = searched.begun;
        let is_doubtful = size.larger == Larger::Silent && size.direction != Some(Direction::Up);
        let is_same = target.known.as_ref().is_some_and(|k| k.size == size);
        let is_silent = size.larger == Larger::Silent;
        if !is_same || !is_silent {
            target.wait_ns = SOON_NS;
        }
        if is_silent {
            target.put_off(now);
        } else {
            target.due = now.saturating_add(AGAIN_NS);
        }
        match &mut target.known {
            Some(known) if known.size == size => {
                known.last = at;
                known.searches += 1;
            }
            known => {
                *known = Some(Known {
                    first: at,
                    last: at,
                    searches: 1,
                    size,
                });
            }
        }
        if let Some(k) = &target.known {
            news.push(News::Size(k.first, k.last, k.searches, k.size.clone()));
        }
        if is_doubtful && !is_same {
            // What passed to others before says nothing of now.
            let of = place(key);
            self.hurry(now, 0, |k| k != key && place(k) == of);
        }
        true
    }

    fn send(&mut self, now: Monotonic) {
        let Some(worker) = &self.worker else {
            return;
        };
        if self.out.is_some() || now.saturating_since(self.done) < APART_NS {
            return;
        }
        let due = self.targets.iter_mut().filter(|(_, t)| t.due <= now);
        let Some((key, target)) = due.min_by_key(|(_, t)| t.due) else {
            return;
        };
        target.due = now.saturating_add(SOON_NS);
        let errand = Errand {
            way: Way::through(&key.0, &self.uplinks),
            key: key.clone(),
        };
        if worker.errands.try_send(errand).is_ok() {
            self.out = Some(key.clone());
        }
    }
}

/// What was found, for people.
pub(crate) fn sentence(size: &PathSize) -> String {
    let PathSize {
        interface,
        target,
        passes_bytes,
        interface_bytes,
        ..
    } = size;
    let way = format!("to {target} through {interface}");
    match (size.larger, size.told_by) {
        (Larger::None, _) => format!(
            "packets of {passes_bytes} bytes pass {way}{}",
            match size.direction {
                Some(Direction::Up) =>
                    ", on the way there; it answers with less, so that is all that is known",
                _ => "",
            }
        ),
        (Larger::Told, Some(by)) => format!(
            "packets of {passes_bytes} bytes pass {way}, of the {interface_bytes} that the interface takes; {by} \
             says so to whoever sends larger ones, as it should"
        ),
        (Larger::Told, None) => format!(
            "packets of {passes_bytes} bytes pass {way}; this host itself sends no larger ones there"
        ),
        (Larger::Silent, _) => format!(
            "packets larger than {passes_bytes} bytes vanish on the way {way}{}, and nobody says so",
            match size.direction {
                Some(Direction::Up) => ", upward",
                Some(Direction::Down) => ", downward, or it answers no echoes of that size",
                _ => ", or it answers no echoes of that size",
            }
        ),
    }
}

#[cfg(test)]
mod tests;
