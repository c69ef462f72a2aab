//! The keeper thread: decides what is probed through which socket, and follows the host's links,
//! addresses and routes. Everything that allocates or waits for the system happens here, so that
//! the probe thread never has to.

mod gather;
mod numbers;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bufferbane_core::sample::SeriesIndex;
use bufferbane_linux_io::netlink::{Interface, InterfaceKind, Netlink, Route, RouteQuery, Watch};
use bufferbane_linux_io::{Waker, clock};
use bufferbane_store::{SeriesInfo, SeriesKind, Severity};
use nix::libc;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;
use rtrb::{Consumer, Producer};
use tokio::sync::mpsc::UnboundedSender;

use crate::ask;
use crate::config::Config;
use crate::equip;
use crate::load::{MONTH_NS, Path, Paths};
use crate::names::Resolver;
use crate::plan::{self, Host, Probe, Sources, Wanted};
use crate::probe::{Command, Returned, SOCKETS, Unit};
use crate::recorder::{Fact, Order};
use crate::scout::{Errand, Scout, Way};
use crate::sizes;
use crate::status::Status;
use numbers::Numbers;

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
    /// The interface index its socket is bound to; `None` while it has no socket.
    open: Option<u32>,
    /// Why it has none.
    trouble: Option<(i32, String)>,
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
            stamped: BTreeMap::new(),
            next_id: 0,
            series: Numbers::default(),
            rng,
        })
    }

    /// Keeps until it is told to stop, or the others are gone.
    pub(crate) fn run(mut self, mut watch: Watch) {
        self.tell(Command::Pace(self.config.pacing));
        loop {
            self.review();
            let until = Instant::now() + REVIEW;
            loop {
                self.take_returned();
                match self.requests.try_recv() {
                    Ok(Request::Config(config)) => {
                        if config.pacing != self.config.pacing {
                            self.tell(Command::Pace(config.pacing));
                        }
                        self.config = *config;
                        break;
                    }
                    Ok(Request::Stop) | Err(TryRecvError::Disconnected) => {
                        self.tell(Command::Stop);
                        return;
                    }
                    Err(TryRecvError::Empty) => {}
                }
                match watch.next(Duration::from_millis(100)) {
                    Ok(Some(_)) => {
                        gather::more(|patience| matches!(watch.next(patience), Ok(Some(_))));
                        break;
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
                    break;
                }
            }
        }
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
            self.order(Order::Rerouted);
        }
        self.routes.clone_from(&routes);
        let resolvers = plan::system_resolvers();
        let host = Host {
            interfaces: &interfaces,
            default_routes: &routes,
            resolvers: &resolvers,
        };
        let mut asked = Asked {
            netlink: &mut self.netlink,
            names: &mut self.names,
            scout: &mut self.scout,
            units: &self.units,
        };
        let wanted = plan::wanted(&self.config, &host, &mut asked);
        self.note_links(&interfaces, &wanted);

        let gone: Vec<Wanted> = self
            .units
            .keys()
            .filter(|u| !wanted.contains(u))
            .cloned()
            .collect();
        for w in gone {
            if let Some(kept) = self.units.remove(&w) {
                self.end_trouble(&w);
                match &w.probe {
                    Probe::Service(_) => self.ask(ask::Command::Remove(kept.id)),
                    _ => self.tell(Command::Remove(kept.id)),
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
        let troubles = self
            .units
            .iter()
            .filter_map(|(w, k)| {
                k.trouble
                    .as_ref()
                    .map(|(_, why)| format!("{}: {why}", w.name()))
            })
            .chain(self.names.troubles())
            .chain(self.scout.troubles())
            .collect();
        if let Ok(mut status) = self.status.lock() {
            status.troubles = troubles;
        }
    }

    /// Says through which interfaces which reflectors are reached.
    fn publish_paths(&self, interfaces: &[Interface]) {
        let mut probe_bytes: BTreeMap<&str, u64> = BTreeMap::new();
        for (w, _) in self.units.iter().filter(|(_, kept)| kept.open.is_some()) {
            let bytes = probe_bytes.entry(&w.interface).or_default();
            *bytes = bytes.saturating_add(w.bytes_in(MONTH_NS));
            if !matches!(w.probe, Probe::Service(_)) {
                *bytes = bytes.saturating_add(sizes::MONTH_BYTES);
            }
        }
        let paths = self.units.iter().filter_map(|(w, kept)| match &w.probe {
            Probe::Reflector { key, .. } => {
                let found = interfaces.iter().find(|i| i.name == w.interface);
                let kind = w.kind.or(found.map(|i| i.kind));
                let configured = self.config.reflectors.iter().find(|r| r.name == w.target);
                Some(Path {
                    interface: w.interface.clone(),
                    index: kept.open?,
                    cellular: kind == Some(InterfaceKind::Cellular),
                    probe_bytes: probe_bytes.get(w.interface.as_str()).copied().unwrap_or(0),
                    reflector: w.target.clone(),
                    remote: w.remote,
                    key: key.key().clone(),
                    tcp_prefix: configured.and_then(|r| r.tcp_prefix),
                })
            }
            Probe::Icmp { .. } | Probe::Stamp(_) | Probe::Service(_) => None,
        });
        let mut paths: Vec<Path> = paths.collect();
        let configured = &self.config.reflectors;
        // The first that can makes a test that names none.
        paths.sort_by_key(|p| configured.iter().position(|r| r.name == p.reflector));
        if let Ok(mut place) = self.paths.lock() {
            *place = paths;
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
            let order = Order::Session(id, w.interface.clone(), w.target.clone());
            // As above.
            let _ = self.orders.send(order);
        }
        let now = clock::now();
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
            let unit = Unit::new(id, w.remote, e.prober, e.tos, e.in_flight);
            self.tell(Command::Add(Box::new(unit)));
        }
        self.units.insert(
            w.clone(),
            Kept {
                id,
                series,
                open: None,
                trouble: None,
            },
        );
    }

    /// Opens or closes a unit's socket as interface and route demand.
    fn connect(&mut self, w: &Wanted, interfaces: &[Interface]) {
        let path = self.path(w, interfaces);
        let Some(kept) = self.units.get_mut(w) else {
            return;
        };
        let id = kept.id;
        match path {
            Ok(index) if kept.open == Some(index) => {}
            Ok(index) if matches!(w.probe, Probe::Service(_)) => {
                kept.open = Some(index);
                let mended = kept.trouble.take().is_some();
                self.ask(ask::Command::Open(id));
                self.note_mended(w, mended);
            }
            Ok(index) => match equip::socket(w) {
                Ok((socket, stamped)) => {
                    if self.stamped.get(&w.interface) != Some(&stamped) {
                        log::info!("packets of {} are stamped {stamped}", w.interface);
                        self.stamped.insert(w.interface.clone(), stamped);
                    }
                    kept.open = Some(index);
                    let mended = kept.trouble.take().is_some();
                    self.tell(Command::Open(id, Box::new(socket)));
                    self.note_mended(w, mended);
                }
                Err(e) => {
                    let errno = e.source.raw_os_error().unwrap_or(libc::EIO);
                    self.close(w, errno, e.to_string());
                }
            },
            Err((errno, why)) => self.close(w, errno, why),
        }
    }

    fn note_mended(&self, w: &Wanted, mended: bool) {
        if mended {
            log::info!("{}: probed again", w.name());
            self.end_trouble(w);
        }
    }

    fn close(&mut self, w: &Wanted, errno: i32, why: String) {
        let Some(kept) = self.units.get_mut(w) else {
            return;
        };
        if kept.open.take().is_none() && kept.trouble.as_ref().is_some_and(|(_, t)| *t == why) {
            return;
        }
        let id = kept.id;
        log::warn!("{}: not probed: {why}", w.name());
        kept.trouble = Some((errno, why.clone()));
        match &w.probe {
            Probe::Service(_) => self.ask(ask::Command::Close(id, errno)),
            _ => self.tell(Command::Close(id, errno)),
        }
        let fact = Fact {
            kind: "not_probed",
            severity: Severity::Warning,
            interface: w.interface.clone(),
            target: Some(w.target.clone()),
            text: format!("{}: {why}", w.name()),
        };
        self.end_trouble(w);
        self.order(Order::Begin(trouble_name(w), fact));
    }

    fn end_trouble(&self, w: &Wanted) {
        self.order(Order::End(trouble_name(w)));
    }

    /// The index of the interface if the target can be reached through it, or errno and reason.
    fn path(&mut self, w: &Wanted, interfaces: &[Interface]) -> Result<u32, (i32, String)> {
        let name = &w.interface;
        let Some(interface) = interfaces.iter().find(|i| i.name == *name) else {
            return Err((
                libc::ENODEV,
                format!("there is no interface {name} at present"),
            ));
        };
        if !interface.up {
            return Err((libc::ENETDOWN, format!("interface {name} is switched off")));
        }
        if let Some(source) = w.source
            && !interfaces
                .iter()
                .any(|i| i.addresses.iter().any(|a| a.ip == source))
        {
            return Err((
                libc::EADDRNOTAVAIL,
                format!("its source {source} is no address of this host at present"),
            ));
        }
        let query = RouteQuery {
            interface: Some(interface.index),
            from: w.source,
            mark: w.mark,
            ..RouteQuery::to(w.remote.ip())
        };
        match self.netlink.route_for(&query) {
            Ok(Some(_)) => Ok(interface.index),
            Ok(None) => {
                let to = w.remote.ip();
                Err((
                    libc::ENETUNREACH,
                    format!("no route to {to} through {name}"),
                ))
            }
            Err(e) => {
                let errno = e.raw_os_error().unwrap_or(libc::EIO);
                Err((
                    errno,
                    format!("no route to {} through {name}: {e}", w.remote.ip()),
                ))
            }
        }
    }

    /// Tells when a probed interface goes or comes.
    fn note_links(&mut self, interfaces: &[Interface], wanted: &[Wanted]) {
        let names: std::collections::BTreeSet<&String> =
            wanted.iter().map(|w| &w.interface).collect();
        let mut news = Vec::new();
        for name in names {
            let up = interfaces
                .iter()
                .any(|i| i.name == *name && i.up && i.running);
            if let Some(before) = self.links.insert(name.clone(), up)
                && before != up
            {
                news.push((name.clone(), up));
            }
        }
        for (name, up) in news {
            let down = format!("link_down {name}");
            let fact = |kind, severity, text: String| Fact {
                kind,
                severity,
                interface: name.clone(),
                target: None,
                text,
            };
            if up {
                log::info!("interface {name} is up");
                self.order(Order::End(down));
                let up = fact(
                    "link_up",
                    Severity::Info,
                    format!("interface {name} came up"),
                );
                self.order(Order::Moment(up));
            } else {
                log::warn!("interface {name} is down");
                let text = format!("interface {name} went down");
                self.order(Order::Begin(
                    down,
                    fact("link_down", Severity::Warning, text),
                ));
            }
        }
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

fn trouble_name(w: &Wanted) -> String {
    format!("not_probed {}", w.name())
}

/// Those who are asked what is not known yet.
struct Asked<'a> {
    netlink: &'a mut Netlink,
    names: &'a mut Resolver,
    scout: &'a mut Scout,
    units: &'a BTreeMap<Wanted, Kept>,
}

impl Sources for Asked<'_> {
    fn resolve(&mut self, name: &str, port: u16) -> Vec<SocketAddr> {
        self.names.get(name, port)
    }

    fn find(&mut self, errand: Errand) -> Option<IpAddr> {
        self.scout.find(errand)
    }

    fn leaves_by(&mut self, to: IpAddr) -> Option<u32> {
        // Where the kernel does not say, nobody is asked through a guess; the next review asks again.
        let route = self.netlink.route_for(&RouteQuery::to(to)).ok()??;
        Some(route.interface)
    }

    fn is_probed(&self, interface: &str, target: &str, remote: SocketAddr) -> bool {
        let same =
            |w: &Wanted| w.interface == interface && w.target == target && w.remote == remote;
        self.units.keys().any(same)
    }
}
