//! Where the spans of takeovers are sent to.

use alloc::string::String;

/// `[traces]`: a collector of OpenTelemetry's spans, by OTLP over HTTP.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Traces {
    /// Its host, a name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The path that takes spans.
    pub path: String,
    /// The authorities that sign its certificate, a PEM file; `None`: there is no TLS.
    pub ca: Option<String>,
}
