//! Who stamps an interface's packets: its network card where that stamps every packet by a clock that
//! can be read, else the kernel.
//!
//! A card's stamps are free of what the host does between driver and program, and of the interrupt's
//! delay. They are taken for both directions or for none, since half of them would put the difference
//! of two kinds of stamp into every round trip. A card is switched on only after its clock could be
//! read, and never where another program (a PTP daemon) has set it to something else.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;

use socket2::{Domain, Socket, Type};

pub use crate::card::CardClock;
use crate::sys;

/// What an interface can stamp (`ETHTOOL_GET_TS_INFO`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StampSupport {
    /// Its driver stamps what leaves; without, transmit stamps never come.
    pub software_transmit: bool,
    /// The kernel stamps what arrives; practically always.
    pub software_receive: bool,
    /// The card can stamp whatever leaves.
    pub hardware_transmit: bool,
    /// The card can stamp something of what arrives.
    pub hardware_receive: bool,
    /// It can stamp everything that arrives, not only packets of PTP.
    pub hardware_receives_all: bool,
    /// The number of the card's clock, `/dev/ptpN`.
    pub hardware_clock: Option<u32>,
}

impl StampSupport {
    /// Whether the card can stamp every packet in both directions.
    #[must_use]
    pub const fn card_stamps_all(&self) -> bool {
        self.hardware_transmit && self.hardware_receives_all && self.hardware_clock.is_some()
    }
}

/// What a card is set to (`struct hwtstamp_config`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CardSetting {
    flags: i32,
    transmit: i32,
    receive: i32,
}

/// `HWTSTAMP_TX_ON` and `HWTSTAMP_FILTER_ALL`.
const ON: CardSetting = CardSetting {
    flags: 0,
    transmit: 1,
    receive: 1,
};
/// `HWTSTAMP_TX_OFF` and `HWTSTAMP_FILTER_NONE`.
const OFF: CardSetting = CardSetting {
    flags: 0,
    transmit: 0,
    receive: 0,
};

impl CardSetting {
    const fn stamps(self, what: Self) -> bool {
        self.transmit == what.transmit && self.receive == what.receive
    }
}

/// Who stamps.
#[derive(Debug)]
pub enum Stamping<C = CardClock> {
    /// The card, by the clock `/dev/ptpN`.
    Card {
        /// That clock, open.
        clock: C,
        /// N.
        number: u32,
    },
    /// The kernel, for this reason.
    Kernel(Reason),
}

/// Why a card's stamps are not used.
#[derive(Debug)]
pub enum Reason {
    /// The driver does not answer.
    NoAnswer(io::Error),
    /// The card cannot stamp.
    CannotStamp,
    /// It stamps PTP only, or has no clock that can be read.
    NotEveryPacket,
    /// Its clock `/dev/ptpN` cannot be opened.
    ClockClosed(u32, io::Error),
    /// Another program has set it to stamp something else.
    InUse,
    /// It is off, and was not asked to be switched on.
    Off,
    /// It is off, and may not be switched on.
    NotAllowed(io::Error),
    /// Several cards could stamp what one socket receives, each by a clock of its own.
    SeveralCards,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer(e) => write!(f, "the driver does not say what it can stamp: {e}"),
            Self::CannotStamp => f.write_str("the network card cannot"),
            Self::NotEveryPacket => f.write_str("the network card stamps packets of PTP only"),
            Self::ClockClosed(n, e) => write!(
                f,
                "the network card could, but its clock /dev/ptp{n} cannot be read: {e}; the unit's \
                 comments say how"
            ),
            Self::InUse => {
                f.write_str("another program (a PTP daemon?) has set what the network card stamps")
            }
            Self::Off => f.write_str("the network card could, but does not at present"),
            Self::NotAllowed(e) => write!(
                f,
                "the network card could, but may not be told to: {e}; that takes CAP_NET_ADMIN, or once \
                 after each boot hwstamp_ctl -t 1 -r 1 -i INTERFACE"
            ),
            Self::SeveralCards => f.write_str("several network cards could, each by its own clock"),
        }
    }
}

impl<C> fmt::Display for Stamping<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Card { number, .. } => {
                write!(f, "by the network card, whose clock is /dev/ptp{number}")
            }
            Self::Kernel(why) => write!(f, "by the kernel: {why}"),
        }
    }
}

/// What is asked of a driver; in tests, answers that were written down.
trait Driver {
    type Clock;
    fn support(&mut self) -> io::Result<StampSupport>;
    fn setting(&mut self) -> io::Result<CardSetting>;
    /// Gives what the driver made of `wanted`.
    fn set(&mut self, wanted: CardSetting) -> io::Result<CardSetting>;
    fn open_clock(&mut self, number: u32) -> io::Result<Self::Clock>;
}

/// Decides who stamps what passes `interface`; where `switch_on`, a card that can stamp everything and
/// is off is switched on. That holds for all programs on the host until it is changed again.
#[must_use]
pub fn choose(interface: &str, switch_on: bool) -> Stamping {
    decide(&mut Interface(interface), switch_on)
}

/// The same for a socket that is reached through any of `interfaces`: a card only where no other could
/// stamp too, since a stamp does not say by which clock it is.
#[must_use]
pub fn choose_among<'a>(interfaces: impl Iterator<Item = &'a str>) -> Stamping {
    let can = |name: &&str| stamp_support(name).is_ok_and(|s| s.hardware_receive);
    let mut cards = interfaces.filter(can);
    match (cards.next(), cards.next()) {
        (None, _) => Stamping::Kernel(Reason::CannotStamp),
        (Some(name), None) => choose(name, true),
        (Some(_), Some(_)) => Stamping::Kernel(Reason::SeveralCards),
    }
}

fn decide<D: Driver>(driver: &mut D, switch_on: bool) -> Stamping<D::Clock> {
    let kernel = |why| Stamping::Kernel(why);
    let support = match driver.support() {
        Ok(support) => support,
        Err(e) => return kernel(Reason::NoAnswer(e)),
    };
    if !support.hardware_transmit || !support.hardware_receive {
        return kernel(Reason::CannotStamp);
    }
    let Some(number) = support.hardware_clock.filter(|_| support.card_stamps_all()) else {
        return kernel(Reason::NotEveryPacket);
    };
    let clock = match driver.open_clock(number) {
        Ok(clock) => clock,
        Err(e) => return kernel(Reason::ClockClosed(number, e)),
    };
    let now = match driver.setting() {
        Ok(setting) => setting,
        Err(e) => return kernel(Reason::NoAnswer(e)),
    };
    if now.stamps(ON) {
        return Stamping::Card { clock, number };
    }
    if !now.stamps(OFF) {
        return kernel(Reason::InUse);
    }
    if !switch_on {
        return kernel(Reason::Off);
    }
    match driver.set(ON) {
        Ok(made) if made.stamps(ON) => Stamping::Card { clock, number },
        // A driver may do less than it says it can, and tells in its answer.
        Ok(_) => kernel(Reason::NotEveryPacket),
        Err(e) => kernel(Reason::NotAllowed(e)),
    }
}

/// `struct ethtool_ts_info`.
#[repr(C)]
#[derive(Default)]
struct StampInformation {
    command: u32,
    flags: u32,
    clock: i32,
    transmit_types: u32,
    transmit_reserved: [u32; 3],
    receive_filters: u32,
    receive_reserved: [u32; 3],
}

const ETHTOOL_GET_TS_INFO: u32 = 0x41;
const SIOCETHTOOL: u64 = 0x8946;
const SIOCSHWTSTAMP: u64 = 0x89b0;
const SIOCGHWTSTAMP: u64 = 0x89b1;

/// Asks an interface's driver what can be stamped.
pub fn stamp_support(interface: &str) -> io::Result<StampSupport> {
    let mut information = StampInformation {
        command: ETHTOOL_GET_TS_INFO,
        clock: -1,
        ..StampInformation::default()
    };
    ask_driver(interface, SIOCETHTOOL, &mut information)?;
    Ok(information.read())
}

impl StampInformation {
    fn read(&self) -> StampSupport {
        let has = |flag: u32| self.flags & flag == flag;
        let raw = has(sys::SOF_TIMESTAMPING_RAW_HARDWARE);
        // `transmit_types` and `receive_filters` have the bits of what a setting has the numbers of.
        let of = |bits: u32, number: i32| bits & 1 << number != 0;
        StampSupport {
            software_transmit: has(sys::SOF_TIMESTAMPING_TX_SOFTWARE),
            software_receive: has(sys::SOF_TIMESTAMPING_RX_SOFTWARE),
            hardware_transmit: raw
                && has(sys::SOF_TIMESTAMPING_TX_HARDWARE)
                && of(self.transmit_types, ON.transmit),
            hardware_receive: raw && has(sys::SOF_TIMESTAMPING_RX_HARDWARE),
            hardware_receives_all: raw && of(self.receive_filters, ON.receive),
            hardware_clock: u32::try_from(self.clock).ok(),
        }
    }
}

/// The driver of an interface of this host.
struct Interface<'a>(&'a str);

impl Driver for Interface<'_> {
    type Clock = CardClock;

    fn support(&mut self) -> io::Result<StampSupport> {
        stamp_support(self.0)
    }

    fn setting(&mut self) -> io::Result<CardSetting> {
        let mut setting = CardSetting::default();
        ask_driver(self.0, SIOCGHWTSTAMP, &mut setting)?;
        Ok(setting)
    }

    fn set(&mut self, wanted: CardSetting) -> io::Result<CardSetting> {
        let mut setting = wanted;
        ask_driver(self.0, SIOCSHWTSTAMP, &mut setting)?;
        Ok(setting)
    }

    fn open_clock(&mut self, number: u32) -> io::Result<CardClock> {
        CardClock::open(number)
    }
}

/// An ioctl on an interface whose argument is a plain structure.
fn ask_driver<T>(interface: &str, command: u64, data: &mut T) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // SAFETY: ifreq is integers and pointers, for which zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(data).cast();
    // SAFETY: the request names an interface and points to a structure of the kind that the callers'
    // commands expect; both live until the call returns.
    sys::check(unsafe { libc::ioctl(socket.as_raw_fd(), command as _, &raw mut request) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `ethtool -T` shows of three kinds of card: the numbers are what their drivers answer.
    fn card(flags: u32, transmit_types: u32, receive_filters: u32, clock: i32) -> Recorded {
        let information = StampInformation {
            flags,
            clock,
            transmit_types,
            receive_filters,
            ..StampInformation::default()
        };
        Recorded {
            support: Some(information.read()),
            setting: OFF,
            answer: Ok(ON),
            clock: Ok(()),
            set: 0,
        }
    }

    /// Intel I210 (igb): all flags, transmit off and on, receive none and all.
    fn i210() -> Recorded {
        card(0x5f, 0b11, 0b11, 0)
    }

    struct Recorded {
        support: Option<StampSupport>,
        setting: CardSetting,
        /// To a setting; an errno where it is refused.
        answer: Result<CardSetting, i32>,
        clock: Result<(), i32>,
        /// How often it was set.
        set: u32,
    }

    impl Driver for Recorded {
        type Clock = ();
        fn support(&mut self) -> io::Result<StampSupport> {
            self.support
                .ok_or_else(|| io::Error::from_raw_os_error(libc::EOPNOTSUPP))
        }
        fn setting(&mut self) -> io::Result<CardSetting> {
            Ok(self.setting)
        }
        fn set(&mut self, wanted: CardSetting) -> io::Result<CardSetting> {
            assert_eq!(wanted, ON);
            self.set += 1;
            self.answer.map_err(io::Error::from_raw_os_error)
        }
        fn open_clock(&mut self, _: u32) -> io::Result<()> {
            self.clock.map_err(io::Error::from_raw_os_error)
        }
    }

    /// Whether the card stamps then, in how many settings, and what is said.
    fn decided(mut driver: Recorded, switch_on: bool) -> (bool, u32, String) {
        let stamping = decide(&mut driver, switch_on);
        let by_card = matches!(stamping, Stamping::Card { .. });
        (by_card, driver.set, stamping.to_string())
    }

    #[test]
    fn a_card_that_stamps_everything_is_switched_on_once_its_clock_is_open() {
        let (by_card, set, said) = decided(i210(), true);
        assert!(by_card && set == 1, "{said}");
        let on = Recorded {
            setting: ON,
            answer: Err(libc::EPERM),
            ..i210()
        };
        let (by_card, set, said) = decided(on, true);
        assert!(by_card && set == 0, "{said}");
        assert!(said.contains("/dev/ptp0"), "{said}");
    }

    #[test]
    fn otherwise_the_kernel_stamps_and_the_card_is_left_alone() {
        let ptp_daemon = CardSetting { receive: 12, ..ON };
        for (driver, said) in [
            // Without a clock of its own: a veth, a bridge, a modem's Ethernet over USB.
            (card(0x1a, 0, 0, -1), "cannot"),
            // Realtek and many ARM boards' controllers: packets of PTP only.
            (card(0x5f, 0b11, 0b1001000000001, 1), "PTP only"),
            (
                Recorded {
                    clock: Err(libc::ENOENT),
                    ..i210()
                },
                "/dev/ptp0",
            ),
            (
                Recorded {
                    setting: ptp_daemon,
                    ..i210()
                },
                "another program",
            ),
            (
                Recorded {
                    support: None,
                    ..i210()
                },
                "does not say",
            ),
        ] {
            let (by_card, set, words) = decided(driver, true);
            assert!(!by_card && set == 0, "{words}");
            assert!(words.contains(said), "{words}");
        }
        let (by_card, set, words) = decided(i210(), false);
        assert!(
            !by_card && set == 0 && words.contains("at present"),
            "{words}"
        );
    }

    #[test]
    fn a_refusal_and_a_driver_that_does_less_leave_the_kernels_stamps() {
        let refused = Recorded {
            answer: Err(libc::EPERM),
            ..i210()
        };
        let (by_card, _, words) = decided(refused, true);
        assert!(!by_card && words.contains("CAP_NET_ADMIN"), "{words}");
        let less = Recorded {
            answer: Ok(CardSetting { receive: 12, ..ON }),
            ..i210()
        };
        let (by_card, _, words) = decided(less, true);
        assert!(!by_card && words.contains("PTP only"), "{words}");
    }

    #[test]
    fn loopback_stamps_in_software() {
        let support = stamp_support("lo").unwrap();
        assert!(support.software_transmit && support.software_receive);
        assert_eq!(support.hardware_clock, None);
        assert!(stamp_support("no-such-link").is_err());
        assert!(stamp_support("a-name-longer-than-the-kernel-takes").is_err());
        let refused = Interface("lo").set(ON).unwrap_err().raw_os_error();
        assert!(
            matches!(refused, Some(libc::EOPNOTSUPP | libc::EPERM)),
            "{refused:?}"
        );
        assert!(matches!(
            choose("lo", true),
            Stamping::Kernel(Reason::CannotStamp)
        ));
        assert!(matches!(
            choose_among(["lo", "no-such-link"].into_iter()),
            Stamping::Kernel(Reason::CannotStamp)
        ));
    }
}
