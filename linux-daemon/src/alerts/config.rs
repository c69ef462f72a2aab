//! `[alerts]`: from where on something is told, and to whom.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bufferbane_config::{Section, parse_duration, suggestion};
use bufferbane_core::detect::service::Limits;
use bufferbane_core::detect::{Kind, Thresholds};
use bufferbane_core::held::Limit;
use bufferbane_store::Severity;

use super::deliver::Endpoint;
use super::thresholds::{self, percent};
use crate::tls::Roots;
use crate::url::Url;

const MS: u64 = 1_000_000;
const S: u64 = 1000 * MS;
const HOUR: u64 = 3600 * S;
/// Events that no detector of the line tells.
const FACTS: [&str; 14] = [
    "store_full",
    "clock_step",
    "link_down",
    "link_up",
    "address_change",
    "config_reload",
    "samples_dropped",
    "host_overloaded",
    "reflector_lost",
    "reflector_back",
    "not_probed",
    "not_watched",
    "tcp_lost",
    "certificate_bad",
];

/// To whom alerts go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// A program and its arguments; the alert is on its standard input.
    Program(Vec<String>),
    /// An HTTP endpoint.
    Endpoint(Endpoint),
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(p) => write!(f, "the program {}", p.first().map_or("", |p| p)),
            Self::Endpoint(e) => write!(f, "{e}"),
        }
    }
}

/// `[[alerts.hook]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HookConfig {
    pub(crate) to: To,
    /// Kinds of events; none are all.
    pub(crate) kinds: Vec<String>,
    /// Less severe ones are not told.
    pub(crate) least: Severity,
    /// The same trouble is told at most once in this time, ns.
    pub(crate) every_ns: u64,
}

impl HookConfig {
    pub(crate) fn wants(&self, kind: &str, severity: Severity) -> bool {
        severity >= self.least && (self.kinds.is_empty() || self.kinds.iter().any(|k| k == kind))
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AlertsConfig {
    pub(crate) thresholds: Thresholds,
    /// When losses of a connection that is held are trouble.
    pub(crate) held: Limit,
    /// When what services answer is.
    pub(crate) services: Limits,
    pub(crate) hooks: Vec<HookConfig>,
}

/// What is to be said of each program of a hook that cannot be run now: it may come yet.
pub(crate) fn missing_programs(config: &AlertsConfig) -> Vec<String> {
    let programs = config.hooks.iter().filter_map(|h| match &h.to {
        To::Program(p) => p.first(),
        To::Endpoint(_) => None,
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    programs
        .filter_map(|name| {
            // A name without a slash is looked for as a shell does.
            let places: Vec<PathBuf> = if name.contains('/') {
                vec![name.into()]
            } else {
                std::env::split_paths(&path)
                    .map(|dir| dir.join(name))
                    .collect()
            };
            let modes = places.iter().filter_map(|p| std::fs::metadata(p).ok());
            let files: Vec<u32> = modes
                .filter(|m| m.is_file())
                .map(|m| m.permissions().mode())
                .collect();
            match &files[..] {
                [] => Some(format!(
                    "\"{name}\" is not there now, so that nobody is told"
                )),
                modes if modes.iter().any(|mode| mode & 0o111 != 0) => None,
                _ => Some(format!(
                    "\"{name}\" may not be run; chmod +x makes it a program"
                )),
            }
        })
        .collect()
}

/// Reads the section; `base` is where files of certificates are looked for.
pub(crate) fn read(s: &Section<'_>, base: &Path) -> AlertsConfig {
    let mut config = AlertsConfig {
        thresholds: thresholds::read(s),
        ..AlertsConfig::default()
    };
    if let Some(n) = s.number("tcp_unstable", 2..=Limit::MOST_DROPS.into()) {
        config.held.drops = n as u32;
    }
    if let Some(ns) = s.duration_ns("tcp_unstable_within", 10 * S..=24 * HOUR) {
        config.held.within_ns = ns;
    }
    read_services(s, &mut config);
    let hooks = s.sections("hook");
    config.hooks = hooks.iter().filter_map(|h| read_hook(h, base)).collect();
    s.finish();
    config
}

/// What services have of their own; connections that do not open are counted as those that are held and lost.
fn read_services(s: &Section<'_>, config: &mut AlertsConfig) {
    let limits = &mut config.services;
    if let Some(ns) = s.duration_ns("dns_slow", MS..=4 * S) {
        limits.dns_slow_ns = ns;
    }
    if let Some(share) = s.parsed("dns_failing", |text| percent(text, 1.0, 50.0)) {
        limits.dns_failing = share;
    }
    if let Some(ns) = s.duration_ns("tcp_slow", MS..=4 * S) {
        limits.tcp_slow_ns = ns;
    }
    limits.drops = config.held;
    limits.hold_down_ns = config.thresholds.hold_down_ns;
}

fn read_hook(s: &Section<'_>, base: &Path) -> Option<HookConfig> {
    let program = s.texts("program");
    let url = s.parsed("url", |u| Url::parse(u, "http://192.168.1.5:8080/alerts"));
    let roots = Roots::of(s, base, url.as_ref().map(|u| u.secure));
    let endpoint = url.map(|url| Endpoint { url, roots });
    let to = match (s.has("program"), s.has("url")) {
        (true, true) => {
            s.mistake(
                "url",
                "a hook has a program or a url, not both; write two hooks",
            );
            None
        }
        (false, false) => {
            s.mistake(
                "",
                "a hook needs program = [\"/path/to/it\"] or url = \"https://...\"",
            );
            None
        }
        _ => program.map(To::Program).or(endpoint.map(To::Endpoint)),
    };
    if let Some(To::Program(p)) = &to
        && p.first().is_none_or(String::is_empty)
    {
        s.mistake(
            "program",
            "is empty; write for example [\"/usr/local/bin/tell-me\"]",
        );
    }
    let kinds = s.texts("kinds").unwrap_or_default();
    let known: Vec<&str> = Kind::ALL.iter().map(|k| k.as_str()).chain(FACTS).collect();
    for kind in kinds.iter().filter(|k| !known.contains(&k.as_str())) {
        let meant = suggestion(kind, &known);
        let there = if meant.is_empty() {
            "; there are"
        } else {
            " There are"
        };
        let text = format!(
            "\"{kind}\" is no kind of event{meant}{there} {}",
            known.join(", ")
        );
        s.mistake("kinds", text);
    }
    let severities = [
        ("info", Severity::Info),
        ("warning", Severity::Warning),
        ("critical", Severity::Critical),
    ];
    let least = s.choice("severity", &severities);
    let every = s.parsed("every", |text| {
        parse_duration(text).and_then(|ns| match ns {
            0..=86_400_000_000_000 => Ok(ns),
            _ => Err(format!("\"{text}\" is too long; 24h is the most")),
        })
    });
    s.finish();
    Some(HookConfig {
        to: to?,
        kinds,
        least: least.unwrap_or(Severity::Warning),
        every_ns: every.unwrap_or(300 * S),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(text: &str) -> Result<AlertsConfig, Vec<String>> {
        crate::config::parse("f.toml", text, Path::new("/"))
            .map(|l| l.config.alerts)
            .map_err(|m| m.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn thresholds_and_hooks_are_read() {
        let a = parse(
            "[alerts]\npacket_loss = \"2%\"\nbufferbloat = \"50ms\"\nloss_burst = 6\n\
             tcp_unstable = 3\ntcp_unstable_within = \"1h\"\nhold_down = \"1m\"\n\
             dns_slow = \"80ms\"\ndns_failing = \"20%\"\ntcp_slow = \"1s\"\n\
             [[alerts.hook]]\nprogram = [\"/bin/tell\", \"-x\"]\nseverity = \"critical\"\n\
             [[alerts.hook]]\nurl = \"http://10.0.0.2/a\"\n\
             kinds = [\"outage\", \"link_down\", \"tcp_unstable\", \"tcp_lost\", \"dns_slow\"]\n\
             every = \"1m\"\n",
        )
        .unwrap();
        assert_eq!(a.thresholds.loss, 0.02);
        let held = Limit {
            drops: 3,
            within_ns: HOUR,
        };
        assert_eq!(a.held, held);
        let services = Limits {
            dns_slow_ns: 80 * MS,
            dns_failing: 0.2,
            tcp_slow_ns: S,
            drops: held,
            hold_down_ns: 60 * S,
        };
        assert_eq!(a.services, services);
        let [program, endpoint] = &a.hooks[..] else {
            panic!("{a:?}")
        };
        assert!(program.wants("packet_loss", Severity::Critical));
        assert!(!program.wants("packet_loss", Severity::Warning));
        assert!(endpoint.wants("link_down", Severity::Warning));
        assert!(!endpoint.wants("packet_loss", Severity::Critical));
        assert_eq!(endpoint.every_ns, 60 * S);
        assert_eq!(endpoint.to.to_string(), "10.0.0.2:80");
        assert_eq!(parse("").unwrap(), AlertsConfig::default());
    }

    #[test]
    fn programs_that_cannot_be_run_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("plain");
        std::fs::write(&plain, "x").unwrap();
        let plain = plain.display().to_string();
        let text = |program: &str| format!("[[alerts.hook]]\nprogram = [\"{program}\", \"-x\"]\n");
        let programs = [
            "/bin/sh",
            "sh",
            "/nowhere/tell",
            "nowhere-tell",
            &plain,
            "/tmp",
        ];
        let config = parse(&programs.map(text).concat()).unwrap();
        let said = missing_programs(&config);
        assert_eq!(said.len(), 4, "{said:?}");
        let named = ["/nowhere/tell", "nowhere-tell", &plain, "/tmp"];
        for (said, named) in said.iter().zip(named) {
            assert!(said.starts_with(&format!("\"{named}\" ")), "{said}");
        }
        assert!(said[2].contains("chmod +x"));
    }

    #[test]
    fn every_kind_that_a_hook_may_name_is_documented() {
        let page = include_str!("../../../docs/events.md");
        for kind in Kind::ALL.iter().map(|k| k.as_str()).chain(FACTS) {
            let is_there = page.contains(&format!("`{kind}`"));
            assert!(is_there, "docs/events.md says nothing of {kind}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let said = parse(
            "[alerts]\npacket_loss = \"2\"\nlatency_spik = \"5ms\"\n[[alerts.hook]]\n\
             kinds = [\"outtage\"]\n[[alerts.hook]]\nurl = \"a.example\"\n",
        )
        .unwrap_err();
        for (n, what) in [
            "f.toml:2:1: alerts.packet_loss: \"2\" is not a percentage",
            "f.toml:3:1: alerts.latency_spik: unknown key, did you mean \"latency_spike\"?",
            "a hook needs program",
            "did you mean \"outage\"?",
            "\"a.example\" is no URL",
        ]
        .iter()
        .enumerate()
        {
            assert!(said.iter().any(|s| s.contains(what)), "{n} {said:#?}");
        }
        assert_eq!(said.len(), 5, "{said:#?}");
    }
}
