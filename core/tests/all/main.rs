//! What `core` says outside of it. One program, so that tests wait side by side.

mod documented;
mod trains;
mod vectors;
