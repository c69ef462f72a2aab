//! The daemon as its users run it. One program, so that tests wait side by side.

mod common;

mod killed;
mod links;
mod metrics;
mod moves;
mod remote_write;
mod schedule;
mod service;
mod throughput;
