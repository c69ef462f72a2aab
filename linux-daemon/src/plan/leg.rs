//! An uplink as it is now, and which addresses are probed through it.

use std::net::SocketAddr;

use bufferbane_linux_io::Family;
use bufferbane_linux_io::netlink::{Interface, Route};

use super::Host;
use crate::config::{Config, FamilyChoice, Uplink};

/// See the module.
pub(super) struct Leg<'a> {
    pub(super) uplink: Uplink,
    /// Nothing else is probed through it: the host's default route of the other family leaves by another interface.
    only: Option<Family>,
    host: &'a Host<'a>,
}

/// Those that are configured, else the interfaces that the host's default routes leave by, or did.
pub(super) fn legs<'a>(config: &Config, host: &'a Host<'a>) -> Vec<Leg<'a>> {
    let leg = |uplink, only| Leg { uplink, only, host };
    if !config.interfaces.is_empty() {
        let configured = config.interfaces.iter().cloned();
        return configured.map(|uplink| leg(uplink, None)).collect();
    }
    let now = |family| {
        let route = default_route(host.default_routes, family)?;
        let by = host.interfaces.iter().find(|i| i.index == route.interface);
        by.map(|i| i.name.as_str())
    };
    let [left_v4, left_v6] = host.left_by;
    let auto = |name: &str, only| leg(Uplink::from(name), only);
    // What is gone may be back in a moment, and is missed meanwhile.
    match [now(Family::V4).or(left_v4), now(Family::V6).or(left_v6)] {
        [Some(four), Some(six)] if four != six => {
            vec![auto(four, Some(Family::V4)), auto(six, Some(Family::V6))]
        }
        found => {
            let first = found.into_iter().flatten().next();
            first.map(|name| auto(name, None)).into_iter().collect()
        }
    }
}

/// The default route of a family that the host itself uses: the best of its main table, else of others.
pub(crate) fn default_route(routes: &[Route], family: Family) -> Option<&Route> {
    let own = routes.iter().filter(|r| r.family == family);
    own.min_by_key(|r| r.rank())
}

impl Leg<'_> {
    pub(super) fn interface(&self) -> Option<&Interface> {
        let mut all = self.host.interfaces.iter();
        all.find(|i| i.name == self.uplink.name)
    }

    /// Whether an address may be probed: one of the other family than the uplink's source, or than all that leaves by
    /// it, is not.
    pub(super) fn fits(&self, remote: &SocketAddr) -> bool {
        let is_source = |s: std::net::IpAddr| s.is_ipv4() == remote.is_ipv4();
        self.uplink.source.is_none_or(is_source)
            && self.only.is_none_or(|f| f == Family::of(&remote.ip()))
    }

    /// Whether a family is to be had; one that is not there may have been.
    pub(super) fn has(&self, family: Family) -> bool {
        if let Some(only) = self.only {
            return family == only;
        }
        let addresses = self.interface().into_iter().flat_map(|i| &i.addresses);
        // Those of the link are there with any other, or none.
        let usual = addresses.filter(|a| !a.link_local);
        let mut families = usual.map(|a| Family::of(&a.ip)).peekable();
        if families.peek().is_none() {
            return family == Family::V4;
        }
        families.any(|f| f == family)
    }

    /// The addresses to probe out of those a name has: one of each family that is asked for.
    pub(super) fn choose(
        &self,
        found: &[SocketAddr],
        family: FamilyChoice,
        is_probed: impl Fn(&SocketAddr) -> bool,
    ) -> Vec<SocketAddr> {
        let v4 = found.iter().find(|a| a.is_ipv4()).copied();
        let v6 = found.iter().find(|a| a.is_ipv6()).copied();
        match family {
            FamilyChoice::V4 => v4.into_iter().collect(),
            FamilyChoice::V6 => v6.into_iter().collect(),
            FamilyChoice::Both => v4.into_iter().chain(v6).collect(),
            // A family that the interface does not have is left out where nobody asked for it by name.
            FamilyChoice::Auto => {
                let has = |a: &SocketAddr| self.has(Family::of(&a.ip()));
                let both = || v4.into_iter().chain(v6);
                // What is probed and has lost its family is in trouble, and not forgotten.
                let chosen = both().find(has).or_else(|| both().find(&is_probed));
                chosen.into_iter().collect()
            }
        }
    }

    /// An address with the scope that it has on the interface (RFC 4007): a link-local one is another host's on every link.
    pub(super) fn scoped(&self, mut remote: SocketAddr) -> SocketAddr {
        if let SocketAddr::V6(v6) = &mut remote
            && v6.ip().is_unicast_link_local()
            && let Some(i) = self.interface()
        {
            v6.set_scope_id(i.index);
        }
        remote
    }
}
