//! The daemon as a whole: its threads, started and stopped in order.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bufferbane_linux_io::netlink::Watch;
use bufferbane_linux_io::support;
use bufferbane_store::{OpenError, Severity};
use jiff::tz::TimeZone;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use crate::config::{self, Config};
use crate::control::{self, Control};
use crate::keeper::{Ends, Keeper, Request};
use crate::load::{Load, Paths, TestNews, TestWish, Tests};
use crate::notify;
use crate::probe::{COMMANDS, ProbeThread, Queues, REPORTS};
use crate::recorder::{Fact, Order, Recorder, Settings};
use crate::status::Status;

/// Why the daemon cannot start.
#[derive(Debug)]
pub enum StartError {
    /// io_uring is not to be had here; says why and what helps.
    Ring(String),
    /// The store cannot be opened.
    Store(OpenError),
    /// The system refused something: what, and why.
    System(String, std::io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(why) => f.write_str(why),
            Self::Store(e) => e.fmt(f),
            Self::System(what, e) => write!(f, "{what}: {e}"),
        }
    }
}

impl std::error::Error for StartError {}

/// A running daemon.
pub struct Daemon {
    status: Arc<Mutex<Status>>,
    orders: SyncSender<Order>,
    requests: Sender<Request>,
    stop_control: Option<tokio::sync::oneshot::Sender<()>>,
    control: Option<JoinHandle<()>>,
    keeper: Option<JoinHandle<()>>,
    probe: Option<JoinHandle<Result<(), String>>>,
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
        support::check().map_err(|e| StartError::Ring(e.to_string()))?;
        if let Some(dir) = config.store.parent().filter(|d| !d.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir)
                .map_err(|e| StartError::System(dir.display().to_string(), e))?;
        }
        let status = Arc::new(Mutex::new(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Status::default()
        }));
        let (orders, order_queue) = sync_channel(1024);
        let (requests, request_queue) = channel();
        let (command_in, command_out) = rtrb::RingBuffer::new(COMMANDS);
        let (retired_in, retired_out) = rtrb::RingBuffer::new(COMMANDS);
        let (report_in, report_out) = rtrb::RingBuffer::new(REPORTS);
        let random = || -> Result<ChaCha12Rng, StartError> {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed)
                .map_err(|e| StartError::System("random numbers".into(), e.into()))?;
            Ok(ChaCha12Rng::from_seed(seed))
        };

        let recorder = Recorder::new(settings(&config), report_out, order_queue, status.clone());
        let (opened_in, opened) = sync_channel(1);
        let recorder = spawn("recorder", move || recorder.run(&opened_in))?;

        let queues = Queues {
            commands: command_out,
            retired: retired_in,
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
        let ends = Ends {
            commands: command_in,
            retired: retired_out,
            waker,
            orders: orders.clone(),
            requests: request_queue,
            status: status.clone(),
            paths: paths.clone(),
        };
        let keeper = Keeper::new(config.clone(), ends, random()?)
            .map_err(|e| StartError::System("netlink".into(), e))?;
        let keeper = spawn("keeper", move || keeper.run(watch))?;

        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|e| StartError::System("random numbers".into(), e.into()))?;
        let load = Load::start(config.throughput.clone(), paths, orders.clone(), seed)
            .map_err(|e| StartError::System("thread load".into(), e))?;
        let tests = load.tests().clone();

        let mut daemon = Self {
            status: status.clone(),
            orders: orders.clone(),
            requests: requests.clone(),
            stop_control: None,
            control: None,
            keeper: Some(keeper),
            probe: Some(probe),
            recorder: Some(recorder),
            load,
        };
        match opened.recv() {
            Ok(Ok(())) => {}
            Ok(Err(e)) => {
                daemon.stop();
                return Err(StartError::Store(e));
            }
            Err(_) => {
                daemon.stop();
                let gone = std::io::Error::other("the recorder thread ended at once");
                return Err(StartError::System("recorder".into(), gone));
            }
        }
        let (stop_in, stop) = tokio::sync::oneshot::channel();
        let control = Control {
            status,
            orders: orders.clone(),
            reload: {
                let tests = tests.clone();
                Arc::new(move || reload(file.as_deref(), &requests, &orders, &tests))
            },
            tests,
            started: Instant::now(),
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

    /// Goes on with another configuration; what did not change is not interrupted.
    pub fn reconfigure(&self, config: Config) {
        // Both ends live as long as the daemon.
        let _ = self.orders.send(Order::Settings(settings(&config)));
        self.load.tests().set(config.throughput.clone());
        let _ = self.requests.send(Request::Config(Box::new(config)));
    }

    /// Runs a throughput test; it is cut off when the receiver of its news is dropped.
    #[must_use]
    pub fn test(&self, wish: TestWish) -> tokio::sync::mpsc::UnboundedReceiver<TestNews> {
        self.load.tests().run(wish)
    }

    /// Reads the configuration again, as SIGHUP does.
    ///
    /// # Errors
    /// What is wrong with it; the old one goes on then.
    pub fn reload(&self, file: Option<&Path>) -> Result<(), String> {
        reload(file, &self.requests, &self.orders, self.load.tests())
    }

    /// Whether every thread runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        fn runs<T>(t: Option<&JoinHandle<T>>) -> bool {
            t.is_some_and(|t| !t.is_finished())
        }
        runs(self.probe.as_ref()) && runs(self.recorder.as_ref()) && runs(self.keeper.as_ref())
    }

    /// Stops probing, writes everything, and closes the store.
    pub fn stop(&mut self) {
        self.load.stop();
        drop(self.stop_control.take());
        let _ = self.requests.send(Request::Stop);
        join("keeper", self.keeper.take());
        if let Some(Err(why)) = join("probe", self.probe.take()) {
            log::error!("{why}");
        }
        let _ = self.orders.send(Order::Stop);
        join("recorder", self.recorder.take());
        join("control", self.control.take());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

fn settings(config: &Config) -> Settings {
    Settings {
        store: config.store.clone(),
        commit_interval_ns: config.commit_interval_ns,
        keep: config.keep,
        // A name that is not known was refused when it was read.
        zone: config
            .timezone
            .as_deref()
            .and_then(|name| TimeZone::get(name).ok())
            .unwrap_or_else(TimeZone::system),
        alerts: config.alerts.clone(),
        sees_household: config
            .interfaces
            .iter()
            .filter_map(|i| Some((i.name.clone(), i.sees_household?)))
            .collect(),
    }
}

fn reload(
    file: Option<&Path>,
    requests: &Sender<Request>,
    orders: &SyncSender<Order>,
    tests: &Tests,
) -> Result<(), String> {
    let Some(file) = file else {
        return Err("there is no configuration file to read again".into());
    };
    let loaded = config::load(file).map_err(|mistakes| mistakes.join("\n"))?;
    for w in &loaded.warnings {
        log::warn!("{w}");
    }
    let ending = |_| "the daemon is ending".to_owned();
    let fact = Fact {
        kind: "config_reload",
        severity: Severity::Info,
        interface: String::new(),
        target: None,
        text: format!("{} was read again", file.display()),
    };
    let _ = orders.send(Order::Begin("config_reload".into(), fact));
    let _ = orders.send(Order::End("config_reload".into()));
    orders
        .send(Order::Settings(settings(&loaded.config)))
        .map_err(|_| "the daemon is ending".to_owned())?;
    tests.set(loaded.config.throughput.clone());
    requests
        .send(Request::Config(Box::new(loaded.config)))
        .map_err(|e| ending(e.to_string()))
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

/// The signals that the daemon acts on.
#[derive(Debug)]
pub struct Signals(signal_hook::iterator::Signals);

impl Signals {
    /// Catches them from now on. To be called before the daemon is started: one that comes while it
    /// starts is acted on when it has, and does not end it half-way.
    ///
    /// # Errors
    /// When signals cannot be watched.
    pub fn catch() -> std::io::Result<Self> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM]).map(Self)
    }

    /// Runs the daemon until SIGTERM or SIGINT; SIGHUP reads the configuration again. Gives whether
    /// it ended because it was told to.
    pub fn obey(mut self, daemon: &mut Daemon, file: Option<&Path>) -> bool {
        notify::ready();
        loop {
            for signal in self.0.pending() {
                if signal != signal_hook::consts::SIGHUP {
                    notify::stopping();
                    daemon.stop();
                    return true;
                }
                notify::reloading();
                match daemon.reload(file) {
                    Ok(()) => log::info!("the configuration was read again"),
                    Err(why) => log::error!("the old configuration goes on: {why}"),
                }
                notify::ready();
            }
            if !daemon.is_running() {
                daemon.stop();
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
