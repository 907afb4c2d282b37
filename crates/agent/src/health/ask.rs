//! Asks one server once: a TCP handshake, or an HTTP/1.1 GET with or without TLS.
//!
//! The caller limits the time and drops the question; here the size of an answer is limited. Only
//! the status line and the headers are read. What is wrong comes back in words for people.

use buoy_model::CheckKind;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

/// Bytes of the head of an answer; the least that the HTTP library allows.
const HEAD_MAX: usize = 8192;

/// The question for one server.
#[derive(Debug)]
pub(crate) struct Asker {
    kind: CheckKind,
    address: SocketAddr,
    /// Made when first needed, and again while it cannot be made: a missing file may come.
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Asker {
    pub(crate) fn new(kind: &CheckKind, address: SocketAddr) -> Self {
        Self { kind: kind.clone(), address, tls: OnceCell::new() }
    }

    /// `Err` says what is wrong.
    pub(crate) async fn ask(&self) -> Result<(), String> {
        let stream = TcpStream::connect(self.address).await.map_err(|e| explain(&e))?;
        match &self.kind {
            CheckKind::Tcp => Ok(()),
            CheckKind::Http { path, host, tls, ca, expect } => {
                let host = host.clone().unwrap_or_else(|| self.address.to_string());
                let status = if *tls {
                    let config = self.tls.get_or_try_init(async || configure(ca.as_deref()));
                    let connector = TlsConnector::from(Arc::clone(config.await?));
                    let name = server_name(&host, self.address)?;
                    let secured = connector.connect(name, stream).await;
                    get(secured.map_err(|e| format!("TLS: {e}"))?, path, &host).await?
                } else {
                    get(stream, path, &host).await?
                };
                judge(status, *expect)
            }
        }
    }
}

fn judge(status: StatusCode, expect: Option<u16>) -> Result<(), String> {
    let passed = match expect {
        Some(expect) => status.as_u16() == expect,
        None => status.is_success() || status.is_redirection(),
    };
    let said = status.as_u16();
    match (passed, expect) {
        (true, Some(_) | None) => Ok(()),
        (false, Some(expect)) => Err(format!("HTTP {said} instead of {expect}")),
        (false, None) => Err(format!("HTTP {said}")),
    }
}

/// The status of the answer; its body is not read.
async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    host: &str,
) -> Result<StatusCode, String> {
    let request = Request::get(path)
        .header(HOST, host)
        .header(USER_AGENT, concat!("buoy/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| format!("the check cannot be sent: {e}"))?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| in_words(&e))?;
    let answer = sender.send_request(request);
    tokio::pin!(answer, connection);
    let mut open = true;
    loop {
        tokio::select! {
            answer = &mut answer => return answer.map(|a| a.status()).map_err(|e| in_words(&e)),
            // The answer may be complete when its connection ends.
            _ = &mut connection, if open => open = false,
        }
    }
}

fn in_words(error: &hyper::Error) -> String {
    if error.is_parse_too_large() {
        "the answer's head is too long".into()
    } else if error.is_parse() {
        "the answer is not HTTP".into()
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        "closed the connection without an answer".into()
    } else {
        format!("no answer: {error}")
    }
}

fn explain(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        return "connection refused".into();
    }
    if error.kind() == io::ErrorKind::HostUnreachable
        || error.kind() == io::ErrorKind::NetworkUnreachable
    {
        return "no route to the host".into();
    }
    format!("cannot connect: {error}")
}

/// The name in the certificate: that of the `Host` header without a port, or the address.
fn server_name(host: &str, address: SocketAddr) -> Result<ServerName<'static>, String> {
    if host.parse::<SocketAddr>().is_ok() {
        return Ok(ServerName::from(address.ip()));
    }
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|b| b.is_ascii_digit()) { name } else { host }
    });
    ServerName::try_from(name.to_owned()).map_err(|_| format!("`{name}` is not a host name"))
}

fn configure(ca: Option<&str>) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS cannot be set up: {e}"))?;
    let config = match ca {
        Some(file) => builder.with_root_certificates(authorities(file)?).with_no_client_auth(),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(algorithms)))
            .with_no_client_auth(),
    };
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
