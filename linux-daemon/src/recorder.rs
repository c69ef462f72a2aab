//! The recorder thread: owns the store, and turns what the probe thread reports into rows.

mod again;
mod cables;
mod carry;
mod certificates;
mod down;
mod drops;
mod durable;
mod facts;
mod faults;
mod findings;
mod held;
mod hours;
mod order;
mod overload;
mod past;
mod paths;
mod routes;
mod services;
mod sessions;
mod shown;
mod sizes;
pub(crate) mod wall;

pub(crate) use findings::told_rates_bps;
pub(crate) use order::{Fact, Order};
pub(crate) use past::Found;
pub(crate) use sessions::Session;
pub(crate) use wall::trust;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bufferbane_core::detect::service::{Trouble, Why};
use bufferbane_core::sample::{Observation, SeriesIndex};
use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::{clock, counters, host};
use bufferbane_store::{
    Event, EventId, OpenError, SeriesId, SeriesInfo, SeriesKind, Trust, Writer, WriterOptions,
};
use jiff::tz::TimeZone;
use rtrb::Consumer;

use crate::alerts::{Alerts, AlertsConfig};
use crate::asked::AllAsked;
use crate::config::Keep;
use crate::floors::Floors;
use crate::health::Minute;
use crate::held::{Connections, Key, News as Held};
use crate::household::Households;
use crate::metrics::Meters;
use crate::notify;
use crate::probe::Report;
use crate::scout::Way;
use crate::sizes::Sizes;
use crate::status::{SeriesStatus, Status};
use crate::walk::Walks;
use crate::watch::Watcher;
use past::Past;
use shown::note;

/// How often reports are taken from the queue.
const TICK: Duration = Duration::from_millis(50);
const SECOND_NS: u64 = 1_000_000_000;
const MINUTE_NS: u64 = 60 * SECOND_NS;
/// Between two passes of retention, ns.
const RETENTION_NS: u64 = 3600 * SECOND_NS;
/// Reports kept while the store is being repaired.
const BACKLOG: usize = 500_000;

/// How the store is kept.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) store: PathBuf,
    pub(crate) commit_interval_ns: u64,
    pub(crate) keep: Keep,
    pub(crate) alerts: AlertsConfig,
    /// Decides what the evening is.
    pub(crate) zone: TimeZone,
    /// Interfaces of which the configuration says whether their counters show everybody's traffic.
    pub(crate) sees_household: BTreeMap<String, bool>,
    /// Interfaces that cables are at, as the configuration says.
    pub(crate) cables: Vec<String>,
    /// How packets leave through each interface that is configured.
    pub(crate) uplinks: BTreeMap<String, Way>,
    /// Whether there are close looks when something looks wrong.
    pub(crate) close_looks: bool,
}

/// See the module.
pub(crate) struct Recorder {
    settings: Settings,
    reports: Consumer<Report>,
    orders: Receiver<Order>,
    status: Arc<Mutex<Status>>,
    meters: Arc<Mutex<Meters>>,
    writer: Option<Writer>,
    ids: HashMap<SeriesIndex, (SeriesInfo, Option<SeriesId>)>,
    sessions: sessions::Sessions,
    live: BTreeMap<SeriesIndex, SeriesStatus>,
    floors: Floors,
    households: Households,
    watcher: Watcher,
    said_cables: cables::Said,
    past: Past,
    alerts: Alerts,
    walks: Walks,
    held: Connections,
    asked: AllAsked,
    /// Troubles of services that are told, and may come back.
    service_events: HashMap<(SeriesIndex, Trouble), (EventId, Event)>,
    sizes: Sizes,
    /// Sizes that vanish, as detectors tell, while they do.
    told_holes: HashMap<EventId, Event>,
    routes: routes::Routes,
    faults: faults::Faults,
    again: again::Again,
    carry: carry::Carry,
    down: down::Down,
    open_events: HashMap<String, (EventId, Event)>,
    reflector_drops: drops::ReflectorDrops,
    overload: overload::Overload,
    waiting_facts: Vec<(Monotonic, Option<String>, Fact, bool)>,
    /// What was so when probing began, likewise.
    waiting_still: Vec<(Monotonic, String, Fact)>,
    /// What became of connections before the store was open.
    waiting_held: Vec<(Key, Held)>,
    backlog: VecDeque<Observation>,
    dropped: u64,
    minute: Minute,
    trust: Trust,
    commit_at: Monotonic,
    commit_soon: bool,
    /// Who waits for a commit.
    commit_waits: Vec<SyncSender<Result<(), String>>>,
    /// When readers would have used up their commits at one every `durable::FORCED_NS`.
    forced_until: Monotonic,
    retention_at: Monotonic,
    second_at: Monotonic,
    stopping: bool,
}

impl Recorder {
    /// A recorder that has not opened its store yet.
    pub(crate) fn new(
        settings: Settings,
        reports: Consumer<Report>,
        orders: Receiver<Order>,
        status: Arc<Mutex<Status>>,
        meters: Arc<Mutex<Meters>>,
    ) -> Self {
        let now = clock::now();
        let watcher = Watcher::new(now, settings.alerts.thresholds);
        let alerts = Alerts::start(&settings.alerts);
        Self {
            commit_at: now.saturating_add(settings.commit_interval_ns),
            reports,
            orders,
            status,
            meters,
            writer: None,
            ids: HashMap::new(),
            sessions: sessions::Sessions::default(),
            live: BTreeMap::new(),
            floors: Floors::default(),
            watcher,
            said_cables: cables::Said::default(),
            past: Past::default(),
            alerts,
            walks: Walks::new(now, settings.uplinks.clone(), settings.close_looks),
            sizes: Sizes::new(now, settings.uplinks.clone()),
            told_holes: HashMap::new(),
            routes: routes::Routes::default(),
            faults: faults::Faults::default(),
            again: again::Again::default(),
            carry: carry::Carry::default(),
            down: down::Down::default(),
            waiting_still: Vec::new(),
            held: Connections::new(settings.alerts.held),
            asked: AllAsked::new(now, settings.alerts.services),
            service_events: HashMap::new(),
            households: Households::new(settings.sees_household.clone()),
            settings,
            open_events: HashMap::new(),
            reflector_drops: drops::ReflectorDrops::new(),
            overload: overload::Overload::default(),
            waiting_facts: Vec::new(),
            waiting_held: Vec::new(),
            backlog: VecDeque::new(),
            dropped: 0,
            minute: Minute::new(now),
            trust: Trust::None,
            commit_soon: false,
            commit_waits: Vec::new(),
            forced_until: now,
            retention_at: now.saturating_add(MINUTE_NS),
            second_at: now,
            stopping: false,
        }
    }

    /// Records until it is told to stop. `opened` hears once whether the store could be opened.
    pub(crate) fn run(mut self, opened: &SyncSender<Result<(), OpenError>>) {
        self.minute.meter_stamps();
        // Opening may have to repair for seconds: meanwhile reports are taken, so that none is lost.
        let (path, options) = (self.settings.store.clone(), self.options());
        let opening = std::thread::spawn(move || {
            let writer = Writer::open(&path, options)?;
            // What may be in a damaged file is not worth the writer that it opened with.
            let past = std::panic::catch_unwind(|| Past::read(&path, clock::wall_now(), trust()));
            let past = past.unwrap_or_else(|_| Err("reading it panicked".into()));
            Ok((writer, past))
        });
        while !opening.is_finished() {
            notify::extend_timeout();
            self.take_reports();
            std::thread::sleep(TICK);
        }
        let result = opening.join().unwrap_or_else(|_| {
            let path = self.settings.store.clone();
            Err(OpenError::Corrupt {
                path,
                why: "opening it panicked".into(),
            })
        });
        match result.map(|(writer, past)| self.begin(writer, past)) {
            Ok(()) => drop(opened.send(Ok(()))),
            Err(e) => return drop(opened.send(Err(e))),
        }
        loop {
            match self.orders.recv_timeout(TICK) {
                Ok(order) => self.obey(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.stopping = true,
            }
            self.take_reports();
            if self.stopping {
                return self.finish(clock::now());
            }
            self.tick(clock::now());
        }
    }

    fn options(&self) -> WriterOptions {
        WriterOptions {
            min_free_bytes: self.settings.keep.min_free_bytes,
            ..WriterOptions::default()
        }
    }

    fn begin(&mut self, mut writer: Writer, past: Result<Past, String>) {
        match past {
            Ok(past) => {
                self.past = past;
                self.walks.recall(self.past.take_ways());
            }
            Err(why) => log::warn!(
                "what lines carried before, who answered, and the ways to targets, cannot be read from the store, and are found out anew: {why}"
            ),
        }
        let boot_id = host::boot_id().unwrap_or_else(|_| "unknown".into());
        self.trust = trust();
        // Only a damaged table makes this fail, and the writer has just read them all.
        if let Err(e) = writer.begin_boot(&boot_id, clock::now(), clock::wall_now(), self.trust) {
            log::error!("{e}");
        }
        for (info, id) in self.ids.values_mut() {
            *id = Some(writer.series(info));
        }
        self.writer = Some(writer);
        self.recall_events(clock::now());
        let series = self.ids.iter();
        let series: Vec<_> = series.map(|(n, (info, _))| (*n, info.clone())).collect();
        for (index, info) in series {
            self.recall(index, &info);
        }
        for o in std::mem::take(&mut self.backlog) {
            self.record(o);
        }
        for (at, name, fact, begins) in std::mem::take(&mut self.waiting_facts) {
            self.fact(at, name, fact, begins);
        }
        for (at, name, fact) in std::mem::take(&mut self.waiting_still) {
            self.still(at, name, fact);
        }
        for (key, news) in std::mem::take(&mut self.waiting_held) {
            self.held_news(&key, news);
        }
    }

    /// Obeys every order that has come by now.
    fn obey_all(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            self.obey(order);
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Series(index, info) => {
                let live = SeriesStatus::new(&info);
                self.live.insert(index, live);
                self.floors.forget(index);
                self.households.add(index, &info);
                self.watcher.add(clock::now(), index, &info);
                self.service_no_more(clock::now(), index);
                self.asked.add(index, &info);
                self.recall(index, &info);
                self.walks.add(clock::now(), index, &info);
                // Without random numbers all start alike.
                let random = getrandom::u32().unwrap_or(0);
                self.sizes.add(clock::now(), index, &info, random);
                self.meter(|m| m.begin(index, &info));
                let id = self.writer.as_mut().map(|w| w.series(&info));
                self.ids.insert(index, (info, id));
            }
            Order::Forget(index) => {
                self.live.remove(&index);
                self.certificate_no_more(clock::now(), index);
                self.floors.forget(index);
                self.households.remove(index);
                self.watcher.remove(clock::now(), index);
                self.service_no_more(clock::now(), index);
                self.walks.remove(index);
                self.sizes.remove(index);
                self.meter(|m| m.end(index));
                if let Some((info, _)) = self.ids.get(&index)
                    && info.kind == SeriesKind::Tcp
                {
                    let info = info.clone();
                    let place = (&*info.interface, &*info.target, &*info.address);
                    self.held_no_more(clock::now(), place);
                }
            }
            Order::Session(unit, session) => self.session_begins(unit, session),
            Order::SessionEnds(at, unit) => self.session_ends(at, unit),
            Order::Observation(observation) => self.record(observation),
            Order::Held(told) => self.held(told),
            Order::Moment(at, fact) => self.fact(at, None, fact, false),
            Order::Begin(at, name, fact) => self.fact(at, Some(name), fact, true),
            Order::Still(at, name, fact) => self.still(at, name, fact),
            Order::End(at, name) => self.end_fact(at, &name),
            Order::LoadBegins(interface, at) => {
                self.households.load_begins(&interface, at);
                self.watcher.load_begins(&interface, at);
                self.asked.begins(&interface, Why::Test, at);
            }
            Order::LoadEnds(interface, at) => {
                self.households.load_ends(&interface, at);
                self.watcher.load_ends(&interface, at);
                self.asked.ends(&interface, Why::Test, at);
            }
            Order::TrainBegins(interface, at) => {
                self.households.train_begins(&interface, at);
                self.watcher.train_begins(&interface, at);
                self.asked.begins(&interface, Why::Train, at);
            }
            Order::TrainEnds(interface, at) => {
                self.households.train_ends(&interface, at);
                self.watcher.train_ends(&interface, at);
                self.asked.ends(&interface, Why::Train, at);
            }
            Order::Train(at, found, is_news, told_bps) => {
                if let Some(bps) = told_bps {
                    self.watcher.train(at, &found, bps);
                }
                if is_news && let Some(writer) = &mut self.writer {
                    writer.capacity(at, *found);
                }
            }
            Order::Test(test, speaks_for_ns) => self.test(*test, speaks_for_ns),
            Order::Rerouted(next_hops) => {
                self.watcher.set_next_hops(next_hops);
                self.walks.rerouted(clock::now());
                self.sizes.rerouted(clock::now());
            }
            Order::Commit(answer) => {
                self.commit_waits.push(answer);
                self.commit_for_readers(clock::now());
            }
            Order::Settings(settings) => {
                self.alerts.set(&settings.alerts);
                self.watcher.set_thresholds(settings.alerts.thresholds);
                self.held.set_limit(settings.alerts.held);
                self.asked.set_limits(settings.alerts.services);
                self.households.set(settings.sees_household.clone());
                self.walks
                    .set(settings.uplinks.clone(), settings.close_looks);
                self.sizes.set(settings.uplinks.clone());
                if let Some(writer) = &mut self.writer {
                    writer.set_min_free_bytes(settings.keep.min_free_bytes);
                }
                self.settings = *settings;
            }
            Order::Stop => self.stopping = true,
        }
    }

    fn take_reports(&mut self) {
        if self.writer.is_none() {
            self.obey_all();
        }
        while let Ok(report) = self.reports.pop() {
            match report {
                Report::Observation(o) => self.record(o),
                Report::Session(unit, at, event) => self.session_event(unit, at, event),
                Report::ClockStep(at, step_ns) => self.clock_step(at, step_ns),
                Report::Health(health) => self.minute.hear(health, clock::now()),
            }
        }
    }

    fn record(&mut self, observation: Observation) {
        let (Observation::New(sample) | Observation::Revised(sample)) = observation;
        self.walks.hear(&observation);
        if self.writer.is_none() {
            if self.backlog.len() < BACKLOG {
                self.backlog.push_back(observation);
            } else {
                self.dropped += 1;
            }
            return;
        }
        if !self.ids.contains_key(&sample.series) {
            // The series was told before its first probe was sent, but its turn has not come yet.
            self.obey_all();
        }
        let (Some((info, Some(id))), Some(writer)) =
            (self.ids.get(&sample.series), &mut self.writer)
        else {
            self.dropped += 1;
            return;
        };
        match observation {
            Observation::New(_) => {
                writer.record(*id, sample);
                let learned = self.floors.learn(info, &sample);
                for update in &learned.updates {
                    writer.floor(*id, update);
                }
                let info = (!learned.changes.is_empty()).then(|| info.clone());
                for change in learned.changes {
                    if let Some(info) = &info {
                        self.path_change(info, change);
                    }
                }
                self.households.sample(&sample, learned.queueing);
                self.watcher.sample(&sample, learned.queueing);
                self.asked.sample(&sample);
                self.note_live(&sample, learned.queueing);
                self.note_certificate(&sample);
            }
            Observation::Revised(_) => {
                writer.revise(*id, sample);
                self.watcher.revise(&sample);
                self.meter(|m| m.revise(&sample));
            }
        }
    }

    fn tick(&mut self, now: Monotonic) {
        self.household(now);
        self.watch(now);
        self.note_cables(now, false);
        self.note_walks(now);
        self.note_sizes(now);
        self.note_held(now);
        self.note_services(now);
        self.end_carried(now);
        if now >= self.second_at {
            self.second_at = now.saturating_add(SECOND_NS);
            self.each_second(now);
        }
        if (now >= self.commit_at || self.commit_soon)
            && let Err(e) = self.commit(now)
        {
            log::error!("{e}");
        }
        self.commit_for_readers(now);
        if now >= self.retention_at {
            self.retention_at = now.saturating_add(RETENTION_NS);
            self.retain(now);
        }
    }

    fn finish(mut self, now: Monotonic) {
        if self.minute.is_worth_keeping(now) {
            self.write_health(now);
        }
        self.sum_up_reflector_drops(now);
        self.look_at_host(now, true, counters::host_counters);
        self.household(now);
        self.watch_ends(now);
        self.note_cables(now, true);
        if let Some(mut writer) = self.writer.take() {
            writer.end_events(now);
            match writer.close() {
                Ok(_) => log::info!("everything is written"),
                Err(e) => log::error!("what came last could not be written: {e}"),
            }
        }
        self.alerts.finish();
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
