//! The reflector's configuration.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use bufferbane_config::{
    Document, Mistake, Section, keyfile, parse_address, parse_rate, parse_size, parse_subnet,
};
use bufferbane_core::seal::{PresharedKey, wipe_stack};
use bufferbane_core::stamp::Subnet;

use crate::stamp::{self, StampConfig};

/// Where the reflector looks for its configuration.
pub const DEFAULT_FILE: &str = "/etc/bufferbane/reflector.toml";
/// Where its control socket is by default.
pub const DEFAULT_SOCKET: &str = "/run/bufferbane-reflector/control.sock";
/// Its UDP port by default.
pub const DEFAULT_PORT: u16 = 9876;

/// Most sockets of one reflector.
pub const MAX_LISTEN: usize = 16;

/// What it may take up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions of all clients together, 1 to 65535.
    pub sessions: u16,
    /// Sessions of one key at a time.
    pub sessions_per_client: u16,
    /// Datagrams per second that do not open, from everybody together; what more there is goes
    /// unopened, but for what comes from where a session's client is.
    pub failed_opens_per_second: u32,
    /// Throughput tests at a time, 0 to 16; 0 switches them off.
    pub concurrent_tests: u8,
    /// TCP streams of one test, both directions together, 1 to 32.
    pub test_streams: u8,
}

/// Failed opens per second by default: some hundredths of one CPU, and enough that a client which
/// knocks amid a flood is heard.
pub const DEFAULT_FAILED_OPENS: u32 = 50_000;

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: 64,
            sessions_per_client: 16,
            failed_opens_per_second: DEFAULT_FAILED_OPENS,
            concurrent_tests: 1,
            test_streams: 32,
        }
    }
}

/// Somebody who may measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its name.
    pub name: String,
    /// Its keys: one, or the new and the old one.
    pub keys: Vec<PresharedKey>,
    /// Packets per second in each of its sessions.
    pub max_pps: u32,
    /// How fast its tests may be in each direction, bit/s; `None` is any rate.
    pub max_rate_bps: Option<u64>,
    /// How many bytes its tests may move in 24 hours, both directions together; `None` is any
    /// number.
    pub daily_bytes: Option<u64>,
    /// From where its TCP may come as well, 8 at most: a carrier's NAT may give it other addresses than UDP.
    pub tcp_prefixes: Vec<Subnet>,
}

/// Most prefixes that a client's TCP may come from.
const MAX_TCP_PREFIXES: usize = 8;
/// Packets per second in each session of a client by default.
pub const DEFAULT_MAX_PPS: u32 = 1000;

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where probes are received.
    pub listen: Vec<SocketAddr>,
    /// Whether `listen` was written down. By default IPv6 may be missing.
    pub listen_is_default: bool,
    /// Where statistics are asked for; `None` is nowhere.
    pub control_socket: Option<PathBuf>,
    /// Whether echoes tell when the kernel let earlier ones go, which takes the reflector's own time out
    /// of round trips. Without, the time until an echo was handed over is all that is known; each costs
    /// about a fifth less.
    pub transmit_stamps: bool,
    /// Limits.
    pub limits: Limits,
    /// Clients.
    pub clients: Vec<Client>,
    /// Who is answered by STAMP; `None` is nobody.
    pub stamp: Option<StampConfig>,
}

impl Default for Config {
    /// What an empty file means: listening, and answering nobody.
    fn default() -> Self {
        Self {
            listen: vec![
                (Ipv4Addr::UNSPECIFIED, DEFAULT_PORT).into(),
                (Ipv6Addr::UNSPECIFIED, DEFAULT_PORT).into(),
            ],
            listen_is_default: true,
            control_socket: Some(DEFAULT_SOCKET.into()),
            transmit_stamps: true,
            limits: Limits::default(),
            clients: Vec::new(),
            stamp: None,
        }
    }
}

/// What was read: the configuration, and what deserves a word.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// One line each.
    pub warnings: Vec<String>,
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
    let lines = |list: Vec<Mistake>| list.iter().map(ToString::to_string).collect();
    parse(&name, &text, path.parent().unwrap_or(Path::new("/")))
        .map(|(config, warnings)| Loaded {
            config,
            warnings: lines(warnings),
        })
        .map_err(lines)
}

/// Where the reflector that runs with the file at `path` answers questions about itself. Reads
/// nothing else of it, so that those can ask who may not read its keys.
#[must_use]
pub fn control_socket(path: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let doc = Document::parse("", &text);
    read_control_socket(&doc.root().section("reflector"))
}

/// Reads `text`, which stands in `file`; key files are looked for from `base`.
fn parse(file: &str, text: &str, base: &Path) -> Result<(Config, Vec<Mistake>), Vec<Mistake>> {
    let doc = Document::parse(file, text);
    let config = read(&doc.root(), base);
    let warnings = doc.warnings();
    let mistakes = doc.mistakes();
    if mistakes.is_empty() {
        Ok((config, warnings))
    } else {
        Err(mistakes)
    }
}

fn read(root: &Section<'_>, base: &Path) -> Config {
    let mut config = Config::default();
    let reflector = root.section("reflector");
    if let Some(listen) = reflector.texts("listen") {
        config.listen_is_default = false;
        config.listen = read_listen(&reflector, &listen);
    }
    config.control_socket = read_control_socket(&reflector);
    if let Some(on) = reflector.flag("transmit_stamps") {
        config.transmit_stamps = on;
    }
    reflector.finish();
    read_limits(&root.section("limits"), &mut config.limits);
    for client in root.sections("client") {
        if let Some(client) = read_client(&client, base, &config.clients) {
            config.clients.push(client);
        }
    }
    config.stamp = stamp::read(&root.section("stamp"), base);
    root.finish();
    config
}

fn read_listen(s: &Section<'_>, texts: &[String]) -> Vec<SocketAddr> {
    let mut listen = Vec::new();
    if texts.is_empty() || texts.len() > MAX_LISTEN {
        s.mistake("listen", format!("needs 1 to {MAX_LISTEN} addresses"));
    }
    for text in texts {
        match parse_address(text, DEFAULT_PORT) {
            // Port 0, any free one, is for tests.
            Ok(address) if listen.contains(&address) && address.port() != 0 => {
                s.mistake("listen", format!("\"{text}\" is there twice"));
            }
            Ok(address) => listen.push(address),
            Err(why) => s.mistake("listen", why),
        }
    }
    listen
}

/// An empty text is no socket.
fn read_control_socket(s: &Section<'_>) -> Option<PathBuf> {
    let path = s.parsed("control_socket", |path| Ok(path.to_owned()));
    let path = path.unwrap_or_else(|| DEFAULT_SOCKET.into());
    (!path.is_empty()).then(|| path.into())
}

fn read_limits(s: &Section<'_>, limits: &mut Limits) {
    if let Some(n) = s.number("sessions", 1..=65_535) {
        limits.sessions = n as u16;
    }
    if let Some(n) = s.number("sessions_per_client", 1..=65_535) {
        limits.sessions_per_client = n as u16;
    }
    if let Some(n) = s.number("failed_opens_per_second", 1..=10_000_000) {
        limits.failed_opens_per_second = n as u32;
    }
    if let Some(n) = s.number("concurrent_tests", 0..=16) {
        limits.concurrent_tests = n as u8;
    }
    if let Some(n) = s.number("test_streams", 1..=32) {
        limits.test_streams = n as u8;
    }
    s.finish();
}

fn read_client(s: &Section<'_>, base: &Path, others: &[Client]) -> Option<Client> {
    let name = s.text("name");
    match &name {
        None => s.require("name", "every client needs one"),
        Some(n) if others.iter().any(|o| o.name == *n) => {
            s.mistake("name", format!("\"{n}\" is there twice"));
        }
        Some(_) => {}
    }
    let (one, several) = (s.text("key_file"), s.texts("key_files"));
    let (key, files) = match (one, several) {
        (Some(_), Some(_)) => {
            s.mistake(
                "key_files",
                "stands beside key_file; write only one of them",
            );
            ("key_files", Vec::new())
        }
        (Some(one), None) => ("key_file", vec![one]),
        (None, Some(several)) => ("key_files", several),
        (None, None) => ("key_file", Vec::new()),
    };
    if files.is_empty() || files.len() > 2 {
        s.mistake(
            key,
            "one key file is needed, or two while one replaces the other; \
             bbtool keygen makes one",
        );
    }
    let keys = read_keys(s, key, &files, base, others);
    // What is read of the file from here on is laid out where the keys were on the stack, and takes along what it does not
    // write to, into memory that nobody wipes.
    wipe_stack();
    let max_pps = s.number("max_pps", 1..=1_000_000);
    let max_rate_bps = s.parsed("max_rate", parse_rate);
    let daily_bytes = s.parsed("daily_bytes", parse_size);
    let tcp_prefixes = read_tcp_prefixes(s);
    s.finish();
    Some(Client {
        name: name?,
        keys,
        max_pps: max_pps.unwrap_or(DEFAULT_MAX_PPS.into()) as u32,
        max_rate_bps,
        daily_bytes,
        tcp_prefixes,
    })
}

fn read_tcp_prefixes(s: &Section<'_>) -> Vec<Subnet> {
    let texts = s.texts("tcp_prefixes").unwrap_or_default();
    if texts.len() > MAX_TCP_PREFIXES {
        s.mistake("tcp_prefixes", format!("no more than {MAX_TCP_PREFIXES}"));
    }
    let read = texts.iter().filter_map(|text| match parse_subnet(text) {
        Ok(net) => Some(net),
        Err(why) => {
            s.mistake("tcp_prefixes", why);
            None
        }
    });
    read.collect()
}

/// The keys in `files`, which are told to be wrong under the name `key`.
#[inline(never)]
fn read_keys(
    s: &Section<'_>,
    key: &str,
    files: &[String],
    base: &Path,
    others: &[Client],
) -> Vec<PresharedKey> {
    let mut keys: Vec<PresharedKey> = Vec::with_capacity(files.len());
    for file in files {
        match keyfile::read(&base.join(file)) {
            Ok(k) => {
                let used = others.iter().flat_map(|o| &o.keys).chain(&keys);
                if used.clone().any(|u| u.id == k.id) {
                    s.mistake(key, "the same key is there twice; every client has its own");
                } else {
                    keys.push(k);
                }
            }
            Err(why) => s.mistake(key, why),
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use bufferbane_core::seal::{KeyId, Secret};

    fn key(dir: &Path, name: &str, n: u8) -> PresharedKey {
        let key = PresharedKey {
            id: KeyId([n; 8]),
            secret: Secret::new([n; 32]),
        };
        keyfile::write_new(&dir.join(name), &key).unwrap();
        key
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        let (config, warnings) = parse("f", "", Path::new("/")).unwrap();
        assert_eq!((config, warnings), (Config::default(), Vec::new()));
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (key(dir.path(), "a.key", 1), key(dir.path(), "b.key", 2));
        let text = "[reflector]\nlisten = [\"127.0.0.1:7\", \"[::1]\"]\ncontrol_socket = \"\"\n\
                    transmit_stamps = false\n[limits]\nsessions = 5\n\
                    [[client]]\nname = \"home\"\nkey_files = [\"a.key\", \"b.key\"]\nmax_pps = 50\n\
                    daily_bytes = \"20GiB\"\nmax_rate = \"100Mbit\"\n\
                    tcp_prefixes = [\"100.64.0.0/10\", \"2001:db8::/32\"]\n";
        let (config, warnings) = parse("f", text, dir.path()).unwrap();
        assert_eq!(
            config.listen,
            [
                "127.0.0.1:7".parse().unwrap(),
                "[::1]:9876".parse().unwrap()
            ]
        );
        assert_eq!(config.control_socket, None);
        assert!(!config.transmit_stamps && Config::default().transmit_stamps);
        assert_eq!(config.limits.sessions, 5);
        assert_eq!(config.clients.len(), 1);
        assert_eq!(config.clients[0].keys, [a, b]);
        assert_eq!(config.clients[0].max_pps, 50);
        assert_eq!(config.clients[0].max_rate_bps, Some(100_000_000));
        assert_eq!(config.clients[0].daily_bytes, Some(20 << 30));
        let prefixes = config.clients[0].tcp_prefixes.iter().map(|p| p.prefix);
        assert_eq!(prefixes.collect::<Vec<_>>(), [10, 32]);
        assert_eq!(config.limits.concurrent_tests, 1);
        assert_eq!(warnings, []);
    }

    #[test]
    fn everything_wrong_is_said_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        key(dir.path(), "a.key", 1);
        let text = "[reflector]\nlisten = [\"localhost\", \"1.2.3.4:7\", \"1.2.3.4:7\"]\n\
                    [limits]\nsession = 5\nsessions_per_client = 0\n\
                    [[client]]\nname = \"home\"\nkey_file = \"a.key\"\n\
                    [[client]]\nname = \"home\"\nkey_file = \"a.key\"\nmax_rate = \"fast\"\n\
                    [[client]]\nname = \"c\"\nkey_file = \"none.key\"\n\
                    [[client]]\nkey_file = \"x\"\nkey_files = [\"a.key\"]\n";
        let said = parse("f.toml", text, dir.path()).unwrap_err();
        let said: Vec<String> = said.iter().map(ToString::to_string).collect();
        for (place, what) in [
            (
                "f.toml:2:1: reflector.listen",
                "\"localhost\" is not an address",
            ),
            (
                "f.toml:2:1: reflector.listen",
                "\"1.2.3.4:7\" is there twice",
            ),
            ("f.toml:4:1: limits.session", "did you mean \"sessions\"?"),
            (
                "f.toml:5:1: limits.sessions_per_client",
                "1 to 65535 is allowed",
            ),
            ("f.toml:10:1: client.name", "twice"),
            ("f.toml:11:1: client.key_file", "same key"),
            ("f.toml:12:1: client.max_rate", "100Mbit"),
            ("f.toml:15:1: client.key_file", "bbtool keygen"),
            ("f.toml:16:1: client.name", "every client needs one"),
            ("f.toml:18:1: client.key_files", "only one of them"),
        ] {
            assert!(
                said.iter()
                    .any(|s| s.starts_with(place) && s.contains(what)),
                "{place} {what} not in {said:#?}"
            );
        }
    }

    #[test]
    fn limits_are_taken_up_to_their_edges_and_no_further() {
        let dir = tempfile::tempdir().unwrap();
        key(dir.path(), "a.key", 1);
        let read = |limits: &str, client: &str| {
            let text = format!(
                "[limits]\n{limits}\n[[client]]\nname = \"a\"\nkey_file = \"a.key\"\n{client}\n"
            );
            parse("f", &text, dir.path()).map(|(config, _)| config)
        };
        type Read = fn(&Config) -> u64;
        let of_all: [(&str, u64, u64, Read); 5] = [
            ("sessions", 1, 65_535, |c| c.limits.sessions.into()),
            ("sessions_per_client", 1, 65_535, |c| {
                c.limits.sessions_per_client.into()
            }),
            ("failed_opens_per_second", 1, 10_000_000, |c| {
                c.limits.failed_opens_per_second.into()
            }),
            ("concurrent_tests", 0, 16, |c| {
                c.limits.concurrent_tests.into()
            }),
            ("test_streams", 1, 32, |c| c.limits.test_streams.into()),
        ];
        for (name, least, most, of) in of_all {
            for edge in [least, most] {
                let config = read(&format!("{name} = {edge}"), "").unwrap();
                assert_eq!(of(&config), edge, "{name}");
            }
            for beyond in [least as i64 - 1, most as i64 + 1] {
                assert!(read(&format!("{name} = {beyond}"), "").is_err(), "{name}");
            }
        }
        for (line, taken) in [
            ("max_pps = 0", None),
            ("max_pps = 1", Some(1)),
            ("max_pps = 1000000", Some(1_000_000)),
            ("max_pps = 1000001", None),
        ] {
            let pps = read("", line).ok().map(|c| c.clients[0].max_pps);
            assert_eq!(pps, taken, "{line}");
        }
        for (line, taken) in [
            ("0Mbit", None),
            ("1bit", Some(1)),
            ("5000000000bit", Some(5_000_000_000)),
            ("18446744073Gbit", Some(18_446_744_073_000_000_000)),
            ("18446744074Gbit", None),
            ("-1Mbit", None),
        ] {
            let rate = read("", &format!("max_rate = \"{line}\""));
            let rate = rate.ok().map(|c| c.clients[0].max_rate_bps.unwrap());
            assert_eq!(rate, taken, "{line}");
        }
    }

    #[test]
    fn who_may_not_read_keys_still_finds_the_control_socket() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("r.toml");
        let text = "[reflector]\ncontrol_socket = \"/x/y\"\n[[client]]\nkey_file = \"none\"\n";
        std::fs::write(&file, text).unwrap();
        assert_eq!(control_socket(&file), Some("/x/y".into()));
        assert_eq!(
            control_socket(&dir.path().join("none")),
            Some(DEFAULT_SOCKET.into())
        );
    }
}
