//! Connections that are held open: those that were lost, and when that is trouble.

use bufferbane_core::held::Unstable;
use bufferbane_core::time::Monotonic;
use bufferbane_store::{Event, Severity};

use super::{Fact, Recorder, note};
use crate::alerts::News as Alarm;
use crate::held::{Key, Loss, News, Told, is_of};

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

    fn held_news(&mut self, key: &Key, news: News) {
        let (interface, target, _) = key;
        match news {
            News::Lost(loss) => {
                let fact = Fact {
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
        let (interface, target, _) = key;
        let why = loss.why();
        let timer = each_after_ns.map_or_else(String::new, |ns| {
            format!(
                "; each after {}, so a timer of the far end or of a NAT on the way ends them rather than the line",
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
        let name = name(key);
        if let Some((id, event)) = self.open_events.get_mut(&name) {
            (event.text, event.severity) = (text, severity);
            event.values.extend(values);
            writer.update_event(*id, event.clone());
            note(&self.status, &self.meters, *id, event);
            return;
        }
        let mut event = Event::new("tcp_unstable", severity, writer.boot(), since, text);
        event.interface.clone_from(interface);
        event.target = Some(target.clone());
        event.values.extend(values);
        log::warn!("{interface}: {}", event.text);
        let id = writer.event(event.clone());
        note(&self.status, &self.meters, id, &event);
        self.alerts.tell(Alarm::Begin, id, &event);
        self.open_events.insert(name, (id, event));
        self.commit_soon = true;
    }

    /// A connection is held no more.
    pub(super) fn held_no_more(&mut self, now: Monotonic, place: (&str, &str, &str)) {
        if let Some(key) = self.held.remove(place.0, place.1, place.2) {
            self.end_fact(now, &name(&key));
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
