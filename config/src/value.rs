//! Durations, sizes, rates and addresses as people write them.

use std::net::{IpAddr, SocketAddr};

use bufferbane_core::limits::{MAX_LOAD_BPS, MIN_LOAD_BPS};
use bufferbane_core::stamp::Subnet;

const UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// A duration in ns: a whole number and one of ns, us, ms, s, m, h, d.
///
/// # Errors
/// What is wrong and what is allowed.
pub fn parse_duration(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("\"{text}\" is not a duration; write for example 500ms, 10s, 5m, 24h or 7d");
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let (_, ns) = UNITS.iter().find(|(u, _)| *u == unit).ok_or_else(wrong)?;
    number.checked_mul(*ns).ok_or_else(wrong)
}

/// A duration as [`parse_duration`] reads it, in the largest unit that keeps it whole.
#[must_use]
pub fn format_duration(ns: u64) -> String {
    let (unit, size) = UNITS
        .iter()
        .rev()
        .find(|(_, size)| ns > 0 && ns.is_multiple_of(*size))
        .unwrap_or(&UNITS[3]);
    format!("{}{unit}", ns / size)
}

/// A size in bytes: a whole number and one of B, KiB, MiB, GiB, TiB.
///
/// # Errors
/// What is wrong and what is allowed.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is not a size; write for example 100MiB or 2GiB");
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let shift = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// A rate in bit/s: a whole number and one of bit, kbit, Mbit, Gbit; not 0.
///
/// # Errors
/// What is wrong and what is allowed.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "bit" => 1,
        "kbit" => 1_000,
        "Mbit" => 1_000_000,
        "Gbit" => 1_000_000_000,
        _ => 0,
    };
    let rate = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    rate.filter(|r| *r > 0)
        .ok_or_else(|| format!("\"{text}\" is not a rate; write for example 100Mbit"))
}

/// A rate of datagrams of a throughput test, bit/s of UDP payload, as people write it.
///
/// # Errors
/// What is wrong and what is allowed.
pub fn parse_load_rate(text: &str) -> Result<u64, String> {
    let bps = parse_rate(text)?;
    check_load_rate(bps).map(|()| bps)
}

/// Whether datagrams of a throughput test may be asked for at this rate, bit/s of UDP payload.
///
/// # Errors
/// What is allowed.
pub fn check_load_rate(bps: u64) -> Result<(), String> {
    if (MIN_LOAD_BPS..=MAX_LOAD_BPS).contains(&bps) {
        return Ok(());
    }
    Err(format!(
        "{bps} bit/s over UDP is out of range; {}kbit to {}Gbit is allowed",
        MIN_LOAD_BPS / 1_000,
        MAX_LOAD_BPS / 1_000_000_000
    ))
}

/// An address with a port, or without one for `default_port`.
///
/// # Errors
/// What is wrong and what is allowed.
pub fn parse_address(text: &str, default_port: u16) -> Result<SocketAddr, String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, default_port));
    }
    text.parse().map_err(|_| {
        format!("\"{text}\" is not an address; write for example 0.0.0.0:{default_port} or [::]:{default_port}")
    })
}

/// An address, or one with the number of bits that count.
///
/// # Errors
/// What is wrong and what is allowed.
pub fn parse_subnet(text: &str) -> Result<Subnet, String> {
    let wrong =
        || format!("\"{text}\" is not an address or subnet; write for example 192.0.2.0/24");
    let (address, prefix) = match text.split_once('/') {
        Some((a, p)) => (a, Some(p)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => width,
        Some(p) => p.parse().ok().filter(|p| *p <= width).ok_or_else(wrong)?,
    };
    Ok(Subnet { address, prefix })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_of_datagrams_have_a_range() {
        assert_eq!(parse_load_rate("5Mbit"), Ok(5_000_000));
        for (bad, why) in [
            ("5", "write for example 100Mbit"),
            ("1kbit", "100kbit to 1Gbit"),
            ("2Gbit", "100kbit to 1Gbit"),
        ] {
            let said = parse_load_rate(bad).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn subnets_are_read_and_nonsense_is_not() {
        let prefix = |t| parse_subnet(t).map(|s| s.prefix);
        assert_eq!(prefix("192.0.2.7"), Ok(32));
        assert_eq!(prefix("2001:db8::/48"), Ok(48));
        assert_eq!(prefix("0.0.0.0/0"), Ok(0));
        for bad in ["192.0.2.0/33", "192.0.2/24", "::1/x", "", "/8"] {
            assert!(prefix(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn people_write_these() {
        assert_eq!(parse_duration("500ms"), Ok(500_000_000));
        assert_eq!(parse_duration("7d"), Ok(604_800_000_000_000));
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_address("[::1]", 9), Ok("[::1]:9".parse().unwrap()));
        assert_eq!(
            parse_address("192.0.2.1:7", 9),
            Ok("192.0.2.1:7".parse().unwrap())
        );
        for bad in [
            "",
            "5",
            "s",
            "-1s",
            "1.5s",
            "99999999999999999999d",
            "999999999999999d",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert!(parse_size("2GB").is_err());
        assert!(parse_address("example.net:5", 9).is_err());
        assert_eq!(format_duration(0), "0s");
    }

    proptest! {
        #[test]
        fn durations_round_trip(ns: u64) {
            prop_assert_eq!(parse_duration(&format_duration(ns)), Ok(ns));
        }
    }
}
