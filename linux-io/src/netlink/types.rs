//! What is known of interfaces, addresses and routes.

use std::net::IpAddr;

use crate::socket::Family;

/// `RT_TABLE_MAIN`.
const MAIN_TABLE: u32 = 254;

/// What kind of link an interface is, as far as can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InterfaceKind {
    /// Ethernet and what looks like it, bridges and virtual Ethernet included.
    Wired,
    /// IEEE 802.11.
    Wifi,
    /// A mobile network.
    Cellular,
    /// PPP and PPPoE.
    Ppp,
    /// A tunnel: what leaves it travels over another interface.
    Tunnel,
    /// The host itself.
    Loopback,
}

impl InterfaceKind {
    /// The word users read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wired => "wired",
            Self::Wifi => "wifi",
            Self::Cellular => "cellular",
            Self::Ppp => "ppp",
            Self::Tunnel => "tunnel",
            Self::Loopback => "loopback",
        }
    }
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Length of its network's prefix, bits.
    pub prefix: u8,
    /// On a point-to-point link the address of the other end.
    pub peer: Option<IpAddr>,
    /// Only valid on this link.
    pub link_local: bool,
    /// It may be used now: not tentative, duplicate or deprecated.
    pub usable: bool,
}

/// An interface of this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number: a new one each time the interface is made.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What kind of link it is.
    pub kind: InterfaceKind,
    /// Switched on by the administrator.
    pub up: bool,
    /// Has a carrier, as far as the driver says.
    pub running: bool,
    /// Largest packet that it carries, bytes.
    pub mtu: u32,
    /// Its addresses.
    pub addresses: Vec<Address>,
}

/// A route of the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Length of the destination's prefix, bits; 0 is a default route.
    pub prefix: u8,
    /// Index of the interface that it leaves by.
    pub interface: u32,
    /// The next hop; None where the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The source address that it prefers, where it says one.
    pub source: Option<IpAddr>,
    /// Its metric; the lowest wins.
    pub metric: u32,
    /// The table it is in; 254 is the main one.
    pub table: u32,
}

impl Route {
    /// Of routes to the same place the one of the lowest rank is taken: the main table's before those of other tables,
    /// and then by metric.
    #[must_use]
    pub const fn rank(&self) -> (bool, u32) {
        (self.table != MAIN_TABLE, self.metric)
    }
}

/// What a route is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteQuery {
    /// Where to.
    pub to: IpAddr,
    /// Only by the interface with this index.
    pub interface: Option<u32>,
    /// From this address.
    pub from: Option<IpAddr>,
    /// With this firewall mark.
    pub mark: Option<u32>,
}

impl RouteQuery {
    /// Any route to `to`.
    #[must_use]
    pub const fn to(to: IpAddr) -> Self {
        Self {
            to,
            interface: None,
            from: None,
            mark: None,
        }
    }
}
