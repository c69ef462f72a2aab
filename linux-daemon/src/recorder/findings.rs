//! What is found in the samples: the load and the capacity of lines, and what detectors tell.

use bufferbane_core::detect::{self, Notice};
use bufferbane_core::household::{self, SURE};
use bufferbane_core::sample::SeriesIndex;
use bufferbane_core::time::Monotonic;
use bufferbane_store::{Capacity, Direction, LoadTest, Method, Protocol, SeriesInfo};

use super::past::Found;
use super::{Recorder, note, paths, sizes};
use crate::household::Heard;
use crate::watch::Known;

/// What so short a stretch of a load has carried says nothing of its line, ns: the load was ended where the
/// month's budget was used up.
const TOO_SHORT_NS: u64 = 1_000_000_000;

impl Recorder {
    /// Records what the uplinks carry and can carry, and tells the detectors.
    pub(super) fn household(&mut self, now: Monotonic) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        for heard in self.households.tick(now) {
            match heard {
                Heard::Load(interface, second, everybody) => {
                    self.watcher.load(&interface, second, everybody);
                }
                Heard::Capacity(interface, e) => {
                    let capacity = Capacity {
                        interface,
                        direction: if e.up { Direction::Up } else { Direction::Down },
                        method: Method::Passive,
                        burst_bps: e.rate_bps,
                        sustained_bps: Some(e.rate_bps),
                        confidence: e.confidence,
                        events: Vec::new(),
                    };
                    if e.confidence >= SURE {
                        let for_ns = detect::Capacity::MOMENT_NS;
                        self.watcher.capacity(e.at, &capacity, 0, for_ns);
                    }
                    if e.is_news {
                        writer.capacity(e.at, capacity);
                    }
                }
                Heard::Minute(interface, begin, minute) => {
                    if let Err(e) = writer.load_minute(begin, &interface, &minute) {
                        log::error!("{interface}: a minute of load is not recorded: {e}");
                    }
                }
            }
        }
    }

    /// Records a throughput test, and tells the detectors; what it says holds for `speaks_for_ns`.
    pub(super) fn test(&mut self, test: LoadTest, speaks_for_ns: u64) {
        let Some(writer) = &mut self.writer else {
            log::error!("a throughput test came before the store was open");
            return;
        };
        let for_ns = speaks_for_ns.max(detect::Capacity::MOMENT_NS);
        for (at, capacity, others_bps) in capacities(&test) {
            if tells(&test) {
                self.watcher.capacity(at, &capacity, others_bps, for_ns);
                if !household::shared(others_bps, capacity.burst_bps) {
                    let up = capacity.direction == Direction::Up;
                    self.households
                        .measured(&capacity.interface, up, capacity.burst_bps);
                }
            }
            writer.capacity(at, capacity);
        }
        writer.load_test(test);
        self.commit_soon = true;
    }

    /// What was found of a series and its interface before this run is what is found now is held against.
    pub(super) fn recall(&mut self, index: SeriesIndex, info: &SeriesInfo) {
        if let Some(hours) = self.past.take_hours(info, &self.settings.zone) {
            self.watcher.answered_before(index, hours);
        }
        let interface = info.interface.as_str();
        if let Some(past) = self.past.take(interface, &self.settings.zone) {
            for up in [true, false] {
                if let Some(bps) = carried_before(past.iter().map(|(_, f)| f), up) {
                    self.households.measured(interface, up, bps);
                }
            }
            self.watcher.recall(interface, past);
        }
    }

    /// Records what the detectors tell, and says it to the journal.
    pub(super) fn watch(&mut self, now: Monotonic) {
        // Until the store is open nothing is recorded, and so nothing watched.
        if self.writer.is_some() {
            let news = self.watcher.news(now);
            self.tell(now, news);
        }
    }

    /// The same where recording ends, of what nothing more can be known.
    pub(super) fn watch_ends(&mut self, now: Monotonic) {
        let news = self.watcher.end(now);
        self.tell(now, news);
    }

    fn tell(&mut self, now: Monotonic, news: Vec<Notice>) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        for notice in news {
            let mut event = self.watcher.event(writer.boot(), &notice);
            if self.watcher.is_of_line(&notice) {
                self.asked.line_event(now, &event.interface, &notice);
            } else {
                // Targets may have come or gone since it was.
                self.asked.line_event_ends(&event.interface, &notice);
            }
            let known = self.watcher.told_before(&notice);
            let watcher = &self.watcher;
            let tell = |notice: &Notice| watcher.event(writer.boot(), notice);
            let hold_down_ns = self.settings.alerts.thresholds.hold_down_ns;
            let carried = self.carry.notice(&notice, hold_down_ns, &mut event, tell);
            let known = known.or(carried);
            if known.is_none()
                && event.kind == "route_change"
                && let Some((id, event)) = self.routes.told_by_walk(&event)
            {
                log::info!("{}", event.text);
                let part = Known::part(id, &event, event.start_ns);
                self.watcher.remember(&notice, part);
                writer.update_event(id, event);
                self.commit_soon = true;
                continue;
            }
            let told = (&self.open_events, &self.told_holes);
            if let Some(part) = sizes::told_by_search(&mut self.sizes, told, now, known, &mut event)
            {
                self.watcher.remember(&notice, part);
                continue;
            }
            self.down.explain(&mut event);
            let radios = self.households.radios();
            radios.explain(&mut event, known.map(|k| k.id));
            let over = event.end_ns.is_some();
            // Both edges are made durable at once; what changes between them can wait.
            self.commit_soon |= known.is_none() || over;
            let id = match known {
                Some(known) => {
                    if event.kind == "route_change" {
                        let news = self.routes.update(known.id, &mut event);
                        self.walks.rerouted_to(now, &event.interface, &news);
                    }
                    event = self.faults.tell(known.id, event);
                    writer.update_event(known.id, event.clone());
                    known.id
                }
                None => {
                    let id = writer.event(event.clone());
                    event = self.faults.tell(id, event);
                    if event.kind == "route_change" {
                        let all = self.routes.begin(id, &event);
                        self.walks.rerouted_to(now, &event.interface, &all);
                    }
                    id
                }
            };
            self.watcher.remember(&notice, Known::own(id, &event));
            self.households.radios().follow(id, &event);
            sizes::follow(
                &mut self.sizes,
                &self.open_events,
                &mut self.told_holes,
                now,
                (id, &event),
            );
            note(&self.status, &self.meters, id, &event);
            self.alerts.update(known, id, &event);
            match known {
                None => {
                    let seen_at = self.watcher.seen_at(&notice);
                    let looks = self.walks.begins(now, id, &event, seen_at);
                    for (id, event) in self.faults.learn(&looks) {
                        note(&self.status, &self.meters, id, &event);
                        writer.update_event(id, event);
                    }
                    paths::record(writer, looks);
                }
                Some(_) if over => self.walks.ends(now, id),
                Some(_) => {}
            }
        }
    }
}

/// What a line carried one way in earlier runs, bit/s: the most that its own traffic has shown since the last test that
/// it had to itself, or what that found, whichever is more. `past` is in the order of time.
pub(super) fn carried_before<'a>(past: impl Iterator<Item = &'a Found>, up: bool) -> Option<u64> {
    past.fold(None, |known, found| {
        let Capacity {
            direction,
            method,
            sustained_bps,
            ..
        } = found.capacity;
        let is_of_way = (direction == Direction::Up) == up;
        let bps = sustained_bps.filter(|_| is_of_way);
        match (method, bps) {
            (Method::Test, Some(bps)) if !household::shared(found.others_bps, bps) => Some(bps),
            (Method::Passive, Some(bps)) => known.max(Some(bps)),
            _ => known,
        }
    })
}

/// Whether a test says what its line can, to detectors and baselines: somebody who runs one may well
/// use the line meanwhile, and a reflector that only stands in for another may be the slower end of the two.
pub(super) fn tells(test: &LoadTest) -> bool {
    test.asked_by == "schedule" && test.instead_of.is_empty()
}

/// What a test found its line to carry, and what others carried meanwhile, bit/s, where it is one that tells.
pub(crate) fn told_rates_bps(test: &LoadTest) -> Option<(u64, u64)> {
    let found = capacities(test).next().filter(|_| tells(test));
    found.map(|(_, capacity, others_bps)| (capacity.burst_bps, others_bps))
}

/// What a test says of the capacity of each direction, where it loaded one alone, and not at a rate that
/// somebody chose: what its streams carried, with the headers of Ethernet, IPv4 and TCP that an interface counts too;
/// and what others carried meanwhile, bit/s, as far as that is known.
pub(super) fn capacities(
    test: &LoadTest,
) -> impl Iterator<Item = (Monotonic, Capacity, u64)> + use<'_> {
    const FRAME: u64 = 1514;
    const PAYLOAD: u64 = 1448;
    let steady_ns = test
        .load_end_ns
        .saturating_sub(test.load_start_ns + test.ramp_ns);
    let is_full =
        test.ways.len() == 1 && test.protocol == Protocol::Tcp && steady_ns >= TOO_SHORT_NS;
    let alone = test.ways.iter().filter(move |_| is_full);
    alone.map(|way| {
        let rate_bps = way.mean_bps * FRAME / PAYLOAD;
        let spread = way.p90_bps.saturating_sub(way.p10_bps) as f64 / way.mean_bps.max(1) as f64;
        let capacity = Capacity {
            interface: test.interface.clone(),
            direction: way.direction,
            method: Method::Test,
            burst_bps: rate_bps,
            sustained_bps: Some(rate_bps),
            confidence: (1.0 - spread).clamp(0.3, 0.95),
            events: Vec::new(),
        };
        let at = Monotonic::from_nanos(test.load_end_ns);
        (at, capacity, way.others_bps.unwrap_or(0))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bufferbane_core::detect::Thresholds;
    use bufferbane_core::sample::{Observation, Sample, SeriesIndex, Status};
    use bufferbane_core::time::Monotonic;
    use bufferbane_store::{SeriesInfo, SeriesKind};

    use super::super::Order;
    use super::super::testing::{any_room, recorder, series};
    use crate::alerts::Alerts;
    use crate::watch::Watcher;

    const S: u64 = 1_000_000_000;

    /// A line that loses one in forty, and later one in four, until it is well.
    #[test]
    fn who_hears_of_critical_events_only_hears_of_what_becomes_one_and_of_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let hook = |name: &str, severity: &str| {
            format!(
                "[[alerts.hook]]\nkinds = [\"packet_loss\"]\nseverity = \"{severity}\"\n\
                 program = [\"/bin/sh\", \"-c\", \"cat >> {0}; echo >> {0}\"]\n",
                file(name).display()
            )
        };
        let text = hook("warning", "warning") + &hook("critical", "critical");
        let config = crate::config::parse("it", &text, dir.path()).unwrap();
        let mut recorder = recorder(&file("store.redb"), any_room());
        recorder.alerts = Alerts::start(&config.config.alerts);
        recorder.watcher = Watcher::new(Monotonic::ZERO, Thresholds::default());
        let info = SeriesInfo {
            interval_ns: S / 20,
            ..series(SeriesKind::Icmp)
        };
        recorder.obey(Order::Series(SeriesIndex(0), info));
        for n in 0..1100 * 20 {
            let one_of = match n / 20 {
                100..400 => 40,
                400..500 => 4,
                _ => u64::MAX,
            };
            let sent = Monotonic::from_nanos(n * (S / 20));
            let mut sample = Sample::lost(SeriesIndex(0), n, sent, 64);
            if n % one_of != 1 {
                sample.status = Status::Ok;
                sample.rtt_ns = Some(20_000_000);
            }
            recorder.obey(Order::Observation(Observation::New(sample)));
            recorder.watch(sent);
        }
        let told = |name: &str| {
            let all = std::fs::read_to_string(file(name)).unwrap_or_default();
            let lines = all.lines().filter(|l| !l.is_empty());
            let alerts = lines.filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
            let word = |a: &serde_json::Value, name| a[name].as_str().unwrap_or("").to_owned();
            alerts
                .map(|a| [word(&a, "phase"), word(&a, "severity")].join(" "))
                .collect::<Vec<_>>()
        };
        for _ in 0..2000 {
            if told("warning").len() >= 3 && told("critical").len() >= 2 {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let all = ["begin warning", "begin critical", "end critical"];
        assert_eq!(told("warning"), all);
        assert_eq!(told("critical"), ["begin critical", "end critical"]);
    }
}
