//! Lines that mostly wait, side by side: what fills the machine for seconds, or sees all of its process, has a program of
//! its own.

#[path = "../common/mod.rs"]
mod common;
#[path = "../../../reflector/tests/common/mod.rs"]
mod reflector;

mod carrier_nat;
mod end_to_end;
mod episodes;
mod services;
mod sessions;
mod shapes;
mod silence;
mod sizes;
mod stamp;
mod streams;
mod train;
