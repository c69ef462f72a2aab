//! A home with some uplinks, each its own line to the same server.

use std::io;

use crate::link::{Direction, Link};
use crate::netns::Namespace;

/// See the module.
pub struct Home {
    /// Uplink `i` is `links[i]`, interface `wan{i}` of the client.
    pub links: Vec<Link>,
    /// Where the daemon runs.
    pub client: Namespace,
    /// Where the reflector runs.
    pub server: Namespace,
    _middle: Namespace,
}

impl Home {
    /// Makes a home with `uplinks` lines that all begin as `up` and `down`.
    ///
    /// # Errors
    /// What could not be made.
    pub fn new(uplinks: usize, up: &Direction, down: &Direction, seed: u64) -> io::Result<Self> {
        let client = Namespace::new("client")?;
        let server = Namespace::new("server")?;
        let middle = Namespace::new("middle")?;
        let mut links = Vec::new();
        for i in 0..uplinks {
            let [wan, lan, c, s] = ["wan", "lan", "c", "s"].map(|n| format!("{n}{i}"));
            client.cable(&wan, &middle, &c)?;
            server.cable(&lan, &middle, &s)?;
            let link = Link::start(&middle, &c, &s, [up.clone(), down.clone()], seed ^ i as u64)?;
            links.push(link);
            client.ip(&["addr", "add", &format!("10.77.{i}.1/24"), "dev", &wan])?;
            server.ip(&["addr", "add", &format!("10.77.{i}.2/24"), "dev", &lan])?;
            // The server's own address, reached through every uplink by its interface.
            let gateway = format!("10.77.{i}.2");
            let metric = (100 + i).to_string();
            client.ip(&[
                "route",
                "add",
                "10.99.0.1/32",
                "via",
                &gateway,
                "dev",
                &wan,
                "metric",
                &metric,
            ])?;
        }
        server.ip(&["addr", "add", "10.99.0.1/32", "dev", "lo"])?;
        Ok(Self {
            links,
            client,
            server,
            _middle: middle,
        })
    }

    /// The server's address through uplink `i`.
    #[must_use]
    pub fn server_address(i: usize) -> String {
        format!("10.77.{i}.2")
    }
}
