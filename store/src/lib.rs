//! The redb store: packed blocks, rollups, retention, recovery and queries.
