//! Answering STAMP (RFC 8762) for configured addresses: the one thing that is not sealed by a
//! client's key, so it is off unless it is written down, and never more than what was asked.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use bufferbane_config::{Section, parse_address, parse_subnet, stampkey};
use bufferbane_core::drop_reason::DropCounters;
use bufferbane_core::packet::RecvMeta;
use bufferbane_core::stamp::{Peer, StampClock, StampResponder, Subnet};
use bufferbane_core::wire::stamp::{Key, PORT};
use bufferbane_linux_io::{Engine, Family, Outbox, ProbeSocket, SocketId, Transmit, clock};

/// Most sockets for it.
pub const MAX_STAMP_LISTEN: usize = 4;
/// Replies per second in all by default.
const DEFAULT_MAX_PPS: u32 = 1000;
/// Senders that are numbered at a time.
const PEERS: usize = 64;
/// What a clock that is synchronised may be off by, as far as is said to senders, ns.
const SYNCHRONISED_ERROR_NS: u64 = 10_000_000;
/// And one that is not.
const ADRIFT_ERROR_NS: u64 = 1_000_000_000;

/// Whom to answer, where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StampConfig {
    /// Where requests are received.
    pub listen: Vec<SocketAddr>,
    /// Who is answered.
    pub allow: Vec<Subnet>,
    /// Replies per second, to all together.
    pub max_pps: u32,
    /// With a key, only what is authenticated by it is answered.
    pub key: Option<Key>,
}

/// Reads the section `[stamp]`; `None` where there is none, or it is wrong.
pub(crate) fn read(s: &Section<'_>, base: &Path) -> Option<StampConfig> {
    if !s.is_present() {
        return None;
    }
    let mut listen = vec![
        (Ipv4Addr::UNSPECIFIED, PORT).into(),
        (Ipv6Addr::UNSPECIFIED, PORT).into(),
    ];
    if let Some(texts) = s.texts("listen") {
        listen.clear();
        for text in &texts {
            match parse_address(text, PORT) {
                Ok(address) => listen.push(address),
                Err(why) => s.mistake("listen", why),
            }
        }
        if texts.is_empty() || texts.len() > MAX_STAMP_LISTEN {
            s.mistake("listen", format!("needs 1 to {MAX_STAMP_LISTEN} addresses"));
        }
    }
    let mut allow = Vec::new();
    for text in s.texts("allow").unwrap_or_default() {
        match parse_subnet(&text) {
            Ok(net) => allow.push(net),
            Err(why) => s.mistake("allow", why),
        }
    }
    if allow.is_empty() {
        s.mistake(
            "allow",
            "names nobody; write who is answered, such as [\"192.0.2.7\", \"2001:db8::/48\"]",
        );
    }
    let max_pps = s.number("max_pps", 1..=100_000);
    let key = s
        .text("key_file")
        .and_then(|f| match stampkey::read(&base.join(f)) {
            Ok(key) => Some(key),
            Err(why) => {
                s.mistake("key_file", why);
                None
            }
        });
    s.finish();
    Some(StampConfig {
        listen,
        allow,
        max_pps: max_pps.unwrap_or(DEFAULT_MAX_PPS.into()) as u32,
        key,
    })
}

/// The answering side on the echo thread.
pub(crate) struct StampAnswers {
    sockets: [Option<SocketId>; MAX_STAMP_LISTEN],
    responder: StampResponder<Box<[Subnet]>, Box<[Peer]>>,
    synchronised: bool,
}

impl StampAnswers {
    /// Opens its sockets. Gives where it listens.
    pub(crate) fn start(
        engine: &mut Engine,
        config: &StampConfig,
    ) -> Result<(Self, Vec<SocketAddr>), String> {
        let mut sockets = [None; MAX_STAMP_LISTEN];
        let mut listen = Vec::new();
        for (place, address) in sockets.iter_mut().zip(&config.listen) {
            // The time of a reply has to stand in it, so the kernel's stamp would come too late.
            let socket = ProbeSocket::udp(Family::of(&address.ip()))
                .bind(*address)
                .stamps(true, false)
                .build()
                .map_err(|e| format!("stamp.listen {address}: {e}"))?;
            listen.push(socket.local_addr());
            *place = Some(engine.add_socket(socket).map_err(|e| e.to_string())?);
        }
        let answers = Self {
            sockets,
            responder: StampResponder::new(
                config.allow.clone().into(),
                vec![Peer::default(); PEERS].into(),
                config.key.clone(),
                config.max_pps,
            ),
            synchronised: false,
        };
        Ok((answers, listen))
    }

    /// Whether this socket is one of its.
    pub(crate) fn owns(&self, socket: SocketId) -> bool {
        self.sockets.contains(&Some(socket))
    }

    /// What replies say of the clock from now on.
    pub(crate) const fn set_synchronised(&mut self, yes: bool) {
        self.synchronised = yes;
    }

    /// How many requests were answered, and why others were not.
    pub(crate) const fn counts(&self) -> (u64, DropCounters) {
        (self.responder.answered(), *self.responder.drops())
    }

    /// Answers one request; whether the ring took it.
    pub(crate) fn receive(
        &mut self,
        out: &mut Outbox<'_>,
        socket: SocketId,
        meta: &RecvMeta,
        request: &[u8],
    ) -> bool {
        let transmit = Transmit {
            // From the address that was hit, whatever the routing table would choose.
            from: meta.to,
            ..Transmit::new(socket, meta.from, 0)
        };
        let responder = &mut self.responder;
        let synchronised = self.synchronised;
        let queued = out.send_with(&transmit, |room| {
            let now = clock::now();
            let clock = StampClock {
                offset_ns: clock::wall_now().saturating_sub_unsigned(now.as_nanos()),
                synchronised,
                error_ns: if synchronised {
                    SYNCHRONISED_ERROR_NS
                } else {
                    ADRIFT_ERROR_NS
                },
            };
            // Why there is none has been counted.
            responder
                .handle_request(now, &clock, meta, request, room)
                .ok()
        });
        queued.is_ok()
    }
}
