//! What a unit is made of: its prober with the memory it needs, and its socket.

use std::net::IpAddr;

use bufferbane_core::flight::{LossSlot, Slot};
use bufferbane_core::icmp::{Framing, IcmpConfig, IcmpProber};
use bufferbane_core::limits::RECEIVE_RECORD_BITS;
use bufferbane_core::sample::SeriesIndex;
use bufferbane_core::seal::PresharedKey;
use bufferbane_core::session::client::{Client, StreamConfig};
use bufferbane_core::stamp::{StampConfig, StampProber};
use bufferbane_core::time::Monotonic;
use bufferbane_core::wire::icmp::Version;
use bufferbane_linux_io::stamping::{self, Stamping};
use bufferbane_linux_io::{Family, ProbeSocket, SocketError, host};
use bufferbane_store::SeriesKind;
use rand_chacha::ChaCha12Rng;

use crate::config::timeout_ns;
use crate::plan::{Probe, Wanted};
use crate::probe::Prober;
use crate::scout::Way;

/// Share of a slot that the random offset of a probe may take, permille.
pub(crate) const SPREAD_PERMILLE: u16 = 800;

/// A prober, and what its unit has to know of it.
pub(crate) struct Equipped {
    pub(crate) prober: Prober,
    /// TOS of each stream.
    pub(crate) tos: Vec<u8>,
    /// Most probes in flight.
    pub(crate) in_flight: usize,
    /// That of its echoes; 0 where it sends none.
    pub(crate) identifier: u16,
}

/// Describes a series (kind, size, DSCP, interval in ns), and gives its number.
pub(crate) type Describe<'a> = dyn FnMut(SeriesKind, u16, u8, u64) -> SeriesIndex + 'a;

/// The prober of `w`, whose first slots begin at `now`; `None` where it is asked and not probed.
pub(crate) fn prober(
    w: &Wanted,
    now: Monotonic,
    describe: &mut Describe<'_>,
    rng: &mut ChaCha12Rng,
) -> Option<Equipped> {
    let mut identifier = 0;
    let (prober, tos, in_flight) = match &w.probe {
        Probe::Icmp {
            size,
            more_sizes,
            interval_ns,
        } => {
            let (named, more) = mix(*size, more_sizes);
            let config = IcmpConfig {
                series: describe(SeriesKind::Icmp, named, 0, *interval_ns),
                version: if w.remote.is_ipv4() {
                    Version::V4
                } else {
                    Version::V6
                },
                framing: framing(w.remote.ip()),
                size: *size,
                interval_ns: *interval_ns,
                spread_permille: SPREAD_PERMILLE,
                timeout_ns: timeout_ns(*interval_ns),
            };
            let slots = slots_for(*interval_ns);
            let n = slots.len();
            let mut prober = IcmpProber::new(config, now, slots, rng);
            prober.mix_sizes(&more);
            identifier = prober.identifier();
            (Prober::Icmp(Box::new(prober)), Vec::new(), n)
        }
        Probe::Stamp(probe) => {
            let interval_ns = probe.interval_ns;
            let (named, more) = mix(probe.size, &probe.more_sizes);
            let config = StampConfig {
                series: describe(SeriesKind::Stamp, named, probe.dscp, interval_ns),
                remote: w.remote,
                key: probe.key.as_deref().cloned(),
                format: probe.format,
                counting: probe.counting,
                size: probe.size,
                interval_ns,
                spread_permille: SPREAD_PERMILLE,
                timeout_ns: timeout_ns(interval_ns),
            };
            let slots = slots_for(interval_ns);
            let n = slots.len();
            let losses = vec![LossSlot::default(); 2 * RECEIVE_RECORD_BITS].into();
            let mut prober = StampProber::new(config, now, slots, losses, rng);
            prober.mix_sizes(&more);
            (Prober::Stamp(Box::new(prober)), vec![probe.dscp << 2], n)
        }
        Probe::Reflector { key, streams } => {
            let mut client = Client::new(PresharedKey::clone(key.key()), now, rng);
            let (mut tos, mut in_flight) = (Vec::new(), 16);
            for (i, s) in streams.iter().enumerate() {
                let (named, more) = mix(s.size, &s.more_sizes);
                let config = StreamConfig {
                    series: describe(SeriesKind::Udp, named, s.dscp, s.interval_ns),
                    size: s.size,
                    interval_ns: s.interval_ns,
                    spread_permille: SPREAD_PERMILLE,
                    timeout_ns: timeout_ns(s.interval_ns),
                };
                let slots = slots_for(s.interval_ns);
                in_flight += slots.len();
                tos.push(s.dscp << 2);
                let losses = vec![LossSlot::default(); 2 * RECEIVE_RECORD_BITS].into();
                // The configuration allows no more streams than a client takes.
                let _ = client.add_stream(config, now, slots, losses, rng);
                client.mix_sizes(i, &more);
            }
            (Prober::Session(Box::new(client)), tos, in_flight)
        }
        Probe::Service(_) => return None,
    };
    Some(Equipped {
        prober,
        tos,
        in_flight,
        identifier,
    })
}

/// The size that a series is known by, 0 where sizes are mixed, and those beside its first.
fn mix(size: u16, more: &[u16]) -> (u16, Vec<u16>) {
    let more: Vec<u16> = more.iter().copied().filter(|n| *n > 0).collect();
    (if more.is_empty() { size } else { 0 }, more)
}

/// Room for what is in flight, and for late answers to as much again.
fn slots_for(interval_ns: u64) -> Box<[Slot]> {
    let in_flight = timeout_ns(interval_ns).div_ceil(interval_ns) + 2;
    vec![Slot::default(); (2 * in_flight + 8) as usize].into()
}

fn framing(to: IpAddr) -> Framing {
    if to.is_ipv4() && !host::icmp_access(Family::V4).ping {
        Framing::Ipv4Packet
    } else {
        Framing::Message
    }
}

/// A socket for `w`, whose echoes have this identifier, and in words who stamps what passes it.
pub(crate) fn socket(w: &Wanted, identifier: u16) -> Result<(ProbeSocket, String), SocketError> {
    let family = Family::of(&w.remote.ip());
    let builder = match &w.probe {
        Probe::Icmp { .. } if host::icmp_access(family).ping => ProbeSocket::ping(family),
        Probe::Icmp { .. } => ProbeSocket::raw_icmp(family, identifier),
        _ => ProbeSocket::udp(family),
    };
    let socket = Way::to(w).socket(builder).build()?;
    let stamping = stamping::choose(&w.interface, true);
    let words = stamping.to_string();
    let socket = match stamping {
        Stamping::Card { clock, .. } => socket.with_card(clock),
        Stamping::Kernel(_) => socket,
    };
    Ok((socket, words))
}
