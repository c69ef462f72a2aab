//! What services answer: their troubles, as events and in words.

use std::net::IpAddr;

use bufferbane_core::detect::service::{Evidence, Limits, News, Trouble};
use bufferbane_core::detect::{self, Phase};
use bufferbane_core::failure::Failure;
use bufferbane_core::sample::SeriesIndex;
use bufferbane_core::time::Monotonic;
use bufferbane_store::{Event, SeriesInfo, Severity};

use super::{Recorder, note, paths};
use crate::asked::{host_of, is_over_tcp};
use crate::walk::Shown;
use crate::watch::Known;

impl Recorder {
    /// Records what is new of services by now.
    pub(super) fn note_services(&mut self, now: Monotonic) {
        // Until the store is open nothing is recorded, and so nothing is heard.
        if self.writer.is_some() {
            for (index, news) in self.asked.news(now) {
                self.service_news(now, index, &news);
            }
        }
    }

    fn service_news(&mut self, now: Monotonic, index: SeriesIndex, news: &News) {
        let (Some(writer), Some((info, _))) = (&mut self.writer, self.ids.get(&index)) else {
            return;
        };
        let mut event = event(writer.boot(), info, news, self.asked.limits());
        let key = (index, news.trouble);
        let known = self.service_events.get(&key);
        let known = known.filter(|_| news.phase != Phase::Begin);
        let hold_down_ns = self.settings.alerts.thresholds.hold_down_ns;
        let (id, before) = match known {
            Some((id, e)) => {
                let before = Known::own(*id, e);
                // It may have lasted since before this run.
                event.start_ns = event.start_ns.min(e.start_ns);
                if !news.explained {
                    event.severity = event.severity.max(before.severity);
                }
                writer.update_event(*id, event.clone());
                (*id, Some(before))
            }
            None => self.carry.begin(writer, hold_down_ns, &mut event),
        };
        if before.is_none() && !news.explained {
            // No way leads to a resolver on this host.
            let host = host_of(&info.address).parse::<IpAddr>().ok();
            let host = host.filter(|h| !h.is_loopback());
            let shown = host.map_or(Shown::Anybody, Shown::Host);
            paths::record(writer, self.walks.begins(now, id, &event, shown));
        } else if event.end_ns.is_some() {
            self.walks.ends(now, id);
        }
        note(&self.status, &self.meters, id, &event);
        self.alerts.update(before, id, &event);
        self.service_events.insert(key, (id, event));
        self.commit_soon = true;
    }

    /// A series is asked no more: what it showed is over.
    pub(super) fn service_no_more(&mut self, now: Monotonic, index: SeriesIndex) {
        self.asked.remove(index);
        for trouble in Trouble::ALL {
            let Some((id, mut event)) = self.service_events.remove(&(index, trouble)) else {
                continue;
            };
            if event.end_ns.is_some() {
                continue;
            }
            let before = Known::own(id, &event);
            event.end_ns = Some(now.as_nanos());
            if let Some(writer) = &mut self.writer {
                writer.update_event(id, event.clone());
            }
            self.walks.ends(now, id);
            note(&self.status, &self.meters, id, &event);
            self.alerts.update(Some(before), id, &event);
            self.commit_soon = true;
        }
    }
}

/// The event of a trouble, as the store keeps it.
fn event(boot: u32, info: &SeriesInfo, news: &News, limits: &Limits) -> Event {
    let severity = match news.severity {
        // The line's own event tells it.
        _ if news.explained => Severity::Info,
        detect::Severity::Info => Severity::Info,
        detect::Severity::Warning => Severity::Warning,
        // Whoever is told that an answer was cut asks again over TCP.
        detect::Severity::Critical
            if cuts(&news.evidence) && news.evidence.other_way != Some(false) =>
        {
            Severity::Warning
        }
        detect::Severity::Critical => Severity::Critical,
    };
    let text = sentence(info, news);
    let kind = news.trouble.kind().as_str();
    let mut event = Event::new(kind, severity, boot, news.since, text);
    event.interface.clone_from(&info.interface);
    event.target = Some(info.target.clone());
    event.end_ns = news.end.map(Monotonic::as_nanos);
    let e = &news.evidence;
    let limit_ns = match news.trouble {
        Trouble::DnsSlow => Some(limits.dns_slow_ns),
        Trouble::TcpSlow => Some(limits.tcp_slow_ns),
        Trouble::DnsFailing | Trouble::TcpFailing => None,
    };
    let what = if news.trouble.is_slow() {
        "slow"
    } else {
        "failed"
    };
    let mut set = |name: &str, value: serde_json::Value| event.values.insert(name.into(), value);
    set("address", info.address.clone().into());
    set("asked", e.asked.into());
    set(what, e.bad.into());
    if let Some(ns) = limit_ns {
        set("limit_ns", ns.into());
    }
    if let Some(ns) = e.median_ns {
        set("median_ns", ns.into());
    }
    if !news.trouble.is_slow() {
        set("silent", e.silent.into());
    }
    if let Some(why) = e.failure {
        set("reason", why.to_string().into());
        if let Some(rcode) = why.rcode() {
            set("rcode", rcode.into());
        }
        if let Some(errno) = why.as_errno() {
            set("errno", errno.into());
        }
    }
    if let Some(only) = e.only {
        set("only_this", only.into());
    }
    if e.other_way == Some(true) {
        set("well_over", ways(info).1.to_lowercase().into());
    }
    if news.explained {
        set("explained_by", "line".into());
    }
    event
}

/// Whether most answers were cut to fit into a datagram (TC).
fn cuts(e: &Evidence) -> bool {
    e.failure == Some(Failure::TRUNCATED) && 2 * e.failures > e.bad
}

/// Over what a resolver is asked, and the other one.
fn ways(info: &SeriesInfo) -> (&'static str, &'static str) {
    match is_over_tcp(&info.address) {
        true => ("TCP", "UDP"),
        false => ("UDP", "TCP"),
    }
}

/// A resolver, by its name.
fn resolver(target: &str) -> String {
    match target.contains("resolver") {
        true => format!("the {target}"),
        false => format!("the resolver {target}"),
    }
}

/// What is wrong, for people.
fn sentence(info: &SeriesInfo, news: &News) -> String {
    let (e, target) = (&news.evidence, &info.target);
    // Where it refuses, and where it is silent, whichever is more.
    let (why, times) = match e.failure {
        Some(why) if 2 * e.silent <= e.bad => (why.to_string(), e.failures),
        _ => ("no answer".to_owned(), e.silent),
    };
    let why = match times >= e.bad {
        true => why,
        false => format!("{why}, most often"),
    };
    let (over, other) = ways(info);
    let beside = match e.other_way {
        Some(true) => format!(" over {over}, and answered over {other} at the same moments"),
        _ => String::new(),
    };
    let ms = |ns: Option<u64>| ns.unwrap_or(0) / 1_000_000;
    let what = match news.trouble {
        Trouble::DnsFailing => format!(
            "{} failed {} of {} times ({why}){beside}",
            resolver(target),
            e.bad,
            e.asked
        ),
        Trouble::DnsSlow => format!(
            "{} is slow: half of its answers take {} ms or longer",
            resolver(target),
            ms(e.median_ns)
        ),
        Trouble::TcpFailing => format!(
            "{} of {} connections to {target} did not open ({why})",
            e.bad, e.asked
        ),
        Trouble::TcpSlow => format!(
            "connections to {target} are slow to open: half of them take {} ms or longer",
            ms(e.median_ns)
        ),
    };
    let others = match (e.only, news.trouble) {
        _ if news.explained => "; the line itself was bad then, which explains it",
        (Some(true), Trouble::DnsFailing | Trouble::DnsSlow) => {
            "; others that are asked at the same moments are well"
        }
        (Some(false), Trouble::DnsFailing | Trouble::DnsSlow) => {
            "; others that are asked at the same moments are not all well either"
        }
        _ => "",
    };
    format!("{what}{others}")
}

#[cfg(test)]
mod tests {
    use bufferbane_core::failure::Failure;
    use bufferbane_core::sample::{Observation, Sample, Status};
    use bufferbane_store::SeriesKind;

    use super::super::testing::{any_room, recorder, series};
    use super::*;
    use crate::recorder::Order;

    const S: u64 = 1_000_000_000;
    const RESOLVER: SeriesIndex = SeriesIndex(1);

    /// Seconds of one question each to a resolver, and of a ping beside it that is always answered.
    fn seconds(recorder: &mut Recorder, seconds: std::ops::Range<u64>, fails: bool) {
        for s in seconds {
            for index in [SeriesIndex(0), RESOLVER] {
                let sent = Monotonic::from_nanos(s * S);
                let mut sample = Sample::lost(index, s, sent, 64);
                sample.status = Status::Ok;
                if index == RESOLVER && fails {
                    sample.errno = Failure::dns(2).code();
                } else {
                    sample.rtt_ns = Some(20_000_000);
                }
                recorder.obey(Order::Observation(Observation::New(sample)));
            }
            recorder.note_services(Monotonic::from_nanos(s * S));
        }
    }

    fn resolver() -> SeriesInfo {
        SeriesInfo {
            address: "192.0.2.7:53/udp".into(),
            ..series(SeriesKind::Dns)
        }
    }

    #[test]
    fn a_resolver_that_fails_is_told_with_its_reason_and_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = recorder(&dir.path().join("store.redb"), any_room());
        recorder.asked = crate::asked::AllAsked::new(Monotonic::ZERO, Limits::default());
        recorder.obey(Order::Series(SeriesIndex(0), series(SeriesKind::Udp)));
        recorder.obey(Order::Series(RESOLVER, resolver()));
        let key = (RESOLVER, Trouble::DnsFailing);
        seconds(&mut recorder, 100..200, false);
        assert!(recorder.service_events.is_empty());
        seconds(&mut recorder, 200..260, true);
        let (id, begun) = recorder.service_events[&key].clone();
        assert_eq!(
            (begun.kind.as_str(), begun.start_ns),
            ("dns_failing", 200 * S)
        );
        assert_eq!((begun.end_ns, &begun.values["rcode"]), (None, &2.into()));
        assert!(begun.text.contains("SERVFAIL"), "{}", begun.text);
        assert!(!begun.values.contains_key("only_this"));
        // The way to it is to be walked.
        assert_eq!(recorder.walks.urgent(), [IpAddr::from([192, 0, 2, 7])]);
        seconds(&mut recorder, 260..400, false);
        let (same, over) = &recorder.service_events[&key];
        assert_eq!((*same, over.end_ns), (id, Some(259 * S)));
        // It comes back within the hold-down, and is asked no more while it lasts.
        seconds(&mut recorder, 400..450, true);
        let (same, back) = &recorder.service_events[&key];
        assert_eq!((*same, back.start_ns, back.end_ns), (id, 200 * S, None));
        recorder.obey(Order::Forget(RESOLVER));
        assert!(recorder.service_events.is_empty());
    }

    #[test]
    fn words_say_what_is_known_of_others_and_of_the_line() {
        let evidence = bufferbane_core::detect::service::Evidence {
            asked: 30,
            bad: 20,
            silent: 15,
            failure: Some(Failure::dns(2)),
            failures: 5,
            median_ns: Some(250_000_000),
            only: Some(true),
            other_way: None,
        };
        let mut news = News {
            place: 0,
            trouble: Trouble::DnsFailing,
            phase: Phase::Begin,
            severity: detect::Severity::Critical,
            since: Monotonic::ZERO,
            end: None,
            explained: false,
            evidence,
        };
        let told = |news: &News| event(1, &resolver(), news, &Limits::default());
        assert_eq!(
            told(&news).text,
            "the resolver far failed 20 of 30 times (no answer, most often); others that are asked at the same \
             moments are well"
        );
        assert_eq!(told(&news).values["only_this"], true);
        (news.trouble, news.explained) = (Trouble::DnsSlow, true);
        let slow = told(&news);
        assert_eq!(slow.severity, Severity::Info);
        assert_eq!(slow.values["limit_ns"], 200_000_000);
        assert_eq!(slow.values["explained_by"], "line");
        assert!(
            slow.text.contains("250 ms or longer; the line itself"),
            "{}",
            slow.text
        );
        (news.trouble, news.explained) = (Trouble::TcpFailing, false);
        news.evidence.failure = Some(Failure::errno(111));
        (news.evidence.silent, news.evidence.failures) = (0, 15);
        let refused = told(&news);
        assert_eq!(refused.values["errno"], 111);
        assert!(
            refused.text.ends_with("(connection refused, most often)"),
            "{}",
            refused.text
        );
        news.evidence.failures = 20;
        let always = told(&news).text;
        assert!(always.ends_with("(connection refused)"), "{always}");
    }

    #[test]
    fn a_resolver_that_only_cuts_its_answers_keeps_nobody_from_a_name() {
        let evidence = Evidence {
            asked: 6,
            bad: 6,
            failure: Some(Failure::TRUNCATED),
            failures: 6,
            other_way: Some(true),
            ..Evidence::default()
        };
        let mut news = News {
            place: 0,
            trouble: Trouble::DnsFailing,
            phase: Phase::Begin,
            severity: detect::Severity::Critical,
            since: Monotonic::ZERO,
            end: None,
            explained: false,
            evidence,
        };
        let info = SeriesInfo {
            target: "resolver".into(),
            ..resolver()
        };
        let told = |news: &News| event(1, &info, news, &Limits::default());
        let cut = told(&news);
        assert_eq!(
            cut.text,
            "the resolver failed 6 of 6 times (truncated) over UDP, and answered over TCP at the same moments"
        );
        assert_eq!(
            (cut.severity, &cut.values["well_over"]),
            (Severity::Warning, &"tcp".into())
        );
        // Where TCP is of no help, or nobody answers over UDP.
        news.evidence.other_way = Some(false);
        let no_way = told(&news);
        assert_eq!(no_way.severity, Severity::Critical);
        assert!(!no_way.values.contains_key("well_over"));
        (news.evidence.failure, news.evidence.failures) = (None, 0);
        (news.evidence.silent, news.evidence.other_way) = (6, Some(true));
        let silent = told(&news);
        assert_eq!(silent.severity, Severity::Critical);
        assert!(
            silent
                .text
                .contains("6 of 6 times (no answer) over UDP, and"),
            "{}",
            silent.text
        );
    }
}
