//! Userspace forwarding of TCP and UDP, with the PROXY protocol.
