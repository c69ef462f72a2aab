//! Posts a batch, and makes of the answer what is to be done with it.

use std::io::Read;
use std::time::{Duration, Instant};

use base64::Engine;
use prost::Message;
use ureq::Agent;
use ureq::http::{HeaderMap, StatusCode};

use super::config::{Credentials, Protocol, RemoteConfig, secret};
use super::gather::{Batch, compress};
use super::proto::{to_v1, v2};

/// A connection has this long to be made, and a batch to be taken.
const CONNECT: Duration = Duration::from_secs(10);
const WHOLE: Duration = Duration::from_secs(30);
/// Most of an answer that is shown, bytes.
const SHOWN: u64 = 300;
/// A receiver that did not take 2.0 is asked again after this.
const ASK_AGAIN: Duration = Duration::from_secs(86_400);
/// The longest that a receiver may ask us to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(900);
/// How many samples a receiver of 2.0 took, and how many histograms.
const WRITTEN: [&str; 2] = [
    "x-prometheus-remote-write-samples-written",
    "x-prometheus-remote-write-histograms-written",
];

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It arrived; so many of its samples were taken.
    Taken(u32),
    /// It was refused, and would be again, but for so many samples; why.
    Refused(u32, String),
    /// It may be taken later; why not now, and how long to wait at least.
    Later(String, Option<Duration>),
}

/// Which version the next batch is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// 2.0, which the receiver has taken before.
    Two,
    /// 2.0, to find out.
    TwoPerhaps,
    /// 1.0; 2.0 is tried again then, if ever.
    One(Option<Instant>),
}

/// A receiver's end of a connection.
pub(super) struct Client {
    config: RemoteConfig,
    agent: Agent,
    version: Version,
}

impl Client {
    pub(super) fn new(config: &RemoteConfig) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .tls_config(config.setup.roots.agent())
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(WHOLE))
            .user_agent(concat!("bufferbane/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            config: config.clone(),
            agent: agent.into(),
            version: match config.setup.protocol {
                Protocol::Auto => Version::TwoPerhaps,
                Protocol::V1 => Version::One(None),
                Protocol::V2 => Version::Two,
            },
        }
    }

    /// What is spoken at present.
    pub(super) const fn protocol(&self) -> &'static str {
        match self.version {
            Version::One(_) => "1.0",
            Version::Two | Version::TwoPerhaps => "2.0",
        }
    }

    /// Posts a batch, by the version that the receiver takes.
    pub(super) fn post(&mut self, batch: &Batch) -> Verdict {
        if let Version::One(Some(until)) = self.version
            && Instant::now() >= until
        {
            self.version = Version::TwoPerhaps;
        }
        if matches!(self.version, Version::One(_)) {
            return self.post_v1(batch);
        }
        let kind = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
        let answer = match self.send(&batch.body, kind, "2.0.0") {
            Ok(answer) => answer,
            Err(why) => return Verdict::Later(why, None),
        };
        let may_fall_back = self.config.setup.protocol == Protocol::Auto;
        if may_fall_back && !answer.may_be_of_v2() {
            return self.fall_back(batch);
        }
        if answer.written.is_some() {
            self.version = Version::Two;
        }
        answer.verdict_of_v2(batch.samples)
    }

    /// Posts by 1.0 what was not taken by 2.0: also a receiver that took 2.0 before may have been exchanged.
    fn fall_back(&mut self, batch: &Batch) -> Verdict {
        let verdict = self.post_v1(batch);
        // What one that took 2.0 refuses both ways is wrong by itself.
        if self.version == Version::Two && matches!(verdict, Verdict::Refused(..)) {
            return verdict;
        }
        log::info!(
            "remote_write {}: the receiver does not take remote-write 2.0; it gets 1.0",
            self.config.name()
        );
        self.version = Version::One(Some(Instant::now() + ASK_AGAIN));
        verdict
    }

    fn post_v1(&self, batch: &Batch) -> Verdict {
        // What we have compressed ourselves and guarded by a checksum can be read.
        let body = snap::raw::Decoder::new()
            .decompress_vec(&batch.body)
            .map_err(std::io::Error::other)
            .and_then(|raw| v2::Request::decode(&*raw).map_err(std::io::Error::other))
            .and_then(|request| compress(&to_v1(request).encode_to_vec()));
        let body = match body {
            Ok(body) => body,
            Err(e) => return Verdict::Refused(0, format!("the batch cannot be read: {e}")),
        };
        match self.send(&body, "application/x-protobuf", "0.1.0") {
            Ok(answer) => answer.verdict_of("1.0", batch.samples),
            Err(why) => Verdict::Later(why, None),
        }
    }

    fn send(&self, body: &[u8], kind: &str, version: &str) -> Result<Answer, String> {
        let setup = &self.config.setup;
        let mut request = self
            .agent
            .post(&self.config.url)
            .header("content-encoding", "snappy")
            .header("content-type", kind)
            .header("x-prometheus-remote-write-version", version);
        request = match &setup.credentials {
            Credentials::None => request,
            Credentials::Bearer(file) => {
                request.header("authorization", format!("Bearer {}", secret(file)?))
            }
            Credentials::Basic(name, file) => {
                let both = format!("{name}:{}", secret(file)?);
                let coded = base64::engine::general_purpose::STANDARD.encode(both);
                request.header("authorization", format!("Basic {coded}"))
            }
        };
        for (name, value) in &setup.headers {
            request = request.header(name, value);
        }
        let mut answer = request.send(body).map_err(|e| e.to_string())?;
        let mut said = Vec::new();
        // The status is enough; whatever ends the reading after it is no matter.
        let _ = answer
            .body_mut()
            .as_reader()
            .take(SHOWN)
            .read_to_end(&mut said);
        Ok(Answer::new(answer.status(), answer.headers(), &said))
    }
}

/// What a receiver said.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    status: StatusCode,
    /// Samples and histograms that it took, where it says so.
    written: Option<u32>,
    wait: Option<Duration>,
    /// For people.
    said: String,
}

impl Answer {
    fn new(status: StatusCode, headers: &HeaderMap, said: &[u8]) -> Self {
        let header = |name| headers.get(name)?.to_str().ok();
        let number = |name| header(name)?.trim().parse::<u32>().ok();
        let words: String = String::from_utf8_lossy(said)
            .trim()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let [samples, histograms] = WRITTEN.map(number);
        Self {
            status,
            written: samples.map(|n| n.saturating_add(histograms.unwrap_or(0))),
            wait: header("retry-after").and_then(wait_of),
            said: if words.is_empty() {
                format!("it answered {status}")
            } else {
                format!("it answered {status}: {words}")
            },
        }
    }

    /// Whether somebody who takes 2.0 may have given this answer to it. Receivers of 1.0 that do not look
    /// at the content type find nothing in such a message and take it: only from the header can one know.
    fn may_be_of_v2(&self) -> bool {
        if self.status.is_success() {
            return self.written.is_some();
        }
        !matches!(
            self.status,
            StatusCode::UNSUPPORTED_MEDIA_TYPE | StatusCode::BAD_REQUEST
        ) || self.written.is_some()
    }

    /// What follows for a batch of 2.0: without a word of what was written, nothing may have been.
    fn verdict_of_v2(self, samples: u32) -> Verdict {
        if self.status.is_success() && self.written.is_none() {
            let why = format!(
                "{}, and not how many samples it has written, as receivers of 1.0 do; set protocol = \
                 \"auto\"",
                self.said
            );
            return Verdict::Later(why, self.wait);
        }
        self.verdict_of("2.0", samples)
    }

    /// What follows for a batch of this version: that it is not taken says nothing of what is in it, so it
    /// waits for somebody to look after the configuration.
    fn verdict_of(self, version: &str, samples: u32) -> Verdict {
        if self.status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            let why = format!(
                "{}: it does not take remote-write {version}; look at url, and set protocol = \"auto\"",
                self.said
            );
            return Verdict::Later(why, self.wait);
        }
        self.verdict(samples)
    }

    /// What follows for a batch of so many samples.
    fn verdict(self, samples: u32) -> Verdict {
        let taken = self.written.map(|n| n.min(samples));
        match self.status {
            s if s.is_success() => Verdict::Taken(taken.unwrap_or(samples)),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                Verdict::Later(self.said, self.wait)
            }
            s if s.is_client_error() => Verdict::Refused(taken.unwrap_or(0), self.said),
            _ => Verdict::Later(self.said, self.wait),
        }
    }
}

/// A `Retry-After`: seconds, or a date.
fn wait_of(text: &str) -> Option<Duration> {
    let wait = text.trim().parse().map(Duration::from_secs).or_else(|_| {
        let at = jiff::fmt::rfc2822::parse(text.trim()).map_err(|_| ())?;
        Duration::try_from(at.timestamp().duration_since(jiff::Timestamp::now())).map_err(|_| ())
    });
    wait.ok().map(|w| w.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)]) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        Answer::new(StatusCode::from_u16(status).unwrap(), &map, b"so\nit is \n")
    }

    #[test]
    fn what_may_pass_is_tried_again_and_what_will_not_is_dropped() {
        let said = |status: u16| {
            format!(
                "it answered {}: so it is",
                StatusCode::from_u16(status).unwrap()
            )
        };
        for status in [200, 204] {
            assert_eq!(answer(status, &[]).verdict(7), Verdict::Taken(7));
        }
        for status in [400, 401, 404, 422] {
            let refused = Verdict::Refused(0, said(status));
            assert_eq!(answer(status, &[]).verdict(7), refused);
        }
        for status in [301, 408, 429, 500, 503] {
            let later = Verdict::Later(said(status), None);
            assert_eq!(answer(status, &[]).verdict(7), later);
        }
        let part = answer(400, &[(WRITTEN[0], "3"), (WRITTEN[1], "1")]);
        assert_eq!(part.verdict(7), Verdict::Refused(4, said(400)));
    }

    #[test]
    fn a_version_that_is_not_taken_is_no_word_against_the_batch() {
        for version in ["1.0", "2.0"] {
            let verdict = answer(415, &[("retry-after", "7")]).verdict_of(version, 7);
            let Verdict::Later(why, wait) = verdict else {
                panic!("{verdict:?}")
            };
            assert!(why.contains(&format!("remote-write {version}")), "{why}");
            assert_eq!(wait, Some(Duration::from_secs(7)));
        }
        let refused = answer(400, &[]).verdict_of("2.0", 7);
        assert!(matches!(refused, Verdict::Refused(0, _)), "{refused:?}");
    }

    #[test]
    fn a_receiver_of_2_0_is_known_by_its_header() {
        for (status, headers, may) in [
            (204, &[][..], false),
            (204, &[(WRITTEN[0], "0")], true),
            (415, &[], false),
            (400, &[], false),
            (400, &[(WRITTEN[0], "0")], true),
            (503, &[], true),
        ] {
            assert_eq!(answer(status, headers).may_be_of_v2(), may, "{status}");
        }
    }

    #[test]
    fn a_receiver_may_ask_for_time() {
        let wait = |text| answer(503, &[("retry-after", text)]).wait;
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("86400"), Some(LONGEST_WAIT));
        assert_eq!(wait("Fri, 31 Dec 2100 23:59:59 GMT"), Some(LONGEST_WAIT));
        assert_eq!(wait("Fri, 31 Dec 1999 23:59:59 GMT"), None);
        assert_eq!(wait("soon"), None);
    }
}
