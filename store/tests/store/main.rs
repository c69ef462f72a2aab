//! The store as its users see it: written in batches, read beside the writer, killed, refused.

#[path = "../common/mod.rs"]
mod common;

mod ends;
mod floors;
mod full;
mod lines;
mod list;
mod reading;
mod retention;
mod revisions;
mod rollups;
