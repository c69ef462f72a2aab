//! The keeper thread: decides what is probed through which socket, and follows the host's links,
//! addresses and routes. Everything that allocates or waits for the system happens here, so that
//! the probe thread never has to.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use bufferbane_core::flight::{LossSlot, Slot};
use bufferbane_core::icmp::{Framing, IcmpConfig, IcmpProber};
use bufferbane_core::limits::RECEIVE_RECORD_BITS;
use bufferbane_core::sample::SeriesIndex;
use bufferbane_core::session::client::{Client, StreamConfig};
use bufferbane_core::stamp::{StampConfig, StampProber};
use bufferbane_core::wire::icmp::Version;
use bufferbane_linux_io::netlink::{Interface, InterfaceKind, Netlink, Route, RouteQuery, Watch};
use bufferbane_linux_io::{Family, ProbeSocket, SocketError, Waker, clock, host};
use bufferbane_store::{SeriesInfo, SeriesKind, Severity};
use nix::libc;
use rand_chacha::ChaCha12Rng;
use rtrb::{Consumer, Producer};

use crate::config::{Config, timeout_ns};
use crate::load::{Path, Paths};
use crate::plan::{self, Host, Probe, Sources, Wanted};
use crate::probe::{Command, Prober, SOCKETS, Unit};
use crate::recorder::{Fact, Order};
use crate::scout::{Errand, Scout, Way};
use crate::status::Status;

/// Share of a slot that the random offset of a probe may take, permille.
const SPREAD_PERMILLE: u16 = 800;
/// How long changes are gathered before they are acted on.
const SETTLE: Duration = Duration::from_millis(20);
/// How often everything is looked at although no change was told.
const REVIEW: Duration = Duration::from_secs(5);
/// How often names are asked for again.
const RESOLVE: Duration = Duration::from_secs(300);
/// How soon a name that could not be resolved is asked for again.
const RESOLVE_AGAIN: Duration = Duration::from_secs(10);

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
    retired: Consumer<Box<Unit>>,
    waker: Waker,
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
    next_id: u32,
    next_series: u16,
    rng: ChaCha12Rng,
}

/// What a keeper is made of.
pub(crate) struct Ends {
    pub(crate) commands: Producer<Command>,
    pub(crate) retired: Consumer<Box<Unit>>,
    pub(crate) waker: Waker,
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
            retired: ends.retired,
            waker: ends.waker,
            orders: ends.orders,
            requests: ends.requests,
            status: ends.status,
            paths: ends.paths,
            names: Resolver::start(),
            scout: Scout::start(),
            routes: Vec::new(),
            units: BTreeMap::new(),
            links: BTreeMap::new(),
            next_id: 0,
            next_series: 0,
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
                while self.retired.pop().is_ok() {}
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
                        // One change seldom comes alone.
                        while let Ok(Some(_)) = watch.next(SETTLE) {}
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
        self.scout.begin(routes != self.routes);
        self.routes.clone_from(&routes);
        let host = Host {
            interfaces: &interfaces,
            default_routes: &routes,
        };
        let mut asked = Asked {
            names: &mut self.names,
            scout: &mut self.scout,
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
                self.tell(Command::Remove(kept.id));
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
        self.publish_paths();
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
    fn publish_paths(&self) {
        let paths = self.units.iter().filter_map(|(w, kept)| match &w.probe {
            Probe::Reflector { key, .. } => Some(Path {
                interface: w.interface.clone(),
                index: kept.open?,
                reflector: w.target.clone(),
                remote: w.remote,
                key: key.key().clone(),
            }),
            Probe::Icmp { .. } | Probe::Stamp(_) => None,
        });
        if let Ok(mut place) = self.paths.lock() {
            *place = paths.collect();
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
        let now = clock::now();
        let id = self.next_id;
        self.next_id += 1;
        let kind = interfaces
            .iter()
            .find(|i| i.name == w.interface)
            .map(|i| i.kind);
        // What the person says who looks at the box goes before what the kernel sees.
        let kind = w.kind.or(kind).map_or("unknown", InterfaceKind::as_str);
        let family = if w.remote.is_ipv4() { 4 } else { 6 };
        let mut series = Vec::new();
        let mut describe = |kind_of: SeriesKind, size: u16, dscp: u8, interval_ns: u64| {
            let index = SeriesIndex(self.next_series);
            self.next_series = self.next_series.wrapping_add(1);
            let info = SeriesInfo {
                interface: w.interface.clone(),
                interface_kind: kind.to_owned(),
                target: w.target.clone(),
                kind: kind_of,
                family,
                dscp,
                size,
                interval_ns,
                address: w.remote.ip().to_string(),
            };
            series.push(index);
            // The recorder is gone only when everything ends.
            let _ = self.orders.send(Order::Series(index, info));
            index
        };
        let (prober, tos, in_flight) = match &w.probe {
            Probe::Icmp { size, interval_ns } => {
                let config = IcmpConfig {
                    series: describe(SeriesKind::Icmp, *size, 0, *interval_ns),
                    version: if family == 4 {
                        Version::V4
                    } else {
                        Version::V6
                    },
                    framing: framing(w.remote.ip()),
                    size: *size,
                    interval_ns: *interval_ns,
                    spread_permille: SPREAD_PERMILLE,
                    timeout_ns: timeout_ns(*interval_ns),
                };
                let slots = slots_for(*interval_ns);
                let n = slots.len();
                (
                    Prober::Icmp(Box::new(IcmpProber::new(config, now, slots, &mut self.rng))),
                    Vec::new(),
                    n,
                )
            }
            Probe::Stamp(probe) => {
                let interval_ns = probe.interval_ns;
                let config = StampConfig {
                    series: describe(SeriesKind::Stamp, probe.size, probe.dscp, interval_ns),
                    remote: w.remote,
                    key: probe.key.clone(),
                    format: probe.format,
                    counting: probe.counting,
                    size: probe.size,
                    interval_ns,
                    spread_permille: SPREAD_PERMILLE,
                    timeout_ns: timeout_ns(interval_ns),
                };
                let slots = slots_for(interval_ns);
                let n = slots.len();
                let losses = vec![LossSlot::default(); 2 * RECEIVE_RECORD_BITS].into();
                let prober = StampProber::new(config, now, slots, losses, &mut self.rng);
                (Prober::Stamp(Box::new(prober)), vec![probe.dscp << 2], n)
            }
            Probe::Reflector { key, streams } => {
                let mut client = Client::new(key.key().clone(), now, &mut self.rng);
                let (mut tos, mut in_flight) = (Vec::new(), 16);
                for (i, s) in streams.iter().enumerate() {
                    let more: Vec<u16> = s.more_sizes.into_iter().filter(|n| *n > 0).collect();
                    // 0 stands for mixed sizes.
                    let named = if more.is_empty() { s.size } else { 0 };
                    let config = StreamConfig {
                        series: describe(SeriesKind::Udp, named, s.dscp, s.interval_ns),
                        size: s.size,
                        interval_ns: s.interval_ns,
                        spread_permille: SPREAD_PERMILLE,
                        timeout_ns: timeout_ns(s.interval_ns),
                    };
                    let slots = slots_for(s.interval_ns);
                    in_flight += slots.len();
                    tos.push(s.dscp << 2);
                    let losses = vec![LossSlot::default(); 2 * RECEIVE_RECORD_BITS].into();
                    // The configuration allows no more streams than a client takes.
                    let _ = client.add_stream(config, now, slots, losses, &mut self.rng);
                    client.mix_sizes(i, &more);
                }
                let order = Order::Session(id, w.interface.clone(), w.target.clone());
                self.order(order);
                (Prober::Session(Box::new(client)), tos, in_flight)
            }
        };
        let unit = Unit::new(id, w.remote, prober, tos, in_flight);
        self.tell(Command::Add(Box::new(unit)));
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
            Ok(index) => match open(w) {
                Ok(socket) => {
                    kept.open = Some(index);
                    let mended = kept.trouble.take().is_some();
                    self.tell(Command::Open(id, Box::new(socket)));
                    if mended {
                        log::info!("{}: probed again", w.name());
                        self.end_trouble(w);
                    }
                }
                Err(e) => {
                    let errno = e.source.raw_os_error().unwrap_or(libc::EIO);
                    self.close(w, errno, e.to_string());
                }
            },
            Err((errno, why)) => self.close(w, errno, why),
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
        self.tell(Command::Close(id, errno));
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

    fn end_trouble(&mut self, w: &Wanted) {
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
                self.order(Order::Begin(format!("link_up {name}"), up));
                self.order(Order::End(format!("link_up {name}")));
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

    fn order(&self, order: Order) {
        // The recorder is gone only when everything ends.
        let _ = self.orders.send(order);
    }
}

fn trouble_name(w: &Wanted) -> String {
    format!("not_probed {}", w.name())
}

/// Room for what is in flight, and for late answers to as much again.
fn slots_for(interval_ns: u64) -> Box<[Slot]> {
    let in_flight = timeout_ns(interval_ns).div_ceil(interval_ns) + 2;
    vec![Slot::default(); (2 * in_flight + 8) as usize].into()
}

fn framing(to: IpAddr) -> Framing {
    if to.is_ipv4() && !host::icmp_access(Family::V4).ping {
        Framing::Ipv4Packet
    } else {
        Framing::Message
    }
}

fn open(w: &Wanted) -> Result<ProbeSocket, SocketError> {
    let family = Family::of(&w.remote.ip());
    let builder = match &w.probe {
        Probe::Reflector { .. } | Probe::Stamp(_) => ProbeSocket::udp(family),
        Probe::Icmp { .. } if host::icmp_access(family).ping => ProbeSocket::ping(family),
        Probe::Icmp { .. } => ProbeSocket::raw_icmp(family),
    };
    let way = Way {
        interface: w.interface.clone(),
        source: w.source,
        mark: w.mark,
    };
    way.socket(builder).build()
}

/// Those who are asked what is not known yet.
struct Asked<'a> {
    names: &'a mut Resolver,
    scout: &'a mut Scout,
}

impl Sources for Asked<'_> {
    fn resolve(&mut self, name: &str, port: u16) -> Vec<SocketAddr> {
        self.names.get(name, port)
    }

    fn find(&mut self, errand: Errand) -> Option<IpAddr> {
        self.scout.find(errand)
    }
}

/// A name and the port that belongs to it.
type Question = (String, u16);
/// Its addresses, or why there are none.
type Answer = Result<Vec<SocketAddr>, String>;

/// Names are resolved on a thread of their own: an answer may take seconds.
struct Resolver {
    ask: mpsc::Sender<Question>,
    answers: Receiver<(Question, Answer)>,
    known: HashMap<Question, Known>,
}

struct Known {
    addresses: Answer,
    asked: Instant,
    waiting: bool,
}

impl Resolver {
    fn start() -> Self {
        let (ask, questions) = mpsc::channel::<Question>();
        let (answer, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for (name, port) in questions {
                let found = (name.as_str(), port)
                    .to_socket_addrs()
                    .map(Iterator::collect)
                    .map_err(|e| format!("{name} cannot be resolved: {e}"));
                if answer.send(((name, port), found)).is_err() {
                    return;
                }
            }
        });
        Self {
            ask,
            answers,
            known: HashMap::new(),
        }
    }

    /// Takes in what was answered; whether there was anything new.
    fn has_news(&mut self) -> bool {
        let mut news = false;
        while let Ok((question, found)) = self.answers.try_recv() {
            if let Err(why) = &found {
                log::warn!("{why}");
            }
            if let Some(known) = self.known.get_mut(&question) {
                known.waiting = false;
                // An answer that fails does not make forget one that did not.
                if found.is_ok() || known.addresses.is_err() {
                    news |= known.addresses != found;
                    known.addresses = found;
                }
            }
        }
        news
    }

    /// The addresses of a name, as far as they are known by now.
    fn get(&mut self, name: &str, port: u16) -> Vec<SocketAddr> {
        if let Ok(ip) = name.parse::<IpAddr>() {
            return vec![SocketAddr::new(ip, port)];
        }
        let question = (name.to_owned(), port);
        let now = Instant::now();
        let known = self.known.entry(question.clone()).or_insert_with(|| Known {
            addresses: Err(format!("{name} is being resolved")),
            asked: now.checked_sub(RESOLVE).unwrap_or(now),
            waiting: false,
        });
        let after = if known.addresses.is_ok() {
            RESOLVE
        } else {
            RESOLVE_AGAIN
        };
        if !known.waiting && now.duration_since(known.asked) >= after {
            known.asked = now;
            // The thread lives as long as this end of its queue.
            known.waiting = self.ask.send(question).is_ok();
        }
        known.addresses.clone().unwrap_or_default()
    }

    fn troubles(&self) -> impl Iterator<Item = String> + '_ {
        self.known
            .values()
            .filter_map(|k| k.addresses.as_ref().err().cloned())
    }
}
