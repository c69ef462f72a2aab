//! A home with some uplinks, each its own line to the same server.
//!
//! ```text
//! client               (gateway i)              middle                    server
//!  wan{i} ──────────────────────────────── c{i} ══ links[i] ══ s{i} ── lan{i}   lo: 10.99.0.1 ..
//!  wan{i} ──── in{i}   forwards   out{i} ── c{i} ══ links[i] ══ s{i} ── lan{i}       fd99::1 ..
//!
//!  wan{i} ── c{i} ══ links[i] ══ s{i} ── in{i}  forwards  out0 ── lan0
//! ```

use std::io;

use crate::link::{Direction, Ends, Link};
use crate::netns::Namespace;

/// How many addresses the server has on its loopback, which every uplink leads to: 10.99.0.1 and
/// fd99::1 and so on. To a client they are different hosts.
pub const SERVERS: usize = 4;

/// Where the lines of a home are, as the module draws it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Between the client and the server.
    Alone,
    /// Behind a router for each, one hop from the client.
    BehindGateways,
    /// In the house: between the client and its only gateway, which has one IPv4 address at the end of all.
    InHouse,
}

/// What a home looks like.
#[derive(Clone, Debug)]
pub struct Layout {
    /// How many uplinks there are.
    pub uplinks: usize,
    /// Where their lines are.
    pub place: Place,
    /// What all lines do at first, up and down.
    pub plan: [Direction; 2],
    /// Decides everything that is left to chance.
    pub seed: u64,
}

/// See the module.
pub struct Home {
    /// Uplink `i` is `links[i]`, interface `wan{i}` of the client.
    pub links: Vec<Link>,
    /// Where the daemon runs.
    pub client: Namespace,
    /// Where the reflector runs.
    pub server: Namespace,
    /// Before line `i`, or the one at the end of all lines, where there are any.
    pub gateways: Vec<Namespace>,
    /// Where uplink `i` leads to, over IPv4 and IPv6.
    next_hops: Vec<[String; 2]>,
    _middle: Namespace,
}

impl Home {
    /// Makes a home with `uplinks` lines that all begin as `up` and `down`.
    ///
    /// # Errors
    /// What could not be made.
    pub fn new(uplinks: usize, up: &Direction, down: &Direction, seed: u64) -> io::Result<Self> {
        Self::build(&Layout {
            uplinks,
            place: Place::Alone,
            plan: [up.clone(), down.clone()],
            seed,
        })
    }

    /// Makes a home.
    ///
    /// # Errors
    /// What could not be made.
    pub fn build(layout: &Layout) -> io::Result<Self> {
        let client = Namespace::new("client")?;
        let server = Namespace::new("server")?;
        let middle = Namespace::new("middle")?;
        let (mut gateways, mut next_hops) = (Vec::<Namespace>::new(), Vec::new());
        let mut ends = Vec::new();
        for i in 0..layout.uplinks {
            let [wan, lan, c, s] = ["wan", "lan", "c", "s"].map(|n| format!("{n}{i}"));
            let [inner, outer] = ["in", "out"].map(|n| format!("{n}{i}"));
            let next_hop = match layout.place {
                Place::Alone => {
                    client.cable(&wan, &middle, &c)?;
                    server.cable(&lan, &middle, &s)?;
                    address(&server, &format!("10.77.{i}.2/24"), &lan)?;
                    address(&server, &format!("fd77:{i}::2/64"), &lan)?;
                    [format!("10.77.{i}.2"), format!("fd77:{i}::2")]
                }
                Place::BehindGateways => {
                    let gateway = Namespace::new("gateway")?;
                    client.cable(&wan, &gateway, &inner)?;
                    gateway.cable(&outer, &middle, &c)?;
                    server.cable(&lan, &middle, &s)?;
                    address(&gateway, &format!("10.77.{i}.254/24"), &inner)?;
                    address(&gateway, &format!("fd77:{i}::fe/64"), &inner)?;
                    lead_on(&gateway, &server, i)?;
                    gateways.push(gateway);
                    [format!("10.77.{i}.254"), format!("fd77:{i}::fe")]
                }
                Place::InHouse => {
                    if i == 0 {
                        let gateway = Namespace::new("gateway")?;
                        gateway.cable(&outer, &server, &lan)?;
                        lead_on(&gateway, &server, i)?;
                        gateways.push(gateway);
                    }
                    client.cable(&wan, &middle, &c)?;
                    gateways[0].cable(&inner, &middle, &s)?;
                    address(&gateways[0], "10.77.0.254/32", &inner)?;
                    address(&gateways[0], &format!("fd77:{i}::fe/64"), &inner)?;
                    let network = format!("10.77.{i}.0/24");
                    gateways[0].ip(&["route", "add", &network, "dev", &inner])?;
                    ["10.77.0.254".to_owned(), format!("fd77:{i}::fe")]
                }
            };
            address(&client, &format!("10.77.{i}.1/24"), &wan)?;
            address(&client, &format!("fd77:{i}::1/64"), &wan)?;
            // The server's own addresses, reached through every uplink by its interface.
            let servers = ["10.99.0.0/24", "fd99::/64"];
            route(&client, servers, &next_hop, &wan, 100 + i)?;
            if layout.place == Place::BehindGateways {
                let far = [format!("10.78.{i}.0/24"), format!("fd78:{i}::/64")];
                route(&client, [&far[0], &far[1]], &next_hop, &wan, 100)?;
            }
            if layout.place != Place::Alone {
                let near = [format!("10.77.{i}.0/24"), format!("fd77:{i}::/64")];
                let by = gateways.len() - 1;
                let back = [format!("10.78.{by}.1"), format!("fd78:{by}::1")];
                let lan = format!("lan{by}");
                route(&server, [&near[0], &near[1]], &back, &lan, 100)?;
            }
            next_hops.push(next_hop);
            ends.push(Ends {
                client: c,
                server: s,
                plan: layout.plan.clone(),
                seed: layout.seed ^ i as u64,
            });
        }
        for n in 1..=SERVERS {
            address(&server, &format!("10.99.0.{n}/32"), "lo")?;
            address(&server, &format!("fd99::{n}/128"), "lo")?;
        }
        Ok(Self {
            links: Link::start(Some(&middle), ends)?,
            client,
            server,
            gateways,
            next_hops,
            _middle: middle,
        })
    }

    /// Gives the server these IPv4 addresses as well, which default routes through all uplinks lead to.
    ///
    /// # Errors
    /// What could not be set.
    pub fn lead_to(&self, hosts: &[&str]) -> io::Result<()> {
        for host in hosts {
            address(&self.server, &format!("{host}/32"), "lo")?;
        }
        let default = |ns: &Namespace, via: &str, interface: &str, metric: usize| {
            let metric = metric.to_string();
            ns.ip(&[
                "route", "add", "default", "via", via, "dev", interface, "metric", &metric,
                "onlink",
            ])
        };
        for (i, [next_hop, _]) in self.next_hops.iter().enumerate() {
            default(&self.client, next_hop, &format!("wan{i}"), 100 + i)?;
        }
        for (i, gateway) in self.gateways.iter().enumerate() {
            default(gateway, &format!("10.78.{i}.2"), &format!("out{i}"), 100)?;
        }
        Ok(())
    }
}

/// Has `gateway` pass on to the server what is for its own addresses, through the interface `out{i}`, whose other end
/// is the server's `lan{i}`, or the line's.
fn lead_on(gateway: &Namespace, server: &Namespace, i: usize) -> io::Result<()> {
    let [lan, outer] = ["lan", "out"].map(|n| format!("{n}{i}"));
    gateway.forward()?;
    address(gateway, &format!("10.78.{i}.1/24"), &outer)?;
    address(gateway, &format!("fd78:{i}::1/64"), &outer)?;
    address(server, &format!("10.78.{i}.2/24"), &lan)?;
    address(server, &format!("fd78:{i}::2/64"), &lan)?;
    let far = [format!("10.78.{i}.2"), format!("fd78:{i}::2")];
    route(gateway, ["10.99.0.0/24", "fd99::/64"], &far, &outer, 100)
}

fn address(ns: &Namespace, address: &str, interface: &str) -> io::Result<()> {
    // Nobody else is on these cables, so IPv6 need not look for a second owner first.
    let fresh: &[&str] = if address.contains(':') {
        &["nodad"]
    } else {
        &[]
    };
    ns.ip(&[&["addr", "add", address, "dev", interface], fresh].concat())
}

/// Routes to an IPv4 and an IPv6 network.
fn route(
    ns: &Namespace,
    networks: [&str; 2],
    via: &[String; 2],
    interface: &str,
    metric: usize,
) -> io::Result<()> {
    for (network, via) in networks.iter().zip(via) {
        let metric = metric.to_string();
        ns.ip(&[
            "route", "add", network, "via", via, "dev", interface, "metric", &metric, "onlink",
        ])?;
    }
    Ok(())
}
