//! Secures a connection to etcd with certificates, as `etcdctl` does: the server must be known, and may ask who we are.
//!
//! The files are read for each connection, so who renews them has to tell nobody.

use crate::disk::Failed;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The files of it, all PEM.
#[derive(Clone, Debug)]
pub struct EtcdTls {
    /// The authorities that sign the certificates of the servers.
    pub ca: PathBuf,
    /// The certificate of this host, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl EtcdTls {
    /// The connection, once the server (`HOST:PORT`) has proven who it is.
    pub(crate) async fn secure(
        &self,
        server: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Failed> {
        let (host, _) = server.rsplit_once(':').unwrap_or((server, ""));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())?;
        Ok(TlsConnector::from(Arc::new(self.config()?)).connect(name, stream).await?)
    }

    fn config(&self) -> Result<ClientConfig, Failed> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            roots.add(certificate)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let private = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| format!("{}: {error}", key.display()))?;
                builder.with_client_auth_cert(certificates(cert)?, private)?
            }
        };
        // Its other side speaks gRPC.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, Failed> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let all = read().map_err(|error| format!("{}: {error}", path.display()))?;
    if all.is_empty() {
        return Err(format!("{} holds no certificate", path.display()).into());
    }
    Ok(all)
}
