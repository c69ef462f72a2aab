//! `bbtool` as its users run it. One program, so that tests wait side by side.

mod common;

#[cfg(feature = "demo")]
mod beside;
mod boots;
mod cable;
mod exports;
#[cfg(feature = "demo")]
mod first_contact;
mod formats;
mod page;
mod path;
mod program;
