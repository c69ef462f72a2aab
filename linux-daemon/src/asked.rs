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
use crate::watch::{is_far, number};

/// One that is asked.
struct Asked {
    place: u8,
    interface: String,
}

/// All that are asked.
pub(crate) struct AllAsked {
    limits: Limits,
    watch: Services<Vec<ServiceState>>,
    asked: HashMap<SeriesIndex, Asked>,
    lines: Vec<String>,
    targets: Vec<String>,
    hosts: Vec<String>,
    /// Series that say how the line is, by their interface.
    of_lines: HashMap<SeriesIndex, String>,
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
            lines: Vec::new(),
            targets: Vec::new(),
            hosts: Vec::new(),
            of_lines: HashMap::new(),
            full: false,
        }
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
                    self.of_lines.insert(index, info.interface.clone());
                }
                return;
            }
        };
        let facts = ServiceFacts {
            line: self.line(&info.interface),
            target: u16::try_from(number(&mut self.targets, &info.target)).unwrap_or(u16::MAX),
            host: u16::try_from(number(&mut self.hosts, &host_of(&info.address)))
                .unwrap_or(u16::MAX),
            asks,
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
            return;
        };
        let interface = info.interface.clone();
        self.asked.insert(index, Asked { place, interface });
    }

    /// A series is no longer probed.
    pub(crate) fn remove(&mut self, index: SeriesIndex) {
        self.of_lines.remove(&index);
        if let Some(asked) = self.asked.remove(&index) {
            self.watch.remove(asked.place);
            self.full = false;
        }
    }

    /// What became of a question.
    pub(crate) fn sample(&mut self, sample: &Sample) {
        let Some(asked) = self.asked.get(&sample.series) else {
            return;
        };
        let end = match (sample.status, sample.rtt_ns, sample.failure()) {
            // It was not asked.
            (Status::Unsent, ..) => return,
            (_, _, Some(why)) => End::Failed(why),
            (_, Some(rtt_ns), None) => End::Answered(rtt_ns),
            // Where nothing else is asked through the line, silence may as well be the line's.
            _ if self.of_lines.values().any(|i| *i == asked.interface) => End::Silent,
            _ => return,
        };
        let sent = sample.sent;
        self.watch.handle_answer(asked.place, Answer { sent, end });
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

    fn line(&mut self, interface: &str) -> u8 {
        u8::try_from(number(&mut self.lines, interface)).unwrap_or(u8::MAX)
    }
}

/// Of `9.9.9.9:53/udp` the host.
fn host_of(address: &str) -> String {
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

    /// What is told of a minute of silence of each kind of service.
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
        what(&mut all);
        let mut told = Vec::new();
        for s in 100..160 {
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

    #[test]
    fn what_the_line_and_our_own_load_do_is_heard() {
        let outage = |all: &mut AllAsked| {
            let event = Event {
                kind: Kind::Outage,
                severity: Severity::Critical,
                direction: None,
                line: 0,
                series: SeriesSet::default(),
                start: at(99),
                end: None,
                values: Values::default(),
            };
            let notice = Notice {
                id: 7,
                phase: Phase::Begin,
                event,
            };
            all.line_event(at(99), "wan", &notice);
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
            all.begins("wan", Why::Train, at(50));
            all.ends("wan", Why::Train, at(51));
        };
        assert_eq!(told_of_silence(far, over).len(), 2);
    }
}
