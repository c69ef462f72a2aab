//! Throughput tests: on request over the control socket, and by schedule.
//!
//! Between tests the load thread sends packet trains ([`crate::train`]). In a test it probes through a
//! session and a ring of its own, and a second thread moves the bytes, so that neither the daemon's
//! probes nor the test's are disturbed by what they measure. docs/throughput.md says how a test goes.

mod budget;
mod datagrams;
mod doubt;
mod drops;
mod evaluate;
mod fail_over;
mod flows;
mod loading;
mod meter;
mod others;
mod pings;
mod prober;
mod probes;
mod run;
mod schedule;
mod settings;
mod spec;
mod turn;
mod udp;
mod worker;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, SyncSender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bufferbane_core::seal::PresharedKey;
use bufferbane_core::stamp::Subnet;
use bufferbane_store::LoadTest;
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};

use crate::recorder::Order;
use crate::scout::Way;
use crate::status::Status;
pub(crate) use budget::MONTH_NS;
pub(crate) use settings::Settings;
pub use udp::UdpRates;
use worker::Worker;

/// Who asked for a test, as the store keeps it.
const BY_COMMAND: &str = "command";
const BY_SCHEDULE: &str = "schedule";

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
    /// What is loaded; where it is left out, what `udp` has rates for, else up.
    pub direction: Option<Kind>,
    /// How long, s.
    pub seconds: Option<u64>,
    /// Datagrams at these rates in place of TCP streams.
    pub udp: Option<UdpRates>,
}

impl TestWish {
    /// What is loaded.
    pub(crate) fn kind(&self) -> Kind {
        let of_rates = self.udp.map(UdpRates::kind);
        self.direction.or(of_rates).unwrap_or(Kind::Up)
    }

    /// Whether it can be.
    ///
    /// # Errors
    /// Why not, and what is allowed.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Some(udp) = self.udp else {
            return Ok(());
        };
        udp.check()?;
        let (asked, has) = (self.kind(), udp.kind());
        if asked != has {
            return Err(format!(
                "{} is asked for, and the rates over UDP are for {}; leave the direction out, or give \
                 rates that fit",
                asked.as_str(),
                has.as_str()
            ));
        }
        Ok(())
    }
}

/// How far a test is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// `waiting`, `idle`, `load` or `recovery`.
    pub phase: &'static str,
    /// While it waits: for what.
    pub waits_for: Option<&'static str>,
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
    /// The address that is sent from, where one is configured.
    pub(crate) source: Option<IpAddr>,
    /// The firewall mark that is sent with.
    pub(crate) mark: Option<u32>,
    /// Whether the link is paid for by what it carries.
    pub(crate) cellular: bool,
    /// What all probes through the interface move in 30 days, bytes.
    pub(crate) probe_bytes: u64,
    pub(crate) reflector: String,
    pub(crate) remote: SocketAddr,
    pub(crate) key: Arc<PresharedKey>,
    /// Where the reflector sees TCP come from, if not from where UDP does.
    pub(crate) tcp_prefix: Option<Subnet>,
}

impl Path {
    /// How packets leave for it: all that a test or a train sends, as its probes do.
    pub(crate) fn way(&self) -> Way {
        Way {
            interface: self.interface.clone(),
            source: self.source,
            mark: self.mark,
        }
    }
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
    Settings(Box<Settings>),
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

    pub(crate) fn set(&self, settings: Settings) {
        // Gone only when everything ends.
        let _ = self.0.send(Request::Settings(Box::new(settings)));
    }
}

/// The load thread.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    tests: Tests,
}

/// What the load thread works with beside its settings.
pub(crate) struct Ends {
    pub(crate) paths: Paths,
    pub(crate) orders: SyncSender<Order>,
    pub(crate) status: Arc<Mutex<Status>>,
}

impl Load {
    pub(crate) fn start(settings: Settings, ends: Ends, rng: ChaCha12Rng) -> std::io::Result<Self> {
        let (sender, requests) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let mut worker = Worker::new(settings, ends, requests, stop.clone(), rng);
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

    pub(super) fn path(interface: &str, reflector: &str) -> Path {
        Path {
            interface: interface.into(),
            index: 1,
            source: None,
            mark: None,
            cellular: false,
            probe_bytes: 0,
            reflector: reflector.into(),
            remote: ([192, 0, 2, 1], 9876).into(),
            key: PresharedKey {
                id: KeyId(*b"a client"),
                secret: Secret::new([1; 32]),
            }
            .into(),
            tcp_prefix: None,
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
