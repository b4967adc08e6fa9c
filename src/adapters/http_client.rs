//! How a server is reached: addresses, credentials, certificates.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, Identity, Url, redirect};

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    fn header(&self, subject: &str) -> Result<HeaderValue, InvalidSettings> {
        let mut value = HeaderValue::from_str(&self.0).map_err(|error| invalid(subject, &error))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// Where the `Authorization` header comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Authorization {
    /// There is none, but for credentials in the URL.
    #[default]
    None,
    /// The whole value, such as `Bearer …`.
    Header(Secret),
    /// Read for every request, so that a rotated token is used at once.
    CredentialsFile {
        /// What stands before the file's content: `Bearer`, for one.
        scheme: String,
        /// The file; white space at its end is left out.
        path: PathBuf,
    },
}

impl Authorization {
    pub(crate) async fn read(&self) -> Result<Option<HeaderValue>, InvalidSettings> {
        match self {
            Self::None => Ok(None),
            Self::Header(value) => value.header("authorization").map(Some),
            Self::CredentialsFile { scheme, path } => {
                let subject = path.display().to_string();
                let text = tokio::fs::read_to_string(path)
                    .await
                    .map_err(|error| invalid(&subject, &error))?;
                let credentials = text.trim_end();
                if credentials.is_empty() {
                    return Err(InvalidSettings { subject, reason: "it is empty".into() });
                }
                Secret(format!("{scheme} {credentials}")).header(&subject).map(Some)
            }
        }
    }
}

/// Certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM; only what these sign is trusted. Without it, what the system trusts.
    pub ca_file: Option<PathBuf>,
    /// PEM certificate chain and key to show to the server.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Trust any certificate.
    pub insecure_skip_verify: bool,
}

/// Which servers to ask or tell, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Tried in order; each may have a path, and credentials.
    pub urls: Vec<String>,
    /// How long one request may take, over all servers and retries.
    pub timeout: Duration,
    /// How often all servers are asked again when none could answer.
    pub retries: u32,
    /// Sent with every request.
    pub headers: Vec<(String, Secret)>,
    /// Sent with every request; overrules credentials in the URL.
    pub authorization: Authorization,
    /// For `https` URLs.
    pub tls: Tls,
}

/// Why a server cannot be asked as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: {reason}")]
pub struct InvalidSettings {
    /// The file, URL or header, without credentials.
    pub subject: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Settings {
    pub(crate) fn header_map(&self) -> Result<HeaderMap, InvalidSettings> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let header: HeaderName = name.parse().map_err(|error| invalid(name, &error))?;
            headers.insert(header, value.header(name)?);
        }
        Ok(headers)
    }

    pub(crate) fn http_client(&self) -> Result<Client, InvalidSettings> {
        self.header_map()?;
        // An error says that one is installed already, which is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut builder = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .tls_danger_accept_invalid_certs(self.tls.insecure_skip_verify);
        if let Some(path) = &self.tls.ca_file {
            let roots = Certificate::from_pem_bundle(&read(path)?)
                .map_err(|error| invalid(&path.display().to_string(), &error))?;
            if roots.is_empty() {
                let subject = path.display().to_string();
                return Err(InvalidSettings { subject, reason: "no certificate in it".into() });
            }
            builder = builder.tls_certs_only(roots);
        } else if !self.urls.iter().any(|url| url.starts_with("https:")) {
            // Without TLS, an image without certificates is no reason to fail.
            builder = builder.tls_certs_only([]);
        }
        if let Some((chain, key)) = &self.tls.client {
            let pem = [read(chain)?, b"\n".to_vec(), read(key)?].concat();
            let identity = Identity::from_pem(&pem)
                .map_err(|error| invalid(&chain.display().to_string(), &error))?;
            builder = builder.identity(identity);
        }
        builder.build().map_err(|error| invalid("tls_config", &error))
    }
}

/// The URL for error texts.
pub(crate) fn without_credentials(url: &str) -> Result<String, InvalidSettings> {
    let parsed: Url = url.parse().map_err(|error| invalid("url", &error))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
        let reason = "it is neither http:// nor https://".into();
        return Err(InvalidSettings { subject: shown(url), reason });
    }
    Ok(shown(url))
}

/// A URL without what may be secret in it: user, password, query and fragment.
pub(crate) fn shown(url: &str) -> String {
    let Ok(mut parsed) = url.parse::<Url>() else {
        return url.split(['?', '#', '@']).next().unwrap_or_default().to_owned();
    };
    // An error says that this kind of URL has neither.
    let stripped = parsed.set_username("").and_then(|()| parsed.set_password(None));
    if stripped.is_err() {
        return format!("{}:…", parsed.scheme());
    }
    parsed.set_query(None);
    parsed.set_fragment(None);
    parsed.as_str().trim_end_matches('/').to_owned()
}

fn read(path: &Path) -> Result<Vec<u8>, InvalidSettings> {
    std::fs::read(path).map_err(|error| invalid(&path.display().to_string(), &error))
}

fn invalid(subject: &str, error: &dyn std::error::Error) -> InvalidSettings {
    let reason = match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    InvalidSettings { subject: subject.to_owned(), reason }
}
