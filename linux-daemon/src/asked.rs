//! Resolvers and servers that are asked: feeds what they answer to the detector of core that hears services, and what
//! their lines do, by which that is explained.

use std::collections::HashMap;
use std::net::SocketAddr;

use bufferbane_core::detect::Notice;
use bufferbane_core::detect::service::{
    Answer, Asks, End, Explains, Limits, LineTrouble, MAX_SERVICES, News, ServiceFacts,
    ServiceState, Services, Why,
};
use bufferbane_core::sample::{Sample, SeriesIndex, Status};
use bufferbane_core::time::Monotonic;
use bufferbane_store::{SeriesInfo, SeriesKind};

use crate::config::timeout_ns;
use crate::numbers::Numbers;
use crate::watch::is_far;

/// A far series that answered no longer ago than this, ns, would have shown an outage of its line; so would one that
/// answered within so many of its intervals.
const HEARD_NS: u64 = 300_000_000_000;
const HEARD_INTERVALS: u64 = 3;

/// One that is asked.
struct Asked {
    place: u8,
    line: u8,
    target: u16,
    host: u16,
}

/// A series that says how its line is.
struct Far {
    line: u8,
    heard_ns: u64,
    answered_at: Option<Monotonic>,
}

/// All that are asked.
pub(crate) struct AllAsked {
    limits: Limits,
    watch: Services<Vec<ServiceState>>,
    asked: HashMap<SeriesIndex, Asked>,
    lines: Numbers,
    targets: Numbers,
    hosts: Numbers,
    of_lines: HashMap<SeriesIndex, Far>,
    full: bool,
}

impl AllAsked {
    /// Nobody is asked yet.
    pub(crate) fn new(now: Monotonic, limits: Limits) -> Self {
        let room = std::iter::repeat_with(ServiceState::default).take(MAX_SERVICES);
        Self {
            limits,
            watch: Services::new(now, limits, room.collect()),
            asked: HashMap::new(),
            lines: Numbers::default(),
            targets: Numbers::default(),
            hosts: Numbers::default(),
            of_lines: HashMap::new(),
            full: false,
        }
    }

    /// From where on trouble is told from now on.
    pub(crate) const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.watch.set_limits(limits);
    }

    /// From where on trouble is told.
    pub(crate) const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A series that is probed from now on.
    pub(crate) fn add(&mut self, index: SeriesIndex, info: &SeriesInfo) {
        self.remove(index);
        let asks = match info.kind {
            SeriesKind::Dns => Asks::Dns,
            // A step of a request is one like any other.
            SeriesKind::Tcp => Asks::Tcp,
            SeriesKind::Tls | SeriesKind::Http => return,
            SeriesKind::Udp | SeriesKind::Icmp | SeriesKind::Stamp => {
                if is_far(info) {
                    let far = Far {
                        line: self.line(&info.interface),
                        heard_ns: HEARD_NS.max(HEARD_INTERVALS * info.interval_ns),
                        answered_at: None,
                    };
                    self.of_lines.insert(index, far);
                }
                return;
            }
        };
        let facts = ServiceFacts {
            line: self.line(&info.interface),
            target: self.targets.of(&info.target),
            host: self.hosts.of(&host_of(&info.address)),
            asks,
            over_tcp: is_over_tcp(&info.address),
            interval_ns: info.interval_ns,
            timeout_ns: timeout_ns(info.interval_ns),
        };
        let Some(place) = self.watch.add(facts) else {
            if !std::mem::replace(&mut self.full, true) {
                log::warn!(
                    "{} is recorded but not watched: there is room for {MAX_SERVICES} services",
                    info.label()
                );
            }
            self.drop_names(facts.target, facts.host);
            return;
        };
        let asked = Asked {
            place,
            line: facts.line,
            target: facts.target,
            host: facts.host,
        };
        self.asked.insert(index, asked);
    }

    /// A series is no longer probed.
    pub(crate) fn remove(&mut self, index: SeriesIndex) {
        self.of_lines.remove(&index);
        if let Some(asked) = self.asked.remove(&index) {
            self.watch.remove(asked.place);
            self.full = false;
            self.drop_names(asked.target, asked.host);
        }
    }

    /// Forgets names that nobody uses any more.
    fn drop_names(&mut self, target: u16, host: u16) {
        if self.asked.values().all(|a| a.target != target) {
            self.targets.free(target);
        }
        if self.asked.values().all(|a| a.host != host) {
            self.hosts.free(host);
        }
    }

    /// What became of a question.
    pub(crate) fn sample(&mut self, sample: &Sample) {
        if let (Some(far), Some(_)) = (self.of_lines.get_mut(&sample.series), sample.rtt_ns) {
            far.answered_at = far.answered_at.max(Some(sample.sent));
        }
        let Some(asked) = self.asked.get(&sample.series) else {
            return;
        };
        let end = match (sample.status, sample.rtt_ns, sample.failure()) {
            // It was not asked.
            (Status::Unsent, ..) => return,
            (_, _, Some(why)) => End::Failed(why),
            (_, Some(rtt_ns), None) => End::Answered(rtt_ns),
            // Where nothing else answers through the line, silence may as well be the line's.
            _ if self.would_show(asked.line, sample.sent) => End::Silent,
            _ => return,
        };
        let sent = sample.sent;
        self.watch.handle_answer(asked.place, Answer { sent, end });
    }

    /// Whether something else was answered through a line so lately that its detectors would find it dead.
    fn would_show(&self, line: u8, at: Monotonic) -> bool {
        self.of_lines.values().filter(|f| f.line == line).any(|f| {
            let silent_ns = f.answered_at.map(|last| at.saturating_since(last));
            silent_ns.is_some_and(|ns| ns <= f.heard_ns)
        })
    }

    /// What a detector of the line tells, and all of it shows.
    pub(crate) fn line_event(&mut self, now: Monotonic, interface: &str, notice: &Notice) {
        let Some(explains) = Explains::of(notice.event.kind) else {
            return;
        };
        let line = self.line(interface);
        let trouble = LineTrouble {
            line,
            why: Why::Event(notice.id),
            from: notice.event.start,
            to: notice.event.end,
            explains,
        };
        self.watch.handle_line(now, trouble);
    }

    /// What a detector tells, and not, or no longer, all of the line shows: where it was told here before, its end counts.
    pub(crate) fn line_event_ends(&mut self, interface: &str, notice: &Notice) {
        if let Some(end) = notice.event.end {
            let line = self.line(interface);
            self.watch.handle_line_end(line, Why::Event(notice.id), end);
        }
    }

    /// A throughput test or a packet train of our own loads an interface from `at` on.
    pub(crate) fn begins(&mut self, interface: &str, why: Why, at: Monotonic) {
        let line = self.line(interface);
        let trouble = LineTrouble {
            line,
            why,
            from: at,
            to: None,
            explains: match why {
                // It waits in queues that others fill, and fills none that overflow.
                Why::Train => Explains::Delay,
                Why::Test | Why::Event(_) => Explains::All,
            },
        };
        self.watch.handle_line(at, trouble);
    }

    /// And no longer.
    pub(crate) fn ends(&mut self, interface: &str, why: Why, at: Monotonic) {
        let line = self.line(interface);
        self.watch.handle_line_end(line, why, at);
    }

    /// What is new by now, with the series that it is of.
    pub(crate) fn news(&mut self, now: Monotonic) -> Vec<(SeriesIndex, News)> {
        let mut news = Vec::new();
        loop {
            let more = self.watch.handle_timeout(now);
            while let Some(n) = self.watch.poll_news() {
                let of = self.asked.iter().find(|(_, a)| a.place == n.place);
                news.extend(of.map(|(index, _)| (*index, n)));
            }
            if !more {
                return news;
            }
        }
    }

    /// The number of a line. What a line did is remembered for a while when nothing is asked through it, so that its number
    /// is another's only where there are no more.
    fn line(&mut self, interface: &str) -> u8 {
        let (asked, far) = (self.asked.values(), self.of_lines.values());
        let used: Vec<u8> = asked.map(|a| a.line).chain(far.map(|f| f.line)).collect();
        if self.lines.find(interface).is_none()
            && self.lines.count() >= usize::from(u8::MAX)
            && let Some(unused) = (0..u8::MAX).find(|n| !used.contains(n))
        {
            self.lines.free(unused.into());
            self.watch.forget_line(unused);
        }
        u8::try_from(self.lines.of(interface)).unwrap_or(u8::MAX)
    }
}

/// Whether it is `9.9.9.9:53/tcp`.
pub(crate) fn is_over_tcp(address: &str) -> bool {
    address.ends_with("/tcp")
}

/// Of `9.9.9.9:53/udp` the host.
pub(crate) fn host_of(address: &str) -> String {
    let at = address.split('/').next().unwrap_or_default();
    let ip = at.parse::<SocketAddr>().map(|a| a.ip().to_string());
    ip.unwrap_or_else(|_| address.to_owned())
}

#[cfg(test)]
mod tests {
    use bufferbane_core::detect::service::Trouble;
    use bufferbane_core::detect::{Event, Kind, Phase, SeriesSet, Severity, Values};

    use super::*;

    const S: u64 = 1_000_000_000;

    fn info(kind: SeriesKind) -> SeriesInfo {
        SeriesInfo {
            interface: "wan".into(),
            interface_kind: "wired".into(),
            target: kind.as_str().into(),
            kind,
            family: 4,
            dscp: 0,
            size: 64,
            interval_ns: S,
            address: "192.0.2.1".into(),
        }
    }

    fn at(s: u64) -> Monotonic {
        Monotonic::from_nanos(s * S)
    }

    #[test]
    fn a_host_is_one_whatever_it_is_asked_over() {
        let hosts = ["9.9.9.9:53/udp", "9.9.9.9:853/tcp", "[2620:fe::fe]:53/udp"].map(host_of);
        assert_eq!(hosts, ["9.9.9.9", "9.9.9.9", "2620:fe::fe"]);
        assert_eq!(host_of("resolver"), "resolver");
    }

    fn answered(series: u16, s: u64) -> Sample {
        let mut sample = Sample::lost(SeriesIndex(series), s, at(s), 64);
        sample.status = Status::Ok;
        sample.rtt_ns = Some(S / 50);
        sample
    }

    /// What is told of a minute of silence of each kind of service, where what is beside them was answered before.
    fn told_of_silence(beside: Option<SeriesKind>, what: impl Fn(&mut AllAsked)) -> Vec<News> {
        let mut all = AllAsked::new(Monotonic::ZERO, Limits::default());
        let services = [
            SeriesKind::Dns,
            SeriesKind::Tcp,
            SeriesKind::Tls,
            SeriesKind::Http,
        ];
        for (n, kind) in services.into_iter().chain(beside).enumerate() {
            all.add(SeriesIndex(n as u16), &info(kind));
        }
        all.sample(&answered(4, 99));
        what(&mut all);
        silence(&mut all, 100)
    }

    /// The same of a minute from then on.
    fn silence(all: &mut AllAsked, from_s: u64) -> Vec<News> {
        let mut told = Vec::new();
        for s in from_s..from_s + 60 {
            for n in 0..4 {
                all.sample(&Sample::lost(SeriesIndex(n), s, at(s), 64));
            }
            told.extend(all.news(at(s)).into_iter().map(|(_, news)| news));
        }
        told
    }

    #[test]
    fn silence_is_of_a_service_where_something_else_says_how_the_line_is() {
        assert_eq!(told_of_silence(None, |_| ()), []);
        let told = told_of_silence(Some(SeriesKind::Udp), |_| ());
        let mut troubles: Vec<Trouble> = told.iter().map(|n| n.trouble).collect();
        troubles.sort_unstable();
        assert_eq!(troubles, [Trouble::DnsFailing, Trouble::TcpFailing]);
    }

    /// What is not answered either, or has not been for long, says nothing of the line.
    #[test]
    fn silence_is_of_a_service_only_where_the_line_was_heard_of_late() {
        let mut all = AllAsked::new(Monotonic::ZERO, Limits::default());
        all.add(SeriesIndex(0), &info(SeriesKind::Dns));
        all.add(SeriesIndex(4), &info(SeriesKind::Icmp));
        assert_eq!(silence(&mut all, 1000), []);
        all.sample(&answered(4, 1100));
        assert_eq!(silence(&mut all, 1401), []);
        all.sample(&answered(4, 1500));
        assert_eq!(silence(&mut all, 1500).len(), 1);
    }

    /// However often a reload brings others.
    #[test]
    fn names_that_are_used_no_more_are_forgotten() {
        let mut all = AllAsked::new(Monotonic::ZERO, Limits::default());
        let of = |n: u64, interface: String| SeriesInfo {
            interface,
            target: format!("target {n}"),
            address: format!("192.0.2.{n}"),
            ..info(SeriesKind::Dns)
        };
        all.add(SeriesIndex(0), &of(0, "wan".into()));
        all.begins("ppp0", Why::Test, at(0));
        for n in 1..1000 {
            all.add(SeriesIndex(1), &of(n, format!("ppp{n}")));
        }
        let counts = [&all.targets, &all.hosts, &all.lines].map(Numbers::count);
        assert_eq!(counts, [2, 2, 255]);
        assert_eq!((all.line("wan"), all.asked[&SeriesIndex(0)].line), (0, 0));
        // What the number's last owner did is not its new one's.
        all.add(SeriesIndex(4), &info(SeriesKind::Icmp));
        assert!(all.lines.find("ppp0").is_none());
        let reused = all.asked[&SeriesIndex(1)].line;
        assert_eq!(all.line("ppp999"), reused);
    }

    fn notice(kind: Kind, end: Option<u64>) -> Notice {
        let event = Event {
            kind,
            severity: Severity::Critical,
            direction: None,
            line: 0,
            series: SeriesSet::default(),
            start: at(99),
            end: end.map(at),
            values: Values::default(),
        };
        Notice {
            id: 7,
            phase: Phase::Begin,
            event,
        }
    }

    /// A target that a reload takes away may be the one of which it was.
    #[test]
    fn what_is_no_longer_of_the_line_ends_all_the_same() {
        let lossy = |all: &mut AllAsked| {
            all.line_event(at(99), "wan", &notice(Kind::PacketLoss, None));
        };
        let far = Some(SeriesKind::Udp);
        let ended = |all: &mut AllAsked| {
            lossy(all);
            all.line_event_ends("wan", &notice(Kind::PacketLoss, None));
            assert_eq!(silence(all, 100), []);
            all.line_event_ends("wan", &notice(Kind::PacketLoss, Some(159)));
            all.sample(&answered(4, 200));
            assert_eq!(silence(all, 200).len(), 2);
        };
        told_of_silence(far, ended);
        // Of what was not told here nothing is made.
        let other = |all: &mut AllAsked| {
            all.line_event_ends("wan", &notice(Kind::PacketLoss, Some(159)));
        };
        assert_eq!(told_of_silence(far, other).len(), 2);
    }

    #[test]
    fn what_the_line_and_our_own_load_do_is_heard() {
        let outage = |all: &mut AllAsked| {
            all.line_event(at(99), "wan", &notice(Kind::Outage, None));
        };
        let far = Some(SeriesKind::Udp);
        assert_eq!(told_of_silence(far, outage), []);
        assert_eq!(
            told_of_silence(far, |all| all.begins("wan", Why::Test, at(99))),
            []
        );
        let elsewhere = |all: &mut AllAsked| all.begins("lte", Why::Test, at(99));
        assert_eq!(told_of_silence(far, elsewhere).len(), 2);
        let over = |all: &mut AllAsked| {
            all.begins("wan", Why::Test, at(50));
            all.ends("wan", Why::Test, at(51));
        };
        assert_eq!(told_of_silence(far, over).len(), 2);
        let train = |all: &mut AllAsked| all.begins("wan", Why::Train, at(99));
        assert_eq!(told_of_silence(far, train).len(), 2);
    }
}
