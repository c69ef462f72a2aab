//! The engine on real sockets. One program, so that tests wait side by side.

#[path = "../common/mod.rs"]
mod common;

mod admission;
mod icmp;
mod joined;
mod namespace;
mod once;
mod udp_echo;
