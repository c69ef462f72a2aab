//! `bbtool export --what tests`, and which test a sample belongs to.

use std::collections::HashMap;

use bufferbane_store::{
    LoadTest, Percentiles, Reader, Row, SeriesInfo, StoreError, TestId, TestWay,
};
use serde_json::{Value, json};

use crate::args::Selection;
use crate::loads;
use crate::when::Range;

/// Columns of `--what tests`: a row for each direction that a test loaded.
pub(crate) const COLUMNS: [&str; 41] = [
    "id",
    "time_ns",
    "interface",
    "reflector",
    "test",
    "asked_by",
    "direction",
    "streams",
    "congestion",
    "mean_bps",
    "p10_bps",
    "p90_bps",
    "bytes",
    "retransmits",
    "rtt_us",
    "cwnd_bytes",
    "idle_ns",
    "idle_p90_ns",
    "idle_p99_ns",
    "loaded_ns",
    "loaded_p90_ns",
    "loaded_p99_ns",
    "increase_ns",
    "queue_bytes",
    "lost",
    "grade",
    "rpm",
    "recovery_ns",
    "load_ns",
    "boot",
    "mono_ns",
    "protocol",
    "offered_bps",
    "datagrams_sent",
    "datagrams_received",
    "datagrams_lost",
    "datagrams_reordered",
    "datagrams_duplicated",
    "datagrams_receiver_drops",
    "datagrams_sender_drops",
    "others_bps",
];

/// The tests that were asked for, each with its number and when it began.
pub(crate) fn chosen(
    reader: &Reader,
    selection: &Selection,
    range: Option<Range>,
) -> Result<Vec<(TestId, i64, LoadTest)>, StoreError> {
    let (from, to) = range.map_or((i64::MIN, i64::MAX), |r| (r.from_ns, r.to_ns));
    let mut tests = reader.tests(from, to)?;
    tests.retain(|(_, _, t)| {
        let wanted = |asked: &Option<String>, is: &String| asked.as_ref().is_none_or(|a| a == is);
        wanted(&selection.interface, &t.interface) && wanted(&selection.target, &t.reflector)
    });
    Ok(tests)
}

/// One direction of a test, a value for each of [`COLUMNS`].
pub(crate) fn row(
    (id, at_ns, test): &(TestId, i64, LoadTest),
    way: &TestWay,
    boots: &std::collections::BTreeMap<u32, String>,
) -> Vec<Value> {
    let three = |p: Percentiles| [json!(p.p50), json!(p.p90), json!(p.p99)];
    let mut row = vec![
        json!(id.0),
        json!(at_ns),
        json!(test.interface),
        json!(test.reflector),
        json!(test.kind),
        json!(test.asked_by),
        json!(loads::word(way.direction)),
        json!(way.streams),
        json!(test.congestion),
        json!(way.mean_bps),
        json!(way.p10_bps),
        json!(way.p90_bps),
        json!(way.bytes),
        json!(way.retransmits),
        json!(way.rtt_us),
        json!(way.cwnd_bytes),
    ];
    row.extend(three(way.delay.idle));
    row.extend(three(way.delay.loaded));
    row.extend([
        json!(way.delay.increase.p50),
        json!(way.queue_bytes),
        json!(way.lost),
        json!(way.grade),
        json!(test.rpm),
        json!(test.recovery_ns),
        json!(test.load_end_ns.saturating_sub(test.load_start_ns)),
        json!(boots.get(&test.boot)),
        json!(test.start_ns),
        json!(test.protocol.as_str()),
    ]);
    let d = way.datagrams;
    row.extend([
        json!(d.map(|d| d.offered_bps)),
        json!(d.map(|d| d.sent)),
        json!(d.map(|d| d.received)),
        json!(d.and_then(|d| d.lost)),
        json!(d.map(|d| d.reordered)),
        json!(d.map(|d| d.duplicated)),
        json!(d.map(|d| d.receiver_drops)),
        json!(d.and_then(|d| d.sender_drops)),
        json!(way.others_bps),
    ]);
    row
}

/// A test's number, its begin and its end, ns since boot.
type Stretch = (u64, u64, u64);

/// Which samples were taken during a test of their interface.
pub(crate) struct Membership(HashMap<(u32, String), Vec<Stretch>>);

impl Membership {
    /// Of all tests in the store.
    pub(crate) fn read(reader: &Reader) -> Result<Self, StoreError> {
        let mut all: HashMap<_, Vec<_>> = HashMap::new();
        reader.each_test(i64::MIN, i64::MAX, |id, _, test| {
            let place = all.entry((test.boot, test.interface)).or_default();
            place.push((id.0, test.start_ns, test.end_ns));
        })?;
        Ok(Self(all))
    }

    /// The test that a sample belongs to.
    pub(crate) fn of(&self, row: &Row, info: &SeriesInfo) -> Option<u64> {
        if self.0.is_empty() {
            return None;
        }
        let tests = self.0.get(&(row.boot, info.interface.clone()))?;
        let at = row.sample.sent.as_nanos();
        // One after the other on one interface, in the order of their begins.
        let next = tests.partition_point(|(_, from, _)| *from <= at);
        let (id, _, to) = tests[..next].last()?;
        (at <= *to).then_some(*id)
    }
}
