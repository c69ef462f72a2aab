//! At which rates datagrams may be sent in place of streams.

use bufferbane_config::check_load_rate;
use serde::Deserialize;

use super::Kind;

/// Datagrams at a rate of its own each way, bit/s of UDP payload; 0 is none that way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UdpRates {
    /// From here to the reflector.
    pub up_bps: u64,
    /// From the reflector to here.
    pub down_bps: u64,
}

impl UdpRates {
    /// Which directions have one.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match (self.up_bps, self.down_bps) {
            (_, 0) => Kind::Up,
            (0, _) => Kind::Down,
            _ => Kind::Both,
        }
    }

    /// Whether it can be.
    pub(super) fn check(self) -> Result<(), String> {
        let rates = [self.up_bps, self.down_bps];
        if rates == [0; 2] {
            return Err("over UDP one direction needs a rate at least".into());
        }
        rates
            .into_iter()
            .filter(|bps| *bps > 0)
            .try_for_each(check_load_rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direction_without_a_rate_is_left_alone() {
        let rates = |up_bps, down_bps| UdpRates { up_bps, down_bps };
        for (rates, kind) in [
            (rates(100_000, 0), Kind::Up),
            (rates(0, 1_000_000_000), Kind::Down),
            (rates(5_000_000, 50_000_000), Kind::Both),
        ] {
            assert_eq!((rates.check(), rates.kind()), (Ok(()), kind));
        }
        assert!(rates(0, 0).check().is_err());
        for bad in [rates(99_999, 0), rates(100_000, 1_000_000_001)] {
            assert!(bad.check().unwrap_err().contains("100kbit to 1Gbit"));
        }
    }
}
