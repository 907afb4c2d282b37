//! What servers answer when they are asked whether they are well: bytes to a verdict in words.
//!
//! For protocols that no library reads here; HTTP and TLS are read by theirs. Where the bytes come from, how many of
//! them are taken, and how long one waits for them is decided by who asks.

pub mod certificate;
pub mod dns;
pub mod echo;
pub mod grpc;
pub mod lines;
pub mod mysql;
pub mod postgres;
pub mod segment;
pub mod text;

use alloc::string::String;

/// Characters of an answer that are shown to people.
const SHOWN_MAX: usize = 80;

/// What a right answer says besides that it is right.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Said {
    /// What people should know, in words; mostly nothing.
    pub warning: String,
    /// Whether that is of something that will break if nobody acts.
    pub urgent: bool,
    /// The share of its weight that the server takes, in percent.
    pub share: u16,
    /// How loaded the server says that it is, in percent.
    pub load: Option<u8>,
}

impl Default for Said {
    fn default() -> Self {
        Self { warning: String::new(), urgent: false, share: WHOLE_SHARE, load: None }
    }
}

/// The share of a server that says nothing of it.
pub const WHOLE_SHARE: u16 = 100;

/// `Err` says what is wrong.
pub type Answer = Result<Said, String>;

/// What a server said, fit for people.
pub fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * SHOWN_MAX)]);
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.trim().chars().take(SHOWN_MAX).collect()
}
