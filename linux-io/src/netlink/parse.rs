//! What the kernel's messages say. Total over any bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::message::{Attributes, number, text};
use super::{Address, Interface, InterfaceKind, Route};
use crate::counters::InterfaceCounters;
use crate::sockaddr::take;
use crate::socket::Family;

const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_STATS64: u16 = 23;
const IFLA_LINK_NETNSID: u16 = 37;
const TCA_STATS2: u16 = 7;
const TCA_STATS_QUEUE: u16 = 3;
/// The parent of the queue that everything passes which leaves by its interface.
const TC_H_ROOT: u32 = 0xffff_ffff;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RT_SCOPE_LINK: u8 = 253;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_DEPRECATED: u32 = 0x20;
const IFA_F_TENTATIVE: u32 = 0x40;

/// The fixed part of a link message: index, flags and hardware type.
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) up: bool,
    pub(super) running: bool,
    hardware: u16,
    mtu: u32,
    pub(super) kind: Option<String>,
    /// The interface that it belongs to or is made of, in the same network namespace.
    pub(super) link: Option<u32>,
    /// The interface that it is a part of.
    pub(super) master: Option<u32>,
    counters: Option<InterfaceCounters>,
}

impl Link {
    /// Packets that were to leave by it and did not, as it counts them itself.
    pub(super) fn failed(&self) -> u64 {
        let counters = self.counters.unwrap_or_default();
        counters.tx_dropped.wrapping_add(counters.tx_errors)
    }
}

/// `struct ifinfomsg`: family, hardware type at 2, index at 4, flags at 8, 16 bytes.
pub(super) fn link(body: &[u8]) -> Option<Link> {
    let flags = u32::from_ne_bytes(take(body, 8)?);
    let mut link = Link {
        index: u32::from_ne_bytes(take(body, 4)?),
        name: String::new(),
        up: flags & libc::IFF_UP as u32 != 0,
        running: flags & libc::IFF_RUNNING as u32 != 0,
        hardware: u16::from_ne_bytes(take(body, 2)?),
        mtu: 0,
        kind: None,
        link: None,
        master: None,
        counters: None,
    };
    let mut is_elsewhere = false;
    for (kind, data) in Attributes(body.get(16..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(data),
            IFLA_MTU => link.mtu = number(data).unwrap_or(0),
            IFLA_LINK => link.link = number(data),
            IFLA_LINK_NETNSID => is_elsewhere = true,
            IFLA_MASTER => link.master = number(data),
            IFLA_STATS64 => link.counters = counters(data),
            IFLA_LINKINFO => {
                link.kind = Attributes(data)
                    .find(|(kind, _)| *kind == IFLA_INFO_KIND)
                    .map(|(_, data)| text(data));
            }
            _ => {}
        }
    }
    link.link = link.link.filter(|_| !is_elsewhere);
    Some(link)
}

pub(super) fn interface(body: &[u8]) -> Option<Interface> {
    let link = link(body)?;
    Some(Interface {
        kind: kind_of(&link),
        index: link.index,
        name: link.name,
        up: link.up,
        running: link.running,
        mtu: link.mtu,
        addresses: Vec::new(),
    })
}

/// From the kernel's word for the link, its hardware type, and what sysfs says of its device.
fn kind_of(link: &Link) -> InterfaceKind {
    match link.hardware {
        libc::ARPHRD_LOOPBACK => return InterfaceKind::Loopback,
        libc::ARPHRD_PPP => return InterfaceKind::Ppp,
        libc::ARPHRD_TUNNEL | libc::ARPHRD_TUNNEL6 | libc::ARPHRD_SIT | libc::ARPHRD_IPGRE => {
            return InterfaceKind::Tunnel;
        }
        _ => {}
    }
    match link.kind.as_deref() {
        Some("ppp") => return InterfaceKind::Ppp,
        Some("wwan" | "rmnet") => return InterfaceKind::Cellular,
        Some(
            "wireguard" | "tun" | "ipip" | "sit" | "gre" | "gretap" | "ip6gre" | "ip6gretap"
            | "ip6tnl" | "vti" | "vti6" | "xfrm" | "vxlan" | "geneve" | "ovpn" | "amt",
        ) => return InterfaceKind::Tunnel,
        Some(_) => return InterfaceKind::Wired,
        None => {}
    }
    from_sysfs(Path::new("/sys/class/net"), &link.name)
}

/// From what is below `root` of the device. sysfs shows the namespace that it was mounted in, so this is a hint only.
fn from_sysfs(root: &Path, name: &str) -> InterfaceKind {
    // A name with a slash or a leading dot cannot be an interface's.
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return InterfaceKind::Wired;
    }
    let dir = root.join(name);
    let uevent = std::fs::read_to_string(dir.join("uevent")).unwrap_or_default();
    if dir.join("wireless").exists()
        || dir.join("phy80211").exists()
        || uevent.contains("DEVTYPE=wlan")
    {
        return InterfaceKind::Wifi;
    }
    let driver = std::fs::read_link(dir.join("device/driver")).unwrap_or_default();
    let driver = driver.file_name().and_then(|d| d.to_str()).unwrap_or("");
    if uevent.contains("DEVTYPE=wwan")
        || matches!(
            driver,
            "qmi_wwan" | "cdc_mbim" | "huawei_cdc_ncm" | "sierra_net"
        )
    {
        return InterfaceKind::Cellular;
    }
    if dir.join("tun_flags").exists() {
        return InterfaceKind::Tunnel;
    }
    InterfaceKind::Wired
}

fn ip(family: u8, data: &[u8]) -> Option<IpAddr> {
    match i32::from(family) {
        libc::AF_INET => take::<4>(data, 0).map(|a| IpAddr::V4(Ipv4Addr::from(a))),
        libc::AF_INET6 => take::<16>(data, 0).map(|a| IpAddr::V6(Ipv6Addr::from(a))),
        _ => None,
    }
}

/// `struct ifaddrmsg`: family, prefix length, flags, scope, index at 4, 8 bytes. Returns the index
/// with the address.
pub(super) fn address(body: &[u8]) -> Option<(u32, Address)> {
    let [family, prefix, flags, scope] = take(body, 0)?;
    let index = u32::from_ne_bytes(take(body, 4)?);
    let mut flags = u32::from(flags);
    let (mut local, mut address) = (None, None);
    for (kind, data) in Attributes(body.get(8..)?) {
        match kind {
            IFA_LOCAL => local = ip(family, data),
            IFA_ADDRESS => address = ip(family, data),
            IFA_FLAGS => flags = number(data).unwrap_or(flags),
            _ => {}
        }
    }
    // IFA_ADDRESS is the peer's on a point-to-point link, else the same as IFA_LOCAL, which IPv6
    // leaves out where there is no peer.
    let own = local.or(address)?;
    Some((
        index,
        Address {
            ip: own,
            prefix,
            peer: address.filter(|a| *a != own),
            link_local: scope == RT_SCOPE_LINK,
            usable: flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED | IFA_F_DEPRECATED) == 0,
        },
    ))
}

/// `struct rtmsg`: family, prefix lengths, TOS, table at 4, protocol, scope, type at 7, flags at 8,
/// 12 bytes. None for what cannot be sent along: unreachable, blackhole, multicast…
pub(super) fn route(body: &[u8]) -> Option<Route> {
    let [family, prefix] = take(body, 0)?;
    let [table] = take(body, 4)?;
    let [kind] = take(body, 7)?;
    if !matches!(kind, RTN_UNICAST | RTN_LOCAL) {
        return None;
    }
    let mut route = Route {
        family: match i32::from(family) {
            libc::AF_INET => Family::V4,
            libc::AF_INET6 => Family::V6,
            _ => return None,
        },
        prefix,
        interface: 0,
        gateway: None,
        source: None,
        metric: 0,
        table: u32::from(table),
    };
    for (kind, data) in Attributes(body.get(12..)?) {
        match kind {
            RTA_OIF => route.interface = number(data).unwrap_or(0),
            RTA_GATEWAY | RTA_VIA => route.gateway = gateway(family, kind, data),
            RTA_PRIORITY => route.metric = number(data).unwrap_or(0),
            RTA_PREFSRC => route.source = ip(family, data),
            RTA_TABLE => route.table = number(data).unwrap_or(route.table),
            RTA_MULTIPATH => first_hop(family, data, &mut route),
            _ => {}
        }
    }
    (route.interface != 0).then_some(route)
}

/// RTA_VIA carries a gateway of another family, which its first two bytes name.
fn gateway(family: u8, kind: u16, data: &[u8]) -> Option<IpAddr> {
    if kind == RTA_GATEWAY {
        return ip(family, data);
    }
    let via = u16::from_ne_bytes(take(data, 0)?);
    ip(u8::try_from(via).ok()?, data.get(2..)?)
}

/// `struct rtnexthop`: length, flags, weight, index at 4, 8 bytes, then attributes.
fn first_hop(family: u8, data: &[u8], route: &mut Route) {
    let Some(index) = take(data, 4).map(u32::from_ne_bytes) else {
        return;
    };
    route.interface = index;
    let len = take(data, 0).map_or(0, |l| usize::from(u16::from_ne_bytes(l)));
    for (kind, data) in Attributes(data.get(8..len).unwrap_or(&[])) {
        if kind == RTA_GATEWAY || kind == RTA_VIA {
            route.gateway = gateway(family, kind, data);
        }
    }
}

/// `struct if_stats_msg`, 12 bytes, then `struct rtnl_link_stats64` as an attribute.
pub(super) fn statistics(body: &[u8]) -> Option<InterfaceCounters> {
    let (_, data) = Attributes(body.get(12..)?).find(|(kind, _)| *kind == 1)?;
    counters(data)
}

/// `struct rtnl_link_stats64`.
fn counters(data: &[u8]) -> Option<InterfaceCounters> {
    let word = |i: usize| take(data, i * 8).map(u64::from_ne_bytes);
    Some(InterfaceCounters {
        rx_packets: word(0)?,
        tx_packets: word(1)?,
        rx_bytes: word(2)?,
        tx_bytes: word(3)?,
        rx_errors: word(4)?,
        tx_errors: word(5)?,
        rx_dropped: word(6)?,
        tx_dropped: word(7)?,
    })
}

/// The queue that everything passes which leaves by an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    pub(super) interface: u32,
    /// The kernel's name of it: another one has another, but for those that nobody named.
    pub(super) handle: u32,
    /// Packets that it has dropped, those of its parts included; wraps.
    pub(super) drops: u32,
}

/// `struct tcmsg`: family, index at 4, handle at 8, parent at 12, 20 bytes; then attributes, of which one holds
/// `struct gnet_stats_queue`, with drops at 8. None for what is only part of a queue, and for those of what arrives.
pub(super) fn queue(body: &[u8]) -> Option<Queue> {
    let word = |bytes: &[u8], at| take(bytes, at).map(u32::from_ne_bytes);
    if word(body, 12)? != TC_H_ROOT {
        return None;
    }
    let within = |data, wanted| {
        let mut all = Attributes(data);
        all.find(|(kind, _)| *kind == wanted).map(|(_, data)| data)
    };
    let counts = within(within(body.get(20..)?, TCA_STATS2)?, TCA_STATS_QUEUE)?;
    Some(Queue {
        interface: word(body, 4)?,
        handle: word(body, 8)?,
        drops: word(counts, 8)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_body_parses_or_not(mut body in proptest::collection::vec(any::<u8>(), 0..300), family in prop_oneof![Just(2u8), Just(10u8), any::<u8>()], lens in proptest::collection::vec((0usize..300, 0u16..64, 0u16..24), 0..10)) {
            if let Some(first) = body.first_mut() {
                *first = family;
            }
            for (at, len, kind) in lens {
                let at = at / 4 * 4;
                if let Some(place) = body.get_mut(at..at + 4) {
                    place[..2].copy_from_slice(&len.to_ne_bytes());
                    place[2..].copy_from_slice(&kind.to_ne_bytes());
                }
            }
            let _ = (link(&body).is_some(), address(&body), route(&body), statistics(&body));
            let _ = queue(&body);
        }
    }

    fn kind(hardware: u16, word: Option<&str>) -> InterfaceKind {
        kind_of(&Link {
            index: 7,
            // No interface has this name, so sysfs says nothing.
            name: "no/such".into(),
            up: true,
            running: true,
            hardware,
            mtu: 1500,
            kind: word.map(str::to_owned),
            link: None,
            master: None,
            counters: None,
        })
    }

    #[test]
    fn the_kernels_words_tell_kinds_of_links_apart() {
        use InterfaceKind::{Cellular, Loopback, Ppp, Tunnel, Wired};
        const ETHERNET: u16 = libc::ARPHRD_ETHER;
        const NONE: u16 = libc::ARPHRD_NONE;
        for (hardware, word, expected) in [
            (libc::ARPHRD_LOOPBACK, None, Loopback),
            (ETHERNET, None, Wired),
            (ETHERNET, Some("veth"), Wired),
            (ETHERNET, Some("vlan"), Wired),
            (ETHERNET, Some("bridge"), Wired),
            (ETHERNET, Some("bond"), Wired),
            (ETHERNET, Some("dsa"), Wired),
            // PPPoE over the kernel, and pppd's own before it said so.
            (libc::ARPHRD_PPP, Some("ppp"), Ppp),
            (libc::ARPHRD_PPP, None, Ppp),
            // Modems that carry IP packets, and those that look like Ethernet.
            (519, Some("rmnet"), Cellular),
            (NONE, Some("wwan"), Cellular),
            (ETHERNET, Some("wwan"), Cellular),
            (NONE, Some("wireguard"), Tunnel),
            (NONE, Some("tun"), Tunnel),
            (ETHERNET, Some("tun"), Tunnel),
            (libc::ARPHRD_TUNNEL, Some("ipip"), Tunnel),
            (libc::ARPHRD_SIT, Some("sit"), Tunnel),
            (libc::ARPHRD_TUNNEL6, Some("ip6tnl"), Tunnel),
            (libc::ARPHRD_IPGRE, Some("gre"), Tunnel),
            (823, Some("ip6gre"), Tunnel),
            (ETHERNET, Some("gretap"), Tunnel),
            (ETHERNET, Some("vxlan"), Tunnel),
            (NONE, Some("xfrm"), Tunnel),
            // Of older kernels, which had no word for them.
            (libc::ARPHRD_TUNNEL, None, Tunnel),
            (libc::ARPHRD_SIT, None, Tunnel),
            // A word that nobody knows yet.
            (ETHERNET, Some("brandnew"), Wired),
        ] {
            assert_eq!(kind(hardware, word), expected, "{hardware} {word:?}");
        }
    }

    #[test]
    fn what_sysfs_says_of_a_device_tells_wifi_and_modems_from_cables() {
        use InterfaceKind::{Cellular, Tunnel, Wifi, Wired};
        // A file below the device, with its text; and its driver.
        for (file, text, driver, expected) in [
            ("uevent", "INTERFACE=it\nIFINDEX=2\n", "r8169", Wired),
            ("uevent", "DEVTYPE=wlan\nINTERFACE=it\n", "ath9k", Wifi),
            ("phy80211", "", "iwlwifi", Wifi),
            ("wireless", "", "", Wifi),
            (
                "uevent",
                "DEVTYPE=wwan\nINTERFACE=it\n",
                "cdc_ether",
                Cellular,
            ),
            ("uevent", "INTERFACE=it\n", "qmi_wwan", Cellular),
            ("uevent", "INTERFACE=it\n", "cdc_mbim", Cellular),
            ("uevent", "INTERFACE=it\n", "huawei_cdc_ncm", Cellular),
            ("uevent", "INTERFACE=it\n", "sierra_net", Cellular),
            // A telephone that lends its line over USB looks like a cable.
            ("uevent", "INTERFACE=it\n", "rndis_host", Wired),
            ("tun_flags", "0x1001\n", "", Tunnel),
        ] {
            let root = tempfile::tempdir().unwrap();
            let dir = root.path().join("it");
            std::fs::create_dir_all(dir.join("device")).unwrap();
            std::fs::write(dir.join(file), text).unwrap();
            if !driver.is_empty() {
                let to = Path::new("/sys/bus/usb/drivers").join(driver);
                std::os::unix::fs::symlink(to, dir.join("device/driver")).unwrap();
            }
            let found = from_sysfs(root.path(), "it");
            assert_eq!(found, expected, "{file} {text:?} {driver}");
            // Names that are none lead nowhere.
            for name in ["", "./it", ".it", "gone"] {
                assert_eq!(from_sysfs(root.path(), name), Wired, "{name}");
            }
        }
    }
}
