//! The datagrams in `vectors/messages.txt`, made from their fields, said by a client and a reflector
//! to each other, and made once more by a program that knows only docs/protocol.md.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::process::Command;

use bufferbane_core::drop_reason::DropReason;
use bufferbane_core::flight::{LossSlot, Slot};
use bufferbane_core::load::datagrams::LoadKeys;
use bufferbane_core::packet::{RecvMeta, SendOutcome};
use bufferbane_core::sample::SeriesIndex;
use bufferbane_core::seal::{KeyId, Nonce, PresharedKey, Secret, SessionKeys, open, seal};
use bufferbane_core::session::client::{Client, SessionEvent, StreamConfig};
use bufferbane_core::session::record::StreamRecord;
use bufferbane_core::session::reflector::{ClockFacts, KeyEntry, Reflector, Session};
use bufferbane_core::time::{Monotonic, Stamp};
use bufferbane_core::wire::header::{Kind, KnockHeader, SessionHeader};
use bufferbane_core::wire::knock::{Challenge, Cookie, Hello, Join, Welcome};
use bufferbane_core::wire::load::{Order, REPORT_BINS, Report, Token};
use bufferbane_core::wire::probe::{Probe, Reply};
use bufferbane_core::wire::train::{Arrived, Ask, Car, TrainReport};
use rand_core::TryRng;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");

/// One `[section]` with its fields.
struct Section {
    name: String,
    fields: BTreeMap<String, String>,
}

impl Section {
    fn text(&self, field: &str) -> &str {
        let text = self.fields.get(field);
        text.unwrap_or_else(|| panic!("[{}] has no {field}", self.name))
    }

    fn bytes(&self, field: &str) -> Vec<u8> {
        let text = self.text(field);
        assert!(text.len().is_multiple_of(2), "[{}] {field}", self.name);
        let byte = |i| u8::from_str_radix(&text[i..i + 2], 16).expect("hexadecimal digits");
        (0..text.len()).step_by(2).map(byte).collect()
    }

    fn array<const N: usize>(&self, field: &str) -> [u8; N] {
        self.bytes(field).try_into().expect("as many bytes")
    }

    /// As many bytes, with the zeros that were left out.
    fn padded<const N: usize>(&self, field: &str) -> [u8; N] {
        let mut bytes = self.bytes(field);
        bytes.resize(N, 0);
        bytes.try_into().expect("as many bytes")
    }

    fn number<T: TryFrom<u64>>(&self, field: &str) -> T {
        let text = self.text(field);
        let number = match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => text.parse(),
        };
        let number = number.expect("a number").try_into().ok();
        number.unwrap_or_else(|| panic!("[{}] {field} is too large", self.name))
    }
}

fn sections() -> Vec<Section> {
    let text = std::fs::read_to_string(format!("{FOLDER}/messages.txt")).expect("the vectors");
    let mut sections: Vec<Section> = Vec::new();
    for line in text.replace("\\\n", "").lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(name) = line.strip_prefix('[') {
            sections.push(Section {
                name: name.trim_end_matches(']').to_owned(),
                fields: BTreeMap::new(),
            });
        } else if let Some((field, value)) = line.split_once('=') {
            let value = value.split_whitespace().collect();
            let section = sections.last_mut().expect("a section before its fields");
            section.fields.insert(field.trim().to_owned(), value);
        }
    }
    sections
}

fn find<'a>(sections: &'a [Section], name: &str) -> &'a Section {
    let found = sections.iter().find(|s| s.name == name);
    found.unwrap_or_else(|| panic!("no section [{name}]"))
}

fn key(sections: &[Section]) -> PresharedKey {
    let key = find(sections, "key");
    PresharedKey {
        id: KeyId(key.array("id")),
        secret: Secret::new(key.array("key")),
    }
}

/// Header and body of a message, as they are before sealing, its nonce, and its length.
fn plain(s: &Section, key_id: [u8; 8]) -> (Kind, Vec<u8>, Vec<u8>, Nonce, usize) {
    let name = s.name.split(' ').next().unwrap_or_default();
    let cookie = || Cookie {
        issued_ns: s.number::<u64>("cookie_time_ns").into(),
        mac: s.array("cookie_hash"),
    };
    let (kind, body) = match name {
        "hello" => {
            let body = Hello {
                client_random: s.array("client_random"),
                padding: [0; 48],
            };
            (Kind::Hello, body.as_bytes().to_vec())
        }
        "challenge" => {
            let body = Challenge {
                client_random: s.array("client_random"),
                cookie: cookie(),
            };
            (Kind::Challenge, body.as_bytes().to_vec())
        }
        "join" => {
            let body = Join {
                client_random: s.array("client_random"),
                cookie: cookie(),
                instance: s.number::<u64>("instance").into(),
                padding: [0; 16],
            };
            (Kind::Join, body.as_bytes().to_vec())
        }
        "welcome" => {
            let body = Welcome {
                client_random: s.array("client_random"),
                server_random: s.array("server_random"),
                boot: s.number::<u64>("boot").into(),
                session: s.number::<u32>("session").into(),
                reserved: 0.into(),
            };
            (Kind::Welcome, body.as_bytes().to_vec())
        }
        "probe" => (Kind::Probe, probe(s).as_bytes().to_vec()),
        "reply" => (Kind::Reply, reply(s).as_bytes().to_vec()),
        "order" => (Kind::Order, order(s).as_bytes().to_vec()),
        "report" => (Kind::Report, report(s).as_bytes().to_vec()),
        "stream" => {
            let body = Token {
                stream: s.number("stream"),
                reserved: [0; 15],
            };
            (Kind::Stream, body.as_bytes().to_vec())
        }
        "load" | "load_down" => (Kind::Load, Vec::new()),
        "train" | "train_down" => {
            let body = Car {
                train: s.number::<u32>("train").into(),
                index: s.number::<u16>("index").into(),
                count: s.number::<u16>("count").into(),
                sent_ns: s.number::<u32>("sent_ns").into(),
                reserved: 0.into(),
            };
            (Kind::Train, body.as_bytes().to_vec())
        }
        "train_ask" => {
            let body = Ask {
                op: s.number("op"),
                reserved: 0,
                count: s.number::<u16>("count").into(),
                train: s.number::<u32>("train").into(),
                size: s.number::<u16>("datagram_size").into(),
                first: s.number::<u16>("first").into(),
                number: s.number::<u32>("number").into(),
                reserved2: [0; 16],
            };
            (Kind::TrainAsk, body.as_bytes().to_vec())
        }
        "train_report" => (Kind::TrainReport, train_report(s)),
        _ => panic!("[{}] is no message", s.name),
    };
    if s.fields.contains_key("counter") {
        let counter = s.number("counter");
        let header = SessionHeader::new(kind, s.number("session"), counter);
        let header = header.as_bytes().to_vec();
        (
            kind,
            header,
            body,
            Nonce::Counter(counter),
            s.number("size"),
        )
    } else {
        let nonce = s.array("nonce");
        let header = KnockHeader::new(kind, key_id, nonce).as_bytes().to_vec();
        let len = header.len() + body.len() + 16;
        (kind, header, body, Nonce::Random(nonce), len)
    }
}

fn probe(s: &Section) -> Probe {
    Probe {
        stream: s.number::<u16>("stream").into(),
        flags: 0.into(),
        reserved: 0.into(),
        seq: s.number::<u64>("number").into(),
        sent_ns: s.number::<u64>("sent_ns").into(),
        earlier_seq: s.number::<u64>("earlier_number").into(),
        earlier_tx_ns: s.number::<u64>("earlier_tx_ns").into(),
        want: s.number::<u64>("want").into(),
    }
}

fn reply(s: &Section) -> Reply {
    Reply {
        stream: s.number::<u16>("stream").into(),
        flags: s.number::<u16>("flags").into(),
        ttl: s.number("ttl"),
        tos: s.number("tos"),
        clocks: s.number("clocks"),
        reserved: 0,
        seq: s.number::<u64>("number").into(),
        rx_ns: s.number::<u64>("rx_ns").into(),
        residence_ns: s.number::<u32>("residence_ns").into(),
        socket_drops: s.number::<u32>("socket_drops").into(),
        tx_ns: ["tx_ns", "tx_ns_before"].map(|f| s.number::<u64>(f).into()),
        tx_back: ["tx_back", "tx_back_before"].map(|f| s.number::<u16>(f).into()),
        received: s.number::<u32>("received").into(),
        record: s.number::<u64>("record").into(),
        record_back: s.number::<u32>("record_back").into(),
        clock_epoch: s.number::<u32>("clock_epoch").into(),
        address: s.array("address"),
        port: s.number::<u16>("port").into(),
        reserved2: 0.into(),
    }
}

/// With the arrivals that follow it.
fn train_report(s: &Section) -> Vec<u8> {
    let report = TrainReport {
        state: s.number("state"),
        reason: s.number("reason"),
        arrived: s.number::<u16>("arrived").into(),
        train: s.number::<u32>("train").into(),
        number: s.number::<u32>("number").into(),
        most: s.number::<u16>("most").into(),
        first: s.number::<u16>("first").into(),
        follow: s.number::<u16>("follow").into(),
        clock: s.number("clock"),
        reserved: 0,
        socket_drops: s.number::<u32>("socket_drops").into(),
        begin_ns: s.number::<u64>("begin_ns").into(),
    };
    let arrivals = s.bytes("arrivals");
    let arrivals = <[Arrived]>::ref_from_bytes(&arrivals).expect("whole arrivals");
    [report.as_bytes(), arrivals.as_bytes()].concat()
}

fn order(s: &Section) -> Order {
    Order {
        op: s.number("op"),
        streams_up: s.number("streams_up"),
        streams_down: s.number("streams_down"),
        prefix_bits: s.number("prefix_bits"),
        number: s.number::<u32>("number").into(),
        test: s.number::<u64>("test").into(),
        time_ms: s.number::<u32>("time_ms").into(),
        first_bin: s.number::<u32>("first_bin").into(),
        dscp: s.array("dscp"),
        congestion: s.padded("congestion"),
        prefix: s.array("prefix"),
        up_bps: s.number::<u64>("up_bps").into(),
        down_bps: s.number::<u64>("down_bps").into(),
        size: s.number::<u16>("datagram_size").into(),
        reserved: [0; 6],
    }
}

fn report(s: &Section) -> Report {
    let bytes: [u8; 4 * REPORT_BINS] = s.padded("bytes");
    let in_band: [u8; 2 * REPORT_BINS] = s.padded("in_band");
    Report {
        state: s.number("state"),
        reason: s.number("reason"),
        port: s.number::<u16>("port").into(),
        number: s.number::<u32>("number").into(),
        test: s.number::<u64>("test").into(),
        wait_ms: s.number::<u32>("wait_ms").into(),
        handle: s.number::<u32>("handle").into(),
        secret: Secret::new(s.array("secret")),
        received: s.number::<u64>("received").into(),
        sent: s.number::<u64>("sent").into(),
        retransmits: s.number::<u32>("retransmits").into(),
        rtt_us: s.number::<u32>("rtt_us").into(),
        cwnd_bytes: s.number::<u32>("cwnd_bytes").into(),
        first_bin: s.number::<u32>("first_bin").into(),
        bins: s.number::<u16>("bins").into(),
        reserved: 0.into(),
        bytes: std::array::from_fn(|i| U32::from_bytes(bytes[4 * i..][..4].try_into().unwrap())),
        in_band: std::array::from_fn(|i| {
            U16::from_bytes(in_band[2 * i..][..2].try_into().unwrap())
        }),
        datagrams: s.number::<u32>("datagrams").into(),
        again: s.number::<u32>("again").into(),
        overtaken: s.number::<u32>("overtaken").into(),
        datagrams_sent: s.number::<u32>("datagrams_sent").into(),
        sender_dropped: s.number::<u32>("sender_dropped").into(),
        reserved2: [0; 4],
    }
}

#[test]
fn every_message_is_sealed_and_opened_as_the_vectors_have_it() {
    let all = sections();
    let psk = key(&all);
    let knock = psk.knock_key();
    assert_eq!(knock.reveal()[..], find(&all, "key").bytes("knock_key"));
    let session = find(&all, "session");
    let SessionKeys { up, down } = psk.session_keys(
        &session.array("client_random"),
        &session.array("server_random"),
    );
    assert_eq!(up.reveal()[..], session.bytes("up_key"));
    assert_eq!(down.reveal()[..], session.bytes("down_key"));
    let other = |s: &&Section| !["key", "cookie", "session"].contains(&s.name.as_str());
    let messages: Vec<&Section> = all.iter().filter(other).collect();
    assert_eq!(messages.len(), 19);
    let test = Secret::new(find(&all, "report").array("secret"));
    let load = LoadKeys::of(&test);
    for s in messages {
        let (kind, header, body, nonce, len) = plain(s, psk.id.0);
        let key = match kind {
            Kind::Probe | Kind::Order | Kind::TrainAsk => &up,
            Kind::Train if s.name == "train" => &up,
            Kind::Reply | Kind::Report | Kind::Train | Kind::TrainReport => &down,
            Kind::Stream => &test,
            Kind::Load if s.name == "load" => &load.up,
            Kind::Load => &load.down,
            _ => &knock,
        };
        let mut datagram = header.clone();
        datagram.extend_from_slice(&body);
        datagram.resize(len, 0);
        let mut whole = body;
        whole.resize(len - header.len() - 16, 0);
        seal(key, nonce, &mut datagram, header.len()).unwrap();
        assert_eq!(datagram, s.bytes("datagram"), "[{}]", s.name);
        let opened = open(key, nonce, &mut datagram, header.len());
        assert_eq!(opened, Ok(&whole[..]), "[{}]", s.name);
    }
}

#[test]
fn a_program_that_knows_only_the_page_makes_the_same_bytes() {
    let checked = match Command::new("python3")
        .arg(format!("{FOLDER}/check.py"))
        .output()
    {
        Ok(output) => output,
        Err(e) => {
            assert!(std::env::var_os("CI").is_none(), "in CI no test is skipped");
            println!("SKIPPED: no python3: {e}");
            return;
        }
    };
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
}

/// Says what is written down for it, piece by piece; numbers that nobody wrote down are zero.
#[derive(Default)]
struct Script {
    pieces: VecDeque<Vec<u8>>,
    numbers: VecDeque<u64>,
}

impl TryRng for Script {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(0)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.numbers.pop_front().unwrap_or(0))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        let piece = self
            .pieces
            .pop_front()
            .expect("no more randomness was written down");
        out.copy_from_slice(&piece);
        Ok(())
    }
}

#[test]
fn a_client_and_a_reflector_say_the_first_eight_to_each_other() {
    let all = sections();
    let (hello, join) = (find(&all, "hello"), find(&all, "join"));
    let (challenge, welcome) = (find(&all, "challenge"), find(&all, "welcome"));
    let wanted = |name: &str| find(&all, name).bytes("datagram");
    let at_ns = Monotonic::from_nanos;
    let mut rng = Script {
        // The first value is replaced when the first knock leaves.
        pieces: [
            vec![0; 32],
            hello.bytes("client_random"),
            hello.bytes("nonce"),
            join.bytes("nonce"),
        ]
        .into(),
        numbers: [join.number("instance")].into(),
    };
    let mut far_rng = Script {
        pieces: [
            find(&all, "cookie").bytes("secret"),
            challenge.bytes("nonce"),
            welcome.bytes("nonce"),
        ]
        .into(),
        numbers: [welcome.number("boot")].into(),
    };
    let mut reflector = Reflector::new(
        vec![KeyEntry::new(key(&all), 0, 100, 4)],
        vec![Session::default(); 2],
        vec![StreamRecord::default(); 2],
        100,
        &mut far_rng,
    );
    reflector.set_clock(ClockFacts {
        epoch: 4,
        disciplined: true,
    });
    let mut client = Client::new(key(&all), at_ns(1_000_000_000), &mut rng);

    let mut bytes = [0; 1500];
    let mut answer = [0; 1500];
    let mut meta = RecvMeta {
        at: Stamp::kernel(at_ns(5_000_020_000_000)),
        from: ([192, 0, 2, 7], 1000).into(),
        to: None,
        ttl: Some(57),
        tos: Some(0xb8),
        socket_drops: 0,
        truncated: false,
    };
    for (up, down) in [("hello", "challenge"), ("join", "welcome")] {
        let now = at_ns(1_000_000_000);
        let (len, _token) = client.poll_transmit(now, &mut rng, &mut bytes).unwrap();
        assert_eq!(bytes[..len], wanted(up), "{up}");
        let far_now = at_ns(5_000_020_000_000);
        let request = &mut bytes[..len];
        let answered = reflector.handle_request(far_now, &meta, request, &mut answer, &mut far_rng);
        let len = answered.unwrap().len;
        assert_eq!(answer[..len], wanted(down), "{down}");
        assert_eq!(client.handle_reply(now, &meta, &mut answer[..len]), Ok(()));
    }
    assert_eq!(client.poll_event(), Some(SessionEvent::Established));

    let config = StreamConfig {
        series: SeriesIndex(0),
        size: 128,
        interval_ns: 1_000_000_000,
        spread_permille: 0,
        timeout_ns: 3_000_000_000,
    };
    let (slots, losses) = (vec![Slot::default(); 8], vec![LossSlot::default(); 8]);
    let begin = at_ns(2_000_000_000);
    assert!(
        client
            .add_stream(config, begin, slots, losses, &mut rng)
            .is_ok()
    );
    for (i, which) in ["first", "second"].into_iter().enumerate() {
        let now = at_ns(2_000_000_000 + 1_000_000_000 * i as u64);
        let (len, token) = client.poll_transmit(now, &mut rng, &mut bytes).unwrap();
        assert_eq!(bytes[..len], wanted(&format!("probe {which}")), "{which}");
        let left = Stamp::kernel(now.saturating_add(15_000));
        client.handle_sent(token, SendOutcome::Stamped(left));
        let arrived = at_ns(5_001_000_000_000 + 1_000_000_000 * i as u64);
        meta.at = Stamp::kernel(arrived);
        meta.socket_drops = 2 * i as u32;
        let (far_now, request) = (arrived.saturating_add(30_000), &mut bytes[..len]);
        let answered = reflector
            .handle_request(far_now, &meta, request, &mut answer, &mut far_rng)
            .unwrap();
        assert_eq!(answer[..answered.len], wanted(&format!("reply {which}")));
        let left = Stamp::kernel(arrived.saturating_add(45_000));
        reflector.handle_sent(answered.token.unwrap(), SendOutcome::Stamped(left));
        let reply = &mut answer[..answered.len];
        assert_eq!(client.handle_reply(now, &meta, reply), Ok(()));
    }
    let mut again = wanted("probe first");
    let replayed = reflector.handle_request(begin, &meta, &mut again, &mut answer, &mut far_rng);
    assert_eq!(replayed, Err(DropReason::Replay));
    assert!(rng.pieces.is_empty() && far_rng.pieces.is_empty());
}
