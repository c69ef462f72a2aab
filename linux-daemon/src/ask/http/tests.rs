use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use bufferbane_core::sample::{Observation, Sample, SeriesIndex, Status};
use bufferbane_store::SeriesKind;
use proptest::prelude::*;

use super::super::{Question, Questions, Service};
use super::*;
use crate::recorder::Order;
use crate::tls::Roots;
use crate::tls::testing::{Authority, VALID, accept, listen};
use crate::url::Url;

/// Nobody that answers takes so long, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is long enough to be sure that nobody will.
const IMPATIENCE: Duration = Duration::from_millis(300);

fn page(url: &str, roots: Roots) -> Page {
    Page {
        url: Url::parse(url, "").unwrap(),
        roots,
        right: Vec::new(),
        interval_ns: 1_000_000_000,
    }
}

/// Reads a request, to its end.
fn take_request(stream: &mut impl Read) -> String {
    let mut said = Vec::new();
    let mut byte = [0];
    while !said.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
        said.push(byte[0]);
    }
    String::from_utf8(said).unwrap()
}

/// A server that says these one after the other, some ms apart, and then keeps the connection for as long
/// as the client does.
fn saying(parts: &'static [&'static str]) -> SocketAddr {
    listen(move |mut stream| {
        take_request(&mut stream);
        for (i, part) in parts.iter().enumerate() {
            std::thread::sleep(Duration::from_millis(20 * i as u64));
            // The client may have heard enough.
            let _ = stream.write_all(part.as_bytes());
        }
        let _ = stream.read(&mut [0]);
    })
}

/// What each step became, by the word of its series; a failure's number is an errno or a reason.
async fn asked(page: Page, to: SocketAddr, patience: Duration) -> Vec<(&'static str, Sample)> {
    let service = Service::Http(page);
    let (orders, told): (_, Receiver<Order>) = sync_channel(9);
    let way = Way::of(&"lo".into());
    let question = Arc::new(Question::new(way, to, service.clone()).unwrap());
    let steps: Vec<SeriesIndex> = (0..service.steps().len() as u16).map(SeriesIndex).collect();
    let sent = bufferbane_linux_io::clock::now();
    let samples = steps.iter().map(|i| Sample::lost(*i, 7, sent, 0)).collect();
    let mut questions = Questions::default();
    questions.begin(samples, patience, question, [1, 2], &orders);
    while !questions.samples.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
        questions.tidy(&orders);
    }
    let samples = told.try_iter().map(|order| match order {
        Order::Observation(Observation::New(s)) => {
            assert!(s.seq == 7 && s.sent >= sent);
            (service.steps()[usize::from(s.series.0)].as_str(), s)
        }
        other => panic!("{other:?}"),
    });
    samples.collect()
}

/// In words: `tcp ok, http HTTP 500`.
fn words(steps: &[(&'static str, Sample)]) -> String {
    let words = steps.iter().map(|(step, s)| {
        let became = match (s.status, Failure::from_code(s.errno)) {
            (Status::Ok, None) => {
                assert!(s.rtt_ns.is_some());
                "ok".to_owned()
            }
            (Status::Ok, Some(why)) => {
                assert!(s.rtt_ns.is_none());
                why.to_string()
            }
            (status, _) => status.as_str().to_owned(),
        };
        format!("{step} {became}")
    });
    words.collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn responses_are_told_apart() {
    for (parts, expected) in [
        (
            &["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"][..],
            "tcp ok, http ok",
        ),
        // Its body never comes, and is not waited for.
        (
            &["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"],
            "tcp ok, http ok",
        ),
        (
            &["HTTP/1.0 302 Found\r\nLocation: /x\r\n\r\n"],
            "tcp ok, http ok",
        ),
        (&["HTTP/1.1 500 No\r\n\r\n"], "tcp ok, http HTTP 500"),
        (
            &["HTTP/1.1 103 Soon\r\n\r\nHTTP/1.1 404 No\r\n\r\n"],
            "tcp ok, http HTTP 404",
        ),
        (&["HTTP/1.1 999 No\r\n\r\n"], "tcp ok, http not an answer"),
        (&["220 mail.example.net\r\n"], "tcp ok, http not an answer"),
    ] {
        let to = saying(parts);
        let page = page(&format!("http://{to}/"), Roots::Public);
        let steps = asked(page, to, PATIENCE).await;
        assert_eq!(words(&steps), expected, "{parts:?}");
    }
}

#[tokio::test]
async fn a_response_is_there_when_its_head_is() {
    let to = saying(&["HTTP/1.1 200 OK\r\n", "X-Late: 1\r\n", "\r\n"]);
    let steps = asked(page(&format!("http://{to}/"), Roots::Public), to, PATIENCE).await;
    assert_eq!(words(&steps), "tcp ok, http ok");
    let [(_, tcp), (_, http)] = &steps[..] else {
        panic!()
    };
    assert!(http.rtt_ns >= Some(60_000_000), "{http:?}");
    assert!(http.sent >= tcp.sent);

    let to = saying(&["HTTP/1.1 200 OK\r\n"]);
    let half = page(&format!("http://{to}/"), Roots::Public);
    let steps = asked(half, to, IMPATIENCE).await;
    assert_eq!(words(&steps), "tcp ok, http lost");

    let endless = listen(|mut stream| {
        let begin = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ");
        while begin.is_ok() && stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let page = page(&format!("http://{endless}/"), Roots::Public);
    let steps = asked(page, endless, PATIENCE).await;
    assert_eq!(words(&steps), "tcp ok, http not an answer");
}

#[tokio::test]
async fn the_request_names_what_is_wanted_and_only_the_wanted_status_is_right() {
    let (requests_in, requests) = sync_channel(1);
    let to = listen(move |mut stream| {
        requests_in.send(take_request(&mut stream)).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    });
    let mut wanted = page(&format!("http://{to}/generate_204?a=b"), Roots::Public);
    wanted.right = vec![204];
    let expected_size = size(&wanted);
    assert!(bytes(&wanted) > expected_size.into());
    let steps = asked(wanted, to, PATIENCE).await;
    assert_eq!(words(&steps), "tcp ok, http HTTP 200");
    let said = requests.recv().unwrap();
    assert!(
        said.starts_with(&format!("GET /generate_204?a=b HTTP/1.1\r\nHost: {to}\r\n")),
        "{said}"
    );
    assert_eq!(said.len(), usize::from(expected_size));
}

#[tokio::test]
async fn whoever_refuses_closes_or_is_silent_is_told_apart() {
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let closing = listen(|mut stream| drop(take_request(&mut stream)));
    let hanging_up = listen(|stream| {
        let mut hello = [0; 1];
        let _ = (&stream).read(&mut hello);
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    let silent = listen(|stream| drop(std::thread::spawn(move || wait_for_end(stream))));
    for (to, scheme, patience, expected) in [
        (
            gone,
            "http",
            PATIENCE,
            "tcp connection refused, http connection refused",
        ),
        (
            gone,
            "https",
            PATIENCE,
            "tcp connection refused, http connection refused",
        ),
        (closing, "http", PATIENCE, "tcp ok, http closed early"),
        (
            hanging_up,
            "https",
            PATIENCE,
            "tcp ok, tls closed early, http closed early",
        ),
        (silent, "http", IMPATIENCE, "tcp ok, http lost"),
        (silent, "https", IMPATIENCE, "tcp ok, tls lost, http lost"),
    ] {
        let page = page(&format!("{scheme}://{to}/"), Roots::Public);
        let said = words(&asked(page, to, patience).await);
        // Where something is left unread the kernel says it in its way.
        let said = said.replace("connection reset", "closed early");
        assert_eq!(said, expected, "{scheme}://{to}");
    }
}

fn wait_for_end(mut stream: TcpStream) {
    while stream.read(&mut [0; 512]).is_ok_and(|n| n > 0) {}
}

#[tokio::test]
async fn handshakes_are_timed_apart_and_certificates_judged() {
    let (known, stranger) = (Authority::new(), Authority::new());
    let https = |server: Arc<rustls::ServerConfig>| {
        listen(move |stream| {
            let mut stream = accept(&server, stream);
            take_request(&mut stream);
            // A client that does not like the certificate is gone.
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
            let _ = stream.flush();
        })
    };
    let right = https(known.server("127.0.0.1", VALID));
    let named = https(known.server("web.example", VALID));
    let expired = https(known.server("web.example", [2000, 2001]));
    let early = https(known.server("web.example", [2900, 3000]));
    let strange = https(stranger.server("web.example", VALID));
    let plain = listen(|mut stream| {
        let begun = stream.read(&mut [0]);
        let said = begun.and_then(|_| stream.write_all(b"HTTP/1.1 400 Speak plainly\r\n\r\n"));
        said.unwrap();
        wait_for_end(stream);
    });
    let both = |why: &str| format!("tcp ok, tls {why}, http {why}");
    for (to, host, roots, expected) in [
        (right, "127.0.0.1", known.roots(), both("ok")),
        (named, "web.example", known.roots(), both("ok")),
        (
            named,
            "other.example",
            known.roots(),
            both("certificate of another name"),
        ),
        (
            expired,
            "web.example",
            known.roots(),
            both("certificate expired"),
        ),
        (
            early,
            "web.example",
            known.roots(),
            both("certificate not yet valid"),
        ),
        (
            strange,
            "web.example",
            known.roots(),
            both("certificate not trusted"),
        ),
        (
            right,
            "127.0.0.1",
            Roots::Public,
            both("certificate not trusted"),
        ),
        (plain, "127.0.0.1", known.roots(), both("no TLS")),
    ] {
        let page = page(&format!("https://{host}:{}/", to.port()), roots);
        let steps = asked(page, to, PATIENCE).await;
        assert_eq!(words(&steps), expected, "{host}");
        let [tcp, tls, http] = [0, 1, 2].map(|i| steps[i].1);
        assert!(tls.sent > tcp.sent, "{tcp:?} {tls:?}");
        // What was not reached is told of the whole, from its begin.
        let reached = http.rtt_ns.is_some();
        assert!(if reached {
            http.sent > tls.sent
        } else {
            http.sent == tcp.sent
        });
    }
}

#[test]
fn steps_have_names() {
    let web = Service::Http(page("https://a/", Roots::Public));
    assert_eq!(
        web.steps(),
        [SeriesKind::Tcp, SeriesKind::Tls, SeriesKind::Http]
    );
}

proptest! {
    #[test]
    fn whatever_is_said_is_a_status_or_not(said in proptest::collection::vec(any::<u8>(), 0..80), ours: bool) {
        let said = if ours { [&b"HTTP/1.1 2"[..], &said].concat() } else { said };
        if let Head::Status(status) = status(&said) {
            prop_assert!((200..1000).contains(&status));
            prop_assert!(said.starts_with(b"HTTP/1.") || said.starts_with(b"\r") || said.starts_with(b"\n"));
        }
    }
}
