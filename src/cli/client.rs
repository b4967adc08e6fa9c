//! How the commands reach a running rollbackd, and prove who they are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use reqwest::{Certificate, ClientBuilder, Identity, RequestBuilder};
use serde_json::Value;

use super::CommandError;

/// How long an answer may take; rollbackd itself gives up a little earlier.
const ANSWER_MAX: Duration = Duration::from_secs(35);

/// Where a token may be instead of in a file. No argument takes one: arguments show in the list
/// of processes.
const TOKEN_VARIABLE: &str = "ROLLBACKD_TOKEN";

/// Where rollbackd is, and what it takes to be heard there.
#[derive(Clone, Debug, Default, Args)]
pub struct Server {
    /// The running rollbackd.
    #[arg(
        long,
        value_name = "URL",
        env = "ROLLBACKD_URL",
        default_value = "http://127.0.0.1:9788"
    )]
    pub url: String,
    /// A file with the bearer token; or put the token into `ROLLBACKD_TOKEN`.
    #[arg(long, value_name = "FILE", env = "ROLLBACKD_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// The user for basic authentication.
    #[arg(
        long,
        value_name = "NAME",
        env = "ROLLBACKD_USER",
        requires = "password_file",
        conflicts_with = "token_file"
    )]
    pub user: Option<String>,
    /// A file with that user's password.
    #[arg(long, value_name = "FILE", env = "ROLLBACKD_PASSWORD_FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
    /// The authorities to trust instead of the system's, as PEM.
    #[arg(long, value_name = "FILE", env = "ROLLBACKD_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// The client's certificate, as PEM.
    #[arg(long, value_name = "FILE", env = "ROLLBACKD_CERT_FILE", requires = "key_file")]
    pub cert_file: Option<PathBuf>,
    /// The key of the client's certificate, as PEM.
    #[arg(long, value_name = "FILE", env = "ROLLBACKD_KEY_FILE", requires = "cert_file")]
    pub key_file: Option<PathBuf>,
}

/// Asks, and gives the answer and whether it is a good one.
///
/// # Errors
/// When a file cannot be read, nobody answers, or the answer is no JSON.
pub(super) async fn ask(
    server: &Server,
    path: &str,
    word: Option<Value>,
) -> Result<(bool, Value), CommandError> {
    let url = format!("{}{path}", server.url.trim_end_matches('/'));
    let unanswered = |reason: String| CommandError::Unanswered { url: url.clone(), reason };
    let client = builder(server)?.build().map_err(|error| unanswered(cause(&error)))?;
    let request = match &word {
        Some(word) => client.post(&url).json(word),
        None => client.get(&url),
    };
    let answer = proving(server, request)?.send().await;
    let answer = answer.map_err(|error| unanswered(cause(&error)))?;
    let status = answer.status();
    let body = answer.json().await;
    let body: Value = body.map_err(|error| unanswered(format!("{status}: {}", cause(&error))))?;
    Ok((status.is_success(), body))
}

fn builder(server: &Server) -> Result<ClientBuilder, CommandError> {
    // Another part may have installed one already, which serves as well.
    drop(rustls::crypto::ring::default_provider().install_default());
    // A redirect would take the token along to where nobody meant it to go.
    let none = reqwest::redirect::Policy::none();
    let mut client = reqwest::Client::builder().timeout(ANSWER_MAX).no_proxy().redirect(none);
    if let Some(path) = &server.ca_file {
        let roots = Certificate::from_pem_bundle(&read(path)?).map_err(|e| unusable(path, &e))?;
        client = client.tls_certs_only(roots);
    } else if !server.url.starts_with("https:") {
        // Without TLS, an image without certificates is no reason to fail.
        client = client.tls_certs_only([]);
    }
    if let Some((chain, key)) = server.cert_file.as_ref().zip(server.key_file.as_ref()) {
        let pem = [read(chain)?, b"\n".to_vec(), read(key)?].concat();
        client = client.identity(Identity::from_pem(&pem).map_err(|e| unusable(chain, &e))?);
    }
    Ok(client)
}

fn proving(server: &Server, request: RequestBuilder) -> Result<RequestBuilder, CommandError> {
    if let Some(path) = &server.token_file {
        return Ok(request.bearer_auth(line(path)?));
    }
    if let Some((user, path)) = server.user.as_ref().zip(server.password_file.as_ref()) {
        return Ok(request.basic_auth(user, Some(line(path)?)));
    }
    Ok(match std::env::var(TOKEN_VARIABLE) {
        Ok(token) => request.bearer_auth(token.trim()),
        Err(_) => request,
    })
}

fn line(path: &Path) -> Result<String, CommandError> {
    let text = String::from_utf8(read(path)?).map_err(|error| unusable(path, &error))?;
    Ok(text.trim_end().to_owned())
}

fn read(path: &Path) -> Result<Vec<u8>, CommandError> {
    std::fs::read(path).map_err(|error| unusable(path, &error))
}

fn unusable(path: &Path, error: &dyn std::error::Error) -> CommandError {
    CommandError::File { path: path.display().to_string(), reason: cause(error) }
}

/// What is at the bottom of it: the outer errors say little.
fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_rollbackd_that_is_not_there_is_named() {
        let server = Server { url: "http://127.0.0.1:1/".to_owned(), ..Server::default() };
        let error = ask(&server, "/api/v1/fleets", None).await.unwrap_err().to_string();
        assert!(error.starts_with("http://127.0.0.1:1/api/v1/fleets: "), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_is_named_and_nothing_is_sent_without_it() {
        let none = Some(PathBuf::from("/nowhere/file"));
        let url = "http://127.0.0.1:1".to_owned();
        let token = Server { url: url.clone(), token_file: none.clone(), ..Server::default() };
        let ca = Server { url, ca_file: none, ..Server::default() };
        for server in [token, ca] {
            let error = ask(&server, "/", None).await.unwrap_err().to_string();
            assert_eq!(error, "/nowhere/file: No such file or directory (os error 2)");
        }
    }
}
