//! Tables for the state machine of one group.
