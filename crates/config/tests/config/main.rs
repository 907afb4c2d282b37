//! Holds the configuration to its promises: what is refused, where the caret stands, what it says.

mod accepted;
mod cases;
mod examples;
mod files;
mod messages;
mod reference;
mod replay;
mod support;
