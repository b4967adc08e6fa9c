//! Posting notices over HTTP.

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, StatusCode};

use super::http_client::{self, InvalidSettings, Settings};
use crate::ports::notify::{Notifier, NotifyError};

/// The text of an answer shown in an error, in characters.
const ANSWER_CHARS_MAX: usize = 200;

/// Which of several servers must have a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Each is told; one that takes it is enough. As Prometheus does with Alertmanagers.
    Every,
    /// They are tried in order until one takes it.
    First,
}

/// Posts to the servers of some settings.
#[derive(Debug)]
pub struct HttpNotifier {
    client: Client,
    settings: Settings,
    headers: HeaderMap,
    reach: Reach,
}

impl HttpNotifier {
    /// # Errors
    /// When a URL, header or certificate cannot be used.
    pub fn new(settings: Settings, reach: Reach) -> Result<Self, InvalidSettings> {
        for url in &settings.urls {
            http_client::without_credentials(url)?;
        }
        let (client, headers) = (settings.http_client()?, settings.header_map()?);
        Ok(Self { client, settings, headers, reach })
    }

    async fn post_to(
        &self,
        url: &str,
        headers: &[(&'static str, String)],
        body: Vec<u8>,
    ) -> Result<(), NotifyError> {
        let failed = |reason: String| NotifyError::Failed(format!("{}: {reason}", shown(url)));
        let mut sent = self.headers.clone();
        sent.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in headers {
            let value = value.parse().map_err(|_| failed(format!("{name} cannot be sent")))?;
            sent.insert(*name, value);
        }
        let mut request = self.client.post(url).timeout(self.settings.timeout).headers(sent);
        let credentials = self.settings.authorization.read().await;
        if let Some(value) = credentials.map_err(|error| failed(error.to_string()))? {
            request = request.header(AUTHORIZATION, value);
        }
        let answer = request.body(body).send().await;
        let answer = answer.map_err(|error| failed(cause(&error.without_url())))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let said = answer.text().await.unwrap_or_default();
        let said: String = said.trim().chars().take(ANSWER_CHARS_MAX).collect();
        let reason = format!("{}: HTTP {status}: {said}", shown(url));
        Err(if is_final(status) {
            NotifyError::Refused(reason)
        } else {
            NotifyError::Failed(reason)
        })
    }
}

impl Notifier for HttpNotifier {
    async fn post(
        &self,
        path: &str,
        headers: &[(&'static str, String)],
        body: Vec<u8>,
    ) -> Result<(), NotifyError> {
        let mut taken = false;
        let mut worst = None;
        for url in &self.settings.urls {
            match self.post_to(&format!("{url}{path}"), headers, body.clone()).await {
                Ok(()) if self.reach == Reach::First => return Ok(()),
                Ok(()) => taken = true,
                // One that may still take it outweighs one that never will.
                Err(error @ NotifyError::Failed(_)) => worst = Some(error),
                Err(error @ NotifyError::Refused(_)) => worst = worst.or(Some(error)),
            }
        }
        match worst {
            Some(error) if !taken => Err(error),
            Some(_) | None => Ok(()),
        }
    }
}

/// Whether an answer speaks of the notice itself: neither of the way to the server, nor of
/// credentials, load or an address that people may still put right.
fn is_final(status: StatusCode) -> bool {
    status.is_client_error()
        && !matches!(status.as_u16(), 401 | 403 | 404 | 405 | 407 | 408 | 425 | 429)
}

fn shown(url: &str) -> String {
    http_client::shown(url)
}

/// The innermost reason, which says more than the layers around it.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::adapters::http_client::{Authorization, Tls};
    use axum::Router;
    use axum::routing::post;
    use tokio::net::TcpListener;

    async fn server(status: u16) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = move || async move { (StatusCode::from_u16(status).unwrap(), "because") };
        let app = Router::new().route("/in", post(answer));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        url
    }

    fn notifier(urls: Vec<String>, reach: Reach) -> HttpNotifier {
        let settings = Settings {
            urls,
            timeout: Duration::from_secs(5),
            retries: 0,
            headers: Vec::new(),
            authorization: Authorization::None,
            tls: Tls::default(),
        };
        HttpNotifier::new(settings, reach).unwrap()
    }

    #[tokio::test]
    async fn an_answer_says_whether_to_try_again() {
        for (status, final_) in
            [(500, false), (503, false), (429, false), (403, false), (400, true)]
        {
            let notifier = notifier(vec![server(status).await], Reach::First);
            let error = notifier.post("/in", &[], b"{}".to_vec()).await.unwrap_err();
            assert_eq!(matches!(error, NotifyError::Refused(_)), final_, "{status}: {error}");
            assert!(error.to_string().contains("because"), "{error}");
        }
    }

    #[tokio::test]
    async fn one_alertmanager_of_several_is_enough_and_the_first_of_others() {
        let (bad, good) = (server(500).await, server(200).await);
        for reach in [Reach::Every, Reach::First] {
            let both = notifier(vec![bad.clone(), good.clone()], reach);
            assert_eq!(both.post("/in", &[], b"{}".to_vec()).await, Ok(()), "{reach:?}");
        }
        let none = notifier(vec!["http://127.0.0.1:9".to_owned()], Reach::Every);
        let error = none.post("/in", &[], b"{}".to_vec()).await.unwrap_err();
        assert!(matches!(error, NotifyError::Failed(_)), "{error}");
    }
}
