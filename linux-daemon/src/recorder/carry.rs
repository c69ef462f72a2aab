//! Trouble that lasted when the run before ended: what still lasts is the same event, and of the rest the end is told.

use std::collections::HashMap;

use bufferbane_core::detect::{Notice, Phase};
use bufferbane_core::time::Monotonic;
use bufferbane_store::{Event, EventId, Writer};
use serde_json::Value;

use super::past::Recent;
use super::{Fact, Recorder, SECOND_NS, again};
use crate::watch::Known;

/// These are of the line, whoever shows them.
const OF_LINE: [&str; 4] = [
    "outage",
    "bufferbloat",
    "upload_degraded",
    "download_degraded",
];
/// These are each told by itself, or counted elsewhere.
const ALONE: [&str; 2] = ["micro_outage", "route_change"];
/// Detectors may know only so much later of what began within the hold-down, ns.
const PATIENCE_NS: u64 = 60 * SECOND_NS;
/// Who is asked from the begin on has been by then, ns.
const BEGIN_NS: u64 = 10 * SECOND_NS;
/// Of evenings it is known the next one whether they are as bad as before, ns.
const EVENING_NS: u64 = 25 * 3600 * SECOND_NS;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Carry {
    /// What may still last, or be back.
    before: Vec<Recent>,
    /// What detectors tell of it, by the number of their notices.
    told: HashMap<u32, (EventId, Event)>,
    /// When recording began.
    begun: Monotonic,
}

impl Carry {
    /// The number of an event that begins, with what was told of it before: it may have lasted when recording ended, or have
    /// just been over.
    pub(super) fn begin(
        &mut self,
        writer: &mut Writer,
        hold_down_ns: u64,
        event: &mut Event,
    ) -> (EventId, Option<Known>) {
        let Some((id, before)) = self.take(event, hold_down_ns) else {
            return (writer.event(event.clone()), None);
        };
        join(event, &before);
        writer.update_event(id, event.clone());
        (id, Some(known(id, &before)))
    }

    /// The same of what detectors tell: `event` is what `notice` says, and `tell` says it of another begin. `None` where it
    /// is of this run.
    pub(super) fn notice(
        &mut self,
        notice: &Notice,
        hold_down_ns: u64,
        event: &mut Event,
        tell: impl Fn(&Notice) -> Event,
    ) -> Option<Known> {
        if notice.phase == Phase::Begin {
            let taken = self.take(event, hold_down_ns)?;
            self.told.insert(notice.id, taken);
        }
        let (id, before) = self.told.get(&notice.id)?;
        let mut longer = notice.clone();
        let start = Monotonic::from_nanos(before.start_ns);
        longer.event.start = start.min(notice.event.start);
        *event = tell(&longer);
        join(event, before);
        Some(known(*id, before))
    }

    /// Whether what is so when recording begins was so when it ended.
    pub(super) fn has(&self, event: &Event) -> bool {
        self.before.iter().any(|b| is_same(&b.event, event))
    }

    /// What was told before of an event that begins now: it may have lasted when recording ended, or have just been over.
    fn find(&self, event: &Event, hold_down_ns: u64) -> Option<&Event> {
        let n = self.place(event, hold_down_ns)?;
        Some(&self.before[n].event)
    }

    fn take(&mut self, event: &Event, hold_down_ns: u64) -> Option<(EventId, Event)> {
        let n = self.place(event, hold_down_ns)?;
        let before = self.before.swap_remove(n);
        Some((before.id, before.event))
    }

    fn place(&self, event: &Event, hold_down_ns: u64) -> Option<usize> {
        let is_first = event.start_ns <= self.begun.saturating_add(BEGIN_NS).as_nanos();
        let is_it = |b: &Recent| {
            event.start_ns <= until_ns(&b.event, hold_down_ns)
                && (is_same(&b.event, event) || (is_first && has_grown(&b.event, event)))
        };
        self.before.iter().position(is_it)
    }

    /// What has not been seen again by now, once.
    fn over(&mut self, now: Monotonic, hold_down_ns: u64) -> Vec<Recent> {
        let waits = |b: &Recent| {
            now.as_nanos() <= until_ns(&b.event, hold_down_ns).saturating_add(PATIENCE_NS)
        };
        self.before.extract_if(.., |b| !waits(b)).collect()
    }
}

/// Until when what is the same is the same event, ns since boot.
fn until_ns(before: &Event, hold_down_ns: u64) -> u64 {
    let hold_ns = match before.kind.as_str() {
        "peak_hour_congestion" => hold_down_ns.max(EVENING_NS),
        _ => hold_down_ns,
    };
    before.end_ns.unwrap_or(0).saturating_add(hold_ns)
}

/// Whether both are the same trouble of the same place.
fn is_same(a: &Event, b: &Event) -> bool {
    if (&a.kind, &a.interface) != (&b.kind, &b.interface) || ALONE.contains(&a.kind.as_str()) {
        return false;
    }
    if OF_LINE.contains(&a.kind.as_str()) {
        return true;
    }
    let names = |e: &Event| e.values.get("targets").and_then(Value::as_array).cloned();
    let is_equal = |name| a.values.get(name) == b.values.get(name);
    match names(a).zip(names(b)) {
        Some((a, b)) => is_equal("family") && a.iter().any(|name| b.contains(name)),
        None => is_equal("address") && again::key(a) == again::key(b),
    }
}

/// Whether a silence that had just begun when recording ended is this one, which lasts since it began again.
fn has_grown(before: &Event, event: &Event) -> bool {
    let kinds = (before.kind.as_str(), event.kind.as_str());
    before.cut && before.interface == event.interface && kinds == ("micro_outage", "outage")
}

/// Makes `event`, which `before` was when recording ended, one with it.
fn join(event: &mut Event, before: &Event) {
    event.start_ns = event.start_ns.min(before.start_ns);
    event.severity = event.severity.max(before.severity);
    event.direction = event.direction.or(before.direction);
    // Those of what comes and goes say how often.
    if before.values.contains_key("times") {
        event.text.clone_from(&before.text);
    }
    for (name, value) in &before.values {
        event.values.entry(name).or_insert_with(|| value.clone());
    }
}

/// What others know of an event of the run before.
fn known(id: EventId, before: &Event) -> Known {
    Known {
        is_over: !before.cut,
        ..Known::own(id, before)
    }
}

impl Recorder {
    /// What lasted when the run before ended may still last in this boot; of what was of another boot, the end is told.
    pub(super) fn recall_events(&mut self, now: Monotonic) {
        let Some(boot) = self.writer.as_ref().map(Writer::boot) else {
            return;
        };
        let recent = self.past.take_recent();
        let (own, others): (Vec<_>, Vec<_>) =
            recent.into_iter().partition(|b| b.event.boot == boot);
        for b in own.iter().chain(&others).filter(|b| b.event.cut) {
            self.alerts.recall(b.id, &b.event);
        }
        for b in others.into_iter().filter(|b| b.event.cut) {
            self.end_cut(b);
        }
        (self.carry.before, self.carry.begun) = (own, now);
        self.end_carried(now);
        // Facts that were over are looked for there.
        let is_over =
            |b: &mut Recent| !b.event.cut && again::KINDS.contains(&b.event.kind.as_str());
        for mut b in self.carry.before.extract_if(.., is_over) {
            self.again.over(b.id, &mut b.event);
        }
    }

    /// Tells the end of what has not been seen again within the hold-down.
    pub(super) fn end_carried(&mut self, now: Monotonic) {
        let hold_down_ns = self.settings.alerts.thresholds.hold_down_ns;
        for b in self.carry.over(now, hold_down_ns) {
            if b.event.cut {
                self.end_cut(b);
            }
        }
    }

    fn end_cut(&mut self, b: Recent) {
        let Recent {
            id,
            mut event,
            lasted,
        } = b;
        event.cut = false;
        event.values.insert("recording_ended".into(), true.into());
        event.text.push_str("; it lasted when recording ended");
        self.alerts.ends_of_before(id, &event, lasted);
        if let Some(writer) = &mut self.writer {
            writer.update_event(id, event);
            self.commit_soon = true;
        }
    }

    /// What the run before told of `fact`, where that begins `at` and is the same event.
    pub(super) fn told_before(&self, at: Monotonic, fact: &Fact) -> Option<&Event> {
        let boot = self.writer.as_ref()?.boot();
        let hold_down_ns = self.settings.alerts.thresholds.hold_down_ns;
        self.carry.find(&fact.clone().event(boot, at), hold_down_ns)
    }

    /// So it is when recording begins: that is told where it was so when it ended, and no news elsewhere.
    pub(super) fn still(&mut self, at: Monotonic, name: String, fact: Fact) {
        let Some(writer) = &self.writer else {
            self.waiting_still.push((at, name, fact));
            return;
        };
        if self.carry.has(&fact.clone().event(writer.boot(), at)) {
            self.fact(at, Some(name), fact, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use bufferbane_core::detect::Thresholds;
    use bufferbane_core::sample::{Observation, Sample, SeriesIndex, Status};
    use bufferbane_linux_io::clock;
    use bufferbane_store::{Reader, SeriesInfo, SeriesKind, Severity, Trust};

    use super::super::testing::{any_room, open, series, unopened};
    use super::*;
    use crate::alerts::Alerts;
    use crate::recorder::Order;
    use crate::watch::Watcher;

    /// A daemon that is started again and again, and what a hook of it is told.
    struct Host {
        dir: tempfile::TempDir,
        now: Monotonic,
    }

    impl Host {
        fn new() -> Self {
            Self {
                dir: tempfile::tempdir().unwrap(),
                now: clock::now(),
            }
        }

        fn store(&self) -> PathBuf {
            self.dir.path().join("store.redb")
        }

        fn told_in(&self) -> PathBuf {
            self.dir.path().join("told")
        }

        fn start(&self) -> Recorder {
            let text = format!(
                "[[alerts.hook]]\nseverity = \"warning\"\n\
                 program = [\"/bin/sh\", \"-c\", \"cat >> {0}; echo >> {0}\"]\n",
                self.told_in().display()
            );
            let config = crate::config::parse("it", &text, self.dir.path()).unwrap();
            let mut recorder = unopened(&self.store());
            recorder.alerts = Alerts::start(&config.config.alerts);
            open(&mut recorder, any_room());
            recorder
        }

        /// What was told by now: phase, number, and whether only recording ended.
        fn told(&self, at_least: usize) -> Vec<(String, u64, bool)> {
            for _ in 0..1000 {
                if lines(&self.told_in()).len() >= at_least {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let alerts = lines(&self.told_in()).into_iter().map(|alert| {
                let phase = alert["phase"].as_str().unwrap().to_owned();
                let ended = alert["values"].get("recording_ended").is_some();
                (phase, alert["id"].as_u64().unwrap(), ended)
            });
            alerts.collect()
        }

        fn after(&self, seconds: u64) -> Monotonic {
            self.now.saturating_add(seconds * SECOND_NS)
        }
    }

    fn lines(file: &Path) -> Vec<Value> {
        let all = std::fs::read_to_string(file).unwrap_or_default();
        let lines = all.lines().filter(|l| !l.is_empty());
        lines.filter_map(|l| serde_json::from_str(l).ok()).collect()
    }

    fn link_down() -> (String, Fact) {
        let fact = Fact {
            values: Vec::new(),
            kind: "link_down",
            severity: Severity::Warning,
            interface: "wan".into(),
            target: None,
            text: "interface wan went down".into(),
        };
        ("link_down wan".into(), fact)
    }

    fn begin() -> Order {
        let (name, fact) = link_down();
        Order::Begin(clock::now(), name, fact)
    }

    fn still() -> Order {
        let (name, fact) = link_down();
        Order::Still(clock::now(), name, fact)
    }

    fn told(all: &[(&str, u64, bool)]) -> Vec<(String, u64, bool)> {
        let own = |(phase, id, ended): &(&str, u64, bool)| ((*phase).to_owned(), *id, *ended);
        all.iter().map(own).collect()
    }

    #[test]
    fn what_lasts_over_a_restart_is_one_event_with_one_begin_and_one_end() {
        let host = Host::new();
        let mut recorder = host.start();
        // What is down from the first is no news.
        recorder.obey(still());
        recorder.obey(begin());
        assert_eq!(host.told(1), told(&[("begin", 0, false)]));
        recorder.finish(clock::now());
        for n in 0..2 {
            let mut recorder = host.start();
            recorder.obey(if n == 0 { still() } else { begin() });
            recorder.end_carried(host.after(3600));
            let name = link_down().0;
            assert_eq!(recorder.open_events[&name].0, EventId(0));
            if n == 1 {
                recorder.obey(Order::End(clock::now(), name));
            }
            recorder.finish(clock::now());
        }
        let all = [("begin", 0, false), ("end", 0, false)];
        assert_eq!(host.told(2), told(&all));
        let events = Reader::open(&host.store()).unwrap();
        let events = events.events(i64::MIN, i64::MAX).unwrap();
        assert_eq!(events.len(), 1);
        assert!(!events[0].1.cut && !events[0].1.values.contains_key("times"));
    }

    /// Twenty probes a second of one target, from and to these seconds of the host: they are answered at once until
    /// `silent_s`, and known to be lost three seconds later.
    fn probe(recorder: &mut Recorder, host: &Host, (from_s, to_s): (u64, u64), silent_s: u64) {
        let info = SeriesInfo {
            interval_ns: SECOND_NS / 20,
            ..series(SeriesKind::Icmp)
        };
        recorder.obey(Order::Series(SeriesIndex(0), info));
        for n in from_s * 20..to_s * 20 {
            let now = host.now.saturating_add(n * (SECOND_NS / 20));
            let mut sample = Sample::lost(SeriesIndex(0), n, now, 64);
            if n < silent_s * 20 {
                sample.status = Status::Ok;
                sample.rtt_ns = Some(20_000_000);
            } else {
                sample.sent = now.saturating_sub(3 * SECOND_NS);
            }
            if n < silent_s * 20 || n >= (from_s.max(silent_s) + 3) * 20 {
                recorder.obey(Order::Observation(Observation::New(sample)));
            }
            recorder.watch(now);
        }
    }

    /// The line dies five seconds before a restart, and lives again or not.
    #[test]
    fn a_silence_that_has_just_begun_at_a_restart_is_told_and_told_on() {
        for lasts in [true, false] {
            let host = Host::new();
            let mut recorder = host.start();
            // Detectors begin when the host does.
            recorder.watcher = Watcher::new(host.now, Thresholds::default());
            probe(&mut recorder, &host, (0, 65), 60);
            recorder.finish(host.after(65));
            let mut recorder = host.start();
            recorder.carry.begun = host.after(66);
            recorder.watcher = Watcher::new(host.after(66), Thresholds::default());
            let silent_s = if lasts { 66 } else { 999 };
            probe(&mut recorder, &host, (66, 96), silent_s);
            recorder.end_carried(host.after(9999));
            recorder.finish(host.after(96));
            let events = Reader::open(&host.store()).unwrap();
            let events = events.events(i64::MIN, i64::MAX).unwrap();
            let [(_, event)] = &events[..] else {
                panic!("{events:?}");
            };
            assert_eq!(event.start_ns, host.after(60).as_nanos());
            let (kind, end_s) = if lasts {
                ("outage", 96)
            } else {
                ("micro_outage", 65)
            };
            assert_eq!(event.kind, kind);
            assert_eq!(
                (event.end_ns, event.cut),
                (Some(host.after(end_s).as_nanos()), lasts)
            );
        }
    }

    #[test]
    fn what_is_not_there_any_more_ends_once_and_where_recording_ended() {
        let host = Host::new();
        let mut recorder = host.start();
        recorder.obey(begin());
        let end = host.after(100);
        recorder.finish(end);
        let mut recorder = host.start();
        // It might yet be seen again; a second restart changes nothing of that.
        recorder.end_carried(host.after(399));
        recorder.finish(host.after(200));
        let mut recorder = host.start();
        recorder.end_carried(host.after(461));
        let all = [("begin", 0, false), ("end", 0, true)];
        assert_eq!(host.told(2), told(&all));
        recorder.finish(host.after(500));
        let events = Reader::open(&host.store()).unwrap();
        let events = events.events(i64::MIN, i64::MAX).unwrap();
        let (_, first) = &events[0];
        assert_eq!((first.end_ns, first.cut), (Some(end.as_nanos()), false));
        assert!(first.text.ends_with("; it lasted when recording ended"));
    }

    /// Of a boot that ended without a word: the host was switched off.
    #[test]
    fn what_lasted_in_another_boot_is_over_with_it() {
        let host = Host::new();
        let mut writer = Writer::open(&host.store(), any_room()).unwrap();
        let wall_ns = clock::wall_now() - 60 * SECOND_NS as i64;
        let at = Monotonic::from_nanos(5 * SECOND_NS);
        let boot = writer.begin_boot("another", at, wall_ns, Trust::Plausible);
        writer.event(link_down().1.event(boot.unwrap(), at));
        writer.commit().unwrap();
        drop(writer);
        let recorder = host.start();
        assert_eq!(host.told(1), told(&[("end", 0, true)]));
        let [alert] = &lines(&host.told_in())[..] else {
            panic!("one");
        };
        let wall = jiff::Timestamp::from_nanosecond(wall_ns.into()).unwrap();
        assert_eq!(alert["start"], format!("{wall:.9}"));
        recorder.finish(clock::now());
        let recorder = host.start();
        recorder.finish(clock::now());
        assert_eq!(host.told(1).len(), 1);
    }
}
