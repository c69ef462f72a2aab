//! What waits for a receiver: a file for each batch, in a directory of its own, oldest first.
//!
//! ```text
//! 0        "BBRW" 0x01
//! 5        samples in it, u32, little-endian
//! 9        when they are from, ms since 1970, i64
//! 17       CRC-32C of what is before and of what follows, u32
//! 21       io.prometheus.write.v2.Request, compressed by snappy
//! ```
//!
//! A batch that is taken at once never reaches the disk: its file lives for less time than the kernel
//! holds writing back. So kill -9 costs nothing, and what outlives a power cut too is what was there at the
//! last [`sync`].

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::gather::Batch;
use crate::status::RemoteTally;

const MAGIC: [u8; 5] = *b"BBRW\x01";
const HEAD: usize = 21;
const CHECKSUM: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
/// What a file takes is rounded up to this, bytes.
const BLOCK: u64 = 4096;
/// More files than this are made durable all at once, with whatever else waits for their disk.
const SINGLY: usize = 64;

/// A batch that waits.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    number: u64,
    bytes: u64,
    samples: u32,
    at_ms: i64,
    synced: bool,
}

/// See the module.
pub(super) struct Queue {
    dir: PathBuf,
    max_bytes: u64,
    min_free_bytes: u64,
    waiting: VecDeque<Waiting>,
    bytes: u64,
    next: u64,
}

impl Queue {
    /// What is in `dir`, which is made; and how many files there were damaged, which are gone. Only the heads
    /// are read: the rest is looked at when it is sent. What cannot be read now stays where it is.
    pub(super) fn open(dir: &Path, max_bytes: u64, min_free_bytes: u64) -> io::Result<(Self, u64)> {
        std::fs::create_dir_all(dir)?;
        let mut queue = Self {
            dir: dir.to_owned(),
            max_bytes,
            min_free_bytes,
            waiting: VecDeque::new(),
            bytes: 0,
            next: 0,
        };
        let mut damaged = 0;
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            let kept = match path.extension().and_then(|e| e.to_str()) {
                // It was being written when we ended.
                Some("new") => std::fs::remove_file(&path),
                Some("batch") => match (number_of(&path), read_head(&path)) {
                    (Some(number), Ok(waiting)) => {
                        found.push(Waiting { number, ..waiting });
                        Ok(())
                    }
                    (number, Err(e)) if e.kind() != io::ErrorKind::InvalidData => {
                        // Its name is not to be given to another one.
                        let after = number.map_or(0, |n| n.saturating_add(1));
                        queue.next = queue.next.max(after);
                        Err(e)
                    }
                    _ => {
                        damaged += 1;
                        std::fs::remove_file(&path)
                    }
                },
                _ => Ok(()),
            };
            if let Err(e) = kept {
                log::warn!(
                    "{}: {e}; it is left there until the next start",
                    path.display()
                );
            }
        }
        found.sort_by_key(|w| w.number);
        let after = found.last().map_or(0, |w| w.number.saturating_add(1));
        queue.next = queue.next.max(after);
        queue.bytes = found.iter().map(|w| w.bytes).sum();
        queue.waiting = found.into();
        Ok((queue, damaged))
    }

    /// Adds a batch; says what was given up for it, and whether it was written: if not, it is itself among
    /// what was given up.
    pub(super) fn push(&mut self, batch: &Batch) -> (RemoteTally, io::Result<()>) {
        let mut given_up = RemoteTally::default();
        let bytes = on_disk(batch.body.len());
        let free = self.free_bytes();
        let written = match self.to_give_up(bytes, free) {
            None => {
                let why = format!("only {} MiB are free on its disk", free >> 20);
                Err(io::Error::new(io::ErrorKind::StorageFull, why))
            }
            Some(goes) => {
                let stays = self.bytes - goes;
                while self.bytes > stays
                    && let Some(oldest) = self.waiting.front().copied()
                {
                    self.remove(oldest.number);
                    given_up.add(one(oldest.samples));
                }
                self.write(batch)
            }
        };
        match &written {
            Ok(()) => {
                self.waiting.push_back(Waiting {
                    number: self.next,
                    bytes,
                    samples: batch.samples,
                    at_ms: batch.at_ms,
                    synced: false,
                });
                self.bytes += bytes;
            }
            Err(_) => given_up.add(one(batch.samples)),
        }
        self.next += 1;
        (given_up, written)
    }

    fn write(&self, batch: &Batch) -> io::Result<()> {
        let path = self.path(self.next);
        let new = path.with_extension("new");
        let written = File::create(&new)
            .and_then(|mut f| f.write_all(&encode(batch)))
            .and_then(|()| std::fs::rename(&new, &path));
        if written.is_err() {
            // What is there of it is of no use.
            let _ = std::fs::remove_file(&new);
        }
        written
    }

    /// The number of the oldest.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.waiting.front().map(|w| w.number)
    }

    /// Where a batch is.
    pub(super) fn path(&self, number: u64) -> PathBuf {
        path_of(&self.dir, number)
    }

    /// Takes a batch out; its samples, unless it had been given up meanwhile.
    pub(super) fn remove(&mut self, number: u64) -> Option<u32> {
        let place = self.waiting.iter().position(|w| w.number == number)?;
        let waiting = self.waiting.remove(place)?;
        self.bytes -= waiting.bytes;
        // It may have been removed by hand.
        let _ = std::fs::remove_file(self.path(number));
        Some(waiting.samples)
    }

    /// What waits and may not be durable, for [`sync`]; and their directory.
    pub(super) fn unsynced(&self) -> (PathBuf, Vec<u64>) {
        let numbers = self.waiting.iter().filter(|w| !w.synced).map(|w| w.number);
        (self.dir.clone(), numbers.collect())
    }

    /// These are durable; numbers that rise.
    pub(super) fn synced(&mut self, numbers: &[u64]) {
        for w in &mut self.waiting {
            w.synced |= numbers.binary_search(&w.number).is_ok();
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// What they take on the disk.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the oldest is from, ms since 1970.
    pub(super) fn oldest_ms(&self) -> Option<i64> {
        self.waiting.front().map(|w| w.at_ms)
    }

    /// How much has to go for so many more bytes; `None` where all there is would not make room on a disk
    /// with so much free, which others have filled: then what waits is worth more than what comes.
    fn to_give_up(&self, bytes: u64, free: u64) -> Option<u64> {
        let over = (self.bytes + bytes).saturating_sub(self.max_bytes);
        let short = self
            .min_free_bytes
            .saturating_add(bytes)
            .saturating_sub(free);
        (short <= self.bytes).then(|| over.max(short).min(self.bytes))
    }

    fn free_bytes(&self) -> u64 {
        nix::sys::statvfs::statvfs(&self.dir).map_or(u64::MAX, |s| {
            s.blocks_available().saturating_mul(s.fragment_size())
        })
    }
}

/// A batch of so many samples.
fn one(samples: u32) -> RemoteTally {
    RemoteTally {
        batches: 1,
        samples: samples.into(),
    }
}

fn number_of(path: &Path) -> Option<u64> {
    u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok()
}

fn on_disk(body: usize) -> u64 {
    ((body + HEAD) as u64).next_multiple_of(BLOCK)
}

fn encode(batch: &Batch) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(batch.samples.to_le_bytes());
    bytes.extend(batch.at_ms.to_le_bytes());
    let check = checksum(&bytes, &batch.body);
    bytes.extend(check.to_le_bytes());
    bytes.extend(&batch.body);
    bytes
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    let mut digest = CHECKSUM.digest();
    digest.update(head);
    digest.update(body);
    digest.finalize()
}

/// Reads a batch.
///
/// # Errors
/// Of kind `InvalidData` where it is damaged.
pub(super) fn read(path: &Path) -> io::Result<Batch> {
    let bytes = std::fs::read(path)?;
    decode(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is damaged"))
}

/// Reads what is to be known of a batch while it waits; its number is not known here.
///
/// # Errors
/// Of kind `InvalidData` where it is damaged.
fn read_head(path: &Path) -> io::Result<Waiting> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut head = Vec::new();
    file.take(HEAD as u64).read_to_end(&mut head)?;
    let (samples, at_ms) = decode_head(&head)
        .filter(|_| head.len() == HEAD)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is damaged"))?;
    Ok(Waiting {
        number: 0,
        bytes: bytes.next_multiple_of(BLOCK),
        samples,
        at_ms,
        synced: false,
    })
}

/// Makes these batches of `dir` durable, but begins with none after `until`. Says which are, in their order,
/// or are gone, and what went wrong first.
pub(super) fn sync(
    dir: &Path,
    numbers: &[u64],
    until: Option<Instant>,
) -> (Vec<u64>, io::Result<()>) {
    if numbers.is_empty() {
        return (Vec::new(), Ok(()));
    }
    let place = match File::open(dir) {
        Ok(place) => place,
        Err(e) => return (Vec::new(), Err(e)),
    };
    if numbers.len() > SINGLY {
        return match nix::unistd::syncfs(&place) {
            Ok(()) => (numbers.to_vec(), Ok(())),
            Err(e) => (Vec::new(), Err(e.into())),
        };
    }
    let mut all = Ok(());
    let mut durable = Vec::new();
    for number in numbers {
        if until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
        match File::open(path_of(dir, *number)).and_then(|f| f.sync_all()) {
            Ok(()) => durable.push(*number),
            // It was sent, or given up.
            Err(e) if e.kind() == io::ErrorKind::NotFound => durable.push(*number),
            Err(e) => all = all.and(Err(e)),
        }
    }
    // Without their names files are not found again.
    match place.sync_all() {
        Ok(()) => (durable, all),
        Err(e) => (Vec::new(), all.and(Err(e))),
    }
}

fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.batch"))
}

fn decode(bytes: &[u8]) -> Option<Batch> {
    let (head, body) = bytes.split_at_checked(HEAD)?;
    let (samples, at_ms) = decode_head(head)?;
    let (said, check) = head.split_at_checked(HEAD - 4)?;
    if u32::from_le_bytes(check.try_into().ok()?) != checksum(said, body) {
        return None;
    }
    Some(Batch {
        at_ms,
        samples,
        body: body.to_vec(),
    })
}

/// Samples, and when they are from, ms since 1970.
fn decode_head(head: &[u8]) -> Option<(u32, i64)> {
    let rest = head.strip_prefix(&MAGIC)?;
    let (samples, at_ms) = (rest.get(..4)?, rest.get(4..12)?);
    let samples = u32::from_le_bytes(samples.try_into().ok()?);
    Some((samples, i64::from_le_bytes(at_ms.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn batch(n: u32, len: usize) -> Batch {
        Batch {
            at_ms: i64::from(n) * 1000,
            samples: n,
            body: vec![n as u8; len],
        }
    }

    fn open(dir: &Path, max: u64) -> (Queue, u64) {
        Queue::open(dir, max, 0).unwrap()
    }

    #[test]
    fn batches_outlive_the_program_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, _) = open(dir.path(), 2 << 20);
        for n in 0..300 {
            queue.push(&batch(n, 10)).1.unwrap();
        }
        assert_eq!(queue.remove(queue.oldest().unwrap()), Some(0));
        std::fs::write(dir.path().join("0000000000000999.new"), "half").unwrap();
        drop(queue);
        let (mut queue, damaged) = open(dir.path(), 2 << 20);
        assert_eq!((queue.len(), damaged), (299, 0));
        let (place, numbers) = queue.unsynced();
        let (durable, all) = sync(&place, &numbers, None);
        all.unwrap();
        assert_eq!(durable.len(), 299);
        queue.synced(&durable);
        queue.push(&batch(300, 10)).1.unwrap();
        assert_eq!(queue.unsynced().1, [300]);
        for n in 1..=300 {
            let number = queue.oldest().unwrap();
            assert_eq!(read(&queue.path(number)).unwrap(), batch(n, 10));
            assert_eq!(queue.oldest_ms(), Some(i64::from(n) * 1000));
            assert_eq!(queue.remove(number), Some(n));
            assert_eq!(queue.remove(number), None);
        }
        assert_eq!((queue.oldest(), queue.bytes()), (None, 0));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_damaged_is_counted_and_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, _) = open(dir.path(), 1 << 20);
        for n in 0..4 {
            queue.push(&batch(n, 100)).1.unwrap();
        }
        std::fs::write(queue.path(1), "").unwrap();
        std::fs::write(queue.path(2), [0; 300]).unwrap();
        let mut bytes = std::fs::read(queue.path(3)).unwrap();
        bytes[60] ^= 1;
        std::fs::write(queue.path(3), &bytes[..]).unwrap();
        let (queue, damaged) = open(dir.path(), 1 << 20);
        assert_eq!((queue.len(), damaged), (2, 2));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        read(&queue.path(0)).unwrap();
        let flipped = read(&queue.path(3)).unwrap_err();
        assert_eq!(flipped.kind(), io::ErrorKind::InvalidData);
    }

    /// A file that nobody can open, not even root.
    fn spoil(path: &Path) {
        // It may not have been there.
        let _ = std::fs::remove_file(path);
        std::os::unix::fs::symlink(path, path).unwrap();
    }

    #[test]
    fn what_cannot_be_read_holds_up_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, _) = open(dir.path(), 1 << 20);
        for n in 0..3 {
            queue.push(&batch(n, 100)).1.unwrap();
        }
        spoil(&queue.path(2));
        let (mut queue, damaged) = open(dir.path(), 1 << 20);
        assert_eq!((queue.len(), damaged), (2, 0));
        queue.push(&batch(3, 100)).1.unwrap();
        assert_eq!(queue.unsynced().1, [0, 1, 3]);
        assert!(queue.path(2).is_symlink());
    }

    #[test]
    fn a_sync_goes_on_past_what_is_gone_or_fails() {
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, _) = open(dir.path(), 1 << 20);
        for n in 0..4 {
            queue.push(&batch(n, 100)).1.unwrap();
        }
        std::fs::remove_file(queue.path(0)).unwrap();
        spoil(&queue.path(2));
        let (place, numbers) = queue.unsynced();
        let over = sync(&place, &numbers, Some(Instant::now()));
        assert!(over.0.is_empty() && over.1.is_ok(), "{over:?}");
        let (durable, all) = sync(&place, &numbers, None);
        assert_eq!(durable, [0, 1, 3]);
        assert_eq!(all.unwrap_err().raw_os_error(), Some(nix::libc::ELOOP));
        queue.synced(&durable);
        assert_eq!(queue.unsynced().1, [2]);
    }

    #[test]
    fn a_disk_that_others_have_filled_costs_nothing_of_what_waits() {
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, _) = open(dir.path(), 1 << 20);
        for n in 0..5 {
            queue.push(&batch(n, 10)).1.unwrap();
        }
        let (mut queue, _) = Queue::open(dir.path(), 1 << 20, u64::MAX / 2).unwrap();
        let (given_up, written) = queue.push(&batch(9, 10));
        assert_eq!((given_up.batches, given_up.samples), (1, 9));
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!((queue.len(), queue.oldest()), (5, Some(0)));
    }

    #[test]
    fn as_much_is_given_up_as_helps() {
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, _) = open(dir.path(), 1 << 20);
        (queue.bytes, queue.min_free_bytes) = (800_000, 10_000_000);
        // New bytes, free ones, and what goes.
        for (bytes, free, goes) in [
            (8192, 20_000_000, Some(0)),
            (8192, 10_008_192, Some(0)),
            (8192, 10_000_000, Some(8192)),
            (8192, 9_208_192, Some(800_000)),
            (8192, 9_208_191, None),
            (8192, 0, None),
            (300_000, 20_000_000, Some(51_424)),
            (300_000, 10_200_000, Some(100_000)),
            (2_000_000, 20_000_000, Some(800_000)),
        ] {
            assert_eq!(queue.to_give_up(bytes, free), goes, "{bytes} {free}");
        }
    }

    #[test]
    fn a_full_disk_takes_nothing_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, _) = Queue::open(dir.path(), 1 << 20, u64::MAX / 2).unwrap();
        let (given_up, written) = queue.push(&batch(9, 10));
        assert_eq!((given_up.batches, given_up.samples), (1, 9));
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_bound_holds_and_the_oldest_go_first(
            lengths in proptest::collection::vec(0usize..30_000, 1..60),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let (mut queue, _) = open(dir.path(), 100_000);
            let (mut gone, mut said) = (0, 0);
            for (n, len) in lengths.iter().enumerate() {
                let (given_up, written) = queue.push(&batch(n as u32, *len));
                written.unwrap();
                prop_assert!(queue.bytes() <= 100_000);
                gone += given_up.batches;
                said += given_up.samples;
                prop_assert_eq!(queue.oldest(), Some(gone));
                prop_assert_eq!(queue.len() as u64 + gone, n as u64 + 1);
            }
            prop_assert_eq!(said, (0..gone).sum::<u64>());
            let files = std::fs::read_dir(dir.path()).unwrap().count();
            prop_assert_eq!(files, queue.len());
        }
    }
}
