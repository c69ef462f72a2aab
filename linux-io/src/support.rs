//! What this kernel offers, found out by trying.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

use io_uring::{EnterFlags, IoUring, cqueue, squeue};
use socket2::{Domain, Socket, Type};

use crate::cmsg;
use crate::sys;

/// Kernel features beyond what Linux 6.1 has; each has a fallback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Waiting until an absolute time (`IORING_ENTER_ABS_TIMER`, Linux 6.12). Fallback: a timer
    /// operation on the ring.
    pub absolute_wait: bool,
    /// The driver's own key for each transmit stamp (`SCM_TS_OPT_ID`, Linux 6.13). Fallback:
    /// following the kernel's counter.
    pub stamp_keys: bool,
}

impl Features {
    /// Use everything that there is.
    pub const ALL: Self = Self {
        absolute_wait: true,
        stamp_keys: true,
    };
    /// Use the fallbacks, as on Linux 6.1.
    pub const NONE: Self = Self {
        absolute_wait: false,
        stamp_keys: false,
    };

    /// What both have.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            absolute_wait: self.absolute_wait && other.absolute_wait,
            stamp_keys: self.stamp_keys && other.stamp_keys,
        }
    }

    /// Each feature: its name, the kernel that brought it, whether it is there, and what is done
    /// without.
    #[must_use]
    pub const fn list(self) -> [FeatureLine; 2] {
        [
            FeatureLine {
                name: "absolute wait",
                since: "6.12",
                available: self.absolute_wait,
                fallback: "a timer operation ends the wait",
            },
            FeatureLine {
                name: "transmit stamps with own keys",
                since: "6.13",
                available: self.stamp_keys,
                fallback: "the kernel's counter is followed",
            },
        ]
    }
}

/// One line about a kernel feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureLine {
    /// What it is.
    pub name: &'static str,
    /// The Linux release that brought it.
    pub since: &'static str,
    /// Whether this kernel has it.
    pub available: bool,
    /// What is done where it lacks.
    pub fallback: &'static str,
}

/// Why io_uring cannot be used on this host.
#[derive(Debug)]
pub enum Unavailable {
    /// The sysctl `kernel.io_uring_disabled` is 1 or 2.
    DisabledBySysctl(u8),
    /// The system call is refused, most likely by a seccomp filter or a container runtime.
    Refused(io::Error),
    /// The kernel has no io_uring at all.
    Missing,
    /// The kernel is older than 6.1: its release.
    TooOld(String),
    /// Too little memory may be locked (`RLIMIT_MEMLOCK`) or is there.
    NoMemory,
    /// Something else.
    Other(io::Error),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("io_uring is not available: ")?;
        match self {
            Self::DisabledBySysctl(1) => f.write_str(
                "kernel.io_uring_disabled is 1; set it to 0 (sysctl -w kernel.io_uring_disabled=0), \
                 or put this service's group into kernel.io_uring_group",
            ),
            Self::DisabledBySysctl(n) => write!(
                f,
                "kernel.io_uring_disabled is {n}; set it to 0 \
                 (sysctl -w kernel.io_uring_disabled=0)"
            ),
            Self::Refused(e) => write!(
                f,
                "io_uring_setup was refused ({e}); allow io_uring_setup, io_uring_enter and \
                 io_uring_register in the seccomp filter of the unit or container"
            ),
            Self::Missing => f.write_str(
                "this kernel has none, or a seccomp filter hides it; a kernel of 6.1 or later \
                 built with CONFIG_IO_URING is needed",
            ),
            Self::TooOld(release) => {
                write!(f, "Linux {release} is too old; 6.1 or later is needed")
            }
            Self::NoMemory => f.write_str(
                "not enough lockable memory; raise RLIMIT_MEMLOCK (LimitMEMLOCK= in the unit)",
            ),
            Self::Other(e) => write!(f, "{e}"),
        }
    }
}

impl std::error::Error for Unavailable {}

/// Finds out whether io_uring can be used here, and which features the kernel has. The answer is
/// found once per process.
pub fn check() -> Result<Features, Unavailable> {
    static FEATURES: OnceLock<Features> = OnceLock::new();
    if let Some(found) = FEATURES.get() {
        return Ok(*found);
    }
    let found = probe()?;
    Ok(*FEATURES.get_or_init(|| found))
}

fn probe() -> Result<Features, Unavailable> {
    let ring = IoUring::<squeue::Entry, cqueue::Entry>::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(4)
        .map_err(explain)?;
    Ok(Features {
        absolute_wait: has_absolute_wait(&ring),
        stamp_keys: has_stamp_keys().unwrap_or(false),
    })
}

/// Turns the failure to make a ring into what a person can act on.
fn explain(error: io::Error) -> Unavailable {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => match disabled_sysctl() {
            Some(n @ 1..) => Unavailable::DisabledBySysctl(n),
            _ => Unavailable::Refused(error),
        },
        Some(libc::ENOSYS) => Unavailable::Missing,
        // A flag or a ring type that the kernel does not know.
        Some(libc::EINVAL) if !is_new_enough(&kernel_release()) => {
            Unavailable::TooOld(kernel_release())
        }
        Some(libc::ENOMEM) => Unavailable::NoMemory,
        _ => Unavailable::Other(error),
    }
}

/// Whether a kernel of this release has what a ring is asked for here: 6.1 or later. One whose
/// release says nothing is taken for too old, since it has refused.
fn is_new_enough(release: &str) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|n| n.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(1))
}

fn disabled_sysctl() -> Option<u8> {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    text.trim().parse().ok()
}

/// The running kernel's release, such as `6.18.1-amd64`.
#[must_use]
pub fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "of unknown release".to_owned(), |s| s.trim().to_owned())
}

/// An absolute wait for a time long past ends at once with ETIME where it is known.
fn has_absolute_wait(ring: &IoUring) -> bool {
    let past = io_uring::types::Timespec::new().nsec(1);
    let arguments: [u64; 3] = [0, 0, (&raw const past) as u64];
    let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG | EnterFlags::ABS_TIMER;
    // SAFETY: the argument has the layout of io_uring_getevents_arg (two empty words, then the
    // address of a time), and both live until the call returns.
    let result = unsafe { ring.submitter().enter(0, 1, flags.bits(), Some(&arguments)) };
    matches!(result, Err(e) if e.raw_os_error() == Some(libc::ETIME))
}

fn stamped_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let flags = sys::SOF_TIMESTAMPING_SOFTWARE
        | sys::SOF_TIMESTAMPING_TX_SOFTWARE
        | sys::SOF_TIMESTAMPING_OPT_ID
        | sys::SOF_TIMESTAMPING_OPT_TSONLY;
    crate::sockopt::set(
        socket.as_raw_fd(),
        libc::SOL_SOCKET,
        sys::SO_TIMESTAMPING,
        flags.cast_signed(),
    )?;
    Ok(socket)
}

/// Control messages are read before anything is sent, so an empty datagram without destination
/// fails with EINVAL where the message is unknown, with EDESTADDRREQ where it is known.
fn has_stamp_keys() -> io::Result<bool> {
    let socket = stamped_socket()?;
    // UDP looks for a destination first, so there is one: the discard port of this host, to which
    // one empty datagram goes.
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    let own = socket.local_addr()?;
    let mut control = cmsg::Builder::new();
    control.stamp_key(1);
    // SAFETY: msghdr is integers and pointers, for which zero is a valid value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = own.as_ptr().cast_mut().cast();
    header.msg_namelen = own.len();
    let len = control.len();
    header.msg_control = control.as_mut_ptr();
    header.msg_controllen = len as _;
    // SAFETY: the header points to an address and control messages that live until the call
    // returns.
    let sent = sys::check(unsafe {
        libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) as libc::c_int
    });
    Ok(!matches!(sent, Err(e) if e.raw_os_error() == Some(libc::EINVAL)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_is_described() {
        match check() {
            Ok(features) => {
                for line in features.list() {
                    println!("{line:?}");
                }
            }
            Err(e) => panic!("{e}"),
        }
    }

    #[test]
    fn only_an_old_kernel_is_called_old() {
        for (release, new) in [
            ("6.1.0-31-amd64", true),
            ("6.18.5", true),
            ("10.0", true),
            ("6.0.19", false),
            ("5.15.0-91-generic", false),
            ("of unknown release", false),
        ] {
            assert_eq!(is_new_enough(release), new, "{release}");
        }
    }

    #[test]
    fn every_refusal_names_its_remedy() {
        let lines = [
            Unavailable::DisabledBySysctl(2).to_string(),
            Unavailable::DisabledBySysctl(1).to_string(),
            explain(io::Error::from_raw_os_error(libc::ENOSYS)).to_string(),
            Unavailable::TooOld("5.15.0-91-generic".into()).to_string(),
            explain(io::Error::from_raw_os_error(libc::ENOMEM)).to_string(),
            Unavailable::Refused(io::Error::from_raw_os_error(libc::EPERM)).to_string(),
        ];
        for line in &lines {
            println!("{line}");
            assert!(line.starts_with("io_uring is not available: "));
            assert!(!line.contains('\n'));
        }
        assert!(lines[0].contains("io_uring_disabled=0"));
        assert!(lines[5].contains("seccomp"));
    }
}
