//! Every family that there is. `docs/metrics.md` has the same names.

use bufferbane_core::detect::Kind as Trouble;
use bufferbane_store::Larger;

use super::meters::{Counts, Labels, Meters};
use super::sink::{Kind, Label, Sink};
use super::text::{Format, Text};
use crate::status::Status;

/// Everything, as text.
pub(crate) fn page(format: Format, status: &Status, meters: &Meters) -> String {
    let mut text = Text::new(format);
    tell(&mut text, status, meters);
    text.finish()
}

/// Tells everything.
pub(crate) fn tell(sink: &mut impl Sink, status: &Status, meters: &Meters) {
    daemon(sink, status, meters);
    remotes(sink, status);
    events(sink, meters);
    interfaces(sink, meters);
    sizes(sink, status);
    held(sink, status);
    probes(sink, meters);
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// The daemon's own part.
fn daemon(sink: &mut impl Sink, status: &Status, meters: &Meters) {
    let (probe, store) = (&meters.probe, &status.store);
    let version: &[Label<'_>] = &[("version", &status.version)];
    sink.family("bufferbane_build_info", Kind::Gauge, "What runs here; 1.");
    sink.value(version, 1_u64);
    let mut one = |name, kind, help, value: f64| {
        sink.family(name, kind, help);
        sink.value(&[], value);
    };
    one(
        "bufferbane_uptime_seconds",
        Kind::Gauge,
        "Time since the daemon started.",
        status.uptime_s as f64,
    );
    one(
        "process_cpu_seconds",
        Kind::Counter,
        "Processor time of all threads.",
        seconds(status.cpu_ns),
    );
    one(
        "process_resident_memory_bytes",
        Kind::Gauge,
        "Memory that is resident.",
        status.resident_bytes as f64,
    );
    one(
        "bufferbane_probe_thread_cpu_seconds",
        Kind::Counter,
        "Processor time of the thread that sends and receives probes.",
        seconds(probe.cpu_ns),
    );
    one(
        "bufferbane_slots_skipped",
        Kind::Counter,
        "Slots that passed without a probe because this host was too late.",
        probe.skipped_slots as f64,
    );
    one(
        "bufferbane_socket_drops",
        Kind::Counter,
        "Datagrams that the daemon's sockets dropped for want of room.",
        probe.socket_drops as f64,
    );
    one(
        "bufferbane_datagrams_unstamped",
        Kind::Counter,
        "Datagrams that came without a stamp of the kernel's.",
        probe.unstamped as f64,
    );
    one(
        "bufferbane_samples_dropped",
        Kind::Counter,
        "Samples that are lost to the daemon itself and not in the store.",
        store.dropped_samples as f64,
    );
    one(
        "bufferbane_reports_queued",
        Kind::Gauge,
        "Reports of the probe thread that wait to be recorded.",
        status.queue_length as f64,
    );
    one(
        "bufferbane_store_size_bytes",
        Kind::Gauge,
        "Size of the store's file.",
        store.file_bytes as f64,
    );
    one(
        "bufferbane_store_uncommitted_samples",
        Kind::Gauge,
        "Samples that a power cut would cost.",
        store.uncommitted_samples as f64,
    );
    one(
        "bufferbane_store_full",
        Kind::Gauge,
        "Whether recording has stopped for want of room on the disk.",
        f64::from(u8::from(store.full)),
    );
    one(
        "bufferbane_not_probed",
        Kind::Gauge,
        "What the configuration asks for and cannot be probed at present.",
        status.troubles.len() as f64,
    );
    sink.family(
        "bufferbane_datagrams_dropped",
        Kind::Counter,
        "Datagrams that arrived and were not used.",
    );
    for (reason, n) in probe.drops.iter() {
        sink.value(&[("reason", &reason.as_str())], n);
    }
}

/// Receivers that all of this is pushed to.
fn remotes(sink: &mut impl Sink, status: &Status) {
    if status.remote_write.is_empty() {
        return;
    }
    sink.family(
        "bufferbane_remote_write_batches",
        Kind::Counter,
        "Batches pushed, by what became of them.",
    );
    for (receiver, r) in &status.remote_write {
        for (outcome, n) in [
            ("taken", r.taken.batches),
            ("refused", r.refused.batches),
            ("given_up", r.given_up.batches),
            ("damaged", r.damaged_batches),
        ] {
            sink.value(&[("receiver", receiver), ("outcome", &outcome)], n);
        }
    }
    sink.family(
        "bufferbane_remote_write_samples",
        Kind::Counter,
        "Samples pushed, by what became of them.",
    );
    for (receiver, r) in &status.remote_write {
        for (outcome, n) in [
            ("taken", r.taken.samples),
            ("refused", r.refused.samples),
            ("given_up", r.given_up.samples),
        ] {
            sink.value(&[("receiver", receiver), ("outcome", &outcome)], n);
        }
    }
    sink.family(
        "bufferbane_remote_write_retries",
        Kind::Counter,
        "Tries to push a batch that failed and were to be made again.",
    );
    for (receiver, r) in &status.remote_write {
        sink.value(&[("receiver", receiver)], r.retries);
    }
    sink.family(
        "bufferbane_remote_write_queue_batches",
        Kind::Gauge,
        "Batches that wait.",
    );
    for (receiver, r) in &status.remote_write {
        sink.value(&[("receiver", receiver)], r.queue_batches);
    }
    sink.family(
        "bufferbane_remote_write_queue_size_bytes",
        Kind::Gauge,
        "What waits, on the disk.",
    );
    for (receiver, r) in &status.remote_write {
        sink.value(&[("receiver", receiver)], r.queue_bytes);
    }
}

fn events(sink: &mut impl Sink, meters: &Meters) {
    // Those that have not happened too: an increase from nothing to one can only be seen with the zero.
    let mut all = meters.events.clone();
    for interface in meters.carried.keys() {
        for kind in Trouble::ALL {
            all.entry((interface.clone(), kind.as_str().to_owned()))
                .or_default();
        }
    }
    sink.family("bufferbane_events", Kind::Counter, "Events that began.");
    for ((interface, kind), n) in &all {
        sink.value(&[("interface", interface), ("kind", kind)], n.begun);
    }
    sink.family(
        "bufferbane_events_open",
        Kind::Gauge,
        "Events that are not over.",
    );
    for ((interface, kind), n) in &all {
        sink.value(&[("interface", interface), ("kind", kind)], n.open);
    }
}

/// The largest packets that pass.
fn sizes(sink: &mut impl Sink, status: &Status) {
    sink.family(
        "bufferbane_path_mtu_bytes",
        Kind::Gauge,
        "The largest IP packet that passes on the way to a target; larger says what becomes of others: none (there are \
         none), told, silent (they vanish).",
    );
    for size in status.sizes.iter().map(|s| &s.size) {
        let family = if size.address.is_ipv4() { "4" } else { "6" };
        let larger = match size.larger {
            Larger::None => "none",
            Larger::Told => "told",
            Larger::Silent => "silent",
        };
        let labels: &[Label<'_>] = &[
            ("interface", &size.interface),
            ("target", &size.target),
            ("family", &family),
            ("larger", &larger),
        ];
        sink.value(labels, size.passes_bytes);
    }
    sink.family(
        "bufferbane_path_mtu_search_bytes",
        Kind::Counter,
        "What searches for the largest packets that pass have sent, IP headers included.",
    );
    sink.value(&[], status.size_search_bytes);
    sink.family(
        "bufferbane_close_looks_skipped",
        Kind::Counter,
        "Close looks that monthly_budget had no room for.",
    );
    sink.value(&[], status.close_looks_skipped);
}

/// Connections that are held open.
fn held(sink: &mut impl Sink, status: &Status) {
    sink.family(
        "bufferbane_held_connection_open",
        Kind::Gauge,
        "Whether a connection that is to be held open is.",
    );
    for h in &status.held {
        let labels: &[Label<'_>] = &[
            ("interface", &h.interface),
            ("target", &h.target),
            ("address", &h.address),
        ];
        sink.value(labels, u64::from(h.open_ns.is_some()));
    }
    sink.family(
        "bufferbane_held_connections_ended",
        Kind::Counter,
        "Connections held open that ended, by reason; those closed by the far end are not lost.",
    );
    for h in &status.held {
        let ended = h.lost.iter().map(|(reason, n)| (reason.as_str(), *n));
        for (reason, n) in ended.chain([("closed by the far end", h.closed)]) {
            let labels: &[Label<'_>] = &[
                ("interface", &h.interface),
                ("target", &h.target),
                ("address", &h.address),
                ("reason", &reason),
            ];
            sink.value(labels, n);
        }
    }
}

fn interfaces(sink: &mut impl Sink, meters: &Meters) {
    sink.family(
        "bufferbane_interface_transmit_bytes",
        Kind::Counter,
        "What the interface sent since it was first probed through.",
    );
    for (interface, carried) in &meters.carried {
        sink.value(&[("interface", interface)], carried.up_bytes);
    }
    sink.family(
        "bufferbane_interface_receive_bytes",
        Kind::Counter,
        "What the interface received since it was first probed through.",
    );
    for (interface, carried) in &meters.carried {
        sink.value(&[("interface", interface)], carried.down_bytes);
    }
    sink.family(
        "bufferbane_wifi_signal_dbm",
        Kind::Gauge,
        "How strong a Wi-Fi interface hears its access point.",
    );
    for (interface, radio) in &meters.radios {
        if let Some(dbm) = radio.signal_dbm {
            sink.value(&[("interface", interface)], f64::from(dbm));
        }
    }
    sink.family(
        "bufferbane_wifi_rate_bits_per_second",
        Kind::Gauge,
        "The rate that a Wi-Fi interface and its access point chose for the last frame.",
    );
    for (interface, radio) in &meters.radios {
        for (direction, bps) in [("up", radio.up_bps), ("down", radio.down_bps)] {
            if let Some(bps) = bps {
                sink.value(&[("interface", interface), ("direction", &direction)], bps);
            }
        }
    }
}

/// The labels of a series.
fn of(labels: &Labels) -> [Label<'_>; 6] {
    [
        ("interface", &labels.interface),
        ("target", &labels.target),
        ("kind", &labels.kind),
        ("family", &labels.family),
        ("dscp", &labels.dscp),
        ("size", &labels.size),
    ]
}

/// Those, and one more.
fn and<'a>(labels: &'a Labels, name: &'static str, value: &'a &'static str) -> [Label<'a>; 7] {
    let [a, b, c, d, e, f] = of(labels);
    [a, b, c, d, e, f, (name, value)]
}

/// Counters of probes: name, help, value.
type Probes = (&'static str, &'static str, fn(&Counts) -> u64);
const PROBES: [Probes; 7] = [
    (
        "bufferbane_probes_sent",
        "Probes that were sent and whose end is known: received or lost.",
        |c| c.received + c.lost,
    ),
    (
        "bufferbane_probes_received",
        "Probes that were answered in time.",
        |c| c.received,
    ),
    (
        "bufferbane_probes_lost",
        "Probes that were not answered in time.",
        |c| c.lost,
    ),
    (
        "bufferbane_probes_late",
        "Lost probes that were answered after all.",
        |c| c.late,
    ),
    (
        "bufferbane_probes_duplicated",
        "Further copies of replies.",
        |c| c.duplicated,
    ),
    (
        "bufferbane_probes_reordered",
        "Probes whose reply came after that to a later one.",
        |c| c.reordered,
    ),
    (
        "bufferbane_probes_unsent",
        "Probes that this host could not send.",
        |c| c.unsent,
    ),
];

const WAYS: [&str; 2] = ["up", "down"];

/// The series.
fn probes(sink: &mut impl Sink, meters: &Meters) {
    sink.family(
        "bufferbane_series_probed",
        Kind::Gauge,
        "Whether the configuration in force asks for the series.",
    );
    for (s, is_probed) in meters.series() {
        sink.value(&of(&s.labels), u64::from(is_probed));
    }
    for (name, help, value) in PROBES {
        sink.family(name, Kind::Counter, help);
        for s in &meters.series {
            sink.value(&of(&s.labels), value(&s.counts));
        }
    }
    sink.family(
        "bufferbane_probes_lost_in_direction",
        Kind::Counter,
        "Lost probes of which the far end said on which way they were lost.",
    );
    for s in &meters.series {
        for (way, n) in WAYS.iter().zip([s.counts.lost_up, s.counts.lost_down]) {
            sink.value(&and(&s.labels, "direction", way), n);
        }
    }
    sink.family(
        "bufferbane_rtt_seconds",
        Kind::Histogram,
        "Round-trip times of answered probes, late ones included.",
    );
    for s in &meters.series {
        sink.histogram(&of(&s.labels), &s.counts.rtt);
    }
    sink.family(
        "bufferbane_queueing_seconds",
        Kind::Histogram,
        "Delay above the least of that direction, where the far end tells.",
    );
    for s in &meters.series {
        for (way, queue) in WAYS.iter().zip([&s.counts.queue_up, &s.counts.queue_down]) {
            if queue.count() > 0 {
                sink.histogram(&and(&s.labels, "direction", way), queue);
            }
        }
    }
}
