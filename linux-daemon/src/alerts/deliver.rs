//! Gives an alert to a program or to an HTTP endpoint, once.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// An endpoint has this long for each step, a program to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most of an answer that is read, bytes.
const ANSWER: u64 = 4096;

/// Where alerts are posted: `http://HOST[:PORT][/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    host: String,
    port: u16,
    path: String,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Endpoint {
    /// # Errors
    /// What is wrong with the URL, and what is allowed.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let Some(rest) = url.strip_prefix("http://") else {
            return Err(if url.starts_with("https://") {
                format!(
                    "\"{url}\": this version speaks no TLS; write program = [\"curl\", \"--fail\", \
                     \"--silent\", \"--json\", \"@-\", \"{url}\"]"
                )
            } else {
                format!("\"{url}\" is no URL; write for example \"http://192.168.1.5:8080/alerts\"")
            });
        };
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let bad = |c: char| c.is_whitespace() || c.is_control();
        if url.contains(bad) || authority.contains('@') {
            return Err(format!(
                "\"{url}\" must not contain spaces or a user name; write for example \
                 \"http://192.168.1.5:8080/alerts\""
            ));
        }
        let (host, port) = crate::config::split_port(authority, 80)?;
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            path,
        })
    }

    /// Posts `json`.
    ///
    /// # Errors
    /// Why it did not arrive, in a sentence.
    pub(super) fn post(&self, json: &[u8]) -> Result<(), String> {
        let whole = |e: std::io::Error| format!("{self}: {e}");
        let address = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(whole)?
            .next()
            .ok_or_else(|| format!("{} has no address", self.host))?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(whole)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(whole)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(whole)?;
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        let mut request = format!(
            "POST {} HTTP/1.1\r\nHost: {host}:{}\r\nUser-Agent: bufferbane/{}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.path,
            self.port,
            env!("CARGO_PKG_VERSION"),
            json.len()
        )
        .into_bytes();
        request.extend_from_slice(json);
        stream.write_all(&request).map_err(whole)?;
        let mut answer = Vec::new();
        // The status line is enough; whatever ends the reading after it is no matter.
        let mut chunk = [0; 512];
        while answer.len() < ANSWER as usize && !answer.contains(&b'\n') {
            match stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => answer.extend_from_slice(&chunk[..n]),
                Err(e) => return Err(whole(e)),
            }
        }
        let line = answer.split(|b| *b == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let status: Option<u16> = line
            .strip_prefix("HTTP/1.")
            .and_then(|l| l.split(' ').nth(1))
            .and_then(|s| s.trim().parse().ok());
        match status {
            Some(200..=299) => Ok(()),
            Some(_) => Err(format!("{} answered {}", self.host, line.trim())),
            None => Err(format!("{} did not answer in HTTP", self.host)),
        }
    }
}

/// Runs `program` with `json` on its standard input.
///
/// # Errors
/// Why it did not do its work, in a sentence.
pub(super) fn run(program: &[String], json: &[u8]) -> Result<(), String> {
    let Some((name, arguments)) = program.split_first() else {
        return Err("no program is named".into());
    };
    let mut child = Command::new(name)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| format!("{name}: {e}"))?;
    // A program that does not read is told by how it ends.
    let fed = child.stdin.take().map(|mut input| {
        let json = json.to_vec();
        std::thread::spawn(move || input.write_all(&json))
    });
    let until = Instant::now() + PATIENCE;
    let end = loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => break Ok(()),
            Ok(Some(status)) => break Err(format!("{name} ended with {status}")),
            Ok(None) if Instant::now() >= until => {
                let _ = child.kill();
                let _ = child.wait();
                break Err(format!(
                    "{name} did not end within {} s",
                    PATIENCE.as_secs()
                ));
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
            Err(e) => break Err(format!("{name}: {e}")),
        }
    };
    // Its input is closed by now.
    drop(fed);
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_strictly() {
        let e = Endpoint::parse("http://[::1]:8080/a?b=c").unwrap();
        assert_eq!(
            (e.host.as_str(), e.port, e.path.as_str()),
            ("::1", 8080, "/a?b=c")
        );
        let e = Endpoint::parse("http://hook.example").unwrap();
        assert_eq!((e.port, e.path.as_str()), (80, "/"));
        for (url, why) in [
            ("https://hook.example/x", "curl"),
            ("hook.example", "no URL"),
            ("http://a:0/", "port"),
            ("http://a b/", "spaces"),
        ] {
            let said = Endpoint::parse(url).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn a_program_gets_the_alert_and_its_end_counts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("got");
        let sh = |script: String| ["sh".to_owned(), "-c".to_owned(), script];
        run(&sh(format!("cat > {}", file.display())), b"{\"a\":1}").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"{\"a\":1}");
        let said = run(&sh("exit 3".into()), b"{}").unwrap_err();
        assert!(said.contains("exit status: 3"), "{said}");
        assert!(run(&["/no/such/program".to_owned()], b"{}").is_err());
    }
}
