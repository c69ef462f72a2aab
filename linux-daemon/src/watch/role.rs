//! What a series stands for among others: the household, the access line, or what is beyond.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bufferbane_core::detect::Role;
use bufferbane_linux_io::netlink::InterfaceKind;
use bufferbane_store::{SeriesInfo, SeriesKind};

use crate::scout::MODEM;

/// Whether a series is to a host beyond the access line, or may be.
pub(crate) fn is_far(info: &SeriesInfo) -> bool {
    info.address.parse().map_or(true, |ip: IpAddr| {
        let role = role_through(&info.interface_kind, role_at(info.kind, ip));
        is_far_as(role)
    })
}

/// The same of a series of this kind to an address.
pub(crate) fn is_far_at(kind: SeriesKind, ip: IpAddr) -> bool {
    is_far_as(role_at(kind, ip))
}

const fn is_far_as(role: Role) -> bool {
    matches!(role, Role::Far | Role::Gateway { private: false })
}

/// What a series stands for, where the default routes of interfaces have these next hops. Where there is none, whatever
/// may be the gateway is.
pub(super) fn role(info: &SeriesInfo, next_hops: &BTreeSet<(String, IpAddr)>) -> Role {
    let Ok(ip) = info.address.parse() else {
        return Role::Far;
    };
    let of_interface = || next_hops.iter().filter(|(i, _)| *i == info.interface);
    // Of the other family, nothing is known by a next hop.
    let mut of_family = of_interface().filter(|(_, hop)| hop.is_ipv4() == IpAddr::is_ipv4(&ip));
    let is_another = of_family.next().is_some() && !of_interface().any(|(_, hop)| *hop == ip);
    match role_through(&info.interface_kind, role_at(info.kind, ip)) {
        // What leads out of the house has another address.
        Role::Gateway { private: true } if is_another => Role::House,
        role => role,
    }
}

/// The same through an interface of this kind: the peer of a PPP link is the far end of the access line, whatever
/// address the provider gave it.
fn role_through(interface_kind: &str, role: Role) -> Role {
    match role {
        Role::Gateway { .. } if interface_kind == InterfaceKind::Ppp.as_str() => {
            Role::Gateway { private: false }
        }
        role => role,
    }
}

/// What has a private address and is not a reflector is near if it answers as fast: the gateway, whatever it is
/// called.
fn role_at(kind: SeriesKind, ip: IpAddr) -> Role {
    let private = match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    };
    if kind != SeriesKind::Icmp {
        Role::Far
    } else if ip == MODEM {
        Role::Modem
    } else if private {
        Role::Gateway { private }
    } else {
        Role::Far
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::info;
    use super::*;

    fn role(info: &SeriesInfo) -> Role {
        super::role(info, &BTreeSet::new())
    }

    /// A store for backups is not what leads out of the house.
    #[test]
    fn only_the_next_hop_is_the_gateway_where_one_is_known() {
        let hops = |all: &[(&str, &str)]| {
            let hop = |(i, hop): &(&str, &str)| ((*i).to_owned(), hop.parse().unwrap());
            all.iter().map(hop).collect()
        };
        let known = hops(&[("eth0", "192.168.1.1"), ("wlan0", "192.168.1.9")]);
        let role = |address| super::role(&info("x", address), &known);
        assert_eq!(role("192.168.1.1"), Role::Gateway { private: true });
        assert_eq!(role("192.168.1.9"), Role::House);
        assert_eq!(role("192.168.100.1"), Role::Modem);
        assert_eq!(role("9.9.9.9"), Role::Far);
        // Nothing is known of IPv6, nor of an interface without a next hop.
        assert_eq!(role("fd00::9"), Role::Gateway { private: true });
        let elsewhere = hops(&[("ppp0", "192.168.1.1")]);
        let nas = info("nas", "192.168.1.9");
        assert_eq!(
            super::role(&nas, &elsewhere),
            Role::Gateway { private: true }
        );
    }

    /// A provider's access server may well be at 10.x, and answer within a millisecond.
    #[test]
    fn the_peer_of_a_ppp_link_is_the_far_end_whatever_its_address() {
        let through = |kind: &str, address: &str| SeriesInfo {
            interface: "wan".into(),
            interface_kind: kind.into(),
            ..info("gateway", address)
        };
        let far_end = Role::Gateway { private: false };
        let near = Role::Gateway { private: true };
        for (kind, address, expected) in [
            ("ppp", "10.0.0.1", far_end),
            ("ppp", "172.16.5.1", far_end),
            ("ppp", "192.168.100.1", Role::Modem),
            ("ppp", "100.64.0.1", Role::Far),
            ("wired", "10.0.0.1", near),
            ("wifi", "10.0.0.1", near),
            ("cellular", "10.0.0.1", near),
            ("tunnel", "10.0.0.1", near),
        ] {
            let info = through(kind, address);
            assert_eq!(role(&info), expected, "{kind} {address}");
            let is_far = matches!(expected, Role::Far | Role::Gateway { private: false });
            assert_eq!(is_far, self::is_far(&info), "{kind} {address}");
        }
        // Nor is another address of the provider's network a host of the house.
        let hops = [("wan".to_owned(), "10.0.0.2".parse().unwrap())].into();
        assert_eq!(super::role(&through("ppp", "10.0.0.1"), &hops), far_end);
        assert_eq!(
            super::role(&through("wired", "10.0.0.1"), &hops),
            Role::House
        );
    }

    #[test]
    fn a_private_address_may_be_near_and_a_reflector_never_is() {
        assert_eq!(
            role(&info("x", "10.0.0.1")),
            Role::Gateway { private: true }
        );
        assert_eq!(role(&info("x", "100.64.0.1")), Role::Far);
        assert_eq!(role(&info("x", "192.168.100.1")), Role::Modem);
        let reflector = SeriesInfo {
            kind: SeriesKind::Udp,
            ..info("x", "10.0.0.1")
        };
        assert_eq!(role(&reflector), Role::Far);
    }
}
