//! The test lab: network namespaces, and a link between them that writes down what it did.
//!
//! ```text
//! client namespace          middle namespace            server namespace
//!   wan0 ──veth── c0 ══ Link: delay, rate, loss ══ s0 ──veth── lan0
//!   wan1 ──veth── c1 ══ Link                      ══ s1 ──veth── lan1
//! ```

pub mod bench;
pub mod emulate;
pub mod endurance;
pub mod home;
pub mod link;
pub mod matching;
pub mod netns;
mod offload;
pub mod services;
pub mod synth;
mod userns;

/// Says loudly that a test is left out, and why; in CI that is a failure.
///
/// # Panics
/// Where the environment has `CI`.
pub fn skip(why: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "in CI no test is skipped: {why}"
    );
    // Not by a macro, whose output a passing test keeps to itself.
    let _ = std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("SKIPPED: {why}\n").as_bytes(),
    );
}
