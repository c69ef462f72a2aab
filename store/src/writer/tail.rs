//! What a commit writes of the samples that are in no block yet.

use redb::WriteTransaction;

use super::Writer;
use crate::error::StoreError;
use crate::model::SeriesId;
use crate::tables::TAIL;
use crate::tail::{Change, encode};

/// Rows of changes since the whole was written may take so many bytes, or as many as that did, before
/// the whole is written again.
const CHANGES_BYTES: usize = 128 << 10;

/// The rows of the tail in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct TailRows {
    next: u64,
    /// Of the row of the whole.
    whole_bytes: usize,
    /// Of those of changes behind it.
    changes_bytes: usize,
}

/// What a commit does to a buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    pub(super) id: SeriesId,
    /// So many more samples are in blocks.
    pub(super) sealed: usize,
    pub(super) rolled_until_ns: u64,
}

impl Writer {
    /// Writes what has changed; with `all`, when nothing is left, removes everything.
    pub(super) fn write_tail(
        &self,
        tx: &WriteTransaction,
        settled: &[Settled],
        all: bool,
    ) -> Result<TailRows, StoreError> {
        let mut table = tx.open_table(TAIL)?;
        if let Some(rows) = self.tail.filter(|_| !all) {
            let row = encode(self.changes(settled));
            let changes_bytes = rows.changes_bytes + row.len();
            if changes_bytes <= rows.whole_bytes.max(CHANGES_BYTES) {
                if row.is_empty() {
                    return Ok(rows);
                }
                table.insert(rows.next, row.as_slice())?;
                return Ok(TailRows {
                    next: rows.next + 1,
                    changes_bytes,
                    ..rows
                });
            }
        }
        while table.pop_first()?.is_some() {}
        let row = if all {
            Vec::new()
        } else {
            encode(self.whole(settled))
        };
        if !row.is_empty() {
            table.insert(0, row.as_slice())?;
        }
        Ok(TailRows {
            next: 1,
            whole_bytes: row.len(),
            changes_bytes: 0,
        })
    }

    fn changes<'a>(
        &'a self,
        settled: &'a [Settled],
    ) -> impl Iterator<Item = Change<&'a bufferbane_core::sample::Sample>> {
        self.buffers.values().zip(settled).filter_map(|(b, s)| {
            let change = b.tail_change(s.sealed, s.rolled_until_ns)?;
            Some(Change {
                series: s.id,
                boot: self.boot,
                rolled_until_ns: s.rolled_until_ns,
                gone: change.gone,
                kept: change.kept,
                samples: change.samples,
            })
        })
    }

    fn whole<'a>(
        &'a self,
        settled: &'a [Settled],
    ) -> impl Iterator<Item = Change<&'a bufferbane_core::sample::Sample>> {
        self.buffers.values().zip(settled).map(|(b, s)| Change {
            series: s.id,
            boot: self.boot,
            rolled_until_ns: s.rolled_until_ns,
            gone: 0,
            kept: 0,
            samples: b.unsealed().skip(s.sealed).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bufferbane_core::sample::{Sample, SeriesIndex, Status};
    use bufferbane_core::time::Monotonic;
    use proptest::prelude::*;
    use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata};

    use super::*;
    use crate::buffer::Buffer;
    use crate::tables::{META, WHOLE_TAIL};
    use crate::tail::{Form, Tail, decode, encode_whole};
    use crate::{Filter, Reader, SeriesInfo, SeriesKind, Trust, WriterOptions};

    const S: u64 = 1_000_000_000;

    fn sample(seq: u64, sent_ns: u64, is_lost: bool) -> Sample {
        let mut s = Sample::lost(SeriesIndex(0), seq, Monotonic::from_nanos(sent_ns), 64);
        if !is_lost {
            s.status = Status::Ok;
            s.rtt_ns = Some(20_000_000 + seq * 977 % 1_000_000);
        }
        s
    }

    fn writer(path: &Path) -> Writer {
        let options = WriterOptions {
            min_free_bytes: 0,
            ..WriterOptions::default()
        };
        let mut w = Writer::open(path, options).unwrap();
        w.begin_boot(
            "boot-a",
            Monotonic::ZERO,
            1_790_000_000 * 1_000_000_000,
            Trust::Disciplined,
        )
        .unwrap();
        w
    }

    fn info(target: &str) -> SeriesInfo {
        SeriesInfo {
            interface: "eth0".into(),
            interface_kind: "wired".into(),
            target: target.into(),
            kind: SeriesKind::Icmp,
            family: 4,
            dscp: 0,
            size: 64,
            interval_ns: S,
            address: "192.0.2.1".into(),
        }
    }

    fn everything(path: &Path) -> Vec<(SeriesId, Sample)> {
        let r = Reader::open(path).unwrap();
        let series = r.series().unwrap().into_keys().collect();
        let filter = Filter {
            from_ns: i64::MIN,
            to_ns: i64::MAX,
            series,
        };
        r.samples(&filter)
            .map(|row| row.map(|r| (r.series, r.sample)).unwrap())
            .collect()
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// A sample that was sent so many seconds before the newest one.
        Record(u64, bool),
        /// The loss that is so many from the front is one no longer.
        Revise(usize),
        Shed(usize),
        /// A commit, that fails or not.
        Commit(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            20 => (0..3u64, any::<bool>()).prop_map(|(late, lost)| Step::Record(late, lost)),
            4 => (0..60usize).prop_map(Step::Revise),
            1 => (20..40usize).prop_map(Step::Shed),
            4 => any::<bool>().prop_map(Step::Commit),
        ]
    }

    proptest! {
        #[test]
        fn rows_of_changes_add_up_to_what_is_not_sealed(
            steps in proptest::collection::vec(step(), 1..300),
        ) {
            let mut buffer = Buffer::default();
            let mut tail = Tail::default();
            let (mut seq, mut newest_s) = (0, 10);
            for step in steps {
                match step {
                    Step::Record(late_s, is_lost) => {
                        newest_s += 1;
                        buffer.insert(sample(seq, (newest_s - late_s) * S, is_lost));
                        seq += 1;
                    }
                    Step::Revise(at) => {
                        let found = buffer.unsealed().nth(at).copied();
                        if let Some(found) = found {
                            buffer.revise(&sample(found.seq, found.sent.as_nanos(), false));
                        }
                    }
                    Step::Shed(most) => {
                        buffer.shed(most);
                    }
                    Step::Commit(fails) => {
                        // A block of as many as there are two of: blocks of a thousand take long.
                        let sealed = buffer.unsealed().count() / 20 * 10;
                        let rolled_until_ns = newest_s * S / 2;
                        let change = buffer.tail_change(sealed, rolled_until_ns);
                        if fails {
                            continue;
                        }
                        let row = encode(change.into_iter().map(|c| Change {
                            series: SeriesId(1),
                            boot: 1,
                            rolled_until_ns,
                            gone: c.gone,
                            kept: c.kept,
                            samples: c.samples,
                        }));
                        let changes = decode(&row, Form::Changes, |_, _| true).unwrap();
                        tail.take(changes).unwrap();
                        buffer.settle(sealed, rolled_until_ns);
                        prop_assert!(buffer.tail_change(0, rolled_until_ns).is_none());
                        let there: Vec<Sample> = std::mem::take(&mut tail)
                            .into_parts()
                            .into_iter()
                            .inspect(|p| assert_eq!(p.rolled_until_ns, rolled_until_ns))
                            .flat_map(|p| p.samples)
                            .collect();
                        prop_assert!(there.iter().eq(buffer.unsealed()));
                        let whole = Change {
                            series: SeriesId(1),
                            boot: 1,
                            rolled_until_ns,
                            gone: 0,
                            kept: 0,
                            samples: there,
                        };
                        tail.take(vec![whole]).unwrap();
                    }
                }
            }
        }
    }

    #[test]
    fn a_commit_writes_what_is_new_and_the_whole_now_and_then() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.redb");
        let mut w = writer(&path);
        let ids = [w.series(&info("a")), w.series(&info("b"))];
        let (mut most_rows, mut fewest_after) = (0, u64::MAX);
        let mut expected = Vec::new();
        for minute in 0..120 {
            for at in minute * 300..minute * 300 + 300 {
                // The second series is silent in the end.
                for id in ids.iter().take(if minute < 90 { 2 } else { 1 }) {
                    let s = sample(at, at * S / 5, at % 50 == 7);
                    w.record(*id, s);
                    expected.push((*id, s));
                }
            }
            w.commit().unwrap();
            let tx = w.database().unwrap().begin_read().unwrap();
            let table = tx.open_table(TAIL).unwrap();
            let rows = table.len().unwrap();
            if rows < most_rows {
                fewest_after = fewest_after.min(rows);
            }
            most_rows = most_rows.max(rows);
            let bytes: usize = table
                .iter()
                .unwrap()
                .map(|r| r.unwrap().1.value().len())
                .sum();
            assert!(bytes < 3 * CHANGES_BYTES, "{bytes}");
        }
        assert!(most_rows > 30, "{most_rows}");
        assert_eq!(fewest_after, 1);
        expected.sort_by_key(|(id, s)| (s.sent, *id));
        let mut found = everything(&path);
        found.sort_by_key(|(id, s)| (s.sent, *id));
        assert_eq!(found, expected);
        // And after a crash.
        drop(w);
        drop(writer(&path));
        let mut found = everything(&path);
        found.sort_by_key(|(id, s)| (s.sent, *id));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_tail_of_the_schema_before_is_read_copied_and_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.redb");
        let mut w = writer(&path);
        let (id, boot) = (w.series(&info("a")), w.boot());
        let samples: Vec<Sample> = (0..100).map(|n| sample(n, n * S, n % 9 == 4)).collect();
        w.close().unwrap();
        let db = Database::create(&path).unwrap();
        let tx = db.begin_write().unwrap();
        assert!(tx.delete_table(TAIL).unwrap());
        let row = encode_whole(id, boot, 60 * S, &samples);
        tx.open_table(WHOLE_TAIL)
            .unwrap()
            .insert((), row.as_slice())
            .unwrap();
        tx.open_table(META).unwrap().insert("schema", 5).unwrap();
        tx.commit().unwrap();
        drop(db);

        let expected: Vec<_> = samples.iter().map(|s| (id, *s)).collect();
        assert_eq!(everything(&path), expected);
        let copy = dir.path().join("copy.redb");
        Reader::open(&path).unwrap().copy(&copy).unwrap();
        for path in [&path, &copy] {
            assert_eq!(everything(path), expected);
            writer(path).close().unwrap();
            assert_eq!(everything(path), expected);
            let db = Database::open(path).unwrap();
            let tx = db.begin_read().unwrap();
            assert!(tx.open_table(WHOLE_TAIL).is_err());
            assert!(tx.open_table(TAIL).unwrap().is_empty().unwrap());
            let meta = tx.open_table(META).unwrap();
            assert_eq!(meta.get("schema").unwrap().unwrap().value(), 6);
        }
    }
}
