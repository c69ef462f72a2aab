//! The filter in front of a TCP listener, against the real kernel.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::common::{inside_namespace, skipped};
use bufferbane_linux_io::Family;
use bufferbane_linux_io::admission::{MAX_ADMITTED, Prefix, admit};
use socket2::{Domain, Socket, Type};

/// A stranger's SYN is sent again after a second, so nothing within this is silence.
const PATIENCE: Duration = Duration::from_millis(250);

fn listener(at: IpAddr, family: Family, admitted: &[Prefix]) -> TcpListener {
    let socket = Socket::new(Domain::for_address((at, 0).into()), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(at, 0).into()).unwrap();
    admit(&socket, family, admitted).unwrap();
    socket.listen(16).unwrap();
    socket.into()
}

/// Connects from an address: a refusal is an answer too, and so a failure of the test.
fn connect(from: IpAddr, to: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    match socket.connect_timeout(&to.into(), PATIENCE) {
        Ok(()) => Some(socket.into()),
        Err(e) => {
            assert_eq!(e.kind(), std::io::ErrorKind::TimedOut, "{from}: {e}");
            None
        }
    }
}

fn check(family: Family, own: IpAddr, addresses: [IpAddr; 3], wide: Prefix) {
    let [a, b, c] = addresses;
    let listener = listener(own, family, &[]);
    let at = listener.local_addr().unwrap();
    assert!(connect(a, at).is_none(), "an empty list admits nobody");

    admit(&listener, family, &[Prefix::only(a)]).unwrap();
    let mut admitted = connect(a, at).expect("an admitted address");
    assert!(connect(b, at).is_none());

    // What was accepted under the list before goes on under the next.
    let (mut accepted, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), a);
    admit(&listener, family, &[wide]).unwrap();
    admitted.write_all(b"token").unwrap();
    let mut bytes = [0; 5];
    accepted.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"token");
    assert!(connect(b, at).is_some() && connect(c, at).is_some());
    assert!(connect(a, at).is_none());

    let other = |i: usize| match family {
        Family::V4 => IpAddr::from((0x0a00_0000 + i as u32).to_be_bytes()),
        Family::V6 => IpAddr::from((0xfd00_u128 << 112 | i as u128).to_be_bytes()),
    };
    let mut longest: Vec<Prefix> = (1..MAX_ADMITTED).map(|i| Prefix::only(other(i))).collect();
    longest.push(Prefix::only(a));
    admit(&listener, family, &longest).expect("the kernel takes the longest list");
    assert!(connect(a, at).is_some() && connect(c, at).is_none());
}

#[test]
fn strangers_get_no_syn_ack_and_no_reset() {
    if !inside_namespace(module_path!(), "strangers_get_no_syn_ack_and_no_reset") {
        return;
    }
    let ip = |args: &str| Command::new("ip").args(args.split(' ')).status();
    if !ip("link set lo up").is_ok_and(|s| s.success()) {
        return skipped("no ip command (iproute2)");
    }
    let v4 = |n| IpAddr::from([127, 0, 2, n]);
    let wide = Prefix::new(v4(9), 31).unwrap();
    check(
        Family::V4,
        [127, 0, 0, 1].into(),
        [v4(1), v4(8), v4(9)],
        wide,
    );

    let v6 = |n: u16| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 1, n]);
    for n in [1, 8, 9] {
        let added = ip(&format!("addr add {}/128 dev lo nodad", v6(n))).unwrap();
        assert!(added.success());
    }
    let wide = Prefix::new(v6(9), 127).unwrap();
    check(
        Family::V6,
        "::1".parse().unwrap(),
        [v6(1), v6(8), v6(9)],
        wide,
    );
}
