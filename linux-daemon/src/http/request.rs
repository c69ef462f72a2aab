//! What a browser asks, and whether it is answered.

use std::net::{IpAddr, SocketAddr};

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is no HTTP request.
    Malformed,
    /// It would change something.
    Method,
    /// It came under a foreign name, or from a foreign page.
    Foreign,
    /// There is no such thing here.
    NotFound,
    /// Too many pages are open.
    Busy,
}

impl Refusal {
    /// The status line's end.
    pub(crate) const fn status(self) -> &'static str {
        match self {
            Self::Malformed => "400 Bad Request",
            Self::Method => "405 Method Not Allowed",
            Self::Foreign => "403 Forbidden",
            Self::NotFound => "404 Not Found",
            Self::Busy => "503 Service Unavailable",
        }
    }

    /// For people.
    pub(crate) const fn why(self) -> &'static str {
        match self {
            Self::Malformed => "this is not a request",
            Self::Method => "this page can only be read",
            Self::Foreign => "this page answers only to its own address; open it by IP address",
            Self::NotFound => "there is no such page",
            Self::Busy => "too many pages are open",
        }
    }
}

/// The parts of a request that matter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    method: &'a str,
    path: &'a str,
    host: Option<&'a str>,
    origin: Option<&'a str>,
    accept: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// Reads it.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(bytes).map_err(|_| Refusal::Malformed)?;
        let (head, _) = text.split_once("\r\n\r\n").ok_or(Refusal::Malformed)?;
        let mut lines = head.split("\r\n");
        let mut first = lines.next().unwrap_or("").split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (first.next(), first.next(), first.next(), first.next())
        else {
            return Err(Refusal::Malformed);
        };
        if !version.starts_with("HTTP/1.") {
            return Err(Refusal::Malformed);
        }
        let mut request = Self {
            method,
            path: target.split('?').next().unwrap_or(target),
            host: None,
            origin: None,
            accept: None,
        };
        for line in lines {
            let (name, value) = line.split_once(':').ok_or(Refusal::Malformed)?;
            let slot = match name.to_ascii_lowercase().as_str() {
                "host" => &mut request.host,
                "origin" => &mut request.origin,
                // Several are as good as one, and the first has to do.
                "accept" if request.accept.is_none() => &mut request.accept,
                _ => continue,
            };
            // Of two it could not be told which one counts.
            if slot.replace(value.trim()).is_some() {
                return Err(Refusal::Malformed);
            }
        }
        Ok(request)
    }

    /// The path, where the request may be answered by a page that listens at `listen`.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn admit(&self, listen: SocketAddr) -> Result<&'a str, Refusal> {
        let host = self.host.ok_or(Refusal::Malformed)?;
        if !is_ours(host, listen) {
            return Err(Refusal::Foreign);
        }
        if self.origin.is_some_and(|o| o != format!("http://{host}")) {
            return Err(Refusal::Foreign);
        }
        if self.method != "GET" {
            return Err(Refusal::Method);
        }
        Ok(self.path)
    }

    /// What kinds of answer it asks for.
    pub(crate) const fn accept(&self) -> Option<&'a str> {
        self.accept
    }
}

/// Whether a page at `listen` is meant by `host`. A name other than `localhost` may be one that
/// somebody else lets point here, so only addresses are taken: of the loopback where that is where
/// it listens, any where it listens to the network.
fn is_ours(host: &str, listen: SocketAddr) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port.parse().ok()),
        _ => (host, Some(80)),
    };
    if port != Some(listen.port()) {
        return false;
    }
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(ip) => ip.is_loopback() || !listen.ip().is_loopback(),
        Err(_) => bare.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(head: &str) -> Result<String, Refusal> {
        let listen = "127.0.0.1:9816".parse().unwrap();
        Request::parse(head.as_bytes())?
            .admit(listen)
            .map(str::to_owned)
    }

    #[test]
    fn only_this_page_and_this_host_are_answered() {
        let get = |more: &str| ask(&format!("GET / HTTP/1.1\r\n{more}\r\n\r\n"));
        assert_eq!(get("Host: 127.0.0.1:9816"), Ok("/".into()));
        assert_eq!(get("host: localhost:9816"), Ok("/".into()));
        assert_eq!(get("Host: [::1]:9816"), Ok("/".into()));
        let same = "Host: localhost:9816\r\nOrigin: http://localhost:9816";
        assert_eq!(get(same), Ok("/".into()));
        for foreign in [
            "Host: evil.example:9816",
            "Host: 192.0.2.1:9816",
            "Host: localhost",
            "Host: localhost:80",
            "Host: localhost.evil.example:9816",
            "Host: localhost:9816\r\nOrigin: http://evil.example",
            "Host: localhost:9816\r\nOrigin: null",
            "Host: localhost:9816\r\nOrigin: https://localhost:9816",
        ] {
            assert_eq!(get(foreign), Err(Refusal::Foreign), "{foreign}");
        }
        for odd in ["", "Host", "Host: localhost:9816\r\nHost: localhost:9816"] {
            assert_eq!(get(odd), Err(Refusal::Malformed), "{odd}");
        }
        let post = ask("POST /api/now HTTP/1.1\r\nHost: localhost:9816\r\n\r\n");
        assert_eq!(post, Err(Refusal::Method));
        assert_eq!(ask("GET /"), Err(Refusal::Malformed));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Request::parse(&bytes).map(|r| r.admit("127.0.0.1:9816".parse().unwrap()));
        }
    }
}
