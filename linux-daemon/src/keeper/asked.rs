//! Those who are asked what a plan needs and is not known yet.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use bufferbane_linux_io::netlink::{Netlink, RouteQuery};

use super::Kept;
use crate::names::Resolver;
use crate::plan::{Sources, Wanted};
use crate::scout::{Errand, Scout};

/// See the module.
pub(super) struct Asked<'a> {
    pub(super) netlink: &'a mut Netlink,
    pub(super) names: &'a mut Resolver,
    pub(super) scout: &'a mut Scout,
    pub(super) units: &'a BTreeMap<Wanted, Kept>,
}

impl Sources for Asked<'_> {
    fn resolve(&mut self, name: &str, port: u16) -> Vec<SocketAddr> {
        self.names.get(name, port)
    }

    fn find(&mut self, errand: Errand) -> Option<IpAddr> {
        self.scout.find(errand)
    }

    fn leaves_by(&mut self, to: IpAddr) -> Option<u32> {
        // Where the kernel does not say, nobody is asked through a guess; the next review asks again.
        let route = self.netlink.route_for(&RouteQuery::to(to)).ok()??;
        Some(route.interface)
    }

    fn is_probed(&self, interface: &str, target: &str, remote: SocketAddr) -> bool {
        // The scope of a link-local address is the interface's.
        let place = |a: SocketAddr| (a.ip(), a.port());
        let same = |w: &Wanted| {
            w.interface == interface && w.target == target && place(w.remote) == place(remote)
        };
        self.units.keys().any(same)
    }
}
