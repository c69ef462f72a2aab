//! Close looks: when something looks wrong, quick echoes for some seconds to those hosts whose regular pings are slow.
//!
//! What they find is kept beside the event, and goes nowhere else: no detector and no baseline hears of it. Looking
//! happens on a thread for each uplink (`worker`), which nobody waits for. docs/paths.md says when what is looked at.

mod worker;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::mpsc::TryRecvError;

use bufferbane_core::look::{Found, Regular, SPAN_NS, most_bytes};
use bufferbane_core::sample::{Observation, SeriesIndex, Status};
use bufferbane_core::time::Monotonic;
use bufferbane_store::{Echoes, Event, EventId};

use super::budget::Looks;
use super::concerned::OfFamily;
use super::events::{EARLY_NS, RECENT_NS};
use super::{LOOK_NS, News, S};
use crate::errands::Key;
use crate::errands::spent::Spent;
use crate::scout::Way;
use worker::{Errand, Looked, Worker};

/// So many looks follow each other at most while the same trouble goes on.
const IN_ROW: u32 = 3;
/// Looks that events may still turn out to belong to.
const KEPT: usize = 64;
/// What became of the regular pings of a look's time is known so long after its end, ns.
const SETTLED_NS: u64 = 15 * S;
/// A host that limits its answers is not looked at for so long, ns: the echoes of looks would be at the cost of its
/// regular pings.
const LIMITED_NS: u64 = 86_400 * S;

/// A host that is to be looked at.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) key: Key,
    /// The series of its regular pings.
    pub(super) pings: BTreeSet<SeriesIndex>,
}

/// An uplink.
#[derive(Debug)]
struct Line {
    /// Gone where its thread has ended, which takes a fault of ours.
    worker: Option<Worker>,
    looks: Looks,
    is_out: bool,
    /// What is wrong now: events that last, and that nobody answers.
    open: BTreeMap<EventId, OfFamily>,
    /// The event that the next look is because of: it may be over before the look begins.
    asked_by: Option<(EventId, OfFamily)>,
    is_silent: bool,
    /// What the next look is at, and how many there may still be; the first is made even if the trouble is over.
    next: Vec<Wanted>,
    left: u32,
    /// Why there was no look, as it was said last.
    trouble: Option<String>,
}

impl Line {
    const fn new(now: Monotonic, worker: Worker) -> Self {
        Self {
            worker: Some(worker),
            looks: Looks::new(now),
            is_out: false,
            open: BTreeMap::new(),
            asked_by: None,
            is_silent: false,
            next: Vec::new(),
            left: 0,
            trouble: None,
        }
    }

    /// Says why there is no look, unless it was said last.
    fn hinder(&mut self, interface: &str, why: String) {
        if self.trouble.as_ref() != Some(&why) {
            log::info!("no close look through {interface}: {why}");
            self.trouble = Some(why);
        }
    }
}

/// A look at a host, made or being made.
#[derive(Debug)]
struct Seen {
    begun: Monotonic,
    host: Wanted,
    events: Vec<EventId>,
    found: Option<Found>,
    regular: Regular,
    is_settled: bool,
}

impl Seen {
    fn is_during(&self, from_ns: u64, until_ns: u64) -> bool {
        let begun_ns = self.begun.as_nanos();
        begun_ns <= until_ns && begun_ns.saturating_add(SPAN_NS) >= from_ns
    }

    /// What is to be recorded, once it is known and belongs to an event.
    fn news(&self) -> Option<News> {
        let found = self.found.as_ref().filter(|_| !self.events.is_empty())?;
        let mut echoes = Echoes::new(self.host.key.clone(), self.begun, found);
        echoes.events.clone_from(&self.events);
        if self.is_settled && self.regular.sent > 0 {
            echoes.compare(self.regular);
        }
        Some(News::Echoes(self.begun, Box::new(echoes)))
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct CloseLooks {
    is_on: bool,
    /// What the month's budget leaves of each uplink, bytes.
    rooms: BTreeMap<String, u64>,
    lines: BTreeMap<String, Line>,
    seen: VecDeque<Seen>,
    /// Hosts that limit their answers, and until when they are left alone.
    limited: BTreeMap<Key, Monotonic>,
    spent: Spent,
    /// Looks that the budget had no room for.
    skipped: u64,
}

impl CloseLooks {
    pub(super) const fn new(is_on: bool) -> Self {
        Self {
            is_on,
            rooms: BTreeMap::new(),
            lines: BTreeMap::new(),
            seen: VecDeque::new(),
            limited: BTreeMap::new(),
            spent: Spent::new(),
            skipped: 0,
        }
    }

    /// Whether there are any from now on.
    pub(super) const fn set(&mut self, is_on: bool) {
        self.is_on = is_on;
    }

    /// What the month's budget leaves of each uplink, bytes; of others nothing is known, and nothing sent through them.
    pub(super) fn set_rooms(&mut self, rooms: BTreeMap<String, u64>) {
        self.rooms = rooms;
    }

    /// Bytes that looks have sent in the last 30 days through each interface, IP headers included.
    pub(super) fn month_bytes(&mut self, now: Monotonic) -> BTreeMap<String, u64> {
        self.spent.month(now)
    }

    /// Looks that the budget had no room for.
    pub(super) const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// A series is no longer probed.
    pub(super) fn remove(&mut self, index: SeriesIndex) {
        for seen in &mut self.seen {
            seen.host.pings.remove(&index);
        }
        for line in self.lines.values_mut() {
            for host in &mut line.next {
                host.pings.remove(&index);
            }
            // What is pinged no more is looked at no more.
            line.next.retain(|h| !h.pings.is_empty());
            if line.next.is_empty() {
                line.left = 0;
            }
        }
    }

    /// What became of a regular ping: hosts that limit their answers are known by it.
    pub(super) fn hear(&mut self, observation: &Observation) {
        let (Observation::New(sample) | Observation::Revised(sample)) = observation;
        if matches!(sample.status, Status::Unsent | Status::Duplicate) {
            return;
        }
        for seen in &mut self.seen {
            let since_ns = sample.sent.saturating_since(seen.begun);
            if seen.is_settled
                || sample.sent < seen.begun
                || since_ns >= SPAN_NS
                || !seen.host.pings.contains(&sample.series)
            {
                continue;
            }
            seen.regular.sent += u64::from(matches!(observation, Observation::New(_)));
            seen.regular.answered += u64::from(sample.rtt_ns.is_some());
        }
    }

    /// An event has begun, or has become known only now that it is over; `hosts` are those that show what is wrong. Gives
    /// what belongs to it of what was seen before.
    pub(super) fn begins(
        &mut self,
        now: Monotonic,
        id: EventId,
        event: &Event,
        hosts: Vec<Wanted>,
    ) -> Vec<News> {
        let from_ns = event.start_ns.saturating_sub(EARLY_NS);
        let until_ns = event.end_ns.unwrap_or(u64::MAX);
        let family = OfFamily::of(event);
        let mut news = Vec::new();
        // Whether it has a look, and one that need not be repeated yet.
        let (mut is_seen, mut is_fresh) = (false, false);
        for seen in &mut self.seen {
            let address = seen.host.key.2;
            let is_there = seen.host.key.0 == event.interface && family.has_or_is_near(address);
            if is_there && seen.is_during(from_ns, until_ns) {
                if family.has(address) {
                    is_seen = true;
                    is_fresh |= now.saturating_since(seen.begun) < RECENT_NS;
                }
                // An event that is back may have it already.
                if !seen.events.contains(&id) {
                    seen.events.push(id);
                    news.extend(seen.news());
                }
            }
        }
        let is_late = match event.end_ns {
            None => !is_fresh,
            // What was too short to be seen, or is told when it is over.
            Some(end_ns) => !is_seen && now.as_nanos().saturating_sub(end_ns) < RECENT_NS,
        };
        if is_late {
            self.ask(now, &event.interface, Some((id, family)), hosts);
        }
        if event.end_ns.is_none()
            && let Some(line) = self.lines.get_mut(&event.interface)
        {
            line.open.insert(id, family);
        }
        news
    }

    /// An event is over.
    pub(super) fn ends(&mut self, id: EventId) {
        for line in self.lines.values_mut() {
            line.open.remove(&id);
        }
    }

    /// Nobody beyond an uplink answers any more; `hosts` are those that show it.
    pub(super) fn falls_silent(&mut self, now: Monotonic, interface: &str, hosts: Vec<Wanted>) {
        self.ask(now, interface, None, hosts);
        if let Some(line) = self.lines.get_mut(interface) {
            line.is_silent = true;
        }
    }

    /// Somebody does.
    pub(super) fn is_heard(&mut self, interface: &str) {
        if let Some(line) = self.lines.get_mut(interface) {
            line.is_silent = false;
        }
    }

    fn ask(
        &mut self,
        now: Monotonic,
        interface: &str,
        asked_by: Option<(EventId, OfFamily)>,
        mut hosts: Vec<Wanted>,
    ) {
        self.limited.retain(|_, until| now < *until);
        hosts.retain(|h| !self.limited.contains_key(&h.key));
        if hosts.is_empty() || !self.is_on || !self.has_line(now, interface) {
            return;
        }
        if let Some(line) = self.lines.get_mut(interface) {
            (line.next, line.left, line.asked_by) = (hosts, IN_ROW, asked_by);
        }
    }

    /// Nothing leads through this interface any more: its thread ends, and what it looks at is nobody's.
    pub(super) fn forget(&mut self, interface: &str) {
        self.lines.remove(interface);
        self.seen
            .retain(|s| s.found.is_some() || s.host.key.0 != interface);
    }

    /// Whether there can be looks through this interface.
    fn has_line(&mut self, now: Monotonic, interface: &str) -> bool {
        if self.lines.contains_key(interface) {
            return true;
        }
        match worker::start() {
            Ok(worker) => {
                let line = Line::new(now, worker);
                self.lines.insert(interface.to_owned(), line);
                true
            }
            Err(e) => {
                log::warn!("no close look through {interface}: {e}");
                false
            }
        }
    }

    /// Takes in what was found, and sends what is due.
    pub(super) fn tick(&mut self, now: Monotonic, uplinks: &BTreeMap<String, Way>) -> Vec<News> {
        let mut news = Vec::new();
        let mut back = Vec::new();
        for (interface, line) in &mut self.lines {
            match line.worker.as_ref().map(|w| w.returns.try_recv()) {
                Some(Ok(looked)) => {
                    line.is_out = false;
                    back.push((interface.clone(), looked));
                }
                Some(Err(TryRecvError::Disconnected)) => {
                    log::error!(
                        "there are no more close looks through {interface}: the thread that made them has ended, \
                         which is a fault of this program; please report it with what the journal says before, \
                         and restart"
                    );
                    (line.worker, line.is_out) = (None, false);
                }
                Some(Err(TryRecvError::Empty)) | None => {}
            }
        }
        for (interface, looked) in back {
            self.take(now, &interface, looked, &mut news);
        }
        self.seen
            .retain(|s| now.saturating_since(s.begun) < LOOK_NS);
        self.settle(now, &mut news);
        self.send(now, uplinks);
        news
    }

    fn take(&mut self, now: Monotonic, interface: &str, looked: Looked, news: &mut Vec<News>) {
        self.spent.add(now, interface, looked.bytes);
        for (key, found) in looked.found {
            let place = |s: &Seen| s.found.is_none() && s.host.key == key;
            let Some(i) = self.seen.iter().position(place) else {
                continue;
            };
            match found {
                Ok(found) => {
                    let seen = &mut self.seen[i];
                    (seen.begun, seen.found) = (looked.begun, Some(found));
                    news.extend(seen.news());
                }
                Err(why) => {
                    self.seen.remove(i);
                    if let Some(line) = self.lines.get_mut(interface) {
                        line.hinder(interface, why);
                    }
                }
            }
        }
    }

    /// What became of regular pings is known by now.
    fn settle(&mut self, now: Monotonic, news: &mut Vec<News>) {
        for seen in &mut self.seen {
            let over_ns = now.saturating_since(seen.begun);
            let Some(found) = seen.found.filter(|_| !seen.is_settled) else {
                continue;
            };
            if over_ns < SPAN_NS + SETTLED_NS {
                continue;
            }
            seen.is_settled = true;
            if bufferbane_core::look::is_limited(found.sent, found.answered, seen.regular) {
                let (interface, target, _) = &seen.host.key;
                log::info!(
                    "{target} through {interface} seems to limit how many echoes it answers: of {} quick ones {} were \
                     answered, and all regular pings; no close look at it for a day",
                    found.sent,
                    found.answered
                );
                let until = now.saturating_add(LIMITED_NS);
                self.limited.insert(seen.host.key.clone(), until);
            }
            if seen.regular.sent > 0 {
                news.extend(seen.news());
            }
        }
    }

    fn send(&mut self, now: Monotonic, uplinks: &BTreeMap<String, Way>) {
        for (interface, line) in &mut self.lines {
            let goes_on = line.is_silent || !line.open.is_empty();
            if line.left == 0 || line.is_out {
                continue;
            }
            if !self.is_on || (line.left < IN_ROW && !goes_on) {
                line.left = 0;
                continue;
            }
            let sent = line.next.iter().map(|h| most_bytes(h.key.2)).sum::<u64>();
            let room = self.rooms.get(interface).copied().unwrap_or(0);
            // There and back.
            if room < 2 * sent {
                self.skipped += 1;
                line.left = 0;
                line.hinder(
                    interface,
                    "what monthly_budget leaves has no room for it".into(),
                );
                continue;
            }
            let is_for_event = line.asked_by.is_some() || !line.open.is_empty();
            let may = line.worker.is_some() && line.looks.take(now, is_for_event);
            let Some(worker) = line.worker.as_ref().filter(|_| may) else {
                line.left = 0;
                continue;
            };
            let errand = Errand {
                way: Way::through(interface, uplinks),
                keys: line.next.iter().map(|h| h.key.clone()).collect(),
            };
            // That the thread has ended is noticed when it is listened to.
            if worker.errands.try_send(errand).is_err() {
                continue;
            }
            line.is_out = true;
            line.left -= 1;
            line.trouble = None;
            let mut events = line.open.clone();
            events.extend(line.asked_by.take());
            let events_of = |address| {
                let own = events.iter().filter(|(_, f)| f.has_or_is_near(address));
                own.map(|(id, _)| *id).collect()
            };
            for host in &line.next {
                if self.seen.len() >= KEPT {
                    self.seen.pop_front();
                }
                self.seen.push_back(Seen {
                    begun: now,
                    host: host.clone(),
                    events: events_of(host.key.2),
                    found: None,
                    regular: Regular::default(),
                    is_settled: false,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
