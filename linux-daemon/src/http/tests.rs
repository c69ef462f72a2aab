//! The page over a real connection.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::serve;
use crate::metrics::Source;
use crate::status::Status;

/// Runs `test` beside a page.
fn beside_a_page<F: Future<Output = ()>>(test: impl FnOnce(SocketAddr) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let status = Arc::new(Mutex::new(Status::default()));
        let any = "127.0.0.1:0".parse().unwrap();
        let shown = Source {
            status: status.clone(),
            meters: Arc::default(),
            started: Instant::now(),
        };
        tokio::task::spawn_local(serve(any, shown));
        let listen = loop {
            if let Some(listen) = status.lock().unwrap().http.clone() {
                break listen;
            }
            tokio::task::yield_now().await;
        };
        test(listen.parse().unwrap()).await;
    });
}

async fn ask(page: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(page).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn get(page: SocketAddr, path: &str, host: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut said = String::new();
    ask(page, &request)
        .await
        .read_to_string(&mut said)
        .await
        .unwrap();
    said
}

#[test]
fn the_page_and_its_parts_are_served_and_strangers_are_not() {
    beside_a_page(|page| async move {
        let own = page.to_string();
        for (path, part) in [
            ("/", "<title>Bufferbane"),
            ("/page.css", "main {"),
            ("/page.js", "EventSource"),
            ("/api/now", "\"uptime_s\":"),
            ("/api/history", "{"),
            ("/metrics", "\nbufferbane_uptime_seconds "),
        ] {
            let said = get(page, path, &own).await;
            assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {said}");
            assert!(said.contains(part) && said.contains("default-src 'none'"));
            // Nothing of it comes from elsewhere.
            assert!(!said.contains("https://") && !said.contains("src=\"http"));
        }
        assert!(
            get(page, "/etc/passwd", &own)
                .await
                .starts_with("HTTP/1.1 404")
        );
        for path in ["/api/now", "/metrics"] {
            let foreign = get(page, path, "rebound.example").await;
            assert!(foreign.starts_with("HTTP/1.1 403") && !foreign.contains("uptime_s"));
        }
    });
}

#[test]
fn the_present_comes_every_second() {
    beside_a_page(|page| async move {
        let request = format!("GET /api/events HTTP/1.1\r\nHost: {page}\r\n\r\n");
        let mut stream = ask(page, &request).await;
        let (mut said, mut part) = (String::new(), [0; 4096]);
        while said.matches("data: {").count() < 2 {
            let n = stream.read(&mut part).await.unwrap();
            assert!(n > 0, "{said}");
            said.push_str(std::str::from_utf8(&part[..n]).unwrap());
        }
        assert!(said.contains("text/event-stream"));
    });
}
