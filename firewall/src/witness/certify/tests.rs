use std::net::Ipv4Addr;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const NAME: &str = "api.example.com";

/// An authority that the witness trusts.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    fn issue(&self, params: &CertificateParams) -> (CertificateDer<'static>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().into(), key)
    }

    /// What the witness makes of a server.
    async fn look(&self, server: SocketAddr) -> (CertificateVerdict, String, u32) {
        let mut certifier = Certifier {
            anchors: Some(self.folder.path().join("ca.pem")),
            ..Certifier::default()
        };
        certifier.begin(CertifyV1 {
            name: NAME.to_owned(),
            server,
        });
        let seen = certifier.next().await;
        assert_eq!((seen.name.as_str(), seen.server), (NAME, server));
        (seen.verdict, seen.detail, seen.lasts_s)
    }
}

fn params(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).unwrap()
}

#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A server that shows this certificate and signs with this key, whether they belong together or not.
async fn serve(
    (certificate, key): (CertificateDer<'static>, &KeyPair),
    versions: &[&'static SupportedProtocolVersion],
    wants_client: Option<RootCertStore>,
) -> SocketAddr {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = provider().key_provider.load_private_key(key).unwrap();
    let shows = Shows(Arc::new(CertifiedKey::new(vec![certificate], key)));
    let builder = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(versions)
        .unwrap();
    let builder = match wants_client {
        Some(roots) => {
            let provider = Arc::new(provider());
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    let acceptor = TlsAcceptor::from(Arc::new(builder.with_cert_resolver(Arc::new(shows))));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        // Who looks leaves as soon as it has seen enough.
        drop(acceptor.accept(stream).await);
    });
    address
}

const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12, &rustls::version::TLS13];

#[tokio::test]
async fn good_certificate_is_valid_in_either_version_and_for_servers_that_want_one_of_their_clients()
 {
    let authority = Authority::new();
    let mut roots = RootCertStore::empty();
    roots.add(authority.issuer.der().clone()).unwrap();
    for versions in [&BOTH[..1], &BOTH[1..]] {
        for wants_client in [None, Some(roots.clone())] {
            let (certificate, key) = authority.issue(&params(NAME));
            let server = serve((certificate, &key), versions, wants_client).await;
            let good = (CertificateVerdict::Valid, String::new(), 3_600);
            assert_eq!(authority.look(server).await, good);
        }
    }
}

#[tokio::test]
async fn certificate_that_ends_within_the_hour_does_not_count_for_it() {
    let authority = Authority::new();
    let mut ending = params(NAME);
    ending.not_after = (std::time::SystemTime::now() + Duration::from_secs(1_800)).into();
    let (certificate, key) = authority.issue(&ending);
    let server = serve((certificate, &key), BOTH, None).await;
    let good = (CertificateVerdict::Valid, String::new(), 0);
    assert_eq!(authority.look(server).await, good);
}

#[tokio::test]
async fn bad_certificates_are_invalid_and_it_is_said_why() {
    let authority = Authority::new();
    let mut expired = params(NAME);
    expired.not_after = date_time_ymd(2020, 1, 1);
    let mut early = params(NAME);
    early.not_before = date_time_ymd(4_000, 1, 1);
    early.not_after = date_time_ymd(4_001, 1, 1);
    let stranger = Authority::new();
    for (issuer, params, why) in [
        (
            &authority,
            params("www.example.com"),
            "the certificate is of ",
        ),
        (&authority, expired, "the certificate has expired"),
        (&authority, early, "the certificate is not valid yet"),
        (
            &stranger,
            params(NAME),
            "the certificate is by no authority",
        ),
    ] {
        for versions in [&BOTH[..1], &BOTH[1..]] {
            let (certificate, key) = issuer.issue(&params);
            let server = serve((certificate, &key), versions, None).await;
            let (verdict, detail, _) = authority.look(server).await;
            assert_eq!(verdict, CertificateVerdict::Invalid, "{detail}");
            assert!(detail.starts_with(why), "{detail}");
        }
    }
}

#[tokio::test]
async fn certificate_that_is_shown_without_its_key_is_invalid() {
    let authority = Authority::new();
    let (certificate, _) = authority.issue(&params(NAME));
    for versions in [&BOTH[..1], &BOTH[1..]] {
        let other = KeyPair::generate().unwrap();
        let server = serve((certificate.clone(), &other), versions, None).await;
        let (verdict, detail, _) = authority.look(server).await;
        assert_eq!(verdict, CertificateVerdict::Invalid);
        assert_eq!(detail, "the server does not hold its certificate's key");
    }
}

#[tokio::test]
async fn nobody_there_and_servers_that_speak_no_tls_are_inconclusive() {
    let authority = Authority::new();
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let nobody = closed.local_addr().unwrap();
    drop(closed);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let plain = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream
            .write_all(b"220 mail.example ESMTP\r\n")
            .await
            .unwrap();
    });
    for server in [nobody, plain] {
        let (verdict, detail, lasts_s) = authority.look(server).await;
        assert_eq!((verdict, lasts_s), (CertificateVerdict::Inconclusive, 0));
        assert!(!detail.is_empty());
    }
}

#[test]
fn file_of_authorities_that_cannot_be_used_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("anchors.pem");
    let fault = || read_anchors(&path).unwrap_err().to_string();
    assert!(fault().contains("anchors.pem"), "{}", fault());
    std::fs::write(&path, "no certificate").unwrap();
    assert_eq!(fault(), format!("no certificate in {}", path.display()));
    let garbage = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    let good = Authority::new().issuer.pem();
    std::fs::write(&path, good.clone() + garbage).unwrap();
    let of_the_second = format!("certificate 2 of {}: ", path.display());
    assert!(fault().starts_with(&of_the_second), "{}", fault());
    std::fs::write(&path, good).unwrap();
    assert_eq!(read_anchors(&path).unwrap().len(), 1);
}

/// A certificate in an algorithm that our library has not is not a bad one.
#[test]
fn what_cannot_be_verified_here_is_not_held_against_a_server() {
    let certain = [
        CertificateError::Expired,
        CertificateError::UnknownIssuer,
        CertificateError::NotValidForName,
        CertificateError::BadSignature,
    ];
    for why in certain {
        assert!(is_definite(&Error::InvalidCertificate(why)));
    }
    let unsure = [
        CertificateError::UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id: Vec::new(),
            supported_algorithms: Vec::new(),
        },
        CertificateError::UnhandledCriticalExtension,
        CertificateError::BadEncoding,
        CertificateError::UnknownRevocationStatus,
    ];
    for why in unsure {
        assert!(!is_definite(&Error::InvalidCertificate(why)));
    }
    assert!(!is_definite(&Error::DecryptError));
}

#[test]
fn what_a_server_says_of_itself_is_kept_short_and_plain() {
    let text = shortened("a\u{1b}[31m\n".to_owned() + &"é".repeat(300));
    assert!(text.starts_with("a [31m é"));
    assert!((DETAIL_BYTES_MAX - 1..=DETAIL_BYTES_MAX).contains(&text.len()));
}
