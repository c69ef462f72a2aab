//! The world, and what is told of it. One program, so that tests wait side by side.

mod cable;
mod queueing;
mod scenarios;
mod services;
mod trains;
mod worlds;
