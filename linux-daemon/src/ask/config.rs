//! Targets of the kinds `dns` and `tcp`.

use std::net::SocketAddr;
use std::str::FromStr;

use bufferbane_config::Section;
use bufferbane_core::limits::MAX_INTERVAL_NS;
use bufferbane_store::SeriesKind;
use domain::base::Name;

use crate::config::{FamilyChoice, check_host, read_family, split_port};

/// The port of DNS.
const DNS_PORT: u16 = 53;
/// What is asked for where the configuration does not say: a name that is reserved to be there
/// (RFC 2606 section 3).
const LOOKUP: &str = "example.com";
/// A name with a random label before it still is one (RFC 1035 section 2.3.4).
const LONGEST_LOOKUP: usize = 230;
/// More often is no measurement but a burden, ns.
const MIN_INTERVAL_NS: u64 = 100_000_000;
const INTERVAL_NS: u64 = 10_000_000_000;

/// A service that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTarget {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub place: ServicePlace,
    /// Which families.
    pub family: FamilyChoice,
    /// What it is asked.
    pub service: Service,
}

/// Where a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServicePlace {
    /// At this address or name, and port.
    Host(String, u16),
    /// Wherever this host's own resolvers are, through every interface.
    System,
    /// The same, each through the one interface by which this host itself reaches it: a provider's
    /// resolver may refuse whoever comes by another line.
    SystemByRoute,
}

/// What is asked, and how often.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// A resolver is asked for an address.
    Dns(Lookup),
    /// A TCP connection is made and let go.
    Tcp {
        /// Length of a slot, ns.
        interval_ns: u64,
    },
}

/// A question to a resolver.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lookup {
    /// The name that is asked for.
    pub name: String,
    /// Whether a random label stands before it each time, so that nobody has the answer yet.
    pub random: bool,
    /// Over TCP, each time through a new connection, instead of UDP.
    pub tcp: bool,
    /// Length of a slot, ns.
    pub interval_ns: u64,
}

impl Service {
    /// How its series are called.
    pub(crate) const fn kind(&self) -> SeriesKind {
        match self {
            Self::Dns(_) => SeriesKind::Dns,
            Self::Tcp { .. } => SeriesKind::Tcp,
        }
    }

    /// Where it is asked, as its series say: at another port, or over another protocol, it is another
    /// series.
    pub(crate) fn address(&self, remote: SocketAddr) -> String {
        let protocol = match self {
            Self::Dns(lookup) if !lookup.tcp => "udp",
            Self::Dns(_) | Self::Tcp { .. } => "tcp",
        };
        format!("{remote}/{protocol}")
    }

    /// Length of a slot, ns.
    pub(crate) const fn interval_ns(&self) -> u64 {
        match self {
            Self::Dns(lookup) => lookup.interval_ns,
            Self::Tcp { interval_ns } => *interval_ns,
        }
    }
}

/// This host's own resolvers, asked every few seconds: what is asked where nothing is configured.
pub(crate) fn default_services() -> Vec<ServiceTarget> {
    vec![ServiceTarget {
        name: "resolver".into(),
        place: ServicePlace::SystemByRoute,
        family: FamilyChoice::Auto,
        service: Service::Dns(Lookup {
            name: LOOKUP.into(),
            random: false,
            tcp: false,
            interval_ns: INTERVAL_NS,
        }),
    }]
}

/// Reads what stands beside `name` and `kind = "tcp"`.
pub(crate) fn read_tcp(s: &Section<'_>, name: Option<String>) -> Option<ServiceTarget> {
    let place = s.parsed("address", |a| match split_port(a, 0)? {
        (_, 0) => Err(format!("\"{a}\" names no port; write for example {a}:443")),
        (host, port) => Ok(ServicePlace::Host(check_host(host)?, port)),
    });
    s.require(
        "address",
        "the host to connect to is to be named, with a port",
    );
    let interval_ns = s.duration_ns("interval", MIN_INTERVAL_NS..=MAX_INTERVAL_NS);
    let family = read_family(s);
    s.finish();
    Some(ServiceTarget {
        name: name?,
        place: place?,
        family,
        service: Service::Tcp {
            interval_ns: interval_ns.unwrap_or(INTERVAL_NS),
        },
    })
}

/// Reads what stands beside `name` and `kind = "dns"`.
pub(crate) fn read_dns(s: &Section<'_>, name: Option<String>) -> Option<ServiceTarget> {
    let place = s.parsed("address", |a| {
        if a == "system" {
            return Ok(ServicePlace::System);
        }
        let (host, port) = split_port(a, DNS_PORT)?;
        Ok(ServicePlace::Host(check_host(host)?, port))
    });
    s.require(
        "address",
        "the resolver is to be named, with a port where it is not 53; or \"system\" for this host's own",
    );
    let lookup = s.parsed("lookup", |name| {
        let right = name.len() <= LONGEST_LOOKUP && Name::<Vec<u8>>::from_str(name).is_ok();
        right.then(|| name.to_owned()).ok_or_else(|| {
            format!("\"{name}\" is no name that can be asked for; write for example \"{LOOKUP}\"")
        })
    });
    let random = s.flag("random");
    let tcp = s.choice("transport", &[("udp", false), ("tcp", true)]);
    let interval_ns = s.duration_ns("interval", MIN_INTERVAL_NS..=MAX_INTERVAL_NS);
    let family = read_family(s);
    s.finish();
    Some(ServiceTarget {
        name: name?,
        place: place?,
        family,
        service: Service::Dns(Lookup {
            name: lookup.unwrap_or_else(|| LOOKUP.into()),
            random: random.unwrap_or(false),
            tcp: tcp.unwrap_or(false),
            interval_ns: interval_ns.unwrap_or(INTERVAL_NS),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use std::path::Path;

    #[test]
    fn a_resolver_is_read_with_its_defaults_and_its_mistakes_are_told() {
        let text = "[[target]]\nname = \"a\"\nkind = \"dns\"\naddress = \"system\"\n\
                    [[target]]\nname = \"b\"\nkind = \"dns\"\naddress = \"9.9.9.9\"\n\
                    lookup = \"example.net\"\nrandom = true\ntransport = \"tcp\"\ninterval = \"1s\"\n";
        let config = parse("f", text, Path::new("/")).unwrap().config;
        assert_eq!(config.targets, Some(Vec::new()));
        let [a, b] = &config.services[..] else {
            panic!()
        };
        assert_eq!(a.place, ServicePlace::System);
        assert_eq!(a.service, default_services()[0].service);
        assert_eq!(b.place, ServicePlace::Host("9.9.9.9".into(), 53));
        let Service::Dns(lookup) = &b.service else {
            panic!()
        };
        assert!(lookup.random && lookup.tcp && lookup.name == "example.net");
        assert_eq!(b.service.interval_ns(), 1_000_000_000);
        // Who changes the protocol begins another series.
        let at = |s: &Service, remote: &str| s.address(remote.parse().unwrap());
        assert_eq!(at(&a.service, "[2620:fe::fe]:53"), "[2620:fe::fe]:53/udp");
        assert_eq!(at(&b.service, "9.9.9.9:53"), "9.9.9.9:53/tcp");

        let tcp = |address: &str| {
            let text =
                format!("[[target]]\nname = \"a\"\nkind = \"tcp\"\naddress = \"{address}\"\n");
            parse("f", &text, Path::new("/"))
        };
        let [web] = &tcp("[2001:db8::1]:443").unwrap().config.services[..] else {
            panic!()
        };
        assert_eq!(web.place, ServicePlace::Host("2001:db8::1".into(), 443));
        let said = tcp("example.net").unwrap_err()[0].to_string();
        assert!(said.contains("names no port"), "{said}");

        let text = "[[target]]\nname = \"a\"\nkind = \"dns\"\nlookup = \"a..b\"\n\
                    transport = \"quic\"\ninterval = \"1ms\"\nsize = 64\n";
        let said: Vec<String> = parse("f", text, Path::new("/"))
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect();
        for what in [
            "the resolver is to be named",
            "\"a..b\" is no name",
            "\"quic\" is not known",
            "100ms to",
            "size",
        ] {
            assert!(said.iter().any(|s| s.contains(what)), "{what}: {said:#?}");
        }
    }
}
