//! TLS: the handshake as the question, and the end of a certificate.

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Shows a certificate that ends so many days from now.
async fn ending(days: i64, folder: &std::path::Path) -> (SocketAddr, String) {
    let mut params = rcgen::CertificateParams::new(vec!["web.example".into()]).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let now = std::time::SystemTime::now();
    let day = i64::try_from(DAY.as_secs()).unwrap();
    let from_now = |seconds: i64| {
        let offset = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 { now - offset } else { now + offset }
    };
    params.not_before = from_now(-400 * day).into();
    params.not_after = from_now(days * day + 60).into();
    let certificate = params.self_signed(&key).unwrap();
    let file = folder.join(format!("{days}.pem"));
    std::fs::write(&file, certificate.pem()).unwrap();
    let acceptor = acceptor(&certificate, &key, &[]);
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    (address, file.to_str().unwrap().to_owned())
}

fn shake(ca: Option<&str>, warn: Duration) -> CheckKind {
    let tls = TlsCheck { ca: ca.map(str::to_owned), warn };
    CheckKind::Tls { host: Some("web.example".into()), tls }
}

#[tokio::test]
async fn a_certificate_that_ends_soon_is_a_warning_and_one_that_has_ended_is_down_where_it_is_verified()
 {
    let folder = tempfile::tempdir().unwrap();
    let warn = 14 * DAY;
    let (address, file) = ending(5, folder.path()).await;
    for ca in [None, Some(file.as_str())] {
        let known = verdict(shake(ca, warn), address).await;
        let said = "the certificate ends in 5 days";
        assert_eq!((known.state, known.reason.as_str()), (BackendState::Up, said), "{ca:?}");
        assert!(known.urgent);
        let known = verdict(shake(ca, Duration::ZERO), address).await;
        assert_eq!((known.state, known.reason.as_str()), (BackendState::Up, ""), "{ca:?}");
    }
    let (address, _) = ending(30, folder.path()).await;
    assert_eq!(verdict(shake(None, warn), address).await.reason, "");
    let (address, file) = ending(-3, folder.path()).await;
    let known = verdict(shake(None, warn), address).await;
    let said = "the certificate ended 2 days ago";
    assert_eq!((known.state, known.reason.as_str()), (BackendState::Up, said));
    let known = verdict(shake(Some(&file), warn), address).await;
    let said = "TLS: the certificate has ended";
    assert_eq!((known.state, known.reason.as_str()), (BackendState::Down, said));
}

#[tokio::test]
async fn what_is_no_handshake_is_down_in_words() {
    let warn = Duration::ZERO;
    for (answer, said) in [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "the answer is not TLS"),
        ("\u{16}\u{3}\u{1}\0\u{5}hello there", "the answer is not TLS"),
        ("", "closed the connection without an answer"),
    ] {
        let known = verdict(shake(None, warn), answering(answer).await).await;
        assert_eq!((known.state, known.reason.as_str()), (BackendState::Down, said), "{answer:?}");
    }
    let known = verdict(shake(None, warn), endless(true).await).await;
    assert_eq!(known.state, BackendState::Down);
    let (_silent, address) = listener().await;
    let known = verdict(shake(None, warn), address).await;
    assert_eq!((known.state, known.reason.as_str()), (BackendState::Down, "timed out after 200ms"));
}
