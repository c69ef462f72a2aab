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

/// What this host as a whole did since it started, all processors together. Counts of packets wrap at 2^32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCounters {
    /// Processors that took packets: those that are offline have no part in these counts.
    pub processors: u32,
    /// Packets that came in and were taken.
    pub taken: u32,
    /// Packets that came in and were dropped, as no processor took them in time.
    pub dropped: u32,
    /// Time that processors worked, in ticks.
    pub busy_ticks: u64,
    /// Time that whoever runs this host as a guest took from it, in ticks.
    pub stolen_ticks: u64,
    /// All time, in ticks.
    pub ticks: u64,
}

/// Reads what this host did so far.
///
/// # Errors
/// Where the kernel does not say it.
pub fn host_counters() -> io::Result<HostCounters> {
    let packets = std::fs::read_to_string("/proc/net/softnet_stat")?;
    let times = std::fs::read_to_string("/proc/stat")?;
    parse_host(&packets, &times).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_host(packets: &str, times: &str) -> Option<HostCounters> {
    let mut host = HostCounters::default();
    for cpu in packets.lines() {
        let mut counts = cpu.split_ascii_whitespace();
        let mut next = || u32::from_str_radix(counts.next()?, 16).ok();
        host.processors += 1;
        host.taken = host.taken.wrapping_add(next()?);
        host.dropped = host.dropped.wrapping_add(next()?);
    }
    let all = times.lines().find_map(|l| l.strip_prefix("cpu "))?;
    let ticks = all.split_ascii_whitespace().map(str::parse);
    // What guests of this host take is in the first two already.
    let ticks: Vec<u64> = ticks.take(8).collect::<Result<_, _>>().ok()?;
    let [user, nice, system, idle, waiting, irq, softirq, stolen] = ticks[..] else {
        return None;
    };
    host.busy_ticks = user + nice + system + irq + softirq;
    host.stolen_ticks = stolen;
    host.ticks = host.busy_ticks + stolen + idle + waiting;
    Some(host)
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
    fn what_all_processors_did_is_added_up() {
        let packets = "012d08ea 00000003 00000001 00000000\nfffffff0 0000000a 00000000 00000000\n";
        let times = "cpu  100 20 30 400 50 1 2 7 90 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        let host = HostCounters {
            processors: 2,
            taken: 0x012d_08da,
            dropped: 13,
            busy_ticks: 153,
            stolen_ticks: 7,
            ticks: 610,
        };
        assert_eq!(parse_host(packets, times), Some(host));
        assert_eq!(parse_host("zz", times), None);
        assert_eq!(parse_host(packets, "cpu  1 2 3\n"), None);
        let now = host_counters().expect("this host's");
        assert!(now.taken > 0 && now.ticks > now.busy_ticks, "{now:?}");
    }

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
