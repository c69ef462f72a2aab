//! The daemon's configuration.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use bufferbane_config::{Document, Mistake, Section, keyfile, parse_size};
use bufferbane_core::limits::{
    DEFAULT_TIMEOUT_NS, MAX_DATAGRAM, MAX_INTERVAL_NS, MIN_INTERVAL_NS, MIN_PROBE_SIZE,
};
use bufferbane_core::seal::PresharedKey;
use bufferbane_core::session::client::MORE_SIZES;
use bufferbane_linux_io::netlink::InterfaceKind;

use crate::alerts::AlertsConfig;
use crate::pacing::{MAX_PRIORITY, MAX_WAKE_EARLY_NS, Pacing};
use crate::scout::MODEM;
use crate::stamp::{self, StampTarget};

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
    /// Whether its counters show everybody's traffic; `None` is to be found out.
    pub sees_household: Option<bool>,
    /// For policy routing: the address that is sent from.
    pub source: Option<IpAddr>,
    /// For policy routing: the mark that its packets carry.
    pub mark: Option<u32>,
}

impl From<&str> for Uplink {
    /// The interface of this name, all else as it is found.
    fn from(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: None,
            sees_household: None,
            source: None,
            mark: None,
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
    /// The key shared with it.
    pub key: PresharedKey,
    /// Which families.
    pub family: FamilyChoice,
    /// Its streams, the first one first.
    pub streams: Vec<Stream>,
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
    /// What is pinged; `None` where nothing is configured at all, which means the defaults.
    pub targets: Option<Vec<Target>>,
    /// STAMP reflectors of others.
    pub stamps: Vec<StampTarget>,
    /// Reflectors.
    pub reflectors: Vec<Reflector>,
    /// Throughput tests.
    pub throughput: Throughput,
    /// What is told to whom.
    pub alerts: AlertsConfig,
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
    /// DSCP of both ends' streams.
    pub dscp: u8,
    /// Bytes that scheduled tests may move in 30 days.
    pub monthly_budget_bytes: u64,
    /// No test by itself while the interface carries more than a little.
    pub skip_when_busy: bool,
}

impl Default for Throughput {
    fn default() -> Self {
        Self {
            every_ns: None,
            seconds: 8,
            streams: 4,
            congestion: "cubic".into(),
            dscp: 0,
            monthly_budget_bytes: 50 << 30,
            skip_when_busy: true,
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
            pacing: Pacing::default(),
            timezone: None,
            http: Some(DEFAULT_HTTP),
            keep: Keep {
                samples_ns: Some(30 * DAY_NS),
                minutes_ns: Some(400 * DAY_NS),
                hours_ns: None,
                max_bytes: None,
                min_free_bytes: 100 << 20,
            },
            interfaces: Vec::new(),
            targets: None,
            stamps: Vec::new(),
            reflectors: Vec::new(),
            throughput: Throughput::default(),
            alerts: AlertsConfig::default(),
        }
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
    parse(&name, &text, path.parent().unwrap_or(Path::new("/")))
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

/// Reads `text`, which stands in `file`; key files are looked for from `base`.
///
/// # Errors
/// Every mistake in it.
pub fn parse(file: &str, text: &str, base: &Path) -> Result<Loaded, Vec<Mistake>> {
    let doc = Document::parse(file, text);
    let config = read(&doc.root(), base);
    let warnings = doc.warnings();
    let mistakes = doc.mistakes();
    if mistakes.is_empty() {
        Ok(Loaded { config, warnings })
    } else {
        Err(mistakes)
    }
}

fn read(root: &Section<'_>, base: &Path) -> Config {
    let mut config = Config::default();
    let daemon = root.section("daemon");
    if let Some(path) = daemon.text("store") {
        config.store = path.into();
    }
    if let Some(path) = daemon.text("control_socket") {
        config.control_socket = path.into();
    }
    if let Some(ns) = daemon.duration_ns("commit_interval", SECOND_NS..=3600 * SECOND_NS) {
        config.commit_interval_ns = ns;
    }
    config.pacing = read_pacing(&daemon);
    config.timezone = daemon.parsed("timezone", timezone).flatten();
    daemon.finish();
    read_retention(&root.section("retention"), &mut config.keep);
    read_http(&root.section("http"), &mut config.http);
    for i in root.sections("interface") {
        read_interface(&i, &mut config.interfaces);
    }
    let targets = root.sections("target");
    let reflectors = root.sections("reflector");
    let mut names = Vec::new();
    if !targets.is_empty() || !reflectors.is_empty() {
        let mut pinged = Vec::new();
        for t in &targets {
            let name = read_name(t, &mut names);
            if t.text("kind").is_some_and(|k| k == "stamp") {
                config.stamps.extend(stamp::read(t, base, name));
            } else {
                pinged.extend(read_target(t, name));
            }
        }
        config.targets = Some(pinged);
    }
    config.reflectors = reflectors
        .iter()
        .filter_map(|r| read_reflector(r, base, &mut names))
        .collect();
    config.throughput = read_throughput(&root.section("throughput"));
    config.alerts = crate::alerts::read(&root.section("alerts"));
    root.finish();
    config
}

fn read_throughput(s: &Section<'_>) -> Throughput {
    let default = Throughput::default();
    let every = s.parsed("every", |text| match text {
        "never" => Ok(None),
        _ => bufferbane_config::parse_duration(text).and_then(|ns| match ns {
            0..60_000_000_000 => Err(format!("\"{text}\" is too often; 1m is the least")),
            _ => Ok(Some(ns)),
        }),
    });
    let hourly = s.is_present().then_some(3600 * SECOND_NS);
    let throughput = Throughput {
        every_ns: every.unwrap_or(hourly),
        seconds: s.number("seconds", 2..=60).unwrap_or(default.seconds),
        streams: s
            .number("streams", 1..=16)
            .map_or(default.streams, |n| n as u8),
        congestion: s
            .parsed("congestion", |name| {
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                if (1..=15).contains(&name.len()) && name.chars().all(plain) {
                    Ok(name.to_owned())
                } else {
                    Err(format!(
                        "\"{name}\" is not the name of a congestion control; write for example \
                         cubic"
                    ))
                }
            })
            .unwrap_or(default.congestion),
        dscp: s.number("dscp", 0..=63).map_or(default.dscp, |n| n as u8),
        monthly_budget_bytes: s
            .parsed("monthly_budget", parse_size)
            .unwrap_or(default.monthly_budget_bytes),
        skip_when_busy: s.flag("skip_when_busy").unwrap_or(default.skip_when_busy),
    };
    s.finish();
    throughput
}

fn read_pacing(daemon: &Section<'_>) -> Pacing {
    Pacing {
        priority: daemon
            .number("realtime_priority", 0..=MAX_PRIORITY.into())
            .unwrap_or(0) as u8,
        cpu: daemon.number("cpu", 0..=1023).map(|n| n as u16),
        wake_early_ns: daemon
            .duration_ns("wake_early", 0..=MAX_WAKE_EARLY_NS)
            .unwrap_or(0),
    }
}

/// A name of the time zone database, or `None` for the system's zone.
fn timezone(name: &str) -> Result<Option<String>, String> {
    if name == "auto" {
        return Ok(None);
    }
    let zones = jiff::tz::db();
    if zones.get(name).is_ok() {
        return Ok(Some(name.to_owned()));
    }
    let known: Vec<String> = zones.available().map(|z| z.to_string()).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let meant = bufferbane_config::suggestion(name, &known);
    let meant = if meant.is_empty() {
        ";".into()
    } else {
        format!("{meant} Otherwise")
    };
    Err(format!(
        "\"{name}\" is not a time zone{meant} write \"auto\" for the system's, or a name such as \
         \"Europe/Vienna\""
    ))
}

fn read_retention(s: &Section<'_>, keep: &mut Keep) {
    let age = |key| {
        s.parsed(key, |text| match text {
            "forever" => Ok(None),
            _ => bufferbane_config::parse_duration(text).and_then(|ns| match ns {
                0..3_600_000_000_000 => Err(format!("\"{text}\" is too short; 1h is the least")),
                _ => Ok(Some(ns)),
            }),
        })
    };
    if let Some(v) = age("samples") {
        keep.samples_ns = v;
    }
    if let Some(v) = age("rollups_1m") {
        keep.minutes_ns = v;
    }
    if let Some(v) = age("rollups_1h") {
        keep.hours_ns = v;
    }
    let size = s.parsed("max_size", |text| match text {
        "auto" => Ok(None),
        _ => parse_size(text).and_then(|bytes| match bytes {
            0..8_388_608 => Err(format!("\"{text}\" is too small; 8MiB is the least")),
            _ => Ok(Some(bytes)),
        }),
    });
    if let Some(v) = size {
        keep.max_bytes = v;
    }
    if let Some(v) = s.parsed("min_free", parse_size) {
        keep.min_free_bytes = v;
    }
    s.finish();
}

fn read_http(s: &Section<'_>, http: &mut Option<SocketAddr>) {
    // Unlike other texts this one may be empty.
    match s.texts("listen").as_deref() {
        None => {}
        Some([text]) if text.is_empty() => *http = None,
        Some([text]) => match text.parse::<SocketAddr>() {
            Ok(listen) => {
                if !listen.ip().is_loopback() {
                    s.warning(
                        "listen",
                        "whoever reaches this address can read what is measured; there is no password",
                    );
                }
                *http = Some(listen);
            }
            Err(_) => s.mistake(
                "listen",
                format!(
                    "\"{text}\" is no address with a port; write for example \"127.0.0.1:9816\", or \
                     \"\" for no page"
                ),
            ),
        },
        Some(_) => s.mistake("listen", "takes one address"),
    }
    s.finish();
}

fn read_interface(s: &Section<'_>, uplinks: &mut Vec<Uplink>) {
    let kind = s.choice(
        "kind",
        &[
            ("auto", None),
            ("wired", Some(InterfaceKind::Wired)),
            ("wifi", Some(InterfaceKind::Wifi)),
            ("cellular", Some(InterfaceKind::Cellular)),
            ("ppp", Some(InterfaceKind::Ppp)),
            ("tunnel", Some(InterfaceKind::Tunnel)),
        ],
    );
    let sees_household = s.choice(
        "sees_household",
        &[("auto", None), ("yes", Some(true)), ("no", Some(false))],
    );
    let source = s.parsed("source", |a| {
        a.parse::<IpAddr>().map_err(|_| {
            format!("\"{a}\" is not an address; name one of this interface, such as 192.0.2.7")
        })
    });
    let mark = s.number("fwmark", 1..=u64::from(u32::MAX));
    match s.text("name") {
        None => s.require("name", "which interface is meant, such as \"eth0\""),
        Some(n) if n.len() > 15 || n.contains(['/', ' ']) => {
            s.mistake("name", format!("\"{n}\" cannot be an interface's name"));
        }
        Some(n) if uplinks.iter().any(|u| u.name == n) => {
            s.mistake("name", format!("\"{n}\" is there twice"));
        }
        Some(name) => uplinks.push(Uplink {
            name,
            kind: kind.flatten(),
            sees_household: sees_household.flatten(),
            source,
            mark: mark.map(|n| n as u32),
        }),
    }
    s.finish();
}

fn read_name(s: &Section<'_>, names: &mut Vec<String>) -> Option<String> {
    let Some(name) = s.text("name") else {
        s.require("name", "every target and reflector needs one of its own");
        return None;
    };
    let ok = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.len() > 40 || !name.chars().all(ok) {
        s.mistake("name", "may have at most 40 letters, digits, and - _ .");
        return None;
    }
    if names.contains(&name) {
        s.mistake("name", format!("\"{name}\" is there twice"));
        return None;
    }
    names.push(name.clone());
    Some(name)
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

/// A host name or address, as far as that can be told without asking anybody.
pub(crate) fn check_host(text: &str) -> Result<String, String> {
    let wrong = |why: &str| {
        Err(format!(
            "\"{text}\" is not an address or host name: {why}; write for example 9.9.9.9"
        ))
    };
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    if text.is_empty() || text.len() > 253 {
        return wrong("too short or too long");
    }
    if text.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return wrong("not four numbers of 0 to 255");
    }
    if text.contains(':') {
        return wrong("not a valid IPv6 address");
    }
    if !text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
    {
        return wrong("a character that names cannot have");
    }
    Ok(text.to_owned())
}

fn read_target(s: &Section<'_>, name: Option<String>) -> Option<Target> {
    s.parsed("kind", |k| match k {
        "icmp" => Ok(()),
        "dns" | "tcp" | "http" => Err(format!(
            "\"{k}\" is not supported by this version yet; icmp and stamp are"
        )),
        _ => Err(format!(
            "\"{k}\" is not known; icmp and stamp are supported"
        )),
    });
    let place = s.parsed("address", |a| match a {
        "gateway" => Ok(Place::Gateway),
        "modem" => Ok(Place::Host(MODEM.to_string())),
        "isp" => Ok(Place::Isp),
        _ => check_host(a).map(Place::Host),
    });
    let interval = interval(s);
    let size = s.number("size", 24..=1472).unwrap_or(64) as u16;
    let family = read_family(s);
    s.finish();
    s.require(
        "address",
        "an address, a host name, \"gateway\", \"modem\" or \"isp\" is to be named",
    );
    s.require("kind", "write kind = \"icmp\"");
    Some(Target {
        name: name?,
        place: place?,
        family,
        interval_ns: interval.unwrap_or(SECOND_NS),
        size,
    })
}

fn interval(s: &Section<'_>) -> Option<u64> {
    s.duration_ns("interval", MIN_INTERVAL_NS..=MAX_INTERVAL_NS)
}

/// `size`, or `sizes` that are mixed; 0 where there are fewer.
fn probe_sizes(s: &Section<'_>) -> Option<[u16; 1 + MORE_SIZES]> {
    let range = MIN_PROBE_SIZE as u64..=MAX_DATAGRAM as u64;
    let one = s.number("size", range.clone()).map(|n| n as u16);
    let several = s.numbers("sizes", range);
    match (one, several) {
        (Some(_), Some(_)) => {
            s.mistake("sizes", "stands beside size; write only one of them");
            None
        }
        (None, Some(list)) if !(1..=1 + MORE_SIZES).contains(&list.len()) => {
            s.mistake("sizes", format!("needs 1 to {} sizes", 1 + MORE_SIZES));
            None
        }
        (one, several) => {
            let mut sizes = [0; 1 + MORE_SIZES];
            let list = several.unwrap_or_default().into_iter().map(|n| n as u16);
            let mut any = false;
            for (place, size) in sizes.iter_mut().zip(list.chain(one)) {
                *place = size;
                any = true;
            }
            any.then_some(sizes)
        }
    }
}

/// All sizes but the first.
fn more(sizes: [u16; 1 + MORE_SIZES]) -> [u16; MORE_SIZES] {
    let [_, more @ ..] = sizes;
    more
}

fn read_reflector(s: &Section<'_>, base: &Path, names: &mut Vec<String>) -> Option<Reflector> {
    let name = read_name(s, names);
    let address = s.parsed("address", |a| {
        let (host, port) = split_port(a, DEFAULT_PORT)?;
        Ok((check_host(host)?, port))
    });
    s.require(
        "address",
        "the reflector's address and port are to be named",
    );
    s.require("key_file", "bbtool keygen makes a key file");
    let key = s.parsed("key_file", |f| keyfile::read(&base.join(f)));
    let sizes = probe_sizes(s);
    let first = Stream {
        dscp: s.number("dscp", 0..=63).unwrap_or(0) as u8,
        size: sizes.map_or(MIN_PROBE_SIZE as u16, |s| s[0]),
        more_sizes: sizes.map_or([0; MORE_SIZES], more),
        interval_ns: interval(s).unwrap_or(50_000_000),
    };
    let family = read_family(s);
    let mut streams = vec![first];
    for extra in s.sections("stream") {
        let sizes = probe_sizes(&extra);
        streams.push(Stream {
            dscp: extra.number("dscp", 0..=63).unwrap_or(0) as u8,
            size: sizes.map_or(first.size, |s| s[0]),
            more_sizes: sizes.map_or([0; MORE_SIZES], more),
            interval_ns: interval(&extra).unwrap_or(first.interval_ns),
        });
        extra.finish();
    }
    if streams.len() > bufferbane_core::session::reflector::STREAMS_PER_SESSION {
        s.mistake(
            "stream",
            "there are too many; a reflector takes 8 streams in all",
        );
    }
    s.finish();
    let (host, port) = address?;
    Some(Reflector {
        name: name?,
        host,
        port,
        key: key?,
        family,
        streams,
    })
}

/// `host`, `host:port`, `[v6]:port` or a bare IPv6 address.
pub(crate) fn split_port(text: &str, default: u16) -> Result<(&str, u16), String> {
    let port = |p: &str| {
        p.parse::<u16>()
            .ok()
            .filter(|p| *p > 0)
            .ok_or_else(|| format!("\"{p}\" is not a port; 1 to 65535 is allowed"))
    };
    if let Some((host, rest)) = text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        return Ok((host, rest.strip_prefix(':').map_or(Ok(default), port)?));
    }
    match text.split_once(':') {
        Some((host, p)) if !p.contains(':') => Ok((host, port(p)?)),
        _ => Ok((text, default)),
    }
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
mod tests {
    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        parse("f.toml", text, Path::new("/nowhere"))
            .map(|l| assert!(l.warnings.is_empty()))
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(
            parse("f", "", Path::new("/")).unwrap().config,
            Config::default()
        );
    }

    #[test]
    fn the_probe_threads_scheduling_is_read_and_bounded() {
        let text = "[daemon]\nrealtime_priority = 20\ncpu = 1\nwake_early = \"150us\"\n";
        let pacing = parse("f", text, Path::new("/")).unwrap().config.pacing;
        assert_eq!(
            (pacing.priority, pacing.cpu, pacing.wake_early_ns),
            (20, Some(1), 150_000)
        );
        let said = mistakes("[daemon]\nrealtime_priority = 99\nwake_early = \"1s\"\n");
        assert!(said[0].contains("0 to 50 is allowed"), "{said:?}");
        assert!(said[1].contains("0s to 2ms is allowed"), "{said:?}");
    }

    #[test]
    fn everything_wrong_is_said_with_its_place() {
        let said = mistakes(
            "[daemon]\ncommit_intervall = \"60s\"\n[[target]]\nname = \"a\"\nkind = \"icmp\"\n\
             address = \"9.9.9.900\"\ninterval = \"0s\"\n[[target]]\nname = \"a\"\nkind = \"dns\"\n\
             address = \"9.9.9.9\"\n[[reflector]]\nname = \"v\"\naddress = \"h:0\"\n\
             key_file = \"missing.key\"\nsize = 5\n",
        );
        for (line, what) in [
            (
                "f.toml:2:1: daemon.commit_intervall",
                "did you mean \"commit_interval\"?",
            ),
            ("f.toml:6:1: target.address", "not four numbers"),
            ("f.toml:7:1: target.interval", "1ms to 1h is allowed"),
            ("f.toml:9:1: target.name", "twice"),
            (
                "f.toml:10:1: target.kind",
                "not supported by this version yet",
            ),
            ("f.toml:14:1: reflector.address", "not a port"),
            ("f.toml:15:1: reflector.key_file", "bbtool keygen"),
            ("f.toml:16:1: reflector.size", "128 to 1452"),
        ] {
            assert!(
                said.iter().any(|s| s.starts_with(line) && s.contains(what)),
                "{what}: {said:#?}"
            );
        }
    }

    #[test]
    fn tests_run_by_themselves_only_where_the_section_is_there() {
        let read = |text| parse("f", text, Path::new("/")).unwrap().config.throughput;
        assert_eq!(read(""), Throughput::default());
        assert_eq!(read("").every_ns, None);
        assert_eq!(read("[throughput]\n").every_ns, Some(3600 * SECOND_NS));
        let t = read(
            "[throughput]\nevery = \"6h\"\nseconds = 10\nstreams = 8\ncongestion = \"bbr\"\n\
             dscp = 8\nmonthly_budget = \"1GiB\"\nskip_when_busy = false\n",
        );
        let wanted = Throughput {
            every_ns: Some(6 * 3600 * SECOND_NS),
            seconds: 10,
            streams: 8,
            congestion: "bbr".into(),
            dscp: 8,
            monthly_budget_bytes: 1 << 30,
            skip_when_busy: false,
        };
        assert_eq!(t, wanted);
        assert_eq!(read("[throughput]\nevery = \"never\"\n").every_ns, None);
        let wrong = "[throughput]\nevery = \"1s\"\nseconds = 1\ncongestion = \"a b\"\ndscp = 64\n";
        assert_eq!(parse("f", wrong, Path::new("/")).unwrap_err().len(), 4);
    }

    #[test]
    fn an_interface_may_say_how_it_is_routed_and_what_it_is() {
        let text = "[[interface]]\nname = \"lte\"\nkind = \"cellular\"\nsees_household = \"no\"\n\
                    source = \"192.0.2.7\"\nfwmark = 0x10\n[[interface]]\nname = \"eth0\"\n";
        let interfaces = parse("f", text, Path::new("/")).unwrap().config.interfaces;
        let lte = Uplink {
            kind: Some(InterfaceKind::Cellular),
            sees_household: Some(false),
            source: Some("192.0.2.7".parse().unwrap()),
            mark: Some(16),
            ..Uplink::from("lte")
        };
        assert_eq!(interfaces, [lte, Uplink::from("eth0")]);
        let said = mistakes("[[interface]]\nname = \"a\"\nsource = \"eth0\"\nfwmark = 0\n");
        assert!(said[0].starts_with("f.toml:3:1: interface.source: \"eth0\" is not an address"));
        assert!(said[1].starts_with("f.toml:4:1: interface.fwmark: 0 is out of range"));
    }

    #[test]
    fn the_live_page_stays_on_this_host_unless_told_otherwise() {
        let read = |text: &str| parse("f", text, Path::new("/"));
        assert_eq!(read("").unwrap().config.http, Some(DEFAULT_HTTP));
        let off = read("[http]\nlisten = \"\"\n").unwrap();
        assert_eq!((off.config.http, off.warnings.len()), (None, 0));
        let open = read("[http]\nlisten = \"0.0.0.0:80\"\n").unwrap();
        assert_eq!(open.config.http, Some(([0, 0, 0, 0], 80).into()));
        assert_eq!(open.warnings.len(), 1);
        assert!(read("[http]\nlisten = \"localhost\"\n").is_err());
    }

    #[test]
    fn addresses_come_with_and_without_ports() {
        assert_eq!(
            split_port("a.example:5", DEFAULT_PORT),
            Ok(("a.example", 5))
        );
        assert_eq!(
            split_port("2001:db8::1", DEFAULT_PORT),
            Ok(("2001:db8::1", 9876))
        );
        assert_eq!(
            split_port("[2001:db8::1]:7", DEFAULT_PORT),
            Ok(("2001:db8::1", 7))
        );
        assert!(split_port("h:99999", DEFAULT_PORT).is_err());
    }
}
