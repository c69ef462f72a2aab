//! The daemon's configuration.

pub mod defaults;
pub(crate) mod probed;
pub mod quiet;
mod read;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bufferbane_config::{Document, Mistake, Section, suggestion};
use bufferbane_core::limits::DEFAULT_TIMEOUT_NS;
use bufferbane_core::seal::{PresharedKey, wipe_stack};
use bufferbane_core::session::client::MORE_SIZES;
use bufferbane_core::stamp::Subnet;
use bufferbane_core::train::pacer::When;
use bufferbane_linux_io::netlink::{InterfaceKind, Netlink};
use jiff::tz::TimeZone;

use crate::alerts::AlertsConfig;
use crate::ask::ServiceTarget;
use crate::load::UdpRates;
use crate::pacing::Pacing;
use crate::remote::RemoteConfig;
use crate::stamp::StampTarget;
use quiet::QuietHours;

/// Where the daemon looks for its configuration.
pub const DEFAULT_FILE: &str = "/etc/bufferbane/bufferbaned.toml";
/// Where its store is by default.
pub const DEFAULT_STORE: &str = "/var/lib/bufferbane/bufferbane.redb";
/// Where its control socket is by default.
pub const DEFAULT_SOCKET: &str = "/run/bufferbane/control.sock";
/// Where its live page is by default: on this host only.
pub const DEFAULT_HTTP: SocketAddr =
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9816);
/// UDP port of a reflector by default.
pub const DEFAULT_PORT: u16 = 9876;

const SECOND_NS: u64 = 1_000_000_000;
const DAY_NS: u64 = 86_400 * SECOND_NS;

/// Which address families of a name are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyChoice {
    /// The first that has a route, IPv4 before IPv6.
    Auto,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both, each a series of its own.
    Both,
}

/// Where a target is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this address or under this name.
    Host(String),
    /// The next hop of the interface's default route.
    Gateway,
    /// The cable modem, if it answers.
    Modem,
    /// The first hop that is the provider's, if it answers.
    Isp,
}

/// An interface to probe from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// What kind of link it is; `None` is what the kernel says.
    pub kind: Option<InterfaceKind>,
    /// Whether the line that it leads to is a cable (DOCSIS); else that has to show.
    pub is_cable: bool,
    /// Whether its counters show everybody's traffic; `None` is to be found out.
    pub sees_household: Option<bool>,
    /// For policy routing: the address that is sent from.
    pub source: Option<IpAddr>,
    /// For policy routing: the mark that its packets carry.
    pub mark: Option<u32>,
    /// Bytes that tests and probes through it may move in 30 days; `None` is what `[throughput]` says,
    /// and no scheduled test where it is cellular.
    pub monthly_budget_bytes: Option<u64>,
    /// Where reflectors see TCP come from that leaves through it, if not from where UDP does.
    pub tcp_prefix: Option<Subnet>,
}

impl From<&str> for Uplink {
    /// The interface of this name, all else as it is found.
    fn from(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: None,
            is_cable: false,
            sees_household: None,
            source: None,
            mark: None,
            monthly_budget_bytes: None,
            tcp_prefix: None,
        }
    }
}

/// A target that is pinged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub place: Place,
    /// Which families.
    pub family: FamilyChoice,
    /// Length of a slot, ns.
    pub interval_ns: u64,
    /// Bytes of the ICMP message.
    pub size: u16,
    /// Further sizes that probes take in turn with the first; 0 stands for none.
    pub more_sizes: [u16; MORE_SIZES],
}

/// A stream of probes to a reflector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// DSCP, 0 to 63.
    pub dscp: u8,
    /// Bytes of UDP payload.
    pub size: u16,
    /// Length of a slot, ns.
    pub interval_ns: u64,
    /// Further sizes that probes take in turn with the first; 0 stands for none.
    pub more_sizes: [u16; MORE_SIZES],
}

/// A reflector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reflector {
    /// Its name.
    pub name: String,
    /// Its address or name.
    pub host: String,
    /// Its UDP port.
    pub port: u16,
    /// The key shared with it, in one place however often this is copied: once the last is dropped, it is
    /// nowhere any more.
    pub key: Arc<PresharedKey>,
    /// Which families.
    pub family: FamilyChoice,
    /// Its streams, the first one first.
    pub streams: Vec<Stream>,
    /// Where TCP comes from as it sees it, if not from where UDP does, through uplinks that say nothing of it.
    pub tcp_prefix: Option<Subnet>,
}

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Samples, ns; `None` for ever.
    pub samples_ns: Option<u64>,
    /// Rollups of a minute.
    pub minutes_ns: Option<u64>,
    /// Rollups of an hour.
    pub hours_ns: Option<u64>,
    /// Events, from their end on.
    pub events_ns: Option<u64>,
    /// Bytes of the file; `None` is the smaller of 2 GiB and a tenth of the file system.
    pub max_bytes: Option<u64>,
    /// Bytes that stay free on the file system.
    pub min_free_bytes: u64,
}

/// All of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The store.
    pub store: PathBuf,
    /// The control socket.
    pub control_socket: PathBuf,
    /// The most that a power cut can cost, ns.
    pub commit_interval_ns: u64,
    /// Whether there are close looks, quick echoes for some seconds, when something looks wrong.
    pub close_looks: bool,
    /// How the probe thread is scheduled.
    pub pacing: Pacing,
    /// The zone that decides what an evening is, by its name in the time zone database; `None` is
    /// the system's.
    pub timezone: Option<String>,
    /// Where the live page is served; `None` is nowhere.
    pub http: Option<SocketAddr>,
    /// Retention.
    pub keep: Keep,
    /// The interfaces to probe from; none is the default route's.
    pub interfaces: Vec<Uplink>,
    /// What is pinged; `None` where the file says nothing of targets, which means the defaults.
    pub targets: Option<Vec<Target>>,
    /// STAMP reflectors of others.
    pub stamps: Vec<StampTarget>,
    /// Services that are asked.
    pub services: Vec<ServiceTarget>,
    /// Reflectors.
    pub reflectors: Vec<Reflector>,
    /// Throughput tests.
    pub throughput: Throughput,
    /// What is told to whom.
    pub alerts: AlertsConfig,
    /// Where metrics are pushed.
    pub remote_write: Vec<RemoteConfig>,
}

/// How throughput tests go, and when they run by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Throughput {
    /// At most one test by itself in this time, ns; `None` is none at all, which holds without the
    /// section.
    pub every_ns: Option<u64>,
    /// How long streams run, s, 2 to 60.
    pub seconds: u64,
    /// TCP streams each way, 1 to 16.
    pub streams: u8,
    /// Congestion control of both ends.
    pub congestion: String,
    /// DSCP of both ends' streams and datagrams.
    pub dscp: u8,
    /// Rates of tests over UDP that run by themselves beside the others; `None` is none of them.
    pub udp: Option<UdpRates>,
    /// Bytes that tests and probes through an uplink may move in 30 days, where the uplink itself says
    /// nothing and is not cellular.
    pub monthly_budget_bytes: u64,
    /// No test by itself while the interface carries more than a little.
    pub skip_when_busy: bool,
    /// When packet trains are sent through an uplink: all the time, for at most 50 000 millionths of its rate each way; or
    /// only because of events, which holds with the section unless it is set.
    pub trains: When,
    /// When no test runs by itself, by the clock of the configured zone.
    pub quiet_hours: Vec<QuietHours>,
}

impl Default for Throughput {
    fn default() -> Self {
        Self {
            every_ns: None,
            seconds: 8,
            streams: 4,
            congestion: "cubic".into(),
            dscp: 0,
            udp: None,
            monthly_budget_bytes: 50 << 30,
            skip_when_busy: true,
            trains: When::Never,
            quiet_hours: Vec::new(),
        }
    }
}

impl Default for Config {
    /// What holds without a configuration file.
    fn default() -> Self {
        Self {
            store: DEFAULT_STORE.into(),
            control_socket: DEFAULT_SOCKET.into(),
            commit_interval_ns: 60 * SECOND_NS,
            close_looks: true,
            pacing: Pacing::default(),
            timezone: None,
            http: Some(DEFAULT_HTTP),
            keep: Keep {
                samples_ns: Some(30 * DAY_NS),
                minutes_ns: Some(400 * DAY_NS),
                hours_ns: None,
                events_ns: Some(1100 * DAY_NS),
                max_bytes: None,
                min_free_bytes: 100 << 20,
            },
            interfaces: Vec::new(),
            targets: None,
            stamps: Vec::new(),
            services: Vec::new(),
            reflectors: Vec::new(),
            throughput: Throughput::default(),
            alerts: AlertsConfig::default(),
            remote_write: Vec::new(),
        }
    }
}

impl Config {
    /// The zone that decides what an evening is.
    #[must_use]
    pub fn zone(&self) -> TimeZone {
        // A name that is not known was refused when it was read.
        let named = self.timezone.as_deref();
        named
            .and_then(|name| TimeZone::get(name).ok())
            .unwrap_or_else(TimeZone::system)
    }

    /// What may be moved through an interface in 30 days, bytes; `None` where it is cellular and nobody said how much.
    pub(crate) fn month_bytes(&self, interface: &str, is_cellular: bool) -> Option<u64> {
        let uplink = self.interfaces.iter().find(|i| i.name == interface);
        let general = (!is_cellular).then_some(self.throughput.monthly_budget_bytes);
        uplink.and_then(|i| i.monthly_budget_bytes).or(general)
    }
}

/// What was read: the configuration, and what deserves a word.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// One line each.
    pub warnings: Vec<Mistake>,
}

/// Reads the file at `path`.
///
/// # Errors
/// Every mistake in it, one line each.
pub fn load(path: &Path) -> Result<Loaded, Vec<String>> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| {
        vec![format!(
            "{name}: {e}; name another file with --config, or write this one"
        )]
    })?;
    let loaded = parse(&name, &text, path.parent().unwrap_or(Path::new("/")));
    wipe_stack();
    loaded.map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

/// Reads `text`, which stands in `file`; key files are looked for from `base`.
///
/// # Errors
/// Every mistake in it.
pub fn parse(file: &str, text: &str, base: &Path) -> Result<Loaded, Vec<Mistake>> {
    let doc = Document::parse(file, text);
    let config = read::read(&doc.root(), base);
    let warnings = doc.warnings();
    let mistakes = doc.mistakes();
    if mistakes.is_empty() {
        Ok(Loaded { config, warnings })
    } else {
        Err(mistakes)
    }
}

/// What is to be said of each interface that is named and is not there: it may come yet.
#[must_use]
pub fn missing_interfaces(config: &Config) -> Vec<String> {
    // Where nothing can be asked nothing can be said; the daemon itself will tell.
    let Ok(present) = Netlink::open().and_then(|mut n| n.interfaces()) else {
        return Vec::new();
    };
    let names: Vec<&str> = present.iter().map(|i| i.name.as_str()).collect();
    let missing = config
        .interfaces
        .iter()
        .filter(|u| !names.contains(&u.name.as_str()));
    missing
        .map(|u| {
            let meant = suggestion(&u.name, &names);
            format!(
                "\"{}\" is not there now{}{} It is probed as soon as it comes. This host has {}",
                u.name,
                meant,
                if meant.is_empty() { "." } else { "" },
                names.join(", ")
            )
        })
        .collect()
}

/// What is to be said of each program of a hook that cannot be run now.
#[must_use]
pub fn missing_programs(config: &Config) -> Vec<String> {
    crate::alerts::missing_programs(&config.alerts)
}

pub(crate) fn read_family(s: &Section<'_>) -> FamilyChoice {
    s.choice(
        "family",
        &[
            ("auto", FamilyChoice::Auto),
            ("4", FamilyChoice::V4),
            ("6", FamilyChoice::V6),
            ("both", FamilyChoice::Both),
        ],
    )
    .unwrap_or(FamilyChoice::Auto)
}

/// How long a probe with slots of `interval_ns` waits for its answer, ns.
#[must_use]
pub const fn timeout_ns(interval_ns: u64) -> u64 {
    // A slow series has room for more, but the recorder's hold-back bounds it.
    if interval_ns > 3 * SECOND_NS {
        3 * DEFAULT_TIMEOUT_NS
    } else {
        DEFAULT_TIMEOUT_NS
    }
}

#[cfg(test)]
mod tests;
