//! Gives an alert to a program or to an HTTP endpoint, once.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ureq::Agent;

use crate::tls::Roots;
use crate::url::Url;

/// An endpoint has this long to answer, a program to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where alerts are posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) url: Url,
    /// Whose certificate it may have.
    pub(crate) roots: Roots,
}

/// Without the path, in which a secret may be.
impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.url.host, self.url.port)
    }
}

impl Endpoint {
    /// Posts `json`.
    ///
    /// # Errors
    /// Why it did not arrive, in a sentence.
    pub(super) fn post(&self, json: &[u8]) -> Result<(), String> {
        // Alerts are rare: nothing is kept from one to the next.
        let agent: Agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .tls_config(self.roots.agent())
            .timeout_global(Some(PATIENCE))
            .user_agent(concat!("bufferbane/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        let answer = agent
            .post(self.url.to_string())
            .header("content-type", "application/json")
            .header("connection", "close")
            .send(json)
            .map_err(|e| format!("{self}: {e}"))?;
        let status = answer.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(format!("{self} answered {status}"))
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
    use std::io::Read;

    use super::*;
    use crate::tls::testing::{Authority, VALID, accept, listen};

    #[test]
    fn an_endpoint_of_https_has_to_show_who_it_is() {
        let (known, stranger) = (Authority::new(), Authority::new());
        let server = known.server("127.0.0.1", VALID);
        let (said_in, said) = std::sync::mpsc::channel();
        let at = listen(move |stream| {
            let mut stream = accept(&server, stream);
            let (mut bytes, mut part) = (Vec::new(), [0; 512]);
            while !bytes.ends_with(b"{\"a\":1}") {
                match stream.read(&mut part) {
                    Ok(len @ 1..) => bytes.extend_from_slice(&part[..len]),
                    // The client did not like the certificate.
                    _ => return,
                }
            }
            said_in.send(String::from_utf8(bytes).unwrap()).unwrap();
            stream
                .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                .unwrap();
        });
        let post = |roots| {
            let url = Url::parse(&format!("https://{at}/alerts"), "").unwrap();
            Endpoint { url, roots }.post(b"{\"a\":1}")
        };
        post(known.roots()).unwrap();
        let request = said.recv().unwrap();
        assert!(
            request.starts_with("POST /alerts HTTP/1.1\r\n"),
            "{request}"
        );
        for roots in [stranger.roots(), Roots::Public] {
            let said = post(roots).unwrap_err();
            let at = format!("127.0.0.1:{}: ", at.port());
            assert!(
                said.starts_with(&at) && said.contains("certificate"),
                "{said}"
            );
        }
        assert!(said.try_recv().is_err());
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
