//! Gives an alert to a program or to an HTTP endpoint, once.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
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
    run_within(program, json, PATIENCE)
}

fn run_within(program: &[String], json: &[u8], patience: Duration) -> Result<(), String> {
    let Some((name, arguments)) = program.split_first() else {
        return Err("no program is named".into());
    };
    let mut child = Command::new(name)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // So that what it starts can be ended with it.
        .process_group(0)
        .spawn()
        .map_err(|e| format!("{name}: {e}"))?;
    // A program that does not read is told by how it ends.
    let fed = child.stdin.take().map(|mut input| {
        let json = json.to_vec();
        std::thread::spawn(move || input.write_all(&json))
    });
    let until = Instant::now() + patience;
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => break Ok(()),
            Ok(Some(status)) => break Err(format!("{name} ended with {status}")),
            Ok(None) if Instant::now() >= until => {
                end(&mut child);
                break Err(format!(
                    "{name} did not end within {} s",
                    patience.as_secs()
                ));
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
            Err(e) => break Err(format!("{name}: {e}")),
        }
    };
    // Its input is closed by now.
    drop(fed);
    ended
}

/// Ends a program that hangs, with all that it started: of a script that is ended alone, what it waits for stays.
fn end(child: &mut Child) {
    // It has not been waited for, so its number, and that of its group, are nobody else's. It may have ended just now.
    let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    let _ = child.wait();
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

    /// Otherwise each try would leave one more.
    #[test]
    fn a_program_that_hangs_is_ended_with_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", file.display());
        let program = ["sh".to_owned(), "-c".to_owned(), script];
        // Long enough for it to have come so far, on any machine.
        let said = run_within(&program, b"{}", Duration::from_secs(3)).unwrap_err();
        assert_eq!(said, "sh did not end within 3 s");
        let pid: u32 = std::fs::read_to_string(&file)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let is_gone = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            // It may wait to be reaped by whoever inherits it.
            Ok(stat) => stat.rsplit(") ").next().is_some_and(|s| s.starts_with('Z')),
            Err(_) => true,
        };
        let until = Instant::now() + Duration::from_secs(20);
        while !is_gone() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(is_gone(), "{pid} runs on");
    }
}
