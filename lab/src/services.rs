//! A reflector and a daemon on threads of this process, at the two ends of a line.

use std::net::SocketAddr;
use std::path::PathBuf;

use bufferbane_config::keyfile;
use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_reflector::Running;
use bufferbane_reflector::config::{Client, Config};
use bufferbaned::Daemon;
use tempfile::TempDir;

use crate::bench::Fail;
use crate::netns::Namespace;

/// What the daemon's configuration calls the file of its key.
pub const KEY_FILE: &str = "lab.key";
/// It opens nothing but what runs for a test.
const KEY: PresharedKey = PresharedKey {
    id: KeyId(*b"services"),
    secret: Secret::new([5; 32]),
};

/// Both, until they are stopped.
pub struct Services {
    // The daemon ends before what it speaks to.
    daemon: Daemon,
    reflector: Running,
    dir: TempDir,
}

impl Services {
    /// Starts a reflector in `server` that listens at `listen` and lets one client send 1000 packets a
    /// second, and then a daemon in `client`. `text` is the daemon's configuration, in which its key is
    /// [`KEY_FILE`], but for the store and the control socket.
    ///
    /// # Errors
    /// What is wrong with `text`, or did not start.
    pub fn start(
        client: &Namespace,
        server: &Namespace,
        listen: SocketAddr,
        text: &str,
    ) -> Result<Self, Fail> {
        let far = Config {
            listen: vec![listen],
            control_socket: None,
            clients: vec![Client {
                name: "home".into(),
                keys: vec![KEY],
                max_pps: 1000,
                max_rate_bps: None,
                daily_bytes: None,
                tcp_prefixes: Vec::new(),
            }],
            ..Config::default()
        };
        let started = within(server, move || Running::start(&far))?;
        let reflector = started.map_err(|e| Fail::of("the reflector", e))?;
        let dir = tempfile::Builder::new()
            .prefix("bufferbane-lab-")
            .tempdir()
            .map_err(|e| Fail::of("a temporary directory", e))?;
        keyfile::write_new(&dir.path().join(KEY_FILE), &KEY).map_err(|e| Fail::of(KEY_FILE, e))?;
        let loaded = bufferbaned::config::parse("lab.toml", text, dir.path());
        let loaded = loaded.map_err(|mistakes| {
            let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            Fail::of("the configuration", mistakes.join("; "))
        });
        let mut config = loaded?.config;
        config.store = dir.path().join("store.redb");
        config.control_socket = dir.path().join("daemon.sock");
        config.keep.min_free_bytes = 0;
        let started = within(client, move || Daemon::start(config, None))?;
        let daemon = started.map_err(|e| Fail::of("the daemon", e))?;
        Ok(Self {
            daemon,
            reflector,
            dir,
        })
    }

    /// The daemon's control socket.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.dir.path().join("daemon.sock")
    }

    /// Stops the daemon, and then the reflector.
    ///
    /// # Errors
    /// Where the reflector had failed before.
    pub fn stop(mut self) -> Result<Recorded, Fail> {
        self.daemon.stop();
        self.reflector
            .stop()
            .map_err(|e| Fail::of("the reflector", e))?;
        Ok(Recorded(self.dir))
    }
}

/// What a daemon has left, as long as this lives.
#[derive(Debug)]
pub struct Recorded(TempDir);

impl Recorded {
    /// Its store, closed.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.0.path().join("store.redb")
    }
}

fn within<T: Send + 'static>(
    place: &Namespace,
    start: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fail> {
    let starting = place
        .spawn(start)
        .map_err(|e| Fail::of("entering a namespace", e))?;
    let started = starting.join();
    started.map_err(|_| Fail::Failed("what was to start panicked".into()))
}
