//! Seeded simulator of whole clusters over core and wire, with checkers and replay.
