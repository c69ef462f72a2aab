//! Setting socket options, and saying what helps where that fails.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::sys;

/// Why a socket could not be made, and what helps.
#[derive(Debug)]
pub struct SocketError {
    /// The step that failed, by the name of its system call or option.
    pub step: &'static str,
    /// What it was applied to: an interface, an address, a number.
    pub subject: String,
    /// The kernel's answer.
    pub source: io::Error,
    /// What the reader can do about it; empty where the kernel's answer says all.
    pub remedy: &'static str,
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.step, self.subject, self.source)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for SocketError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// How long `build` retries a port that is still taken: the ring of a program that has just ended
/// keeps its ports for 11–31 ms, and Linux before 6.10 a socket that was taken out of a ring for a second.
pub(crate) const BIND_PATIENCE: Duration = Duration::from_millis(1500);
/// The receive buffer that is asked for, bytes: some hundred datagrams with their stamps.
pub(crate) const RECEIVE_BUFFER: usize = 1 << 20;
const BIND_RETRY: Duration = Duration::from_millis(5);

pub(crate) fn error<S: ToString>(
    step: &'static str,
    subject: S,
) -> impl FnOnce(io::Error) -> SocketError {
    move |source| SocketError {
        step,
        subject: subject.to_string(),
        source,
        remedy: "",
    }
}

pub(crate) fn interface_error(name: &str, source: io::Error) -> SocketError {
    let remedy = match source.raw_os_error() {
        Some(libc::ENODEV) => "there is no interface of that name now",
        Some(libc::EPERM) => {
            "binding to an interface without CAP_NET_RAW needs Linux 5.7 or later and a socket \
             that is not bound to another interface"
        }
        _ => "",
    };
    SocketError {
        step: "SO_BINDTODEVICE",
        subject: name.to_owned(),
        source,
        remedy,
    }
}

/// Sets an option whose value is an `int`.
pub(crate) fn set(fd: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    set_bytes(fd, level, name, &value.to_ne_bytes())
}

/// Sets an option whose value is these bytes.
pub(crate) fn set_bytes(fd: RawFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    // SAFETY: `value` is readable for its whole length, which is what the kernel is told; the
    // kernel checks the descriptor.
    let result = unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    sys::check(result).map(drop)
}

pub(crate) fn set_receive_buffer(socket: &Socket, bytes: usize) -> Result<(), SocketError> {
    let clamped = i32::try_from(bytes).unwrap_or(i32::MAX);
    if set(
        socket.as_raw_fd(),
        libc::SOL_SOCKET,
        sys::SO_RCVBUFFORCE,
        clamped,
    )
    .is_ok()
    {
        return Ok(());
    }
    socket
        .set_recv_buffer_size(bytes)
        .map_err(error("SO_RCVBUF", bytes))
}

pub(crate) fn bind_patiently(
    socket: &Socket,
    local: SocketAddr,
    patience: Duration,
) -> Result<(), SocketError> {
    let begun = Instant::now();
    loop {
        match socket.bind(&local.into()) {
            Ok(()) => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EADDRINUSE) && begun.elapsed() < patience => {
                std::thread::sleep(BIND_RETRY);
            }
            Err(source) => {
                let remedy = match source.raw_os_error() {
                    Some(libc::EADDRINUSE) => "another program has this port",
                    Some(libc::EADDRNOTAVAIL) => "this host does not have that address now",
                    Some(libc::EACCES) => "ports below 1024 need CAP_NET_BIND_SERVICE",
                    _ => "",
                };
                return Err(SocketError {
                    step: "bind",
                    subject: local.to_string(),
                    source,
                    remedy,
                });
            }
        }
    }
}
