//! Targets of the kinds `dns`, `tcp` and `http`.

use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;

use bufferbane_config::{Section, check_host, split_port};
use bufferbane_core::limits::MAX_INTERVAL_NS;
use bufferbane_store::SeriesKind;
use domain::base::Name;
use rustls::pki_types::ServerName;

use super::{dns, http};
use crate::config::{FamilyChoice, read_family};
use crate::tls::Roots;
use crate::url::Url;

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
/// How long a connection that is held may be silent, ns: less is a burden, and hardly a NAT remembers for longer.
const HOLD_NS: std::ops::RangeInclusive<u64> = 1_000_000_000..=7_200_000_000_000;
/// A server of HTTP has more work with each request, and the line too: some ten packets each way.
const MIN_HTTP_INTERVAL_NS: u64 = 1_000_000_000;
const HTTP_INTERVAL_NS: u64 = 60_000_000_000;

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
    /// resolver may refuse whoever comes by another line. Over TCP only those that have answered so once: many
    /// routers never do, and nobody has asked for it.
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
        /// Beside those one is held open, and the kernel asks after so much silence whether it is, ns.
        hold_ns: Option<u64>,
    },
    /// A server of HTTP is asked for a page.
    Http(Page),
}

/// A request to a server of HTTP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Page {
    /// What is asked for.
    pub url: Url,
    /// Whose certificates are believed.
    pub roots: Roots,
    /// The status codes that are right; with none 200 to 399 are.
    pub right: Vec<u16>,
    /// Length of a slot, ns.
    pub interval_ns: u64,
}

impl Page {
    /// Whether this status code is what was asked for.
    pub(crate) fn is_right(&self, status: u16) -> bool {
        match &self.right[..] {
            [] => (200..400).contains(&status),
            right => right.contains(&status),
        }
    }
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

impl Default for Lookup {
    /// What is asked where nothing is said of it.
    fn default() -> Self {
        Self {
            name: LOOKUP.into(),
            random: false,
            tcp: false,
            interval_ns: INTERVAL_NS,
        }
    }
}

impl Service {
    /// What its series are called: one for each step, in their order.
    pub const fn steps(&self) -> &'static [SeriesKind] {
        match self {
            Self::Dns(_) => &[SeriesKind::Dns],
            Self::Tcp { .. } => &[SeriesKind::Tcp],
            Self::Http(page) if page.url.secure => {
                &[SeriesKind::Tcp, SeriesKind::Tls, SeriesKind::Http]
            }
            Self::Http(_) => &[SeriesKind::Tcp, SeriesKind::Http],
        }
    }

    /// Where it is asked, as the series of a step say: at another port, or over another protocol, it is
    /// another series.
    pub fn address(&self, step: SeriesKind, remote: SocketAddr) -> String {
        let protocol = match (step, self) {
            (SeriesKind::Dns, Self::Dns(lookup)) if !lookup.tcp => "udp",
            (SeriesKind::Http, Self::Http(page)) if page.url.secure => "https",
            (SeriesKind::Http | SeriesKind::Tls, _) => step.as_str(),
            _ => "tcp",
        };
        format!("{remote}/{protocol}")
    }

    /// Bytes of what is asked in a step; 0 where there is none of one size.
    pub fn size(&self, step: SeriesKind) -> u16 {
        match (step, self) {
            (SeriesKind::Dns, Self::Dns(lookup)) => dns::size(lookup),
            (SeriesKind::Http, Self::Http(page)) => http::size(page),
            _ => 0,
        }
    }

    /// What a question and its answer move at most, with headers of `ip` bytes each, bytes.
    pub(crate) fn bytes(&self, ip: u64) -> u64 {
        // Three segments each way open and close a connection.
        let connection = 2 * 3 * (ip + 32);
        match self {
            Self::Dns(lookup) => {
                let size = u64::from(dns::size(lookup));
                match lookup.tcp {
                    false => 2 * (ip + 8 + size),
                    // The length goes before each message.
                    true => connection + 2 * (ip + 32 + 2 + size),
                }
            }
            Self::Tcp {
                interval_ns,
                hold_ns,
            } => {
                let asked = hold_ns.map_or(0, |ns| interval_ns.div_ceil(ns));
                connection + asked * 2 * (ip + 32)
            }
            Self::Http(page) => connection + http::bytes(page),
        }
    }

    /// Length of a slot, ns.
    pub const fn interval_ns(&self) -> u64 {
        match self {
            Self::Dns(lookup) => lookup.interval_ns,
            Self::Tcp { interval_ns, .. } => *interval_ns,
            Self::Http(page) => page.interval_ns,
        }
    }
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
    let hold_ns = s.duration_ns("hold", HOLD_NS);
    let family = read_family(s);
    s.finish();
    Some(ServiceTarget {
        name: name?,
        place: place?,
        family,
        service: Service::Tcp {
            interval_ns: interval_ns.unwrap_or(INTERVAL_NS),
            hold_ns,
        },
    })
}

/// Reads what stands beside `name` and `kind = "http"`; `base` is where a file of certificates is looked
/// for.
pub(crate) fn read_http(
    s: &Section<'_>,
    base: &Path,
    name: Option<String>,
) -> Option<ServiceTarget> {
    let url = s.parsed("address", |a| {
        let url = Url::parse(a, "https://example.com/")?;
        match ServerName::try_from(url.host.as_str()) {
            Err(_) if url.secure => Err(format!(
                "\"{}\" is no name that a certificate can have; write for example example.com",
                url.host
            )),
            _ => Ok(url),
        }
    });
    s.require(
        "address",
        "the page to ask for is to be named, such as \"https://example.com/\"",
    );
    let roots = Roots::of(s, base, url.as_ref().map(|u| u.secure));
    let right = s.numbers("status", 200..=599).unwrap_or_default();
    let interval_ns = s.duration_ns("interval", MIN_HTTP_INTERVAL_NS..=MAX_INTERVAL_NS);
    let family = read_family(s);
    s.finish();
    let url = url?;
    Some(ServiceTarget {
        name: name?,
        place: ServicePlace::Host(url.host.clone(), url.port),
        family,
        service: Service::Http(Page {
            url,
            roots,
            right: right.into_iter().map(|n| n as u16).collect(),
            interval_ns: interval_ns.unwrap_or(HTTP_INTERVAL_NS),
        }),
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
    let usual = Lookup::default();
    Some(ServiceTarget {
        name: name?,
        place: place?,
        family,
        service: Service::Dns(Lookup {
            name: lookup.unwrap_or(usual.name),
            random: random.unwrap_or(usual.random),
            tcp: tcp.unwrap_or(usual.tcp),
            interval_ns: interval_ns.unwrap_or(usual.interval_ns),
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
        assert_eq!(a.service, Service::Dns(Lookup::default()));
        assert_eq!(b.place, ServicePlace::Host("9.9.9.9".into(), 53));
        let Service::Dns(lookup) = &b.service else {
            panic!()
        };
        assert!(lookup.random && lookup.tcp && lookup.name == "example.net");
        assert_eq!(b.service.interval_ns(), 1_000_000_000);
        // A connection each time, and longer names.
        assert_eq!(a.service.bytes(20), 2 * (20 + 8 + 29));
        assert_eq!(b.service.bytes(20), 6 * 52 + 2 * (20 + 32 + 2 + 46));
        // Who changes the protocol begins another series.
        let at = |s: &Service, remote: &str| s.address(s.steps()[0], remote.parse().unwrap());
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
        let held = tcp("a.example:22\"\nhold = \"30s").unwrap().config.services[0].clone();
        let Service::Tcp { hold_ns, .. } = held.service else {
            panic!()
        };
        assert_eq!(hold_ns, Some(30_000_000_000));
        let said = tcp("a.example:22\"\nhold = \"3h").unwrap_err()[0].to_string();
        assert!(
            said.contains("target.hold") && said.contains("1s to 2h"),
            "{said}"
        );
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

    #[test]
    fn a_page_is_read_with_its_steps_and_its_mistakes_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, crate::tls::testing::Authority::new().pem()).unwrap();
        let read = |text: &str| {
            let text = format!("[[target]]\nname = \"web\"\nkind = \"http\"\n{text}\n");
            let loaded = parse("f", &text, dir.path());
            loaded
                .map(|l| l.config.services[0].clone())
                .map_err(|m| m.iter().map(ToString::to_string).collect::<String>())
        };
        let plain = read("address = \"http://[2001:db8::1]:8080/a\"").unwrap();
        assert_eq!(plain.place, ServicePlace::Host("2001:db8::1".into(), 8080));
        assert_eq!(plain.service.interval_ns(), HTTP_INTERVAL_NS);
        assert_eq!(plain.service.steps(), [SeriesKind::Tcp, SeriesKind::Http]);
        let secure = read(
            "address = \"https://example.net\"\nca = \"ca.pem\"\nstatus = [204, 401]\n\
             interval = \"1s\"\nfamily = \"both\"",
        );
        let secure = secure.unwrap();
        assert_eq!(secure.place, ServicePlace::Host("example.net".into(), 443));
        assert_eq!(secure.family, FamilyChoice::Both);
        let remote = "[2001:db8::1]:443".parse().unwrap();
        let steps = secure.service.steps().iter();
        let steps: Vec<(String, bool)> = steps
            .map(|step| {
                let address = secure.service.address(*step, remote);
                (address, secure.service.size(*step) > 0)
            })
            .collect();
        let expected = [("tcp", false), ("tls", false), ("https", true)];
        assert_eq!(
            steps,
            expected.map(|(p, sized)| (format!("[2001:db8::1]:443/{p}"), sized))
        );
        let (Service::Http(plain), Service::Http(secure)) = (plain.service, secure.service) else {
            panic!()
        };
        assert!(plain.is_right(200) && plain.is_right(302) && !plain.is_right(404));
        assert!(secure.is_right(204) && secure.is_right(401) && !secure.is_right(200));
        assert!(matches!(secure.roots, Roots::Own(_)));

        for (text, why) in [
            ("", "f:1:1: target.address: is missing"),
            (
                "address = \"example.net\"",
                "f:4:1: target.address: \"example.net\" is no URL",
            ),
            (
                "address = \"https://a..b\"",
                "no name that a certificate can have",
            ),
            (
                "address = \"http://a/\"\nca = \"ca.pem\"",
                "for https:// only",
            ),
            (
                "address = \"https://a/\"\nca = \"no.pem\"",
                "no.pem: No such file",
            ),
            ("address = \"https://a/\"\nstatus = [99]", "200 to 599"),
            ("address = \"https://a/\"\ninterval = \"500ms\"", "1s to 1h"),
            (
                "address = \"https://a/\"\nport = 80",
                "target.port: unknown key",
            ),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
