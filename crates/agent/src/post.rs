//! Posts something to a server that the configuration names, by HTTP with or without TLS.

use crate::health::ask::tls::Handshake;
use buoy_model::TlsCheck;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Bytes of a head of an answer.
const HEAD_MAX: usize = 16 << 10;

/// Where to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    /// The authorities that sign its certificate, a PEM file; `None`: there is no TLS.
    pub(crate) ca: Option<&'a str>,
}

impl Server<'_> {
    /// As in a `Host` header.
    pub(crate) fn authority(&self) -> String {
        let Self { host, port, ca } = self;
        let is_v6 = host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6());
        let host = if is_v6 { format!("[{host}]") } else { (*host).to_owned() };
        let is_usual = *port == if ca.is_some() { 443 } else { 80 };
        if is_usual { host } else { format!("{host}:{port}") }
    }

    /// The status of its answer, or why there is none.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<StatusCode, String> {
        let to = |error: &dyn std::fmt::Display| format!("{}: {error}", self.authority());
        let stream = TcpStream::connect((self.host, self.port)).await.map_err(|e| to(&e))?;
        let status = match self.ca {
            None => exchange(stream, request).await,
            Some(ca) => {
                let tls = TlsCheck { ca: Some(ca.to_owned()), warn: Duration::ZERO };
                let unspecified = SocketAddr::from(([0, 0, 0, 0], self.port));
                let handshake = Handshake::new(&tls, Some(self.host), unspecified, &[]);
                let (stream, _) = handshake.shake(stream).await.map_err(|e| to(&e))?;
                exchange(stream, request).await
            }
        };
        status.map_err(|error| to(&error))
    }
}

/// The status of the answer; its body is nobody's.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<StatusCode, hyper::Error> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The answer may have come with the end.
        ended = connection => {
            ended?;
            answer.await
        }
    };
    Ok(answer?.status())
}
