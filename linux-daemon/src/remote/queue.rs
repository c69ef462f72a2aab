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
//! last [`Queue::sync`].

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::gather::Batch;
use crate::status::RemoteTally;

const MAGIC: [u8; 5] = *b"BBRW\x01";
const HEAD: usize = 21;
const CHECKSUM: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
/// What a file takes is rounded up to this, bytes.
const BLOCK: u64 = 4096;

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
    /// What is in `dir`, which is made; and how many files there were damaged, which are gone.
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
            match path.extension().and_then(|e| e.to_str()) {
                // It was being written when we ended.
                Some("new") => std::fs::remove_file(&path)?,
                Some("batch") => match (number_of(&path), read(&path)) {
                    (Some(number), Ok(batch)) => found.push(Waiting {
                        number,
                        bytes: on_disk(batch.body.len()),
                        samples: batch.samples,
                        at_ms: batch.at_ms,
                        synced: false,
                    }),
                    (_, Err(e)) if e.kind() != io::ErrorKind::InvalidData => return Err(e),
                    _ => {
                        damaged += 1;
                        std::fs::remove_file(&path)?;
                    }
                },
                _ => {}
            }
        }
        found.sort_by_key(|w| w.number);
        queue.next = found.last().map_or(0, |w| w.number + 1);
        queue.bytes = found.iter().map(|w| w.bytes).sum();
        queue.waiting = found.into();
        Ok((queue, damaged))
    }

    /// Adds a batch; says what was given up for it, which is that batch itself where it cannot be written.
    pub(super) fn push(&mut self, batch: &Batch) -> (RemoteTally, io::Result<()>) {
        let mut given_up = RemoteTally::default();
        let bytes = on_disk(batch.body.len());
        while self.bytes + bytes > self.room() {
            let Some(oldest) = self.waiting.front().copied() else {
                break;
            };
            self.remove(oldest.number);
            given_up.add(one(oldest.samples));
        }
        let free = self.free_bytes();
        let written = if free < self.min_free_bytes.saturating_add(bytes) {
            let why = format!("only {} MiB are free on its disk", free >> 20);
            Err(io::Error::new(io::ErrorKind::StorageFull, why))
        } else {
            self.write(batch)
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
        self.dir.join(format!("{number:016x}.batch"))
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

    /// Makes all that waits durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let dir = self.dir.clone();
        for w in self.waiting.iter_mut().filter(|w| !w.synced) {
            File::open(dir.join(format!("{:016x}.batch", w.number)))?.sync_all()?;
            w.synced = true;
        }
        File::open(dir)?.sync_all()
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

    /// What may wait in all, bytes.
    fn room(&self) -> u64 {
        let more = self.free_bytes().saturating_sub(self.min_free_bytes);
        self.max_bytes.min(self.bytes.saturating_add(more))
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

fn decode(bytes: &[u8]) -> Option<Batch> {
    let (head, body) = bytes.split_at_checked(HEAD)?;
    let (said, check) = head.split_at_checked(HEAD - 4)?;
    let rest = said.strip_prefix(&MAGIC)?;
    let (samples, at_ms) = rest.split_at_checked(4)?;
    if u32::from_le_bytes(check.try_into().ok()?) != checksum(said, body) {
        return None;
    }
    Some(Batch {
        at_ms: i64::from_le_bytes(at_ms.try_into().ok()?),
        samples: u32::from_le_bytes(samples.try_into().ok()?),
        body: body.to_vec(),
    })
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
        queue.sync().unwrap();
        queue.push(&batch(300, 10)).1.unwrap();
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
        let mut bytes = std::fs::read(queue.path(2)).unwrap();
        bytes[60] ^= 1;
        std::fs::write(queue.path(2), &bytes[..]).unwrap();
        let (queue, damaged) = open(dir.path(), 1 << 20);
        assert_eq!((queue.len(), damaged), (2, 2));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
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
