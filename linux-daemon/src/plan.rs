//! What is to be probed: the configuration, applied to the host as it is now.

mod leg;
#[cfg(test)]
pub(crate) mod tests;

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bufferbane_core::seal::PresharedKey;
use bufferbane_core::session::client::MORE_SIZES;
use bufferbane_linux_io::Family;
use bufferbane_linux_io::netlink::{Interface, InterfaceKind, Route};
use bufferbane_store::SeriesKind;

use crate::ask::{Service, ServicePlace, ServiceTarget};
use crate::config::{Config, FamilyChoice, Place, Stream, Target, Uplink, defaults};
use crate::scout::{Errand, Sought, Way};
use crate::stamp::StampProbe;
use leg::Leg;
pub(crate) use leg::default_route;

/// The host as it is.
pub(crate) struct Host<'a> {
    pub(crate) interfaces: &'a [Interface],
    pub(crate) default_routes: &'a [Route],
    /// Those that this host itself asks for names.
    pub(crate) resolvers: &'a [IpAddr],
    /// The interfaces that its default routes of IPv4 and of IPv6 left by when there were some.
    pub(crate) left_by: [Option<&'a str>; 2],
}

/// What has to be asked for, and may not be known yet.
pub(crate) trait Sources {
    /// The addresses of a name.
    fn resolve(&mut self, name: &str, port: u16) -> Vec<SocketAddr>;
    /// Where an optional target is that has answered.
    fn find(&mut self, errand: Errand) -> Option<IpAddr>;
    /// The index of the interface by which this host itself reaches an address.
    fn leaves_by(&mut self, to: IpAddr) -> Option<u32>;
    /// Whether a target is probed there already.
    fn is_probed(&self, interface: &str, target: &str, remote: SocketAddr) -> bool;
}

/// The addresses of a name, first those that are probed already: a name whose answers change their
/// order is the same target as before while its address is among them.
fn resolve(
    sources: &mut dyn Sources,
    interface: &str,
    target: &str,
    name: &str,
    port: u16,
) -> Vec<SocketAddr> {
    let mut found = sources.resolve(name, port);
    found.sort_by_key(|a| !sources.is_probed(interface, target, *a));
    found
}

/// One thing to probe; the same before and after a reload is not interrupted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wanted {
    pub(crate) interface: String,
    /// What kind of link the configuration says it is.
    pub(crate) kind: Option<InterfaceKind>,
    pub(crate) target: String,
    pub(crate) remote: SocketAddr,
    /// The address that is sent from, where one is configured.
    pub(crate) source: Option<IpAddr>,
    /// The firewall mark that is sent with.
    pub(crate) mark: Option<u32>,
    pub(crate) probe: Probe,
}

/// How it is probed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Probe {
    Icmp {
        size: u16,
        more_sizes: [u16; MORE_SIZES],
        interval_ns: u64,
    },
    Stamp(StampProbe),
    /// Asked by another thread than the one that probes.
    Service(Service),
    Reflector {
        key: OrderedKey,
        streams: Vec<StreamOrder>,
    },
}

/// A key that can stand in an ordered set, which moves what it holds about and leaves copies of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrderedKey(Arc<PresharedKey>);

impl OrderedKey {
    pub(crate) const fn key(&self) -> &Arc<PresharedKey> {
        &self.0
    }
}

impl PartialOrd for OrderedKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OrderedKey {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (&self.0, &other.0);
        a.id.cmp(&b.id).then_with(|| match a.secret == b.secret {
            true => Ordering::Equal,
            false => a.secret.ordinal().cmp(&b.secret.ordinal()),
        })
    }
}

/// A stream in an ordered set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StreamOrder {
    pub(crate) dscp: u8,
    pub(crate) size: u16,
    pub(crate) interval_ns: u64,
    pub(crate) more_sizes: [u16; MORE_SIZES],
}

impl From<&Stream> for StreamOrder {
    fn from(s: &Stream) -> Self {
        Self {
            dscp: s.dscp,
            size: s.size,
            interval_ns: s.interval_ns,
            more_sizes: s.more_sizes,
        }
    }
}

impl Probe {
    /// The kind of its series; a service has several.
    pub(crate) const fn kind(&self) -> Option<SeriesKind> {
        match self {
            Self::Icmp { .. } => Some(SeriesKind::Icmp),
            Self::Stamp(_) => Some(SeriesKind::Stamp),
            Self::Reflector { .. } => Some(SeriesKind::Udp),
            Self::Service(_) => None,
        }
    }
}

impl Probe {
    /// How often something is sent, ns: of streams the fastest.
    pub(crate) fn interval_ns(&self) -> u64 {
        match self {
            Self::Icmp { interval_ns, .. } => *interval_ns,
            Self::Stamp(p) => p.interval_ns,
            Self::Service(service) => service.interval_ns(),
            Self::Reflector { streams, .. } => {
                let all = streams.iter().map(|s| s.interval_ns);
                all.min().unwrap_or(u64::MAX)
            }
        }
    }
}

impl Wanted {
    /// What people read: `eth0 quad9 (9.9.9.9)`.
    pub(crate) fn name(&self) -> String {
        format!("{} {} ({})", self.interface, self.target, self.remote.ip())
    }

    /// What probes and their answers move in `time_ns`, with the headers of IP and UDP or ICMP, bytes.
    pub(crate) fn bytes_in(&self, time_ns: u64) -> u64 {
        let ip = if self.remote.is_ipv4() { 20 } else { 40 };
        let udp = ip + 8;
        let mean = |size: u16, more: &[u16]| {
            let sizes = more.iter().filter(|s| **s > 0).chain([&size]);
            let (sum, n) = sizes.fold((0, 0), |(sum, n), s| (sum + u64::from(*s), n + 1));
            sum / n
        };
        let there_and_back = |bytes: u64, interval_ns: u64| {
            let times = u128::from(time_ns) / u128::from(interval_ns.max(1));
            u64::try_from(times * 2 * u128::from(bytes)).unwrap_or(u64::MAX)
        };
        match &self.probe {
            Probe::Icmp {
                size,
                more_sizes,
                interval_ns,
            } => there_and_back(ip + mean(*size, more_sizes), *interval_ns),
            Probe::Stamp(p) => there_and_back(udp + mean(p.size, &p.more_sizes), p.interval_ns),
            Probe::Service(service) => there_and_back(service.bytes(ip) / 2, service.interval_ns()),
            Probe::Reflector { streams, .. } => streams
                .iter()
                .map(|s| there_and_back(udp + mean(s.size, &s.more_sizes), s.interval_ns))
                .fold(0, u64::saturating_add),
        }
    }
}

/// Everything to be probed, as far as it is known.
pub(crate) fn wanted(config: &Config, host: &Host<'_>, sources: &mut dyn Sources) -> Vec<Wanted> {
    let mut defaults: (Vec<Target>, Vec<ServiceTarget>);
    let (targets, services) = match &config.targets {
        Some(t) => (t, &config.services),
        None => {
            let named = |name: &str| config.reflectors.iter().any(|r| r.name == name);
            defaults = (defaults::targets(), defaults::services());
            defaults.0.retain(|t| !named(&t.name));
            defaults.1.retain(|t| !named(&t.name));
            (&defaults.0, &defaults.1)
        }
    };
    let names: BTreeSet<&str> = (targets.iter().map(|t| t.name.as_str()))
        .chain(services.iter().map(|t| t.name.as_str()))
        .chain(config.stamps.iter().map(|t| t.name.as_str()))
        .chain(config.reflectors.iter().map(|r| r.name.as_str()))
        .collect();
    // A set: two resolvers that are the gateway are one target.
    let mut all = BTreeSet::new();
    for leg in &leg::legs(config, host) {
        let uplink = &leg.uplink;
        let interface = &uplink.name;
        let mut want = |target: &str, remotes: Vec<SocketAddr>, probe: &dyn Fn() -> Probe| {
            let remotes = remotes.into_iter().filter(|r| leg.fits(r));
            all.extend(remotes.map(|remote| Wanted {
                interface: interface.clone(),
                kind: uplink.kind,
                target: target.to_owned(),
                remote: leg.scoped(remote),
                source: uplink.source,
                mark: uplink.mark,
                probe: probe(),
            }));
        };
        for t in targets {
            let remotes = target_addresses(t, leg, host, sources);
            want(&t.name, remotes, &|| Probe::Icmp {
                size: t.size,
                more_sizes: t.more_sizes,
                interval_ns: t.interval_ns,
            });
        }
        for s in &config.stamps {
            let found = resolve(sources, interface, &s.name, &s.host, s.port);
            let remotes = leg.choose(&found, s.family, |a| {
                sources.is_probed(interface, &s.name, *a)
            });
            want(&s.name, remotes, &|| Probe::Stamp(s.probe.clone()));
        }
        for t in services {
            for (name, found) in service_places(t, leg, host, &names, sources) {
                let remotes = leg.choose(&found, t.family, |a| {
                    sources.is_probed(interface, &name, *a)
                });
                want(&name, remotes, &|| Probe::Service(t.service.clone()));
            }
        }
        for r in &config.reflectors {
            let found = resolve(sources, interface, &r.name, &r.host, r.port);
            let remotes = leg.choose(&found, r.family, |a| {
                sources.is_probed(interface, &r.name, *a)
            });
            want(&r.name, remotes, &|| Probe::Reflector {
                key: OrderedKey(r.key.clone()),
                streams: r.streams.iter().map(StreamOrder::from).collect(),
            });
        }
    }
    all.into_iter().collect()
}

/// The names and addresses of a service: of this host's resolvers each is a target of its own, numbered
/// but for numbers that make a name of `taken`.
fn service_places(
    target: &ServiceTarget,
    leg: &Leg<'_>,
    host: &Host<'_>,
    taken: &BTreeSet<&str>,
    sources: &mut dyn Sources,
) -> Vec<(String, Vec<SocketAddr>)> {
    let interface = &leg.uplink.name;
    match &target.place {
        ServicePlace::Host(name, port) => {
            let found = resolve(sources, interface, &target.name, name, *port);
            vec![(target.name.clone(), found)]
        }
        ServicePlace::System | ServicePlace::SystemByRoute => {
            let further = (2..).map(|n| format!("{}-{n}", target.name));
            let further = further.filter(|name| !taken.contains(name.as_str()));
            let names = std::iter::once(target.name.clone()).chain(further);
            let mut named: Vec<(String, IpAddr)> =
                names.zip(host.resolvers.iter().copied()).collect();
            if target.place == ServicePlace::SystemByRoute {
                let own = leg.interface();
                named.retain(|(name, ip)| match sources.leaves_by(*ip) {
                    Some(index) => own.is_some_and(|i| i.index == index),
                    // No way at present: it stays where it was, and the trouble is told there.
                    None => sources.is_probed(interface, name, SocketAddr::new(*ip, 53)),
                });
                if matches!(&target.service, Service::Dns(lookup) if lookup.tcp) {
                    let sought = |ip| Sought::DnsOverTcp(SocketAddr::new(ip, 53));
                    named.retain(|(_, ip)| find(&leg.uplink, sought(*ip), sources).is_some());
                }
            }
            let placed = named
                .into_iter()
                .map(|(name, ip)| (name, vec![SocketAddr::new(ip, 53)]));
            placed.collect()
        }
    }
}

/// Whom this host asks for names, as far as others can be asked through an uplink: not itself. Where it
/// asks only itself, whom systemd-resolved asks.
pub(crate) fn system_resolvers() -> Vec<IpAddr> {
    let files = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
    let read = files.iter().map(|file| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let mut list = resolvers_of(&text);
        list.retain(|ip| !ip.is_loopback());
        list
    });
    read.into_iter()
        .find(|list| !list.is_empty())
        .unwrap_or_default()
}

fn resolvers_of(resolv_conf: &str) -> Vec<IpAddr> {
    resolv_conf
        .lines()
        .filter_map(|l| l.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse().ok())
        .collect()
}

fn target_addresses(
    target: &Target,
    leg: &Leg<'_>,
    host: &Host<'_>,
    sources: &mut dyn Sources,
) -> Vec<SocketAddr> {
    let uplink = &leg.uplink;
    let interface = &uplink.name;
    match &target.place {
        Place::Host(name) => {
            let found = resolve(sources, interface, &target.name, name, 0);
            leg.choose(&found, target.family, |a| {
                sources.is_probed(interface, &target.name, *a)
            })
        }
        Place::Modem => find(uplink, Sought::Modem, sources).into_iter().collect(),
        Place::Isp => {
            let families: &[Family] = match target.family {
                FamilyChoice::V4 => &[Family::V4],
                FamilyChoice::V6 => &[Family::V6],
                FamilyChoice::Both => &[Family::V4, Family::V6],
                FamilyChoice::Auto if leg.has(Family::V4) => &[Family::V4],
                FamilyChoice::Auto => &[Family::V6],
            };
            let found = families
                .iter()
                .flat_map(|f| find(uplink, Sought::FirstHop(*f), sources));
            found.collect()
        }
        Place::Gateway => {
            let own = leg.interface();
            let routes = host.default_routes.iter();
            let gateways: Vec<SocketAddr> = routes
                .filter(|r| own.is_some_and(|i| i.index == r.interface))
                .filter_map(|r| r.gateway.or_else(|| peer(own?, r.family)))
                .map(|g| SocketAddr::new(g, 0))
                .collect();
            leg.choose(&gateways, target.family, |a| {
                sources.is_probed(interface, &target.name, *a)
            })
        }
    }
}

/// The other end of a PPP link, which routes have no need to name.
fn peer(interface: &Interface, family: Family) -> Option<IpAddr> {
    let addresses = interface.addresses.iter();
    let mut peers = addresses.filter_map(|a| a.peer.filter(|p| Family::of(p) == family));
    (interface.kind == InterfaceKind::Ppp).then(|| peers.next())?
}

fn find(uplink: &Uplink, sought: Sought, sources: &mut dyn Sources) -> Option<SocketAddr> {
    // A source belongs to one family; the other is not looked for.
    if uplink
        .source
        .is_some_and(|s| Family::of(&s) != sought.family())
    {
        return None;
    }
    let way = Way::of(uplink);
    let found = sources.find(Errand { way, sought });
    found.map(|ip| SocketAddr::new(ip, 0))
}
