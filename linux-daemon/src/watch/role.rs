//! What a series stands for among others: the household, the access line, or what is beyond.

use std::net::IpAddr;

use bufferbane_core::detect::Role;
use bufferbane_store::{SeriesInfo, SeriesKind};

use crate::scout::MODEM;

/// Whether a series is to a host beyond the access line, or may be.
pub(crate) fn is_far(info: &SeriesInfo) -> bool {
    role(info) == Role::Far
}

/// The same of a series of this kind to an address.
pub(crate) fn is_far_at(kind: SeriesKind, ip: IpAddr) -> bool {
    role_at(kind, ip) == Role::Far
}

/// What a series stands for.
pub(super) fn role(info: &SeriesInfo) -> Role {
    let ip = info.address.parse();
    ip.map_or(Role::Far, |ip| role_at(info.kind, ip))
}

/// What has a private address and is not a reflector is near if it answers as fast: the gateway, whatever it is
/// called, or another host of the house.
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
