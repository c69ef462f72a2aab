use std::path::Path;

use bufferbane_store::{Reader, SeriesKind};

use super::*;
use crate::probe::Health;

/// One that records into a new store, and is driven by hand.
pub(super) fn recorder(store: &Path, options: WriterOptions) -> Recorder {
    let settings = Settings {
        store: store.to_path_buf(),
        commit_interval_ns: 600 * SECOND_NS,
        keep: Keep {
            samples_ns: None,
            minutes_ns: None,
            hours_ns: None,
            max_bytes: None,
            min_free_bytes: 0,
        },
        alerts: AlertsConfig::default(),
        sees_household: BTreeMap::new(),
        zone: TimeZone::UTC,
    };
    let (_, reports) = rtrb::RingBuffer::new(1);
    let (_, orders) = std::sync::mpsc::channel();
    let mut recorder = Recorder::new(settings, reports, orders, Arc::default(), Arc::default());
    recorder.begin(Writer::open(store, options).unwrap());
    recorder
}

#[test]
fn every_sample_that_is_lost_to_ourselves_is_in_the_health_of_its_minute() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    // Nothing can be written, and no more than ten samples are kept.
    let full = WriterOptions {
        min_free_bytes: u64::MAX,
        backlog_samples: 10,
    };
    let mut recorder = recorder(&path, full);
    let begin = clock::now();
    let at = |s| begin.saturating_add(s * SECOND_NS);
    let info = SeriesInfo {
        interface: "wan".into(),
        interface_kind: "wired".into(),
        target: "far".into(),
        kind: SeriesKind::Icmp,
        family: 4,
        dscp: 0,
        size: 64,
        interval_ns: SECOND_NS,
        address: "192.0.2.1".into(),
    };
    recorder.obey(Order::Series(SeriesIndex(0), info));
    let lost = |series, seq| Sample::lost(SeriesIndex(series), seq, at(seq), 64);
    for seq in 0..30 {
        recorder.record(Observation::New(lost(0, seq)));
    }
    // Nobody told of this one's series.
    recorder.record(Observation::New(lost(1, 0)));
    let overflowed = Health {
        dropped_reports: 300,
        ..Health::default()
    };
    recorder.minute.hear(overflowed, at(59));
    recorder.write_health(at(60));
    recorder.write_health(at(120));
    recorder.writer.as_mut().unwrap().set_min_free_bytes(0);
    recorder.finish();

    let reader = Reader::open(&path).unwrap();
    let rows = reader.health(i64::MIN, i64::MAX).unwrap();
    let dropped: Vec<u64> = rows.iter().map(|(_, h)| h.dropped_samples).collect();
    assert_eq!(dropped, [300 + 1 + 20, 0]);
    let events = reader.events(i64::MIN, i64::MAX).unwrap();
    assert_eq!(events.len(), 1, "{events:?}");
    let text = &events[0].1.text;
    assert!(text.starts_with("321 samples were dropped"), "{text}");
}
