//! The ways to targets: walked now and then, hop by hop, so that it is known which they are, and at once
//! when something looks wrong, so that it is known where they end then; and a close look at their hosts (`close`).
//!
//! Walking happens on a thread for each uplink (`worker`), one way at a time, a few messages a second. The
//! recorder drives this, and never waits for it. docs/paths.md says when what is walked.

mod budget;
mod close;
mod concerned;
mod events;
mod known;
mod line;
mod silence;
mod start;
mod worker;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;

use bufferbane_core::sample::{Observation, SeriesIndex};
use bufferbane_core::time::Monotonic;
use bufferbane_core::trace::way::{Against, against};
use bufferbane_store::{Echoes, EventId, Look, Path, PathEnd, SeriesInfo, SeriesKind};

use crate::errands::Key;
use crate::scout::{MODEM, Way};
use crate::watch;
use budget::{Budget, CONFIRMING};
use close::CloseLooks;
use events::Seen;
pub(crate) use events::Shown;
pub(crate) use known::Changed;
use known::{Said, Ways};
use line::{Asked, Line};
use silence::Ear;
#[cfg(test)]
pub(crate) use start::By;
pub(crate) use start::Start;
use worker::{Thoroughness, Walked};

const S: u64 = 1_000_000_000;
/// The first walk to a target comes this long after it is probed, ns: a start has enough to do.
const FIRST_NS: u64 = 10 * S;
/// How soon a way is walked again, ns.
const AGAIN_NS: u64 = 900 * S;
/// The same after one that was given up, or that another has to confirm, ns.
const SOON_NS: u64 = 5 * S;
/// Between two walks that nothing asks for, ns.
const APART_NS: u64 = 2 * S;
/// Ways that are walked at most, and uplinks that they lead through.
const TARGETS: usize = 128;
const LINES: usize = 16;
/// Looks that events may still turn out to belong to, and for how long, ns: a short outage is told when
/// it is over and what came after it is known.
const LOOKS: usize = 32;
const LOOK_NS: u64 = 900 * S;
/// The ways of before this run to each target, the latest first.
pub(crate) type Before = BTreeMap<Key, Vec<Path>>;

/// What is to be recorded.
#[derive(Debug)]
pub(crate) enum News {
    /// A way that was seen: when first and last, and how often.
    Way(Monotonic, Monotonic, u64, Path),
    /// The way to a target has become another.
    Changed(Box<Changed>),
    /// What was seen when something looked wrong, and when.
    Look(Monotonic, Look),
    /// From which hop on what these events tell of starts.
    Start(Vec<EventId>, Start),
    /// What a close look found, and when it began.
    Echoes(Monotonic, Box<Echoes>),
}

/// A way that is walked.
#[derive(Debug)]
struct Target {
    series: BTreeMap<SeriesIndex, Probes>,
    due: Monotonic,
    /// Walks soon after one that went another way.
    confirming: Budget,
    ways: Ways,
}

/// A series of a target.
#[derive(Clone, Copy, Debug)]
struct Probes {
    interval_ns: u64,
    is_ping: bool,
}

/// See the module.
pub(crate) struct Walks {
    /// How packets leave through interfaces that are configured.
    uplinks: BTreeMap<String, Way>,
    targets: BTreeMap<Key, Target>,
    ears: HashMap<SeriesIndex, Ear>,
    lines: BTreeMap<String, Line>,
    /// When a walk ended last.
    done: Monotonic,
    looks: VecDeque<Seen>,
    close: CloseLooks,
    /// Of targets that have not been probed in this run.
    before: Before,
}

impl Walks {
    /// Without anything to walk; whether there are close looks.
    pub(crate) fn new(
        now: Monotonic,
        uplinks: BTreeMap<String, Way>,
        has_close_looks: bool,
    ) -> Self {
        Self {
            uplinks,
            targets: BTreeMap::new(),
            ears: HashMap::new(),
            lines: BTreeMap::new(),
            done: now,
            looks: VecDeque::new(),
            close: CloseLooks::new(has_close_looks),
            before: Before::new(),
        }
    }

    /// What was known before this run; to be told before anything is walked.
    pub(crate) fn recall(&mut self, mut before: Before) {
        for (key, target) in &mut self.targets {
            if let Some(paths) = before.remove(key) {
                target.ways = Ways::of_before(paths);
            }
        }
        self.before = before;
    }

    /// How packets leave from now on, and whether there are close looks.
    pub(crate) fn set(&mut self, uplinks: BTreeMap<String, Way>, has_close_looks: bool) {
        self.uplinks = uplinks;
        self.close.set(has_close_looks);
    }

    /// What the month's budget leaves of each uplink for close looks, bytes.
    pub(crate) fn set_rooms(&mut self, rooms: BTreeMap<String, u64>) {
        self.close.set_rooms(rooms);
    }

    /// Bytes that close looks have sent in the last 30 days through each interface, IP headers included.
    pub(crate) fn close_month_bytes(&mut self, now: Monotonic) -> BTreeMap<String, u64> {
        self.close.month_bytes(now)
    }

    /// Close looks that the budget had no room for.
    pub(crate) const fn close_skipped(&self) -> u64 {
        self.close.skipped()
    }

    /// A series that is probed from now on.
    pub(crate) fn add(&mut self, now: Monotonic, index: SeriesIndex, info: &SeriesInfo) {
        self.remove(index);
        let Ok(address) = info.address.parse::<IpAddr>() else {
            // A service: it is asked over ways that others are pinged on.
            return;
        };
        if info.kind.asks_a_service() || address == MODEM || !self.has_line(now, &info.interface) {
            return;
        }
        if watch::is_far(info) {
            let ear = Ear {
                interface: info.interface.clone(),
                interval_ns: info.interval_ns,
                heard: None,
            };
            self.ears.insert(index, ear);
        }
        let key = (info.interface.clone(), info.target.clone(), address);
        if self.targets.len() >= TARGETS && !self.targets.contains_key(&key) {
            return;
        }
        let before = self.before.remove(&key);
        let target = self.targets.entry(key).or_insert_with(|| Target {
            series: BTreeMap::new(),
            due: now.saturating_add(FIRST_NS),
            confirming: Budget::new(CONFIRMING, now),
            ways: Ways::of_before(before.into_iter().flatten()),
        });
        let probes = Probes {
            interval_ns: info.interval_ns,
            is_ping: info.kind == SeriesKind::Icmp,
        };
        target.series.insert(index, probes);
    }

    /// Whether ways through this interface can be walked.
    fn has_line(&mut self, now: Monotonic, interface: &str) -> bool {
        if self.lines.contains_key(interface) {
            return true;
        }
        if self.lines.len() >= LINES {
            // One that nothing leads through any more makes room.
            let leads = |name: &String| self.targets.keys().any(|key| key.0 == *name);
            let mut idle = self.lines.iter().filter(|(_, l)| l.out.is_none());
            let Some(gone) = idle.find(|(name, _)| !leads(name)).map(|(n, _)| n.clone()) else {
                log::warn!(
                    "paths through {interface} are not walked: there is room for {LINES} interfaces at a time"
                );
                return false;
            };
            self.lines.remove(&gone);
            self.close.forget(&gone);
        }
        match worker::start() {
            Ok(worker) => {
                let line = Line::new(now, worker);
                self.lines.insert(interface.to_owned(), line);
                true
            }
            Err(e) => {
                log::warn!("paths through {interface} are not walked: {e}");
                false
            }
        }
    }

    /// A series is no longer probed.
    pub(crate) fn remove(&mut self, index: SeriesIndex) {
        self.ears.remove(&index);
        self.close.remove(index);
        self.targets.retain(|_, t| {
            t.series.remove(&index);
            !t.series.is_empty()
        });
    }

    /// What became of a probe.
    pub(crate) fn hear(&mut self, observation: &Observation) {
        let (Observation::New(sample) | Observation::Revised(sample)) = observation;
        if let Some(rtt_ns) = sample.rtt_ns {
            self.heard(sample.series, sample.sent.saturating_add(rtt_ns));
        }
        self.close.hear(observation);
    }

    /// All ways may have changed.
    pub(crate) fn rerouted(&mut self, now: Monotonic) {
        for t in self.targets.values_mut() {
            t.due = t.due.min(now);
        }
    }

    /// The ways to these targets through an interface may have changed.
    pub(crate) fn rerouted_to(&mut self, now: Monotonic, interface: &str, targets: &[String]) {
        let through = self.targets.iter_mut().filter(|(k, _)| k.0 == interface);
        for (_, t) in through.filter(|(k, _)| targets.contains(&k.1)) {
            t.due = t.due.min(now);
        }
    }

    /// Takes in what was walked, and sends what is due.
    pub(crate) fn tick(&mut self, now: Monotonic) -> Vec<News> {
        let mut news = Vec::new();
        let mut back = Vec::new();
        for (interface, line) in &mut self.lines {
            back.extend(line.back(interface));
        }
        for (asked, walked) in back {
            self.done = now;
            self.take(now, asked, walked, &mut news);
        }
        self.looks
            .retain(|seen| now.saturating_since(seen.at) < LOOK_NS);
        self.listen(now);
        self.send(now);
        news.extend(self.close.tick(now, &self.uplinks));
        news
    }

    fn take(&mut self, now: Monotonic, asked: Asked, walked: Walked, news: &mut Vec<News>) {
        let interface = &asked.key.0;
        let Some(line) = self.lines.get_mut(interface) else {
            return;
        };
        // A service, or what is probed no more, has no usual way.
        let target = self.targets.get_mut(&asked.key);
        let path = match walked.path {
            Ok(Some(path)) => path,
            Ok(None) => {
                if let Some(target) = target {
                    target.due = now.saturating_add(SOON_NS);
                }
                return;
            }
            Err(why) => {
                if line.trouble.as_ref() != Some(&why) {
                    log::info!("paths through {interface} cannot be walked: {why}");
                    line.trouble = Some(why);
                }
                return;
            }
        };
        line.trouble = None;
        if let Some(events) = asked.events {
            let known = target.and_then(|t| t.ways.now()).map(|k| &k.path);
            let usual = known.filter(|p| p.end == PathEnd::Target);
            let look = Look {
                events,
                took_ns: walked.took_ns,
                usual_hops: usual.map(|p| p.hops.len() as u64),
                other_from: known.and_then(|k| match against(k.shape(), path.shape()) {
                    Against::Other(hop) => Some(hop.into()),
                    Against::Same | Against::Shorter => None,
                }),
                path: path.clone(),
            };
            let seen = Seen {
                at: walked.begun,
                how: asked.how,
                start: known.and_then(|k| start::start(k, &path)),
                look,
            };
            if !seen.look.events.is_empty() {
                news.extend(seen.news());
            }
            if self.looks.len() >= LOOKS {
                self.looks.pop_front();
            }
            self.looks.push_back(seen);
            // What is seen in trouble is a walk like every other, but for where it ends.
            self.note(now, &asked.key, walked.begun, path, true, news);
        } else {
            self.note(now, &asked.key, walked.begun, path, false, news);
        }
    }

    fn note(
        &mut self,
        now: Monotonic,
        key: &Key,
        begun: Monotonic,
        path: Path,
        in_trouble: bool,
        news: &mut Vec<News>,
    ) {
        let Some(target) = self.targets.get_mut(key) else {
            return;
        };
        match target.ways.hear(begun, path, in_trouble) {
            Said::Nothing => return,
            Said::Doubt => {
                // Else the next walk in turn says whether it is so.
                if target.confirming.take(now) {
                    target.due = now.saturating_add(SOON_NS);
                }
                return;
            }
            Said::Seen => {}
            Said::Changed(changed) => news.push(News::Changed(changed)),
        }
        if let Some(k) = target.ways.record_now(now) {
            news.push(News::Way(k.first, k.last, k.walks, k.path.clone()));
        }
    }

    fn send(&mut self, now: Monotonic) {
        let mut is_busy = false;
        for (interface, line) in &mut self.lines {
            if line.out.is_none()
                && let Some(asked) = line.asked.pop_front()
            {
                line.hurry(false);
                line.send(now, Way::through(interface, &self.uplinks), asked);
            }
            line.hurry(!line.asked.is_empty());
            is_busy |= line.out.is_some();
        }
        // Where nothing is wrong, one at a time.
        if is_busy || now.saturating_since(self.done) < APART_NS {
            return;
        }
        let lines = &self.lines;
        let walks = |k: &Key| lines.get(&k.0).is_some_and(|l| l.worker.is_some());
        let due = self.targets.iter_mut();
        let due = due.filter(|(k, t)| t.due <= now && walks(k));
        let Some((key, target)) = due.min_by_key(|(_, t)| t.due) else {
            return;
        };
        target.due = now.saturating_add(AGAIN_NS);
        if let Some(line) = self.lines.get_mut(&key.0) {
            let asked = Asked {
                key: key.clone(),
                events: None,
                how: Thoroughness::Quick,
                begun: None,
            };
            line.send(now, Way::through(&key.0, &self.uplinks), asked);
        }
    }
}

#[cfg(test)]
mod tests;
