//! rustls configurations: what we serve with, and what we trust.
//!
//! ALPN offers `http/1.1` alone, because nothing else is spoken.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

const ALPN: &[u8] = b"http/1.1";

/// Why a TLS configuration could not be made: which file, and what about it.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) struct TlsError {
    file: PathBuf,
    what: String,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)
    }
}

impl std::error::Error for TlsError {}

/// A server configuration (TLS 1.2 and 1.3) from a PEM certificate chain and its key.
pub(crate) fn server(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(cert)?;
    let secret = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| fault(key, format!("no private key could be read ({error}); it should be PEM")))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(cert, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| fault(key, format!("the key does not serve {}: {error}", cert.display())))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// A client configuration that trusts the system's roots and the certificates in `extra` beside them.
pub(crate) fn client(extra: &[PathBuf]) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    // A machine without a root store can still reach plain upstreams and those of `extra`; an upstream that needs the
    // store then fails its handshake with a message of its own.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for file in extra {
        for certificate in certificates(file)? {
            roots
                .add(certificate)
                .map_err(|error| fault(file, format!("not a usable CA certificate: {error}")))?;
        }
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(Path::new("TLS"), error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |error| fault(file, format!("no certificate could be read ({error}); it should be PEM"));
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).map_err(unreadable)?.collect();
    let chain = chain.map_err(unreadable)?;
    if chain.is_empty() {
        return Err(fault(file, "holds no certificate; it should be PEM".into()));
    }
    Ok(chain)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn fault(file: &Path, what: String) -> TlsError {
    TlsError { file: file.to_path_buf(), what }
}
