//! Tests that run, and who may connect for them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bufferbane_core::load::host::{MAX_TESTS, TestHandle};
use bufferbane_linux_io::admission::{self, Prefix};

/// Addresses that are let in for a test, the latest: a client may move to another, and tests in all
/// are at most sixteen.
const ADDRESSES_PER_TEST: usize = 2;
/// With the prefix that each may have announced they fit the filter.
const _: () = assert!(MAX_TESTS * (ADDRESSES_PER_TEST + 1) <= admission::MAX_ADMITTED);

/// What a test is made of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// Of TCP streams, from where its client's orders come and from what that announced.
    Streams(Option<Prefix>),
    /// Of datagrams: nobody connects.
    Datagrams,
}

#[derive(Debug)]
struct Test {
    load: Load,
    /// Where orders came from that were proven to, the latest last; none of a test over UDP.
    addresses: Vec<IpAddr>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Granted(BTreeMap<TestHandle, Test>);

impl Granted {
    pub(super) fn knows(&self, test: TestHandle) -> bool {
        self.0.contains_key(&test)
    }

    pub(super) fn begin(&mut self, test: TestHandle, load: Load) {
        let addresses = Vec::new();
        self.0.insert(test, Test { load, addresses });
    }

    /// An order of a test that runs came from here, where its client has proved to be. Says whether others may
    /// connect now than before.
    pub(super) fn ordered_from(&mut self, test: TestHandle, address: IpAddr) -> bool {
        let Some(test) = self.0.get_mut(&test) else {
            return false;
        };
        if test.load == Load::Datagrams || test.addresses.contains(&address) {
            return false;
        }
        if test.addresses.len() >= ADDRESSES_PER_TEST {
            test.addresses.remove(0);
        }
        test.addresses.push(address);
        true
    }

    /// A test has ended; gives what it was made of.
    pub(super) fn end(&mut self, test: TestHandle) -> Option<Load> {
        self.0.remove(&test).map(|t| t.load)
    }

    /// Who may connect: nobody as long as a client has proved to be nowhere.
    pub(super) fn admitted(&self) -> Vec<Prefix> {
        let mut all = Vec::new();
        for test in self.0.values().filter(|t| !t.addresses.is_empty()) {
            all.extend(test.addresses.iter().map(|a| Prefix::only(*a)));
            if let Load::Streams(announced) = &test.load {
                all.extend(announced);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn only(last: u8) -> Prefix {
        Prefix::only(address(last))
    }

    #[test]
    fn the_latest_addresses_of_a_test_and_what_it_announced_are_let_in_until_its_end() {
        let announced = Prefix::new([198, 51, 100, 0].into(), 24).unwrap();
        let (first, second) = (TestHandle(1), TestHandle(2));
        let mut granted = Granted::default();
        granted.begin(first, Load::Streams(Some(announced)));
        granted.begin(second, Load::Streams(None));
        assert!(
            granted.admitted().is_empty(),
            "nobody proved to be anywhere"
        );
        for (last, others) in [(1, true), (1, false), (2, true), (3, true), (2, false)] {
            assert_eq!(granted.ordered_from(first, address(last)), others, "{last}");
        }
        assert!(granted.ordered_from(second, address(2)));
        let all = [only(2), only(3), announced, only(2)];
        assert_eq!(granted.admitted(), all);
        assert_eq!(granted.end(first), Some(Load::Streams(Some(announced))));
        assert_eq!(granted.admitted(), [only(2)]);
        // What comes after the end lets nobody in.
        assert!(!granted.ordered_from(first, address(1)));
        assert_eq!(granted.end(second), Some(Load::Streams(None)));
        assert_eq!((granted.admitted(), granted.0.len()), (Vec::new(), 0));
    }

    #[test]
    fn nobody_is_let_in_for_a_test_over_udp_and_nothing_stays_of_it() {
        let (udp, tcp) = (TestHandle(1), TestHandle(2));
        let mut granted = Granted::default();
        granted.begin(udp, Load::Datagrams);
        granted.begin(tcp, Load::Streams(None));
        assert!(granted.ordered_from(tcp, address(2)));
        assert!(!granted.ordered_from(udp, address(1)) && granted.knows(udp));
        assert_eq!(granted.admitted(), [only(2)]);
        assert_eq!(granted.end(udp), Some(Load::Datagrams));
        assert!(!granted.knows(udp) && !granted.ordered_from(udp, address(1)));
        assert_eq!(granted.end(udp), None);
        assert_eq!(granted.admitted(), [only(2)]);
    }
}
