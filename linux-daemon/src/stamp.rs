//! Targets of kind `stamp`: reflectors of RFC 8762 that others run.

use std::cmp::Ordering;
use std::path::Path;
use std::sync::Arc;

use bufferbane_config::{Section, check_host, split_port, stampkey};
use bufferbane_core::limits::{MAX_DATAGRAM, MAX_INTERVAL_NS, MIN_INTERVAL_NS};
use bufferbane_core::schedule::MORE_SIZES;
use bufferbane_core::stamp::Counting;
use bufferbane_core::wire::stamp::{Format, Key, PORT, base_len};

use crate::config::probed::{more, probe_sizes};
use crate::config::{FamilyChoice, read_family};

/// A STAMP reflector that is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StampTarget {
    /// Its name.
    pub name: String,
    /// Its address or name.
    pub host: String,
    /// Its UDP port.
    pub port: u16,
    /// Which families.
    pub family: FamilyChoice,
    /// How it is probed.
    pub probe: StampProbe,
}

/// How a STAMP reflector is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StampProbe {
    /// The key of the authenticated mode.
    pub key: Option<Arc<Key>>,
    /// How our timestamps are written.
    pub format: Format,
    /// Whether it numbers its replies by itself.
    pub counting: Counting,
    /// DSCP, 0 to 63.
    pub dscp: u8,
    /// Bytes of UDP payload.
    pub size: u16,
    /// Further sizes that probes take in turn with the first; 0 stands for none.
    pub more_sizes: [u16; MORE_SIZES],
    /// Length of a slot, ns.
    pub interval_ns: u64,
}

impl PartialOrd for StampProbe {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for StampProbe {
    fn cmp(&self, other: &Self) -> Ordering {
        let parts = |p: &Self| {
            (
                p.format,
                p.counting,
                p.dscp,
                p.size,
                p.more_sizes,
                p.interval_ns,
            )
        };
        let key = |p: &Self| p.key.as_ref().map(|k| k.ordinal());
        parts(self)
            .cmp(&parts(other))
            .then_with(|| match self.key == other.key {
                true => Ordering::Equal,
                false => key(self).cmp(&key(other)),
            })
    }
}

/// Reads what stands beside `name` and `kind`.
pub(crate) fn read(s: &Section<'_>, base: &Path, name: Option<String>) -> Option<StampTarget> {
    let address = s.parsed("address", |a| {
        let (host, port) = split_port(a, PORT)?;
        Ok((check_host(host)?, port))
    });
    s.require(
        "address",
        "the reflector's address is to be named, with a port where it is not 862",
    );
    let key = s.text("key_file").map(|f| stampkey::read(&base.join(f)));
    let key = match key {
        None => Ok(None),
        Some(Ok(key)) => Ok(Some(key)),
        Some(Err(why)) => {
            s.mistake("key_file", why);
            Err(())
        }
    };
    let counting = s.choice(
        "mode",
        &[
            ("auto", Counting::Auto),
            ("stateful", Counting::Stateful),
            ("stateless", Counting::Stateless),
        ],
    );
    let format = s.choice("timestamps", &[("ntp", Format::Ntp), ("ptp", Format::Ptp)]);
    let dscp = s.number("dscp", 0..=63);
    let least = base_len(key.as_ref().ok().and_then(Option::as_ref)) as u64;
    let sizes = probe_sizes(s, least..=MAX_DATAGRAM as u64);
    let interval_ns = s.duration_ns("interval", MIN_INTERVAL_NS..=MAX_INTERVAL_NS);
    let family = read_family(s);
    s.finish();
    let (host, port) = address?;
    Some(StampTarget {
        name: name?,
        host,
        port,
        family,
        probe: StampProbe {
            key: key.ok()?.map(Arc::new),
            format: format.unwrap_or_default(),
            counting: counting.unwrap_or_default(),
            dscp: dscp.unwrap_or(0) as u8,
            size: sizes.map_or(least as u16, |s| s[0]),
            more_sizes: sizes.map_or([0; MORE_SIZES], more),
            interval_ns: interval_ns.unwrap_or(1_000_000_000),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_stamp_target_is_read_with_its_defaults_and_its_mistakes_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s.key");
        std::fs::write(&file, "0b".repeat(20)).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let text = "[[target]]\nname = \"a\"\nkind = \"stamp\"\naddress = \"192.0.2.1\"\n\
                    [[target]]\nname = \"b\"\nkind = \"stamp\"\naddress = \"[2001:db8::1]:8620\"\n\
                    key_file = \"s.key\"\nmode = \"stateful\"\ntimestamps = \"ptp\"\ndscp = 46\n\
                    interval = \"100ms\"\nsizes = [200, 1400]\n";
        let config = parse("f", text, dir.path()).unwrap().config;
        assert_eq!(config.targets, Some(Vec::new()));
        let [a, b] = &config.stamps[..] else { panic!() };
        assert_eq!(
            (a.port, a.probe.size, a.probe.key.is_none()),
            (862, 44, true)
        );
        assert_eq!((b.port, b.probe.size, b.probe.dscp), (8620, 200, 46));
        assert_eq!(b.probe.more_sizes, [1400, 0, 0]);
        assert_eq!(b.probe.counting, Counting::Stateful);
        assert_eq!(b.probe.format, Format::Ptp);

        let text = "[[target]]\nname = \"a\"\nkind = \"stamp\"\naddress = \"h:0\"\nsize = 43\n\
                    key_file = \"none\"\nmode = \"statefull\"\n";
        let said: Vec<String> = parse("f", text, dir.path())
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect();
        for what in [
            "not a port",
            "44 to 1452",
            "key file",
            "did you mean \"stateful\"",
        ] {
            assert!(said.iter().any(|s| s.contains(what)), "{what}: {said:#?}");
        }
    }
}
