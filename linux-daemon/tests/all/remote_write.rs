//! Push by remote-write to Debian's `prometheus` and `victoria-metrics`, which go away, are slow, and
//! refuse.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::common::web::{free_address, get, is_there, json, percent, query};
use crate::common::{PATIENCE, Place, reopen, rows, sent};
use bufferbane_linux_io::clock;
use serde_json::Value;

/// A server that is ended with this.
struct Server(Child);

impl Server {
    fn prometheus(dir: &Path, address: &str) -> Self {
        let file = dir.join("prometheus.yml");
        std::fs::write(&file, "global: {}\n").unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--web.enable-remote-write-receiver")
            .arg("--enable-feature=native-histograms")
            .arg("--log.level=error")
            .spawn();
        Self(child.unwrap())
    }

    fn victoria_metrics(dir: &Path, address: &str) -> Self {
        let child = Command::new("victoria-metrics")
            .arg(format!("-storageDataPath={}", dir.join("vm").display()))
            .arg(format!("-httpListenAddr={address}"))
            .args(["-memory.allowedPercent=5", "-loggerLevel=ERROR"])
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A way to `to` that holds answers back for a time that can be set, ms; where it begins.
fn slow_way(to: String, delay_ms: Arc<AtomicU64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(&to) else {
                continue;
            };
            let (mut from, mut into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                // Either end may hang up.
                let _ = std::io::copy(&mut from, &mut into);
                let _ = into.shutdown(std::net::Shutdown::Both);
            });
            let delay_ms = Arc::clone(&delay_ms);
            std::thread::spawn(move || {
                let (mut server, mut client, mut part) = (server, client, [0; 4096]);
                while let Ok(n @ 1..) = server.read(&mut part) {
                    std::thread::sleep(Duration::from_millis(delay_ms.load(Relaxed)));
                    if client.write_all(&part[..n]).is_err() {
                        break;
                    }
                }
                let _ = client.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    address
}

/// A receiver that wants to be left in peace at first, and then refuses everything.
fn refuser() -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut part = [0; 65_536];
            let (mut request, mut whole) = (Vec::new(), 1);
            while request.len() < whole {
                let Ok(n @ 1..) = client.read(&mut part) else {
                    break;
                };
                request.extend_from_slice(&part[..n]);
                let head = request.windows(4).position(|w| w == b"\r\n\r\n");
                whole = head.map_or(usize::MAX, |end| {
                    let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
                    let length = head.split("content-length: ").nth(1).unwrap();
                    end + 4 + length.lines().next().unwrap().parse::<usize>().unwrap()
                });
            }
            let status = match counted.fetch_add(1, Relaxed) {
                0 => "503 Busy\r\nRetry-After: 2",
                1 => "429 Too Many Requests",
                _ => "422 Not Like That",
            };
            let answer =
                format!("HTTP/1.1 {status}\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n");
            // It may have hung up.
            let _ = client.write_all(answer.as_bytes());
        }
    });
    (address, asked)
}

fn number(v: &Value) -> u64 {
    v.as_u64().unwrap_or_else(|| panic!("{v} is no number"))
}

/// When the batches are from that the Prometheus has, ms.
fn at_prometheus(address: &str) -> BTreeSet<u64> {
    let path = format!(
        "/api/v1/query?query={}",
        percent("bufferbane_uptime_seconds{job=\"bufferbane\",site=\"here\"}[10m]")
    );
    let (_, body) = get(address, &path, "*/*").unwrap();
    let answer = json(&body);
    let values = answer["data"]["result"][0]["values"].as_array();
    let ms = |v: &Value| (v[0].as_f64().unwrap() * 1000.0).round() as u64;
    values.into_iter().flatten().map(ms).collect()
}

/// Likewise of the VictoriaMetrics.
fn at_victoria_metrics(address: &str) -> BTreeSet<u64> {
    let path = format!(
        "/api/v1/export?match[]={}",
        percent("bufferbane_uptime_seconds")
    );
    let (_, body) = get(address, &path, "*/*").unwrap();
    let lines = body.lines().map(json);
    lines
        .flat_map(|l| l["timestamps"].as_array().cloned().unwrap_or_default())
        .map(|ms| number(&ms))
        .collect()
}

/// What that Prometheus is to be spoken to by: 2.0 is offered from 3.0 on, which Debian 12 does not have.
fn offered(address: &str) -> &'static str {
    let (_, body) = get(address, "/api/v1/status/buildinfo", "*/*").unwrap();
    let version = json(&body)["data"]["version"].take();
    println!("prometheus {version}");
    let major = version.as_str().and_then(|v| v.split('.').next());
    match major.and_then(|n| n.parse().ok()) {
        Some(0..=2_u32) => "1.0",
        Some(_) => "2.0",
        None => panic!("{body}"),
    }
}

/// Waits until it has so many.
fn all_there(what: &str, wanted: u64, has: impl Fn() -> BTreeSet<u64>) {
    let begin = Instant::now();
    loop {
        let n = has().len() as u64;
        if n >= wanted {
            println!("{what}: {n} batches there, {wanted} were told as taken");
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{what}: {n} of {wanted}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// The middle of how late probes left that were sent between these times, ns.
fn lateness(rows: &[bufferbane_store::Row], from_ns: u64, to_ns: u64) -> i64 {
    let mut late: Vec<i64> = rows
        .iter()
        .filter(|r| (from_ns..to_ns).contains(&r.sample.sent.as_nanos()))
        .map(|r| r.sample.send_late_ns)
        .collect();
    assert!(late.len() > 200, "only {} probes", late.len());
    late.sort_unstable();
    late[late.len() / 2]
}

#[test]
fn nothing_is_lost_while_receivers_are_away_slow_or_refuse() {
    if !is_there("prometheus") || !is_there("victoria-metrics") {
        return;
    }
    let place = Place::new();
    let dir = place.dir.path();
    let (prometheus_at, vm_at) = (free_address(), free_address());
    let prometheus = Server::prometheus(dir, &prometheus_at);
    let _vm = Server::victoria_metrics(dir, &vm_at);
    let delay_ms = Arc::new(AtomicU64::new(0));
    let slow_at = slow_way(vm_at.clone(), Arc::clone(&delay_ms));
    let (refuser_at, asked) = refuser();
    let urls = [
        format!("http://{prometheus_at}/api/v1/write"),
        format!("http://{slow_at}/api/v1/write"),
        format!("http://{refuser_at}/write"),
    ];
    let mut text = place.usual("5ms");
    for (url, histograms) in urls.iter().zip(["both", "classic", "classic"]) {
        text += &format!(
            "[[remote_write]]\nurl = \"{url}\"\ninterval = \"1s\"\nclock = \"any\"\n\
             histograms = \"{histograms}\"\nlabels = {{ site = \"here\" }}\n"
        );
    }
    place.configure(&text.replace("[daemon]", "[http]\nlisten = \"127.0.0.1:0\"\n[daemon]"));
    let service = place.start().ready();
    let [prometheus_url, vm_url, refuser_url] = &urls;

    // Everybody but the one who refuses takes all there is.
    let begin_ns = clock::now().as_nanos();
    let good = place.status_with("batches taken", |s| {
        let taken = |url: &String| number(&s["remote_write"][url]["taken"]["batches"]);
        taken(prometheus_url) >= 4 && taken(vm_url) >= 4 && sent(s) > 1000
    });
    let trouble_ns = clock::now().as_nanos();
    for (url, protocol) in [(prometheus_url, offered(&prometheus_at)), (vm_url, "1.0")] {
        let r = &good["remote_write"][url];
        assert_eq!(r["protocol"], protocol, "{r}");
        assert_eq!(number(&r["refused"]["batches"]), 0, "{r}");
        assert_eq!(r["waits_because"], Value::Null, "{r}");
    }
    let refused = place.status_with("batches refused", |s| {
        number(&s["remote_write"][refuser_url]["refused"]["batches"]) >= 2
    });
    let r = &refused["remote_write"][refuser_url];
    // A machine that stalls may also let a try run out of time.
    assert!(number(&r["retries"]) >= 2, "{r}");
    assert!(asked.load(Relaxed) >= 4);
    assert!(
        r["refused_because"].as_str().unwrap().contains("422"),
        "{r}"
    );

    // One is away and the other one slow; and the daemon is killed.
    drop(prometheus);
    delay_ms.store(2500, Relaxed);
    let held = place.status_with("a queue", |s| {
        number(&s["remote_write"][prometheus_url]["queue_batches"]) >= 6
    });
    let r = &held["remote_write"][prometheus_url];
    assert!(
        r["waits_because"].is_string() && number(&r["retries"]) > 0,
        "{r}"
    );
    assert!(
        number(&held["remote_write"][vm_url]["queue_batches"]) >= 1,
        "{held}"
    );
    let queued = number(&r["queue_batches"]);
    let ended_ns = clock::now().as_nanos();
    service.kill();
    let mut service = place.start();
    service.line("is ready");
    let again = place.status_with("a longer queue", |s| {
        number(&s["remote_write"][prometheus_url]["queue_batches"]) > queued
    });
    assert_eq!(
        number(&again["remote_write"][prometheus_url]["damaged_batches"]),
        0
    );

    // All is well again.
    delay_ms.store(0, Relaxed);
    let _prometheus = Server::prometheus(dir, &prometheus_at);
    service.line(&format!("{prometheus_url}: it takes batches again"));
    let end = place.status_with("empty queues", |s| {
        [prometheus_url, vm_url].iter().all(|url| {
            let r = &s["remote_write"][url.as_str()];
            number(&r["queue_batches"]) <= 1 && r["waits_because"].is_null()
        })
    });
    for url in [prometheus_url, vm_url] {
        let r = &end["remote_write"][url];
        let nothing = ["refused", "given_up"].map(|what| number(&r[what]["batches"]));
        assert_eq!(nothing, [0, 0], "{r}");
        assert_eq!(number(&r["damaged_batches"]), 0, "{r}");
    }
    let taken = |s: &Value, url: &str| number(&s["remote_write"][url]["taken"]["batches"]);
    // What was taken before the end of the first run, and what the second run sent of both.
    let wanted = taken(&held, prometheus_url) + taken(&end, prometheus_url);
    assert!(taken(&end, prometheus_url) > queued, "{end:#}");
    all_there("prometheus", wanted, || at_prometheus(&prometheus_at));
    let wanted = taken(&held, vm_url) + taken(&end, vm_url);
    // One that was on its way when the daemon was killed is sent twice, and told once: by the second run.
    all_there("victoria-metrics", wanted, || at_victoria_metrics(&vm_at));

    // Both kinds of histograms say the same.
    for target in ["far", "self"] {
        let (native, classic) = (
            format!("histogram_count(bufferbane_rtt_seconds{{target=\"{target}\"}})"),
            format!("bufferbane_rtt_seconds_count{{target=\"{target}\"}}"),
        );
        let differ = query(
            &prometheus_at,
            &format!("{native} - ignoring(__name__) {classic}"),
            |f| f.len() == 1 || target == "self",
        );
        assert!(differ.iter().all(|(_, n)| *n == 0.0), "{differ:?}");
    }
    let median = "histogram_quantile(0.5, rate(bufferbane_rtt_seconds{target=\"far\"}[1m]))";
    let median = query(&prometheus_at, median, |f| {
        f.len() == 1 && f[0].1.is_finite()
    });
    assert!(median[0].1 > 0.0 && median[0].1 < 1.0, "{median:?}");

    let (code, took) = service.end();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(10), "{took:?}");
    // The last batch waits for the next start.
    let names = std::fs::read_dir(place.path("s.remote-write")).unwrap();
    let left = names.flat_map(|d| std::fs::read_dir(d.unwrap().path()).unwrap());
    assert!(left.count() >= 2);

    let reader = reopen(&place.store());
    let rows = rows(&reader);
    let well = lateness(&rows, begin_ns, trouble_ns);
    let ill = lateness(&rows, trouble_ns, ended_ns);
    println!("probes left {well} ns late with receivers, {ill} ns without");
    // The shortest wait for a receiver, half a second, is ten times as long; a machine that stalls for some
    // ms is not meant.
    assert!(
        ill < (10 * well).max(50_000_000),
        "{ill} ns against {well} ns"
    );
}
