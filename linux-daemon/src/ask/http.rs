//! Requests to servers of HTTP/1.1 (RFC 9112), over TLS (RFC 8446, RFC 5246) where that is asked for. The
//! connection, the handshake and the response are steps that are timed apart.
//!
//! Of a response only the head is waited for: how long the rest takes is a matter of how much it is. A
//! redirection is an answer and is not followed.

use std::io;
use std::net::SocketAddr;

use bufferbane_core::failure::Failure;
use httparse::{EMPTY_HEADER, Response};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::config::Page;
use super::{Outcome, Steps, socket};
use crate::scout::Way;
use crate::tls;

/// What is read of a response, bytes: a head that is longer is none.
const LONGEST_HEAD: usize = 16 << 10;
/// Lines of a head.
const MOST_LINES: usize = 100;
/// What two ends say until they are agreed, certificates included, bytes.
const HANDSHAKE: u64 = 6000;
/// What may be on its way before a response is cut off (ten segments, RFC 6928), bytes.
const FIRST_FLIGHT: u64 = 15_000;

/// What a handshake needs.
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    /// `None` where `page` is asked for without it.
    ///
    /// # Errors
    /// When no certificate can have the server's name, or no version of TLS can be spoken.
    pub(super) fn of(page: &Page) -> io::Result<Option<Self>> {
        if !page.url.secure {
            return Ok(None);
        }
        let name = ServerName::try_from(page.url.host.clone()).map_err(io::Error::other)?;
        let config = page.roots.client().map_err(io::Error::other)?;
        Ok(Some(Self {
            connector: config.into(),
            name,
        }))
    }
}

/// Bytes of a request, without TLS around it.
pub(super) fn size(page: &Page) -> u16 {
    u16::try_from(request(page).len()).unwrap_or(u16::MAX)
}

/// What a request and its answer move at most, without the connection, bytes.
pub(super) fn bytes(page: &Page) -> u64 {
    let handshake = if page.url.secure { HANDSHAKE } else { 0 };
    handshake + u64::from(size(page)) + FIRST_FLIGHT
}

fn request(page: &Page) -> String {
    format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: bufferbane/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        page.url.path,
        page.url.authority(),
        env!("CARGO_PKG_VERSION")
    )
}

/// Asks for `page` at `to`; tells how far it came in `steps`.
pub(super) async fn get(
    way: &Way,
    to: SocketAddr,
    page: &Page,
    tls: Option<&Tls>,
    steps: &mut Steps,
) {
    if let Err(why) = try_get(way, to, page, tls, steps).await {
        steps.end(why);
    }
}

async fn try_get(
    way: &Way,
    to: SocketAddr,
    page: &Page,
    tls: Option<&Tls>,
    steps: &mut Steps,
) -> Result<(), Outcome> {
    let mut stream = socket::connect(way, to).await?;
    steps.answered();
    // The request is not to wait until the end of the handshake is acknowledged.
    stream.set_nodelay(true).map_err(|e| failed(&e))?;
    steps.next();
    let status = match tls {
        None => respond(&mut stream, page).await,
        Some(tls) => {
            let shaken = tls.connector.connect(tls.name.clone(), stream).await;
            let mut stream = shaken.map_err(|e| failed(&e))?;
            steps.answered();
            steps.next();
            respond(&mut stream, page).await
        }
    };
    match status.map_err(|e| failed(&e))? {
        Some(status) if page.is_right(status) => steps.answered(),
        Some(status) => return Err(Outcome::Failed(Failure::http(status))),
        None => return Err(Outcome::Failed(Failure::MALFORMED)),
    }
    Ok(())
}

/// The status of the response to a request; `None` where it is none of HTTP.
async fn respond(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    page: &Page,
) -> io::Result<Option<u16>> {
    stream.write_all(request(page).as_bytes()).await?;
    stream.flush().await?;
    let (mut read, mut part) = (Vec::new(), [0; 2048]);
    loop {
        match status(&read) {
            Head::Partial if read.len() < LONGEST_HEAD => {}
            Head::Status(status) => return Ok(Some(status)),
            Head::Partial | Head::Nonsense => return Ok(None),
        }
        match stream.read(&mut part).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            len => read.extend_from_slice(&part[..len]),
        }
    }
}

/// What was read so far.
#[derive(Debug, PartialEq, Eq)]
enum Head {
    /// More has to come.
    Partial,
    Status(u16),
    Nonsense,
}

/// The status in the head of a response, past heads that are there before the one that counts (1xx,
/// RFC 9110 section 15.2).
fn status(mut bytes: &[u8]) -> Head {
    loop {
        let mut lines = [EMPTY_HEADER; MOST_LINES];
        let mut head = Response::new(&mut lines);
        match (head.parse(bytes), head.code) {
            (Ok(httparse::Status::Complete(len)), Some(100..200)) => bytes = &bytes[len..],
            (Ok(httparse::Status::Complete(_)), Some(status)) => return Head::Status(status),
            (Ok(httparse::Status::Partial), _) => return Head::Partial,
            (Ok(_) | Err(_), _) => return Head::Nonsense,
        }
    }
}

/// What an error says that came once there was a connection.
fn failed(e: &io::Error) -> Outcome {
    tls::failure(e).map_or_else(|| Outcome::of(e), Outcome::Failed)
}

#[cfg(test)]
mod tests;
