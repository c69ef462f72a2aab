//! The load thread: one test after the other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bufferbane_core::seal::wipe_stack;
use bufferbane_core::wire::load::Offer;
use bufferbane_linux_io::netlink::Netlink;
use bufferbane_linux_io::{clock, host};
use bufferbane_store::{LoadTest, TestWay, Trust};
use rand_chacha::ChaCha12Rng;

use super::budget::{self, Made, Now, Spent};
use super::fail_over::{first_that_can, stand_ins};
use super::schedule::{Facts, Schedule};
use super::settings::Settings;
use super::spec::{Patience, Spec};
use super::{
    BY_COMMAND, BY_SCHEDULE, Ends, Job, Kind, Path, Progress, Request, TestNews, TestWish,
    datagrams, pick, run,
};
use crate::household::Forwarding;
use crate::recorder::{Order, wall};
use crate::status::ScheduledTests;
use crate::train::{self, Trains};

/// How often the thread looks whether it is to end, or a test or a train is due.
const TICK: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct Worker {
    settings: Settings,
    schedule: Schedule,
    ends: Ends,
    requests: Receiver<Request>,
    /// What was asked for while a test ran.
    waiting: VecDeque<Request>,
    stop: Arc<AtomicBool>,
    forwarding: Forwarding,
    /// The tests of this run: those that failed, or are not written yet, the store does not hold.
    made: Vec<Made>,
    /// What was said of an uplink last, so that it is said once.
    said: BTreeMap<String, &'static str>,
    /// Why the latest scheduled test of an uplink came to nothing, of those of which it did.
    failed: BTreeMap<String, String>,
    rng: ChaCha12Rng,
}

impl Worker {
    pub(super) fn new(
        settings: Settings,
        ends: Ends,
        requests: Receiver<Request>,
        stop: Arc<AtomicBool>,
        mut rng: ChaCha12Rng,
    ) -> Self {
        Self {
            schedule: Schedule::new(&settings.throughput, &mut rng),
            settings,
            ends,
            requests,
            waiting: VecDeque::new(),
            stop,
            forwarding: Forwarding::default(),
            made: Vec::new(),
            said: BTreeMap::new(),
            failed: BTreeMap::new(),
            rng,
        }
    }

    pub(super) fn run(&mut self) {
        // From now on packets that are forwarded count.
        self.forwarding.look();
        // Their ring belongs to this thread.
        let mut trains = Trains::default();
        while !self.stop.load(Ordering::Relaxed) {
            let request = match self.waiting.pop_front() {
                Some(request) => Ok(request),
                None => self.requests.recv_timeout(TICK),
            };
            match request {
                Ok(Request::Test(job)) => self.command(job),
                Ok(Request::Settings(settings)) => {
                    // Budgets of uplinks may be others, too.
                    trains = Trains::default();
                    if settings.throughput != self.settings.throughput {
                        self.schedule = Schedule::new(&settings.throughput, &mut self.rng);
                    }
                    self.settings = *settings;
                    self.failed.clear();
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.scheduled();
                    self.trains(&mut trains);
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn command(&mut self, job: Job) {
        let Job { wish, news } = job;
        let paths = match self.choose(&wish) {
            Ok(paths) => paths,
            Err(last) => return drop(news.send(last)),
        };
        if let Err(why) = wish.check() {
            return drop(news.send(TestNews::Unknown(why)));
        }
        let stop = self.stop.clone();
        let ended = || stop.load(Ordering::Relaxed) || news.is_closed();
        let result = first_that_can(&paths, |path, patience, instead_of| {
            let spec = Spec {
                patience,
                instead_of: instead_of.to_vec(),
                ..self.spec(path, &wish, BY_COMMAND)
            };
            let tell = |progress| drop(news.send(TestNews::Progress(progress)));
            self.attempt(&spec, &ended, tell)
        });
        let last = match result {
            Ok(test) => {
                self.keep(&test, 0);
                TestNews::Done(Box::new(test))
            }
            Err(why) => TestNews::Failed(why),
        };
        let _ = news.send(last);
    }

    /// Runs a test, hears meanwhile what else is asked for, and records what came of it.
    fn attempt(
        &mut self,
        spec: &Spec,
        ended: &dyn Fn() -> bool,
        tell: impl Fn(Progress),
    ) -> Result<LoadTest, run::Failed> {
        let (requests, waiting) = (&self.requests, &mut self.waiting);
        let mut tell = |progress| {
            tell(progress);
            hear(requests, waiting);
        };
        let result = run::run(spec, &mut self.rng, ended, &mut tell);
        // Its session had a copy of the key.
        wipe_stack();
        self.account(&spec.path, &result);
        result
    }

    fn scheduled(&mut self) {
        let paths = self
            .ends
            .paths
            .lock()
            .map(|p| p.clone())
            .unwrap_or_default();
        let mut facts = Host {
            settings: &self.settings,
            forwarding: &mut self.forwarding,
            made: &mut self.made,
        };
        let now = Instant::now();
        let due = self
            .schedule
            .due(now, &paths, &self.settings, &mut facts, &mut self.rng);
        self.show();
        let Some(due) = due else {
            return;
        };
        let wish = due.turn.wish(self.settings.throughput.udp);
        let stop = self.stop.clone();
        let ended = || stop.load(Ordering::Relaxed);
        // Budgets are those of uplinks, whichever reflector it is.
        let asked = stand_ins(&paths, &due.path);
        let result = first_that_can(&asked, |path, patience, instead_of| {
            let spec = Spec {
                patience,
                instead_of: instead_of.to_vec(),
                most_bytes: Some(due.most_bytes),
                ..self.spec(path, &wish, BY_SCHEDULE)
            };
            self.attempt(&spec, &ended, |_| ())
        });
        let interface = due.path.interface.clone();
        let test = match result {
            Ok(test) => {
                self.failed.remove(&interface);
                test
            }
            Err(why) => {
                log::warn!("a scheduled test through {interface}: {why}");
                self.failed.insert(interface, why);
                return;
            }
        };
        let mut facts = Host {
            settings: &self.settings,
            forwarding: &mut self.forwarding,
            made: &mut self.made,
        };
        let speaks_for_ns = self.schedule.ended(
            Instant::now(),
            (&due, &test.reflector),
            &paths,
            &self.settings,
            &mut facts,
            &mut self.rng,
        );
        self.keep(&test, speaks_for_ns);
    }

    /// Between tests a train is due now and then, but not in quiet hours.
    fn trains(&mut self, trains: &mut Trains) {
        if self.settings.is_quiet_for_trains(wall_ns()) {
            return;
        }
        let stop = self.stop.clone();
        let paths = self
            .ends
            .paths
            .lock()
            .map(|p| p.clone())
            .unwrap_or_default();
        let ends = train::Ends {
            paths: &paths,
            settings: &self.settings,
            status: &self.ends.status,
            orders: &self.ends.orders,
            ended: &|| stop.load(Ordering::Relaxed),
        };
        trains.tick(&ends, &mut self.rng);
    }

    /// Says what a test found, and takes down what it moved, whether it found anything or not.
    fn account(&mut self, path: &Path, result: &Result<LoadTest, run::Failed>) {
        match result {
            Ok(test) => {
                record(test);
                self.made.push(Made::of(test));
            }
            Err(failed) => self
                .made
                .push(Made::failed(clock::now(), path, failed.moved)),
        }
    }

    /// Has a test recorded, and what it says of the line heard for so long.
    fn keep(&self, test: &LoadTest, speaks_for_ns: u64) {
        let order = Order::Test(Box::new(test.clone()), speaks_for_ns);
        // The recorder is gone only when everything ends.
        let _ = self.ends.orders.send(order);
    }

    /// Tells whoever looks at the status, and the journal once, what there is to say of scheduled tests.
    fn show(&mut self) {
        let uplinks: Vec<ScheduledTests> = self
            .schedule
            .uplinks()
            .map(|(interface, u)| ScheduledTests {
                interface: interface.clone(),
                budget_bytes: u.budget_bytes,
                probe_bytes: u.probe_bytes,
                spent_bytes: u.spent_bytes,
                waits: u.waits,
                caveat: u.caveat,
                failed: self.failed.get(interface).cloned(),
            })
            .collect();
        for u in &uplinks {
            if let Some(caveat) = u.caveat
                && self.said.insert(u.interface.clone(), caveat) != Some(caveat)
            {
                log::warn!("tests through {}: {caveat}", u.interface);
            }
        }
        if let Ok(mut status) = self.ends.status.lock()
            && status.scheduled_tests != uplinks
        {
            status.scheduled_tests = uplinks;
        }
    }

    /// The path that is meant, and those that may stand in for it where no reflector is named; or what to
    /// tell of there being none.
    fn choose(&self, wish: &TestWish) -> Result<Vec<Path>, TestNews> {
        let paths = self
            .ends
            .paths
            .lock()
            .map(|p| p.clone())
            .unwrap_or_default();
        let meant = pick(&paths, wish)?;
        let mut all = stand_ins(&paths, meant);
        if wish.reflector.is_some() {
            all.truncate(1);
        }
        Ok(all)
    }

    fn spec(&self, path: &Path, wish: &TestWish, asked_by: &'static str) -> Spec {
        let settings = &self.settings.throughput;
        let kind = wish.kind();
        let streams = settings.streams;
        let offer = wish.udp.map(|rates| Offer {
            up_bps: rates.up_bps,
            down_bps: rates.down_bps,
            size: datagrams::SIZE,
        });
        let (up, down) = match kind {
            _ if offer.is_some() => (0, 0),
            Kind::Up => (streams, 0),
            Kind::Down => (0, streams),
            Kind::Both => (streams, streams),
            Kind::Rrul => (4, 4),
        };
        let dscp = match kind {
            // CS0, CS1, CS5, EF.
            Kind::Rrul => [0, 8, 40, 46, 0, 8, 40, 46],
            _ => [settings.dscp; 8],
        };
        let seconds = wish.seconds.unwrap_or(settings.seconds);
        Spec {
            path: path.clone(),
            kind,
            up,
            down,
            offer,
            dscp,
            load_ns: seconds.saturating_mul(1_000_000_000),
            congestion: settings.congestion.clone(),
            asked_by,
            patience: Patience::Alone,
            instead_of: Vec::new(),
            most_bytes: None,
            orders: self.ends.orders.clone(),
        }
    }
}

/// Takes what is asked for meanwhile; whoever asks for a test hears that another one is before it.
fn hear(requests: &Receiver<Request>, waiting: &mut VecDeque<Request>) {
    waiting.extend(requests.try_iter());
    waiting.retain(|request| match request {
        Request::Test(job) => {
            let progress = Progress {
                phase: "waiting",
                waits_for: Some("a test of this daemon before it"),
                ..Progress::default()
            };
            job.news.send(TestNews::Progress(progress)).is_ok()
        }
        Request::Settings(_) => true,
    });
}

fn record(test: &LoadTest) {
    for way in &test.ways {
        log::info!("{} {}: {}", test.interface, test.reflector, in_words(way));
    }
}

/// What one direction carried, and what became of latency. A rate that somebody chose need not fill the line, so
/// there is no grade of datagrams.
fn in_words(way: &TestWay) -> String {
    let mbit = |bps: u64| bps as f64 / 1e6;
    let ms = |ns: u64| ns as f64 / 1e6;
    let direction = way.direction.as_str();
    let carried = format!("{:.2} Mbit/s {direction}", mbit(way.mean_bps));
    let latency = format!(
        "latency rises by {:.1} ms ({:.1} ms at the 90th percentile)",
        ms(way.delay.increase.p50),
        ms(way.delay.increase.p90)
    );
    let Some(d) = &way.datagrams else {
        return format!("{carried}, {latency}, grade {}", way.grade);
    };
    let lost = d.lost.map_or("an unknown number".into(), |n| n.to_string());
    format!(
        "{carried} of {:.2} Mbit/s offered, {lost} of {} datagrams lost, {latency}",
        mbit(d.offered_bps),
        d.sent
    )
}

/// ns since 1970, where the clock can be right.
fn wall_ns() -> Option<i64> {
    (wall::trust() != Trust::None).then(clock::wall_now)
}

/// The host and the store, asked when it is needed.
struct Host<'a> {
    settings: &'a Settings,
    forwarding: &'a mut Forwarding,
    made: &'a mut Vec<Made>,
}

impl Facts for Host<'_> {
    fn counters(&mut self, index: u32) -> Option<(u64, u64)> {
        let counters = Netlink::open().and_then(|mut n| n.counters(index)).ok()?;
        Some((counters.tx_bytes, counters.rx_bytes))
    }

    fn wall_ns(&self) -> Option<i64> {
        wall_ns()
    }

    fn spent(&mut self) -> Result<Vec<Spent>, String> {
        let now = Now {
            mono: clock::now(),
            wall_ns: wall_ns(),
            boot_id: host::boot_id().ok(),
        };
        self.made.retain(|m| !m.is_old(now.mono));
        budget::read(&self.settings.store, &now, self.made)
    }

    fn is_router(&mut self) -> bool {
        self.forwarding.look()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bufferbane_store::{Datagrams, Direction, LoadedDelay};

    #[test]
    fn datagrams_are_told_with_what_was_offered_and_lost_and_streams_with_a_grade() {
        let mut way = TestWay {
            direction: Direction::Up,
            streams: 4,
            bytes: 1,
            mean_bps: 4_900_000,
            p10_bps: 1,
            p90_bps: 1,
            retransmits: 0,
            cwnd_bytes: 0,
            rtt_us: 0,
            bins: Vec::new(),
            delay: LoadedDelay::default(),
            queue_bytes: 0,
            grade: "B".into(),
            lost: 0,
            others_bps: None,
            datagrams: None,
        };
        assert!(in_words(&way).ends_with("percentile), grade B"));
        let mut datagrams = Datagrams {
            offered_bps: 5_000_000,
            size: 1200,
            sent: 1000,
            received: 980,
            lost: Some(20),
            sender_drops: Some(0),
            receiver_drops: 0,
            reordered: 0,
            duplicated: 0,
        };
        way.datagrams = Some(datagrams);
        let said = in_words(&way);
        let all = "4.90 Mbit/s up of 5.00 Mbit/s offered, 20 of 1000 datagrams lost, latency";
        assert!(said.starts_with(all) && !said.contains("grade"), "{said}");
        (datagrams.lost, datagrams.receiver_drops) = (None, 3);
        way.datagrams = Some(datagrams);
        assert!(in_words(&way).contains("an unknown number of 1000 datagrams lost"));
    }
}
