//! What a commit writes of the samples that are in no block yet.

use std::collections::VecDeque;

use redb::WriteTransaction;

use super::Writer;
use crate::error::StoreError;
use crate::hours;
use crate::model::SeriesId;
use crate::tables::TAIL;
use crate::tail::{Change, encode};
use crate::waiting::Waiting;

/// Rows of changes since the whole was written may take so many bytes, or as many as that did, before
/// the whole is written again.
const CHANGES_BYTES: usize = 256 << 10;

/// What a row takes beside its bytes, about.
const ROW_BYTES: usize = 16;

/// The rows of the tail in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct TailRows {
    /// Of the row of the whole.
    whole_bytes: usize,
    /// Of those of changes behind it.
    changes_bytes: usize,
}

impl TailRows {
    /// Nothing has been added since the whole was written.
    pub(super) const fn is_whole(&self) -> bool {
        self.changes_bytes == 0
    }
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
    /// Writes what has changed, and the rows of `fresh`; or everything, and rows that wait where they belong;
    /// with `all`, when nothing is left to be sealed, removes everything. The row has the number of the
    /// commit, unless nothing was written that would count twice.
    pub(super) fn write_tail(
        &self,
        tx: &WriteTransaction,
        commit: u64,
        settled: &[Settled],
        fresh: &VecDeque<Waiting>,
        all: bool,
    ) -> Result<TailRows, StoreError> {
        let mut table = tx.open_table(TAIL)?;
        if let Some(rows) = self.tail.filter(|_| !all) {
            let mut row = encode(self.changes(settled));
            fresh.iter().for_each(|w| w.encode(&mut row));
            let changes_bytes = rows.changes_bytes + row.len() + ROW_BYTES;
            if changes_bytes <= rows.whole_bytes.max(CHANGES_BYTES) {
                if row.is_empty() && self.pending.revisions.is_empty() {
                    return Ok(rows);
                }
                table.insert(commit, row.as_slice())?;
                return Ok(TailRows {
                    changes_bytes,
                    ..rows
                });
            }
        }
        while table.pop_first()?.is_some() {}
        let waited = || self.waiting.iter().chain(fresh);
        waited().try_for_each(|row| row.put(tx))?;
        hours::sum_up(tx, waited(), all)?;
        let row = if all {
            Vec::new()
        } else {
            encode(self.whole(settled))
        };
        let is_news = !row.is_empty() || !self.pending.revisions.is_empty();
        if is_news && !all {
            table.insert(commit, row.as_slice())?;
        }
        Ok(TailRows {
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

    use bufferbane_core::household::Minute;
    use bufferbane_core::sample::Sample;
    use bufferbane_core::time::Monotonic;
    use proptest::prelude::*;
    use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata};

    use super::*;
    use crate::buffer::Buffer;
    use crate::common::{self, S, info, writer};
    use crate::tables::{META, SCHEMA, WHOLE_TAIL};
    use crate::tail::{Form, Row, Tail, Wanted, decode, encode_whole};
    use crate::waiting::{self, For};
    use crate::{Health, Reader, Window};

    fn sample(seq: u64, sent_ns: u64, is_lost: bool) -> Sample {
        let rtt_ns = 20_000_000 + seq * 977 % 1_000_000;
        common::sample(seq, sent_ns, (!is_lost).then_some(rtt_ns))
    }

    fn everything(path: &Path) -> Vec<(SeriesId, Sample)> {
        let all = common::everything(path).into_iter();
        all.map(|(id, _, sample)| (id, sample)).collect()
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
                        let changes = decode(&row, Form::Changes, Wanted::All).unwrap();
                        tail.take(changes).unwrap();
                        buffer.settle(sealed, rolled_until_ns);
                        prop_assert!(buffer.tail_change(0, rolled_until_ns).is_none());
                        let there: Vec<Sample> = std::mem::take(&mut tail)
                            .into_parts()
                            .0
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
                        tail.take(Row { changes: vec![whole], ..Row::default() }).unwrap();
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
        for minute in 0..240 {
            for at in minute * 300..minute * 300 + 300 {
                // The second series is silent in the end.
                for id in ids.iter().take(if minute < 180 { 2 } else { 1 }) {
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
    fn minutes_wait_in_the_tail_and_are_read_from_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.redb");
        let mut w = writer(&path);
        let at = |minute: u64| Monotonic::from_nanos(minute * 60 * S);
        let busy = |bps| {
            let mut minute = Minute::new();
            minute.up.rate_bps.add(bps);
            minute
        };
        let add = |w: &mut Writer, minute, bps| {
            let health = Health {
                cpu_ns: bps,
                ..Health::default()
            };
            w.health(at(minute), &health).unwrap();
            w.load_minute(at(minute), "eth0", &busy(bps)).unwrap();
            w.load_minute(at(minute), "wwan0", &busy(bps + 1)).unwrap();
            w.commit().unwrap();
        };
        // Of each minute: what its rows say.
        let read = |path: &Path, from: u64, to: u64| {
            let r = Reader::open(path).unwrap();
            let wall = |minute| r.time_map().wall_ns(1, at(minute).as_nanos()).unwrap();
            let mut health = Vec::new();
            r.each_health(wall(from), wall(to), |at_ns, row| health.push((at_ns, row)))
                .unwrap();
            let mut load = Vec::new();
            r.load(Window::Minute, wall(from), wall(to), |interface, minute| {
                let mut sum = Minute::new();
                minute.add_to(&mut sum)?;
                load.push((minute.from_ns, interface.to_owned(), sum));
                Ok(())
            })
            .unwrap();
            assert!(health.is_sorted_by_key(|h| h.0) && load.is_sorted_by_key(|l| l.0));
            (health, load)
        };
        (0..10).for_each(|n| add(&mut w, n, n * 1_000_000));
        // A run that begins in a minute of another writes it again.
        add(&mut w, 9, 77_000_000);
        let waiting = |w: &mut Writer| {
            let tx = w.database().unwrap().begin_read().unwrap();
            waiting::read(&tx, For::Load).unwrap().len()
        };
        assert!(waiting(&mut w) > 15);
        let seen = read(&path, 0, 60);
        assert_eq!((seen.0.len(), seen.1.len()), (10, 20));
        assert_eq!(seen.0[9].1.cpu_ns, 77_000_000);
        assert_eq!(seen.1[18].2, busy(77_000_000));
        assert_eq!(seen.1[19].1, "wwan0");
        let part = read(&path, 3, 5);
        assert_eq!(part.0, seen.0[3..5]);
        assert_eq!(part.1, seen.1[6..10]);
        // After a crash they are in their tables, and what comes then replaces what is there.
        let copy = dir.path().join("copy.redb");
        Reader::open(&path).unwrap().copy(&copy).unwrap();
        drop(w);
        let mut w = writer(&path);
        assert_eq!(waiting(&mut w), 0);
        assert_eq!(read(&path, 0, 60), seen);
        w.commit().unwrap();
        add(&mut w, 9, 78_000_000);
        assert_eq!(waiting(&mut w), 2);
        let again = read(&path, 0, 60);
        assert_eq!((again.0.len(), again.1.len()), (10, 20));
        assert_eq!(again.0[9].1.cpu_ns, 78_000_000);
        assert_eq!(again.1[18].2, busy(78_000_000));
        w.close().unwrap();
        assert_eq!(read(&path, 0, 60), again);
        assert_eq!(read(&copy, 0, 60), seen);
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
            assert_eq!(meta.get("schema").unwrap().unwrap().value(), SCHEMA);
        }
    }
}
