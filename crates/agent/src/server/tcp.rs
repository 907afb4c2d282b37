//! Serves the API over TCP where `[api]` says so, for as long as it does, with or without TLS.

use super::access::{Asker, Door};
use super::follow::{self, Named, Problem};
use super::listen::Hall;
use super::{Agent, router};
use buoy_config::{Api, Tls};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Connections at the same time; further ones wait in the kernel's queue. Local users have other places.
const CONNECTIONS_MAX: u32 = 128;

/// The API over TCP, as the configuration has it.
struct Served<A>(Arc<A>);

/// What is open.
struct Open {
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    door: Arc<Door>,
}

impl<A: Agent> Named for Served<A> {
    type Wish = Option<Api>;
    type Place = Api;
    type Socket = Open;

    fn named(&self, api: &Option<Api>) -> Option<Api> {
        api.clone()
    }

    async fn open(&self, api: &Api) -> Result<Open, String> {
        let at = api.listen;
        let refused = |why: String| format!("`[api]` at {at} is not served: {why}");
        let mut names = Vec::new();
        let acceptor = match &api.tls {
            Some(tls) => {
                let (config, known) = configure(tls).map_err(|e| refused(e.to_string()))?;
                names = known;
                Some(TlsAcceptor::from(Arc::new(config)))
            }
            None => None,
        };
        let listener = TcpListener::bind(at).await.map_err(|error| refused(error.to_string()))?;
        tracing::info!(%at, tls = acceptor.is_some(), "the API is served over TCP");
        let door = Arc::new(Door::new(api.tokens.clone(), names, acceptor.is_some()));
        Ok(Open { listener, acceptor, door })
    }

    async fn serve(&self, Open { listener, acceptor, door }: Open) {
        // Ends with this future: nobody is answered at an address that is not in the file any more.
        let (_end, ended) = watch::channel(false);
        let greet = move |stream: TcpStream| greet(stream, acceptor.clone(), Arc::clone(&door));
        let router = router(Arc::clone(&self.0));
        Hall::new(CONNECTIONS_MAX, ended).answer(listener, greet, router).await;
    }
}

/// Keeps what the configuration names, for as long as it names it.
pub(crate) async fn keep<A: Agent>(
    agent: Arc<A>,
    api: watch::Receiver<Arc<Option<Api>>>,
    problem: Problem,
) {
    follow::follow(&Served(agent), api, problem).await;
}

/// Shakes hands, and looks who it is.
async fn greet(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    door: Arc<Door>,
) -> Option<(Stream, Asker)> {
    let from = stream.peer_addr().ok()?;
    let Some(acceptor) = acceptor else {
        return Some((Stream::Plain(stream), Asker::remote(from, &[], door)));
    };
    // What is wrong with a stranger's handshake is his to know.
    let stream = acceptor.accept(stream).await.ok()?;
    let (_, session) = stream.get_ref();
    let shown = session.peer_certificates().and_then(<[_]>::first);
    let uris = shown.map(uris).unwrap_or_default();
    Some((Stream::Tls(Box::new(stream)), Asker::remote(from, &uris, door)))
}

fn uris(certificate: &CertificateDer<'_>) -> Vec<String> {
    let parsed = webpki::EndEntityCert::try_from(certificate);
    parsed.map(|parsed| parsed.valid_uri_names().map(str::to_owned).collect()).unwrap_or_default()
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// How to shake hands, and the names of this host by its certificate.
fn configure(tls: &Tls) -> Result<(ServerConfig, Vec<String>), Failed> {
    let read = |pem: &[u8]| rustls_pemfile::certs(&mut &*pem).collect::<Result<Vec<_>, _>>();
    let chain = read(&tls.cert.0)?;
    let first = chain.first().ok_or("`cert` holds no certificate")?;
    let own = webpki::EndEntityCert::try_from(first)?;
    let names = own.valid_dns_names().map(str::to_owned).collect();
    let key: PrivateKeyDer<'static> =
        rustls_pemfile::private_key(&mut &*tls.key.0)?.ok_or("`key` holds no private key")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match &tls.client_ca {
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for authority in read(&ca.0)? {
                roots.add(authority)?;
            }
            // Who has a token needs no certificate; who shows one must have it from this authority.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((config, names))
}

/// A connection over TCP.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
