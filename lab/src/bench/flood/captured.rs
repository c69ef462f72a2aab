//! What a stranger on the way might have written down: the datagrams of a client that is served.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use bufferbane_core::flight::{LossSlot, Slot};
use bufferbane_core::packet::RecvMeta;
use bufferbane_core::sample::SeriesIndex;
use bufferbane_core::session::client::{Client, StreamConfig};
use bufferbane_core::time::{Monotonic, Stamp};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::super::Fail;
use super::super::setup::key_number;
use crate::netns::Namespace;

/// Both knocks and a probe, each of which has been answered.
#[derive(Clone, Debug)]
pub struct Captured {
    /// The first knock.
    pub hello: Vec<u8>,
    /// The second.
    pub join: Vec<u8>,
    /// The probe.
    pub probe: Vec<u8>,
}

impl Captured {
    /// Has a client inside `ns` be served by the reflector at `reflector`, which has to know the second of
    /// the benchmarks' keys ([`key_number`]).
    ///
    /// # Errors
    /// Where it is not served.
    pub fn from(ns: &Namespace, reflector: SocketAddr) -> Result<Self, Fail> {
        let failed = |e: std::io::Error| Fail::of("a client to be captured", e);
        ns.inside(move || serve(reflector))
            .and_then(|served| served)
            .map_err(failed)
    }
}

fn serve(to: SocketAddr) -> std::io::Result<Captured> {
    let own = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(own)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    // Of each family another client: what one said would be taken for a replay from the other.
    let mut rng = ChaCha8Rng::seed_from_u64(99 + u64::from(to.is_ipv6()));
    let mut now = Monotonic::ZERO;
    let mut client: Client<Vec<Slot>, Vec<LossSlot>> = Client::new(key_number(1), now, &mut rng);
    let config = StreamConfig {
        series: SeriesIndex(0),
        size: 128,
        interval_ns: 1_000_000,
        spread_permille: 0,
        timeout_ns: 1_000_000_000,
    };
    let (slots, losses) = (vec![Slot::default(); 8], vec![LossSlot::default(); 8]);
    // One stream always fits.
    let _ = client.add_stream(config, now, slots, losses, &mut rng);
    let mut sent = Vec::new();
    while sent.len() < 3 {
        now = now.saturating_add(2_000_000);
        let mut out = [0; 1500];
        let Some((len, _)) = client.poll_transmit(now, &mut rng, &mut out) else {
            continue;
        };
        socket.send(&out[..len])?;
        let mut answer = [0; 2048];
        let got = socket.recv(&mut answer)?;
        let meta = RecvMeta {
            at: Stamp::user(now),
            from: socket.peer_addr()?,
            to: None,
            ttl: None,
            tos: None,
            socket_drops: 0,
            truncated: false,
        };
        client
            .handle_reply(now, &meta, &mut answer[..got])
            .map_err(|reason| std::io::Error::other(reason.as_str()))?;
        sent.push(out[..len].to_vec());
    }
    let [hello, join, probe] = [0, 1, 2].map(|i| std::mem::take(&mut sent[i]));
    Ok(Captured { hello, join, probe })
}
