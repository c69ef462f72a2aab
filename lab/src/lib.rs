//! The test lab: link emulator, namespaces, scenarios and benchmarks.
