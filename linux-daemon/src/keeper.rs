//! The keeper thread: decides what is probed through which socket, and follows the host's links,
//! addresses and routes. Everything that allocates or waits for the system happens here, so that
//! the probe thread never has to.

mod asked;
mod gaps;
mod gateways;
mod gather;
mod links;
mod numbers;
mod paths;
mod sockets;
mod trouble;

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bufferbane_core::sample::SeriesIndex;
use bufferbane_core::seal::wipe_stack;
use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::netlink::{Interface, InterfaceKind, Netlink, Route, Watch};
use bufferbane_linux_io::{Waker, clock};
use bufferbane_store::{SeriesInfo, SeriesKind};
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;
use rtrb::{Consumer, Producer};
use tokio::sync::mpsc::UnboundedSender;

use crate::ask;
use crate::config::Config;
use crate::equip;
use crate::load::Paths;
use crate::names::Resolver;
use crate::plan::{self, Host, Probe, Wanted};
use crate::probe::{Command, Returned, SOCKETS, Unit};
use crate::recorder::{Order, Session};
use crate::scout::{Scout, Way};
use crate::status::Status;
use asked::Asked;
use gaps::Gaps;
use gateways::Gateways;
use numbers::Numbers;
use trouble::Trouble;

/// How often everything is looked at although no change was told.
const REVIEW: Duration = Duration::from_secs(5);

/// What the keeper is told.
#[derive(Debug)]
pub(crate) enum Request {
    /// Probe what this configuration says from now on.
    Config(Box<Config>),
    /// End.
    Stop,
}

/// One unit as the keeper knows it.
struct Kept {
    id: u32,
    series: Vec<SeriesIndex>,
    /// That of its echoes; 0 where it sends none.
    identifier: u16,
    /// The interface index its socket is bound to; `None` while it has no socket.
    open: Option<u32>,
    /// Since when, if it has one.
    opened: Monotonic,
    /// Why it has none.
    trouble: Option<Trouble>,
}

/// See the module.
pub(crate) struct Keeper {
    config: Config,
    netlink: Netlink,
    commands: Producer<Command>,
    returned: Consumer<Returned>,
    waker: Waker,
    asks: UnboundedSender<ask::Command>,
    orders: SyncSender<Order>,
    requests: Receiver<Request>,
    status: Arc<Mutex<Status>>,
    paths: Paths,
    names: Resolver,
    scout: Scout,
    /// Default routes at the last review.
    routes: Vec<Route>,
    units: BTreeMap<Wanted, Kept>,
    links: BTreeMap<String, bool>,
    /// What each interface has been seen with.
    addresses: links::Known,
    gateways: Gateways,
    gaps: Gaps,
    /// When what is looked at now was told to have changed, or else when it is looked at.
    seen: Monotonic,
    /// Who stamps an interface's packets, as it was said last.
    stamped: BTreeMap<String, String>,
    next_id: u32,
    series: Numbers,
    rng: ChaCha12Rng,
}

/// What a keeper is made of.
pub(crate) struct Ends {
    pub(crate) commands: Producer<Command>,
    pub(crate) returned: Consumer<Returned>,
    pub(crate) waker: Waker,
    pub(crate) asks: UnboundedSender<ask::Command>,
    pub(crate) orders: SyncSender<Order>,
    pub(crate) requests: Receiver<Request>,
    pub(crate) status: Arc<Mutex<Status>>,
    /// Where reflectors are reached, for throughput tests.
    pub(crate) paths: Paths,
}

impl Keeper {
    /// A keeper for `config`.
    ///
    /// # Errors
    /// When the kernel's routing tables cannot be read.
    pub(crate) fn new(config: Config, ends: Ends, rng: ChaCha12Rng) -> io::Result<Self> {
        Ok(Self {
            config,
            netlink: Netlink::open()?,
            commands: ends.commands,
            returned: ends.returned,
            waker: ends.waker,
            asks: ends.asks,
            orders: ends.orders,
            requests: ends.requests,
            status: ends.status,
            paths: ends.paths,
            names: Resolver::start(),
            scout: Scout::start(),
            routes: Vec::new(),
            units: BTreeMap::new(),
            links: BTreeMap::new(),
            addresses: links::Known::default(),
            gateways: Gateways::default(),
            gaps: Gaps::default(),
            seen: clock::now(),
            stamped: BTreeMap::new(),
            next_id: 0,
            series: Numbers::default(),
            rng,
        })
    }

    /// Keeps until it is told to stop, or the others are gone.
    pub(crate) fn run(mut self, mut watch: Watch) {
        self.tell(Command::Pace(self.config.pacing));
        self.seen = clock::now();
        loop {
            self.review();
            let Some(seen) = self.wait(&mut watch) else {
                return self.tell(Command::Stop);
            };
            self.seen = seen;
        }
    }

    /// Waits until there is something to look at, and gives since when; `None` where it is to stop.
    fn wait(&mut self, watch: &mut Watch) -> Option<Monotonic> {
        let until = Instant::now() + REVIEW;
        loop {
            self.take_returned();
            self.note_troubles(clock::now());
            match self.requests.try_recv() {
                Ok(Request::Config(config)) => {
                    if config.pacing != self.config.pacing {
                        self.tell(Command::Pace(config.pacing));
                    }
                    self.config = *config;
                    return Some(clock::now());
                }
                Ok(Request::Stop) | Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => {}
            }
            match self.next_change(watch, Duration::from_millis(100)) {
                Ok(Some(seen)) => {
                    gather::more(|patience| {
                        matches!(self.next_change(watch, patience), Ok(Some(_)))
                    });
                    return Some(seen);
                }
                Ok(None) => {}
                Err(e) => {
                    log::error!("changes of links and routes cannot be followed: {e}");
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
            let named = self.names.has_news();
            let found = self.scout.has_news();
            if named || found || Instant::now() >= until {
                return Some(clock::now());
            }
        }
    }

    /// When the next change was told, waiting for one at most this long.
    fn next_change(
        &mut self,
        watch: &mut Watch,
        patience: Duration,
    ) -> io::Result<Option<Monotonic>> {
        let Some(change) = watch.next(patience)? else {
            return Ok(None);
        };
        let now = clock::now();
        self.gaps.hear(now, &change);
        Ok(Some(now))
    }

    /// Frees units that are probed no more; a socket that was not taken is made again at the next
    /// review.
    fn take_returned(&mut self) {
        while let Ok(returned) = self.returned.pop() {
            let (id, errno) = match returned {
                Returned::Unit(unit) => {
                    drop(unit);
                    continue;
                }
                Returned::NotOpened(id, errno) => (id, errno),
            };
            let unit = self.units.iter().find(|(_, kept)| kept.id == id);
            if let Some(w) = unit.map(|(w, _)| w.clone()) {
                let why = io::Error::from_raw_os_error(errno);
                let why = format!("the probe thread could not take its socket: {why}");
                self.seen = clock::now();
                self.close(&w, errno, why);
            }
        }
    }

    /// Looks at everything, and changes what has to be changed.
    fn review(&mut self) {
        let interfaces = match self.netlink.interfaces() {
            Ok(list) => list,
            Err(e) => {
                log::error!("the interfaces cannot be listed: {e}");
                return;
            }
        };
        let routes = self.netlink.default_routes().unwrap_or_default();
        let rerouted = routes != self.routes;
        self.scout.begin(rerouted);
        if rerouted {
            let next_hop = |r: &Route| {
                let interface = interfaces.iter().find(|i| i.index == r.interface)?;
                Some((interface.name.clone(), r.gateway?))
            };
            self.order(Order::Rerouted(
                routes.iter().filter_map(next_hop).collect(),
            ));
        }
        self.routes.clone_from(&routes);
        let resolvers = plan::system_resolvers();
        let host = Host {
            interfaces: &interfaces,
            default_routes: &routes,
            resolvers: &resolvers,
            left_by: self.gateways.left_by(),
        };
        let mut asked = Asked {
            netlink: &mut self.netlink,
            names: &mut self.names,
            scout: &mut self.scout,
            units: &self.units,
        };
        let wanted = plan::wanted(&self.config, &host, &mut asked);
        self.note_gaps(&interfaces);
        self.note_links(&interfaces, &wanted);
        self.note_moves(&interfaces, &routes, &wanted);

        let gone: Vec<Wanted> = self
            .units
            .keys()
            .filter(|u| !wanted.contains(u))
            .cloned()
            .collect();
        for w in gone {
            if let Some(kept) = self.units.remove(&w) {
                self.end_trouble(&w, kept.trouble, self.seen);
                match &w.probe {
                    Probe::Service(_) => self.ask(ask::Command::Remove(kept.id)),
                    _ => self.tell(Command::Remove(kept.id)),
                }
                if matches!(w.probe, Probe::Reflector { .. }) {
                    self.order(Order::SessionEnds(self.seen, kept.id));
                }
                for series in kept.series {
                    self.order(Order::Forget(series));
                }
            }
        }
        for w in wanted {
            if !self.units.contains_key(&w) {
                self.add(&w, &interfaces);
            }
            self.connect(&w, &interfaces);
        }
        self.publish_paths(&interfaces);
        // New probers have taken their keys.
        wipe_stack();
        let troubles = self
            .units
            .iter()
            .filter_map(|(w, k)| {
                let trouble = k.trouble.as_ref()?;
                Some(format!("{}: {}", w.name(), trouble.why))
            })
            .chain(self.names.troubles())
            .chain(self.scout.troubles())
            .collect();
        if let Ok(mut status) = self.status.lock() {
            status.troubles = troubles;
        }
    }

    /// Makes the prober of a new unit, and hands it over.
    fn add(&mut self, w: &Wanted, interfaces: &[Interface]) {
        if self.units.len() >= usize::from(SOCKETS) {
            log::error!(
                "{}: not probed, there are {SOCKETS} series already",
                w.name()
            );
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        let kind = interfaces
            .iter()
            .find(|i| i.name == w.interface)
            .map(|i| i.kind);
        // What the person says who looks at the box goes before what the kernel sees.
        let kind = w.kind.or(kind).map_or("unknown", InterfaceKind::as_str);
        let family = if w.remote.is_ipv4() { 4 } else { 6 };
        let mut series: Vec<SeriesIndex> = Vec::new();
        let units = &self.units;
        let numbers = &mut self.series;
        let mut describe = |kind_of: SeriesKind, size: u16, dscp: u8, interval_ns: u64| {
            let index = numbers.next(|n| {
                let mut kept = units.values().flat_map(|k| &k.series).chain(&series);
                kept.any(|s| *s == n)
            });
            let info = SeriesInfo {
                interface: w.interface.clone(),
                interface_kind: kind.to_owned(),
                target: w.target.clone(),
                kind: kind_of,
                family,
                dscp,
                size,
                interval_ns,
                address: match &w.probe {
                    Probe::Service(service) => service.address(kind_of, w.remote),
                    _ => w.remote.ip().to_string(),
                },
            };
            series.push(index);
            // The recorder is gone only when everything ends.
            let _ = self.orders.send(Order::Series(index, info));
            index
        };
        if matches!(w.probe, Probe::Reflector { .. }) {
            let session = Session {
                interface: w.interface.clone(),
                target: w.target.clone(),
                family,
            };
            // As above.
            let _ = self.orders.send(Order::Session(id, session));
        }
        let now = clock::now();
        let mut identifier = 0;
        if let Probe::Service(service) = &w.probe {
            let interval_ns = service.interval_ns();
            let steps = service.steps().iter();
            let series = steps.map(|kind| describe(*kind, service.size(*kind), 0, interval_ns));
            let series = series.collect();
            let rng = ChaCha12Rng::from_rng(&mut self.rng);
            self.ask(ask::Command::Add(Box::new(ask::Unit {
                id,
                series,
                way: Way::to(w),
                target: w.target.clone(),
                remote: w.remote,
                service: service.clone(),
                rng,
            })));
        } else if let Some(e) = equip::prober(w, now, &mut describe, &mut self.rng) {
            identifier = e.identifier;
            let unit = Unit::new(id, w.remote, e.prober, e.tos, e.in_flight);
            self.tell(Command::Add(Box::new(unit)));
        }
        self.units.insert(
            w.clone(),
            Kept {
                id,
                series,
                identifier,
                open: None,
                opened: self.seen,
                trouble: None,
            },
        );
    }

    fn tell(&mut self, command: Command) {
        let mut command = command;
        // The queue holds more than one review ever sends; it only fills if the probe thread is gone.
        for _ in 0..100 {
            match self.commands.push(command) {
                Ok(()) => return self.waker.wake(),
                Err(rtrb::PushError::Full(back)) => command = back,
            }
            self.waker.wake();
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn ask(&self, command: ask::Command) {
        // The asking thread is there as long as this end of its queue.
        let _ = self.asks.send(command);
    }

    fn order(&self, order: Order) {
        // The recorder is gone only when everything ends.
        let _ = self.orders.send(order);
    }
}
