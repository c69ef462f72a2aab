//! What is gathered is what `/metrics` tells, and receivers of either version get what they take.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use bufferbane_core::clock::Queueing;
use bufferbane_core::sample::{Sample, SeriesIndex, Status as Outcome};
use bufferbane_core::time::Monotonic;
use bufferbane_store::{SeriesInfo, SeriesKind};
use prost::Message;

use super::config::{Credentials, Histograms, Protocol, Setup, TAKEN};
use super::gather::{Batch, Gather};
use super::post::{Client, Verdict};
use super::proto::{to_v1, v1, v2};
use super::*;
use crate::metrics::{Format, Meters, page, tell};
use crate::status::{RemoteStatus, Status};
use crate::tls::Roots;
use crate::tls::testing::{Authority, VALID, accept, listen};

fn setup(histograms: Histograms) -> Setup {
    Setup {
        protocol: Protocol::Auto,
        histograms,
        roots: Roots::Public,
        credentials: Credentials::None,
        headers: vec![("X-Scope-OrgID".into(), "home".into())],
        labels: Vec::new(),
    }
}

const RTT_NS: [u64; 5] = [0, 250_000, 23_000_000, 23_000_001, 900_000_000];

fn counted() -> (Status, Meters) {
    let mut meters = Meters::default();
    let info = SeriesInfo {
        interface: "wan".into(),
        interface_kind: "wired".into(),
        target: "far".into(),
        kind: SeriesKind::Udp,
        family: 4,
        dscp: 0,
        size: 128,
        interval_ns: 50_000_000,
        address: "192.0.2.1".into(),
    };
    meters.begin(SeriesIndex(1), &info);
    for rtt_ns in RTT_NS {
        let mut sample = Sample::lost(SeriesIndex(1), 1, Monotonic::ZERO, 128);
        (sample.status, sample.rtt_ns) = (Outcome::Ok, Some(rtt_ns));
        let queueing = Queueing {
            up_ns: rtt_ns / 2,
            down_ns: 0,
            err_ns: 0,
            quality: 100,
        };
        meters.sample(&sample, Some(queueing));
    }
    let mut status = Status {
        version: "1".into(),
        cpu_ns: 1_500_000_000,
        ..Status::default()
    };
    let receiver = RemoteStatus {
        retries: 3,
        ..RemoteStatus::default()
    };
    status.remote_write.insert("http://a/w".into(), receiver);
    (status, meters)
}

fn batch(setup: &Setup) -> Batch {
    let (status, meters) = counted();
    let mut gather = Gather::new(setup, 1_800_000_000_123);
    tell(&mut gather, &status, &meters);
    gather.finish().unwrap()
}

fn raw(body: &[u8]) -> Vec<u8> {
    snap::raw::Decoder::new().decompress_vec(body).unwrap()
}

fn request(batch: &Batch) -> v2::Request {
    v2::Request::decode(&*raw(&batch.body)).unwrap()
}

/// Samples by name and sorted labels.
fn samples(message: &v1::WriteRequest) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for s in message.series.iter().filter(|s| !s.samples.is_empty()) {
        assert!(s.labels.is_sorted_by(|a, b| a.name < b.name), "{s:?}");
        assert_eq!(s.samples.len(), 1);
        assert_eq!(s.samples[0].timestamp_ms, 1_800_000_000_123);
        let labels: Vec<String> = s
            .labels
            .iter()
            .map(|l| format!("{}={}", l.name, l.value))
            .collect();
        let twice = all.insert(labels.join(","), s.samples[0].value);
        assert!(twice.is_none(), "{s:?}");
    }
    all
}

/// The same of a page.
fn shown(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|l| !l.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
            let labels = labels.strip_suffix('}').unwrap().replace('"', "");
            let mut all = vec![format!("__name__={name}")];
            all.extend(
                labels
                    .split(',')
                    .filter(|l| !l.is_empty())
                    .map(str::to_owned),
            );
            all.sort();
            (all.join(","), value.parse().unwrap())
        })
        .collect()
}

#[test]
fn a_batch_says_what_the_page_says() {
    let (status, meters) = counted();
    let batch = batch(&setup(Histograms::Classic));
    let request = request(&batch);
    assert_eq!(request.symbols[0], "");
    let symbols: BTreeSet<&String> = request.symbols.iter().collect();
    assert_eq!(symbols.len(), request.symbols.len());
    assert_eq!(batch.samples as usize, request.series.len());
    let v1 = to_v1(request);
    let page = shown(&page(Format::Prometheus, &status, &meters));
    assert!(page.len() > 100);
    assert_eq!(samples(&v1), page);
}

#[test]
fn a_native_histogram_holds_what_was_counted_and_is_described() {
    let setup = Setup {
        labels: vec![("zone".into(), "a".into()), ("Area".into(), "b".into())],
        ..setup(Histograms::Native)
    };
    let request = request(&batch(&setup));
    let symbol = |n: u32| request.symbols[n as usize].as_str();
    let native: Vec<_> = request
        .series
        .iter()
        .filter(|s| !s.histograms.is_empty())
        .collect();
    assert_eq!(native.len(), 3);
    let rtt = native
        .iter()
        .find(|s| {
            s.labels
                .iter()
                .any(|l| symbol(*l) == "bufferbane_rtt_seconds")
        })
        .unwrap();
    let names: Vec<&str> = rtt.labels.chunks(2).map(|p| symbol(p[0])).collect();
    assert_eq!(names[..2], ["Area", "__name__"]);
    assert_eq!(names.last(), Some(&"zone"));
    let metadata = rtt.metadata.unwrap();
    assert_eq!(metadata.kind, 3);
    assert_eq!(symbol(metadata.unit), "seconds");
    assert!(symbol(metadata.help).starts_with("Round-trip times"));
    let h = &rtt.histograms[0];
    assert_eq!((h.count, h.zero_count, h.schema), (Some(5), Some(1), 3));
    assert_eq!(h.sum, RTT_NS.iter().sum::<u64>() as f64 / 1e9);
    // Spans and deltas, read as Prometheus does.
    let (mut bucket, mut count, mut deltas) = (0, 0, h.positive_deltas.iter());
    let mut found = Vec::new();
    for span in &h.positive_spans {
        bucket += span.offset;
        for _ in 0..span.length {
            count += deltas.next().unwrap();
            found.push((bucket, count));
            bucket += 1;
        }
    }
    assert_eq!(deltas.next(), None);
    let bucket_of = |ns: u64| ((ns as f64 / 1e9).log2() * 8.0).ceil() as i32;
    let wanted = [
        (bucket_of(250_000), 1),
        (bucket_of(23_000_000), 2),
        (bucket_of(900_000_000), 1),
    ];
    assert_eq!(found, wanted);
    let classic = request.series.iter().any(|s| {
        let name = s.labels.iter().map(|l| symbol(*l));
        name.into_iter().any(|n| n.ends_with("_bucket"))
    });
    assert!(!classic);
}

/// What a receiver got: its head, in lower case, and the body.
type Got = (String, Vec<u8>);

/// Takes a request and gives this answer.
fn serve(mut stream: impl Read + Write, answer: &str) -> std::io::Result<Got> {
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    let (head, length) = loop {
        let n = stream.read(&mut part)?;
        assert!(n > 0, "the head ends early");
        bytes.extend_from_slice(&part[..n]);
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            let head = String::from_utf8(bytes).unwrap().to_lowercase();
            bytes = body;
            let length = head.split("content-length: ").nth(1).unwrap();
            let length: usize = length.lines().next().unwrap().parse().unwrap();
            break (head, length);
        }
    };
    let mut rest = vec![0; length - bytes.len()];
    stream.read_exact(&mut rest)?;
    bytes.extend(rest);
    let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes())?;
    Ok((head, bytes))
}

fn config(url: String) -> RemoteConfig {
    RemoteConfig {
        url,
        interval_ns: 1_000_000_000,
        queue_max_bytes: 1 << 20,
        any_clock: true,
        setup: setup(Histograms::Classic),
    }
}

/// A receiver that gives each of these answers once.
fn receiver(answers: Vec<&'static str>) -> (RemoteConfig, JoinHandle<Vec<Got>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/w", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let answers = answers.into_iter();
        answers
            .map(|answer| serve(listener.accept().unwrap().0, answer).unwrap())
            .collect()
    });
    (config(url), thread)
}

#[test]
fn a_receiver_of_https_has_to_show_who_it_is() {
    let (known, stranger) = (Authority::new(), Authority::new());
    let server = known.server("127.0.0.1", VALID);
    let (got_in, got) = std::sync::mpsc::channel();
    let at = listen(move |stream| {
        let stream = accept(&server, stream);
        // A client that does not like the certificate says nothing.
        if let Ok(got) = serve(
            stream,
            "204 No Content\r\nX-Prometheus-Remote-Write-Samples-Written: 9",
        ) {
            got_in.send(got).unwrap();
        }
    });
    let mut config = config(format!("https://{at}/w"));
    let batch = batch(&config.setup);
    for roots in [stranger.roots(), Roots::Public] {
        config.setup.roots = roots;
        let verdict = Client::new(&config).post(&batch);
        assert!(
            matches!(&verdict, Verdict::Later(why, None) if why.contains("certificate")),
            "{verdict:?}"
        );
    }
    config.setup.roots = known.roots();
    let verdict = Client::new(&config).post(&batch);
    assert_eq!(verdict, Verdict::Taken(9.min(batch.samples)));
    assert_eq!(got.recv().unwrap().1, batch.body);
    assert!(got.try_recv().is_err());
}

#[test]
fn who_takes_2_0_gets_it_and_who_does_not_gets_1_0_in_the_same_breath() {
    let batch = batch(&setup(Histograms::Classic));
    let took = "204 No Content\r\nX-Prometheus-Remote-Write-Samples-Written: 100000";
    for (answers, kinds) in [
        (vec![took, took], [2, 2].as_slice()),
        // One that has taken 2.0 and refuses both ways refuses the data, and goes on with 2.0.
        (
            vec![took, "400 Bad Request", "400 Bad Request", took],
            &[2, 2, 1, 2],
        ),
        // It was exchanged for one of 1.0.
        (
            vec![took, "204 No Content", "204 No Content", "200 OK"],
            &[2, 2, 1, 1],
        ),
        (
            vec![took, "415 Unsupported Media Type", "204 No Content"],
            &[2, 2, 1],
        ),
        (
            vec!["415 Unsupported Media Type", "204 No Content", "200 OK"],
            &[2, 1, 1],
        ),
        (
            vec!["400 Bad Request", "204 No Content", "204 No Content"],
            &[2, 1, 1],
        ),
        // It looks at no content type, and finds nothing in what it gets.
        (
            vec!["204 No Content", "204 No Content", "204 No Content"],
            &[2, 1, 1],
        ),
        (vec!["503 Busy", took], &[2, 2]),
    ] {
        let said = format!("{answers:?}");
        let first_waits = answers[0].starts_with("503");
        let refused = answers.get(2).is_some_and(|a| a.starts_with("400"));
        let posts = 2 + usize::from(answers.len() > 3);
        let (config, thread) = receiver(answers);
        let mut client = Client::new(&config);
        let first = client.post(&batch);
        if first_waits {
            assert!(matches!(first, Verdict::Later(..)), "{said}: {first:?}");
        } else {
            assert_eq!(first, Verdict::Taken(batch.samples), "{said}");
        }
        let second = client.post(&batch);
        if refused {
            assert!(
                matches!(second, Verdict::Refused(0, _)),
                "{said}: {second:?}"
            );
        } else {
            assert_eq!(second, Verdict::Taken(batch.samples), "{said}");
        }
        if posts > 2 {
            let third = client.post(&batch);
            assert_eq!(third, Verdict::Taken(batch.samples), "{said}");
        }
        let got = thread.join().unwrap();
        assert_eq!(got.len(), kinds.len(), "{said}");
        for ((head, body), kind) in got.iter().zip(kinds) {
            assert!(head.starts_with("post /w http/1.1\r\n"), "{head}");
            assert!(head.contains("\r\ncontent-encoding: snappy\r\n"), "{head}");
            assert!(head.contains("\r\nx-scope-orgid: home\r\n"), "{head}");
            let of = if *kind == 2 {
                assert_eq!(*body, batch.body);
                "application/x-protobuf;proto=io.prometheus.write.v2.request\r\n\
                 x-prometheus-remote-write-version: 2.0.0\r\n"
            } else {
                let message = v1::WriteRequest::decode(&*raw(body)).unwrap();
                assert_eq!(message, to_v1(request(&batch)));
                "application/x-protobuf\r\nx-prometheus-remote-write-version: 0.1.0\r\n"
            };
            assert!(head.contains(&format!("\r\ncontent-type: {of}")), "{head}");
        }
    }
}

#[test]
fn an_answer_of_1_0_to_nothing_but_2_0_means_later() {
    for answer in ["204 No Content", "415 Unsupported Media Type"] {
        let (mut config, thread) = receiver(vec![answer]);
        config.setup.protocol = Protocol::V2;
        let verdict = Client::new(&config).post(&batch(&config.setup));
        assert!(
            matches!(&verdict, Verdict::Later(why, None) if why.contains("auto")),
            "{verdict:?}"
        );
        assert_eq!(thread.join().unwrap().len(), 1);
    }
}

#[test]
fn labels_of_samples_cannot_be_configured() {
    let request = request(&batch(&setup(Histograms::Both)));
    let labels = request.series.iter().flat_map(|s| s.labels.chunks(2));
    let names: BTreeSet<&str> = labels
        .map(|pair| request.symbols[pair[0] as usize].as_str())
        .filter(|name| *name != "__name__")
        .collect();
    assert_eq!(names, BTreeSet::from(TAKEN));
}

#[test]
fn nobody_there_means_later() {
    let (mut config, thread) = receiver(Vec::new());
    thread.join().unwrap();
    let batch = batch(&config.setup);
    let verdict = Client::new(&config).post(&batch);
    assert!(matches!(verdict, Verdict::Later(..)), "{verdict:?}");
    // A secret that cannot be read now may be there later.
    config.setup.credentials = Credentials::Bearer("/nowhere/token".into());
    let verdict = Client::new(&config).post(&batch);
    assert!(
        matches!(&verdict, Verdict::Later(why, None) if why.contains("/nowhere/token")),
        "{verdict:?}"
    );
}
