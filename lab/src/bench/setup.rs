//! Configurations, keys and directories for the services as processes of their own.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bufferbane_config::keyfile;
use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use serde_json::Value;
use tempfile::TempDir;

use super::Fail;
use super::child::{Program, ours};
use crate::netns::Namespace;

/// How long a service may take to become ready.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a reflector of a benchmark is for.
#[derive(Clone, Copy, Debug)]
pub struct Reflecting {
    /// How many clients; their keys are [`key_number`] from 0 on.
    pub clients: usize,
    /// Sessions of each.
    pub sessions_each: usize,
    /// Whether the kernel stamps echoes as they leave, which is how it is shipped.
    pub transmit_stamps: bool,
}

/// A temporary directory with one key in it.
#[derive(Debug)]
pub struct Bench {
    dir: TempDir,
}

impl Bench {
    /// Makes one.
    ///
    /// # Errors
    /// What cannot be written.
    pub fn new() -> Result<Self, Fail> {
        let dir = tempfile::Builder::new()
            .prefix("bufferbane-lab-")
            .tempdir()
            .map_err(|e| Fail::of("a temporary directory", e))?;
        let bench = Self { dir };
        keyfile::write_new(&bench.path("lab.key"), &key()).map_err(|e| Fail::of("lab.key", e))?;
        Ok(bench)
    }

    /// The path of `name` within.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the reflector of this project, which listens at `listen` and knows [`key`].
    ///
    /// # Errors
    /// Where it does not become ready.
    pub fn reflector(
        &self,
        listen: SocketAddr,
        inside: Option<&Namespace>,
        cpu: Option<usize>,
    ) -> Result<Program, Fail> {
        let client = "[[client]]\nname = \"lab\"\nkey_file = \"lab.key\"\nmax_pps = 1000000\n";
        self.reflector_with(listen, client, inside, cpu)
    }

    /// Starts the same with room for `what`; in `inside`, where there is one, and on `cpu`, where given.
    ///
    /// # Errors
    /// Where it does not become ready.
    pub fn reflector_for(
        &self,
        listen: SocketAddr,
        what: Reflecting,
        inside: Option<&Namespace>,
        cpu: Option<usize>,
    ) -> Result<Program, Fail> {
        let sessions = what.clients * what.sessions_each;
        let mut text = format!(
            "transmit_stamps = {}\n[limits]\nsessions = {sessions}\nsessions_per_client = {}\n",
            what.transmit_stamps, what.sessions_each
        );
        for i in 0..what.clients {
            let file = self.path(&format!("{i}.key"));
            if !file.exists() {
                keyfile::write_new(&file, &key_number(i)).map_err(|e| Fail::of("a key file", e))?;
            }
            text.push_str(&format!(
                "[[client]]\nname = \"client{i}\"\nkey_file = \"{i}.key\"\nmax_pps = 1000000\n"
            ));
        }
        self.reflector_with(listen, &text, inside, cpu)
    }

    fn reflector_with(
        &self,
        listen: SocketAddr,
        rest: &str,
        inside: Option<&Namespace>,
        cpu: Option<usize>,
    ) -> Result<Program, Fail> {
        let text = format!(
            "[reflector]\nlisten = [\"{listen}\"]\ncontrol_socket = \"{}\"\n{rest}",
            self.path("reflector.sock").display()
        );
        self.service("bufferbane-reflector", &text, inside, cpu, "reflector.sock")
    }

    /// Starts the daemon of this project. `text` is its configuration without the store and the
    /// control socket.
    ///
    /// # Errors
    /// Where it does not become ready.
    pub fn daemon(&self, text: &str, inside: Option<&Namespace>) -> Result<Program, Fail> {
        let text = self.daemon_text(text);
        self.service("bufferbaned", &text, inside, None, "daemon.sock")
    }

    /// Writes the same configuration for a daemon that is started in another way.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn daemon_file(&self, text: &str) -> Result<PathBuf, Fail> {
        let file = self.path("bufferbaned.toml");
        std::fs::write(&file, self.daemon_text(text)).map_err(|e| Fail::of(file.display(), e))?;
        Ok(file)
    }

    fn daemon_text(&self, text: &str) -> String {
        format!(
            "daemon.store = \"{}\"\ndaemon.control_socket = \"{}\"\n{text}",
            self.store().display(),
            self.path("daemon.sock").display()
        )
    }

    /// The store of the daemon.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path("store.redb")
    }

    /// Asks the service behind the control socket `socket` for its status.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn status(&self, socket: &str) -> Result<Value, Fail> {
        let failed = |e: &dyn std::fmt::Display| Fail::of(format!("status over {socket}"), e);
        let mut stream = UnixStream::connect(self.path(socket)).map_err(|e| failed(&e))?;
        let patience = stream.set_read_timeout(Some(PATIENCE));
        patience
            .and_then(|()| stream.write_all(b"{\"cmd\":\"status\"}\n"))
            .map_err(|e| failed(&e))?;
        let mut line = String::new();
        BufReader::new(stream)
            .read_line(&mut line)
            .map_err(|e| failed(&e))?;
        serde_json::from_str(&line).map_err(|e| failed(&e))
    }

    fn service(
        &self,
        name: &str,
        text: &str,
        inside: Option<&Namespace>,
        cpu: Option<usize>,
        socket: &str,
    ) -> Result<Program, Fail> {
        let file = self.path(&format!("{name}.toml"));
        std::fs::write(&file, text).map_err(|e| Fail::of(file.display(), e))?;
        let log = self.path(&format!("{name}.log"));
        let args = ["--config".as_ref(), file.as_os_str()];
        let mut program = Program::start(&ours(name)?, &args, inside, cpu, &log)?;
        wait_until(|| !program.runs() || UnixStream::connect(self.path(socket)).is_ok());
        if program.runs() && UnixStream::connect(self.path(socket)).is_ok() {
            return Ok(program);
        }
        Err(Fail::of(
            format!("{name} did not become ready"),
            last_line(&log),
        ))
    }
}

/// The key in a bench's directory. It opens nothing but what runs for the benchmark.
#[must_use]
pub fn key() -> PresharedKey {
    PresharedKey {
        id: KeyId(*b"benchmrk"),
        secret: Secret::new([42; 32]),
    }
}

/// The key of client `number` where there are many.
#[must_use]
pub fn key_number(number: usize) -> PresharedKey {
    let mut id = *b"bench000";
    id[4..].copy_from_slice(&(number as u32).to_be_bytes());
    let mut secret = [42; 32];
    secret[..8].copy_from_slice(&(number as u64).to_be_bytes());
    PresharedKey {
        id: KeyId(id),
        secret: Secret::new(secret),
    }
}

/// Waits until `done` says so, or patience is at its end.
pub fn wait_until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE && !done() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A UDP port of this host's loopback that nobody has at present.
///
/// # Errors
/// Where there is none.
pub fn free_port() -> Result<u16, Fail> {
    UdpSocket::bind(("127.0.0.1", 0))
        .and_then(|s| s.local_addr())
        .map(|a| a.port())
        .map_err(|e| Fail::of("a free UDP port", e))
}

/// What a program said last.
#[must_use]
pub fn last_line(log: &Path) -> String {
    std::fs::read_to_string(log)
        .ok()
        .and_then(|t| t.lines().last().map(str::to_owned))
        .unwrap_or_else(|| "it said nothing".to_owned())
}
