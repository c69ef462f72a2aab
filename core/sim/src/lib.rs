//! A seeded world that drives both ends of the protocol and knows the truth.
