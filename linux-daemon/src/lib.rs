//! The daemon: probes from every bound interface, records, and keeps watch.
