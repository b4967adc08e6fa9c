//! A receiver of events that fails twice before it takes any.

use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;
use tokio::net::TcpListener;

/// How often it fails.
const FAILURES: usize = 2;

pub(crate) struct Broker {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Broker {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
        let seeing = Arc::clone(&seen);
        let take = move |body: String| async move {
            let mut seen = seeing.lock().unwrap();
            seen.push(serde_json::from_str(&body).unwrap());
            let failing = seen.len() <= FAILURES;
            let status = if failing { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
            (status, Json(Value::Null))
        };
        let app = Router::new().route("/events", post(take));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, seen }
    }

    /// Everything posted, the failed attempts included.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.seen.lock().unwrap().clone()
    }
}
