//! Network namespaces. Each lives as long as its [`Namespace`] and has no name in the file system, so
//! nothing stays behind however this process ends.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns, unshare};

use crate::offload;
pub use crate::userns::possible;

/// A network namespace; it is gone when this is dropped and what runs inside has ended.
#[derive(Debug)]
pub struct Namespace {
    role: String,
    file: File,
}

impl Namespace {
    /// Makes one, with its loopback up. Needs root, if only that of a user namespace; see
    /// [`possible`].
    ///
    /// # Errors
    /// What could not be done.
    pub fn new(role: &str) -> io::Result<Self> {
        let made = std::thread::spawn(|| -> io::Result<File> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        let file = made
            .join()
            .map_err(|_| io::Error::other("the thread panicked"))?
            .map_err(|e| io::Error::other(format!("a network namespace for the {role}: {e}")))?;
        let ns = Self {
            role: role.to_owned(),
            file,
        };
        ns.ip(&["link", "set", "lo", "up"])?;
        Ok(ns)
    }

    /// The file that is this namespace as long as this process lives; `nsenter --net=PATH` enters.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// A program that will run inside.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let fd = self.file.as_raw_fd();
        let enter = move || {
            // SAFETY: the namespace's file is not closed before the command is started: commands are
            // started while their namespace is there, and in the child every descriptor is the
            // parent's until the program begins.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            setns(fd, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
        };
        // SAFETY: all that happens between fork and exec is one system call, without allocation.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs `ip` inside.
    ///
    /// # Errors
    /// What it said, or that it is missing.
    pub fn ip(&self, args: &[&str]) -> io::Result<()> {
        self.run("ip", args)
    }

    /// Runs a program inside to its end.
    ///
    /// # Errors
    /// What it said, or that it is missing.
    pub fn run(&self, program: &str, args: &[&str]) -> io::Result<()> {
        let what = || {
            format!(
                "{program} {} (in the {}'s namespace)",
                args.join(" "),
                self.role
            )
        };
        let output = self.command(program).args(args).output().map_err(|e| {
            let remedy = match e.kind() {
                io::ErrorKind::NotFound if program == "ip" => {
                    "; the program \"ip\" is not installed or not in PATH: install iproute2"
                }
                io::ErrorKind::NotFound => "; it is not installed or not in PATH",
                _ => "",
            };
            io::Error::new(e.kind(), format!("{}: {e}{remedy}", what()))
        })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("{}: {}", what(), said.trim())))
    }

    /// Joins this two namespaces by a virtual cable: `here` in this one, `there` in `other`. Nothing
    /// is offloaded, so that packets on it are what they would be on a wire.
    ///
    /// # Errors
    /// What `ip` or the kernel said.
    pub fn cable(&self, here: &str, other: &Self, there: &str) -> io::Result<()> {
        self.cable_offloading(here, other, there)?;
        for (ns, name) in [(self, here), (other, there)] {
            let interface = name.to_owned();
            ns.inside(move || offload::switch_off(&interface))??;
        }
        Ok(())
    }

    /// The same with the offloads that the kernel gives it: segments pass whole, as they do between a
    /// program and an interface that segments in hardware.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn cable_offloading(&self, here: &str, other: &Self, there: &str) -> io::Result<()> {
        let path = other.path();
        self.ip(&[
            "link", "add", here, "type", "veth", "peer", "name", there, "netns", &path,
        ])?;
        for (ns, name) in [(self, here), (other, there)] {
            ns.ip(&["link", "set", name, "up"])?;
        }
        Ok(())
    }

    /// Lets packets pass from one interface to another, over IPv4 and IPv6.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn forward(&self) -> io::Result<()> {
        // A thread that is inside sees this namespace's settings.
        self.inside(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")
        })?
    }

    /// Does `work` inside and waits for it.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or `work` panics.
    pub fn inside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        self.spawn(work)?.join().map_err(|_| {
            io::Error::other(format!(
                "a thread in the {}'s namespace panicked",
                self.role
            ))
        })
    }

    /// Runs `work` on a thread of its own inside; threads that it starts are inside too.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        let file = self.file.try_clone()?;
        let (entered_in, entered) = mpsc::sync_channel(1);
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
