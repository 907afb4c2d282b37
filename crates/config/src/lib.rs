//! Text to Desired: every problem at once, with line, column, reason and fix.
