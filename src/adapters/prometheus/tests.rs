use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::domain::time::Timestamp;

const EMPTY: &str = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;

/// What the fake server does with a request.
#[derive(Clone)]
enum Reply {
    /// Status line, further header lines, body.
    Full(&'static str, &'static str, String),
    /// A promise of 1000 bytes, then two, then the end.
    CutOff,
    /// Nothing, ever.
    Hang,
}

/// Plays one reply a request, the last one for ever; keeps what it was sent.
struct FakeServer {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl FakeServer {
    async fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&seen);
        tokio::spawn(async move {
            let mut kept_open = Vec::new();
            for turn in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read_request(&mut stream).await;
                keep.lock().unwrap().push(request);
                match replies.get(turn).or(replies.last()).unwrap() {
                    Reply::Full(status, headers, body) => {
                        let length = body.len();
                        let text = format!(
                            "HTTP/1.1 {status}\r\n{headers}content-type: application/json\r\n\
                             connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
                        );
                        stream.write_all(text.as_bytes()).await.unwrap();
                    }
                    Reply::CutOff => {
                        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"";
                        stream.write_all(text).await.unwrap();
                    }
                    Reply::Hang => kept_open.push(stream),
                }
            }
        });
        Self { url, seen }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn read_request(stream: &mut tokio::net::TcpStream) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |l| l.parse().unwrap()) {
                return text;
            }
        }
        let read = stream.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "the request broke off: {text}");
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
}

fn settings(urls: &[&FakeServer]) -> Settings {
    Settings {
        urls: urls.iter().map(|server| server.url.clone()).collect(),
        timeout: Duration::from_secs(5),
        retries: 0,
        headers: Vec::new(),
        authorization: Authorization::None,
        tls: Tls::default(),
    }
}

fn query() -> RangeQuery {
    RangeQuery {
        expr: "up".into(),
        start: Timestamp::from_millis(15_000),
        end: Timestamp::from_millis(45_000),
        step: Duration::from_secs(15),
    }
}

async fn ask(settings: Settings) -> Result<Vec<Series>, MetricError> {
    PrometheusSource::new(settings).unwrap().range(query()).await
}

fn ok(body: &str) -> Reply {
    Reply::Full("200 OK", "", body.to_owned())
}

fn status(line: &'static str) -> Reply {
    Reply::Full(line, "", r#"{"status":"error","errorType":"x","error":"said so"}"#.to_owned())
}

#[tokio::test]
async fn an_empty_answer_is_an_answer() {
    let server = FakeServer::start(vec![ok(EMPTY)]).await;
    assert_eq!(ask(settings(&[&server])).await, Ok(vec![]));
    let sent = &server.seen()[0];
    assert!(sent.starts_with("POST /api/v1/query_range "), "{sent}");
    assert!(sent.contains("query=up&start=15&end=45&step=15&timeout="), "{sent}");
}

#[tokio::test]
async fn every_kind_of_reply_goes_to_the_next_server_or_not() {
    let moved = Reply::Full("302 Found", "location: http://u:p@x/?token=1\r\n", String::new());
    let partial = r#"{"status":"success","warnings":["a store is down"],
        "data":{"resultType":"matrix","result":[]}}"#;
    #[rustfmt::skip]
    let cases: Vec<(&str, Reply, &str, bool)> = vec![
        ("internal error",  status("500 Internal Server Error"), "did not answer: 500",  true),
        ("unavailable",     status("503 Service Unavailable"),   "did not answer: 503",  true),
        ("too many",        status("429 Too Many Requests"),     "did not answer: 429",  true),
        ("bad data",        status("400 Bad Request"),           "refused the query: 400 Bad Request: said so", false),
        ("execution",       status("422 Unprocessable Entity"),  "refused the query: 422", false),
        ("no permission",   status("403 Forbidden"),             "refused the query: 403", true),
        ("redirect",        moved,                               "302 Found: redirected to http://x, not followed", true),
        ("garbage",         ok("<html>"),                        "not a matrix",         true),
        ("half an answer",  Reply::CutOff,                       "broke off",            true),
        ("partial answer",  ok(partial),                         "partial: a store is down", true),
    ];
    for (name, reply, text, next_is_asked) in cases {
        let bad = FakeServer::start(vec![reply]).await;
        let good = FakeServer::start(vec![ok(EMPTY)]).await;
        let alone = ask(settings(&[&bad])).await.unwrap_err().to_string();
        assert!(alone.contains(text), "{name}: {alone}");
        assert_eq!(ask(settings(&[&bad, &good])).await.is_ok(), next_is_asked, "{name}");
        assert_eq!(good.seen().len(), usize::from(next_is_asked), "{name}");
    }
}

#[tokio::test]
async fn only_what_may_pass_is_tried_again() {
    let busy = || status("503 Service Unavailable");
    let server = FakeServer::start(vec![busy(), busy(), ok(EMPTY)]).await;
    assert!(ask(Settings { retries: 2, ..settings(&[&server]) }).await.is_ok());
    assert_eq!(server.seen().len(), 3);

    let server = FakeServer::start(vec![busy()]).await;
    assert!(ask(Settings { retries: 1, ..settings(&[&server]) }).await.is_err());
    assert_eq!(server.seen().len(), 2);

    let server = FakeServer::start(vec![status("400 Bad Request"), ok(EMPTY)]).await;
    assert!(ask(Settings { retries: 2, ..settings(&[&server]) }).await.is_err());
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_server_that_hangs_leaves_time_for_the_next() {
    let deaf = FakeServer::start(vec![Reply::Hang]).await;
    let good = FakeServer::start(vec![ok(EMPTY)]).await;
    let timeout = Duration::from_millis(400);
    let alone = ask(Settings { timeout, retries: 5, ..settings(&[&deaf]) }).await.unwrap_err();
    assert!(matches!(&alone, MetricError::Unreachable { .. }), "{alone}");
    assert!(alone.to_string().contains("no answer within"), "{alone}");
    assert!(ask(Settings { timeout, ..settings(&[&deaf, &good]) }).await.is_ok());
}

#[tokio::test]
async fn a_closed_port_is_unreachable_and_no_password_is_shown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let gone = Settings { urls: vec![format!("http://me:hush@{address}/prom")], ..settings(&[]) };
    let text = ask(gone).await.unwrap_err().to_string();
    assert!(text.starts_with(&format!("http://{address}/prom did not answer: ")), "{text}");
    assert!(text.contains("refused") && !text.contains("hush"), "{text}");
}

#[tokio::test]
async fn headers_are_sent_and_credentials_read_anew() {
    let server = FakeServer::start(vec![ok(EMPTY)]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "one\n").unwrap();
    let source = PrometheusSource::new(Settings {
        headers: vec![("X-Scope-OrgID".into(), Secret::new("voice".into()))],
        authorization: Authorization::CredentialsFile {
            scheme: "Bearer".into(),
            path: file.path().into(),
        },
        ..settings(&[&server])
    })
    .unwrap();
    source.range(query()).await.unwrap();
    std::fs::write(file.path(), "two\n").unwrap();
    source.range(query()).await.unwrap();
    std::fs::write(file.path(), "\n").unwrap();
    assert!(source.range(query()).await.is_err());
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen[0].contains("x-scope-orgid: voice\r\nauthorization: Bearer one\r\n"), "{seen:?}");
    assert!(seen[1].contains("authorization: Bearer two\r\n"), "{seen:?}");
}

#[tokio::test]
async fn the_observer_hears_of_every_query() {
    let server = FakeServer::start(vec![ok(EMPTY), ok("no")]).await;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear = Arc::clone(&heard);
    let source = PrometheusSource::new(settings(&[&server]))
        .unwrap()
        .with_observer(Arc::new(move |_, answered| hear.lock().unwrap().push(answered)));
    drop(source.range(query()).await);
    drop(source.range(query()).await);
    assert_eq!(*heard.lock().unwrap(), [true, false]);
}

#[tokio::test]
async fn times_between_seconds_are_refused_rather_than_rounded() {
    let server = FakeServer::start(vec![ok(EMPTY)]).await;
    let source = PrometheusSource::new(settings(&[&server])).unwrap();
    let end = Timestamp::from_millis(45_500);
    let refused = source.range(RangeQuery { end, ..query() }).await;
    assert!(matches!(refused, Err(MetricError::Refused { .. })), "{refused:?}");
    assert!(server.seen().is_empty());
}

#[test]
fn settings_that_cannot_work_are_refused_before_the_first_query() {
    let with = |url: &str| Settings { urls: vec![url.into()], ..settings(&[]) };
    let nowhere = Tls { ca_file: Some("/nonexistent/ca.pem".into()), ..Tls::default() };
    #[rustfmt::skip]
    let cases: Vec<(Settings, &str)> = vec![
        (settings(&[]),                                        "url: there is none"),
        (with("127.0.0.1:9090"),                               "url: "),
        (with("ftp://me:hush@x"),                              "ftp://x: it is neither"),
        (Settings { tls: nowhere, ..with("https://x") },       "/nonexistent/ca.pem: "),
        (Settings { headers: vec![("a b".into(), Secret::new(String::new()))], ..with("http://x") }, "a b: "),
    ];
    for (settings, text) in cases {
        let error = PrometheusSource::new(settings).unwrap_err().to_string();
        assert!(error.starts_with(text), "{error}");
        assert!(!error.contains("hush"), "{error}");
    }
}

/// A certificate and its key, as files; each is its own authority.
struct Pair {
    certified: rcgen::CertifiedKey<rcgen::KeyPair>,
    directory: tempfile::TempDir,
}

impl Pair {
    fn new() -> Self {
        let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("cert.pem"), certified.cert.pem()).unwrap();
        let key = certified.signing_key.serialize_pem();
        std::fs::write(directory.path().join("key.pem"), key).unwrap();
        Self { certified, directory }
    }

    fn files(&self) -> (std::path::PathBuf, std::path::PathBuf) {
        (self.directory.path().join("cert.pem"), self.directory.path().join("key.pem"))
    }
}

/// A server that speaks TLS, and answers only those who show a certificate of `clients`, if any.
async fn tls_server(own: &Pair, clients: Option<&Pair>) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(clients.certified.cert.der().clone()).unwrap();
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
                Arc::new(roots),
                provider,
            );
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let key = own.certified.signing_key.serialize_der();
    let config = builder
        .with_single_cert(vec![own.certified.cert.der().clone()], key.try_into().unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A handshake that fails is what some tests are about.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                let length = EMPTY.len();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{EMPTY}"
                );
                // The client may have gone.
                drop(stream.write_all(answer.as_bytes()).await);
                drop(stream.shutdown().await);
            }
        }
    });
    url
}

#[tokio::test]
async fn tls_is_spoken_with_a_server_that_is_trusted_and_with_no_other() {
    let (server, client, stranger) = (Pair::new(), Pair::new(), Pair::new());
    let open = tls_server(&server, None).await;
    let closed = tls_server(&server, Some(&client)).await;
    let trusting = |pair: &Pair| Tls { ca_file: Some(pair.files().0), ..Tls::default() };
    let showing = |pair: &Pair| Tls { client: Some(pair.files()), ..trusting(&server) };
    let blind = Tls { insecure_skip_verify: true, ..Tls::default() };
    #[rustfmt::skip]
    let cases = [
        ("its authority is trusted",          &open,   trusting(&server),   true),
        ("another authority is",              &open,   trusting(&stranger), false),
        ("only the system's are",             &open,   Tls::default(),      false),
        ("nothing is verified",               &open,   blind,               true),
        ("it wants a certificate, gets none", &closed, trusting(&server),   false),
        ("it gets one it knows",              &closed, showing(&client),    true),
        ("it gets one it does not know",      &closed, showing(&stranger),  false),
    ];
    for (name, url, tls, answers) in cases {
        let settings = Settings { urls: vec![url.clone()], tls, retries: 0, ..settings(&[]) };
        let answer = ask(settings).await;
        assert_eq!(answer.is_ok(), answers, "{name}: {answer:?}");
        if let Err(error) = answer {
            assert!(matches!(error, MetricError::Unreachable { .. }), "{name}: {error}");
        }
    }
}
