//! Other hosts on cables to this one, and a daemon that probes through them.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{PATIENCE, Place, Service, inside_namespaces, ip};

/// Another host: a network namespace that lasts as long as a process in it.
pub struct Host(pub Child);

impl Host {
    pub fn new() -> Self {
        let child = Command::new("unshare")
            .args(["--net", "sleep", "600"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let begin = Instant::now();
        while namespace(&child.id().to_string()) == namespace("self") {
            assert!(begin.elapsed() < PATIENCE, "no namespace");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self(child)
    }

    pub fn ip(&self, arguments: &str) {
        let pid = self.0.id().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid, "--net", "ip"]);
        let status = command.args(arguments.split(' ')).status();
        assert!(status.is_ok_and(|s| s.success()), "ip {arguments}");
    }

    pub fn run(&self, script: &str) {
        let pid = self.0.id().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid, "--net", "sh", "-c", script]);
        let status = command.status();
        assert!(status.is_ok_and(|s| s.success()), "{script}");
    }

    /// Passes on what is not for itself.
    pub fn forward(&self) {
        self.run(
            "echo 1 > /proc/sys/net/ipv4/ip_forward\n\
             echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
        );
    }

    /// A way from this host to another, `out` here and `in` there, behind which is the rest of the world. Both pass on
    /// what is not for themselves.
    pub fn provider(&self, isp: &Self) {
        let other = isp.0.id();
        self.ip(&format!(
            "link add out type veth peer name in netns {other}"
        ));
        self.ip("link set out up");
        isp.ip("link set in up");
        isp.ip("link add world type veth peer name beyond");
        isp.ip("link set world up");
        isp.ip("link set beyond up");
        self.forward();
        isp.forward();
    }

    /// A cable from interface `here` to this host, with an address at both ends.
    pub fn plug(&self, here: &str, own: &str, far: &str) {
        ip(&format!(
            "link add {here} type veth peer name far netns {}",
            self.0.id()
        ));
        self.ip(&format!("addr add {far}/24 dev far"));
        self.ip("link set far up");
        ip(&format!("addr add {own}/24 dev {here}"));
        ip(&format!("link set {here} up"));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In the copy of the named test that runs in namespaces (see [`inside_namespaces`]): the host at 10.9.0.1, on a cable from
/// `up0`, which is 10.9.0.2 here.
pub fn plugged(module: &str, test: &str) -> Option<Host> {
    if !inside_namespaces(module, test) {
        return None;
    }
    ip("link set lo up");
    let far = Host::new();
    far.plug("up0", "10.9.0.2", "10.9.0.1");
    Some(far)
}

/// A daemon that probes these targets through `up0` and is ready.
pub fn through_up0(targets: &[(&str, &str)]) -> (Place, Service) {
    let place = Place::new();
    configure(&place, "name = \"up0\"\n", targets);
    let service = place.start().ready();
    (place, service)
}

/// The daemon's own store, `up0` as its only interface, and these targets.
pub fn configure(place: &Place, interface: &str, targets: &[(&str, &str)]) {
    let mut text = place.head().replace("name = \"lo\"\n", interface);
    for (name, address) in targets {
        text += &format!(
            "[[target]]\nname = \"{name}\"\nkind = \"icmp\"\naddress = \"{address}\"\n\
             interval = \"10ms\"\n"
        );
    }
    place.configure(&text);
}

/// What the daemon says of that target's one series, where it has one.
pub fn series<'a>(status: &'a Value, target: &str) -> Option<&'a Value> {
    let mut all = status["series"].as_array().unwrap().iter();
    all.find(|s| s["target"] == target)
}

pub fn total(status: &Value, target: &str, count: &str) -> u64 {
    series(status, target).map_or(0, |s| s["total"][count].as_u64().unwrap())
}
