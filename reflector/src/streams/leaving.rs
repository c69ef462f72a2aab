//! What this host drops of datagrams of tests before they leave it: its own shaper is not the client's line.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bufferbane_core::load::host::{MAX_TESTS, TestHandle};
use bufferbane_core::time::Monotonic;
use bufferbane_core::wire::load::OP_LOAD;
use bufferbane_linux_io::netlink::{Leaving, Netlink, RouteQuery};

/// The kernel is asked no more often than this for one test, ns, however often its client orders.
const APART_NS: u64 = 100_000_000;

/// How datagrams leave for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) to: IpAddr,
    pub(super) from: Option<IpAddr>,
}

/// One test.
struct Sent {
    route: Route,
    /// The interface that it leads to.
    interface: Option<u32>,
    /// What had been dropped at the last order before the load.
    before: Option<Leaving>,
    is_loaded: bool,
    is_over: bool,
    /// When the kernel was asked last, and what came of it.
    asked: Monotonic,
    dropped: Option<u64>,
}

/// The tests over UDP that send from here, those that have just ended included.
#[derive(Default)]
pub(super) struct SentTests {
    netlink: Option<Netlink>,
    tests: BTreeMap<TestHandle, Sent>,
}

impl SentTests {
    /// An order with this `op` of a test came, or the one that opened it. Gives how many packets have been dropped
    /// since its load began, where that is known.
    pub(super) fn ordered(
        &mut self,
        now: Monotonic,
        test: TestHandle,
        op: u8,
        route: Route,
    ) -> Option<u64> {
        if !self.tests.contains_key(&test) && self.tests.len() >= MAX_TESTS {
            self.forget_one();
        }
        if self.netlink.is_none() {
            self.netlink = Netlink::open().ok();
        }
        let netlink = self.netlink.as_mut()?;
        let sent = self.tests.entry(test).or_insert_with(|| Sent {
            route,
            interface: interface(netlink, route),
            before: None,
            is_loaded: false,
            is_over: false,
            asked: Monotonic::ZERO,
            dropped: None,
        });
        let begins = op == OP_LOAD && !sent.is_loaded;
        let is_soon = now.saturating_since(sent.asked) < APART_NS;
        if is_soon && !begins && sent.route == route {
            return sent.dropped;
        }
        if sent.route != route {
            (sent.route, sent.interface) = (route, interface(netlink, route));
        }
        let leaving = sent.interface.and_then(|i| netlink.leaving(i).ok());
        sent.asked = now;
        sent.is_loaded |= begins;
        if sent.is_loaded {
            sent.dropped = since(leaving.as_ref(), sent.before.as_ref());
        } else {
            sent.before = leaving;
        }
        sent.dropped
    }

    /// A test is over: it is asked about for its last figures at most.
    pub(super) fn end(&mut self, test: TestHandle) {
        if let Some(sent) = self.tests.get_mut(&test) {
            sent.is_over = true;
        }
    }

    /// Makes room: what is over goes first, then the one that nobody has asked about for longest.
    fn forget_one(&mut self) {
        let tests = self.tests.iter();
        let oldest = tests.min_by_key(|(test, sent)| (!sent.is_over, sent.asked, **test));
        if let Some(test) = oldest.map(|(test, _)| *test) {
            self.tests.remove(&test);
        }
    }
}

fn since(now: Option<&Leaving>, before: Option<&Leaving>) -> Option<u64> {
    now?.dropped_since(before?)
}

fn interface(netlink: &mut Netlink, route: Route) -> Option<u32> {
    let query = RouteQuery {
        from: route.from,
        ..RouteQuery::to(route.to)
    };
    let found = netlink.route_for(&query).ok().flatten();
    found.map(|r| r.interface)
}

#[cfg(test)]
mod tests {
    use bufferbane_core::wire::load::{OP_OPEN, OP_POLL, OP_STOP};

    use super::*;

    #[test]
    fn drops_are_those_since_the_last_order_before_the_load() {
        let mut tests = SentTests::default();
        let local = Route {
            to: [127, 0, 0, 1].into(),
            from: None,
        };
        let first = TestHandle(1);
        let at = |ms: u64| Monotonic::from_nanos(ms * 1_000_000);
        for (ms, op, dropped) in [
            (1000, OP_OPEN, None),
            (1250, OP_POLL, None),
            (1251, OP_POLL, None),
            // Loopback drops nothing.
            (1252, OP_LOAD, Some(0)),
            (1500, OP_POLL, Some(0)),
            (1501, OP_STOP, Some(0)),
            (1750, OP_STOP, Some(0)),
        ] {
            assert_eq!(tests.ordered(at(ms), first, op, local), dropped, "{op}");
        }
        // Of what was loaded before anybody looked nobody knows.
        let late = at(2000);
        assert_eq!(tests.ordered(late, TestHandle(2), OP_LOAD, local), None);
        // Nor of what leaves elsewhere now.
        let nowhere = Route {
            to: [192, 0, 2, 1].into(),
            from: Some([192, 0, 2, 2].into()),
        };
        assert_eq!(tests.ordered(late, first, OP_POLL, nowhere), None);
    }

    #[test]
    fn however_many_there_are_few_are_remembered_and_those_that_run() {
        let mut tests = SentTests::default();
        let local = Route {
            to: [127, 0, 0, 1].into(),
            from: None,
        };
        let at = |s: u64| Monotonic::from_nanos(s * 1_000_000_000);
        // The first one has the smallest handle, and goes on; of the others all but the second end at once.
        let (first, second) = (TestHandle(1), TestHandle(2));
        for test in 1..100 {
            tests.ordered(at(test.into()), TestHandle(test), OP_OPEN, local);
            if test > 2 {
                tests.end(TestHandle(test));
            }
        }
        assert_eq!(tests.tests.len(), MAX_TESTS);
        assert!(tests.tests.contains_key(&TestHandle(99)));
        assert_eq!(tests.ordered(at(100), first, OP_LOAD, local), Some(0));
        // Where none is over, the one that was asked about longest ago gives way: of these, the second.
        for test in 100..99 + MAX_TESTS as u32 {
            tests.ordered(at(test.into()), TestHandle(test), OP_OPEN, local);
        }
        assert!(tests.tests.contains_key(&first) && !tests.tests.contains_key(&second));
        assert_eq!(tests.ordered(at(200), first, OP_POLL, local), Some(0));
    }
}
