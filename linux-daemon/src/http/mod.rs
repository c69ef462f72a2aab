//! The daemon's own page: what is going on now, for a browser on this host, and `/metrics` for
//! programs.
//!
//! It only ever reads. It answers on the loopback address unless the configuration says otherwise,
//! and refuses requests that another site's script or a rebound name could make: those whose `Host`
//! is a foreign name, and those whose `Origin` is not this page.

mod history;
mod request;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::metrics::{self, Format, Source};
use history::History;
use request::{Refusal, Request};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Connections that are served at once; further ones wait.
const CONNECTIONS: usize = 24;
/// Of these, pages that are kept up to date.
const STREAMS: usize = 12;
/// How long a request may take to arrive, and an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest request with its headers, bytes.
const LONGEST: usize = 8192;
const SECOND: Duration = Duration::from_secs(1);
/// What a browser may do with this page: nothing from anywhere else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the page is made of.
#[derive(Clone)]
struct Site {
    shown: Source,
    history: Rc<RefCell<History>>,
    tick: Rc<Notify>,
    streams: Rc<RefCell<usize>>,
    listen: SocketAddr,
}

/// Serves the page at `listen` for as long as the control thread runs. Where the address cannot be
/// had, that is said in the log, and everything else goes on.
pub(crate) async fn serve(listen: SocketAddr, shown: Source) {
    let listener = match TcpListener::bind(listen).await {
        Ok(l) => l,
        Err(e) => {
            log::warn!("http.listen {listen}: {e}; there is no live page and no /metrics");
            return;
        }
    };
    let listen = listener.local_addr().unwrap_or(listen);
    log::info!("live page: http://{listen}/");
    if let Ok(mut status) = shown.status.lock() {
        status.http = Some(listen.to_string());
    }
    let site = Site {
        shown,
        history: Rc::default(),
        tick: Rc::default(),
        streams: Rc::default(),
        listen,
    };
    tokio::task::spawn_local(keep_time(site.clone()));
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let site = site.clone();
                tokio::task::spawn_local(async move {
                    // Whoever hangs up in between needs no answer.
                    let _ = talk(stream, &site).await;
                    drop(place);
                });
            }
            Err(e) => {
                log::warn!("live page: {e}");
                tokio::time::sleep(SECOND).await;
            }
        }
    }
}

/// Takes down each second, and wakes those who wait for the next.
async fn keep_time(site: Site) {
    let mut every = tokio::time::interval(SECOND);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        every.tick().await;
        if let Some(status) = site.shown.status() {
            site.history.borrow_mut().add(&status.series);
        }
        site.tick.notify_waiters();
    }
}

impl Site {
    fn metrics(&self, format: Format) -> Option<String> {
        let (status, meters) = (self.shown.status()?, self.shown.meters()?);
        Some(metrics::page(format, &status, &meters))
    }
}

async fn talk(mut stream: TcpStream, site: &Site) -> std::io::Result<()> {
    let request = match tokio::time::timeout(PATIENCE, read(&mut stream)).await {
        Ok(request) => request?,
        Err(_) => return Ok(()),
    };
    let admitted =
        Request::parse(&request).and_then(|r| r.admit(site.listen).map(|path| (path, r)));
    let (path, request) = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => return refuse(&mut stream, refusal).await,
    };
    match path {
        "/" => answer(&mut stream, "text/html; charset=utf-8", PAGE).await,
        "/page.css" => answer(&mut stream, "text/css; charset=utf-8", STYLE).await,
        "/page.js" => answer(&mut stream, "text/javascript; charset=utf-8", SCRIPT).await,
        "/api/now" => {
            let now = json!(site.shown.status()).to_string();
            answer(&mut stream, "application/json", &now).await
        }
        "/api/history" => {
            let history = site.history.borrow().to_json().to_string();
            answer(&mut stream, "application/json", &history).await
        }
        "/metrics" => {
            let format = Format::accepted(request.accept());
            match site.metrics(format) {
                Some(text) => answer(&mut stream, format.content_type(), &text).await,
                None => Ok(()),
            }
        }
        "/api/events" => follow(stream, site).await,
        _ => refuse(&mut stream, Refusal::NotFound).await,
    }
}

async fn read(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let mut part = [0; 1024];
    while request.len() < LONGEST {
        let n = stream.read(&mut part).await?;
        if n == 0 {
            break;
        }
        request.extend_from_slice(&part[..n]);
        if request.windows(4).any(|w| w == b"\r\n\r\n") {
            break;
        }
    }
    Ok(request)
}

fn head(status: &str, kind: &str, length: Option<usize>) -> String {
    let length = length.map_or(String::new(), |n| format!("Content-Length: {n}\r\n"));
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{length}Cache-Control: no-store\r\n\
         Content-Security-Policy: {POLICY}\r\nX-Content-Type-Options: nosniff\r\n\
         Cross-Origin-Resource-Policy: same-origin\r\nReferrer-Policy: no-referrer\r\n\
         Connection: close\r\n\r\n"
    )
}

async fn answer(stream: &mut TcpStream, kind: &str, body: &str) -> std::io::Result<()> {
    let text = head("200 OK", kind, Some(body.len())) + body;
    write(stream, text.as_bytes()).await
}

async fn refuse(stream: &mut TcpStream, refusal: Refusal) -> std::io::Result<()> {
    let body = format!("{}\n", refusal.why());
    let text = head(refusal.status(), "text/plain", Some(body.len())) + &body;
    write(stream, text.as_bytes()).await
}

async fn write(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    match tokio::time::timeout(PATIENCE, stream.write_all(bytes)).await {
        Ok(done) => done,
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    }
}

/// Counts a page that is kept up to date, for as long as it is.
struct Following(Rc<RefCell<usize>>);

impl Drop for Following {
    fn drop(&mut self) {
        *self.0.borrow_mut() -= 1;
    }
}

/// Server-sent events: the present, every second.
async fn follow(mut stream: TcpStream, site: &Site) -> std::io::Result<()> {
    if *site.streams.borrow() >= STREAMS {
        return refuse(&mut stream, Refusal::Busy).await;
    }
    *site.streams.borrow_mut() += 1;
    let _following = Following(site.streams.clone());
    write(
        &mut stream,
        head("200 OK", "text/event-stream", None).as_bytes(),
    )
    .await?;
    loop {
        let Some(status) = site.shown.status() else {
            return Ok(());
        };
        let text = format!("data: {}\n\n", json!(status));
        write(&mut stream, text.as_bytes()).await?;
        site.tick.notified().await;
    }
}
