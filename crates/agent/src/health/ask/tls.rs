//! Shakes hands by TLS, and judges the certificate: by authorities where the check names them, and by its end.

use super::{CLOSED, Said};
use buoy_model::TlsCheck;
use buoy_wire::answer::certificate;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How to shake hands with one server.
#[derive(Debug)]
pub(crate) struct Handshake {
    tls: TlsCheck,
    name: Result<ServerName<'static>, String>,
    /// What the server must speak afterwards (ALPN); none: whatever it speaks.
    protocols: Vec<Vec<u8>>,
    /// Made when first needed, and again while it cannot be made: a missing file may come.
    config: OnceCell<Arc<ClientConfig>>,
}

impl Handshake {
    pub(crate) fn new(
        tls: &TlsCheck,
        host: Option<&str>,
        address: SocketAddr,
        protocols: &[&[u8]],
    ) -> Self {
        let name = host.map_or_else(|| Ok(ServerName::from(address.ip())), server_name);
        let protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Self { tls: tls.clone(), name, protocols, config: OnceCell::new() }
    }

    /// The secured stream, and what is to be said of the certificate.
    pub(crate) async fn shake(
        &self,
        stream: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Said), String> {
        let name = self.name.clone()?;
        let ca = self.tls.ca.as_deref();
        let config = self.config.get_or_try_init(async || configure(ca, &self.protocols)).await?;
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await;
        let stream = stream.map_err(|e| in_words(&e))?;
        let (_, session) = stream.get_ref();
        if let ([wanted, ..], None) = (self.protocols.as_slice(), session.alpn_protocol()) {
            let wanted = String::from_utf8_lossy(wanted);
            return Err(format!("TLS: the server does not offer {wanted} (ALPN)"));
        }
        let shown = session.peer_certificates().and_then(<[_]>::first);
        let end = shown.and_then(|certificate| certificate::end(certificate));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let warning = end.and_then(|end| warn(end, now.as_secs(), self.tls.warn));
        let urgent = warning.is_some();
        let warning = warning.unwrap_or_default();
        Ok((stream, Said { warning, urgent, ..Said::default() }))
    }
}

/// What to say of a certificate that ends at this second since 1970.
fn warn(end: i64, now: u64, within: Duration) -> Option<String> {
    const DAY: u64 = 24 * 3600;
    if within.is_zero() {
        return None;
    }
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let left = end.saturating_sub(now);
    match (u64::try_from(left), left.unsigned_abs()) {
        (Err(_), past) if past < 2 * DAY => {
            Some(format!("the certificate ended {} hours ago", past / 3600))
        }
        (Err(_), past) => Some(format!("the certificate ended {} days ago", past / DAY)),
        (Ok(left), _) if within.as_secs() < left => None,
        (Ok(left), _) if left < 2 * DAY => {
            Some(format!("the certificate ends in {} hours", left / 3600))
        }
        (Ok(left), _) => Some(format!("the certificate ends in {} days", left / DAY)),
    }
}

/// The name in the certificate: that of the `Host` header without a port, or an address.
fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return Ok(ServerName::from(address.ip()));
    }
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|b| b.is_ascii_digit()) { name } else { host }
    });
    ServerName::try_from(name.to_owned()).map_err(|_| format!("`{name}` is not a host name"))
}

fn in_words(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => "TLS: the certificate has ended".into(),
        // A signature that is wrong: an authority of that name is there, with another key.
        Some(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => "TLS: the certificate is not signed by an authority in `ca`".into(),
        Some(rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "TLS: the certificate is for another name".into(),
        Some(rustls::Error::InvalidMessage(_)) => "the answer is not TLS".into(),
        Some(other) => format!("TLS: {other}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof
            || error.kind() == io::ErrorKind::ConnectionReset =>
        {
            CLOSED.into()
        }
        None => format!("TLS: {error}"),
    }
}

fn configure(ca: Option<&str>, protocols: &[Vec<u8>]) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS cannot be set up: {e}"))?;
    let mut config = match ca {
        Some(file) => builder.with_root_certificates(authorities(file)?).with_no_client_auth(),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(algorithms)))
            .with_no_client_auth(),
    };
    config.alpn_protocols = protocols.to_vec();
    Ok(Arc::new(config))
}

fn authorities(file: &str) -> Result<RootCertStore, String> {
    let pem = std::fs::read(file).map_err(|e| format!("cannot read {file}: {e}"))?;
    let mut store = RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut pem.as_slice()) {
        let certificate = certificate.map_err(|e| format!("{file} is not a PEM file: {e}"))?;
        store.add(certificate).map_err(|e| format!("a certificate in {file} is unusable: {e}"))?;
    }
    if store.is_empty() {
        return Err(format!("{file} has no certificate in it"));
    }
    Ok(store)
}

/// Accepts whatever certificate a backend shows: without a `ca` the question is whether it
/// answers, not who it is. The handshake itself is verified.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_warned_of_within_the_time_and_not_before() {
        const DAY: i64 = 24 * 3600;
        const NOW: u64 = 1_700_000_000;
        let within = Duration::from_secs(14 * 24 * 3600);
        let table = [
            (15 * DAY, None),
            (14 * DAY + 1, None),
            (14 * DAY, Some("the certificate ends in 14 days")),
            (2 * DAY, Some("the certificate ends in 2 days")),
            (DAY, Some("the certificate ends in 24 hours")),
            (0, Some("the certificate ends in 0 hours")),
            (-7200, Some("the certificate ended 2 hours ago")),
            (-30 * DAY, Some("the certificate ended 30 days ago")),
        ];
        let now = i64::try_from(NOW).unwrap();
        for (left, expected) in table {
            let said = warn(now.saturating_add(left), NOW, within);
            assert_eq!(said.as_deref(), expected, "{left}");
            assert_eq!(warn(now.saturating_add(left), NOW, Duration::ZERO), None);
        }
        assert!(warn(i64::MIN, u64::MAX, within).is_some_and(|said| said.ends_with("days ago")));
        assert_eq!(warn(i64::MAX, 0, within), None);
    }

    #[test]
    fn the_name_of_a_server_is_that_of_its_host_header_without_the_port() {
        let table = [
            ("web.example:443", "web.example"),
            ("web.example", "web.example"),
            ("10.0.0.1:8443", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
        ];
        for (host, name) in table {
            let expected = ServerName::try_from(name.to_owned()).unwrap();
            assert_eq!(server_name(host), Ok(expected), "{host}");
        }
        assert!(server_name("a b").is_err());
    }
}
