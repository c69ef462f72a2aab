//! The ring, timestamped sockets, clocks, netlink and counters: the only home of `unsafe`.
