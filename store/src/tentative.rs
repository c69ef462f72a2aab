//! A file that stays as it is until what is in it has proved to be a whole store.
//!
//! After an unclean end redb repairs a file while it opens it, and may find out half-way that it is
//! damaged beyond that. So nothing is written at first: changes are held in memory, in their order,
//! and reads see them. They go into the file, in the same order and with the same syncs, once all
//! is known to be well; what is held otherwise is forgotten, and the file was never touched.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

/// Changes are held in pieces of so many bytes.
const PAGE: usize = 4096;

/// The file as redb sees it.
#[derive(Debug)]
pub(crate) struct Tentative(Arc<Shared>);

/// Decides about the changes that are held. Dropped, it leaves them held for ever.
#[derive(Debug)]
pub(crate) struct Decision(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: FileBackend,
    /// What is not in the file yet; `None` once everything goes straight there.
    held: RwLock<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    len: u64,
    /// So much of the file is still what the file has: what was cut off reads as zeros.
    uncut: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
    changes: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write(u64, Box<[u8]>),
    Length(u64),
    Sync,
}

impl Tentative {
    /// Holds back every change of `file` until the decision.
    pub(crate) fn new(file: FileBackend) -> Result<(Self, Decision)> {
        let len = file.len()?;
        let held = Held {
            len,
            uncut: len,
            pages: BTreeMap::new(),
            changes: Vec::new(),
        };
        let shared = Arc::new(Shared {
            file,
            held: RwLock::new(Some(held)),
        });
        Ok((Self(shared.clone()), Decision(shared)))
    }

    /// Does it to what is held, or to the file where nothing is held any more.
    fn change<T>(
        &self,
        held: impl FnOnce(&mut Held, &FileBackend) -> Result<T>,
        file: impl FnOnce(&FileBackend) -> Result<T>,
    ) -> Result<T> {
        // Nothing of ours panics while it has the lock, and a page is replaced whole.
        let mut guard = self.0.held.write().unwrap_or_else(PoisonError::into_inner);
        match guard.as_mut() {
            Some(h) => held(h, &self.0.file),
            None => {
                drop(guard);
                file(&self.0.file)
            }
        }
    }
}

impl Decision {
    /// Writes all that was held, and holds nothing from now on.
    ///
    /// # Errors
    /// What the file system says; the file is then as after a power cut, which redb repairs.
    pub(crate) fn keep(self) -> Result<()> {
        let mut guard = self.0.held.write().unwrap_or_else(PoisonError::into_inner);
        let Some(held) = guard.as_mut() else {
            return Ok(());
        };
        for change in &held.changes {
            match change {
                Change::Write(at, bytes) => self.0.file.write(*at, bytes)?,
                Change::Length(len) => self.0.file.set_len(*len)?,
                Change::Sync => self.0.file.sync_data()?,
            }
        }
        *guard = None;
        Ok(())
    }
}

/// Goes through `len` bytes at `offset` page by page: the page's begin, where in it and where in
/// the bytes they are.
fn pages(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % PAGE as u64) as usize;
        let count = (PAGE - within).min(len - done);
        done += count;
        Some((at - within as u64, within, done - count..done))
    })
}

impl Held {
    /// What the file has there; zeros beyond its end.
    fn read_file(&self, file: &FileBackend, offset: u64, out: &mut [u8]) -> Result<()> {
        let there = self.uncut.saturating_sub(offset).min(out.len() as u64) as usize;
        out[there..].fill(0);
        file.read(offset, &mut out[..there])
    }

    fn read(&self, file: &FileBackend, offset: u64, out: &mut [u8]) -> Result<()> {
        if offset + out.len() as u64 > self.len {
            return Err(Error::from(ErrorKind::UnexpectedEof));
        }
        self.read_file(file, offset, out)?;
        for (page, within, range) in pages(offset, out.len()) {
            if let Some(held) = self.pages.get(&page) {
                let len = range.len();
                out[range].copy_from_slice(&held[within..within + len]);
            }
        }
        Ok(())
    }

    fn write(&mut self, file: &FileBackend, offset: u64, bytes: &[u8]) -> Result<()> {
        for (page, within, range) in pages(offset, bytes.len()) {
            if !self.pages.contains_key(&page) {
                let mut whole = vec![0; PAGE].into_boxed_slice();
                self.read_file(file, page, &mut whole)?;
                self.pages.insert(page, whole);
            }
            if let Some(held) = self.pages.get_mut(&page) {
                held[within..within + range.len()].copy_from_slice(&bytes[range]);
            }
        }
        self.len = self.len.max(offset + bytes.len() as u64);
        self.changes.push(Change::Write(offset, bytes.into()));
        Ok(())
    }

    fn set_len(&mut self, len: u64) {
        for (page, held) in self.pages.range_mut(len - len % PAGE as u64..) {
            let kept = len.saturating_sub(*page).min(PAGE as u64) as usize;
            held[kept..].fill(0);
        }
        self.len = len;
        self.uncut = self.uncut.min(len);
        self.changes.push(Change::Length(len));
    }
}

impl StorageBackend for Tentative {
    fn len(&self) -> Result<u64> {
        let guard = self.0.held.read().unwrap_or_else(PoisonError::into_inner);
        guard
            .as_ref()
            .map_or_else(|| self.0.file.len(), |h| Ok(h.len))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let guard = self.0.held.read().unwrap_or_else(PoisonError::into_inner);
        match guard.as_ref() {
            Some(held) => held.read(&self.0.file, offset, out),
            None => self.0.file.read(offset, out),
        }
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.change(
            |held, _| {
                held.set_len(len);
                Ok(())
            },
            |file| file.set_len(len),
        )
    }

    fn sync_data(&self) -> Result<()> {
        self.change(
            |held, _| {
                held.changes.push(Change::Sync);
                Ok(())
            },
            FileBackend::sync_data,
        )
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.change(
            |held, file| held.write(file, offset, data),
            |file| file.write(offset, data),
        )
    }

    fn close(&self) -> Result<()> {
        self.0.file.close()
    }

    fn try_lock_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> std::result::Result<bool, BackendError> {
        self.0.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> std::result::Result<bool, BackendError> {
        self.0.file.try_lock_shared_range(start, end)
    }

    fn lock_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> std::result::Result<(), BackendError> {
        self.0.file.lock_range(start, end)
    }

    fn lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> std::result::Result<(), BackendError> {
        self.0.file.lock_shared_range(start, end)
    }

    fn unlock_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> std::result::Result<(), BackendError> {
        self.0.file.unlock_range(start, end)
    }

    fn query_lock_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> std::result::Result<bool, BackendError> {
        self.0.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(bytes: &[u8]) -> (tempfile::NamedTempFile, FileBackend) {
        let named = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(named.path(), bytes).unwrap();
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(named.path())
            .unwrap();
        (named, FileBackend::new(file).unwrap())
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        Length(u64),
        Read(u64, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let at = 0..20_000u64;
        prop_oneof![
            (at.clone(), proptest::collection::vec(any::<u8>(), 1..9000))
                .prop_map(|(at, bytes)| Step::Write(at, bytes)),
            at.clone().prop_map(Step::Length),
            (at, 0..9000usize).prop_map(|(at, len)| Step::Read(at, len)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_held_reads_as_a_file_would_and_reaches_it_only_when_kept(
            before in proptest::collection::vec(any::<u8>(), 0..12_000),
            steps in proptest::collection::vec(step(), 0..20),
            keep in any::<bool>(),
        ) {
            let (named, backend) = file(&before);
            let (held, decision) = Tentative::new(backend).unwrap();
            let mut model = before.clone();
            for step in steps {
                match step {
                    Step::Write(at, bytes) => {
                        let end = at as usize + bytes.len();
                        model.resize(model.len().max(end), 0);
                        model[at as usize..end].copy_from_slice(&bytes);
                        held.write(at, &bytes).unwrap();
                    }
                    Step::Length(len) => {
                        model.resize(len as usize, 0);
                        held.set_len(len).unwrap();
                    }
                    Step::Read(at, len) => {
                        let mut out = vec![0; len];
                        let there = model.get(at as usize..at as usize + len);
                        prop_assert_eq!(held.read(at, &mut out).is_ok(), there.is_some());
                        prop_assert!(there.is_none_or(|t| t == out));
                    }
                }
                prop_assert_eq!(held.len().unwrap(), model.len() as u64);
            }
            prop_assert!(std::fs::read(named.path()).unwrap() == before);
            if keep {
                decision.keep().unwrap();
                prop_assert!(std::fs::read(named.path()).unwrap() == model);
                held.write(3, b"now at once").unwrap();
                let now = std::fs::read(named.path()).unwrap();
                prop_assert_eq!(&now[3..14], b"now at once");
            }
        }
    }
}
