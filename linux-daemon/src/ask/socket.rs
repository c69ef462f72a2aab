//! Connections to services, each through the uplink that it is to be asked through.

use std::net::{SocketAddr, TcpStream as Blocking};

use bufferbane_core::failure::Failure;
use bufferbane_linux_io::Family;
use bufferbane_linux_io::tcp::TcpSocket;
use nix::libc;
use tokio::net::TcpStream;

use super::{Outcome, errno};
use crate::scout::Way;

/// Connects to `to`.
///
/// # Errors
/// Why there is no connection: nobody could be asked, or who was asked refused.
pub(super) async fn connect(way: &Way, to: SocketAddr) -> Result<TcpStream, Outcome> {
    let interface = Some(way.interface.as_str());
    let socket = TcpSocket::plain(Family::of(&to.ip()), interface, way.source, way.mark)
        .map_err(|e| Outcome::Unsent(errno(&e.source)))?;
    let socket = Blocking::from(std::os::fd::OwnedFd::from(socket));
    let socket = tokio::net::TcpSocket::from_std_stream(socket);
    socket.connect(to).await.map_err(|e| match errno(&e) {
        // This host's own refusals: no packet has left.
        n @ (libc::ENETUNREACH | libc::EADDRNOTAVAIL | libc::EPERM | libc::EACCES) => {
            Outcome::Unsent(n)
        }
        n => Outcome::Failed(Failure::errno(n)),
    })
}
