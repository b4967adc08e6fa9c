//! Between rollbackd and Prometheus: passes answers on, or does to them what goes wrong in the
//! field.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use axum::http::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::client;

/// What happens to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Silence,
    Status500,
    Garbage,
    /// Every value is NaN.
    Nan,
    /// Good, and without a series.
    Empty,
    /// The connection is cut in the midst of it.
    Half,
    Redirect,
    /// 100 MiB.
    Huge,
}

pub(crate) struct Proxy {
    pub(crate) url: String,
    fault: Arc<Mutex<Fault>>,
    serving: JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    upstream: String,
    client: reqwest::Client,
    fault: Arc<Mutex<Fault>>,
}

impl Proxy {
    pub(crate) async fn start(upstream: &str) -> Self {
        let fault = Arc::new(Mutex::new(Fault::None));
        let shared =
            Shared { upstream: upstream.to_owned(), client: client(), fault: fault.clone() };
        let app = Router::new().fallback(pass_on).with_state(shared);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url: format!("http://{address}"), fault, serving }
    }

    pub(crate) fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn pass_on(State(shared): State<Shared>, request: Request) -> Response<Body> {
    let fault = *shared.fault.lock().unwrap();
    let answer = |status: StatusCode, body: Body| {
        let answer = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
        answer.body(body).unwrap()
    };
    match fault {
        Fault::Silence => std::future::pending().await,
        Fault::Status500 => answer(StatusCode::INTERNAL_SERVER_ERROR, "overloaded".into()),
        Fault::Garbage => answer(StatusCode::OK, "<html>Welcome to the router</html>".into()),
        Fault::Empty => {
            let empty = json!({ "resultType": "matrix", "result": [] });
            let empty = json!({ "status": "success", "data": empty });
            answer(StatusCode::OK, empty.to_string().into())
        }
        Fault::Redirect => Response::builder()
            .status(StatusCode::FOUND)
            .header(LOCATION, format!("{}{}", shared.upstream, request.uri()))
            .body(Body::empty())
            .unwrap(),
        Fault::Huge => {
            let part: Bytes = vec![b' '; 1 << 20].into();
            let parts = futures::stream::iter((0..100).map(move |_| Ok::<_, String>(part.clone())));
            answer(StatusCode::OK, Body::from_stream(parts))
        }
        Fault::None | Fault::Nan | Fault::Half => {
            let (status, whole) = ask(&shared, request).await;
            if fault == Fault::Half {
                return half(&whole);
            }
            let body = if fault == Fault::Nan { without_numbers(&whole).into() } else { whole };
            answer(status, body.into())
        }
    }
}

async fn ask(shared: &Shared, request: Request) -> (StatusCode, Bytes) {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let asked = shared
        .client
        .request(parts.method, format!("{}{}", shared.upstream, parts.uri))
        .header(CONTENT_TYPE, parts.headers.get(CONTENT_TYPE).unwrap())
        .body(body);
    match asked.send().await {
        Ok(answer) => (answer.status(), answer.bytes().await.unwrap_or_default()),
        Err(_) => (StatusCode::BAD_GATEWAY, Bytes::new()),
    }
}

fn without_numbers(body: &[u8]) -> String {
    let mut answer: Value = serde_json::from_slice(body).unwrap();
    for series in answer["data"]["result"].as_array_mut().unwrap() {
        for point in series["values"].as_array_mut().unwrap() {
            point[1] = "NaN".into();
        }
    }
    answer.to_string()
}

fn half(whole: &Bytes) -> Response<Body> {
    let first = whole.slice(..whole.len() / 2);
    let cut = Err("cut".to_owned());
    Response::builder()
        .header(CONTENT_TYPE, "application/json")
        .header(CONTENT_LENGTH, whole.len())
        .body(Body::from_stream(futures::stream::iter([Ok(first), cut])))
        .unwrap()
}
