//! Asking the web servers of tests.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use super::{PATIENCE, skipped};

/// The answer to a GET: its head, and its body, in one piece as HTTP/1.0 has it.
pub fn get(address: &str, path: &str, accept: &str) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!(
        "GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    let (head, body) = said.split_once("\r\n\r\n").ok_or_else(|| {
        std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            format!("no HTTP: {said:?}"),
        )
    })?;
    Ok((head.to_owned(), body.to_owned()))
}

pub fn is_there(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        skipped(&format!("no {program} (a package of Debian's)"));
    }
    there
}

pub fn json(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_default()
}

pub fn results((_, body): (String, String)) -> Vec<(Value, f64)> {
    let answer = json(&body);
    let results = answer["data"]["result"].as_array().cloned();
    let value = |r: &Value| r["value"][1].as_str()?.parse().ok();
    results
        .unwrap_or_default()
        .iter()
        .filter_map(|r| Some((r["metric"].clone(), value(r)?)))
        .collect()
}

pub fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}

/// A port of loopback that is free now; nobody else here asks for one by its number.
pub fn free_address() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    port.local_addr().unwrap().to_string()
}

/// The results of an instant query of a Prometheus, as soon as there are any that `right` agrees with.
pub fn query(
    address: &str,
    query: &str,
    right: impl Fn(&[(Value, f64)]) -> bool,
) -> Vec<(Value, f64)> {
    let begin = Instant::now();
    let path = format!("/api/v1/query?query={}", percent(query));
    loop {
        let found = get(address, &path, "*/*").map_or_else(|_| Vec::new(), results);
        if right(&found) {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "{query}: {found:?}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}
