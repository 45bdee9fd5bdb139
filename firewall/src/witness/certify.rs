//! Handshakes of the witness's own, to see the certificate of a server.
//!
//! TLS 1.3 hides it from everybody on the road, so it is asked for: the same name, address and port, and no data. What
//! counts is seen before the handshake ends, so that a server that wants a certificate of its client, or another
//! application protocol, is judged all the same.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ipc::witness::{CertificateVerdict, CertifiedV1, CertifyV1, Configure, DETAIL_BYTES_MAX};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Why a file of certificate authorities is of no use.
#[derive(Debug, Error)]
pub enum AnchorsError {
    /// It cannot be read, or is not PEM.
    #[error("reading the certificate authorities in {path}: {error}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        error: rustls::pki_types::pem::Error,
    },
    /// One of them cannot be trusted as one.
    #[error("certificate {number} of {path}: {error}")]
    Anchor {
        /// The file.
        path: String,
        /// Which of its certificates, counted from 1.
        number: usize,
        /// Why.
        error: Error,
    },
    /// It has none.
    #[error("no certificate in {0}")]
    Empty(String),
}

/// The certificate authorities of a PEM file.
///
/// # Errors
/// When it cannot be read, holds something that is no authority, or none at all.
pub fn read_anchors(path: &Path) -> Result<Vec<CertificateDer<'static>>, AnchorsError> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    usable(&path.display().to_string(), found)
}

/// The certificate authorities of a PEM text, which has this place.
///
/// # Errors
/// When it is no PEM, holds something that is no authority, or none at all.
pub fn parse_anchors(place: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, AnchorsError> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    usable(place, found)
}

fn usable(
    place: &str,
    found: Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error>,
) -> Result<Vec<CertificateDer<'static>>, AnchorsError> {
    let file = || place.to_owned();
    let found = found.map_err(|error| AnchorsError::Read {
        path: file(),
        error,
    })?;
    let mut store = RootCertStore::empty();
    for (number, anchor) in (1..).zip(&found) {
        let refused = |error| AnchorsError::Anchor {
            path: file(),
            number,
            error,
        };
        store.add(anchor.clone()).map_err(refused)?;
    }
    if found.is_empty() {
        return Err(AnchorsError::Empty(file()));
    }
    Ok(found)
}

/// Looks at certificates, each in a task of its own.
#[derive(Debug, Default)]
pub(super) struct Certifier {
    anchors: Option<PathBuf>,
    authorities: String,
    /// What certificates are held against, and since when: authorities come and go.
    verifier: Option<(Instant, Arc<WebPkiServerVerifier>)>,
    looks: JoinSet<CertifiedV1>,
}

impl Certifier {
    /// Takes over which authorities are trusted.
    pub(super) fn configure(&mut self, settings: &Configure) {
        let (file, text) = (&settings.anchors, &settings.authorities);
        if (&self.anchors, &self.authorities) != (file, text) {
            self.anchors.clone_from(file);
            self.authorities.clone_from(text);
            self.verifier = None;
        }
    }

    /// Begins to look.
    pub(super) fn begin(&mut self, wanted: CertifyV1) {
        let verifier = self.verifier();
        self.looks.spawn(async move {
            let (verdict, detail, lasts_s) = match verifier {
                Ok(verifier) => look(&wanted.name, wanted.server, verifier).await,
                Err(error) => (CertificateVerdict::Inconclusive, error, 0),
            };
            CertifiedV1 {
                name: wanted.name,
                server: wanted.server,
                verdict,
                detail: shortened(detail),
                lasts_s,
            }
        });
    }

    /// The next that has been looked at; never, while none is.
    pub(super) async fn next(&mut self) -> CertifiedV1 {
        loop {
            match self.looks.join_next().await {
                Some(Ok(certified)) => return certified,
                // One that panicked: the daemon gives it up by its own deadline.
                Some(Err(error)) => tracing::error!(%error, "looking at a certificate"),
                None => std::future::pending().await,
            }
        }
    }

    fn verifier(&mut self) -> Result<Arc<WebPkiServerVerifier>, String> {
        let fresh = |(since, _): &&(Instant, _)| since.elapsed() < ROOTS_FOR;
        if let Some((_, verifier)) = self.verifier.as_ref().filter(fresh) {
            return Ok(Arc::clone(verifier));
        }
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            tracing::warn!(%error, "reading the system's certificate authorities");
        }
        let (taken, refused) = roots.add_parsable_certificates(system.certs);
        let file = self.anchors.as_deref().map(read_anchors);
        let written = (!self.authorities.is_empty())
            .then(|| parse_anchors("the configuration", &self.authorities));
        for own in [file, written].into_iter().flatten() {
            match own {
                Ok(anchors) => {
                    roots.add_parsable_certificates(anchors);
                }
                Err(error) => tracing::warn!(%error, "certificate authorities of our own"),
            }
        }
        tracing::debug!(taken, refused, "certificate authorities");
        let provider = Arc::new(provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| error.to_string())?;
        self.verifier = Some((Instant::now(), Arc::clone(&verifier)));
        Ok(verifier)
    }
}

fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// One handshake: what the certificate is worth, why, and for how many seconds.
async fn look(
    name: &str,
    server: SocketAddr,
    verifier: Arc<WebPkiServerVerifier>,
) -> (CertificateVerdict, String, u32) {
    let inconclusive = |why: String| (CertificateVerdict::Inconclusive, why, 0);
    let Ok(asked_for) = ServerName::try_from(name.to_owned()) else {
        return inconclusive("the name cannot be in a certificate".to_owned());
    };
    let witness = Arc::new(Onlooker {
        verifier,
        seen: Mutex::default(),
    });
    let config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| {
            let verifier = Arc::clone(&witness);
            builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth()
        });
    let mut config = match config {
        Ok(config) => config,
        Err(error) => return inconclusive(error.to_string()),
    };
    // As browsers and most libraries ask.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.enable_sni = true;
    let shake_hands = async {
        let stream = TcpStream::connect(server).await?;
        let connector = TlsConnector::from(Arc::new(config));
        // A server hears that nothing follows, and that nothing went wrong.
        connector.connect(asked_for, stream).await?.shutdown().await
    };
    let ended = match tokio::time::timeout(PATIENCE, shake_hands).await {
        Ok(Ok(())) => "the handshake ended without a certificate".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no certificate within {} s", PATIENCE.as_secs()),
    };
    let seen = witness.seen.lock().map(|seen| seen.clone());
    let seen = seen.unwrap_or_default();
    match (seen.fault, seen.lasts_s) {
        (Some(fault), _) => (CertificateVerdict::Invalid, fault, 0),
        (None, Some(lasts_s)) if seen.proved => (CertificateVerdict::Valid, String::new(), lasts_s),
        (None, _) => inconclusive(ended),
    }
}

/// What was seen of a server so far.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// How long its certificate stays good at least, when it is.
    lasts_s: Option<u32>,
    /// Why it is not.
    fault: Option<String>,
    /// Whether the server holds its key.
    proved: bool,
}

/// Verifies like any client, and remembers what came of it.
#[derive(Debug)]
struct Onlooker {
    verifier: Arc<WebPkiServerVerifier>,
    seen: Mutex<Seen>,
}

impl Onlooker {
    fn note(&self, what: impl FnOnce(&mut Seen)) {
        // A panic while it was held would have ended the handshake with it.
        if let Ok(mut seen) = self.seen.lock() {
            what(&mut seen);
        }
    }

    fn note_proof(&self, proof: &Result<HandshakeSignatureValid, Error>) {
        self.note(|seen| match proof {
            Ok(_) => seen.proved = true,
            Err(error) if is_definite(error) => {
                seen.fault = Some("the server does not hold its certificate's key".to_owned());
            }
            Err(_) => {}
        });
    }
}

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify = |at| {
            self.verifier.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                at,
            )
        };
        let verified = verify(now);
        match &verified {
            Ok(_) => {
                // Kept for an hour, but not past its own dates.
                let in_an_hour = now.as_secs().saturating_add(u64::from(LASTS_S));
                let soon = UnixTime::since_unix_epoch(Duration::from_secs(in_an_hour));
                let lasts_s = if verify(soon).is_ok() { LASTS_S } else { 0 };
                self.note(|seen| seen.lasts_s = Some(lasts_s));
            }
            Err(error) if is_definite(error) => self.note(|seen| seen.fault = Some(fault(error))),
            Err(_) => {}
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let proof = self.verifier.verify_tls12_signature(message, cert, dss);
        self.note_proof(&proof);
        proof
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let proof = self.verifier.verify_tls13_signature(message, cert, dss);
        self.note_proof(&proof);
        proof
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Whether a certificate is certainly no good for its name (DESIGN, section 3), and not only beyond what our library
/// reads: what it has no algorithm for, or finds oddly written, other clients may verify. What a new version of it brings
/// is not held against a server before it is listed here.
fn is_definite(error: &Error) -> bool {
    let Error::InvalidCertificate(why) = error else {
        return false;
    };
    matches!(
        why,
        CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
            | CertificateError::Revoked
            | CertificateError::UnknownIssuer
            | CertificateError::BadSignature
            | CertificateError::NotValidForName
            | CertificateError::NotValidForNameContext { .. }
            | CertificateError::InvalidPurpose
            | CertificateError::InvalidPurposeContext { .. }
    )
}

/// Why a certificate is no good, for a person.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's list of what may be wrong grows; its own words do for the rest"
)]
fn fault(error: &Error) -> String {
    let Error::InvalidCertificate(why) = error else {
        return error.to_string();
    };
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet".to_owned()
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the certificate is by no authority that is trusted".to_owned()
        }
        CertificateError::NotValidForName => "the certificate is of another name".to_owned(),
        CertificateError::NotValidForNameContext { presented, .. } => {
            format!("the certificate is of {}", presented.join(", "))
        }
        other => other.to_string(),
    }
}

/// At most as much of a text as a message takes, without what a log should not hold.
fn shortened(text: String) -> String {
    let mut length = 0_usize;
    text.chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .take_while(|character| {
            length = length.saturating_add(character.len_utf8());
            length <= DETAIL_BYTES_MAX
        })
        .collect()
}

/// How long a server has for its part of a handshake, connecting included.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long authorities are kept before they are read again.
const ROOTS_FOR: Duration = Duration::from_secs(3_600);
const LASTS_S: u32 = 3_600;

#[cfg(test)]
mod tests;
