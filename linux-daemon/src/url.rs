//! URLs of the kind `http://HOST[:PORT][/PATH]` and `https://…` (RFC 9110 section 4.2).

use std::fmt;

use bufferbane_config::{check_host, split_port};

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    /// Whether TLS is spoken.
    pub secure: bool,
    /// A name, or an address without brackets.
    pub host: String,
    /// The port, also where none is written.
    pub port: u16,
    /// What is asked for: begins with a slash, and has the query.
    pub path: String,
}

impl Url {
    /// Reads one; `example` is shown to whoever wrote it wrong.
    ///
    /// # Errors
    /// What is wrong with it, and what is allowed.
    pub(crate) fn parse(text: &str, example: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("\"{text}\" {why}; write for example \"{example}\""));
        let (secure, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return wrong("is no URL of http:// or https://"),
        };
        if !text.chars().all(|c| c.is_ascii_graphic()) {
            return wrong("must not contain spaces, nor letters that are not of ASCII");
        }
        let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        if authority.contains('@') {
            return wrong("must not contain a user name");
        }
        if path.contains('#') {
            return wrong("must not contain a place within the page (#)");
        }
        let port = if secure { HTTPS_PORT } else { HTTP_PORT };
        let (host, port) = split_port(authority, port)?;
        Ok(Self {
            secure,
            host: check_host(host)?,
            port,
            path: match path.strip_prefix('/') {
                Some(_) => path.to_owned(),
                None => format!("/{path}"),
            },
        })
    }

    const fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// Host and port, as a request names them: without the port that belongs to the scheme.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match (self.secure, self.port) {
            (false, HTTP_PORT) | (true, HTTPS_PORT) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme(), self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_are_read_strictly() {
        let read = |text| {
            let url = Url::parse(text, "http://a/").unwrap();
            assert_eq!(Url::parse(&url.to_string(), "").as_ref(), Ok(&url));
            (url.secure, url.host, url.port, url.path)
        };
        let expected =
            |secure, host: &str, port, path: &str| (secure, host.into(), port, path.into());
        assert_eq!(
            read("http://[::1]:8080/a?b=c"),
            expected(false, "::1", 8080, "/a?b=c")
        );
        assert_eq!(
            read("https://[2001:db8::1]"),
            expected(true, "2001:db8::1", 443, "/")
        );
        assert_eq!(
            read("http://hook.example?x"),
            expected(false, "hook.example", 80, "/?x")
        );
        for (text, why) in [
            ("hook.example", "no URL"),
            ("ftp://hook.example", "no URL"),
            ("http://", "too short"),
            ("http://a:0/", "port"),
            ("http://a b/", "spaces"),
            ("http://a/ä", "ASCII"),
            ("http://u:p@a/", "user name"),
            ("http://a#b", "place"),
            ("http://[::1]x/", "after the bracket"),
            ("https://10.0.0.999/", "four numbers"),
        ] {
            let said = Url::parse(text, "http://a/").unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn a_port_that_goes_without_saying_is_not_said() {
        for (text, authority) in [
            ("http://a:80/", "a"),
            ("http://a:443/", "a:443"),
            ("https://[::1]:443/", "[::1]"),
            ("https://a:80/", "a:80"),
        ] {
            assert_eq!(Url::parse(text, "").unwrap().authority(), authority);
        }
    }

    proptest! {
        #[test]
        fn what_is_read_can_be_written_into_a_request(rest in "\\PC{0,30}", secure: bool) {
            let scheme = if secure { "https" } else { "http" };
            if let Ok(url) = Url::parse(&format!("{scheme}://{rest}"), "") {
                let line = format!("{} {}", url.authority(), url.path);
                prop_assert!(line.chars().all(|c| c == ' ' || c.is_ascii_graphic()));
                prop_assert_eq!(line.matches(' ').count(), 1);
                prop_assert_eq!(Url::parse(&url.to_string(), ""), Ok(url));
            }
        }
    }
}
