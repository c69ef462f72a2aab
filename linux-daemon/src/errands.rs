//! Errands to targets: a thread runs them one by one, so that whoever sends them never waits.

pub(crate) mod spent;
#[cfg(test)]
pub(crate) mod testing;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Where to: interface, target's name and address.
pub(crate) type Key = (String, String, IpAddr);

/// The other end of a thread that runs errands `E`, of which `R` comes back; it ends with this.
#[derive(Debug)]
pub(crate) struct Worker<E, R> {
    /// There is room for one while another is run.
    pub(crate) errands: SyncSender<E>,
    pub(crate) returns: Receiver<R>,
    flags: Arc<Flags>,
}

/// What an errand is given up for.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    hurry: AtomicBool,
    end: AtomicBool,
}

impl Flags {
    /// Whether nobody waits for any errand any more.
    pub(crate) fn is_over(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }

    /// Whether a more urgent errand waits.
    pub(crate) fn is_hurried(&self) -> bool {
        self.hurry.load(Ordering::Relaxed)
    }
}

impl<E: Send + 'static, R: Send + 'static> Worker<E, R> {
    /// Starts a thread of this name.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn start(
        name: &str,
        run: impl Fn(E, &Flags) -> R + Send + 'static,
    ) -> io::Result<Self> {
        let (errands, queue) = sync_channel(1);
        let (back, returns) = sync_channel(1);
        let flags = Arc::<Flags>::default();
        let of_thread = Arc::clone(&flags);
        let thread = std::thread::Builder::new().name(name.into());
        thread.spawn(move || {
            while let Ok(errand) = queue.recv() {
                if back.send(run(errand, &of_thread)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self {
            errands,
            returns,
            flags,
        })
    }

    /// Whether an errand that is not urgent is to be given up.
    pub(crate) fn hurry(&self, hurry: bool) {
        self.flags.hurry.store(hurry, Ordering::Relaxed);
    }
}

impl<E, R> Drop for Worker<E, R> {
    fn drop(&mut self) {
        self.flags.end.store(true, Ordering::Relaxed);
    }
}
