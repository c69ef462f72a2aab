//! Facts about the host and this process's standing on it: boot id, capabilities, what network
//! cards can stamp; and asking for punctual scheduling.

use std::io;
use std::os::fd::AsRawFd;

use socket2::{Domain, Socket, Type};

use crate::socket::{Family, ProbeSocket};
use crate::sys;

/// The kernel's random name for this boot, 36 characters.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// The capabilities that matter here, as this thread has them in effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// `CAP_NET_RAW`: raw ICMP, firewall marks.
    pub net_raw: bool,
    /// `CAP_NET_ADMIN`: firewall marks, large receive buffers, card time stamping.
    pub net_admin: bool,
    /// `CAP_NET_BIND_SERVICE`: ports below 1024.
    pub net_bind_service: bool,
    /// `CAP_SYS_NICE`: real-time scheduling.
    pub sys_nice: bool,
    /// `CAP_IPC_LOCK`: memory that is never paged out.
    pub ipc_lock: bool,
}

/// Reads this thread's capabilities.
pub fn capabilities() -> io::Result<Capabilities> {
    let status = std::fs::read_to_string("/proc/thread-self/status")?;
    let bits = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|v| u64::from_str_radix(v.trim(), 16).ok())
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let has = |bit: u32| bits & 1 << bit != 0;
    Ok(Capabilities {
        net_bind_service: has(10),
        net_admin: has(12),
        net_raw: has(13),
        ipc_lock: has(14),
        sys_nice: has(23),
    })
}

/// How ICMP echoes can be sent here, found out by opening sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpAccess {
    /// Unprivileged ping sockets work.
    pub ping: bool,
    /// Raw sockets work.
    pub raw: bool,
}

/// Tries both kinds of ICMP socket.
#[must_use]
pub fn icmp_access(family: Family) -> IcmpAccess {
    IcmpAccess {
        ping: ProbeSocket::ping(family).build().is_ok(),
        raw: ProbeSocket::raw_icmp(family).build().is_ok(),
    }
}

/// What an interface can stamp (`ETHTOOL_GET_TS_INFO`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StampSupport {
    /// Its driver stamps what leaves; without, transmit stamps never come.
    pub software_transmit: bool,
    /// The kernel stamps what arrives; practically always.
    pub software_receive: bool,
    /// The card stamps what leaves.
    pub hardware_transmit: bool,
    /// The card stamps what arrives.
    pub hardware_receive: bool,
    /// The number of the card's clock, `/dev/ptpN`.
    pub hardware_clock: Option<u32>,
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

/// Asks an interface's driver what can be stamped.
pub fn stamp_support(interface: &str) -> io::Result<StampSupport> {
    let mut information = StampInformation {
        command: ETHTOOL_GET_TS_INFO,
        clock: -1,
        ..StampInformation::default()
    };
    ask_driver(interface, SIOCETHTOOL, &mut information)?;
    let has = |flag: u32| information.flags & flag == flag;
    Ok(StampSupport {
        software_transmit: has(sys::SOF_TIMESTAMPING_TX_SOFTWARE),
        software_receive: has(sys::SOF_TIMESTAMPING_RX_SOFTWARE),
        hardware_transmit: has(sys::SOF_TIMESTAMPING_TX_HARDWARE),
        hardware_receive: has(sys::SOF_TIMESTAMPING_RX_HARDWARE),
        hardware_clock: u32::try_from(information.clock).ok(),
    })
}

/// `struct hwtstamp_config`.
#[repr(C)]
struct CardStamping {
    flags: i32,
    transmit: i32,
    receive: i32,
}

const SIOCSHWTSTAMP: u64 = 0x89b0;
const HWTSTAMP_TX_ON: i32 = 1;
const HWTSTAMP_FILTER_ALL: i32 = 1;

/// Has an interface's card stamp everything that it sends and receives. Needs `CAP_NET_ADMIN`, holds
/// for all programs on the host until it is changed again, and replaces what a PTP daemon has set.
pub fn enable_card_stamps(interface: &str) -> io::Result<()> {
    let mut wanted = CardStamping {
        flags: 0,
        transmit: HWTSTAMP_TX_ON,
        receive: HWTSTAMP_FILTER_ALL,
    };
    ask_driver(interface, SIOCSHWTSTAMP, &mut wanted)
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
    // SAFETY: the request names an interface and points to a structure of the kind that the two
    // callers' commands expect; both live until the call returns.
    sys::check(unsafe { libc::ioctl(socket.as_raw_fd(), command as _, &raw mut request) }).map(drop)
}

/// Runs the calling thread by `SCHED_FIFO` at this priority, 1 to 99: it is woken before ordinary
/// threads, which is what sending on time takes. Needs `CAP_SYS_NICE` or `RLIMIT_RTPRIO`; threads
/// and programs started from it are not real-time.
pub fn run_realtime(priority: u8) -> io::Result<()> {
    // `struct sched_param` of the kernel is this one number.
    let parameters = libc::c_int::from(priority.clamp(1, 99));
    // The system call itself, since musl's wrapper refuses.
    // SAFETY: 0 is the calling thread; the parameters live until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            0,
            libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK,
            &raw const parameters,
        )
    };
    sys::check(result as libc::c_int).map(drop)
}

/// Gives the calling thread ordinary scheduling again.
pub fn run_ordinary() -> io::Result<()> {
    let parameters: libc::c_int = 0;
    // SAFETY: 0 is the calling thread; the parameters live until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            0,
            libc::SCHED_OTHER,
            &raw const parameters,
        )
    };
    sys::check(result as libc::c_int).map(drop)
}

/// Lets the calling thread run on every CPU; the kernel leaves out those it may not use.
pub fn run_anywhere() -> io::Result<()> {
    let all: Vec<usize> = (0..libc::CPU_SETSIZE as usize).collect();
    run_on(&all)
}

/// Keeps the calling thread on these CPUs.
pub fn run_on(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: cpu_set_t is an array of integers, for which zero is a valid value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in cpus {
        if *cpu >= libc::CPU_SETSIZE as usize {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        // SAFETY: the number is below the size of the set.
        unsafe { libc::CPU_SET(*cpu, &mut set) };
    }
    // SAFETY: 0 is the calling thread; the set lives until the call returns.
    sys::check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) })
        .map(drop)
}

/// How much later than asked the kernel may wake the calling thread to save energy, ns; 50 000 by
/// default. Waits of an engine are exact in any case; this is for other sleeps.
pub fn set_timer_slack(ns: u32) -> io::Result<()> {
    // SAFETY: passes numbers only.
    sys::check(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, libc::c_ulong::from(ns)) }).map(drop)
}

/// Keeps the memory that this process has and will have from being paged out. Needs `CAP_IPC_LOCK`
/// or a large enough `RLIMIT_MEMLOCK`.
pub fn lock_memory() -> io::Result<()> {
    // SAFETY: passes numbers only.
    sys::check(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) })
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_has_a_name() {
        assert_eq!(boot_id().unwrap().len(), 36);
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
    }

    #[test]
    fn capabilities_and_icmp_agree() {
        let caps = capabilities().unwrap();
        let access = icmp_access(Family::V4);
        println!("{caps:?} {access:?}");
        assert!(!caps.net_raw || access.raw);
    }

    #[test]
    fn loopback_stamps_in_software() {
        let support = stamp_support("lo").unwrap();
        println!("{support:?}");
        assert!(support.software_transmit && support.software_receive);
        assert_eq!(support.hardware_clock, None);
        assert!(stamp_support("no-such-link").is_err());
        assert!(stamp_support("a-name-longer-than-the-kernel-takes").is_err());
        let refused = enable_card_stamps("lo").unwrap_err().raw_os_error();
        assert!(
            matches!(refused, Some(libc::EOPNOTSUPP | libc::EPERM)),
            "{refused:?}"
        );
    }

    #[test]
    fn a_thread_can_be_pinned_and_slack_set() {
        std::thread::spawn(|| {
            run_on(&[0]).unwrap();
            run_anywhere().unwrap();
            set_timer_slack(1).unwrap();
            assert!(run_on(&[1 << 20]).is_err());
            match run_realtime(10) {
                Ok(()) => run_ordinary().unwrap(),
                Err(e) => assert_eq!(e.raw_os_error(), Some(libc::EPERM)),
            }
        })
        .join()
        .unwrap();
    }
}
