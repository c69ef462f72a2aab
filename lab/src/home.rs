//! A home with some uplinks, each its own line to the same server.
//!
//! ```text
//! client               (gateway i)              middle                    server
//!  wan{i} ──────────────────────────────── c{i} ══ links[i] ══ s{i} ── lan{i}   lo: 10.99.0.1 ..
//!  wan{i} ──── in{i}   forwards   out{i} ── c{i} ══ links[i] ══ s{i} ── lan{i}       fd99::1 ..
//! ```

use std::io;

use crate::link::{Direction, Ends, Link};
use crate::netns::Namespace;

/// How many addresses the server has on its loopback, which every uplink leads to: 10.99.0.1 and
/// fd99::1 and so on. To a client they are different hosts.
pub const SERVERS: usize = 4;

/// What a home looks like.
#[derive(Clone, Debug)]
pub struct Layout {
    /// How many uplinks there are.
    pub uplinks: usize,
    /// Whether a router of its own stands before each line, one hop from the client.
    pub gateways: bool,
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
    /// Between the client and line `i`, where there are any.
    pub gateways: Vec<Namespace>,
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
            gateways: false,
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
        let mut gateways = Vec::new();
        let mut ends = Vec::new();
        for i in 0..layout.uplinks {
            let [wan, lan, c, s] = ["wan", "lan", "c", "s"].map(|n| format!("{n}{i}"));
            server.cable(&lan, &middle, &s)?;
            let next_hop = if layout.gateways {
                let gateway = Namespace::new("gateway")?;
                gateway.forward()?;
                gateways.push(gateway);
                let gateway = &gateways[i];
                let [inner, outer] = ["in", "out"].map(|n| format!("{n}{i}"));
                client.cable(&wan, gateway, &inner)?;
                gateway.cable(&outer, &middle, &c)?;
                address(gateway, &format!("10.77.{i}.254/24"), &inner)?;
                address(gateway, &format!("fd77:{i}::fe/64"), &inner)?;
                address(gateway, &format!("10.78.{i}.1/24"), &outer)?;
                address(gateway, &format!("fd78:{i}::1/64"), &outer)?;
                address(&server, &format!("10.78.{i}.2/24"), &lan)?;
                address(&server, &format!("fd78:{i}::2/64"), &lan)?;
                let far = [format!("10.78.{i}.2"), format!("fd78:{i}::2")];
                route(gateway, ["10.99.0.0/24", "fd99::/64"], &far, &outer, 100)?;
                let near = [format!("10.77.{i}.0/24"), format!("fd77:{i}::/64")];
                let back = [format!("10.78.{i}.1"), format!("fd78:{i}::1")];
                route(&server, [&near[0], &near[1]], &back, &lan, 100)?;
                [format!("10.77.{i}.254"), format!("fd77:{i}::fe")]
            } else {
                client.cable(&wan, &middle, &c)?;
                address(&server, &format!("10.77.{i}.2/24"), &lan)?;
                address(&server, &format!("fd77:{i}::2/64"), &lan)?;
                [format!("10.77.{i}.2"), format!("fd77:{i}::2")]
            };
            address(&client, &format!("10.77.{i}.1/24"), &wan)?;
            address(&client, &format!("fd77:{i}::1/64"), &wan)?;
            // The server's own addresses, reached through every uplink by its interface.
            let servers = ["10.99.0.0/24", "fd99::/64"];
            route(&client, servers, &next_hop, &wan, 100 + i)?;
            if layout.gateways {
                let far = [format!("10.78.{i}.0/24"), format!("fd78:{i}::/64")];
                route(&client, [&far[0], &far[1]], &next_hop, &wan, 100)?;
            }
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
            _middle: middle,
        })
    }
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
            "route", "add", network, "via", via, "dev", interface, "metric", &metric,
        ])?;
    }
    Ok(())
}
