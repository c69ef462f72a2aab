//! Batches of a real daemon, which probes through an emulated line.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use super::super::super::setup::{Bench, wait_until};
use super::batch::{Batch, PLACEHOLDER};
use super::{Fail, PATIENCE, PUSH_S};
use crate::home::{Home, SERVERS};
use crate::link::Direction;

const MS: u64 = 1_000_000;
/// The far end of the line, which is pinged as well as the addresses of the server behind it.
const FAR_END: &str = "10.77.0.2";
/// Series of the daemon: a reflector, the addresses of the server, and the far end.
pub(super) const SERIES: usize = SERVERS + 2;
const REFLECTOR_PORT: u16 = 9876;
/// Probes of a default configuration come so far apart, ms.
const PROBE_MS: u64 = 50;
const PING_MS: u64 = 1000;

/// So many batches of a daemon, as it posts them: one each second instead of in [`PUSH_S`], and so it
/// probes that much faster, for batches with as much in them.
pub(super) fn record(bench: &Bench, count: usize) -> Result<Vec<Batch>, Fail> {
    let line = |jitter_ms| Direction {
        jitter_ns: jitter_ms * MS,
        ..Direction::delay(8 * MS)
    };
    let home = Home::new(1, &line(4), &line(1), 1).map_err(|e| Fail::of("an emulated line", e))?;
    let reflector = format!("10.99.0.1:{REFLECTOR_PORT}");
    let listen = ([10, 99, 0, 1], REFLECTOR_PORT).into();
    let _reflector = bench.reflector(listen, Some(&home.server), None)?;
    let failed = |e: std::io::Error| Fail::of("a receiver of batches", e);
    let listener = home
        .client
        .inside(|| TcpListener::bind("127.0.0.1:0"))
        .and_then(|bound| bound)
        .map_err(failed)?;
    let at = listener.local_addr().map_err(failed)?;
    let faster = |ms: u64| format!("{}us", ms * 1000 / PUSH_S);
    let mut text = format!(
        "[[interface]]\nname = \"wan0\"\n\
         [[reflector]]\nname = \"lab\"\naddress = \"{reflector}\"\nkey_file = \"lab.key\"\nfamily = \"4\"\n\
         interval = \"{}\"\n\
         [[remote_write]]\nurl = \"http://{at}/api/v1/write\"\ninterval = \"1s\"\nprotocol = \"1.0\"\nclock = \"any\"\n\
         labels = {{ instance = \"{PLACEHOLDER}\" }}\n",
        faster(PROBE_MS)
    );
    let servers = (1..=SERVERS).map(|n| format!("10.99.0.{n}"));
    for (n, address) in servers.chain([FAR_END.to_owned()]).enumerate() {
        text.push_str(&format!(
            "[[target]]\nname = \"host{n}\"\nkind = \"icmp\"\naddress = \"{address}\"\ninterval = \"{}\"\n",
            faster(PING_MS)
        ));
    }
    let mut daemon = bench.daemon(&text, Some(&home.client))?;
    let series = || {
        let answer = bench.status("daemon.sock").ok()?;
        Some(answer["status"]["series"].as_array()?.len())
    };
    wait_until(|| !daemon.runs() || series() == Some(SERIES));
    if series() != Some(SERIES) {
        return Err(Fail::Failed(format!(
            "the daemon does not have its {SERIES} series: {:?}",
            series()
        )));
    }
    let mut batches: Vec<Batch> = Vec::new();
    while batches.len() < count {
        let (stream, _) = listener.accept().map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        let mut stream = BufReader::new(stream);
        while batches.len() < count
            && let Some(body) = request(&mut stream).map_err(failed)?
        {
            let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
            stream.get_mut().write_all(answer).map_err(failed)?;
            let batch = Batch::of(&body)?;
            // The first ones may be from before all series were there.
            if batches
                .last()
                .is_some_and(|b| b.samples() != batch.samples())
            {
                batches.clear();
            }
            batches.push(batch);
        }
    }
    daemon.stop();
    Ok(batches)
}

/// The body of the next request.
fn request(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Vec<u8>>> {
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(n) = line.strip_prefix("content-length:") {
            length = n.trim().parse().map_err(std::io::Error::other)?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(body))
}
