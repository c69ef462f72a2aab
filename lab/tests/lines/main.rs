//! Lines that mostly wait, side by side: what needs the machine's cores to itself has a program of its own.

#[path = "../common/mod.rs"]
mod common;
#[path = "../../../reflector/tests/common/mod.rs"]
mod reflector;

mod carrier_nat;
mod episodes;
mod services;
mod sessions;
mod silence;
mod sizes;
mod stamp;
mod streams;
