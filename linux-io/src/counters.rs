//! What interfaces carried, and what this process costs.

use std::io;

use crate::clock;

/// Counters of an interface since it was made; they wrap at 2^64 and start anew with the interface.
/// Read them with [`crate::netlink::Netlink::counters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceCounters {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received, link headers included.
    pub rx_bytes: u64,
    /// Bytes sent, link headers included.
    pub tx_bytes: u64,
    /// Packets received damaged.
    pub rx_errors: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Received packets that the host dropped.
    pub rx_dropped: u64,
    /// Packets to be sent that the host dropped.
    pub tx_dropped: u64,
}

/// What this process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessUsage {
    /// CPU time of all threads, ns.
    pub cpu_ns: u64,
    /// Memory that is resident now, bytes.
    pub resident_bytes: u64,
}

/// Reads what this process has used so far.
pub fn process_usage() -> io::Result<ProcessUsage> {
    Ok(ProcessUsage {
        cpu_ns: cpu_ns(libc::CLOCK_PROCESS_CPUTIME_ID)?,
        resident_bytes: resident_bytes()?,
    })
}

/// CPU time of the calling thread, ns.
pub fn thread_cpu_ns() -> io::Result<u64> {
    cpu_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn cpu_ns(clock: libc::clockid_t) -> io::Result<u64> {
    Ok(clock::try_read_ns(clock)?.unsigned_abs())
}

fn resident_bytes() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|w| w.parse().ok())
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: asks for a constant of the system.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Ok(pages.saturating_mul(u64::try_from(page).unwrap_or(4096)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let mut work = 0u64;
        for i in 0..5_000_000u64 {
            work = std::hint::black_box(work.wrapping_mul(31).wrapping_add(i));
        }
        let usage = process_usage().unwrap();
        println!("{usage:?} {work}");
        assert!(usage.cpu_ns > 1_000_000 && usage.resident_bytes > 500_000);
        assert!(thread_cpu_ns().unwrap() <= usage.cpu_ns + 1_000_000_000);
    }
}
