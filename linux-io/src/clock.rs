//! Reading this host's clocks, and what the kernel knows about their quality.
//!
//! All of this crate's clock reads pass through the two adapters here, so that a lab can give a
//! process a clock that is off or drifts ([`inject`]).

use std::io;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use bufferbane_core::time::Monotonic;

use crate::sys;

/// Reads a clock that may fail, in nanoseconds.
#[allow(
    clippy::unnecessary_cast,
    reason = "narrower types on 32-bit architectures"
)]
pub(crate) fn try_read_ns(clock: libc::clockid_t) -> io::Result<i64> {
    let mut ts = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `ts` is valid for writing a timespec for the whole call.
    sys::check(unsafe { libc::clock_gettime(clock, &raw mut ts) })?;
    Ok(timespec_ns(ts.tv_sec as i64, ts.tv_nsec as i64))
}

/// Reads one of the clocks that every kernel has, in nanoseconds.
fn read_ns(clock: libc::clockid_t) -> i64 {
    try_read_ns(clock).unwrap_or_default()
}

/// Seconds and nanoseconds as nanoseconds, saturating.
pub(crate) const fn timespec_ns(sec: i64, nsec: i64) -> i64 {
    sec.saturating_mul(1_000_000_000).saturating_add(nsec)
}

/// `CLOCK_MONOTONIC` as the kernel has it, in ns; deadlines for the kernel are on this line.
pub(crate) fn raw_monotonic_ns() -> u64 {
    read_ns(libc::CLOCK_MONOTONIC).unsigned_abs()
}

/// `CLOCK_REALTIME` as the kernel has it, in ns; kernel stamps are on this line.
pub(crate) fn raw_wall_ns() -> i64 {
    stepped(read_ns(libc::CLOCK_REALTIME))
}

/// Now: `CLOCK_MONOTONIC`, nanoseconds since boot without the time spent suspended.
#[must_use]
pub fn now() -> Monotonic {
    from_raw(raw_monotonic_ns())
}

/// The wall clock: `CLOCK_REALTIME`, nanoseconds since 1970, which steps when it is set.
#[must_use]
pub fn wall_now() -> i64 {
    raw_wall_ns().saturating_add(SKEW_WALL.load(Relaxed))
}

/// How far this process's clocks are shifted from the host's: all zero outside a lab.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skew {
    /// Added to the monotonic clock, ns. It must not bring it below zero.
    pub offset_ns: i64,
    /// How much faster the monotonic clock runs, in parts per billion, counted from the host's
    /// boot. At most 1 000 000 (0.1 %) in either direction.
    pub drift_ppb: i64,
    /// Added to the wall clock as read by [`wall_now`], ns. Kernel stamps do not have it.
    pub wall_ns: i64,
}

static SKEW_OFFSET: AtomicI64 = AtomicI64::new(0);
static SKEW_PPB: AtomicI64 = AtomicI64::new(0);
static SKEW_WALL: AtomicI64 = AtomicI64::new(0);

/// Gives this process shifted clocks: a hook for labs and tests, which two ends of a path on one
/// host need to disagree. Every [`Monotonic`] that this crate hands out or takes follows.
pub fn inject(skew: Skew) {
    SKEW_OFFSET.store(skew.offset_ns, Relaxed);
    SKEW_PPB.store(skew.drift_ppb.clamp(-1_000_000, 1_000_000), Relaxed);
    SKEW_WALL.store(skew.wall_ns, Relaxed);
}

static STEP_AT: AtomicI64 = AtomicI64::new(i64::MAX);
static STEP: AtomicI64 = AtomicI64::new(0);

/// Sets this process's wall clock forward by `step_ns` (back, where negative) from the moment on at
/// which the host's shows `at_ns`: a hook for labs and tests. Unlike [`Skew::wall_ns`] it is in the
/// kernel's stamps too, as it is when a clock is set; [`i64::MAX`] is never.
pub fn inject_step(at_ns: i64, step_ns: i64) {
    // Between the two no reading may see a step that was not asked for.
    STEP_AT.store(i64::MAX, Relaxed);
    STEP.store(step_ns, Relaxed);
    STEP_AT.store(at_ns, Relaxed);
}

/// A reading or stamp of the host's wall clock as the injected step has it.
pub(crate) fn stepped(wall_ns: i64) -> i64 {
    if wall_ns < STEP_AT.load(Relaxed) {
        return wall_ns;
    }
    wall_ns.saturating_add(STEP.load(Relaxed))
}

/// The instant that the kernel's monotonic clock calls `raw` ns.
pub(crate) fn from_raw(raw: u64) -> Monotonic {
    let (offset, ppb) = (SKEW_OFFSET.load(Relaxed), SKEW_PPB.load(Relaxed));
    if offset == 0 && ppb == 0 {
        return Monotonic::from_nanos(raw);
    }
    let drift = i128::from(raw) * i128::from(ppb) / 1_000_000_000;
    let shifted = i128::from(raw) + i128::from(offset) + drift;
    Monotonic::from_nanos(u64::try_from(shifted.max(0)).unwrap_or(u64::MAX))
}

/// What the kernel's monotonic clock calls `at`, in ns.
pub(crate) fn to_raw(at: Monotonic) -> u64 {
    let (offset, ppb) = (SKEW_OFFSET.load(Relaxed), SKEW_PPB.load(Relaxed));
    if (offset == 0 && ppb == 0) || at == Monotonic::MAX {
        return at.as_nanos();
    }
    let undone = (i128::from(at.as_nanos()) - i128::from(offset)) * 1_000_000_000
        / (1_000_000_000 + i128::from(ppb));
    u64::try_from(undone.max(0)).unwrap_or(u64::MAX)
}

/// What the kernel knows about its wall clock (`adjtimex`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discipline {
    /// Whether something (NTP, PTP, a hypervisor) keeps it right.
    pub synchronised: bool,
    /// Estimated error in ns; only meaningful where synchronised.
    pub estimated_error_ns: u64,
    /// Largest possible error in ns; grows while nothing corrects the clock.
    pub maximum_error_ns: u64,
    /// Current frequency correction in parts per billion.
    pub frequency_ppb: i64,
}

/// Asks the kernel about the quality of its wall clock. Needs no privilege.
#[must_use]
pub fn discipline() -> Discipline {
    // SAFETY: timex is plain integers, for which all-zero bytes are a valid value; `modes == 0`
    // asks and changes nothing.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `timex` is valid for reading and writing for the whole call.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    let known = state >= 0 && state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0;
    let micros = |v: libc::c_long| u64::try_from(v).unwrap_or(0).saturating_mul(1000);
    Discipline {
        synchronised: known,
        estimated_error_ns: micros(timex.esterror),
        maximum_error_ns: micros(timex.maxerror),
        // The kernel counts parts per million in 16.16 fixed point.
        frequency_ppb: i64::try_from(i128::from(timex.freq) * 1000 / 65536).unwrap_or(0),
    }
}

/// Whether the wall clock is kept right by something; see [`discipline`].
#[must_use]
pub fn is_disciplined() -> bool {
    discipline().synchronised
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_advance() {
        let (a, wall) = (now(), wall_now());
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(now().saturating_since(a) >= 2_000_000);
        assert!(wall_now() > wall);
    }

    #[test]
    fn discipline_can_be_asked_without_privilege() {
        let d = discipline();
        println!("{d:?}");
        assert!(d.frequency_ppb.abs() <= 500_001);
    }
}
