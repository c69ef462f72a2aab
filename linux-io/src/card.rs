//! Stamps of network cards.
//!
//! A card stamps packets by a clock of its own, which has its own rate and origin. It is read
//! together with the monotonic clock, so that its stamps come onto the same line as the kernel's.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use bufferbane_core::time::{ClockSource, Stamp};

use crate::clock;
use crate::cmsg::KernelStamps;
use crate::timeline::{Reading, Timeline};

/// How old a reading may be, ns. One takes some microseconds over the bus; a card's clock drifts by
/// some tens of ppm, which interpolation follows.
const FRESH_NS: u64 = 100_000_000;

/// A stamp of the card lies this much before the kernel's of the same packet at most, ns: interrupts
/// are held back, and a busy host takes them late. And not after it, but for what reading its clock is
/// off.
const BEFORE_KERNEL_NS: u64 = 20_000_000;
const AFTER_KERNEL_NS: u64 = 50_000;
/// A stamp of a departure comes so soon after it, ns.
const KEPT_NS: u64 = 1_000_000_000;

/// A network card's clock.
#[derive(Debug)]
pub struct CardClock {
    id: libc::clockid_t,
    timeline: Timeline,
    read_at: u64,
    /// Held open for as long as its clock is read.
    _device: Option<File>,
}

impl CardClock {
    /// The clock `/dev/ptpN`.
    ///
    /// # Errors
    /// Where the device is not there, or this process may not read it.
    pub fn open(number: u32) -> io::Result<Self> {
        let device = File::open(format!("/dev/ptp{number}"))?;
        // As the kernel's FD_TO_CLOCKID: a clock that stands behind a descriptor.
        let id = (!(device.as_raw_fd() as libc::clockid_t) << 3) | 3;
        let mut card = Self::reading(id)?;
        card._device = Some(device);
        Ok(card)
    }

    fn reading(id: libc::clockid_t) -> io::Result<Self> {
        let first = read(id)?;
        Ok(Self {
            id,
            timeline: Timeline::new(first),
            read_at: first.after_ns,
            _device: None,
        })
    }

    /// The card's stamp as an instant. None where there is none, or where it cannot be: another card
    /// took it, or this one's clock was just set.
    pub(crate) fn stamp(
        &mut self,
        stamps: &KernelStamps,
        kernel: Option<Stamp>,
        now_ns: u64,
    ) -> Option<Stamp> {
        if stamps.hardware_ns == 0 {
            return None;
        }
        if now_ns.saturating_sub(self.read_at) >= FRESH_NS {
            self.refresh(now_ns);
        }
        let raw = self
            .timeline
            .to_raw(stamps.hardware_ns, now_ns)
            .or_else(|| {
                self.refresh(now_ns);
                self.timeline.to_raw(stamps.hardware_ns, now_ns)
            })?;
        let at = clock::from_raw(raw);
        let possible = match kernel {
            Some(kernel) => {
                kernel.at.saturating_since(at) <= BEFORE_KERNEL_NS
                    && at.saturating_since(kernel.at) <= AFTER_KERNEL_NS
            }
            None => now_ns.saturating_sub(raw) <= KEPT_NS,
        };
        possible.then_some(Stamp {
            at,
            clock: ClockSource::Nic,
        })
    }

    fn refresh(&mut self, now_ns: u64) {
        self.read_at = now_ns;
        // A card that was pulled out cannot be read; its last offset then has to do.
        if let Ok(reading) = read(self.id) {
            self.timeline.observe(&reading);
        }
    }
}

fn read(id: libc::clockid_t) -> io::Result<Reading> {
    clock::try_read_ns(id)?;
    Ok(Reading::narrowest(|| {
        clock::try_read_ns(id).unwrap_or_default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_of_another_origin_comes_onto_the_monotonic_line() {
        // Stands in for a card: another origin than the wall clock, the same rate.
        let mut card = CardClock::reading(libc::CLOCK_BOOTTIME).unwrap();
        for _ in 0..50 {
            let before = clock::raw_monotonic_ns();
            let card_ns = clock::try_read_ns(libc::CLOCK_BOOTTIME).unwrap();
            let after = clock::raw_monotonic_ns();
            let stamp = card.stamp(&taken(card_ns), None, after).unwrap();
            assert_eq!(stamp.clock, ClockSource::Nic);
            let at = stamp.at.as_nanos();
            assert!(at + 5_000 >= before && at <= after, "{before} {at} {after}");
        }
    }

    fn taken(hardware_ns: i64) -> KernelStamps {
        KernelStamps {
            software_ns: 0,
            hardware_ns,
        }
    }

    #[test]
    fn a_stamp_that_does_not_fit_the_kernels_is_not_this_cards() {
        let mut card = CardClock::reading(libc::CLOCK_BOOTTIME).unwrap();
        let card_ns = clock::try_read_ns(libc::CLOCK_BOOTTIME).unwrap();
        let now_ns = clock::raw_monotonic_ns();
        let kernel = |raw| Some(Stamp::kernel(clock::from_raw(raw)));
        let mut fits = |card_ns, at| card.stamp(&taken(card_ns), kernel(at), now_ns).is_some();
        assert!(fits(card_ns, now_ns));
        assert!(fits(card_ns - 1_000_000, now_ns), "the interrupt was late");
        assert!(!fits(card_ns - 30_000_000, now_ns));
        assert!(
            !fits(card_ns, now_ns - 1_000_000),
            "after the kernel had it"
        );
        // A clock that counts in TAI would be 37 s ahead; and there may be no stamp.
        assert!(!fits(card_ns + 37_000_000_000, now_ns));
        assert!(!fits(0, now_ns));
        assert!(
            card.stamp(&taken(card_ns - 2_000_000_000), None, now_ns)
                .is_none()
        );
    }

    #[test]
    fn a_clock_that_is_not_there_is_an_error() {
        assert!(CardClock::open(4_000_000).is_err());
    }
}
