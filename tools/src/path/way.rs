//! Where to, and how packets leave: as the daemon's probes do where it knows the target or the uplink, else as the
//! kernel's routes have it.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path as File;

use bufferbane_linux_io::netlink::{Interface, Netlink, RouteQuery};
use bufferbane_linux_io::{Family, SocketBuilder};
use serde_json::Value;

use crate::args::Path;
use crate::control::{self, ControlError};
use crate::fail::Fail;
use crate::source::DAEMON_PATIENCE;
use crate::{out, show};

/// A way to be walked.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) address: IpAddr,
    pub(super) interface: Interface,
    /// What kind of link that is, by the daemon's configuration where it has one.
    pub(super) kind: String,
    /// The address that is sent from, where one is configured.
    pub(super) source: Option<IpAddr>,
    /// The firewall mark that is sent with, likewise.
    pub(super) mark: Option<u32>,
    /// Other uplinks that the daemon probes it through.
    pub(super) others: Vec<String>,
    /// Whether it leads through this interface whatever the routes say.
    is_bound: bool,
}

impl Way {
    /// The address that what is sent this way leaves from, most likely: that which is configured, else the interface's
    /// first.
    pub(super) fn own_address(&self) -> Option<IpAddr> {
        let own = self.interface.addresses.iter();
        let mut usual = own.filter(|a| a.usable && a.ip.is_ipv4() == self.address.is_ipv4());
        self.source
            .or_else(|| usual.find(|a| !a.link_local).map(|a| a.ip))
    }

    /// A socket of this kind that sends this way.
    pub(super) fn socket(&self, builder: SocketBuilder) -> SocketBuilder {
        let mut builder = builder;
        if self.is_bound {
            builder = builder.interface(&self.interface.name);
        }
        if let Some(source) = self.source {
            builder = builder.bind(SocketAddr::new(source, 0));
        }
        if let Some(mark) = self.mark {
            builder = builder.mark(mark);
        }
        builder
    }
}

/// An uplink of the daemon's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Uplink {
    interface: String,
    kind: String,
    source: Option<IpAddr>,
    mark: Option<u32>,
}

/// What the daemon probes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    interface: String,
    name: String,
    address: IpAddr,
}

/// What a running daemon says of itself; nothing where none runs.
#[derive(Debug, Default)]
struct Daemon {
    uplinks: Vec<Uplink>,
    targets: Vec<Target>,
}

impl Daemon {
    fn ask(socket: &File) -> Self {
        match control::ask(socket, "status", DAEMON_PATIENCE) {
            Ok(answer) => Self::of(&answer["status"]),
            Err(ControlError::Absent) => Self::default(),
            Err(e) => {
                out::warn(&format!("the daemon's targets are not known: {e}"));
                Self::default()
            }
        }
    }

    fn of(status: &Value) -> Self {
        let all = |key: &str| status[key].as_array().into_iter().flatten();
        let word = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let uplinks = all("uplinks").map(|u| Uplink {
            interface: word(&u["interface"]),
            kind: word(&u["kind"]),
            source: u["source"].as_str().and_then(|s| s.parse().ok()),
            mark: u["mark"].as_u64().and_then(|m| m.try_into().ok()),
        });
        let targets = all("series").filter_map(|s| {
            let address = s["address"].as_str()?;
            // A service's has a port, `/tcp` or `/udp` behind it where that is to be told, and may be a name.
            let of_service = || {
                let at = address.split('/').next()?;
                at.parse().map(|a: SocketAddr| a.ip()).ok()
            };
            Some(Target {
                interface: word(&s["interface"]),
                name: word(&s["target"]),
                address: address.parse().ok().or_else(of_service)?,
            })
        });
        let mut targets: Vec<Target> = targets.collect();
        // A target has a series for each stream.
        let mut seen = Vec::new();
        targets.retain(|t| {
            let is_new = !seen.contains(t);
            seen.extend(is_new.then(|| t.clone()));
            is_new
        });
        Self {
            uplinks: uplinks.collect(),
            targets,
        }
    }

    fn uplink(&self, interface: &str) -> Option<&Uplink> {
        self.uplinks.iter().find(|u| u.interface == interface)
    }

    /// What is called so, or is at that address, over a family and through an interface if these are asked for.
    fn called(&self, asked: &str, family: Option<Family>, interface: Option<&str>) -> Vec<&Target> {
        let address = asked.parse().ok();
        let fits = |t: &&Target| {
            (t.name == asked || Some(t.address) == address)
                && family.is_none_or(|f| Family::of(&t.address) == f)
                && interface.is_none_or(|i| t.interface == i)
        };
        self.targets.iter().filter(fits).collect()
    }

    /// How the daemon probes what is called so, where it does, but not over the family or through the interface that were
    /// asked for.
    fn otherwise(&self, asked: &str) -> Option<String> {
        let known = self.called(asked, None, None);
        let way = |t: &&Target| format!("{} through {}", t.address, t.interface);
        let ways: Vec<String> = known.iter().map(way).collect();
        let (asked, ways) = (show::clean(asked), show::clean(&ways.join(", ")));
        (!known.is_empty()).then(|| {
            format!("the daemon probes {asked} at {ways} only; name an address to walk another way")
        })
    }

    /// The names that it has, to be offered.
    fn names(&self) -> Option<String> {
        let mut names: Vec<&str> = self.targets.iter().map(|t| t.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        (!names.is_empty()).then(|| show::clean(&names.join(", ")))
    }
}

/// The host's interfaces and routes.
struct Host {
    netlink: Netlink,
    interfaces: Vec<Interface>,
}

fn broken(e: io::Error) -> Fail {
    Fail::of("the routing tables cannot be read", e)
}

impl Host {
    fn open() -> Result<Self, Fail> {
        let mut netlink = Netlink::open().map_err(broken)?;
        let interfaces = netlink.interfaces().map_err(broken)?;
        Ok(Self {
            netlink,
            interfaces,
        })
    }

    fn named(&self, name: &str) -> Result<&Interface, Fail> {
        let found = self.interfaces.iter().find(|i| i.name == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = self.interfaces.iter().map(|i| i.name.as_str()).collect();
            let names = names.join(", ");
            let name = show::clean(name);
            Fail::Usage(format!("no interface \"{name}\"; there are {names}"))
        })
    }

    /// The interface that the kernel sends to `address` by, as it is asked for.
    fn route(
        &mut self,
        address: IpAddr,
        bound: Option<u32>,
        uplink: Option<&Uplink>,
    ) -> Result<Option<Interface>, Fail> {
        let query = RouteQuery {
            interface: bound,
            from: uplink.and_then(|u| u.source),
            mark: uplink.and_then(|u| u.mark),
            ..RouteQuery::to(address)
        };
        let Some(route) = self.netlink.route_for(&query).map_err(broken)? else {
            return Ok(None);
        };
        let mut by = self
            .interfaces
            .iter()
            .filter(|i| i.index == route.interface);
        match (by.next(), bound) {
            (Some(by), _) => Ok(Some(by.clone())),
            (None, Some(index)) => Ok(self.interfaces.iter().find(|i| i.index == index).cloned()),
            (None, None) => Err(Fail::Failed(format!(
                "the route to {address} leads nowhere"
            ))),
        }
    }
}

/// The way that was asked for.
pub(super) fn find(args: &Path) -> Result<Way, Fail> {
    let family = match args.family {
        None => None,
        Some(4) => Some(Family::V4),
        Some(6) => Some(Family::V6),
        Some(n) => return Err(Fail::Usage(format!("--family {n} is not known; 4 or 6"))),
    };
    let daemon = Daemon::ask(&args.socket);
    let mut host = Host::open()?;
    let asked = args.interface.as_deref();
    if let Some(name) = asked {
        host.named(name)?;
    }
    let known = daemon.called(&args.target, family, asked);
    let found = match known.first() {
        Some(first) => {
            // Of several uplinks the one that this host itself takes, if it takes any.
            let by_route = host.route(first.address, None, None).ok().flatten();
            let by_route = by_route.and_then(|i| known.iter().find(|t| t.interface == i.name));
            let chosen = *by_route.unwrap_or(first);
            let way = through(&mut host, &daemon, &chosen.interface, chosen.address)?;
            let mut others: Vec<String> = known.iter().map(|t| t.interface.clone()).collect();
            others.retain(|name| *name != chosen.interface);
            others.sort_unstable();
            others.dedup();
            way.map(|way| Way { others, ..way })
        }
        None => unknown(args, family, &daemon, &mut host)?,
    };
    found.ok_or_else(|| {
        let of = match args.family {
            Some(n) => format!(" over IPv{n}"),
            None => String::new(),
        };
        let through = known.first().map(|t| t.interface.as_str()).or(asked);
        let through = through.map_or_else(String::new, |i| format!(" through {}", show::clean(i)));
        let target = show::clean(&args.target);
        Fail::Failed(format!("no route to {target}{of}{through}"))
    })
}

/// A way to what the daemon does not probe: to the first of its addresses that has a route.
fn unknown(
    args: &Path,
    family: Option<Family>,
    daemon: &Daemon,
    host: &mut Host,
) -> Result<Option<Way>, Fail> {
    let addresses: Vec<IpAddr> = match args.target.parse::<IpAddr>() {
        Ok(ip) => vec![ip],
        Err(_) => (args.target.as_str(), 0)
            .to_socket_addrs()
            .map_err(|e| {
                let target = show::clean(&args.target);
                if let Some(said) = daemon.otherwise(&args.target) {
                    return Fail::Failed(said);
                }
                let names = daemon.names();
                let names = names.map_or_else(String::new, |n| format!("; the daemon probes {n}"));
                Fail::Failed(format!("{target} cannot be resolved: {e}{names}"))
            })?
            .map(|a| a.ip())
            .collect(),
    };
    let fits = |ip: &&IpAddr| family.is_none_or(|f| Family::of(ip) == f);
    for address in addresses.iter().filter(fits) {
        let way = match &args.interface {
            Some(name) => through(host, daemon, name, *address)?,
            None => host.route(*address, None, None)?.map(|interface| Way {
                address: *address,
                kind: kind_of(&interface, daemon.uplink(&interface.name)),
                interface,
                source: None,
                mark: None,
                others: Vec::new(),
                is_bound: false,
            }),
        };
        if way.is_some() {
            return Ok(way);
        }
    }
    Ok(None)
}

/// A way through this interface, as the daemon's packets leave where it is an uplink of its.
fn through(
    host: &mut Host,
    daemon: &Daemon,
    name: &str,
    address: IpAddr,
) -> Result<Option<Way>, Fail> {
    let index = host.named(name)?.index;
    // A source belongs to one family; the other is not asked to use it.
    let uplink = daemon.uplink(name).cloned().map(|u| Uplink {
        source: u.source.filter(|s| Family::of(s) == Family::of(&address)),
        ..u
    });
    let by = host.route(address, Some(index), uplink.as_ref())?;
    Ok(by.map(|interface| Way {
        address,
        kind: kind_of(&interface, uplink.as_ref()),
        interface,
        source: uplink.as_ref().and_then(|u| u.source),
        mark: uplink.as_ref().and_then(|u| u.mark),
        others: Vec::new(),
        is_bound: true,
    }))
}

fn kind_of(interface: &Interface, uplink: Option<&Uplink>) -> String {
    uplink.map_or_else(|| interface.kind.as_str().to_owned(), |u| u.kind.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_target_is_found_by_its_name_and_address_and_each_of_its_uplinks() {
        let series = |interface: &str, target: &str, address: &str| json!({ "interface": interface, "target": target, "address": address });
        let daemon = Daemon::of(&json!({
            "uplinks": [
                { "interface": "eth0", "kind": "wired", "source": null, "mark": null },
                { "interface": "wg0", "kind": "tunnel", "source": "10.0.0.7", "mark": 5 },
            ],
            "series": [
                series("eth0", "vienna", "192.0.2.1"),
                series("eth0", "vienna", "192.0.2.1"),
                series("eth0", "vienna", "2001:db8::1"),
                series("wg0", "vienna", "192.0.2.1"),
                series("eth0", "dns", "192.0.2.53:53"),
                series("eth0", "web", "192.0.2.80:443/tcp"),
                series("eth0", "page", "example.net"),
            ],
        }));
        let called = |asked: &str, family, interface| -> Vec<(String, String)> {
            let found = daemon.called(asked, family, interface);
            let pair = |t: &&Target| (t.interface.clone(), t.address.to_string());
            found.iter().map(pair).collect()
        };
        let own = |i: &str, a: &str| (i.to_owned(), a.to_owned());
        let v4 = [own("eth0", "192.0.2.1"), own("wg0", "192.0.2.1")];
        assert_eq!(called("vienna", Some(Family::V4), None), v4);
        assert_eq!(called("192.0.2.1", None, None), v4);
        assert_eq!(called("vienna", None, Some("wg0")), v4[1..]);
        let v6 = [own("eth0", "2001:db8::1")];
        assert_eq!(called("vienna", Some(Family::V6), None), v6);
        assert_eq!(called("dns", None, None), [own("eth0", "192.0.2.53")]);
        assert_eq!(called("web", None, None), [own("eth0", "192.0.2.80")]);
        assert_eq!(called("page", None, None), []);
        assert_eq!(called("dns", Some(Family::V6), None), []);
        assert_eq!(
            daemon.otherwise("dns").as_deref(),
            Some(
                "the daemon probes dns at 192.0.2.53 through eth0 only; name an address to walk another way"
            )
        );
        assert_eq!(daemon.otherwise("none"), None);
        assert_eq!(daemon.names().as_deref(), Some("dns, vienna, web"));
        let tunnel = daemon.uplink("wg0").map(|u| (u.source, u.mark));
        assert_eq!(tunnel, Some((Some([10, 0, 0, 7].into()), Some(5))));
        // One of before there were uplinks.
        let older = Daemon::of(&json!({ "series": [series("eth0", "a", "192.0.2.1")] }));
        assert_eq!((older.uplinks.len(), older.targets.len()), (0, 1));
    }
}
