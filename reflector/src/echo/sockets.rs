//! The sockets that probes come to, and the clock of the card that stamps them.

use std::net::SocketAddr;

use bufferbane_linux_io::netlink::Netlink;
use bufferbane_linux_io::stamping::{self, CardClock, Stamping};
use bufferbane_linux_io::{Engine, Family, ProbeSocket};

use crate::config::Config;

/// The receive buffer asked for, bytes: a burst of some thousand probes. What the kernel does not
/// grant without privilege (`net.core.rmem_max`) is done without.
const RECEIVE_BUFFER: usize = 4 << 20;

/// The number of the clock of the network card that stamps what this host receives, if one does.
fn card() -> Option<u32> {
    let interfaces = match Netlink::open().and_then(|mut n| n.interfaces()) {
        Ok(interfaces) => interfaces,
        Err(e) => {
            log::info!("packets are stamped by the kernel: the interfaces cannot be listed: {e}");
            return None;
        }
    };
    let up = interfaces.iter().filter(|i| i.up).map(|i| i.name.as_str());
    let stamping = stamping::choose_among(up);
    log::info!("packets are stamped {stamping}");
    match stamping {
        Stamping::Card { number, .. } => Some(number),
        Stamping::Kernel(_) => None,
    }
}

/// One socket for each address. A host without IPv6 is content with the rest of the defaults.
pub(super) fn open(
    engine: &mut Engine,
    config: &Config,
) -> Result<(Vec<SocketAddr>, Vec<String>), String> {
    let (mut listen, mut warnings) = (Vec::new(), Vec::new());
    let card = card();
    for address in &config.listen {
        let socket = ProbeSocket::udp(Family::of(&address.ip()))
            .bind(*address)
            .receive_buffer(RECEIVE_BUFFER)
            .stamps(true, config.transmit_stamps)
            .join_sends(true)
            .build();
        match socket {
            Ok(socket) => {
                listen.push(socket.local_addr());
                // Each socket reads the card's clock by itself.
                let clock = card.and_then(|number| CardClock::open(number).ok());
                let socket = match clock {
                    Some(clock) => socket.with_card(clock),
                    None => socket,
                };
                engine.add_socket(socket).map_err(|e| e.to_string())?;
            }
            Err(e)
                if config.listen_is_default
                    && address.is_ipv6()
                    && !listen.is_empty()
                    && e.source.kind() != std::io::ErrorKind::AddrInUse =>
            {
                warnings.push(format!("IPv6 is left out: {e}"));
            }
            Err(e) => return Err(e.to_string()),
        }
    }
    Ok((listen, warnings))
}
