//! What tests of the recorder begin with.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bufferbane_linux_io::clock;
use bufferbane_store::{SeriesInfo, SeriesKind, Writer, WriterOptions};
use jiff::tz::TimeZone;

use super::past::Past;
use super::{Recorder, SECOND_NS, Settings, trust};
use crate::alerts::AlertsConfig;
use crate::config::Keep;

/// One that records into a new store, and is driven by hand.
pub(super) fn recorder(store: &Path, options: WriterOptions) -> Recorder {
    let mut recorder = unopened(store);
    open(&mut recorder, options);
    recorder
}

/// The same, whose store is not open yet.
pub(super) fn unopened(store: &Path) -> Recorder {
    let settings = Settings {
        store: store.to_path_buf(),
        commit_interval_ns: 600 * SECOND_NS,
        keep: Keep {
            samples_ns: None,
            minutes_ns: None,
            hours_ns: None,
            events_ns: None,
            max_bytes: None,
            min_free_bytes: 0,
        },
        alerts: AlertsConfig::default(),
        sees_household: BTreeMap::new(),
        cables: Vec::new(),
        uplinks: BTreeMap::new(),
        close_looks: true,
        zone: TimeZone::UTC,
    };
    let (_, reports) = rtrb::RingBuffer::new(1);
    let (_, orders) = std::sync::mpsc::channel();
    Recorder::new(settings, reports, orders, Arc::default(), Arc::default())
}

/// And from now on it is.
pub(super) fn open(recorder: &mut Recorder, options: WriterOptions) {
    let store = recorder.settings.store.clone();
    let writer = Writer::open(&store, options).unwrap();
    let past = Past::read(&store, clock::wall_now(), trust());
    recorder.begin(writer, past);
}

/// However full the disk of the tests is.
pub(super) fn any_room() -> WriterOptions {
    WriterOptions {
        min_free_bytes: 0,
        ..WriterOptions::default()
    }
}

/// A series of one probe a second through `wan` to `far`.
pub(super) fn series(kind: SeriesKind) -> SeriesInfo {
    SeriesInfo {
        interface: "wan".into(),
        interface_kind: "wired".into(),
        target: "far".into(),
        kind,
        family: 4,
        dscp: 0,
        size: 64,
        interval_ns: SECOND_NS,
        address: "192.0.2.1".into(),
    }
}
