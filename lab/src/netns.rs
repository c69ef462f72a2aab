//! Network namespaces, made and removed by name.

use std::fs::File;
use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace; it is removed when this is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one, with its loopback up. Needs root.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn new(role: &str) -> io::Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("bb{}-{number}-{role}", std::process::id());
        run("ip", &["netns", "add", &name])?;
        let ns = Self { name };
        ns.ip(&["link", "set", "lo", "up"])?;
        Ok(ns)
    }

    /// Its name, as `ip netns` has it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` inside.
    ///
    /// # Errors
    /// What it said.
    pub fn ip(&self, args: &[&str]) -> io::Result<()> {
        run("ip", &[&["-n", &self.name], args].concat())
    }

    /// Runs a program inside.
    ///
    /// # Errors
    /// What it said.
    pub fn run(&self, program: &str, args: &[&str]) -> io::Result<()> {
        run(
            "ip",
            &[&["netns", "exec", &self.name, program], args].concat(),
        )
    }

    /// Joins this two namespaces by a virtual cable: `here` in this one, `there` in `other`. Nothing
    /// is offloaded, so that packets on it are what they would be on a wire.
    ///
    /// # Errors
    /// What `ip` or `ethtool` said.
    pub fn cable(&self, here: &str, other: &Self, there: &str) -> io::Result<()> {
        self.ip(&[
            "link",
            "add",
            here,
            "type",
            "veth",
            "peer",
            "name",
            there,
            "netns",
            &other.name,
        ])?;
        for (ns, name) in [(self, here), (other, there)] {
            ns.run(
                "ethtool",
                &[
                    "-K", name, "tx", "off", "gso", "off", "gro", "off", "tso", "off",
                ],
            )?;
            ns.ip(&["link", "set", name, "up"])?;
        }
        Ok(())
    }

    /// Runs `work` on a thread of its own inside; threads that it starts are inside too.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        let file = File::open(format!("/run/netns/{}", self.name))?;
        let (entered_in, entered) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            let result = setns(&file, CloneFlags::CLONE_NEWNET);
            let failed = result.is_err();
            // The one who waits for this is on the other side of the channel.
            let _ = entered_in.send(result);
            if failed {
                // Never work in the wrong namespace.
                loop {
                    std::thread::park();
                }
            }
            work()
        });
        match entered.recv() {
            Ok(Ok(())) => Ok(thread),
            Ok(Err(e)) => Err(e.into()),
            Err(_) => Err(io::Error::other("the thread ended at once")),
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(e) = run("ip", &["netns", "delete", &self.name]) {
            eprintln!("namespace {} stays behind: {e}", self.name);
        }
    }
}

/// Whether namespaces can be made here.
#[must_use]
pub fn possible() -> bool {
    nix::unistd::geteuid().is_root() && Namespace::new("try").is_ok()
}

fn run(program: &str, args: &[&str]) -> io::Result<()> {
    let output = Command::new(program).args(args).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "{program} {}: {}",
        args.join(" "),
        said.trim()
    )))
}
