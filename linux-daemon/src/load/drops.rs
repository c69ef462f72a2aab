//! What the hosts at both ends of a test dropped themselves, which the line did not lose.

use bufferbane_linux_io::netlink::{Leaving, Netlink};

/// What the hosts dropped, of whatever kind: nobody knows which they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    /// Datagrams that had arrived.
    pub(super) here: u64,
    pub(super) at_reflector: u64,
    /// Packets that had not left yet; `None`: nobody knows.
    pub(super) leaving_here: Option<u64>,
    pub(super) leaving_reflector: Option<u64>,
}

/// Looks at what this host drops of what is to leave by an interface.
#[derive(Debug)]
pub(super) struct Departures {
    interface: u32,
    before: Option<Leaving>,
}

impl Departures {
    /// From now on.
    pub(super) fn look(interface: u32) -> Self {
        Self {
            interface,
            before: read(interface),
        }
    }

    /// Packets that were dropped since; `None`: nobody knows.
    pub(super) fn dropped(&self) -> Option<u64> {
        read(self.interface)?.dropped_since(self.before.as_ref()?)
    }
}

fn read(interface: u32) -> Option<Leaving> {
    Netlink::open().and_then(|mut n| n.leaving(interface)).ok()
}

/// Counts them.
#[derive(Debug, Default)]
pub(super) struct Drops {
    /// The socket's own count as the latest datagram told it; the kernel counts from 0, and wraps.
    of_socket: u32,
    all: Dropped,
    before_load: Dropped,
}

impl Drops {
    /// A datagram came, with the socket's own count. Says whether others were dropped before it.
    pub(super) fn arrived(&mut self, of_socket: u32) -> bool {
        let rise = of_socket.wrapping_sub(self.of_socket);
        self.of_socket = of_socket;
        self.all.here += u64::from(rise);
        rise > 0
    }

    /// An echo says that the reflector has dropped so many more.
    pub(super) fn at_reflector(&mut self, more: u32) {
        self.all.at_reflector += u64::from(more);
    }

    /// What was dropped so far was none of the load.
    pub(super) fn begin_load(&mut self) {
        self.before_load = self.all;
    }

    /// Of what had arrived, since the load began, and after its end: what stood in a queue then may still be dropped.
    pub(super) fn since_load(&self) -> Dropped {
        Dropped {
            leaving_here: None,
            leaving_reflector: None,
            here: self.all.here - self.before_load.here,
            at_reflector: self.all.at_reflector - self.before_load.at_reflector,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_interface_that_is_there_drops_are_known_and_of_no_other() {
        assert_eq!(Departures::look(1).dropped(), Some(0), "loopback");
        assert_eq!(Departures::look(0x7fff_fff0).dropped(), None);
    }

    #[test]
    fn drops_of_the_load_are_counted_for_each_end() {
        let mut drops = Drops::default();
        assert!(!drops.arrived(0) && drops.arrived(u32::MAX));
        drops.at_reflector(3);
        drops.begin_load();
        assert_eq!(drops.since_load(), Dropped::default());
        // The kernel's count wraps.
        assert!(drops.arrived(4) && !drops.arrived(4));
        drops.at_reflector(2);
        let expected = Dropped {
            here: 5,
            at_reflector: 2,
            ..Dropped::default()
        };
        assert_eq!(drops.since_load(), expected);
    }
}
