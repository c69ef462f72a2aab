//! Throughput tests: on request over the control socket, and by schedule.
//!
//! The load thread does nothing between tests. In a test it probes through a session and a ring of
//! its own, and a second thread moves the bytes, so that neither the daemon's probes nor the test's
//! are disturbed by what they measure. docs/throughput.md says how a test goes.

mod evaluate;
mod flows;
mod run;
mod schedule;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bufferbane_core::seal::PresharedKey;
use bufferbane_store::LoadTest;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use crate::config::Throughput;
use crate::recorder::Order;
use schedule::Schedule;

/// How often the thread looks whether it is to end, or a test is due.
const TICK: Duration = Duration::from_millis(200);

/// What is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// From here to the reflector.
    Up,
    /// From the reflector to here.
    Down,
    /// Both at once.
    Both,
    /// Four streams each way at once, marked CS0, CS1, CS5 and EF.
    Rrul,
}

impl Kind {
    /// The word users read and write.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Both => "both",
            Self::Rrul => "rrul",
        }
    }
}

/// What somebody asks for; what is left out is the configuration's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TestWish {
    /// The reflector's name.
    pub reflector: Option<String>,
    /// The interface.
    pub interface: Option<String>,
    /// What is loaded; up where it is left out.
    pub direction: Option<Kind>,
    /// How long, s.
    pub seconds: Option<u64>,
}

/// How far a test is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// `waiting`, `idle`, `load` or `recovery`.
    pub phase: &'static str,
    /// Since that phase began, ns.
    pub elapsed_ns: u64,
    /// How long it takes at most, ns.
    pub phase_ns: u64,
    /// Rate of the last second, bit/s.
    pub up_bps: Option<u64>,
    /// See `up_bps`.
    pub down_bps: Option<u64>,
    /// The latest round-trip time, ns.
    pub rtt_ns: Option<u64>,
}

/// What a test tells whoever asked for it.
#[derive(Clone, Debug)]
pub enum TestNews {
    /// How far it is.
    Progress(Progress),
    /// Its result. The last news.
    Done(Box<LoadTest>),
    /// Why there is none. The last news.
    Failed(String),
    /// What the wish names and nobody knows, and what there is. The last news.
    Unknown(String),
}

/// A reflector that is reached through an interface.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    pub(crate) interface: String,
    pub(crate) index: u32,
    pub(crate) reflector: String,
    pub(crate) remote: SocketAddr,
    pub(crate) key: PresharedKey,
}

/// What is reached at present: the keeper writes it, the load thread reads it.
pub(crate) type Paths = Arc<Mutex<Vec<Path>>>;

/// One test to be run.
pub(crate) struct Job {
    pub(crate) wish: TestWish,
    pub(crate) news: tokio::sync::mpsc::UnboundedSender<TestNews>,
}

/// What the load thread is told.
pub(crate) enum Request {
    /// To run a test.
    Test(Job),
    /// Other settings from now on.
    Settings(Throughput),
}

/// Asks the load thread for tests.
#[derive(Clone)]
pub(crate) struct Tests(Sender<Request>);

impl Tests {
    /// Has a test run after those that were asked for before; it ends early when the receiver of its
    /// news is dropped.
    pub(crate) fn run(&self, wish: TestWish) -> tokio::sync::mpsc::UnboundedReceiver<TestNews> {
        let (news, receiver) = tokio::sync::mpsc::unbounded_channel();
        if let Err(e) = self.0.send(Request::Test(Job { wish, news }))
            && let Request::Test(job) = e.0
        {
            let _ = job
                .news
                .send(TestNews::Failed("the daemon is ending".into()));
        }
        receiver
    }

    pub(crate) fn set(&self, settings: Throughput) {
        // Gone only when everything ends.
        let _ = self.0.send(Request::Settings(settings));
    }
}

/// The load thread.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    tests: Tests,
}

impl Load {
    pub(crate) fn start(
        settings: Throughput,
        paths: Paths,
        orders: SyncSender<Order>,
        seed: [u8; 32],
    ) -> std::io::Result<Self> {
        let (sender, requests) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let mut rng = ChaCha12Rng::from_seed(seed);
        let mut worker = Worker {
            schedule: Schedule::new(&settings, &mut rng),
            settings,
            paths,
            orders,
            requests,
            stop: stop.clone(),
            rng,
        };
        let thread = std::thread::Builder::new()
            .name("load".into())
            .spawn(move || worker.run())?;
        Ok(Self {
            stop,
            thread: Some(thread),
            tests: Tests(sender),
        })
    }

    pub(crate) fn tests(&self) -> &Tests {
        &self.tests
    }

    /// Ends a test that runs at once, and the thread.
    pub(crate) fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the load thread panicked");
        }
    }
}

struct Worker {
    settings: Throughput,
    schedule: Schedule,
    paths: Paths,
    orders: SyncSender<Order>,
    requests: Receiver<Request>,
    stop: Arc<AtomicBool>,
    rng: ChaCha12Rng,
}

impl Worker {
    fn run(&mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            match self.requests.recv_timeout(TICK) {
                Ok(Request::Test(job)) => self.command(job),
                Ok(Request::Settings(settings)) => {
                    if settings != self.settings {
                        self.schedule = Schedule::new(&settings, &mut self.rng);
                        self.settings = settings;
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.scheduled(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn command(&mut self, job: Job) {
        let Job { wish, news } = job;
        let path = match self.choose(&wish) {
            Ok(path) => path,
            Err(last) => return drop(news.send(last)),
        };
        let spec = self.spec(&path, &wish, "command");
        let stop = self.stop.clone();
        let ended = || stop.load(Ordering::Relaxed) || news.is_closed();
        let mut tell = |progress| drop(news.send(TestNews::Progress(progress)));
        let result = run::run(&spec, &mut self.rng, &ended, &mut tell);
        let last = match result {
            Ok(test) => {
                self.record(&test);
                TestNews::Done(Box::new(test))
            }
            Err(why) => TestNews::Failed(why),
        };
        let _ = news.send(last);
    }

    fn scheduled(&mut self) {
        let paths = self.paths.lock().map(|p| p.clone()).unwrap_or_default();
        let Some((path, kind)) =
            self.schedule
                .due(Instant::now(), &paths, &self.settings, &mut self.rng)
        else {
            return;
        };
        let wish = TestWish {
            direction: Some(kind),
            ..TestWish::default()
        };
        let spec = self.spec(&path, &wish, "schedule");
        let stop = self.stop.clone();
        let ended = || stop.load(Ordering::Relaxed);
        match run::run(&spec, &mut self.rng, &ended, &mut |_| {}) {
            Ok(test) => {
                let bytes = test.ways.iter().map(|w| w.bytes).sum();
                self.schedule.spent(bytes, &self.settings);
                self.record(&test);
            }
            Err(why) => log::warn!("a scheduled test through {}: {why}", path.interface),
        }
    }

    fn record(&self, test: &LoadTest) {
        for way in &test.ways {
            log::info!(
                "{} {}: {:.2} Mbit/s {:?}, latency rises by {:.1} ms ({:.1} ms at the 90th percentile), grade {}",
                test.interface,
                test.reflector,
                way.mean_bps as f64 / 1e6,
                way.direction,
                way.delay.increase.p50 as f64 / 1e6,
                way.delay.increase.p90 as f64 / 1e6,
                way.grade
            );
        }
        // The recorder is gone only when everything ends.
        let _ = self.orders.send(Order::Test(Box::new(test.clone())));
    }

    /// The path that is meant, or what to tell of there being none.
    fn choose(&self, wish: &TestWish) -> Result<Path, TestNews> {
        let paths = self.paths.lock().map(|p| p.clone()).unwrap_or_default();
        pick(&paths, wish).cloned()
    }

    fn spec(&self, path: &Path, wish: &TestWish, asked_by: &'static str) -> run::Spec {
        let kind = wish.direction.unwrap_or(Kind::Up);
        let streams = self.settings.streams;
        let (up, down) = match kind {
            Kind::Up => (streams, 0),
            Kind::Down => (0, streams),
            Kind::Both => (streams, streams),
            Kind::Rrul => (4, 4),
        };
        let dscp = match kind {
            // CS0, CS1, CS5, EF.
            Kind::Rrul => [0, 8, 40, 46, 0, 8, 40, 46],
            _ => [self.settings.dscp; 8],
        };
        let seconds = wish.seconds.unwrap_or(self.settings.seconds);
        run::Spec {
            path: path.clone(),
            kind,
            up,
            down,
            dscp,
            load_ns: seconds.saturating_mul(1_000_000_000),
            congestion: self.settings.congestion.clone(),
            asked_by,
            orders: self.orders.clone(),
        }
    }
}

/// The path that a wish means, or what to tell of there being none.
fn pick<'a>(paths: &'a [Path], wish: &TestWish) -> Result<&'a Path, TestNews> {
    if paths.is_empty() {
        return Err(TestNews::Failed(
            "no reflector is reached at present: [[reflector]] in the configuration names one, \
             and bbtool status says what is wrong"
                .into(),
        ));
    }
    let meant = |p: &&Path| {
        wish.reflector.as_ref().is_none_or(|r| *r == p.reflector)
            && wish.interface.as_ref().is_none_or(|i| *i == p.interface)
    };
    paths.iter().find(meant).ok_or_else(|| {
        let quoted = |name: &Option<String>, word: &str| {
            let name = name.as_ref();
            name.map(|n| format!(" {word} \"{n}\""))
        };
        let there: BTreeSet<String> = paths
            .iter()
            .map(|p| format!("{} over {}", p.reflector, p.interface))
            .collect();
        let there: Vec<String> = there.into_iter().collect();
        TestNews::Unknown(format!(
            "no{} is reached{} at present; what is: {}",
            quoted(&wish.reflector, "reflector").unwrap_or_else(|| " reflector".into()),
            quoted(&wish.interface, "over interface").unwrap_or_default(),
            there.join(", ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use bufferbane_core::seal::{KeyId, Secret};

    use super::*;

    fn path(interface: &str, reflector: &str) -> Path {
        Path {
            interface: interface.into(),
            index: 1,
            reflector: reflector.into(),
            remote: ([192, 0, 2, 1], 9876).into(),
            key: PresharedKey {
                id: KeyId(*b"a client"),
                secret: Secret::new([1; 32]),
            },
        }
    }

    #[test]
    fn a_name_that_nobody_has_is_said_with_those_there_are() {
        let paths = [
            path("eth0", "vienna"),
            path("wlan0", "vienna"),
            path("eth0", "oslo"),
        ];
        let pick = |reflector: Option<&str>, interface: Option<&str>| {
            let wish = TestWish {
                reflector: reflector.map(Into::into),
                interface: interface.map(Into::into),
                ..TestWish::default()
            };
            match super::pick(&paths, &wish) {
                Ok(p) => format!("{} over {}", p.reflector, p.interface),
                Err(TestNews::Unknown(why)) => why,
                Err(other) => panic!("{other:?}"),
            }
        };
        assert_eq!(pick(None, None), "vienna over eth0");
        assert_eq!(pick(None, Some("wlan0")), "vienna over wlan0");
        let there = "at present; what is: oslo over eth0, vienna over eth0, vienna over wlan0";
        for (reflector, interface, says) in [
            (Some("vienne"), None, "no reflector \"vienne\" is reached"),
            (
                None,
                Some("eth7"),
                "no reflector is reached over interface \"eth7\"",
            ),
            (
                Some("oslo"),
                Some("wlan0"),
                "no reflector \"oslo\" is reached over interface \"wlan0\"",
            ),
        ] {
            assert_eq!(pick(reflector, interface), format!("{says} {there}"));
        }
        let none = super::pick(&[], &TestWish::default());
        assert!(matches!(none, Err(TestNews::Failed(_))));
    }
}
