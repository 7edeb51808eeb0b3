//! TLS towards a node: whom a command believes to be one, and what it shows.

use crate::auth::system_roots;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// Options of commands that talk to a node over TLS.
#[derive(clap::Args, Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct TrustArgs {
    /// File with the certificates of who signs that of the node, in PEM [default: those that the system trusts]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// File with the certificate to show to the node, in PEM
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// File with its key, in PEM
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
}

/// Whom a command believes to be the node, and what it shows itself.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Trust {
    anchor: Anchor,
    own: Option<(PathBuf, PathBuf)>,
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
enum Anchor {
    /// Whom the system trusts.
    #[default]
    System,
    /// Who signs is in this file.
    Signer(PathBuf),
    /// The certificate is the first of this file, whatever name it is for: that of the node of this configuration.
    Itself(PathBuf),
}

impl TrustArgs {
    /// For an address that was typed.
    pub(super) fn of_typed(&self) -> Trust {
        let anchor = self.ca_file.clone().map_or(Anchor::System, Anchor::Signer);
        Trust { anchor, own: self.cert_file.clone().zip(self.key_file.clone()) }
    }

    /// For the node of the configuration, which has this certificate.
    pub(super) fn of_configured(&self, certificate: &Path) -> Trust {
        let typed = self.of_typed();
        match typed.anchor {
            Anchor::System => Trust { anchor: Anchor::Itself(certificate.into()), ..typed },
            _ => typed,
        }
    }
}

/// What connects with a trust. The last one is kept: a command that opens many connections reads the files once.
pub(super) fn connector(trust: &Trust) -> io::Result<TlsConnector> {
    static LAST: Mutex<Option<(Trust, TlsConnector)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((known, connector)) = &*last
        && known == trust
    {
        return Ok(connector.clone());
    }
    let connector = TlsConnector::from(Arc::new(config(trust)?));
    *last = Some((trust.clone(), connector.clone()));
    Ok(connector)
}

fn config(trust: &Trust) -> io::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = match &trust.anchor {
        Anchor::System => builder.with_root_certificates(system_roots().ok_or_else(|| {
            io::Error::other(
                "this system trusts no certificates; install ca-certificates, or name a file by --ca-file",
            )
        })?),
        Anchor::Signer(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| failed(path, &error))?;
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| failed(path, &error))?;
            builder.with_webpki_verifier(verifier)
        }
        Anchor::Itself(path) => {
            let expected = certificates(path)?.swap_remove(0);
            let verifier = Arc::new(Pinned { expected, provider });
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
    };
    let mut config = match &trust.own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, &error))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, private)
                .map_err(|error| failed(certificate, &error))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(path, &error))?;
    if all.is_empty() { Err(failed(path, &"it holds no certificate in PEM")) } else { Ok(all) }
}

fn failed(path: &Path, reason: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {reason}", path.display()))
}

/// Believes one certificate, and nothing else: whoever can read the configuration knows which it is, and it need not
/// be for the address by which a node is reached from its own host.
#[derive(Debug)]
struct Pinned {
    expected: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *shown == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
