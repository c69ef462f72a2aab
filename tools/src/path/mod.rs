//! `bbtool path`: the hops to a target, each with its loss and round-trip times.

mod shown;
mod size;
mod way;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::time::Duration;

use bufferbane_core::trace::{MAX_HOPS, MIN_ROUND_NS, Step, Trace, TraceConfig, Transport};
use bufferbane_linux_io::{Family, HopSocket, ProbeSocket, SocketBuilder, Word, clock, host};

use crate::args::Path;
use crate::fail::Fail;
use crate::{out, show};
use way::Way;

/// The port that UDP is sent to: traceroute's, at which no service listens.
const PORT: u16 = 33434;
const SECOND_NS: u64 = 1_000_000_000;

/// What was asked for, and what came of it.
struct Found {
    target: String,
    way: Way,
    transport: Transport,
    rounds: u16,
    round_ns: u64,
    trace: Box<Trace>,
    /// Round-trip times of each hop, ns, in ascending order.
    rtts: Vec<Vec<u64>>,
    /// The largest packet that passes, where that was asked for.
    size: Option<size::Size>,
}

/// `bbtool path`.
pub(crate) fn run(args: &Path) -> Result<(), Fail> {
    let found = trace(args)?;
    if args.json {
        return out::print_json(&shown::json(&found));
    }
    out::print(&shown::text(&found).replace('\u{a0}', " "))
}

fn in_range(option: &str, n: u64, least: u64, most: u64) -> Result<(), Fail> {
    if (least..=most).contains(&n) {
        return Ok(());
    }
    Err(Fail::Usage(format!(
        "--{option} {n} is out of range; {least} to {most} is allowed"
    )))
}

fn trace(args: &Path) -> Result<Found, Fail> {
    in_range("count", args.count.into(), 1, 10_000)?;
    in_range("max-hops", args.max_hops.into(), 1, MAX_HOPS.into())?;
    let round_ns = match &args.interval {
        None => SECOND_NS,
        Some(text) => bufferbane_config::parse_duration(text)
            .ok()
            .filter(|ns| (MIN_ROUND_NS..=60 * SECOND_NS).contains(ns))
            .ok_or_else(|| {
                let text = show::clean(text);
                Fail::Usage(format!("--interval \"{text}\": 100ms to 1m is allowed"))
            })?,
    };
    let way = way::find(args)?;
    let cookie = getrandom::u64().map_err(|e| Fail::of("random numbers", e))?;
    let (builder, port, transport) = echoes(args, &way, cookie);
    let to = SocketAddr::new(way.address, port);
    let socket = HopSocket::new(builder, to).map_err(|e| Fail::Failed(e.to_string()))?;
    let config = TraceConfig {
        target: way.address,
        source: way.own_address(),
        transport,
        cookie,
        rounds: args.count,
        round_ns,
        max_hops: args.max_hops,
    };
    let (trace, rtts) = follow(socket, config)?;
    let size = args.mtu.then(|| size::find(args, &way, cookie));
    let size = size.transpose()?;
    Ok(Found {
        target: args.target.clone(),
        way,
        transport,
        rounds: args.count,
        round_ns,
        trace,
        rtts,
        size,
    })
}

/// UDP: how, to which port, and as what.
fn udp(way: &Way) -> (SocketBuilder, u16, Transport) {
    let builder = ProbeSocket::udp(Family::of(&way.address));
    (way.socket(builder), PORT, Transport::Udp)
}

/// Echoes where they can be had and UDP was not asked for, else UDP.
fn echoes(args: &Path, way: &Way, cookie: u64) -> (SocketBuilder, u16, Transport) {
    let echoes = || {
        // Any bits of a random number are one.
        let (builder, transport) = host::echoes(Family::of(&way.address), cookie as u16)?;
        Some((way.socket(builder), 0, transport))
    };
    let echoes = if args.udp { None } else { echoes() };
    echoes.unwrap_or_else(|| udp(way))
}

fn follow(mut socket: HopSocket, config: TraceConfig) -> Result<(Box<Trace>, Vec<Vec<u64>>), Fail> {
    let mut trace = Box::new(Trace::new(config));
    let mut rtts = vec![Vec::new(); usize::from(MAX_HOPS)];
    let mut refused = None;
    let progress = Progress::new(config.rounds);
    loop {
        match trace.step(clock::now()) {
            Step::Send(message) => {
                if let Err(e) = socket.send(message.ttl, message.message()) {
                    trace.handle_unsent(message.number);
                    refused = Some(e);
                }
            }
            Step::Wait(until) => {
                progress.show(trace.rounds(), trace.hops().len());
                let left = Duration::from_nanos(until.saturating_since(clock::now()));
                let waited = socket.wait(left, |heard| {
                    let answer = match heard.word {
                        Word::Report(report, quoted) => {
                            trace.handle_report(heard.at, heard.from, report, quoted)
                        }
                        Word::Message(message, _) => {
                            trace.handle_reply(heard.at, heard.from, message)
                        }
                        // No link is too narrow for these.
                        Word::TooBig(..) => return,
                    };
                    // What answers nothing of ours is others' business.
                    if let Ok(answer) = answer {
                        rtts[usize::from(answer.hop) - 1].push(answer.rtt_ns);
                    }
                });
                waited.map_err(|e| Fail::of("waiting for answers", e))?;
            }
            Step::End => break,
        }
    }
    progress.end();
    if trace.hops().is_empty() {
        let to = config.target;
        return Err(Fail::Failed(match refused {
            Some(e) => format!("nothing could be sent to {to}: {e}"),
            None => format!(
                "nobody on the way to {to} answers: the line is cut, or a firewall drops what is sent \
                 or what comes back"
            ),
        }));
    }
    rtts.iter_mut().for_each(|r| r.sort_unstable());
    Ok((trace, rtts))
}

/// For people: on standard error, and only on a terminal.
struct Progress {
    on: bool,
    rounds: u16,
}

impl Progress {
    fn new(rounds: u16) -> Self {
        Self {
            on: std::io::stderr().is_terminal(),
            rounds,
        }
    }

    fn show(&self, done: u16, hops: usize) {
        let all = self.rounds;
        self.write(&format!("\rround {done} of {all}, {hops} hops\u{1b}[K"));
    }

    fn end(&self) {
        self.write("\r\u{1b}[K");
    }

    fn write(&self, text: &str) {
        if self.on {
            let mut error = std::io::stderr();
            // Whoever closed their terminal does not miss it.
            let _ = error
                .write_all(text.as_bytes())
                .and_then(|()| error.flush());
        }
    }
}
