//! What tests that run by themselves load, one after the other.

use bufferbane_store::{LoadTest, Protocol};

use super::{Kind, TestWish, UdpRates};

/// What one of them is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Streams upward.
    Up,
    /// Streams downward.
    Down,
    /// Datagrams at the rates of the configuration.
    Udp,
}

impl Turn {
    /// What a test was.
    pub(super) fn of(test: &LoadTest) -> Self {
        match test.protocol {
            Protocol::Udp => Self::Udp,
            Protocol::Tcp if test.kind == Kind::Down.as_str() => Self::Down,
            Protocol::Tcp => Self::Up,
        }
    }

    /// What comes after `last`, the latest first: upward twice, then downward once, then datagrams where
    /// the configuration has rates for them.
    pub(super) fn after(last: [Option<Self>; 2], udp: Option<UdpRates>) -> Self {
        match last {
            [Some(Self::Up), Some(Self::Up)] => Self::Down,
            [Some(Self::Down), _] if udp.is_some() => Self::Udp,
            _ => Self::Up,
        }
    }

    /// How many there are until all begins anew.
    pub(super) const fn round(udp: Option<UdpRates>) -> usize {
        if udp.is_some() { 4 } else { 3 }
    }

    /// What is to be tested.
    pub(super) fn wish(self, udp: Option<UdpRates>) -> TestWish {
        let (direction, udp) = match self {
            Self::Up => (Some(Kind::Up), None),
            Self::Down => (Some(Kind::Down), None),
            Self::Udp => (None, udp),
        };
        TestWish {
            direction,
            udp,
            ..TestWish::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_has_its_turns_whatever_came_before_it() {
        let rates = UdpRates {
            up_bps: 5_000_000,
            down_bps: 50_000_000,
        };
        let turns = |mut last: [Option<Turn>; 2], udp: Option<UdpRates>| {
            [(); 8].map(|()| {
                let next = Turn::after(last, udp);
                last = [Some(next), last[0]];
                next
            })
        };
        use Turn::{Down, Udp, Up};
        assert_eq!(turns([None; 2], None), [Up, Up, Down, Up, Up, Down, Up, Up]);
        assert_eq!(
            turns([None; 2], Some(rates)),
            [Up, Up, Down, Udp, Up, Up, Down, Udp]
        );
        // They are no longer asked for, and now they are.
        assert_eq!(turns([Some(Udp), Some(Down)], None)[..3], [Up, Up, Down]);
        assert_eq!(turns([Some(Down), Some(Up)], Some(rates))[..2], [Udp, Up]);
        assert_eq!((Turn::round(None), Turn::round(Some(rates))), (3, 4));
        let wish = Udp.wish(Some(rates));
        assert_eq!((wish.udp, wish.kind()), (Some(rates), Kind::Both));
        assert_eq!(
            (Down.wish(Some(rates)).udp, Down.wish(None).kind()),
            (None, Kind::Down)
        );
    }

    #[test]
    fn a_test_of_before_is_known_for_what_it_was() {
        let test = |kind: &str, protocol| LoadTest {
            kind: kind.into(),
            protocol,
            ..LoadTest::default()
        };
        assert_eq!(Turn::of(&test("down", Protocol::Udp)), Turn::Udp);
        assert_eq!(Turn::of(&test("down", Protocol::Tcp)), Turn::Down);
        assert_eq!(Turn::of(&test("up", Protocol::Tcp)), Turn::Up);
    }
}
