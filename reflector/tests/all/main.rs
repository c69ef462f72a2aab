//! The reflector as its users run it. One program, so that tests wait side by side.

#[path = "../common/mod.rs"]
mod common;

mod datagrams;
mod running;
mod service;
mod streams;
