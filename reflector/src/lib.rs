//! The reflector: sealed echo with kernel timestamps.
