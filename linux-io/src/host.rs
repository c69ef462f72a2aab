//! Facts about the host and this process's standing on it: boot id, capabilities; and asking for
//! punctual scheduling.

use std::io;

use bufferbane_core::trace::Transport;
use bufferbane_core::wire::icmp::Version;

use crate::socket::{Family, ProbeSocket, SocketBuilder};
use crate::sys;

/// The kernel's random name for this boot, 36 characters.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// Whether this host passes on IPv6 packets that come in through an interface of this thread's network namespace.
#[must_use]
pub fn is_ipv6_router(interface: &str) -> bool {
    let file = format!("/proc/sys/net/ipv6/conf/{interface}/forwarding");
    std::fs::read_to_string(file).is_ok_and(|text| text.trim() == "1")
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

/// Gives up, for good, what the calling thread may do beyond an ordinary user's thread; with
/// `keep_net_admin`, all but `CAP_NET_ADMIN`, where it has that. Threads that it starts later have no more
/// than it.
///
/// # Errors
/// What the kernel said. It refuses nobody who gives up, but a filter of system calls may forbid
/// `capset`; a thread that has nothing to give up asks nothing of it.
pub fn give_up_capabilities(keep_net_admin: bool) -> io::Result<()> {
    use caps::{CapSet, Capability, CapsHashSet};
    let set = || -> Result<(), caps::errors::CapsError> {
        let held = caps::read(None, CapSet::Permitted)?;
        let kept: CapsHashSet = held
            .iter()
            .copied()
            .filter(|c| keep_net_admin && *c == Capability::CAP_NET_ADMIN)
            .collect();
        if kept.len() == held.len() {
            return Ok(());
        }
        // What is ambient has to be inheritable, what is in effect has to be permitted.
        caps::clear(None, CapSet::Ambient)?;
        caps::clear(None, CapSet::Inheritable)?;
        caps::set(None, CapSet::Effective, &kept)?;
        caps::set(None, CapSet::Permitted, &kept)
    };
    set().map_err(io::Error::other)
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
        raw: ProbeSocket::raw_icmp(family, 0).build().is_ok(),
    }
}

/// How echoes to a host of this family can be sent by this process, which opening sockets finds out; `None` where it
/// may not send any. `identifier` is that of raw sockets; the kernel gives ping sockets theirs.
#[must_use]
pub fn echoes(family: Family, identifier: u16) -> Option<(SocketBuilder, Transport)> {
    let version = match family {
        Family::V4 => Version::V4,
        Family::V6 => Version::V6,
    };
    let echo = |identifier| Transport::Echo {
        version,
        identifier,
    };
    let access = icmp_access(family);
    if access.ping {
        Some((ProbeSocket::ping(family), echo(None)))
    } else if access.raw {
        let builder = ProbeSocket::raw_icmp(family, identifier);
        Some((builder, echo(Some(identifier))))
    } else {
        None
    }
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
    fn what_is_given_up_is_gone_in_this_thread_alone() {
        let before = capabilities().unwrap();
        let thread = std::thread::spawn(move || {
            give_up_capabilities(true).unwrap();
            let kept = capabilities().unwrap();
            let only = Capabilities {
                net_admin: before.net_admin,
                ..Capabilities::default()
            };
            assert_eq!(kept, only);
            give_up_capabilities(false).unwrap();
            assert_eq!(capabilities().unwrap(), Capabilities::default());
        });
        thread.join().unwrap();
        assert_eq!(capabilities().unwrap(), before);
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
