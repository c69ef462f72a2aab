//! Alerts: events that leave this host, by the journal, a program, or an HTTP endpoint.
//!
//! ```text
//! recorder ─▶ Alerts ─┬─▶ journal (fields)
//!                     ├─▶ hook thread ─▶ debounce ─▶ queue ─▶ program, retried
//!                     └─▶ hook thread ─▶ debounce ─▶ queue ─▶ POST of JSON, retried
//! ```
//!
//! Whoever tells an event never waits: each hook has a thread and a bounded queue of its own.

mod config;
mod debounce;
mod deliver;
mod hook;
mod journal;
mod thresholds;

use std::time::{Duration, Instant};

use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::clock;
use bufferbane_store::{Direction, Event, EventId, Severity};
use serde::Serialize;

pub use config::AlertsConfig;
pub(crate) use config::missing_programs;
pub(crate) use config::read;
use hook::Hook;
use journal::Journal;

use crate::watch::Known;

/// How long hooks have when the daemon ends: well below what systemd gives a service to stop.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// The target of log records that tell of a critical event, which is no error of the daemon.
pub const CRITICAL: &str = "critical";

/// What there is to say of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum News {
    /// It has begun; it may be over already.
    Begin,
    /// It is over.
    End,
}

/// Begin and end of an event by the wall clock, ns since 1970; no end where it lasts.
pub(crate) type Lasted = (i64, Option<i64>);

/// The same of an event of this boot, where the wall clock shows `wall_ns` at `now`.
fn lasted(event: &Event, now: Monotonic, wall_ns: i64) -> Lasted {
    let at = |mono_ns: u64| wall_ns - (now.as_nanos() as i64 - mono_ns as i64);
    (at(event.start_ns), event.end_ns.map(at))
}

/// An event as it is told to others: the fields of a report's `events`, and what is new.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Alert {
    phase: News,
    host: String,
    id: u64,
    kind: String,
    severity: Severity,
    interface: String,
    target: Option<String>,
    direction: Option<Direction>,
    /// RFC 3339 with nanoseconds.
    start: String,
    end: Option<String>,
    values: serde_json::Map<String, serde_json::Value>,
    text: String,
    /// Alerts of the same kind at the same place that were held back since the last one, and are told no more.
    held_back: u64,
    /// Whether the begin of this event, which is over, could not be delivered, so that this is the first word of it.
    begin_lost: bool,
}

impl Alert {
    /// Begin and end are at these instants of the wall clock, ns since 1970.
    fn new(phase: News, id: EventId, event: &Event, (start_ns, end_ns): Lasted) -> Self {
        let at = |wall_ns: i64| {
            let wall = jiff::Timestamp::from_nanosecond(i128::from(wall_ns));
            // The wall clock is never that far from 1970.
            wall.map_or_else(|_| String::new(), |t| format!("{t:.9}"))
        };
        Self {
            phase,
            host: host_name(),
            id: id.0,
            kind: event.kind.clone(),
            severity: event.severity,
            interface: event.interface.clone(),
            target: event.target.clone(),
            direction: event.direction,
            start: at(start_ns),
            end: end_ns.map(at),
            values: event.values.clone(),
            text: event.text.clone(),
            held_back: 0,
            begin_lost: false,
        }
    }

    /// The same trouble has the same key.
    fn key(&self) -> (String, String, Option<String>) {
        let target = self.target.clone();
        (self.kind.clone(), self.interface.clone(), target)
    }
}

/// Whether the begin of an event is to be told, and whether its end. It begins once more where it has become worse than it
/// was `before` (who hears of nothing less has not heard of it), or is back; and it ends once, whatever is learnt of it later.
fn news(before: Option<Known>, event: &Event) -> (bool, bool) {
    let begins = before.is_none_or(|b| event.severity > b.severity || b.is_back(event));
    let ends = event.end_ns.is_some() && before.is_some_and(|b| !b.is_over);
    (begins, ends)
}

pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map_or_else(|_| String::new(), |n| n.trim().to_owned())
}

/// See the module.
pub(crate) struct Alerts {
    journal: Option<Journal>,
    hooks: Vec<Hook>,
}

impl Alerts {
    pub(crate) fn start(config: &AlertsConfig) -> Self {
        Self {
            journal: Journal::of_this_service(),
            hooks: config.hooks.iter().filter_map(Hook::start).collect(),
        }
    }

    /// Goes on with other settings; hooks that stay the same are not interrupted.
    pub(crate) fn set(&mut self, config: &AlertsConfig) {
        let mut before: Vec<Hook> = std::mem::take(&mut self.hooks);
        // What a hook that goes was told it delivers by itself, or says that it cannot.
        self.hooks = config
            .hooks
            .iter()
            .filter_map(|h| match before.iter().position(|b| b.config() == h) {
                Some(n) => Some(before.swap_remove(n)),
                None => Hook::start(h),
            })
            .collect();
    }

    /// Tells what is new of an event to all who want to know; `before` is what it was told as, `None` where it is new.
    pub(crate) fn update(&mut self, before: Option<Known>, id: EventId, event: &Event) {
        let place = [&event.interface, event.kind.as_str()].join(" ");
        let (begins, ends) = news(before, event);
        if begins && !self.tell(News::Begin, id, event) {
            let text = &event.text;
            match event.severity {
                Severity::Info => log::info!("{place}: {text}"),
                Severity::Warning => log::warn!("{place}: {text}"),
                Severity::Critical => log::error!(target: CRITICAL, "{place}: {text}"),
            }
        }
        if ends && !self.tell(News::End, id, event) {
            log::info!("{place} is over: {}", event.text);
        }
        if !begins && !ends {
            log::debug!("{place}: {}", event.text);
        }
    }

    /// Ends all hooks; those that are slow get a moment to take what they were told.
    pub(crate) fn finish(self) {
        let until = Instant::now() + LAST_MOMENT;
        for hook in self.hooks {
            hook.finish(until);
        }
    }

    /// Once a second: tells what hooks held back, and still lasts.
    pub(crate) fn tick(&mut self) {
        let now_ns = clock::now().as_nanos();
        for hook in &mut self.hooks {
            hook.tick(now_ns);
        }
    }

    /// An event of the run before, of which nobody has been told yet that it is over.
    pub(crate) fn recall(&mut self, id: EventId, event: &Event) {
        for hook in &mut self.hooks {
            hook.recall(id, event);
        }
    }

    /// Tells that such an event is over, which was at this time.
    pub(crate) fn ends_of_before(&mut self, id: EventId, event: &Event, lasted: Lasted) {
        if !self.tell_all(&Alert::new(News::End, id, event, lasted)) {
            log::info!("{} {} is over: {}", event.interface, event.kind, event.text);
        }
    }

    /// Tells one piece of news to all who want to know; whether the journal has it.
    pub(crate) fn tell(&mut self, phase: News, id: EventId, event: &Event) -> bool {
        if self.journal.is_none() && self.hooks.is_empty() {
            return false;
        }
        let lasted = lasted(event, clock::now(), clock::wall_now());
        self.tell_all(&Alert::new(phase, id, event, lasted))
    }

    fn tell_all(&mut self, alert: &Alert) -> bool {
        for hook in &mut self.hooks {
            hook.tell(alert);
        }
        self.journal.as_ref().is_some_and(|j| j.tell(alert))
    }
}

#[cfg(test)]
pub(crate) fn example(phase: News, id: u64) -> Alert {
    let start = Monotonic::from_nanos(5_000_000_000);
    let text = "no answer from anywhere for 12.00 s".to_owned();
    let mut event = Event::new("outage", Severity::Critical, 1, start, text);
    event.interface = "eth0".into();
    event.end_ns = (phase == News::End).then_some(17_000_000_000);
    event.values.insert("probes".into(), 240.into());
    let now = Monotonic::from_nanos(20_000_000_000);
    let lasted = lasted(&event, now, 1_800_000_000_000_000_000);
    Alert::new(phase, EventId(id), &event, lasted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_an_event_of_a_report_with_what_is_new() {
        let json = serde_json::to_value(example(News::End, 7)).unwrap();
        assert_eq!(json["phase"], "end");
        assert_eq!(json["id"], 7);
        assert_eq!(json["severity"], "critical");
        assert_eq!(json["start"], "2027-01-15T07:59:45.000000000Z");
        assert_eq!(json["end"], "2027-01-15T07:59:57.000000000Z");
        assert_eq!(json["target"], serde_json::Value::Null);
        assert_eq!(json["values"]["probes"], 240);
        let begin = serde_json::to_value(example(News::Begin, 7)).unwrap();
        assert_eq!(begin["end"], serde_json::Value::Null);
    }

    /// What detectors tell of one event, one after the other, and what of it is begin and end.
    #[test]
    fn what_is_back_begins_again_and_what_is_over_ends_once() {
        use Severity::{Critical, Warning};
        let mut before = None;
        let mut told = |end_s: Option<u64>, severity| {
            let start = Monotonic::from_nanos(1_000_000_000);
            let mut event = Event::new("outage", severity, 1, start, String::new());
            event.end_ns = end_s.map(|s| s * 1_000_000_000);
            let is_news = news(before, &event);
            before = Some(Known::own(EventId(7), &event));
            is_news
        };
        assert_eq!(told(None, Warning), (true, false));
        assert_eq!(told(None, Warning), (false, false));
        assert_eq!(told(Some(31), Warning), (false, true));
        // Its direction is learnt only now.
        assert_eq!(told(Some(31), Warning), (false, false));
        // It is back, and for long.
        assert_eq!(told(None, Warning), (true, false));
        assert_eq!(told(None, Warning), (false, false));
        assert_eq!(told(Some(21_600), Warning), (false, true));
        // It was worse than was known when it ended.
        assert_eq!(told(Some(21_600), Critical), (true, false));
    }
}
