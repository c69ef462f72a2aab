//! A commit that failed, and may be in the file all the same: redb may have made it durable before the
//! error. Each commit says its number with what it writes of the tail, so a look at the file that was
//! opened again tells; what is there is not written twice.

use redb::{Database, ReadableDatabase, ReadableTable};

use super::Writer;
use super::tail::Settled;
use crate::error::StoreError;
use crate::tables::TAIL;

/// What the commit wrote that must not be written again. The rest of it, which has keys of its own, may be.
#[derive(Debug)]
pub(super) struct InDoubt {
    pub(super) commit: u64,
    pub(super) settled: Vec<Settled>,
    /// So many of the pending revisions, from the front.
    pub(super) revisions: usize,
}

impl Writer {
    /// A commit failed at its very end.
    pub(super) fn doubt(&mut self, doubt: InDoubt) {
        for s in &doubt.settled {
            if let Some(buffer) = self.buffers.get_mut(&s.id) {
                buffer.doubt(s.sealed);
            }
        }
        self.in_doubt = Some(doubt);
    }

    /// Looks whether the commit that is in doubt, if one is, is in the file.
    pub(super) fn resolve_doubt(&mut self, db: &Database) -> Result<(), StoreError> {
        let Some(commit) = self.in_doubt.as_ref().map(|d| d.commit) else {
            return Ok(());
        };
        let rows = db.begin_read()?.open_table(TAIL)?;
        let newest = rows.last()?.map(|(number, _)| number.value());
        let is_there = newest == Some(commit);
        if let Some(doubt) = self.in_doubt.take() {
            self.end_doubt(&doubt, is_there);
        }
        Ok(())
    }

    fn end_doubt(&mut self, doubt: &InDoubt, is_there: bool) {
        if is_there {
            let written = doubt.revisions.min(self.pending.revisions.len());
            self.pending.revisions.drain(..written);
        }
        for s in &doubt.settled {
            let Some(buffer) = self.buffers.get_mut(&s.id) else {
                continue;
            };
            if !is_there {
                buffer.doubt(0);
                continue;
            }
            // What became known since then has to be changed where the commit put it.
            let of_series = self.pending.revisions.iter_mut().filter(|r| r.0 == s.id);
            for (_, revised, stored) in of_series {
                stored.in_block |= buffer.is_doubtful(revised);
                stored.in_rollup |= revised.sent.as_nanos() < s.rolled_until_ns;
            }
            buffer.settle(buffer.doubtful(), s.rolled_until_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Error, Result};
    use std::ops::Bound;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bufferbane_core::sample::{Sample, Status};
    use redb::backends::FileBackend;
    use redb::{BackendError, StorageBackend};

    use super::*;
    use crate::codec::decode_summary;
    use crate::common::{self, S};
    use crate::tables::{CACHE_BYTES, MINUTES, MODE};
    use crate::{Filter, Reader, SeriesId};

    type Locked<T> = std::result::Result<T, BackendError>;

    /// A file whose disk fails for good at a write or a sync, which it may have done all the same.
    #[derive(Debug)]
    struct Failing {
        file: FileBackend,
        /// Writes and syncs until then.
        left: Arc<AtomicUsize>,
        does_it: bool,
    }

    impl Failing {
        fn change(&self, change: impl FnOnce() -> Result<()>) -> Result<()> {
            let left = self.left.load(Ordering::Relaxed);
            self.left.store(left.saturating_sub(1), Ordering::Relaxed);
            if left > 1 || (left == 1 && self.does_it) {
                change()?;
            }
            if left > 1 {
                return Ok(());
            }
            Err(Error::other("the disk fails"))
        }
    }

    impl StorageBackend for Failing {
        fn len(&self) -> Result<u64> {
            self.file.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
            self.file.read(offset, out)
        }

        fn set_len(&self, len: u64) -> Result<()> {
            self.change(|| self.file.set_len(len))
        }

        fn sync_data(&self) -> Result<()> {
            self.change(|| self.file.sync_data())
        }

        fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
            self.change(|| self.file.write(offset, data))
        }

        fn close(&self) -> Result<()> {
            self.file.close()
        }

        // Nobody else has the file.
        fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Locked<bool> {
            Ok(true)
        }

        fn try_lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Locked<bool> {
            Ok(true)
        }

        fn lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Locked<()> {
            Ok(())
        }

        fn lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Locked<()> {
            Ok(())
        }

        fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Locked<()> {
            Ok(())
        }

        fn query_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Locked<bool> {
            Ok(false)
        }
    }

    /// Number `seq` of one in a second; each fifth is lost.
    fn sample(seq: u64) -> Sample {
        let rtt_ns = 20_000_000 + seq * 977 % 1_000_000;
        common::sample(seq, seq * S, (seq % 5 != 3).then_some(rtt_ns))
    }

    /// The same when more is known of it.
    fn lost_up(seq: u64) -> Sample {
        Sample {
            status: Status::LostUp,
            ..sample(seq)
        }
    }

    fn begin(path: &Path) -> (Writer, SeriesId) {
        let mut w = common::writer(path);
        let id = w.series(&common::info("a"));
        (w, id)
    }

    /// What the file says of all: samples, and what minutes count: sent, lost, lost up.
    fn told(path: &Path) -> (Vec<Sample>, [u64; 3]) {
        let r = Reader::open(path).unwrap();
        r.check().unwrap();
        let filter = Filter {
            from_ns: i64::MIN,
            to_ns: i64::MAX,
            series: r.series().unwrap().into_keys().collect(),
        };
        let samples = r.samples(&filter).map(|row| row.unwrap().sample).collect();
        let mut counts = [0; 3];
        let minutes = r.read().unwrap().open_table(MINUTES).unwrap();
        for row in minutes.iter().unwrap() {
            let summary = decode_summary(row.unwrap().1.value()).unwrap();
            counts[0] += summary.sent;
            counts[1] += summary.lost;
            counts[2] += summary.lost_up;
        }
        (samples, counts)
    }

    /// Records two thousand samples with four commits, of which the third fails at change number `at` of the
    /// file. Gives whether it fails at all, and whether it was in the file all the same.
    fn live(path: &Path, at: usize, does_it: bool) -> (bool, bool) {
        let (mut w, id) = begin(path);
        let record = |w: &mut Writer, seqs: std::ops::Range<u64>| {
            seqs.for_each(|seq| w.record(id, sample(seq)));
        };
        record(&mut w, 0..700);
        w.commit().unwrap();
        record(&mut w, 700..1000);
        w.commit().unwrap();
        record(&mut w, 1000..1100);
        // One that is rolled up, one that is about to be sealed, and one that is not.
        for seq in [8, 708, 1088] {
            w.revise(id, lost_up(seq));
        }

        w.db = None;
        let file = File::options().read(true).write(true).open(path).unwrap();
        let left = Arc::new(AtomicUsize::new(usize::MAX));
        let file = Failing {
            file: FileBackend::new(file).unwrap(),
            left: Arc::clone(&left),
            does_it,
        };
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_concurrency_mode(MODE)
            .create_with_backend(file)
            .unwrap();
        w.db = Some(db);
        left.store(at, Ordering::Relaxed);
        let failed = w.commit().is_err();
        let in_doubt = w.in_doubt.is_some();
        left.store(usize::MAX, Ordering::Relaxed);

        // Meanwhile recording goes on.
        record(&mut w, 1100..1200);
        for seq in [13, 713, 1093] {
            w.revise(id, lost_up(seq));
        }
        let sealed = w.buffers[&id].unsealed().count();
        w.database().unwrap();
        let was_there = failed && in_doubt && w.buffers[&id].unsealed().count() < sealed;
        assert!(w.in_doubt.is_none());
        w.commit().unwrap();
        record(&mut w, 1200..2000);
        w.commit().unwrap();
        w.close().unwrap();
        (failed, was_there)
    }

    #[test]
    fn a_commit_that_failed_is_in_the_file_once_wherever_it_failed() {
        let dir = tempfile::tempdir().unwrap();
        let expected: Vec<Sample> = (0..2000)
            .map(|seq| match seq {
                8 | 13 | 708 | 713 | 1088 | 1093 => lost_up(seq),
                _ => sample(seq),
            })
            .collect();
        let mut ends = [0, 0];
        for does_it in [false, true] {
            for at in 1.. {
                let path = dir.path().join(format!("{at}-{does_it}.redb"));
                let (failed, was_there) = live(&path, at, does_it);
                let (samples, counts) = told(&path);
                assert!(samples == expected, "{at} {does_it}: {}", samples.len());
                assert_eq!(counts, [2000, 400, 6], "{at} {does_it}");
                if !failed {
                    assert!(at > 5);
                    break;
                }
                ends[usize::from(was_there)] += 1;
            }
        }
        assert!(ends[0] > 5 && ends[1] > 0, "{ends:?}");
    }
}
