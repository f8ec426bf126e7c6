//! Pools on real SQLite files.
