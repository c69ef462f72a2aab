//! The emulated line: takes frames off one interface and puts them onto another, does to them on the
//! way what bad lines do, and writes down what became of each.
//!
//! Every decision is made from the kernel's stamp of the frame's arrival, so a late wake-up of this
//! program only shifts the release; the log has the time at which a frame really left.
//!
//! ```text
//! arrival ─ outage? ─ lost? ─ buffer full? ─ grant ─ bucket ─ rate ─ delay, jitter ─ departure
//!                                └────────── queue_ns ──────────┘
//! ```

mod frame;
mod lane;
mod log;
mod passage;
mod plan;
mod spec;
mod wire;
mod worker;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

pub use log::{BIN_NS, Bin, MAX_PACKETS, Record};
pub use passage::{CSV_HEADER, Fate, Flow, Passage, Way, write_csv};
pub use plan::{Bucket, Bursts, Direction, Grants, Outages, Rewrite};

use crate::netns::Namespace;
use log::Log;
use wire::Port;
use worker::{Line, Worker};

/// What holds for a line, and how often that has changed.
#[derive(Clone, Debug)]
struct Plan {
    directions: [Direction; 2],
    generation: u64,
}

struct Shared {
    plan: Mutex<Plan>,
    /// That of `plan`, to be read without its lock.
    generation: AtomicU64,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Stop(AtomicBool);

/// The one thread of some lines; it ends with the last of them.
struct Thread {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.0.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Two interfaces to be joined, and how.
#[derive(Clone, Debug)]
pub struct Ends {
    /// The interface on the client's side.
    pub client: String,
    /// The interface on the server's side.
    pub server: String,
    /// What the line does at first, up and down.
    pub plan: [Direction; 2],
    /// Decides everything that is left to chance.
    pub seed: u64,
}

/// A line at work between two interfaces of one namespace. It ends when this is dropped; lines that
/// were started together share a thread, which ends with the last of them.
pub struct Link {
    shared: Arc<Shared>,
    _thread: Arc<Thread>,
}

impl Link {
    /// Joins each pair of `ends`, all in `middle` or, without one, where this thread is.
    ///
    /// # Errors
    /// When an interface is missing, or the packet sockets cannot be opened: they need
    /// `CAP_NET_RAW`.
    pub fn start(middle: Option<&Namespace>, ends: Vec<Ends>) -> io::Result<Vec<Self>> {
        let stop = Arc::new(Stop::default());
        let shared: Vec<Arc<Shared>> = ends
            .iter()
            .map(|e| {
                Arc::new(Shared {
                    plan: Mutex::new(Plan {
                        directions: e.plan.clone(),
                        generation: 0,
                    }),
                    generation: AtomicU64::new(0),
                    log: Mutex::new(Log::new(Record::All)),
                })
            })
            .collect();
        let (for_thread, stopping) = (shared.clone(), stop.clone());
        let (ready_in, ready) = std::sync::mpsc::sync_channel(1);
        let work = move || {
            let open = || -> io::Result<Vec<Line>> {
                let lines = ends.iter().zip(for_thread).map(|(e, shared)| {
                    let ports = [Port::open(&e.client)?, Port::open(&e.server)?];
                    Ok(Line::new(shared, ports, e.seed))
                });
                lines.collect()
            };
            match open() {
                Ok(lines) => {
                    let _ = ready_in.send(Ok(()));
                    Worker::new(lines, stopping).run();
                }
                Err(e) => drop(ready_in.send(Err(e))),
            }
        };
        let thread = match middle {
            Some(ns) => ns.spawn(work)?,
            None => std::thread::spawn(work),
        };
        let thread = Arc::new(Thread {
            stop,
            thread: Some(thread),
        });
        ready
            .recv()
            .map_err(|_| io::Error::other("the link's thread ended at once"))??;
        Ok(shared
            .into_iter()
            .map(|shared| Self {
                shared,
                _thread: thread.clone(),
            })
            .collect())
    }

    /// Does this to packets that arrive from now on.
    pub fn change(&self, way: Way, direction: Direction) {
        if let Ok(mut plan) = self.shared.plan.lock() {
            plan.directions[way as usize] = direction;
            plan.generation += 1;
            self.shared
                .generation
                .store(plan.generation, Ordering::Release);
        }
    }

    /// Writes down these packets one by one from now on; all of them at first.
    pub fn record(&self, record: Record) {
        self.with_log((), |log| log.set_record(record));
    }

    /// What became of every packet so far that was to be written down, in the order in which they
    /// left or were dropped. At most [`MAX_PACKETS`].
    #[must_use]
    pub fn log(&self) -> Vec<Passage> {
        self.with_log(Vec::new(), |log| log.packets())
    }

    /// The same in chunks, and forgets them: for logs without end.
    #[must_use]
    pub fn take_log(&self) -> Vec<Vec<Passage>> {
        self.with_log(Vec::new(), Log::take)
    }

    /// What passed in each [`BIN_NS`], in the order of time; times without packets have no bin.
    #[must_use]
    pub fn bins(&self) -> Vec<Bin> {
        self.with_log(Vec::new(), |log| log.bins())
    }

    /// Packets that were not written down because the log was full.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.with_log(0, |log| log.left_out())
    }

    /// Frames that the kernel dropped because this program was too slow, and frames that were too
    /// large because something was still offloaded: the log does not have them.
    /// Not 0: nothing that was compared with the log counts.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.with_log(0, |log| log.missed())
    }

    fn with_log<T>(&self, otherwise: T, read: impl FnOnce(&mut Log) -> T) -> T {
        self.shared
            .log
            .lock()
            .map_or(otherwise, |mut log| read(&mut log))
    }
}
