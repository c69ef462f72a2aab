//! The configuration, taken over while the daemon runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, SyncSender};

use bufferbane_linux_io::clock;
use bufferbane_store::Severity;

use crate::config::{self, Config};
use crate::keeper::Request;
use crate::load::Tests;
use crate::recorder::{Fact, Order, Settings};
use crate::remote::Remotes;
use crate::scout::Way;

/// What of the configuration takes a restart to change, as it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fixed {
    store: PathBuf,
    control_socket: PathBuf,
    http: Option<SocketAddr>,
}

impl Fixed {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            store: config.store.clone(),
            control_socket: config.control_socket.clone(),
            http: config.http,
        }
    }

    /// Puts what is in force into `config`; gives the keys that said otherwise.
    fn keep(&self, config: &mut Config) -> Vec<&'static str> {
        let new = Self::of(config);
        config.store.clone_from(&self.store);
        config.control_socket.clone_from(&self.control_socket);
        config.http = self.http;
        let changed = [
            ("daemon.store", new.store != self.store),
            (
                "daemon.control_socket",
                new.control_socket != self.control_socket,
            ),
            ("http.listen", new.http != self.http),
        ];
        let changed = changed.iter().filter(|(_, changed)| *changed);
        changed.map(|(key, _)| *key).collect()
    }
}

/// Takes over what the configuration says now.
#[derive(Clone)]
pub(crate) struct Reloader {
    pub(crate) fixed: Fixed,
    /// Where it is read; `None` where nothing can be read again.
    pub(crate) file: Option<PathBuf>,
    pub(crate) orders: SyncSender<Order>,
    pub(crate) requests: Sender<Request>,
    pub(crate) tests: Tests,
    pub(crate) remotes: Remotes,
}

impl Reloader {
    /// Reads the file again, and goes on with what it says.
    ///
    /// # Errors
    /// What is wrong with it; the old configuration goes on then.
    pub(crate) fn reload(&self) -> Result<(), String> {
        let Some(file) = &self.file else {
            return Err("there is no configuration file to read again".into());
        };
        let loaded = config::load(file).map_err(|mistakes| mistakes.join("\n"))?;
        for w in &loaded.warnings {
            log::warn!("{w}");
        }
        let fact = Fact {
            values: Vec::new(),
            kind: "config_reload",
            severity: Severity::Info,
            interface: String::new(),
            target: None,
            text: format!("{} was read again", file.display()),
        };
        let _ = self.orders.send(Order::Moment(clock::now(), fact));
        self.take(loaded.config)
    }

    /// Goes on with `config`, but for what takes a restart, which is said.
    ///
    /// # Errors
    /// When the daemon is ending.
    pub(crate) fn take(&self, mut config: Config) -> Result<(), String> {
        for key in self.fixed.keep(&mut config) {
            log::warn!("{key} has changed: that takes a restart");
        }
        let ending = "the daemon is ending";
        self.orders
            .send(Order::Settings(Box::new(settings(&config))))
            .map_err(|_| ending)?;
        self.tests.set((&config).into());
        self.set_remotes(&config);
        self.requests
            .send(Request::Config(Box::new(config)))
            .map_err(|_| ending)?;
        Ok(())
    }

    /// Pushes metrics where `config` says.
    pub(crate) fn set_remotes(&self, config: &Config) {
        let min_free_bytes = config.keep.min_free_bytes;
        self.remotes
            .set(&config.remote_write, &config.store, min_free_bytes);
    }
}

/// What of the configuration the recorder works with.
pub(crate) fn settings(config: &Config) -> Settings {
    Settings {
        store: config.store.clone(),
        commit_interval_ns: config.commit_interval_ns,
        keep: config.keep,
        zone: config.zone(),
        alerts: config.alerts.clone(),
        sees_household: config
            .interfaces
            .iter()
            .filter_map(|i| Some((i.name.clone(), i.sees_household?)))
            .collect(),
        cables: config
            .interfaces
            .iter()
            .filter(|i| i.is_cable)
            .map(|i| i.name.clone())
            .collect(),
        uplinks: config
            .interfaces
            .iter()
            .map(|i| (i.name.clone(), Way::of(i)))
            .collect(),
        close_looks: config.close_looks,
    }
}
