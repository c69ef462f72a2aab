//! A line with a daemon at its near end and a reflector at its far end, both as they are shipped.

use std::net::SocketAddr;

use super::super::Fail;
use super::super::child::Program;
use super::super::setup::{Bench, wait_until};
use super::kernel::Shaped;
use super::{Row, Shape, line};
use crate::home::Home;
use crate::link::Way;
use crate::netns::Namespace;

/// See the module.
pub(super) struct Site {
    // Ended before what they run on goes.
    _daemon: Program,
    _reflector: Program,
    bench: Bench,
    medium: Medium,
}

enum Medium {
    Emulated(Box<Home>),
    Shaped(Shaped),
}

impl Medium {
    fn ends(&self) -> (&Namespace, &Namespace) {
        match self {
            Self::Emulated(home) => (&home.client, &home.server),
            Self::Shaped(shaped) => (&shaped.client, &shaped.server),
        }
    }

    fn reflector(&self) -> SocketAddr {
        match self {
            Self::Emulated(_) => ([10, 99, 0, 1], 9876).into(),
            Self::Shaped(_) => (Shaped::SERVER, 9876).into(),
        }
    }
}

impl Site {
    /// A line of this shape, with everything ready for a test.
    pub(super) fn new(shape: &Shape) -> Result<Self, Fail> {
        let medium = if shape.kernel {
            Medium::Shaped(Shaped::new(shape).map_err(|e| Fail::of("a shaping router", e))?)
        } else {
            let home = Home::new(1, &shape.up.direction(), &shape.down.direction(), 1);
            Medium::Emulated(Box::new(
                home.map_err(|e| Fail::of("the emulated line", e))?,
            ))
        };
        let bench = Bench::new()?;
        let (client, server) = medium.ends();
        let address = medium.reflector();
        let reflector = bench.reflector(address, Some(server), None)?;
        // Its own probes have another size than those of a test.
        let text = format!(
            "target = []\n[[interface]]\nname = \"wan0\"\n[[reflector]]\nname = \"lab\"\naddress = \"{address}\"\n\
             key_file = \"lab.key\"\ninterval = \"100ms\"\nsize = 200\nfamily = \"4\"\n\
             [throughput]\nevery = \"never\"\ntrain_budget = \"0\"\n"
        );
        let daemon = bench.daemon(&text, Some(client))?;
        let answered = || {
            let status = bench.status("daemon.sock").unwrap_or_default();
            let received = &status["status"]["series"][0]["total"]["received"];
            received.as_u64().unwrap_or(0) > 3
        };
        wait_until(answered);
        if !answered() {
            return Err(Fail::Failed(
                "the daemon has no answers over the line".into(),
            ));
        }
        Ok(Self {
            _daemon: daemon,
            _reflector: reflector,
            bench,
            medium,
        })
    }

    /// A test one way, against the line.
    pub(super) fn test(&self, shape: &Shape, way: Way, seconds: u64) -> Result<Row, Fail> {
        let socket = self.bench.path("daemon.sock");
        match &self.medium {
            Medium::Emulated(home) => line::hold(&home.links[0], &socket, way, seconds),
            Medium::Shaped(shaped) => shaped.hold(shape.lane(way), &socket, way, seconds),
        }
    }
}
