//! Connections to services, each through the uplink that it is to be asked through.

use std::net::{SocketAddr, TcpStream as Blocking};
use std::os::fd::{AsRawFd, OwnedFd};

use bufferbane_linux_io::Family;
use bufferbane_linux_io::tcp::TcpSocket;
use nix::errno::Errno;
use nix::sys::socket::{SockaddrStorage, connect as begin};
use tokio::net::TcpStream;

use super::{Outcome, errno};
use crate::scout::Way;

/// Connects to `to`.
///
/// # Errors
/// Why there is no connection: nobody could be asked, who was asked refused, or nobody answered.
pub(super) async fn connect(way: &Way, to: SocketAddr) -> Result<TcpStream, Outcome> {
    let unsent = |e: std::io::Error| Outcome::Unsent(errno(&e));
    let interface = Some(way.interface.as_str());
    let socket = TcpSocket::plain(Family::of(&to.ip()), interface, way.source, way.mark)
        .map_err(|e| unsent(e.source))?;
    let socket = OwnedFd::from(socket);
    match begin(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        // An end on this host has refused at once.
        Err(e @ (Errno::ECONNREFUSED | Errno::ECONNRESET)) => return Err(Outcome::of(&e.into())),
        // There is no route, or no address to send from: the same numbers as of a router's word, but
        // no packet has left.
        Err(e) => return Err(unsent(e.into())),
    }
    let stream = TcpStream::from_std(Blocking::from(socket)).map_err(unsent)?;
    let came = |e| Outcome::of(&e);
    stream.writable().await.map_err(came)?;
    match stream.take_error().map_err(came)? {
        None => Ok(stream),
        Some(e) => Err(came(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bufferbane_core::failure::Failure;
    use nix::libc;
    use std::net::TcpListener;

    #[tokio::test]
    async fn who_listens_not_refuses_and_where_no_route_is_nobody_is_asked() {
        let way = Way::of(&"lo".into());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        connect(&way, to).await.unwrap();
        drop(listener);
        let refused = Outcome::Failed(Failure::errno(libc::ECONNREFUSED));
        assert_eq!(connect(&way, to).await.unwrap_err(), refused);
        // Loopback leads to no such place, whether or not the host has IPv6.
        let nowhere = "[2001:db8::1]:53".parse().unwrap();
        let unsent = connect(&way, nowhere).await.unwrap_err();
        assert!(matches!(unsent, Outcome::Unsent(_)), "{unsent:?}");
    }
}
