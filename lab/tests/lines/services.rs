//! Services that are asked through an uplink. Resolvers: a real one (Debian's dnsmasq) over UDP, TCP and IPv6 and
//! for names that nobody has asked for yet; and some that refuse, cut their answers, or say nothing;
//! connections that are taken, refused, or swallowed on the way; and servers of HTTP and HTTPS.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bufferbane_core::detect::Kind;
use bufferbane_core::stats::summary::Summary;
use bufferbane_lab::home::Home;
use bufferbane_lab::link::Direction;
use bufferbane_lab::netns::{Namespace, possible};
use bufferbane_lab::skip;
use bufferbane_store::{Reader, SeriesInfo, SeriesKind, by_reason};
use bufferbaned::Daemon;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

const MS: u64 = 1_000_000;

const CONFIG: &str = r#"
[[interface]]
name = "wan0"
[[target]]
name = "real"
kind = "dns"
address = "10.99.0.1"
interval = "200ms"
[[target]]
name = "real-6"
kind = "dns"
address = "[fd99::1]:53"
interval = "200ms"
[[target]]
name = "real-tcp"
kind = "dns"
address = "10.99.0.1"
transport = "tcp"
interval = "200ms"
[[target]]
name = "real-random"
kind = "dns"
address = "10.99.0.1"
random = true
interval = "200ms"
[[target]]
name = "unknown-name"
kind = "dns"
address = "10.99.0.1"
lookup = "nobody.example.net"
interval = "200ms"
[[target]]
name = "servfail"
kind = "dns"
address = "10.99.0.2"
interval = "200ms"
[[target]]
name = "cut"
kind = "dns"
address = "10.99.0.3"
interval = "200ms"
[[target]]
name = "silent"
kind = "dns"
address = "10.99.0.4"
interval = "200ms"
[[target]]
name = "closed"
kind = "dns"
address = "10.99.0.1:54"
interval = "200ms"
[[target]]
name = "closed-tcp"
kind = "dns"
address = "10.99.0.1:54"
transport = "tcp"
interval = "200ms"
[[target]]
name = "connected"
kind = "tcp"
address = "10.99.0.1:53"
interval = "200ms"
[[target]]
name = "connected-6"
kind = "tcp"
address = "[fd99::1]:53"
interval = "200ms"
[[target]]
name = "refused"
kind = "tcp"
address = "10.99.0.1:54"
interval = "200ms"
[[target]]
name = "swallowed"
kind = "tcp"
address = "10.99.0.77:53"
interval = "200ms"
[[target]]
name = "nobody"
kind = "dns"
address = "10.77.0.99"
interval = "200ms"
[[target]]
name = "nobody-tcp"
kind = "dns"
address = "10.77.0.99"
transport = "tcp"
interval = "200ms"
[[target]]
name = "no-route"
kind = "dns"
address = "198.51.100.53"
interval = "200ms"
[[target]]
name = "page"
kind = "http"
address = "https://10.99.0.1/"
ca = "ca.pem"
interval = "1s"
[[target]]
name = "page-6"
kind = "http"
address = "https://[fd99::1]/"
ca = "ca.pem"
interval = "1s"
[[target]]
name = "page-stranger"
kind = "http"
address = "https://10.99.0.1/"
interval = "1s"
[[target]]
name = "page-500"
kind = "http"
address = "http://10.99.0.2/"
interval = "1s"
[[target]]
name = "page-silent"
kind = "http"
address = "http://10.99.0.3/"
interval = "1s"
[[target]]
name = "page-refused"
kind = "http"
address = "http://10.99.0.1:81/"
interval = "1s"
[[target]]
name = "held-reset"
kind = "tcp"
address = "10.99.0.2:22"
hold = "5s"
interval = "1s"
[[target]]
name = "held-closed"
kind = "tcp"
address = "10.99.0.3:22"
hold = "5s"
interval = "1s"
[[target]]
name = "held"
kind = "tcp"
address = "10.99.0.4:22"
hold = "5s"
interval = "1s"
"#;

/// A program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until dnsmasq answers over everything that it is asked over later.
fn wait_for_dnsmasq(ns: &Namespace) {
    const QUESTION: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x07example\x03com\0\0\x01\0\x01";
    let patience = Some(Duration::from_millis(200));
    let over_udp = move |own: &str, server: &str| {
        let socket = UdpSocket::bind(own)?;
        socket.set_read_timeout(patience)?;
        socket.connect(server)?;
        socket.send(QUESTION)?;
        socket.recv(&mut [0; 512]).map(drop)
    };
    let over_tcp = move || {
        let mut stream = TcpStream::connect("10.99.0.1:53")?;
        stream.set_read_timeout(patience)?;
        stream.write_all(&[&(QUESTION.len() as u16).to_be_bytes(), QUESTION].concat())?;
        stream.read_exact(&mut [0; 2])
    };
    let until = Instant::now() + Duration::from_secs(60);
    let wait = move || {
        while let Err(e) = over_udp("0.0.0.0:0", "10.99.0.1:53")
            .and_then(|()| over_udp("[::]:0", "[fd99::1]:53"))
            .and_then(|()| over_tcp())
        {
            assert!(Instant::now() < until, "dnsmasq does not answer: {e}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let waiting = ns.spawn(wait).expect("the server's namespace");
    waiting.join().expect("a resolver that answers");
}

/// Answers every question at `ip` with these flags; `None` is never.
fn resolver(ns: &Namespace, ip: &'static str, flags: Option<[u8; 2]>) {
    let (bound_in, bound) = std::sync::mpsc::channel();
    let serve = move || {
        let socket = UdpSocket::bind((ip, 53)).expect("a free port");
        bound_in.send(()).expect("somebody waits");
        let mut question = [0; 512];
        loop {
            let (len, from) = socket.recv_from(&mut question).expect("a question");
            if let Some(flags) = flags {
                question[2..4].copy_from_slice(&flags);
                // Whoever asked may be gone.
                let _ = socket.send_to(&question[..len], from);
            }
        }
    };
    drop(ns.spawn(serve).expect("the server's namespace"));
    bound.recv().expect("a resolver");
}

/// A certificate for both addresses of the server, PEM, which is its own authority.
fn certificate() -> (String, Arc<ServerConfig>) {
    let names = ["10.99.0.1", "fd99::1"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .expect("a key that belongs to it");
    (made.cert.pem(), Arc::new(config))
}

/// Answers every request at `ip` with this status; `None` is never.
fn pages(ns: &Namespace, ip: &'static str, tls: Option<Arc<ServerConfig>>, status: Option<u16>) {
    fn answer(mut stream: impl Read + Write, status: Option<u16>) {
        let mut request = [0; 1024];
        // Whoever does not like the certificate says so and goes.
        if stream.read(&mut request).is_ok_and(|n| n > 0) {
            let _ = match status {
                Some(status) => write!(stream, "HTTP/1.1 {status} X\r\n\r\n"),
                // Until it is closed at the other end.
                None => stream.read(&mut request).map(drop),
            };
        }
    }
    let (bound_in, bound) = std::sync::mpsc::channel();
    let serve = move || {
        let port = if tls.is_some() { 443 } else { 80 };
        let listener = TcpListener::bind((ip, port)).expect("a free port");
        bound_in.send(()).expect("somebody waits");
        for stream in listener.incoming() {
            let (stream, tls) = (stream.expect("a connection"), tls.clone());
            std::thread::spawn(move || match tls {
                None => answer(stream, status),
                Some(tls) => {
                    let connection = ServerConnection::new(tls).expect("a connection");
                    answer(StreamOwned::new(connection, stream), status);
                }
            });
        }
    };
    drop(ns.spawn(serve).expect("the server's namespace"));
    bound.recv().expect("a server");
}

/// How a server treats those who stay connected.
#[derive(Clone, Copy)]
enum Patience {
    Endless,
    ClosesSoon,
    ResetsSoon,
}

/// Takes connections at `ip`.
fn holder(ns: &Namespace, ip: &'static str, patience: Patience) {
    let (bound_in, bound) = std::sync::mpsc::channel();
    let serve = move || {
        let listener = TcpListener::bind((ip, 22)).expect("a free port");
        bound_in.send(()).expect("somebody waits");
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            std::thread::spawn(move || {
                if let Patience::Endless = patience {
                    // Until the other end closes it.
                    let _ = stream.read(&mut [0; 1]);
                    return;
                }
                std::thread::sleep(Duration::from_millis(300));
                if let Patience::ResetsSoon = patience {
                    let linger = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                    linger.expect("a setting");
                }
            });
        }
    };
    drop(ns.spawn(serve).expect("the server's namespace"));
    bound.recv().expect("a server");
}

#[test]
fn resolvers_are_asked_and_their_failures_told_apart() {
    if let Err(why) = possible() {
        return skip(&why);
    }
    if Command::new("dnsmasq").arg("--version").output().is_err() {
        return skip("no dnsmasq (dnsmasq-base)");
    }
    let delay = Direction::delay(5 * MS);
    let home = Home::new(1, &delay, &delay, 11).expect("a lab");
    // It is to say each time that a port is closed.
    let unlimited = || std::fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0");
    let set = home.server.inside(unlimited).expect("inside");
    set.expect("a setting");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut dnsmasq = home.server.command("dnsmasq");
    dnsmasq.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
        "--pid-file=",
        "--bind-interfaces",
        "--listen-address=10.99.0.1,fd99::1",
        "--address=/example.com/192.0.2.80",
        "--local=/example.net/",
    ]);
    let child = dnsmasq.stderr(Stdio::null()).spawn().expect("dnsmasq");
    let _dnsmasq = Running(child);
    resolver(&home.server, "10.99.0.2", Some([0x81, 0x82]));
    resolver(&home.server, "10.99.0.3", Some([0x83, 0x80]));
    resolver(&home.server, "10.99.0.4", None);
    let (pem, tls) = certificate();
    std::fs::write(dir.path().join("ca.pem"), pem).expect("a file");
    pages(&home.server, "10.99.0.1", Some(Arc::clone(&tls)), Some(204));
    pages(&home.server, "fd99::1", Some(tls), Some(204));
    pages(&home.server, "10.99.0.2", None, Some(500));
    pages(&home.server, "10.99.0.3", None, None);
    holder(&home.server, "10.99.0.2", Patience::ResetsSoon);
    holder(&home.server, "10.99.0.3", Patience::ClosesSoon);
    holder(&home.server, "10.99.0.4", Patience::Endless);
    wait_for_dnsmasq(&home.server);

    let loaded = bufferbaned::config::parse("services.toml", CONFIG, dir.path());
    let mut config = loaded.expect("a right configuration").config;
    config.store = dir.path().join("s.redb");
    config.control_socket = dir.path().join("c.sock");
    config.http = None;
    config.keep.min_free_bytes = 0;
    let started = home.client.inside(move || Daemon::start(config, None));
    let daemon = started.expect("the client's namespace");
    let mut daemon = daemon.expect("the daemon starts");
    std::thread::sleep(Duration::from_secs(9));
    let status = daemon.status();
    daemon.stop();

    let reader = Reader::open(&dir.path().join("s.redb")).expect("a store that was closed");
    let all: BTreeMap<(String, &str), (SeriesInfo, Summary)> = reader
        .series()
        .expect("readable")
        .into_iter()
        .map(|(id, info)| {
            let summary = reader.summary(id, i64::MIN, i64::MAX).expect("readable");
            ((info.target.clone(), info.kind.as_str()), (info, summary))
        })
        .collect();
    // Of the pages two and a stranger's are by HTTPS, and three not.
    assert_eq!(all.len(), 17 + 3 * 3 + 3 * 2 + 3);
    for ((name, kind), (info, s)) in &all {
        let failures = by_reason(&s.failures);
        let p50 = s.rtt.quantile(0.5);
        println!(
            "{name} {kind}: {} sent, {} received, {} lost, {} unsent, {failures:?}, p50 {p50:?}",
            s.sent, s.received, s.lost, s.unsent
        );
        let page = name.starts_with("page");
        let held = name.starts_with("held");
        let tcp = ["connected", "connected-6", "refused", "swallowed"].contains(&name.as_str());
        let expected = match (page, tcp || held) {
            (false, true) => SeriesKind::Tcp,
            (false, false) => SeriesKind::Dns,
            (true, _) => info.kind,
        };
        let sized = [SeriesKind::Dns, SeriesKind::Http].contains(&info.kind);
        assert_eq!((info.kind, info.size > 20), (expected, sized), "{name}");
        assert_eq!(s.sent, s.received + s.lost);
        assert!(
            s.sent + s.unsent >= if page || held { 3 } else { 20 },
            "{name}"
        );
        let all_are = |why: &str| {
            assert_eq!(failures.len(), 1, "{name}: {failures:?}");
            assert_eq!(failures.get(why), Some(&s.received), "{name}: {failures:?}");
            assert_eq!((s.lost, s.rtt.count()), (0, 0), "{name}");
        };
        match name.as_str() {
            "page-500" if info.kind == SeriesKind::Http => all_are("HTTP 500"),
            "page-stranger" if info.kind != SeriesKind::Tcp => all_are("certificate not trusted"),
            "page-refused" => all_are("connection refused"),
            "page-silent" if info.kind == SeriesKind::Http => {
                assert_eq!((s.received, s.lost), (0, s.sent));
            }
            "servfail" => all_are("SERVFAIL"),
            "cut" => all_are("truncated"),
            "unknown-name" => all_are("NXDOMAIN"),
            "closed" | "closed-tcp" | "refused" => all_are("connection refused"),
            // This host's word that nobody on the link has that address is no answer.
            "silent" | "swallowed" | "nobody" | "nobody-tcp" => {
                assert_eq!((s.received, s.lost), (0, s.sent))
            }
            "no-route" => assert_eq!((s.sent, s.lost), (0, 0)),
            _ => {
                // The line alone takes 10 ms; a question over a new connection takes it twice, and of a page
                // each step once.
                let line = if name == "real-tcp" { 20 } else { 10 } * MS;
                assert_eq!((s.lost, s.failures.count()), (0, 0), "{name}");
                assert!(s.rtt.min() >= Some(line), "{name}: {:?}", s.rtt.min());
                assert!(p50 < Some(200 * MS), "{name}: {p50:?}");
            }
        }
    }
    let servfail = status.series.iter().find(|s| s.target == "servfail");
    let servfail = servfail.expect("the series is shown");
    assert_eq!(servfail.total.failed, servfail.total.received);
    assert_eq!(servfail.failures["SERVFAIL"], servfail.total.failed);
    let held = |target: &str| {
        let found = status.held.iter().find(|h| h.target == target);
        found.expect("a connection that is held")
    };
    assert!(held("held").open_ns.is_some() && held("held").closed == 0);
    assert!(held("held").lost.is_empty(), "{:?}", held("held"));
    assert!(held("held-closed").closed >= 2 && held("held-closed").lost.is_empty());
    assert!(held("held-reset").lost["connection reset"] >= 2);
    // Nobody takes a resolver for the line.
    let events = reader.events(i64::MIN, i64::MAX).expect("readable");
    let kinds: Vec<&str> = events.iter().map(|(_, e)| e.kind.as_str()).collect();
    let of_the_line = |kind: &&str| {
        let mut of_line = Kind::ALL.iter().filter(|k| !k.is_of_service());
        of_line.any(|k| k.as_str() == *kind)
    };
    assert!(!kinds.iter().any(of_the_line), "{kinds:?}");
    assert!(kinds.contains(&"not_probed"), "{kinds:?}");
    // Those that do not open are told later than this lasts, or not.
    let mut unstable = events
        .iter()
        .filter(|(_, e)| e.kind == "tcp_unstable" && e.values.contains_key("drops"));
    let (_, event) = unstable.next().expect("resets are told");
    assert_eq!(event.target.as_deref(), Some("held-reset"));
    assert_eq!(event.values["errno"], 104);
    assert!(event.values["drops"].as_u64() >= Some(2), "{event:?}");
    assert!(event.text.contains("connection reset"), "{event:?}");
    assert!(unstable.next().is_none());
}
