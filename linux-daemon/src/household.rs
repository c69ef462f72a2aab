//! Watches what each uplink carries: reads its counters ten times a second, and hears from core what
//! these and the probes say of load and capacity.

use std::collections::{BTreeMap, HashMap};

use bufferbane_core::clock::Queueing;
use bufferbane_core::household::{Estimate, Household, Minute, Second, Seen};
use bufferbane_core::sample::{Sample, SeriesIndex, Status};
use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::netlink::{InterfaceKind, Netlink};
use bufferbane_store::SeriesInfo;

use crate::metrics::Reading;
use crate::radio::Radios;
use crate::status::LoadStatus;

/// Between two readings of counters, ns.
const READ_NS: u64 = 90_000_000;
/// Between two looks for interfaces that came or went, and for forwarded packets, ns.
const LOOK_NS: u64 = 5_000_000_000;
/// The same while one is missing, ns.
const MISSING_NS: u64 = 1_000_000_000;
/// What was carried longer ago than this is not carried now, ns.
const STALE_NS: u64 = 3_000_000_000;
/// A host that has forwarded so many packets since it was first looked at is the household's router.
const FORWARDED: u64 = 100;

/// What there is to tell of an interface.
#[derive(Clone, Debug)]
pub(crate) enum Heard {
    /// What it carried over a second, and whether that is everybody's traffic.
    Load(String, Second, bool),
    /// What its line can carry.
    Capacity(String, Estimate),
    /// What it carried over the minute that began then.
    Minute(String, Monotonic, Box<Minute>),
}

/// One uplink.
struct Line {
    index: Option<u32>,
    /// Its counters as they were read last.
    read: Option<Reading>,
    household: Box<Household>,
    /// The last of its seconds that is over.
    second: Option<Second>,
    /// Series through it: a smaller number is a better witness of its queue.
    witnesses: BTreeMap<SeriesIndex, u64>,
}

impl Line {
    fn witness(&self) -> Option<SeriesIndex> {
        let best = self.witnesses.iter().min_by_key(|(_, rank)| **rank);
        best.map(|(index, _)| *index)
    }
}

/// See the module.
pub(crate) struct Households {
    netlink: Option<Netlink>,
    lines: BTreeMap<String, Line>,
    interfaces: HashMap<SeriesIndex, String>,
    /// What the configuration says of interfaces.
    told: BTreeMap<String, bool>,
    forwarding: Forwarding,
    radios: Radios,
    read_at: Monotonic,
    look_at: Monotonic,
}

impl Households {
    /// In the network namespace of the calling thread. `told` is what the configuration says of
    /// whether an interface's counters show everybody's traffic.
    pub(crate) fn new(told: BTreeMap<String, bool>) -> Self {
        let netlink = Netlink::open();
        if let Err(e) = &netlink {
            log::error!("the interfaces' counters cannot be read, load is not known: {e}");
        }
        Self {
            netlink: netlink.ok(),
            lines: BTreeMap::new(),
            interfaces: HashMap::new(),
            told,
            forwarding: Forwarding::default(),
            radios: Radios::default(),
            read_at: Monotonic::ZERO,
            look_at: Monotonic::ZERO,
        }
    }

    /// The configuration says something else.
    pub(crate) fn set(&mut self, told: BTreeMap<String, bool>) {
        self.told = told;
    }

    /// A series that is probed from now on.
    pub(crate) fn add(&mut self, index: SeriesIndex, info: &SeriesInfo) {
        self.remove(index);
        let line = self.lines.entry(info.interface.clone()).or_insert(Line {
            index: None,
            read: None,
            household: Box::default(),
            second: None,
            witnesses: BTreeMap::new(),
        });
        // Probes of a higher class may pass the queue by.
        let rank = info.interval_ns.saturating_add(u64::from(info.dscp) << 40);
        line.witnesses.insert(index, rank);
        self.interfaces.insert(index, info.interface.clone());
        self.look_at = Monotonic::ZERO;
    }

    /// A series is no longer probed.
    pub(crate) fn remove(&mut self, index: SeriesIndex) {
        let Some(interface) = self.interfaces.remove(&index) else {
            return;
        };
        if let Some(line) = self.lines.get_mut(&interface) {
            line.witnesses.remove(&index);
            if line.witnesses.is_empty() {
                self.lines.remove(&interface);
            }
        }
    }

    /// What became of a probe. Of the series of a line that know their queueing delay one is heard.
    pub(crate) fn sample(&mut self, sample: &Sample, queueing: Option<Queueing>) {
        let Some(line) = self
            .interfaces
            .get(&sample.series)
            .and_then(|interface| self.lines.get_mut(interface))
        else {
            return;
        };
        let lost = (
            sample.status == Status::LostUp,
            sample.status == Status::LostDown,
        );
        if queueing.is_none() && lost == (false, false) {
            if sample.status.is_answered() && sample.raw_up_ns.is_none() {
                // It never will.
                line.witnesses.insert(sample.series, u64::MAX);
            }
            return;
        }
        if line.witness() == Some(sample.series) {
            line.household.handle_probe(&Seen {
                sent: sample.sent,
                rtt_ns: sample.rtt_ns,
                queue_up_ns: queueing.map(|q| q.up_ns),
                queue_down_ns: queueing.map(|q| q.down_ns),
                lost_up: lost.0,
                lost_down: lost.1,
            });
        }
    }

    /// What the uplinks carried in their last second, where their counters are still read.
    pub(crate) fn carried(&self, now: Monotonic) -> Vec<LoadStatus> {
        let lines = self.lines.iter().filter_map(|(name, line)| {
            let second = line.second?;
            (now.saturating_since(second.at) < STALE_NS).then(|| LoadStatus {
                interface: name.clone(),
                up_bps: second.up_bps,
                down_bps: second.down_bps,
                sees_household: self.sees_household(name),
            })
        });
        lines.collect()
    }

    /// Whether an interface's counters show everybody's traffic.
    fn sees_household(&self, name: &str) -> bool {
        self.told.get(name).copied().unwrap_or(self.forwarding.seen)
    }

    /// The line of an interface was measured to carry so much one way, bit/s, or known to from an earlier run.
    pub(crate) fn measured(&mut self, interface: &str, up: bool, rate_bps: u64) {
        if let Some(line) = self.lines.get_mut(interface) {
            line.household.handle_measured(up, rate_bps);
        }
    }

    /// A throughput test loads an interface from `at` on.
    pub(crate) fn load_begins(&mut self, interface: &str, at: Monotonic) {
        if let Some(line) = self.lines.get_mut(interface) {
            line.household.handle_test_begin(at);
        }
    }

    /// And no longer.
    pub(crate) fn load_ends(&mut self, interface: &str, at: Monotonic) {
        if let Some(line) = self.lines.get_mut(interface) {
            line.household.handle_test_end(at);
        }
    }

    /// A packet train is on its way through an interface from `at` on.
    pub(crate) fn train_begins(&mut self, interface: &str, at: Monotonic) {
        if let Some(line) = self.lines.get_mut(interface) {
            line.household.handle_train_begin(at);
        }
    }

    /// And no longer.
    pub(crate) fn train_ends(&mut self, interface: &str, at: Monotonic) {
        if let Some(line) = self.lines.get_mut(interface) {
            line.household.handle_train_end(at);
        }
    }

    /// Reads what is due; gives what is new.
    pub(crate) fn tick(&mut self, now: Monotonic) -> Vec<Heard> {
        if now >= self.look_at {
            self.look();
            let is_missing = self.lines.values().any(|line| line.index.is_none());
            let wait_ns = if is_missing { MISSING_NS } else { LOOK_NS };
            self.look_at = now.saturating_add(wait_ns);
        }
        self.radios.tick();
        let due = now >= self.read_at;
        if due {
            self.read_at = now.saturating_add(READ_NS);
        }
        let mut heard = Vec::new();
        for (name, line) in &mut self.lines {
            if due && let (Some(netlink), Some(index)) = (&mut self.netlink, line.index) {
                match netlink.counters(index) {
                    Ok(c) => {
                        let at = bufferbane_linux_io::clock::now();
                        line.household.handle_counters(at, c.tx_bytes, c.rx_bytes);
                        line.read = Some(Reading {
                            index,
                            up_bytes: c.tx_bytes,
                            down_bytes: c.rx_bytes,
                        });
                    }
                    // It is gone, and looked for again at once: it may have come back under another number.
                    Err(e) if e.raw_os_error() == Some(nix::libc::ENODEV) => {
                        line.index = None;
                        self.look_at = now;
                    }
                    // The next reading spans what this one did not say.
                    Err(e) => log::debug!("the counters of {name} cannot be read: {e}"),
                }
            }
            let everybody = self.told.get(name).copied().unwrap_or(self.forwarding.seen);
            line.household.handle_timeout(now);
            while let Some(second) = line.household.poll_second() {
                line.second = Some(second);
                heard.push(Heard::Load(name.clone(), second, everybody));
            }
            while let Some(estimate) = line.household.poll_estimate() {
                heard.push(Heard::Capacity(name.clone(), estimate));
            }
            while let Some((begin, mut minute)) = line.household.poll_minute() {
                minute.sees_household = everybody;
                heard.push(Heard::Minute(name.clone(), begin, Box::new(minute)));
                line.household.handle_timeout(now);
            }
        }
        heard
    }

    /// Each interface's counters as they were read last.
    pub(crate) fn readings(&self) -> impl Iterator<Item = (&str, Reading)> {
        self.lines
            .iter()
            .filter_map(|(name, line)| Some((name.as_str(), line.read?)))
    }

    /// How Wi-Fi uplinks hear their access points.
    pub(crate) const fn radios(&mut self) -> &mut Radios {
        &mut self.radios
    }

    /// Which interfaces there are, how those of Wi-Fi hear, and whether this host is the household's router.
    fn look(&mut self) {
        if let Some(netlink) = &mut self.netlink
            && let Ok(interfaces) = netlink.interfaces()
        {
            for (name, line) in &mut self.lines {
                let found = interfaces.iter().find(|i| i.name == *name);
                line.index = found.map(|i| i.index);
            }
            let wifi = interfaces
                .into_iter()
                .filter(|i| i.kind == InterfaceKind::Wifi && self.lines.contains_key(&i.name));
            let wifi: Vec<_> = wifi.map(|i| (i.name, i.index)).collect();
            self.radios.look(wifi);
        }
        self.forwarding.look();
    }
}

/// Whether this host is the household's router, as far as it has been seen.
#[derive(Debug, Default)]
pub(crate) struct Forwarding {
    first: Option<u64>,
    seen: bool,
}

impl Forwarding {
    /// Looks at what has been forwarded since the first look, in the network namespace of the calling
    /// thread.
    pub(crate) fn look(&mut self) -> bool {
        if !self.seen {
            let now = forwarded_packets();
            let first = *self.first.get_or_insert(now);
            self.seen = now.saturating_sub(first) >= FORWARDED;
        }
        self.seen
    }
}

/// How many packets this network namespace has forwarded, IPv4 and IPv6.
fn forwarded_packets() -> u64 {
    let read = |file: &str| {
        std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default()
    };
    forwarded_v4(&read("snmp")) + forwarded_v6(&read("snmp6"))
}

/// `ForwDatagrams` of the two lines that begin with `Ip:`, names and values.
fn forwarded_v4(snmp: &str) -> u64 {
    let mut lines = snmp.lines().filter(|l| l.starts_with("Ip: "));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return 0;
    };
    let mut pairs = names.split(' ').zip(values.split(' '));
    pairs
        .find(|(name, _)| *name == "ForwDatagrams")
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0)
}

/// `Ip6OutForwDatagrams`, a line of its own.
fn forwarded_v6(snmp6: &str) -> u64 {
    snmp6
        .lines()
        .filter_map(|l| l.split_once(char::is_whitespace))
        .find(|(name, _)| *name == "Ip6OutForwDatagrams")
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_packets_are_read_off_what_the_kernel_says() {
        let snmp = "Ip: Forwarding DefaultTTL InReceives ForwDatagrams InDelivers\n\
                    Ip: 1 64 900 321 5\nIcmp: InMsgs\nIcmp: 7\n";
        assert_eq!(forwarded_v4(snmp), 321);
        assert_eq!(forwarded_v4("Ip: x\n"), 0);
        let snmp6 = "Ip6InReceives                   \t10\nIp6OutForwDatagrams             \t42\n";
        assert_eq!(forwarded_v6(snmp6), 42);
        // This kernel says it in the same words.
        assert!(
            std::fs::read_to_string("/proc/thread-self/net/snmp").is_ok_and(|s| {
                s.lines()
                    .any(|l| l.starts_with("Ip: ") && l.contains(" ForwDatagrams "))
            })
        );
    }

    #[test]
    fn the_fastest_series_that_knows_its_queue_is_the_witness_of_a_line() {
        let mut h = Households::new(BTreeMap::new());
        let info = |kind, interval_ns, dscp| SeriesInfo {
            kind,
            dscp,
            interval_ns,
            ..info("lo")
        };
        use bufferbane_store::SeriesKind::{Icmp, Udp};
        for (i, (kind, interval_ns, dscp)) in [(Icmp, 10, 0), (Udp, 50, 0), (Udp, 10, 46)]
            .into_iter()
            .enumerate()
        {
            h.add(SeriesIndex(i as u16), &info(kind, interval_ns, dscp));
        }
        let mut echo = Sample::lost(SeriesIndex(0), 1, Monotonic::ZERO, 64);
        echo.status = Status::Ok;
        echo.rtt_ns = Some(5);
        h.sample(&echo, None);
        assert_eq!(h.lines["lo"].witness(), Some(SeriesIndex(1)));
        h.remove(SeriesIndex(1));
        assert_eq!(h.lines["lo"].witness(), Some(SeriesIndex(2)));
    }

    fn info(interface: &str) -> SeriesInfo {
        SeriesInfo {
            interface: interface.into(),
            interface_kind: "loopback".into(),
            target: "x".into(),
            kind: bufferbane_store::SeriesKind::Icmp,
            family: 4,
            dscp: 0,
            size: 64,
            interval_ns: 1,
            address: "127.0.0.1".into(),
        }
    }

    /// Half a minute of the loopback interface: nothing else is needed to be told what it carries.
    #[test]
    fn what_an_interface_carries_is_told_each_second() {
        let mut h = Households::new(BTreeMap::from([("lo".to_owned(), true)]));
        h.add(SeriesIndex(0), &info("lo"));
        let mut told = Vec::new();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while told.is_empty() && std::time::Instant::now() < end {
            told = h.tick(bufferbane_linux_io::clock::now());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(
            matches!(&told[..], [Heard::Load(name, _, true), ..] if name == "lo"),
            "{told:?}"
        );
    }
}
