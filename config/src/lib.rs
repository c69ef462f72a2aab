//! Strict TOML reading: every error at once, with file, line, column, key and remedy.
