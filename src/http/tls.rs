//! TLS as it was asked for, and which certificates clients must show.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, NamedGroup, ProtocolVersion,
    RootCertStore, ServerConfig, SignatureScheme,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How TLS is to be spoken.
#[derive(Clone, Debug, Default)]
pub struct TlsSettings {
    /// The server's certificate, with what is between it and its authority, as PEM.
    pub chain_pem: Vec<u8>,
    /// Its key, as PEM.
    pub key_pem: Vec<u8>,
    /// Which certificates clients are asked for, if any.
    pub clients: Option<ClientCerts>,
    /// Whether TLS 1.2 is spoken.
    pub tls12: bool,
    /// Whether TLS 1.3 is spoken.
    pub tls13: bool,
    /// For TLS 1.2, by IANA name; empty: all.
    pub cipher_suites: Vec<String>,
    /// Curves by their names in Go; empty: all.
    pub curves: Vec<String>,
    /// Whether the order here goes before the client's.
    pub prefer_server_order: bool,
}

/// Which certificates clients are asked for.
#[derive(Clone, Debug, Default)]
pub struct ClientCerts {
    /// Whether those are turned away that have none.
    pub required: bool,
    /// The authorities a certificate must be from, as PEM; `None`: any will do.
    pub ca_pem: Option<Vec<u8>>,
    /// Names of which a certificate must have one; empty: any.
    pub allowed_sans: Vec<String>,
}

/// Why TLS cannot be spoken so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: {reason}")]
pub struct TlsError {
    /// The key of the settings.
    pub subject: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl TlsSettings {
    /// What connections are accepted with.
    ///
    /// # Errors
    /// When a text is no PEM, key and certificate are not a pair, or nothing is left to speak.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(self.provider());
        let versions: Vec<_> = [(self.tls12, &TLS12), (self.tls13, &TLS13)]
            .into_iter()
            .filter_map(|(spoken, version)| spoken.then_some(version))
            .collect();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .map_err(|error| failed("cipher_suites", error))?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(certs) => builder.with_client_cert_verifier(Arc::new(certs.verifier(&provider)?)),
        };
        let chain = certificates("cert", &self.chain_pem)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key_pem).map_err(|e| failed("key", e))?;
        let mut config =
            builder.with_single_cert(chain, key).map_err(|error| failed("cert", error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ignore_client_order = self.prefer_server_order;
        Ok(Arc::new(config))
    }

    fn provider(&self) -> CryptoProvider {
        let mut provider = ring::default_provider();
        if !self.cipher_suites.is_empty() {
            let all = provider.cipher_suites.clone();
            let named = |name: &String| {
                all.iter().find(|suite| suite.suite().as_str() == Some(name)).copied()
            };
            let tls13 =
                all.iter().filter(|suite| suite.version().version == ProtocolVersion::TLSv1_3);
            provider.cipher_suites =
                tls13.copied().chain(self.cipher_suites.iter().filter_map(named)).collect();
        }
        if !self.curves.is_empty() {
            let all = provider.kx_groups.clone();
            let named = |name: &String| {
                let group = match name.as_str() {
                    "CurveP256" => NamedGroup::secp256r1,
                    "CurveP384" => NamedGroup::secp384r1,
                    _ => NamedGroup::X25519,
                };
                all.iter().find(|kx| kx.name() == group).copied()
            };
            provider.kx_groups = self.curves.iter().filter_map(named).collect();
        }
        provider
    }
}

impl ClientCerts {
    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Clients, TlsError> {
        let issued = match &self.ca_pem {
            None => None,
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for root in certificates("client_ca", pem)? {
                    roots.add(root).map_err(|error| failed("client_ca", error))?;
                }
                let provider = Arc::clone(provider);
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                Some(verifier.map_err(|error| failed("client_ca", error))?)
            }
        };
        Ok(Clients {
            required: self.required,
            issued,
            allowed_sans: self.allowed_sans.clone(),
            algorithms: provider.signature_verification_algorithms,
        })
    }
}

fn certificates(
    subject: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(TlsError { subject, reason: "no certificate in it".to_owned() })
        }
        found => found.map_err(|error| failed(subject, error)),
    }
}

fn failed(subject: &'static str, error: impl std::fmt::Display) -> TlsError {
    TlsError { subject, reason: error.to_string() }
}

/// Decides on the certificates of clients.
#[derive(Debug)]
struct Clients {
    required: bool,
    issued: Option<Arc<dyn ClientCertVerifier>>,
    allowed_sans: Vec<String>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.issued.as_ref().map_or(&[], |issued| issued.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(issued) = &self.issued {
            issued.verify_client_cert(end_entity, intermediates, now)?;
        }
        if self.allowed_sans.is_empty() || has_one_of(end_entity, &self.allowed_sans)? {
            return Ok(ClientCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether a certificate has one of these names, letter for letter.
fn has_one_of(cert: &CertificateDer<'_>, allowed: &[String]) -> Result<bool, Error> {
    let bad = || Error::from(CertificateError::BadEncoding);
    let (_, cert) = X509Certificate::from_der(cert).map_err(|_| bad())?;
    let Some(names) = cert.subject_alternative_name().map_err(|_| bad())? else { return Ok(false) };
    Ok(names.value.general_names.iter().any(|name| match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => {
            allowed.iter().any(|one| one == text)
        }
        GeneralName::IPAddress(bytes) => address(bytes)
            .is_some_and(|address| allowed.iter().any(|one| one.parse() == Ok(address))),
        GeneralName::OtherName(..)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::RegisteredID(_)
        | GeneralName::Invalid(..) => false,
    }))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
