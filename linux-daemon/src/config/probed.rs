//! Reading what is probed: interfaces, targets, reflectors.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use bufferbane_config::{Section, check_host, keyfile, parse_size, parse_subnet, split_port};
use bufferbane_core::limits::{MAX_DATAGRAM, MAX_INTERVAL_NS, MIN_INTERVAL_NS, MIN_PROBE_SIZE};
use bufferbane_core::seal::wipe_stack;
use bufferbane_core::session::client::MORE_SIZES;
use bufferbane_core::stamp::Subnet;
use bufferbane_core::wire::load::{MIN_PREFIX_V4, MIN_PREFIX_V6};
use bufferbane_linux_io::MAX_PAYLOAD;
use bufferbane_linux_io::netlink::InterfaceKind;

use super::{DEFAULT_PORT, Place, Reflector, SECOND_NS, Stream, Target, Uplink, read_family};
use crate::scout::MODEM;

pub(super) fn read_interface(s: &Section<'_>, uplinks: &mut Vec<Uplink>) {
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
    let is_cable = s.choice("access", &[("auto", false), ("cable", true)]);
    let is_cable = is_cable.unwrap_or(false);
    if is_cable
        && let Some(kind @ (InterfaceKind::Cellular | InterfaceKind::Tunnel)) = kind.flatten()
    {
        let why = format!(
            "a line of kind \"{}\" is no cable; say it of the interface that the cable is at",
            kind.as_str()
        );
        s.mistake("access", why);
    }
    let source = s.parsed("source", |a| {
        a.parse::<IpAddr>().map_err(|_| {
            format!("\"{a}\" is not an address; name one of this interface, such as 192.0.2.7")
        })
    });
    let mark = s.number("fwmark", 1..=u64::from(u32::MAX));
    let monthly_budget_bytes = s.parsed("monthly_budget", parse_size);
    let tcp_prefix = read_tcp_prefix(s);
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
            is_cable,
            sees_household: sees_household.flatten(),
            source,
            mark: mark.map(|n| n as u32),
            monthly_budget_bytes,
            tcp_prefix,
        }),
    }
    s.finish();
}

pub(super) fn read_name(s: &Section<'_>, names: &mut Vec<String>) -> Option<String> {
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

pub(super) fn read_target(s: &Section<'_>, name: Option<String>) -> Option<Target> {
    s.parsed("kind", |k| match k {
        "icmp" => Ok(()),
        _ => Err(format!(
            "\"{k}\" is not known; icmp, dns, tcp, http and stamp are supported"
        )),
    });
    let place = s.parsed("address", |a| match a {
        "gateway" => Ok(Place::Gateway),
        "modem" => Ok(Place::Host(MODEM.to_string())),
        "isp" => Ok(Place::Isp),
        _ => check_host(a).map(Place::Host),
    });
    let interval = interval(s);
    let sizes = probe_sizes(s, ICMP_SIZES);
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
        size: sizes.map_or(64, |s| s[0]),
        more_sizes: sizes.map_or([0; MORE_SIZES], more),
    })
}

pub(super) fn interval(s: &Section<'_>) -> Option<u64> {
    s.duration_ns("interval", MIN_INTERVAL_NS..=MAX_INTERVAL_NS)
}

/// Bytes of an ICMP message; the largest fits 1500-byte links under IPv4.
const ICMP_SIZES: RangeInclusive<u64> = 24..=1472;
const _: () = assert!(*ICMP_SIZES.end() as usize <= MAX_PAYLOAD);

/// Bytes of UDP payload of probes to a reflector.
const UDP_SIZES: RangeInclusive<u64> = MIN_PROBE_SIZE as u64..=MAX_DATAGRAM as u64;

/// `size`, or `sizes` that are mixed, within `range`; 0 where there are fewer.
pub(crate) fn probe_sizes(
    s: &Section<'_>,
    range: RangeInclusive<u64>,
) -> Option<[u16; 1 + MORE_SIZES]> {
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
pub(crate) fn more(sizes: [u16; 1 + MORE_SIZES]) -> [u16; MORE_SIZES] {
    let [_, more @ ..] = sizes;
    more
}

/// Where TCP of throughput tests may come from.
fn read_tcp_prefix(s: &Section<'_>) -> Option<Subnet> {
    s.parsed("tcp_prefix", |text| {
        let subnet = parse_subnet(text)?;
        let widest = match subnet.address {
            IpAddr::V4(_) => MIN_PREFIX_V4,
            IpAddr::V6(_) => MIN_PREFIX_V6,
        };
        if subnet.prefix < widest {
            return Err(format!(
                "\"{text}\" is too wide; a reflector lets no more than a /{widest} connect"
            ));
        }
        Ok(subnet)
    })
}

pub(super) fn read_reflector(
    s: &Section<'_>,
    base: &Path,
    names: &mut Vec<String>,
) -> Option<Reflector> {
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
    let key = s.parsed("key_file", |f| keyfile::read(&base.join(f)).map(Arc::new));
    // What is laid out on the stack next is not all written to, and moves to memory that nobody wipes.
    wipe_stack();
    let sizes = probe_sizes(s, UDP_SIZES);
    let first = Stream {
        dscp: s.number("dscp", 0..=63).unwrap_or(0) as u8,
        size: sizes.map_or(MIN_PROBE_SIZE as u16, |s| s[0]),
        more_sizes: sizes.map_or([0; MORE_SIZES], more),
        interval_ns: interval(s).unwrap_or(50_000_000),
    };
    let family = read_family(s);
    let tcp_prefix = read_tcp_prefix(s);
    let mut streams = vec![first];
    for extra in s.sections("stream") {
        let sizes = probe_sizes(&extra, UDP_SIZES);
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
        tcp_prefix,
    })
}
