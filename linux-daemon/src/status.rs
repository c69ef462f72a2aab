//! What the daemon says of itself over the control socket.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use bufferbane_core::clock::Queueing;
use bufferbane_core::sample::{Sample, Status as Outcome};
use bufferbane_core::stats::failures::Failures;
use bufferbane_store::{Event, EventId, PathSize, SeriesInfo, Severity};
use serde::Serialize;

use crate::radio::Radio;

/// `status` over the control socket.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// CPU time it has used, ns.
    pub cpu_ns: u64,
    /// Memory resident now, bytes.
    pub resident_bytes: u64,
    /// Reports that wait for the recorder.
    pub queue_length: u64,
    /// Each series' last second.
    pub series: Vec<SeriesStatus>,
    /// How packets leave through each uplink that is probed.
    pub uplinks: Vec<UplinkStatus>,
    /// Wi-Fi uplinks that are connected, and how they hear their access points.
    pub wifi: BTreeMap<String, Radio>,
    /// What each uplink carried in its last second.
    pub load: Vec<LoadStatus>,
    /// The store.
    pub store: StoreStatus,
    /// Datagrams that arrived and were not used, by reason.
    pub drops: BTreeMap<String, u64>,
    /// What cannot be probed at present, and why.
    pub troubles: Vec<String>,
    /// Throughput tests that run by themselves, for each uplink.
    pub scheduled_tests: Vec<ScheduledTests>,
    /// What happened last, oldest first.
    pub events: VecDeque<Happening>,
    /// Receivers of remote-write, by their URLs.
    pub remote_write: BTreeMap<String, RemoteStatus>,
    /// Connections that are held open.
    pub held: Vec<HeldStatus>,
    /// The largest packets that pass on the way to each target beyond the access line, where that was found.
    pub sizes: Vec<SizeStatus>,
    /// What searches for them have sent since the start, IP headers included, bytes.
    pub size_search_bytes: u64,
    /// Of these, what was sent through each interface in the last 30 days; the budgets count it.
    #[serde(skip)]
    pub(crate) size_search_month_bytes: BTreeMap<String, u64>,
    /// Close looks that were not made since the start, as the budget had no room for them.
    pub close_looks_skipped: u64,
    /// What close looks have sent through each interface in the last 30 days, bytes; the budgets count it.
    #[serde(skip)]
    pub(crate) close_look_month_bytes: BTreeMap<String, u64>,
    /// What the budgets leave of each interface for close looks, bytes.
    #[serde(skip)]
    pub(crate) close_look_rooms: BTreeMap<String, u64>,
    /// Where the live page is.
    pub http: Option<String>,
}

/// Events that are kept in memory to be shown.
const SHOWN_EVENTS: usize = 40;

impl Status {
    /// An event began, or what is known of it changed; at `wall_ns`, ns since 1970.
    pub(crate) fn note(&mut self, id: EventId, event: &Event, wall_ns: i64) {
        if let Some(known) = self.events.iter_mut().find(|e| e.id == id.0) {
            known.ongoing = event.end_ns.is_none();
            known.severity = event.severity;
            known.target.clone_from(&event.target);
            known.text.clone_from(&event.text);
            return;
        }
        self.events.push_back(Happening {
            id: id.0,
            at_ns: wall_ns,
            kind: event.kind.clone(),
            severity: event.severity,
            interface: event.interface.clone(),
            target: event.target.clone(),
            text: event.text.clone(),
            family: event
                .values
                .get("family")
                .and_then(serde_json::Value::as_u64),
            ongoing: event.end_ns.is_none(),
        });
        if self.events.len() > SHOWN_EVENTS {
            // What goes on is wanted longest.
            let over = self.events.iter().position(|e| !e.ongoing);
            self.events.remove(over.unwrap_or(0));
        }
    }
}

/// An event as it is shown while the daemon runs.
#[derive(Clone, Debug, Serialize)]
pub struct Happening {
    /// Its number in the store.
    pub id: u64,
    /// When it became known, ns since 1970.
    pub at_ns: i64,
    /// What kind.
    pub kind: String,
    /// How bad.
    pub severity: Severity,
    /// The interface concerned; empty where it is the host.
    pub interface: String,
    /// The target concerned.
    pub target: Option<String>,
    /// 4 or 6, where only one family is concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<u64>,
    /// For people.
    pub text: String,
    /// Whether it is not over.
    pub ongoing: bool,
}

/// A connection that is held open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeldStatus {
    /// The uplink.
    pub interface: String,
    /// The target.
    pub target: String,
    /// Its address, with the port.
    pub address: String,
    /// For how long it has been open, ns; none while it is not.
    pub open_ns: Option<u64>,
    /// How often it was lost since the start, by reason.
    pub lost: BTreeMap<String, u64>,
    /// How often the far end closed it in order, which is no loss.
    pub closed: u64,
    /// For how long the one before was open, ns.
    pub last_open_ns: Option<u64>,
    /// How that one ended.
    pub last_end: Option<String>,
}

/// The largest packet that passes on the way to a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SizeStatus {
    /// What was found.
    #[serde(flatten)]
    pub size: PathSize,
    /// When a search first found it, ns since 1970.
    pub first_ns: i64,
    /// When one found it last, likewise.
    pub last_ns: i64,
    /// How many searches in a row found the same.
    pub searches: u64,
}

/// How packets leave through an uplink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UplinkStatus {
    /// The uplink.
    pub interface: String,
    /// `wired`, `wifi`, `cellular`, `ppp`, `tunnel`, `loopback` or `unknown`.
    pub kind: &'static str,
    /// The address that is sent from, where one is configured.
    pub source: Option<IpAddr>,
    /// The firewall mark that is sent with, likewise.
    pub mark: Option<u32>,
}

/// What an uplink carries now, by its own counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoadStatus {
    /// The uplink.
    pub interface: String,
    /// Upward, bit/s.
    pub up_bps: u64,
    /// Downward, bit/s.
    pub down_bps: u64,
    /// Whether that is everybody's traffic, as far as is known.
    pub sees_household: bool,
}

/// Throughput tests that run by themselves through one uplink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScheduledTests {
    /// The uplink.
    pub interface: String,
    /// What tests and probes may move through it in 30 days, bytes.
    pub budget_bytes: u64,
    /// What its probes move in 30 days, and packet trains may, bytes.
    pub probe_bytes: u64,
    /// What the tests of the last 30 days moved, bytes.
    pub spent_bytes: u64,
    /// Why none runs at present, where something stands in the way.
    pub waits: Option<String>,
    /// What cannot be known before a test.
    pub caveat: Option<&'static str>,
    /// Why the latest came to nothing, where it did.
    pub failed: Option<String>,
}

/// The store, as the daemon sees it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StoreStatus {
    /// Its file, from the root: who asks may be in another directory.
    pub path: String,
    /// Its size, bytes.
    pub file_bytes: u64,
    /// Samples that are not durable yet.
    pub uncommitted_samples: u64,
    /// Samples lost to ourselves since the start.
    pub dropped_samples: u64,
    /// Whether the disk is full.
    pub full: bool,
}

/// A receiver of remote-write.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RemoteStatus {
    /// The version that it is sent at present; empty before the first batch.
    pub protocol: String,
    /// What it took since the start.
    pub taken: RemoteTally,
    /// Batches that it refused, in part at least, and the samples that it refused.
    pub refused: RemoteTally,
    /// Given up because the queue or the disk was full.
    pub given_up: RemoteTally,
    /// Batches that an unclean end has damaged.
    pub damaged_batches: u64,
    /// Tries that failed and were to be made again.
    pub retries: u64,
    /// Batches that wait.
    pub queue_batches: u64,
    /// What they take on the disk, bytes.
    pub queue_bytes: u64,
    /// When the oldest of them is from, ms since 1970.
    pub oldest_ms: Option<i64>,
    /// Whether nothing is taken down before the clock is synchronised.
    pub waits_for_clock: bool,
    /// Why batches wait, where it is not for the next moment only.
    pub waits_because: Option<String>,
    /// Why it refused a batch last.
    pub refused_because: Option<String>,
    #[serde(skip)]
    pub(crate) is_full: bool,
}

/// Batches, and samples in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RemoteTally {
    /// Batches.
    pub batches: u64,
    /// Samples and native histograms.
    pub samples: u64,
}

impl RemoteTally {
    /// More of them.
    pub(crate) const fn add(&mut self, more: Self) {
        self.batches += more.batches;
        self.samples += more.samples;
    }
}

/// One series.
#[derive(Clone, Debug, Serialize)]
pub struct SeriesStatus {
    /// Its interface.
    pub interface: String,
    /// Its target.
    pub target: String,
    /// `udp`, `icmp`, `stamp`, `dns`, `tcp`, `tls` or `http`.
    pub kind: &'static str,
    /// 4 or 6.
    pub family: u8,
    /// The address that is probed.
    pub address: String,
    /// Length of a slot, ns.
    pub interval_ns: u64,
    /// What became known in the last second.
    pub last_second: Second,
    /// Since the start.
    pub total: Second,
    /// Whether the far end says that something keeps its wall clock right; `None` where it says
    /// nothing. No delay needs it.
    pub far_clock_disciplined: Option<bool>,
    /// Failures since the start, by reason; what is not told apart any more is "other".
    pub failures: BTreeMap<String, u64>,
    #[serde(skip)]
    current: Second,
    #[serde(skip)]
    failed: Failures,
}

/// Counts over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Second {
    /// Probes whose end became known.
    pub sent: u64,
    /// Answered.
    pub received: u64,
    /// Of the answered, those whose answer is a failure.
    pub failed: u64,
    /// Lost, in whichever direction.
    pub lost: u64,
    /// Never sent.
    pub unsent: u64,
    /// Round-trip time of the last answered one, ns.
    pub rtt_ns: Option<u64>,
    /// Its queueing delay upward, ns; `None` where that is not known.
    pub queue_up_ns: Option<u64>,
    /// Its queueing delay downward, likewise.
    pub queue_down_ns: Option<u64>,
}

impl SeriesStatus {
    pub(crate) fn new(info: &SeriesInfo) -> Self {
        Self {
            interface: info.interface.clone(),
            target: info.target.clone(),
            kind: info.kind.as_str(),
            family: info.family,
            address: info.address.clone(),
            interval_ns: info.interval_ns,
            last_second: Second::default(),
            total: Second::default(),
            far_clock_disciplined: None,
            failures: BTreeMap::new(),
            current: Second::default(),
            failed: Failures::new(),
        }
    }

    pub(crate) fn add(&mut self, sample: &Sample, queueing: Option<Queueing>) {
        let failure = sample.failure();
        if let Some(failure) = failure {
            self.failed.add(failure, 1);
            self.failures = bufferbane_store::by_reason(&self.failed);
        }
        for s in [&mut self.current, &mut self.total] {
            match sample.status {
                Outcome::Unsent => s.unsent += 1,
                Outcome::Duplicate => {}
                status => {
                    s.sent += 1;
                    s.lost += u64::from(status.is_lost());
                    s.received += u64::from(!status.is_lost());
                    s.failed += u64::from(failure.is_some());
                    s.rtt_ns = sample.rtt_ns.or(s.rtt_ns);
                    if let Some(q) = queueing {
                        s.queue_up_ns = Some(q.up_ns);
                        s.queue_down_ns = Some(q.down_ns);
                    }
                }
            }
        }
    }

    pub(crate) fn next_second(&mut self) {
        self.last_second = std::mem::take(&mut self.current);
    }
}

#[cfg(test)]
mod tests {
    use bufferbane_core::time::Monotonic;

    use super::*;

    #[test]
    fn what_goes_on_is_shown_however_much_has_happened_since() {
        let mut status = Status::default();
        let mut event = Event::new(
            "outage",
            Severity::Critical,
            1,
            Monotonic::ZERO,
            String::new(),
        );
        status.note(EventId(0), &event, 0);
        event.end_ns = Some(1);
        for id in 1..=SHOWN_EVENTS as u64 {
            status.note(EventId(id), &event, 0);
        }
        let shown: Vec<u64> = status.events.iter().map(|e| e.id).collect();
        assert_eq!(shown.len(), SHOWN_EVENTS);
        assert_eq!(shown[..2], [0, 2]);
        event.target = Some("quad9".into());
        status.note(EventId(0), &event, 0);
        assert_eq!(status.events[0].target.as_deref(), Some("quad9"));
        assert!(!status.events[0].ongoing);
    }
}
