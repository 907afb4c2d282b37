//! Makes the connections between nodes private and mutual: whoever has the cluster's key is a member.
//!
//! Each key of the cluster gives an authority (Ed25519, from a secret derived of the key), so no certificate has to
//! be made, copied or renewed: a process signs itself one when it starts, with the first key, and believes those of all its keys. While
//! a key is changed host by host, both sides still believe each other.

use buoy_wire::Keyring;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::Arc;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Written into the secret, so that it is of no use elsewhere.
const LABEL: &[u8] = b"authority of the store, 1";
/// PKCS#8 of an Ed25519 key, up to its 32 bytes (RFC 8410 section 7).
const PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// Both ends of connections of one node.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) connector: TlsConnector,
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) name: ServerName<'static>,
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

impl Tls {
    /// For the cluster of that number: another one with the same key is not believed.
    pub(crate) fn new(keyring: &Keyring, cluster: u32) -> Result<Self, Failed> {
        let name = format!("c{cluster:08x}.buoy.invalid");
        let mut roots = RootCertStore::empty();
        let mut first = None;
        for (id, secret) in keyring.derived(LABEL) {
            let authority = authority(id, &secret)?;
            roots.add(authority.der().clone())?;
            first.get_or_insert(authority);
        }
        let issuer = first.ok_or("no key")?;
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        let certificate = always(CertificateParams::new([name.clone()])?);
        let certificate = certificate.signed_by(&key, &issuer)?;
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(roots);
        let versions = &[&rustls::version::TLS13];
        let server =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)?
            .with_webpki_verifier(server.build()?)
            .with_client_auth_cert(chain.clone(), key.clone_key())?;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(verifier.build()?)
            .with_single_cert(chain, key)?;
        // Nothing of a connection outlives it: a key that was taken away is of no more use.
        server.send_tls13_tickets = 0;
        Ok(Self {
            connector: TlsConnector::from(Arc::new(client)),
            acceptor: TlsAcceptor::from(Arc::new(server)),
            name: ServerName::try_from(name)?,
        })
    }
}

/// The same on all nodes that have the key.
fn authority(id: u32, secret: &[u8; 32]) -> Result<CertifiedIssuer<'static, KeyPair>, Failed> {
    let mut der = PKCS8.to_vec();
    der.extend_from_slice(secret);
    let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(der))?;
    let mut params = always(CertificateParams::default());
    params.distinguished_name.push(DnType::CommonName, format!("buoy {id:08x}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    Ok(CertifiedIssuer::self_signed(params, key)?)
}

/// Valid at any time: who is a member is said by the key, and clocks of hosts may be wrong.
fn always(mut params: CertificateParams) -> CertificateParams {
    params.not_before = rcgen::date_time_ymd(1975, 1, 1);
    params.not_after = rcgen::date_time_ymd(4096, 1, 1);
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_wire::Key;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    fn ring(keys: &[u8]) -> Keyring {
        Keyring::new(keys.iter().map(|k| Key::new([*k; 32])).collect()).unwrap()
    }

    /// Whether bytes get through, in both directions.
    async fn speaks(client: &Tls, server: &Tls) -> bool {
        let (near, far) = duplex(64 << 10);
        let serve = async {
            let mut stream = server.acceptor.accept(far).await?;
            let byte = stream.read_u8().await?;
            stream.write_u8(byte + 1).await?;
            stream.flush().await
        };
        let ask = async {
            let mut stream = client.connector.connect(client.name.clone(), near).await?;
            stream.write_u8(1).await?;
            stream.flush().await?;
            stream.read_u8().await
        };
        let (served, asked) = tokio::join!(serve, ask);
        served.is_ok() && asked.is_ok_and(|answer| answer == 2)
    }

    #[tokio::test]
    async fn members_believe_each_other_while_a_key_is_changed_and_nobody_else() {
        let tls = |keys: &[u8], cluster| Tls::new(&ring(keys), cluster).unwrap();
        let (old, both, swapped, new) =
            (tls(&[1], 7), tls(&[1, 2], 7), tls(&[2, 1], 7), tls(&[2], 7));
        for (a, b, expected) in [
            (&old, &old, true),
            (&old, &both, true),
            (&both, &swapped, true),
            (&swapped, &new, true),
            (&old, &new, false),
            (&old, &tls(&[1], 8), false),
        ] {
            assert_eq!(speaks(a, b).await, expected);
            assert_eq!(speaks(b, a).await, expected);
        }
    }
}
