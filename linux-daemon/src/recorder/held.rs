//! Connections that are held open: those that were lost, and when that is trouble.

use bufferbane_core::held::Unstable;
use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::clock;
use bufferbane_store::{Event, Severity};

use super::{Fact, Recorder, note, paths};
use crate::held::{Key, Loss, News, Told, is_of};
use crate::walk::Shown;
use crate::watch::Known;

impl Recorder {
    /// What became of a connection.
    pub(super) fn held(&mut self, told: Told) {
        let key = told.key.clone();
        let mut live = self.live.values().filter(|s| s.kind == "tcp");
        let is_asked = live.any(|s| is_of(&key, (&s.interface, &s.target, &s.address)));
        if let Some(news) = self.held.hear(told, is_asked) {
            self.held_news(&key, news);
        }
    }

    /// What has come to its end by now.
    pub(super) fn note_held(&mut self, now: Monotonic) {
        for (key, news) in self.held.tick(now) {
            self.held_news(&key, news);
        }
    }

    /// Tells it, or keeps it until there is a store.
    pub(super) fn held_news(&mut self, key: &Key, news: News) {
        if self.writer.is_none() {
            self.waiting_held.push((key.clone(), news));
            return;
        }
        let (interface, target, _) = key;
        match news {
            News::Lost(loss) => {
                let fact = Fact {
                    values: Vec::new(),
                    kind: "tcp_lost",
                    severity: Severity::Info,
                    interface: interface.clone(),
                    target: Some(target.clone()),
                    text: format!(
                        "the connection held to {target} was lost after {}: {}",
                        age(loss.age_ns),
                        loss.why()
                    ),
                };
                log::info!("{interface}: {}", fact.text);
                self.fact(loss.at, None, fact, false);
            }
            News::Unstable(loss, unstable) => self.unstable(key, loss, unstable),
            News::Over(at) => self.end_fact(at, &name(key)),
        }
    }

    fn unstable(&mut self, key: &Key, loss: Loss, unstable: Unstable) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        let Unstable {
            since,
            drops,
            each_after_ns,
        } = unstable;
        let (interface, target, address) = key;
        let why = loss.why();
        let timer = each_after_ns.map_or_else(String::new, |ns| {
            format!(
                "; the last ones each after {}, so a timer of the far end or of a NAT on the way ends them rather than the line",
                age(ns)
            )
        });
        let text = format!(
            "{drops} connections held to {target} were lost; the last was open for {} ({why}){timer}",
            age(loss.age_ns)
        );
        let severity = match each_after_ns {
            Some(_) => Severity::Info,
            None => Severity::Warning,
        };
        let values = [
            ("drops", drops.into()),
            ("errno", loss.errno.into()),
            ("reason", why.into()),
            ("open_ns", loss.age_ns.into()),
            ("each_after_ns", each_after_ns.into()),
        ];
        let values = values.map(|(n, v): (&str, serde_json::Value)| (n.to_owned(), v));
        let shown = Shown::Host(address.ip());
        let name = name(key);
        if let Some((id, event)) = self.open_events.get_mut(&name) {
            let before = Known::own(*id, event);
            (event.text, event.severity) = (text, severity);
            event.values.extend(values);
            writer.update_event(*id, event.clone());
            note(&self.status, &self.meters, *id, event);
            self.alerts.update(Some(before), *id, event);
            if severity > before.severity {
                let looks = self.walks.begins(clock::now(), *id, event, shown);
                paths::record(writer, looks);
                self.commit_soon = true;
            }
            return;
        }
        let mut event = Event::new("tcp_unstable", severity, writer.boot(), since, text);
        event.interface.clone_from(interface);
        event.target = Some(target.clone());
        event.values.extend(values);
        let hold_down_ns = self.settings.alerts.thresholds.hold_down_ns;
        let (id, before) = self.carry.begin(writer, hold_down_ns, &mut event);
        note(&self.status, &self.meters, id, &event);
        self.alerts.update(before, id, &event);
        // What a timer ends is no trouble of the way.
        if severity > Severity::Info {
            paths::record(writer, self.walks.begins(clock::now(), id, &event, shown));
        }
        self.open_events.insert(name, (id, event));
        self.commit_soon = true;
    }

    /// A connection is held no more.
    pub(super) fn held_no_more(&mut self, now: Monotonic, place: (&str, &str, &str)) {
        if let Some(key) = self.held.remove(place.0, place.1, place.2) {
            self.held_news(&key, News::Over(now));
        }
    }
}

fn name((interface, target, address): &Key) -> String {
    format!("tcp_unstable {interface} {target} {address}")
}

/// How long a connection was open, for people.
fn age(ns: u64) -> String {
    match ns / 1_000_000_000 {
        s @ 0..=119 => format!("{s} s"),
        s @ 120..=7199 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{any_room, open, recorder, series, unopened};
    use super::*;
    use crate::alerts::Alerts;
    use crate::held::{End, What};
    use crate::recorder::Order;
    use bufferbane_core::sample::SeriesIndex;
    use bufferbane_store::{SeriesInfo, SeriesKind};

    const S: u64 = 1_000_000_000;

    fn key() -> Key {
        ("wan".into(), "far".into(), ([192, 0, 2, 1], 22).into())
    }

    fn at(s: u64) -> Monotonic {
        Monotonic::from_nanos(s * S)
    }

    /// A connection that is lost at these seconds, after having been open for so many.
    fn losses(recorder: &mut Recorder, losses: &[(u64, u64)]) {
        let info = SeriesInfo {
            address: "192.0.2.1:22/tcp".into(),
            ..series(SeriesKind::Tcp)
        };
        recorder.obey(Order::Series(SeriesIndex(0), info));
        for (s, age_s) in losses {
            let end = What::End {
                at: at(*s),
                age_ns: age_s * S,
                end: End::Lost(104),
            };
            for what in [What::Open(at(s - age_s)), end] {
                recorder.obey(Order::Held(Told { key: key(), what }));
            }
        }
    }

    /// The store may take seconds to be opened.
    #[test]
    fn trouble_that_falls_while_the_store_is_opened_is_told_when_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let mut recorder = unopened(&path);
        losses(&mut recorder, &[(1000, 90), (1100, 90)]);
        assert!(recorder.open_events.is_empty());
        open(&mut recorder, any_room());
        let (_, event) = &recorder.open_events[&name(&key())];
        assert_eq!(
            (event.start_ns, &event.values["drops"]),
            (1000 * S, &2.into())
        );
        // And over before it is open.
        let mut recorder = unopened(&dir.path().join("other.redb"));
        losses(&mut recorder, &[(1000, 90), (1100, 90)]);
        recorder.obey(Order::Forget(SeriesIndex(0)));
        open(&mut recorder, any_room());
        assert!(recorder.open_events.is_empty());
    }

    /// Of three at the same age a timer is to blame; the fourth shows that it is the line.
    #[test]
    fn who_hears_of_warnings_only_hears_of_what_becomes_one_and_of_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let told = dir.path().join("told");
        let text = format!(
            "[alerts]\ntcp_unstable = 3\n[[alerts.hook]]\nseverity = \"warning\"\n\
             program = [\"/bin/sh\", \"-c\", \"cat >> {0}; echo >> {0}\"]\n",
            told.display()
        );
        let config = crate::config::parse("it", &text, dir.path())
            .unwrap()
            .config;
        let mut recorder = recorder(&dir.path().join("store.redb"), any_room());
        recorder.held = crate::held::Connections::new(config.alerts.held);
        recorder.alerts = Alerts::start(&config.alerts);
        recorder.obey(Order::Series(SeriesIndex(1), series(SeriesKind::Icmp)));
        losses(&mut recorder, &[(1000, 60), (1061, 60), (1122, 60)]);
        let severity = |r: &Recorder| r.open_events[&name(&key())].1.severity;
        assert_eq!(severity(&recorder), Severity::Info);
        assert!(recorder.walks.urgent().is_empty());
        losses(&mut recorder, &[(1140, 9)]);
        assert_eq!(severity(&recorder), Severity::Warning);
        let far: std::net::IpAddr = [192, 0, 2, 1].into();
        assert_eq!(recorder.walks.urgent(), [far]);
        recorder.note_held(at(2000));
        let phases = || {
            let all = std::fs::read_to_string(&told).unwrap_or_default();
            let lines = all.lines().filter(|l| !l.is_empty());
            let alerts = lines.filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
            alerts
                .map(|a| a["phase"].as_str().unwrap_or_default().to_owned())
                .collect::<Vec<_>>()
        };
        for _ in 0..2000 {
            if phases().len() >= 2 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(phases(), ["begin", "end"]);
    }
}
