//! What events ask for: a walk and a close look when they begin, or when they are told, and another walk when they are over.

use std::net::IpAddr;

use bufferbane_core::sample::SeriesIndex;
use bufferbane_core::time::Monotonic;
use bufferbane_store::{Event, EventId, Look, PathEnd};

use super::concerned::About;
use super::line::Asked;
use super::start::Start;
use super::worker::Thoroughness;
use super::{News, S, Walks};
use crate::errands::Key;

/// What was seen this long before an event began may belong to it, ns: edges are not exact.
pub(super) const EARLY_NS: u64 = S;
/// A look this recent need not be repeated, and what was over this recently is worth one, ns.
pub(super) const RECENT_NS: u64 = 30 * S;

/// Kinds of events that are worth a look at the way.
const KINDS: [(&str, Thoroughness); 18] = {
    use Thoroughness::{Exact, Quick};
    [
        ("latency_spike", Exact),
        ("high_jitter", Exact),
        ("packet_loss", Exact),
        ("loss_burst", Exact),
        ("periodic_loss", Exact),
        // Where nothing passes, what counts is where the way ends, and it may end soon.
        ("micro_outage", Quick),
        ("outage", Quick),
        ("routing_fault", Exact),
        ("interface_differs", Exact),
        ("family_differs", Exact),
        ("reflector_lost", Quick),
        ("bufferbloat", Exact),
        ("upload_degraded", Exact),
        ("download_degraded", Exact),
        ("mtu_black_hole", Quick),
        ("dns_slow", Exact),
        ("dns_failing", Quick),
        ("tcp_unstable", Quick),
    ]
};

/// What was seen when something looked wrong: events may still turn out to belong to it.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) at: Monotonic,
    pub(super) look: Look,
    pub(super) how: Thoroughness,
    pub(super) start: Option<Start>,
}

impl Seen {
    /// What is to be recorded of it.
    pub(super) fn news(&self) -> impl Iterator<Item = News> {
        let start = self.start.map(|s| News::Start(self.look.events.clone(), s));
        [News::Look(self.at, self.look.clone())]
            .into_iter()
            .chain(start)
    }
}

/// The event that a single target shows: no other way says anything of it.
const OF_ONE: &str = "routing_fault";

/// Who shows that something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Nobody in particular: the event's target, or anybody through its interface.
    Anybody,
    /// What this series goes to.
    Series(SeriesIndex),
    /// A service at this address, which may not be pinged.
    Host(IpAddr),
}

impl From<Option<SeriesIndex>> for Shown {
    fn from(series: Option<SeriesIndex>) -> Self {
        series.map_or(Self::Anybody, Self::Series)
    }
}

impl Walks {
    /// An event has begun, or has become known only now that it is over. Gives what belongs to it of what was seen
    /// before.
    pub(crate) fn begins(
        &mut self,
        now: Monotonic,
        id: EventId,
        event: &Event,
        shown: impl Into<Shown>,
    ) -> Vec<News> {
        let Some((_, how)) = KINDS.iter().find(|(kind, _)| *kind == event.kind) else {
            return Vec::new();
        };
        let about = About::event(event, shown.into());
        let worst = self.worst(about);
        let mut news = Vec::new();
        let from = event.start_ns.saturating_sub(EARLY_NS);
        let until = event.end_ns.unwrap_or(u64::MAX);
        // Whether it has a look, and one that need not be repeated yet.
        let (mut is_seen, mut is_fresh) = (false, false);
        let fits = |key: (&str, IpAddr), at_least: Thoroughness| {
            let is_its = worst.as_ref().is_some_and(|w| (w.1.as_str(), w.2) == key);
            event.kind != OF_ONE || (is_its && at_least >= *how)
        };
        for seen in &mut self.looks {
            let path = &seen.look.path;
            let during = (from..=until).contains(&seen.at.as_nanos());
            if path.interface == event.interface && about.is_of_family(path.address) && during {
                if fits((&path.target, path.address), seen.how) {
                    is_seen = true;
                    is_fresh |= now.saturating_since(seen.at) < RECENT_NS;
                }
                // An event that is back may have it already.
                if !seen.look.events.contains(&id) {
                    seen.look.events.push(id);
                    news.extend(seen.news());
                }
            }
        }
        let line = self.lines.get_mut(&event.interface);
        for asked in line
            .into_iter()
            .flat_map(|l| l.asked.iter_mut().chain(&mut l.out))
        {
            // What waits comes before the event is over, or does not matter to it.
            let during = match asked.begun {
                Some(at) => (from..=until).contains(&at.as_nanos()),
                None => event.end_ns.is_none(),
            };
            if during
                && about.is_of_family(asked.key.2)
                && let Some(events) = &mut asked.events
            {
                if !events.contains(&id) {
                    events.push(id);
                }
                if asked.begun.is_none() {
                    asked.how = asked.how.max(*how);
                }
                if fits((&asked.key.1, asked.key.2), asked.how) {
                    (is_seen, is_fresh) = (true, true);
                }
            }
        }
        let is_late = match event.end_ns {
            None => !is_fresh,
            // What was too short to be seen, or is told when it is over: what the way is like right after it.
            Some(end_ns) => !is_seen && now.as_nanos().saturating_sub(end_ns) < RECENT_NS,
        };
        if is_late && let Some(key) = worst {
            self.ask(now, key, vec![id], *how);
        } else if event.end_ns.is_some() {
            self.ends(now, id);
        }
        let hosts = self.concerned(about);
        news.extend(self.close.begins(now, id, event, hosts));
        news
    }

    /// An event is over: where its way ended early, it is walked once more.
    pub(crate) fn ends(&mut self, now: Monotonic, id: EventId) {
        self.close.ends(id);
        let cut = |s: &&Seen| s.look.events.contains(&id) && s.look.path.end != PathEnd::Target;
        if let Some(seen) = self.looks.iter().rev().find(cut) {
            let path = &seen.look.path;
            let key = (path.interface.clone(), path.target.clone(), path.address);
            self.ask(now, key, vec![id], Thoroughness::Quick);
        }
    }

    /// Has a way walked soon, because of these events; of none, where an uplink has fallen silent.
    pub(super) fn ask(
        &mut self,
        now: Monotonic,
        key: Key,
        events: Vec<EventId>,
        how: Thoroughness,
    ) {
        if let Some(line) = self.lines.get_mut(&key.0)
            && line.worker.is_some()
            && line.looks.take(now, !events.is_empty())
        {
            line.asked.push_back(Asked {
                key,
                events: Some(events),
                how,
                begun: None,
            });
        }
    }
}

#[cfg(test)]
impl Walks {
    /// The addresses whose ways are to be walked soon because something looks wrong.
    pub(crate) fn urgent(&self) -> Vec<IpAddr> {
        let asked = self.lines.values().flat_map(|l| &l.asked);
        asked.map(|a| a.key.2).collect()
    }
}
