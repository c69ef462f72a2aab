//! Keeps watch: feeds what is recorded to the detectors of core, and makes events for people of what
//! they tell.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use bufferbane_core::clock::Queueing;
use bufferbane_core::detect::cable::Record;
use bufferbane_core::detect::{
    Capacity, Direction, Kind, LineState, Load, MAX_LINES, MAX_SERIES, Notice, Phase, Probe, Role,
    SeriesFacts, SeriesState, Severity, Thresholds, Value, Watch, clipped,
};
use bufferbane_core::household::Second;
use bufferbane_core::sample::{Sample, SeriesIndex};
use bufferbane_core::time::Monotonic;
use bufferbane_store::{Event, EventId, SeriesInfo, SeriesKind};

use crate::config::timeout_ns;
use crate::episode::Loads;
use crate::recorder::Found;
use crate::scout::MODEM;

/// Events that may still change.
const OPEN: usize = 256;

/// One series as it is watched.
struct Watched {
    place: u8,
    interface: String,
    target: String,
    near: bool,
}

/// See the module.
pub(crate) struct Watcher {
    watch: Watch<Vec<SeriesState>, Vec<LineState>>,
    series: HashMap<SeriesIndex, Watched>,
    lines: Vec<String>,
    targets: Vec<String>,
    /// What has been told and may change, by its number in the watch.
    told: BTreeMap<u32, EventId>,
    full: bool,
    loads: Loads,
    /// Lines that are surely no cables.
    mobile: BTreeSet<u8>,
}

impl Watcher {
    pub(crate) fn new(now: Monotonic, thresholds: Thresholds) -> Self {
        Self {
            watch: Watch::new(
                now,
                thresholds,
                // One by one: clones of an empty one would be written out whole, and their memory with
                // them taken up.
                std::iter::repeat_with(SeriesState::default)
                    .take(MAX_SERIES)
                    .collect(),
                std::iter::repeat_with(LineState::default)
                    .take(MAX_LINES)
                    .collect(),
            ),
            series: HashMap::new(),
            lines: Vec::new(),
            targets: Vec::new(),
            told: BTreeMap::new(),
            full: false,
            loads: Loads::default(),
            mobile: BTreeSet::new(),
        }
    }

    /// A series that is probed from now on.
    pub(crate) fn add(&mut self, now: Monotonic, index: SeriesIndex, info: &SeriesInfo) {
        self.remove(now, index);
        if info.kind.asks_a_service() {
            // What a service takes, or fails to do, is not what the line does.
            return;
        }
        let facts = SeriesFacts {
            line: self.line(&info.interface),
            target: u16::try_from(number(&mut self.targets, &info.target)).unwrap_or(u16::MAX),
            role: role(info),
            family: info.family,
            size: info.size,
            interval_ns: info.interval_ns,
            timeout_ns: timeout_ns(info.interval_ns),
        };
        if info.interface_kind == "cellular" {
            self.mobile.insert(facts.line);
        }
        let Some(place) = self.watch.add_series(now, facts) else {
            if !std::mem::replace(&mut self.full, true) {
                log::warn!(
                    "{} is recorded but not watched: there is room for {MAX_SERIES} series of \
                     {MAX_LINES} interfaces",
                    info.label()
                );
            }
            return;
        };
        let watched = Watched {
            place,
            interface: info.interface.clone(),
            target: info.target.clone(),
            near: facts.role != Role::Far,
        };
        self.series.insert(index, watched);
    }

    /// A series is no longer probed.
    pub(crate) fn remove(&mut self, now: Monotonic, index: SeriesIndex) {
        if let Some(w) = self.series.remove(&index) {
            self.watch.remove_series(now, w.place);
            self.full = false;
        }
    }

    /// What became of a probe, with its queueing delay where that is known.
    pub(crate) fn sample(&mut self, sample: &Sample, queueing: Option<Queueing>) {
        if let Some(w) = self.series.get(&sample.series) {
            let mut probe = Probe::of(sample);
            probe.queue_up_ns = queueing.map(|q| clipped(q.up_ns));
            probe.queue_down_ns = queueing.map(|q| clipped(q.down_ns));
            self.watch.handle_probe(w.place, probe);
        }
    }

    /// More became known of one.
    pub(crate) fn revise(&mut self, sample: &Sample) {
        if let Some(w) = self.series.get(&sample.series) {
            self.watch.handle_revision(w.place, Probe::of(sample));
        }
    }

    /// A throughput test loads an interface from `at` on.
    pub(crate) fn load_begins(&mut self, interface: &str, at: Monotonic) {
        let line = self.line(interface);
        self.watch.handle_test_begin(line, at);
    }

    /// And no longer.
    pub(crate) fn load_ends(&mut self, interface: &str, at: Monotonic) {
        let line = self.line(interface);
        self.watch.handle_test_end(line, at);
    }

    /// A packet train is on its way through an interface from `at` on.
    pub(crate) fn train_begins(&mut self, interface: &str, at: Monotonic) {
        let line = self.line(interface);
        self.watch.handle_train_begin(line, at);
    }

    /// And no longer.
    pub(crate) fn train_ends(&mut self, interface: &str, at: Monotonic) {
        let line = self.line(interface);
        self.watch.handle_train_end(line, at);
    }

    /// A packet train found a line to pass at `rate_bps`.
    pub(crate) fn train(
        &mut self,
        at: Monotonic,
        found: &bufferbane_store::Capacity,
        rate_bps: u64,
    ) {
        let line = self.line(&found.interface);
        let found = Capacity {
            at,
            up: found.direction == bufferbane_store::Direction::Up,
            rate_bps,
            by_train: true,
            speaks_for_ns: Capacity::MOMENT_NS,
        };
        self.watch.handle_capacity(line, found);
    }

    /// What an interface carried over a second; whether that is everybody's traffic, so that little of
    /// it is an idle line.
    pub(crate) fn load(&mut self, interface: &str, second: Second, everybody: bool) {
        let line = self.line(interface);
        let load = Load {
            up_bps: second.up_bps,
            down_bps: second.down_bps,
        };
        self.watch.handle_load(line, second.at, load);
        self.loads.add(line, &second, everybody);
    }

    /// How much a line was found to carry, and for how long that speaks of it, ns.
    pub(crate) fn capacity(
        &mut self,
        at: Monotonic,
        found: &bufferbane_store::Capacity,
        speaks_for_ns: u64,
    ) {
        let line = self.line(&found.interface);
        let Some(rate_bps) = found.sustained_bps else {
            return;
        };
        let up = found.direction == bufferbane_store::Direction::Up;
        let found = Capacity {
            at,
            up,
            rate_bps,
            by_train: false,
            speaks_for_ns,
        };
        self.watch.handle_capacity(line, found);
        self.loads.measured(line, up, rate_bps);
    }

    /// What an interface was found to carry before this run, each with its local time, in the order of
    /// time.
    pub(crate) fn recall(&mut self, interface: &str, past: Vec<(Option<u64>, Found)>) {
        let line = self.line(interface);
        let past = past.into_iter().filter_map(|(local_ns, (wall_ns, found))| {
            let by_train = found.method == bufferbane_store::Method::Train;
            let rate_bps = if by_train {
                found.burst_bps
            } else {
                found.sustained_bps?
            };
            let found = Capacity {
                at: Monotonic::from_nanos(u64::try_from(wall_ns).ok()?),
                up: found.direction == bufferbane_store::Direction::Up,
                rate_bps,
                by_train,
                speaks_for_ns: Capacity::MOMENT_NS,
            };
            Some((local_ns, found))
        });
        self.watch.handle_past_capacities(line, past);
    }

    fn line(&mut self, interface: &str) -> u8 {
        u8::try_from(number(&mut self.lines, interface)).unwrap_or(u8::MAX)
    }

    /// Local time is monotonic time plus this, where the clock can be believed.
    pub(crate) const fn local_time(&mut self, offset_ns: Option<i64>) {
        self.watch.handle_local_time(offset_ns);
    }

    /// What is new by now.
    pub(crate) fn news(&mut self, now: Monotonic) -> Vec<Notice> {
        let mut news = Vec::new();
        loop {
            let more = self.watch.handle_timeout(now);
            news.extend(std::iter::from_fn(|| self.watch.poll_notice()));
            if !more {
                return news;
            }
        }
    }

    /// What lines that may be cables have shown, with their interfaces.
    pub(crate) fn records(&mut self) -> Vec<(String, Record)> {
        let records = std::iter::from_fn(|| self.watch.poll_record());
        records
            .filter(|r| !self.mobile.contains(&r.line))
            .filter_map(|r| Some((self.lines.get(usize::from(r.line))?.clone(), r)))
            .collect()
    }

    /// Recording ends: all that was summed up is told.
    pub(crate) fn end(&mut self, now: Monotonic) {
        self.watch.handle_end(now);
    }

    /// The event of a notice, as the store keeps it.
    pub(crate) fn event(&self, boot: u32, notice: &Notice) -> Event {
        let e = &notice.event;
        let mut targets: Vec<&str> = Vec::new();
        let (mut near, mut near_known) = (false, false);
        let line = self.lines.get(usize::from(e.line));
        for w in self.series.values() {
            let member = e.series.contains(w.place);
            near_known |= w.near && Some(&w.interface) == line;
            near |= w.near && member;
            if member && !targets.contains(&w.target.as_str()) {
                targets.push(&w.target);
            }
        }
        targets.sort_unstable();
        let severity = match e.severity {
            Severity::Info => bufferbane_store::Severity::Info,
            Severity::Warning => bufferbane_store::Severity::Warning,
            Severity::Critical => bufferbane_store::Severity::Critical,
        };
        let text = sentence(notice, &targets);
        let mut event = Event::new(e.kind.as_str(), severity, boot, e.start, text);
        event.interface = line.cloned().unwrap_or_default();
        if let [only] = targets[..] {
            event.target = Some(only.to_owned());
        }
        event.direction = e.direction.map(|d| match d {
            Direction::Up => bufferbane_store::Direction::Up,
            Direction::Down => bufferbane_store::Direction::Down,
            Direction::Both => bufferbane_store::Direction::Both,
        });
        event.end_ns = e.end.map(Monotonic::as_nanos);
        for (name, value) in &e.values {
            let value = match *value {
                Value::Number(n) => n.into(),
                Value::Ratio(r) => r.into(),
                Value::Word(w) => w.into(),
            };
            event.values.insert((*name).to_owned(), value);
        }
        event.values.insert("targets".into(), targets.into());
        if near_known {
            event.values.insert("near".into(), near.into());
        }
        if let Some(class) = self.loads.class(e) {
            event.values.insert("class".into(), class.into());
        }
        event
    }

    /// A series beyond the access line that shows a notice's event, where one does.
    pub(crate) fn seen_at(&self, notice: &Notice) -> Option<SeriesIndex> {
        let shows = |w: &Watched| !w.near && notice.event.series.contains(w.place);
        let all = self.series.iter().filter(|(_, w)| shows(w));
        all.map(|(index, _)| *index).min()
    }

    /// The store's number of what was told before, unless this is new.
    pub(crate) fn told_before(&self, notice: &Notice) -> Option<EventId> {
        self.told
            .get(&notice.id)
            .copied()
            .filter(|_| notice.phase != Phase::Begin)
    }

    /// It is in the store under this number from now on.
    pub(crate) fn remember(&mut self, notice: &Notice, id: EventId) {
        if self.told.len() >= OPEN {
            self.told.pop_first();
        }
        self.told.insert(notice.id, id);
    }
}

fn number(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|n| n == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
}

/// Whether a series is to a host beyond the access line, or may be.
pub(crate) fn is_far(info: &SeriesInfo) -> bool {
    role(info) == Role::Far
}

/// What a series stands for. What has a private address and is not a reflector is near if it answers
/// as fast: the gateway, whatever it is called, or another host of the house.
fn role(info: &SeriesInfo) -> Role {
    let Ok(ip) = info.address.parse::<IpAddr>() else {
        return Role::Far;
    };
    let private = match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    };
    if info.kind != SeriesKind::Icmp {
        Role::Far
    } else if ip == MODEM {
        Role::Modem
    } else if private {
        Role::Gateway { private }
    } else {
        Role::Far
    }
}

/// A stretch of time of a detector's windows.
fn within(ns: u64) -> String {
    match ns / 1_000_000_000 {
        s @ 0..=60 => format!("{s} s"),
        s => format!("{} min", s.div_ceil(60)),
    }
}

/// What happened, for people.
fn sentence(notice: &Notice, targets: &[&str]) -> String {
    let e = &notice.event;
    let get = |name: &str| e.values.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    let number = |name| match get(name) {
        Some(Value::Number(n)) => n,
        _ => 0,
    };
    let ratio = |name| match get(name) {
        Some(Value::Ratio(r)) => r,
        _ => 0.0,
    };
    let ms = |name| number(name) as f64 / 1e6;
    let way = match e.direction {
        Some(Direction::Up) => " on the way up",
        Some(Direction::Down) => " on the way down",
        Some(Direction::Both) => " both ways",
        None => "",
    };
    let whom = targets.join(", ");
    let lasted_s = e.end.map(|end| end.saturating_since(e.start) as f64 / 1e9);
    match e.kind {
        Kind::LatencySpike => format!(
            "delay to {whom} was {:.0} ms above its usual {:.0} ms{way}",
            ms("excess_ns"),
            ms("baseline_ns")
        ),
        Kind::HighJitter => format!(
            "delay to {whom} varies{way}: more than one in twenty neighbouring probes differ by over \
             {:.0} ms",
            ms("p95_above_ns")
        ),
        Kind::PacketLoss => format!(
            "{:.1} % of the probes to {whom} were lost{way} within {}, surely more than {:.1} %",
            100.0 * ratio("loss"),
            within(number("within_ns")),
            100.0 * ratio("at_least")
        ),
        Kind::LossBurst => format!("probes to {whom} were lost in a row{way}"),
        Kind::PeriodicLoss => format!(
            "loss or delay to {whom} comes back every {:.2} s{way}",
            number("period_ns") as f64 / 1e9
        ),
        Kind::MicroOutage | Kind::Outage => match lasted_s {
            Some(s) => format!("no answer from anywhere for {s:.2} s"),
            None => "no answer from anywhere".to_owned(),
        },
        Kind::Bufferbloat => format!(
            "delay rose from {:.0} to {:.0} ms{way} under load",
            ms("idle_ns"),
            ms("loaded_ns")
        ),
        Kind::RoutingFault => format!("{whom} is bad while others are well"),
        Kind::InterfaceDiffers => "this interface is bad while another is well".to_owned(),
        Kind::FamilyDiffers => "one of IPv4 and IPv6 is bad while the other is well".to_owned(),
        Kind::MtuBlackHole => format!("large packets to {whom} vanish while small ones pass"),
        Kind::RouteChange => format!(
            "replies from {whom} arrive with TTL {} instead of {}",
            number("ttl_after"),
            number("ttl_before")
        ),
        Kind::PeakHourCongestion => format!(
            "evenings are slow, {} days in a row: {:.0} ms to {whom} instead of {:.0} ms at night{way}",
            number("days"),
            ms("evening_ns"),
            ms("night_ns")
        ),
        Kind::UploadDegraded | Kind::DownloadDegraded => format!(
            "the line carries {:.1} Mbit/s{way} instead of {:.1}",
            number("measured_bps") as f64 / 1e6,
            number("baseline_bps") as f64 / 1e6
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bufferbane_core::sample::Status;

    const S: u64 = 1_000_000_000;

    fn info(target: &str, address: &str) -> SeriesInfo {
        SeriesInfo {
            interface: "eth0".into(),
            interface_kind: "wired".into(),
            target: target.into(),
            kind: SeriesKind::Icmp,
            family: 4,
            dscp: 0,
            size: 64,
            interval_ns: S / 10,
            address: address.into(),
        }
    }

    /// A minute of two targets and the gateway, all but the gateway silent for the last half second of
    /// it, and ten seconds more.
    #[test]
    fn an_outage_of_the_line_is_told_with_the_gateway_well() {
        let mut w = Watcher::new(Monotonic::ZERO, Thresholds::default());
        let names = [
            ("gateway", "192.168.1.1"),
            ("quad9", "9.9.9.9"),
            ("cloudflare", "1.1.1.1"),
        ];
        for (i, (name, address)) in names.iter().enumerate() {
            w.add(Monotonic::ZERO, SeriesIndex(i as u16), &info(name, address));
        }
        let mut told = Vec::new();
        for n in 0..700u64 {
            for i in 0..3u16 {
                let sent = Monotonic::from_nanos(n * S / 10 + u64::from(i));
                let mut sample = Sample::lost(SeriesIndex(i), n, sent, 64);
                if i == 0 || !(595..600).contains(&n) {
                    sample.status = Status::Ok;
                    sample.rtt_ns = Some(if i == 0 { 500_000 } else { 20_000_000 });
                }
                w.sample(&sample, None);
            }
            told.extend(w.news(Monotonic::from_nanos(n * S / 10)));
        }
        assert_eq!(told.len(), 1, "{told:?}");
        let event = w.event(7, &told[0]);
        assert_eq!((event.kind.as_str(), event.boot), ("micro_outage", 7));
        assert_eq!(event.interface, "eth0");
        assert_eq!(event.start_ns, 595 * S / 10 + 1);
        assert_eq!(event.end_ns, Some(600 * S / 10 + 1));
        assert_eq!(event.values["gateway"], "well");
        assert_eq!(event.values["near"], false);
        assert!(event.text.contains("0.50 s"), "{}", event.text);
    }

    /// Five minutes of one target; for eight seconds of it a third is lost in runs and the rest slow, which is
    /// known to be a test of ours before that or only after it, or is not.
    fn told_of_a_load(known: Option<bool>) -> Vec<Event> {
        let mut w = Watcher::new(Monotonic::ZERO, Thresholds::default());
        w.add(Monotonic::ZERO, SeriesIndex(0), &info("quad9", "9.9.9.9"));
        let (begin, end) = (2000, 2080);
        let at = |n: u64| Monotonic::from_nanos(n * S / 10);
        let mut told = Vec::new();
        for n in 0..3000u64 {
            if known == Some(true) && n == begin || known == Some(false) && n == begin + 5 {
                w.load_begins("eth0", at(begin));
            }
            if known.is_some() && n == end + 5 {
                w.load_ends("eth0", at(end));
            }
            // What was sent just before meets the queue on the way back, and the queue stays a while.
            let loaded = (begin - 5..end + 15).contains(&n);
            let mut sample = Sample::lost(SeriesIndex(0), n, at(n), 64);
            if !loaded || n % 16 > 4 {
                sample.status = Status::Ok;
                sample.rtt_ns = Some(if loaded { 105_000_000 } else { 20_000_000 });
            }
            w.sample(&sample, None);
            let news = w.news(at(n));
            told.extend(news.iter().map(|notice| w.event(0, notice)));
        }
        told
    }

    #[test]
    fn a_test_of_our_own_is_not_trouble() {
        let kinds: Vec<String> = told_of_a_load(None).into_iter().map(|e| e.kind).collect();
        assert!(kinds.contains(&"latency_spike".to_owned()), "{kinds:?}");
        assert!(kinds.contains(&"micro_outage".to_owned()), "{kinds:?}");
        assert_eq!(told_of_a_load(Some(true)), []);
        assert_eq!(told_of_a_load(Some(false)), []);
    }

    #[test]
    fn a_private_address_may_be_near_and_a_reflector_never_is() {
        assert_eq!(
            role(&info("x", "10.0.0.1")),
            Role::Gateway { private: true }
        );
        assert_eq!(role(&info("x", "100.64.0.1")), Role::Far);
        assert_eq!(role(&info("x", "192.168.100.1")), Role::Modem);
        let reflector = SeriesInfo {
            kind: SeriesKind::Udp,
            ..info("x", "10.0.0.1")
        };
        assert_eq!(role(&reflector), Role::Far);
    }
}
