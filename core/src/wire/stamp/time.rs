//! When a packet was sent or received, on the wire, and how far its sender believes that.

/// Seconds from 1900 (NTP's epoch) to 1970.
const NTP_UNIX_S: u64 = 2_208_988_800;
const SECOND_NS: u64 = 1_000_000_000;

/// How a timestamp is written (RFC 8762, 4.2.1; the Z flag of the error estimate).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// NTP: seconds since 1900 and their 2⁻³² parts.
    #[default]
    Ntp,
    /// PTPv2, truncated: the lower 32 bits of the seconds, and nanoseconds.
    Ptp,
}

impl Format {
    /// `wall_ns` since 1970 on the wire.
    #[must_use]
    pub const fn write(self, wall_ns: u64) -> u64 {
        let (s, ns) = (wall_ns / SECOND_NS, wall_ns % SECOND_NS);
        match self {
            // Rounded up, so that reading it gives the same nanosecond. All zeros means no timestamp, so
            // the first instant of an era is written as the one after.
            Self::Ntp => {
                let raw = ((s + NTP_UNIX_S) & 0xffff_ffff) << 32 | ((ns << 32).div_ceil(SECOND_NS));
                if raw == 0 { 1 } else { raw }
            }
            Self::Ptp => (s & 0xffff_ffff) << 32 | ns,
        }
    }

    /// Nanoseconds since 1970 of what is on the wire; of NTP's eras the one that holds the present
    /// century. `None` where there is no timestamp, or one that cannot be.
    #[must_use]
    pub const fn read(self, raw: u64) -> Option<u64> {
        if raw == 0 {
            return None;
        }
        let (s, part) = (raw >> 32, raw & 0xffff_ffff);
        match self {
            Self::Ntp => {
                // RFC 4330, 3: with the highest bit clear it is the era from 2036 on.
                let since_1900 = if s >> 31 == 1 { s } else { s + (1 << 32) };
                if since_1900 < NTP_UNIX_S {
                    return None;
                }
                Some((since_1900 - NTP_UNIX_S) * SECOND_NS + ((part * SECOND_NS) >> 32))
            }
            Self::Ptp if part >= SECOND_NS => None,
            Self::Ptp => Some(s * SECOND_NS + part),
        }
    }
}

/// How far a sender believes its own clock (RFC 4656, 4.1.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorEstimate {
    /// Its clock is synchronised to an outside one.
    pub synchronised: bool,
    /// How its timestamps are written.
    pub format: Format,
    /// The error in ns, as far as the field can say it.
    pub error_ns: u64,
}

impl ErrorEstimate {
    /// The field: multiplier × 2^scale × 2⁻³² seconds, rounded up; the multiplier is never 0.
    #[must_use]
    pub fn write(self) -> u16 {
        let units = (u128::from(self.error_ns) << 32).div_ceil(u128::from(SECOND_NS));
        let mut scale = 0u16;
        while scale < 63 && units.div_ceil(1 << scale) > 255 {
            scale += 1;
        }
        let multiplier = (units.div_ceil(1 << scale) as u16).clamp(1, 255);
        u16::from(self.synchronised) << 15
            | u16::from(self.format == Format::Ptp) << 14
            | scale << 8
            | multiplier
    }

    /// What the field says.
    #[must_use]
    pub fn read(raw: u16) -> Self {
        let units = u128::from(raw & 0xff) << (raw >> 8 & 0x3f);
        let ns = (units * u128::from(SECOND_NS)) >> 32;
        Self {
            synchronised: raw >> 15 == 1,
            format: if raw >> 14 & 1 == 1 {
                Format::Ptp
            } else {
                Format::Ntp
            },
            error_ns: u64::try_from(ns).unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn estimates_of_errors_are_never_too_small() {
        for error_ns in [0, 1, 59, 1_000, 250_000_000, 3_000_000_000, u64::MAX / 8] {
            let read = ErrorEstimate::read(
                ErrorEstimate {
                    synchronised: true,
                    format: Format::Ptp,
                    error_ns,
                }
                .write(),
            );
            assert!(read.synchronised && read.format == Format::Ptp);
            assert!(read.error_ns + 1 >= error_ns, "{error_ns} {read:?}");
            assert!(
                read.error_ns <= error_ns + error_ns / 64 + 16,
                "{error_ns} {read:?}"
            );
        }
    }

    #[test]
    fn the_first_instant_of_an_era_is_a_timestamp() {
        let wall_ns = ((1 << 32) - NTP_UNIX_S) * SECOND_NS;
        assert_eq!(Format::Ntp.read(1), Some(wall_ns));
        assert_eq!(Format::Ntp.read(Format::Ntp.write(wall_ns)), Some(wall_ns));
    }

    proptest! {
        #[test]
        fn timestamps_survive_the_wire(s in 0u64..4_000_000_000, ns in 1u64..1_000_000_000) {
            let wall = s * SECOND_NS + ns;
            prop_assert_eq!(Format::Ptp.read(Format::Ptp.write(wall)), Some(wall));
            prop_assert_eq!(Format::Ntp.read(Format::Ntp.write(wall)), Some(wall));
        }
    }
}
