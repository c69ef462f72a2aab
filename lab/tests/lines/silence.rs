//! A reflector says nothing to strangers: Debian's nmap asks in every way it knows, and a capture in
//! the stranger's namespace sees all that comes back.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::reflector::{Prober, key, load_while};
use bufferbane_core::load::guest::{Guest, GuestState, Wish};
use bufferbane_core::stamp::Subnet;
use bufferbane_lab::netns::{Namespace, possible};
use bufferbane_lab::skip;
use bufferbane_linux_io::{Role, clock};
use bufferbane_reflector::Running;
use bufferbane_reflector::config::{Client, Config};
use socket2::{Domain, Protocol, Socket, Type};

/// The server's addresses on the client's side and on the stranger's.
const SERVER: [&str; 2] = ["10.88.0.1", "10.88.1.1"];
const SERVER_V6: [&str; 2] = ["fd00:88::1", "fd00:88:1::1"];
const PORT: u16 = 9876;
/// `ETH_P_ALL`, as it is wanted: in network byte order.
const EVERYTHING: i32 = 0x0300;

/// Behind the stranger: an address of those that the client announced, and a client of the reflector is not there.
const ANNOUNCED: Ipv4Addr = Ipv4Addr::new(10, 88, 2, 7);

/// What the server sent through the stranger: the transport protocol of each packet, what that carries, and to whom.
type Packet = (u8, Vec<u8>, IpAddr);

fn capture(ns: &Namespace, stop: Arc<AtomicBool>) -> JoinHandle<Vec<Packet>> {
    ns.spawn(move || {
        let kind = Type::from(libc::SOCK_RAW);
        let all = Some(Protocol::from(EVERYTHING));
        let mut socket = Socket::new(Domain::PACKET, kind, all).expect("a packet socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a time-out");
        let (mut frame, mut heard) = ([0; 2048], Vec::new());
        while !stop.load(Ordering::Relaxed) {
            if let Ok(len) = socket.read(&mut frame) {
                heard.extend(from_server(&frame[..len]));
            }
        }
        heard
    })
    .expect("the stranger's namespace")
}

fn from_server(frame: &[u8]) -> Option<Packet> {
    let (ethernet, packet) = frame.split_at_checked(14)?;
    let (protocol, source, payload, to) = match ethernet[12..] {
        [8, 0] => {
            let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            let header = usize::from(packet[0] & 15) * 4;
            let to: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            let payload = packet.get(header..)?;
            (packet[9], IpAddr::from(source), payload, IpAddr::from(to))
        }
        [0x86, 0xdd] => {
            let source: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            let to: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            let payload = packet.get(40..)?;
            (packet[6], IpAddr::from(source), payload, IpAddr::from(to))
        }
        _ => return None,
    };
    let server = [SERVER[1], SERVER_V6[1]].map(|a| a.parse::<IpAddr>().expect("an address"));
    server
        .contains(&source)
        .then(|| (protocol, payload.to_vec(), to))
}

/// UDP payload, and TCP segments of the reflector's port; ICMP is the kernel's word about ports where
/// nobody listens.
fn is_from_reflector((protocol, payload, _): &Packet) -> bool {
    matches!(protocol, 6 | 17) && payload.starts_with(&PORT.to_be_bytes())
}

/// Sends one SYN without options to the reflector, as if `from` had.
fn spoof_syn(ns: &Namespace, from: Ipv4Addr) {
    let to: Ipv4Addr = SERVER[1].parse().expect("an address");
    let mut packet = vec![0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    let mut segment = [0; 20];
    segment[..2].copy_from_slice(&40_000u16.to_be_bytes());
    segment[2..4].copy_from_slice(&PORT.to_be_bytes());
    segment[4..8].copy_from_slice(&7u32.to_be_bytes());
    segment[12] = 5 << 4;
    const SYN: u8 = 2;
    segment[13] = SYN;
    segment[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    let words = |bytes: &[u8]| -> u32 {
        let word = |b: &[u8]| u32::from(u16::from_be_bytes([b[0], b[1]]));
        bytes.chunks(2).map(word).sum()
    };
    // Checksum over addresses, protocol, length and segment; that of IP the kernel fills in.
    let mut sum = words(&packet[12..20]) + 6 + 20 + words(&segment);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    segment[16..18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    packet.extend(segment);
    ns.inside(move || {
        let raw = Some(Protocol::from(libc::IPPROTO_RAW));
        let socket = Socket::new(Domain::IPV4, Type::from(libc::SOCK_RAW), raw);
        let socket = socket.expect("a raw socket");
        let sent = socket.send_to(&packet, &SocketAddr::new(to.into(), 0).into());
        assert_eq!(sent.expect("a packet"), packet.len());
    })
    .expect("inside");
}

fn config() -> Config {
    Config {
        listen: ["0.0.0.0", "::"]
            .map(|any| SocketAddr::new(any.parse().expect("an address"), PORT))
            .to_vec(),
        listen_is_default: false,
        control_socket: None,
        clients: vec![Client {
            name: "home".into(),
            keys: vec![key(1)],
            max_pps: 1000,
            // Streams that run, and leave nmap some of the machine.
            max_rate_bps: Some(50_000_000),
            daily_bytes: None,
            tcp_prefixes: vec![around(ANNOUNCED)],
        }],
        ..Config::default()
    }
}

const fn around(address: Ipv4Addr) -> Subnet {
    Subnet {
        address: IpAddr::V4(address),
        prefix: 24,
    }
}

fn scan(ns: &Namespace, how: &str, to: &str, port: u16) -> String {
    let mut nmap = ns.command("nmap");
    if to.contains(':') {
        nmap.arg("-6");
    }
    nmap.args(how.split(' '));
    nmap.args([
        "-n",
        "-Pn",
        "--max-retries",
        "1",
        "--host-timeout",
        "9s",
        "-p",
    ]);
    let output = nmap.arg(port.to_string()).arg(to).output();
    let output = output.expect("nmap runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn connects(ns: &Namespace, to: SocketAddr) -> bool {
    ns.inside(move || TcpStream::connect_timeout(&to, Duration::from_millis(500)).is_ok())
        .expect("inside")
}

#[test]
fn strangers_hear_nothing_before_and_during_tests() {
    if let Err(why) = possible() {
        return skip(&why);
    }
    if Command::new("nmap").arg("--version").output().is_err() {
        return skip("no nmap");
    }
    let [server, client, stranger] =
        ["server", "client", "stranger"].map(|role| Namespace::new(role).expect("a namespace"));
    for (i, other) in [&client, &stranger].into_iter().enumerate() {
        let (near, far) = (format!("s{i}"), "eth0");
        server.cable(&near, other, far).expect("a cable");
        let own = format!("{}/24", SERVER[i]);
        server.ip(&["addr", "add", &own, "dev", &near]).expect("ip");
        let theirs = format!("10.88.{i}.2/24");
        other.ip(&["addr", "add", &theirs, "dev", far]).expect("ip");
        let own = format!("{}/64", SERVER_V6[i]);
        server
            .ip(&["addr", "add", &own, "dev", &near, "nodad"])
            .expect("ip");
        let theirs = SERVER_V6[i].replace("::1", "::2/64");
        other
            .ip(&["addr", "add", &theirs, "dev", far, "nodad"])
            .expect("ip");
    }
    let behind = around(ANNOUNCED).address.to_string();
    server
        .ip(&["route", "add", &behind, "via", "10.88.1.2"])
        .expect("ip");
    let mut running = server
        .inside(|| Running::start(&config()))
        .expect("inside")
        .expect("a reflector");
    let stop = Arc::new(AtomicBool::new(false));
    let capturing = capture(&stranger, Arc::clone(&stop));

    let scan_by = |to: &str| {
        for how in [
            "-sU",
            "-sS",
            "-sT",
            "-sS -sV",
            "-sU -sV --version-intensity 2",
        ] {
            let said = scan(&stranger, how, to, PORT);
            // Where its patience for versions ends before the silence does, it says nothing at all.
            let gave_up = how.contains("-sV") && said.contains("due to host timeout");
            let silent = said.contains("filtered") || gave_up;
            let heard = ["open ", "closed ", "unfiltered"]
                .iter()
                .any(|w| said.contains(w));
            assert!(silent && !heard, "{how} {to}: {said}");
        }
    };
    let scan_all = || {
        std::thread::scope(|s| {
            s.spawn(|| scan_by(SERVER_V6[1]));
            scan_by(SERVER[1]);
        });
    };
    scan_all();
    spoof_syn(&stranger, ANNOUNCED);

    let to = SocketAddr::new(SERVER[0].parse().expect("an address"), PORT);
    assert!(!connects(&client, to), "nobody is admitted without a test");
    let mut prober = client
        .inside(move || Prober::new(key(1), to))
        .expect("inside");
    let mut congestion = [0; 16];
    congestion[..4].copy_from_slice(b"reno");
    let wish = Wish {
        streams_up: 1,
        streams_down: 1,
        time_ms: 60_000,
        dscp: [0; 8],
        congestion,
        prefix: Some(around(ANNOUNCED)),
        offer: None,
    };
    prober.guest = Some(Guest::new(wish, 1, clock::now()));
    let going = Arc::new(AtomicBool::new(true));
    let (loading, granted) = (Arc::clone(&going), Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&granted);
    // A program's thread is in its namespace, and so are the sockets that it opens.
    let probing = client
        .spawn(move || {
            let state = |p: &Prober| p.guest.as_ref().map(Guest::state);
            for _ in 0..100 {
                prober.run(Duration::from_millis(50));
                if state(&prober) == Some(GuestState::Granted) {
                    break;
                }
            }
            told.store(
                state(&prober) == Some(GuestState::Granted),
                Ordering::Relaxed,
            );
            let roles = [Role::Send, Role::Receive];
            let going = |_: &Prober, _| loading.load(Ordering::Relaxed);
            let carried = load_while(&mut prober, to, &roles, going);
            let still = state(&prober) == Some(GuestState::Granted);
            (prober.samples.len(), carried, still)
        })
        .expect("inside");
    for _ in 0..120 {
        if granted.load(Ordering::Relaxed) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(granted.load(Ordering::Relaxed), "no test was granted");
    assert!(connects(&client, to), "an admitted address connects");
    spoof_syn(&stranger, ANNOUNCED);
    let spoofed = Instant::now();
    scan_all();
    // A second SYN-ACK comes after one second, and were there more, a third after three.
    std::thread::sleep(Duration::from_secs(5).saturating_sub(spoofed.elapsed()));
    going.store(false, Ordering::Relaxed);
    let (samples, (sent, received), still) = probing.join().expect("no panic");
    assert!(still, "the test ended meanwhile");

    // The capture can hear: a port where nobody listens is answered by the kernel.
    for to in [SERVER[1], SERVER_V6[1]] {
        scan(&stranger, "-sS", to, 9);
    }
    stop.store(true, Ordering::Relaxed);
    let heard = capturing.join().expect("no panic");
    let (drawn, heard): (Vec<Packet>, Vec<Packet>) =
        heard.into_iter().partition(|(_, _, to)| *to == ANNOUNCED);
    let from_reflector = heard.iter().filter(|p| is_from_reflector(p)).count();
    let status = running.status().expect("statistics");
    println!(
        "{} packets from the host, {from_reflector} from the reflector; it dropped {}; the client \
         had {samples} samples, and carried {sent} bytes up and {received} down",
        heard.len(),
        status["drops"]
    );
    // A reset for each of the two ports that are closed.
    assert!(heard.iter().filter(|(protocol, ..)| *protocol == 6).count() >= 2);
    assert!(sent > 1_000_000 && received > 1_000_000, "the streams ran");
    assert_eq!(from_reflector, 0);
    // Of the SYNs that were made up only the one during the test was answered, with a SYN-ACK that has one
    // option and was sent twice.
    let lengths: Vec<usize> = drawn.iter().map(|(_, segment, _)| segment.len()).collect();
    assert_eq!(lengths, [24, 24], "{drawn:?}");
    assert!(samples > 200);
}
