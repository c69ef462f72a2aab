//! What a Wi-Fi interface knows of its access point, from the kernel's nl80211 (`linux/nl80211.h`) over
//! generic netlink. Needs no privilege.

use std::io;

use super::message::{Attributes, NLM_F_DUMP, Request, number};
use super::{Netlink, open_socket};
use crate::sockaddr::take;

/// The family that knows the numbers of the others.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// `struct genlmsghdr`: command, version, two bytes reserved.
const GENL_HEADER: usize = 4;

const NL80211_CMD_GET_INTERFACE: u8 = 5;
const NL80211_CMD_GET_STATION: u8 = 17;
const NL80211_ATTR_IFINDEX: u16 = 3;
const NL80211_ATTR_IFTYPE: u16 = 5;
const IFTYPE_STATION: u32 = 2;
const IFTYPE_P2P_CLIENT: u32 = 8;
const NL80211_ATTR_STA_INFO: u16 = 21;
const STA_INFO_SIGNAL: u16 = 7;
const STA_INFO_TX_BITRATE: u16 = 8;
const STA_INFO_RX_BITRATE: u16 = 14;
const RATE_INFO_BITRATE: u16 = 1;
const RATE_INFO_BITRATE32: u16 = 5;
/// What the kernel counts bit rates in, bit/s.
const RATE_UNIT_BPS: u64 = 100_000;

/// How the other end of a wireless link is heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Station {
    /// Strength of the last frame from it, dBm: -30 is close by, below -75 trouble begins.
    pub signal_dbm: Option<i8>,
    /// The rate of the last frame sent to it, bit/s: what the radio chose; programs get less.
    pub up_bps: Option<u64>,
    /// The rate of the last frame from it, bit/s.
    pub down_bps: Option<u64>,
}

/// A connection to the kernel's wireless drivers.
#[derive(Debug)]
pub struct Wireless {
    netlink: Netlink,
    family: u16,
}

impl Wireless {
    /// Opens one in this thread's network namespace.
    ///
    /// # Errors
    /// ENOENT where this kernel has no wireless drivers loaded.
    pub fn open() -> io::Result<Self> {
        let mut netlink = Netlink::connected(open_socket(libc::NETLINK_GENERIC, 0)?)?;
        let mut request = Request::new(
            GENL_ID_CTRL,
            0,
            netlink.next_sequence(),
            [CTRL_CMD_GETFAMILY, 1, 0, 0],
        )
        .attribute(CTRL_ATTR_FAMILY_NAME, b"nl80211\0");
        let mut found = None;
        netlink.exchange(&mut request, &mut found, |f, m| *f = family(m.body))?;
        let family = found.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Self { netlink, family })
    }

    /// The access point that the interface with this index is connected to; `None` where it is connected to
    /// none, or is an access point itself or one of several peers. Waits for the driver, which may take its
    /// time when the card is in trouble.
    ///
    /// # Errors
    /// ENODEV where the interface is gone or not wireless; another where the drivers were loaded anew, and
    /// this connection is to be opened anew too.
    pub fn access_point(&mut self, index: u32) -> io::Result<Option<Station>> {
        let mut request = Request::new(
            self.family,
            0,
            self.netlink.next_sequence(),
            [NL80211_CMD_GET_INTERFACE, 0, 0, 0],
        )
        .attribute(NL80211_ATTR_IFINDEX, &index.to_ne_bytes());
        let mut kind = None;
        self.netlink
            .exchange(&mut request, &mut kind, |k, m| *k = interface_type(m.body))?;
        if !matches!(kind, Some(IFTYPE_STATION | IFTYPE_P2P_CLIENT)) {
            return Ok(None);
        }
        let mut request = Request::new(
            self.family,
            NLM_F_DUMP,
            self.netlink.next_sequence(),
            [NL80211_CMD_GET_STATION, 0, 0, 0],
        )
        .attribute(NL80211_ATTR_IFINDEX, &index.to_ne_bytes());
        let mut found = (0, None);
        self.netlink
            .exchange(&mut request, &mut found, |(count, last), m| {
                *count += 1;
                *last = station(m.body);
            })?;
        Ok(match found {
            (1, station) => station,
            _ => None,
        })
    }
}

fn attributes(body: &[u8]) -> Attributes<'_> {
    Attributes(body.get(GENL_HEADER..).unwrap_or_default())
}

/// The number that a family's messages have as their type.
pub(super) fn family(body: &[u8]) -> Option<u16> {
    let id = |(kind, data)| (kind == CTRL_ATTR_FAMILY_ID).then(|| take(data, 0));
    attributes(body)
        .find_map(id)
        .flatten()
        .map(u16::from_ne_bytes)
}

/// What part an interface plays (`enum nl80211_iftype`).
pub(super) fn interface_type(body: &[u8]) -> Option<u32> {
    let (_, data) = attributes(body).find(|(kind, _)| *kind == NL80211_ATTR_IFTYPE)?;
    number(data)
}

/// What a message says of a station; `None` where it says nothing of one.
pub(super) fn station(body: &[u8]) -> Option<Station> {
    let (_, info) = attributes(body).find(|(kind, _)| *kind == NL80211_ATTR_STA_INFO)?;
    let mut station = Station::default();
    for (kind, data) in Attributes(info) {
        match kind {
            STA_INFO_SIGNAL => station.signal_dbm = data.first().map(|b| b.cast_signed()),
            STA_INFO_TX_BITRATE => station.up_bps = rate_bps(data),
            STA_INFO_RX_BITRATE => station.down_bps = rate_bps(data),
            _ => {}
        }
    }
    Some(station)
}

/// The bit rate of a `nl80211_rate_info`; the wide form where there are both.
fn rate_bps(info: &[u8]) -> Option<u64> {
    let mut units = None;
    for (kind, data) in Attributes(info) {
        match kind {
            RATE_INFO_BITRATE32 => units = number(data).map(u64::from),
            RATE_INFO_BITRATE if units.is_none() => {
                units = take(data, 0).map(|b| u64::from(u16::from_ne_bytes(b)));
            }
            _ => {}
        }
    }
    units
        .filter(|n| *n > 0)
        .map(|n| n.saturating_mul(RATE_UNIT_BPS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, data: &[u8]) -> Vec<u8> {
        let mut bytes = ((4 + data.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// A message as `linux/nl80211.h` describes it: -61 dBm, 866.7 Mbit/s up by the wide form (the narrow
    /// one says something else), 54 Mbit/s down by the narrow one alone.
    #[test]
    fn a_station_is_read_with_either_form_of_rates() {
        let up = [
            attribute(RATE_INFO_BITRATE, &540u16.to_ne_bytes()),
            attribute(RATE_INFO_BITRATE32, &8667u32.to_ne_bytes()),
        ];
        let down = attribute(RATE_INFO_BITRATE, &540u16.to_ne_bytes());
        let info = [
            attribute(STA_INFO_SIGNAL, &[0xc3]),
            attribute(STA_INFO_TX_BITRATE | 0x8000, &up.concat()),
            attribute(STA_INFO_RX_BITRATE, &down),
        ];
        let mut body = vec![19, 1, 0, 0];
        body.extend(attribute(NL80211_ATTR_IFINDEX, &3u32.to_ne_bytes()));
        assert_eq!((station(&body), interface_type(&body)), (None, None));
        body.extend(attribute(NL80211_ATTR_IFTYPE, &2u32.to_ne_bytes()));
        assert_eq!(interface_type(&body), Some(IFTYPE_STATION));
        body.extend(attribute(NL80211_ATTR_STA_INFO | 0x8000, &info.concat()));
        let expected = Station {
            signal_dbm: Some(-61),
            up_bps: Some(866_700_000),
            down_bps: Some(54_000_000),
        };
        assert_eq!(station(&body), Some(expected));
        for len in 0..body.len() {
            let _ = station(&body[..len]);
        }
    }

    /// Of any kernel: it knows the family or says that it does not, and loopback is no radio.
    #[test]
    fn the_kernel_answers_or_has_no_wireless_drivers() {
        match Wireless::open() {
            Ok(mut wireless) => assert!(!matches!(wireless.access_point(1), Ok(Some(_)))),
            Err(e) => assert_eq!(e.raw_os_error(), Some(libc::ENOENT), "{e}"),
        }
    }
}
