//! Switching off what a virtual cable does not need to do, because no card will ever finish it.

use std::io;
use std::os::fd::AsRawFd;

use socket2::{Domain, Socket, Type};

/// Of `linux/ethtool.h`: transmit checksums, TSO, GSO, GRO.
const COMMANDS: [u32; 4] = [0x17, 0x1f, 0x24, 0x2c];
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Has `interface`, in the namespace of this thread, send every packet whole and with its checksum.
///
/// # Errors
/// Where there is no such interface, or the kernel refuses.
pub fn switch_off(interface: &str) -> io::Result<()> {
    let failed = |e: io::Error| io::Error::new(e.kind(), format!("offloads of {interface}: {e}"));
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).map_err(failed)?;
    for command in COMMANDS {
        let mut value = Value { command, data: 0 };
        // SAFETY: all zeros is a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if interface.len() >= request.ifr_name.len() {
            return Err(failed(io::Error::from(io::ErrorKind::InvalidInput)));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: the request and the value that it points to live until the call returns.
        let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
        if done < 0 {
            return Err(failed(io::Error::last_os_error()));
        }
    }
    Ok(())
}
