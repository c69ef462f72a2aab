//! The daemon as a whole: its threads, started and stopped in order.

use std::fmt;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bufferbane_core::seal::wipe_stack;
use bufferbane_linux_io::netlink::Watch;
use bufferbane_linux_io::support;
use bufferbane_store::OpenError;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;
use zeroize::Zeroizing;

use crate::ask;
use crate::config::Config;
use crate::control::{self, Control};
use crate::keeper::{Ends, Keeper, Request};
use crate::load::{self, Load, Paths, TestNews, TestWish};
use crate::metrics::{Meters, Source};
use crate::notify;
use crate::probe::{COMMANDS, ProbeThread, Queues, REPORTS};
use crate::recorder::{Order, Recorder};
use crate::reload::{Fixed, Reloader, settings};
use crate::remote::Remotes;
use crate::status::{Status, StoreStatus};

/// How long a signal may go unnoticed.
const ATTENTION: Duration = Duration::from_millis(50);

/// Why the daemon cannot start.
#[derive(Debug)]
pub enum StartError {
    /// io_uring is not to be had here; says why and what helps.
    Ring(String),
    /// The store cannot be opened.
    Store(OpenError),
    /// The system refused something: what, and why.
    System(String, std::io::Error),
    /// It was told to end while its store was being opened.
    Ended,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(why) => f.write_str(why),
            Self::Store(e) => e.fmt(f),
            Self::System(what, e) => write!(f, "{what}: {e}"),
            Self::Ended => f.write_str("told to end before the store was open"),
        }
    }
}

impl std::error::Error for StartError {}

/// A running daemon.
pub struct Daemon {
    status: Arc<Mutex<Status>>,
    reloader: Reloader,
    stop_control: Option<tokio::sync::oneshot::Sender<()>>,
    control: Option<JoinHandle<()>>,
    keeper: Option<JoinHandle<()>>,
    probe: Option<JoinHandle<Result<(), String>>>,
    ask: Option<JoinHandle<()>>,
    recorder: Option<JoinHandle<()>>,
    load: Load,
}

impl Daemon {
    /// Starts every thread; probing begins before the store is open. `file` is read again on a
    /// reload over the control socket.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start(config: Config, file: Option<PathBuf>) -> Result<Self, StartError> {
        Self::start_unless(config, file, || false)
    }

    /// As [`Daemon::start`], but given up once `ended` says so: a store that has to be repaired may
    /// take minutes to open.
    ///
    /// # Errors
    /// [`StartError`]. After [`StartError::Ended`] one thread may still be opening the store, which the
    /// caller's exit cuts off as a power cut would: the next start repairs it.
    pub fn start_unless(
        config: Config,
        file: Option<PathBuf>,
        mut ended: impl FnMut() -> bool,
    ) -> Result<Self, StartError> {
        support::check().map_err(|e| StartError::Ring(e.to_string()))?;
        if let Some(dir) = config.store.parent().filter(|d| !d.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir)
                .map_err(|e| StartError::System(dir.display().to_string(), e))?;
        }
        let store = std::path::absolute(&config.store)
            .map_err(|e| StartError::System(config.store.display().to_string(), e))?;
        let status = Arc::new(Mutex::new(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            store: StoreStatus {
                path: store.display().to_string(),
                ..StoreStatus::default()
            },
            ..Status::default()
        }));
        let (orders, order_queue) = sync_channel(1024);
        let (requests, request_queue) = channel();
        let (command_in, command_out) = rtrb::RingBuffer::new(COMMANDS);
        let (returned_in, returned_out) = rtrb::RingBuffer::new(COMMANDS);
        let (report_in, report_out) = rtrb::RingBuffer::new(REPORTS);
        let random = || -> Result<ChaCha12Rng, StartError> {
            let mut seed = Zeroizing::new([0; 32]);
            getrandom::fill(&mut *seed)
                .map_err(|e| StartError::System("random numbers".into(), e.into()))?;
            Ok(ChaCha12Rng::from_seed(*seed))
        };

        let meters: Arc<Mutex<Meters>> = Arc::default();
        let recorder = Recorder::new(
            settings(&config),
            report_out,
            order_queue,
            status.clone(),
            Arc::clone(&meters),
        );
        let (opened_in, opened) = sync_channel(1);
        let recorder = spawn("recorder", move || recorder.run(&opened_in))?;

        let queues = Queues {
            commands: command_out,
            returned: returned_in,
            reports: report_in,
        };
        let (ring_in, ring) = sync_channel(1);
        let rng = random()?;
        let probe = spawn("probe", move || match ProbeThread::new(queues, rng) {
            Ok(thread) => {
                let _ = ring_in.send(Ok(thread.waker()));
                thread.run()
            }
            Err(e) => {
                let why = e.to_string();
                let _ = ring_in.send(Err(why.clone()));
                Err(why)
            }
        })?;
        let waker = match ring.recv() {
            Ok(Ok(waker)) => waker,
            Ok(Err(why)) => return Err(StartError::Ring(why)),
            Err(_) => return Err(StartError::Ring("the probe thread ended at once".into())),
        };

        let paths = Paths::default();
        let watch = Watch::open().map_err(|e| StartError::System("netlink".into(), e))?;
        let (asks, ask_queue) = tokio::sync::mpsc::unbounded_channel();
        let asking = ask::start(ask_queue, orders.clone())
            .map_err(|e| StartError::System("thread ask".into(), e))?;
        let ends = Ends {
            commands: command_in,
            asks,
            returned: returned_out,
            waker,
            orders: orders.clone(),
            requests: request_queue,
            status: status.clone(),
            paths: paths.clone(),
        };
        let keeper = Keeper::new(config.clone(), ends, random()?)
            .map_err(|e| StartError::System("netlink".into(), e))?;
        let keeper = spawn("keeper", move || keeper.run(watch))?;

        let load_ends = load::Ends {
            paths,
            orders: orders.clone(),
            status: status.clone(),
        };
        let load = Load::start((&config).into(), load_ends, random()?)
            .map_err(|e| StartError::System("thread load".into(), e))?;
        // Where the seeds were.
        wipe_stack();
        let tests = load.tests().clone();

        let source = Source {
            status: status.clone(),
            meters,
            started: Instant::now(),
        };
        let reloader = Reloader {
            fixed: Fixed::of(&config),
            file,
            orders: orders.clone(),
            requests,
            tests: tests.clone(),
            remotes: Remotes::new(source.clone()),
        };
        let mut daemon = Self {
            status,
            reloader: reloader.clone(),
            stop_control: None,
            control: None,
            keeper: Some(keeper),
            probe: Some(probe),
            ask: Some(asking),
            recorder: Some(recorder),
            load,
        };
        loop {
            match opened.recv_timeout(ATTENTION) {
                Ok(Ok(())) => break,
                Ok(Err(e)) => {
                    daemon.stop();
                    return Err(StartError::Store(e));
                }
                Err(RecvTimeoutError::Timeout) if ended() => {
                    notify::stopping();
                    // It waits for the opening, and has nothing to write before.
                    drop(daemon.recorder.take());
                    daemon.stop();
                    return Err(StartError::Ended);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    daemon.stop();
                    let gone = std::io::Error::other("the recorder thread ended at once");
                    return Err(StartError::System("recorder".into(), gone));
                }
            }
        }
        reloader.set_remotes(&config);
        let (stop_in, stop) = tokio::sync::oneshot::channel();
        let control = Control {
            source,
            orders,
            reload: Arc::new(move || reloader.reload()),
            tests,
        };
        match control::serve(&config.control_socket, config.http, control, stop) {
            Ok(thread) => {
                daemon.control = Some(thread);
                daemon.stop_control = Some(stop_in);
            }
            Err(e) => {
                daemon.stop();
                return Err(StartError::System(
                    config.control_socket.display().to_string(),
                    e,
                ));
            }
        }
        Ok(daemon)
    }

    /// What `status` says over the control socket.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.lock().map(|s| s.clone()).unwrap_or_default()
    }

    /// Goes on with another configuration; what did not change is not interrupted, and what takes a
    /// restart stays as it is, which the log says.
    pub fn reconfigure(&self, config: Config) {
        // It only fails where the daemon is ending.
        let _ = self.reloader.take(config);
    }

    /// Runs a throughput test; it is cut off when the receiver of its news is dropped.
    #[must_use]
    pub fn test(&self, wish: TestWish) -> tokio::sync::mpsc::UnboundedReceiver<TestNews> {
        self.load.tests().run(wish)
    }

    /// Reads the file that it was started with again, as SIGHUP does.
    ///
    /// # Errors
    /// What is wrong with it; the old configuration goes on then.
    pub fn reload(&self) -> Result<(), String> {
        self.reloader.reload()
    }

    /// Whether every thread runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        fn runs<T>(t: Option<&JoinHandle<T>>) -> bool {
            t.is_some_and(|t| !t.is_finished())
        }
        let service = [&self.recorder, &self.keeper, &self.ask];
        runs(self.probe.as_ref()) && service.into_iter().all(|t| runs(t.as_ref()))
    }

    /// Stops probing, writes everything, and closes the store.
    pub fn stop(&mut self) {
        self.load.stop();
        drop(self.stop_control.take());
        let _ = self.reloader.requests.send(Request::Stop);
        join("keeper", self.keeper.take());
        // Its commands came from the keeper.
        join("ask", self.ask.take());
        if let Some(Err(why)) = join("probe", self.probe.take()) {
            log::error!("{why}");
        }
        let _ = self.reloader.orders.send(Order::Stop);
        join("recorder", self.recorder.take());
        // After the last sample is counted.
        self.reloader.remotes.stop();
        join("control", self.control.take());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StartError> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .map_err(|e| StartError::System(format!("thread {name}"), e))
}

fn join<T>(name: &str, thread: Option<JoinHandle<T>>) -> Option<T> {
    let result = thread?.join();
    if result.is_err() {
        log::error!("the {name} thread panicked");
    }
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_no_longer_asks_services_does_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("s.redb");
        let mut config = Config {
            targets: Some(Vec::new()),
            store: store.clone(),
            control_socket: dir.path().join("c.sock"),
            http: None,
            ..Config::default()
        };
        config.keep.min_free_bytes = 0;
        let mut daemon = match Daemon::start(config, None) {
            Err(StartError::Ring(why)) => {
                eprintln!("SKIPPED: {why}");
                assert!(std::env::var_os("CI").is_none(), "skipped in CI: {why}");
                return;
            }
            started => started.unwrap(),
        };
        assert!(daemon.is_running());
        assert_eq!(daemon.status().store.path, store.to_str().unwrap());
        let ended = spawn("ask", || ()).unwrap();
        while !ended.is_finished() {
            std::thread::yield_now();
        }
        let asking = daemon.ask.replace(ended);
        assert!(!daemon.is_running());
        daemon.ask = asking;
    }
}
