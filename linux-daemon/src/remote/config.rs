//! `[[remote_write]]`: receivers, and how they are spoken to.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bufferbane_config::{Section, parse_size};
use ureq::http::{HeaderName, HeaderValue, Uri};

use crate::tls::Roots;

const SECOND_NS: u64 = 1_000_000_000;
const CHECKSUM: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
/// Labels that samples have by themselves.
pub(super) const TAKEN: [&str; 12] = [
    "interface",
    "target",
    "kind",
    "family",
    "dscp",
    "size",
    "direction",
    "le",
    "version",
    "reason",
    "receiver",
    "outcome",
];
/// What may wait, bytes: each batch is a file, and a directory of a hundred thousand opens slowly.
const QUEUE: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 30;
/// Headers that the protocol needs.
const OURS: [&str; 7] = [
    "authorization",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "user-agent",
    "x-prometheus-remote-write-version",
];

/// Which protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// 2.0 where the receiver takes it, else 1.0.
    Auto,
    /// 1.0 only.
    V1,
    /// 2.0 only.
    V2,
}

/// How histograms are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Histograms {
    /// A sample for each bucket, as on `/metrics`.
    Classic,
    /// One native histogram.
    Native,
    /// Both.
    Both,
}

impl Histograms {
    pub(super) const fn classic(self) -> bool {
        matches!(self, Self::Classic | Self::Both)
    }

    pub(super) const fn native(self) -> bool {
        matches!(self, Self::Native | Self::Both)
    }
}

/// How the daemon shows who it is. Secrets are read again each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// It does not.
    None,
    /// By the token in this file.
    Bearer(PathBuf),
    /// By a name and the password in this file.
    Basic(String, PathBuf),
}

/// How a receiver is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Which protocol.
    pub protocol: Protocol,
    /// How histograms are told.
    pub histograms: Histograms,
    /// Whose certificate it may have.
    pub roots: Roots,
    /// Who it is told we are.
    pub credentials: Credentials,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// Labels of each sample, beside its own.
    pub labels: Vec<(String, String)>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteConfig {
    /// Where batches are posted.
    pub url: String,
    /// Between two batches, ns.
    pub interval_ns: u64,
    /// The most that waits for the receiver, bytes on disk.
    pub queue_max_bytes: u64,
    /// Whether a wall clock will do of which the kernel does not say that it is synchronised.
    pub any_clock: bool,
    /// How it is spoken to.
    pub setup: Setup,
}

impl RemoteConfig {
    /// What it is called: its url, with a checksum in place of a query, which may be secret.
    pub(super) fn name(&self) -> String {
        name_of(&self.url)
    }

    /// The name of its queue's directory: readable, and another one for each url.
    pub(super) fn queue_name(&self) -> String {
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        };
        let bare = without_query(&self.url);
        let (_, rest) = bare.split_once("://").unwrap_or_default();
        let name: String = rest.chars().map(plain).take(60).collect();
        format!("{name}-{:08x}", CHECKSUM.checksum(self.url.as_bytes()))
    }
}

/// Reads one of the sections; `base` is where the files of secrets are looked for.
pub(crate) fn read(s: &Section<'_>, base: &Path, before: &[RemoteConfig]) -> Option<RemoteConfig> {
    let url = s.parsed("url", |url| {
        check_url(url)?;
        match before.iter().any(|r| r.name() == name_of(url)) {
            true => Err(format!("\"{}\" is there twice", name_of(url))),
            false => Ok(url.to_owned()),
        }
    });
    s.require(
        "url",
        "write for example url = \"http://192.168.1.5:9090/api/v1/write\"",
    );
    let interval_ns = s.duration_ns("interval", SECOND_NS..=3600 * SECOND_NS);
    let queue_max = s.parsed("queue_max", |text| match parse_size(text)? {
        bytes if QUEUE.contains(&bytes) => Ok(bytes),
        _ => Err(format!(
            "\"{text}\" is out of range; 1MiB to 1GiB is allowed"
        )),
    });
    let any_clock = s.choice("clock", &[("synchronised", false), ("any", true)]);
    let protocols = [
        ("auto", Protocol::Auto),
        ("1.0", Protocol::V1),
        ("2.0", Protocol::V2),
    ];
    let histograms = [
        ("classic", Histograms::Classic),
        ("native", Histograms::Native),
        ("both", Histograms::Both),
    ];
    let setup = Setup {
        protocol: s.choice("protocol", &protocols).unwrap_or(Protocol::Auto),
        histograms: s
            .choice("histograms", &histograms)
            .unwrap_or(Histograms::Classic),
        roots: Roots::of(s, base, url.as_ref().map(|u| u.starts_with("https:"))),
        credentials: read_credentials(s, base),
        headers: read_headers(s),
        labels: read_labels(s),
    };
    s.finish();
    Some(RemoteConfig {
        url: url?,
        interval_ns: interval_ns.unwrap_or(15 * SECOND_NS),
        queue_max_bytes: queue_max.unwrap_or(64 << 20),
        any_clock: any_clock.unwrap_or(false),
        setup,
    })
}

fn without_query(url: &str) -> &str {
    url.split_once('?').map_or(url, |(bare, _)| bare)
}

/// One for each url: two tenants of one server may differ by the query alone.
fn name_of(url: &str) -> String {
    match url.split_once('?') {
        None => url.to_owned(),
        Some((bare, _)) => format!("{bare}?{:08x}", CHECKSUM.checksum(url.as_bytes())),
    }
}

/// A url as it may be shown to everybody: without a query, a name and a password.
fn shown(url: &str) -> String {
    let bare = without_query(url);
    let (scheme, rest) = match bare.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), bare),
    };
    // A password may hold a slash that was not escaped.
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    scheme + rest
}

fn check_url(url: &str) -> Result<(), String> {
    let wrong = |why: &str| {
        Err(format!(
            "\"{}\" {why}; write for example \"http://192.168.1.5:9090/api/v1/write\"",
            shown(url)
        ))
    };
    let Ok(uri) = url.parse::<Uri>() else {
        return wrong("is no URL");
    };
    match uri.authority() {
        Some(a) if a.as_str().contains('@') => {
            wrong("has a name in it; username and password_file are for that")
        }
        Some(a) if matches!(uri.scheme_str(), Some("http" | "https")) && !a.host().is_empty() => {
            Ok(())
        }
        _ => wrong("is no URL of a receiver"),
    }
}

/// A file with a secret, which not everybody may read.
pub(super) fn secret(path: &Path) -> Result<String, String> {
    let name = path.display();
    let meta = std::fs::metadata(path).map_err(|e| format!("{name}: {e}"))?;
    if meta.mode() & 0o007 != 0 {
        let said = bufferbane_config::open_to_all(path, meta.mode());
        return Err(format!("{name}: {said}"));
    }
    let text = std::fs::read_to_string(path).map_err(|e| format!("{name}: {e}"))?;
    let text = text.trim();
    if text.is_empty() || text.contains(char::is_control) {
        return Err(format!("{name}: is not one line of text"));
    }
    Ok(text.to_owned())
}

fn read_credentials(s: &Section<'_>, base: &Path) -> Credentials {
    let file = |key| {
        s.parsed(key, |name| {
            let path = base.join(name);
            secret(&path).map(|_| path)
        })
    };
    let (token, name, password) = (
        file("bearer_token_file"),
        s.text("username"),
        file("password_file"),
    );
    let basic = s.has("username") || s.has("password_file");
    if basic {
        s.require("username", "password_file goes with it");
        s.require("password_file", "username goes with it");
    }
    if basic && s.has("bearer_token_file") {
        s.mistake(
            "bearer_token_file",
            "stands beside username and password_file; write only one way",
        );
    }
    if name.as_ref().is_some_and(|n| n.contains(':')) {
        s.mistake("username", "must not contain a colon");
    }
    match (token, name, password) {
        (Some(token), ..) => Credentials::Bearer(token),
        (None, Some(name), Some(password)) => Credentials::Basic(name, password),
        _ => Credentials::None,
    }
}

fn read_headers(s: &Section<'_>) -> Vec<(String, String)> {
    let headers = s.texts_by_name("headers").unwrap_or_default();
    for (name, value) in &headers {
        let lower = name.to_ascii_lowercase();
        if OURS.contains(&lower.as_str()) {
            s.mistake("headers", format!("{name} is not to be set by hand"));
        } else if name.parse::<HeaderName>().is_err() || value.parse::<HeaderValue>().is_err() {
            s.mistake("headers", format!("\"{name}\" and its value are no header"));
        }
    }
    headers
}

fn read_labels(s: &Section<'_>) -> Vec<(String, String)> {
    let mut labels = s.texts_by_name("labels").unwrap_or_default();
    for (name, _) in &labels {
        let ok = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_name = name.chars().all(ok) && !name.starts_with(|c: char| c.is_ascii_digit());
        if name.is_empty() || !is_name || name.starts_with("__") {
            s.mistake(
                "labels",
                format!("\"{name}\" is no label's name; letters, digits and _ are allowed"),
            );
        } else if TAKEN.contains(&name.as_str()) {
            s.mistake(
                "labels",
                format!("\"{name}\" is a label that samples have by themselves; take another name"),
            );
        }
    }
    let host = crate::alerts::host_name();
    for (name, value) in [("job", "bufferbane"), ("instance", host.as_str())] {
        if !labels.iter().any(|(n, _)| n == name) {
            labels.push((name.into(), value.into()));
        }
    }
    // What is empty counts as not there.
    labels.retain(|(_, value)| !value.is_empty());
    labels
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn parse(dir: &Path, text: &str) -> Result<Vec<RemoteConfig>, Vec<String>> {
        crate::config::parse("f.toml", text, dir)
            .map(|l| l.config.remote_write)
            .map_err(|m| m.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn receivers_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        std::fs::write(&token, "s3cret\n").unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
        let ca = crate::tls::testing::Authority::new().pem();
        std::fs::write(dir.path().join("ca.pem"), ca).unwrap();
        let read = parse(
            dir.path(),
            "[[remote_write]]\nurl = \"http://a.example/api/v1/write\"\n\
             [[remote_write]]\nurl = \"https://[::1]:9/w?x=1\"\nca = \"ca.pem\"\ninterval = \"1m\"\n\
             queue_max = \"2MiB\"\nclock = \"any\"\nprotocol = \"2.0\"\nhistograms = \"native\"\n\
             bearer_token_file = \"token\"\nheaders = { X-Scope-OrgID = \"home\" }\n\
             labels = { site = \"vienna\", instance = \"r1\" }\n",
        )
        .unwrap();
        let [plain, full] = &read[..] else {
            panic!("{read:?}")
        };
        assert_eq!(plain.interval_ns, 15 * SECOND_NS);
        assert_eq!(plain.setup.credentials, Credentials::None);
        assert_eq!(plain.setup.roots, Roots::Public);
        assert!(matches!(&full.setup.roots, Roots::Own(all) if all.len() == 1));
        assert!(
            plain
                .setup
                .labels
                .contains(&("job".into(), "bufferbane".into()))
        );
        assert_eq!(full.queue_max_bytes, 2 << 20);
        assert!(full.any_clock && !plain.any_clock);
        assert_eq!(full.setup.credentials, Credentials::Bearer(token.clone()));
        assert_eq!(secret(&token).unwrap(), "s3cret");
        for label in [
            ("site", "vienna"),
            ("instance", "r1"),
            ("job", "bufferbane"),
        ] {
            let label = (label.0.to_owned(), label.1.to_owned());
            assert!(full.setup.labels.contains(&label), "{label:?}");
        }
        assert_ne!(plain.queue_name(), full.queue_name());
        assert!(plain.queue_name().starts_with("a.example-api-v1-write-"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("open"), "x").unwrap();
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(dir.path().join("open"), open).unwrap();
        let one = "[[remote_write]]\nurl = \"http://a/\"\n";
        for (text, what) in [
            ("intervall = \"1s\"", "did you mean \"interval\"?"),
            ("interval = \"500ms\"", "1s to 1h is allowed"),
            ("queue_max = \"1KiB\"", "1MiB to 1GiB is allowed"),
            ("queue_max = \"2GiB\"", "1MiB to 1GiB is allowed"),
            ("labels = { outcome = \"x\" }", "by themselves"),
            ("labels = { le = \"x\" }", "by themselves"),
            ("labels = { \"a-b\" = \"x\" }", "no label's name"),
            ("labels = \"x\"", "must be a table of texts"),
            ("headers = { Content-Type = \"x\" }", "by hand"),
            ("headers = { \"a b\" = \"x\" }", "no header"),
            ("bearer_token_file = \"open\"", "every user may read it"),
            ("bearer_token_file = \"missing\"", "No such file"),
            ("username = \"x\"", "password_file: is missing"),
            ("[[remote_write]]\nurl = \"http://a/\"", "twice"),
            (
                "[[remote_write]]\nurl = \"ftp://a/\"",
                "no URL of a receiver",
            ),
            ("ca = \"open\"", "for https:// only"),
            (
                "[[remote_write]]\nurl = \"https://a/\"\nca = \"open\"",
                "open: holds no certificate",
            ),
            ("[[remote_write]]\nurl = \"http://u:p@a/\"", "password_file"),
            ("[[remote_write]]\nurl = \"a.example\"", "no URL"),
            ("[[remote_write]]\ninterval = \"1s\"", "url: is missing"),
        ] {
            let said = parse(dir.path(), &format!("{one}{text}\n")).expect_err(text);
            assert!(said.iter().any(|s| s.contains(what)), "{text}: {said:#?}");
        }
    }

    #[test]
    fn receivers_that_differ_by_the_query_are_two() {
        let dir = tempfile::tempdir().unwrap();
        let urls = [
            "http://a/w",
            "http://a/w?tenant=s3cret",
            "http://a/w?tenant=b",
        ];
        let text = urls.map(|url| format!("[[remote_write]]\nurl = \"{url}\"\n"));
        let read = parse(dir.path(), &text.concat()).unwrap();
        let [plain, first, second] = &read[..] else {
            panic!("{read:?}")
        };
        assert_eq!(plain.name(), "http://a/w");
        assert!(first.name().starts_with("http://a/w?"), "{}", first.name());
        for (one, other) in [(plain, first), (first, second), (plain, second)] {
            assert_ne!(one.name(), other.name());
            assert_ne!(one.queue_name(), other.queue_name());
        }
        let names = first.name() + &first.queue_name();
        assert!(!names.contains("s3cret"), "{names}");
    }

    #[test]
    fn secrets_are_not_said() {
        let dir = tempfile::tempdir().unwrap();
        for (text, part) in [
            (
                "url = \"ftp://user:s3c/ret@a.example/w\"",
                "ftp://a.example/w",
            ),
            (
                "url = \"https://user:s3cret@a.example/w?key=s3cret\"",
                "https://a.example/w",
            ),
            ("url = \"a.example?key=s3cret\"", "a.example"),
            (
                "url = \"http://a/\"\nheaders = { X-Key = \"s3c\\u0001ret\" }",
                "X-Key",
            ),
        ] {
            let said = parse(dir.path(), &format!("[[remote_write]]\n{text}\n")).expect_err(text);
            let said = said.join("\n");
            assert!(said.contains(part), "{said}");
            assert!(!said.contains("s3c") && !said.contains("ret@"), "{said}");
        }
    }
}
