//! Questions to resolvers (RFC 1035), over UDP and TCP.

use std::io;
use std::net::SocketAddr;

use bufferbane_core::failure::Failure;
use bufferbane_linux_io::{Family, ProbeSocket, clock};
use domain::base::iana::Rcode;
use domain::base::wire::ParseError;
use domain::base::{Message, MessageBuilder, Name, Rtype};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

use super::{Outcome, errno, socket};
use crate::ask::config::Lookup;
use crate::scout::Way;

/// Of a datagram so many bytes are read. Without EDNS an answer has at most 512 (RFC 1035 section
/// 2.3.4); servers that do not care send what fits into a packet.
const LONGEST_DATAGRAM: usize = 1500;
/// Receive buffer of a question's socket, bytes: one answer comes to it, and some room is left for
/// datagrams of strangers.
const BUFFER: usize = 16 << 10;

/// Asks for what `lookup` says; `random` decides the message's number and the label, if there is to be
/// one.
pub(super) async fn ask(way: &Way, to: SocketAddr, lookup: &Lookup, random: [u64; 2]) -> Outcome {
    let Some(question) = question(lookup, random) else {
        // What was configured was found to be a name; this cannot happen to what was.
        return Outcome::Unsent(nix::libc::EINVAL);
    };
    let asked = if lookup.tcp {
        over_tcp(way, to, &question, lookup.random).await
    } else {
        over_udp(way, to, &question, lookup.random).await
    };
    asked.unwrap_or_else(|refused| refused)
}

/// Bytes of a question.
pub(super) fn size(lookup: &Lookup) -> u16 {
    let asked = question(lookup, [0; 2]);
    asked.map_or(0, |q| u16::try_from(q.as_slice().len()).unwrap_or(u16::MAX))
}

fn question(lookup: &Lookup, [number, label]: [u64; 2]) -> Option<Message<Vec<u8>>> {
    let name = if lookup.random {
        format!("{label:016x}.{}", lookup.name)
    } else {
        lookup.name.clone()
    };
    let name: Name<Vec<u8>> = name.parse().ok()?;
    let mut message = MessageBuilder::new_vec();
    message.header_mut().set_id(number as u16);
    message.header_mut().set_rd(true);
    let mut asked = message.question();
    asked.push((name, Rtype::A)).ok()?;
    Some(asked.into_message())
}

/// What an answer says; `None` where it is none of this question's.
fn judge(question: &Message<Vec<u8>>, answer: &[u8], random: bool) -> Option<Result<(), Failure>> {
    let answer = Message::from_octets(answer).ok()?;
    let header = answer.header();
    if header.id() != question.header().id() {
        return None;
    }
    // A server that refuses may leave out what it was asked.
    let bare = header.qr() && answer.header_counts().qdcount() == 0;
    if !bare && !answer.is_answer(question) {
        return Some(Err(Failure::MALFORMED));
    }
    if header.tc() {
        return Some(Err(Failure::TRUNCATED));
    }
    Some(match header.rcode() {
        Rcode::NOERROR if random => Ok(()),
        Rcode::NOERROR => has_address(&answer),
        // Nobody has the name that was made up.
        Rcode::NXDOMAIN if random => Ok(()),
        rcode => Err(Failure::dns(rcode.to_int())),
    })
}

/// Whether an answer has an address, wherever aliases led to: some resolvers that block names, or have lost their own
/// way out, say that there is none.
fn has_address(answer: &Message<&[u8]>) -> Result<(), Failure> {
    let mut records = answer.answer().map_err(|_| Failure::MALFORMED)?;
    records
        .try_fold(Err(Failure::EMPTY), |found, record| {
            let is_address = record?.rtype() == Rtype::A;
            Ok::<_, ParseError>(if is_address { Ok(()) } else { found })
        })
        .unwrap_or(Err(Failure::MALFORMED))
}

async fn over_udp(
    way: &Way,
    to: SocketAddr,
    question: &Message<Vec<u8>>,
    random: bool,
) -> Result<Outcome, Outcome> {
    let builder = ProbeSocket::udp(Family::of(&to.ip()))
        .receive_buffer(BUFFER)
        .header_facts(false);
    let unsent = |e: io::Error| Outcome::Unsent(errno(&e));
    let socket = way.socket(builder).build().map_err(|e| unsent(e.source))?;
    let socket = std::net::UdpSocket::from(std::os::fd::OwnedFd::from(socket));
    socket.set_nonblocking(true).map_err(unsent)?;
    let socket = UdpSocket::from_std(socket).map_err(unsent)?;
    socket.connect(to).await.map_err(unsent)?;
    let begun = clock::now();
    socket.send(question.as_slice()).await.map_err(unsent)?;
    let mut bytes = [0; LONGEST_DATAGRAM];
    loop {
        let len = socket.recv(&mut bytes).await.map_err(|e| Outcome::of(&e))?;
        match judge(question, &bytes[..len], random) {
            None => {}
            Some(Ok(())) => return Ok(Outcome::Answered(clock::now().saturating_since(begun))),
            Some(Err(why)) => return Ok(Outcome::Failed(why)),
        }
    }
}

async fn over_tcp(
    way: &Way,
    to: SocketAddr,
    question: &Message<Vec<u8>>,
    random: bool,
) -> Result<Outcome, Outcome> {
    let begun = clock::now();
    let mut stream = socket::connect(way, to).await?;
    // The length first (RFC 1035 section 4.2.2), in one segment with the question.
    let bytes = question.as_slice();
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    let message = [&len.to_be_bytes(), bytes].concat();
    let failed = |e| Outcome::of(&e);
    stream.write_all(&message).await.map_err(failed)?;
    let len = stream.read_u16().await.map_err(failed)?;
    let mut answer = vec![0; len.into()];
    stream.read_exact(&mut answer).await.map_err(failed)?;
    Ok(match judge(question, &answer, random) {
        Some(Ok(())) => Outcome::Answered(clock::now().saturating_since(begun)),
        Some(Err(why)) => Outcome::Failed(why),
        // Nothing else was asked on this connection.
        None => Outcome::Failed(Failure::MALFORMED),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lookup(random: bool) -> Lookup {
        Lookup {
            name: "example.com".into(),
            random,
            tcp: false,
            interval_ns: 1,
        }
    }

    /// The question, turned into an answer with these flags.
    fn answer(question: &Message<Vec<u8>>, high: u8, low: u8) -> Vec<u8> {
        let mut bytes = question.as_slice().to_vec();
        (bytes[2], bytes[3]) = (high, low);
        bytes
    }

    #[test]
    fn a_question_has_these_bytes() {
        let q = question(&lookup(false), [0xbeef, 7]).unwrap();
        let expected = [
            &[0xbe, 0xef, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 7][..],
            b"example\x03com\0\0\x01\0\x01",
        ]
        .concat();
        assert_eq!(q.as_slice(), expected);
        assert_eq!(usize::from(size(&lookup(false))), expected.len());
        let random = question(&lookup(true), [1, 0xab]).unwrap();
        assert_eq!(random.as_slice()[12..29], *b"\x1000000000000000ab");
    }

    #[test]
    fn answers_are_told_apart() {
        let q = question(&lookup(true), [7, 9]).unwrap();
        let said = |high, low, random| judge(&q, &answer(&q, high, low), random);
        assert_eq!(said(0x81, 0x80, true), Some(Ok(())));
        assert_eq!(said(0x83, 0x80, false), Some(Err(Failure::TRUNCATED)));
        assert_eq!(said(0x81, 0x82, false), Some(Err(Failure::dns(2))));
        assert_eq!(said(0x81, 0x83, false), Some(Err(Failure::dns(3))));
        assert_eq!(said(0x81, 0x83, true), Some(Ok(())));
        // Our own question come back is none.
        assert_eq!(said(0x01, 0, false), Some(Err(Failure::MALFORMED)));
        let mut other = answer(&q, 0x81, 0x80);
        other[14] ^= 1;
        assert_eq!(judge(&q, &other, false), Some(Err(Failure::MALFORMED)));
        other[1] ^= 1;
        assert_eq!(judge(&q, &other, false), None);
        let mut bare = answer(&q, 0x81, 0x85)[..12].to_vec();
        bare[5] = 0;
        assert_eq!(judge(&q, &bare, false), Some(Err(Failure::dns(5))));
    }

    /// An answer of NOERROR with records of these types, each for the name that was asked for, and so many more announced.
    fn with_records(question: &Message<Vec<u8>>, types: &[u16], more: u8) -> Vec<u8> {
        let mut bytes = answer(question, 0x81, 0x80);
        bytes[7] = types.len() as u8 + more;
        for rtype in types {
            let [high, low] = rtype.to_be_bytes();
            // The name, the type, IN, a minute, and four bytes of data.
            bytes.extend([0xc0, 12, high, low, 0, 1, 0, 0, 0, 60, 0, 4]);
            bytes.extend([192, 0, 2, 1]);
        }
        bytes
    }

    #[test]
    fn a_name_that_is_always_the_same_has_to_have_an_address() {
        const A: u16 = 1;
        const CNAME: u16 = 5;
        let q = question(&lookup(false), [7, 9]).unwrap();
        let said = |types: &[u16], more, random| judge(&q, &with_records(&q, types, more), random);
        assert_eq!(said(&[A], 0, false), Some(Ok(())));
        assert_eq!(said(&[CNAME, A], 0, false), Some(Ok(())));
        assert_eq!(said(&[], 0, false), Some(Err(Failure::EMPTY)));
        assert_eq!(said(&[CNAME], 0, false), Some(Err(Failure::EMPTY)));
        assert_eq!(said(&[CNAME], 1, false), Some(Err(Failure::MALFORMED)));
        // Nobody has made up an address for a name that was made up.
        assert_eq!(said(&[], 0, true), Some(Ok(())));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_judged(bytes in proptest::collection::vec(any::<u8>(), 0..600), random: bool, ours: bool) {
            let q = question(&lookup(random), [1, 2]).unwrap();
            let mut bytes = bytes;
            if ours && bytes.len() >= 12 {
                // The rest of it is looked at only then.
                bytes[..6].copy_from_slice(&[0, 1, 0x81, 0x80, 0, 1]);
            }
            let judged = judge(&q, &bytes, random);
            prop_assert!(judged.is_none() || bytes[..2] == [0, 1]);
        }
    }
}
