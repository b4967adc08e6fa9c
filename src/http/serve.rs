//! Connections: accepted, limited, and closed in good order.

use std::future::Future;
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

use super::Limits;
use crate::metrics::{Metrics, Refused};

/// The longest a request's line and headers may be together.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// How long to wait when no connection can be accepted, for want of file descriptors say.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

/// How connections are taken.
#[derive(Clone, Debug)]
pub struct Doors {
    /// What TLS is spoken with; what is sent here last is for the connections that come next.
    /// `None`: plain HTTP.
    pub tls: watch::Receiver<Option<Arc<ServerConfig>>>,
    /// What a peer may cost.
    pub limits: Limits,
    /// Where connections that are refused are counted.
    pub metrics: Metrics,
}

/// Serves until `shutdown` is done and the requests in progress are answered, or
/// [`Limits::shutdown_grace`] is over.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    doors: Doors,
    shutdown: impl Future<Output = ()>,
) {
    let connections_max = doors.limits.connections_max;
    let room = Arc::new(Semaphore::new(connections_max as usize));
    let (stop, stopped) = watch::channel(());
    let accepting = async {
        // The semaphore is never closed, so that this ends only by being dropped.
        while let Ok(place) = Arc::clone(&room).acquire_owned().await {
            let stream = accept(&listener).await;
            let (router, doors, stopped) = (router.clone(), doors.clone(), stopped.clone());
            tokio::spawn(async move {
                let tls = doors.tls.borrow().clone();
                match tls {
                    None => connection(stream, router, &doors, stopped).await,
                    Some(tls) => secured(stream, tls, router, &doors, stopped).await,
                }
                drop(place);
            });
        }
    };
    tokio::select! {
        () = accepting => {}
        () = shutdown => {}
    }
    drop(listener);
    drop(stop);
    // All places are free when the last connection has closed, each within the grace.
    drop(room.acquire_many(connections_max).await);
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // The peer hung up before its turn came.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Shakes hands first, in the time that headers may take.
async fn secured(
    stream: TcpStream,
    tls: Arc<ServerConfig>,
    router: Router,
    doors: &Doors,
    stopped: watch::Receiver<()>,
) {
    let shaken = timeout(doors.limits.header_timeout, TlsAcceptor::from(tls).accept(stream)).await;
    let reason = match shaken {
        Ok(Ok(stream)) => return connection(stream, router, doors, stopped).await,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no handshake in time".to_owned(),
    };
    doors.metrics.request_refused(Refused::Tls);
    tracing::debug!(reason, "connection refused");
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    doors: &Doors,
    mut stopped: watch::Receiver<()>,
) {
    let limits = doors.limits;
    let mut stream = Box::pin(TimeoutStream::new(stream));
    stream.as_mut().set_write_timeout_pinned(Some(limits.write_timeout));
    let asked = AtomicBool::new(false);
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        router.call(request)
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_buf_size(HEADER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
    );
    let grace = tokio::select! {
        result = connection.as_mut() => {
            if let Err(error) = result {
                // One that has asked before and asks no more is idle, and nobody's fault.
                if error.is_parse() || (error.is_timeout() && !asked.load(Ordering::Relaxed)) {
                    doors.metrics.request_refused(Refused::Connection);
                }
                tracing::debug!(%error, "connection ended early");
            }
            return;
        }
        // Nothing is ever sent: this is the sender being dropped.
        _ = stopped.changed() => limits.shutdown_grace,
        () = sleep(limits.connection_age_max) => limits.request_timeout + limits.wait_max,
    };
    connection.as_mut().graceful_shutdown();
    if timeout(grace, connection).await.is_err() {
        tracing::debug!("connection cut: it did not finish in time");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn running(
        limits: Limits,
        router: Router,
    ) -> (std::net::SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        let metrics = Metrics::new("test", "test").unwrap();
        running_behind(Doors { tls: watch::channel(None).1, limits, metrics }, router).await
    }

    async fn running_behind(
        doors: Doors,
        router: Router,
    ) -> (std::net::SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, router, doors, async {
            stopped.await.ok();
        }));
        (address, stop, server)
    }

    async fn exchange(stream: &mut TcpStream, request: &str) -> String {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    #[tokio::test]
    async fn a_request_in_progress_is_answered_before_the_end() {
        let (entered, mut enters) = tokio::sync::mpsc::channel(1);
        let (go, gone) = watch::channel(false);
        let handler = move || {
            let (entered, mut gone) = (entered.clone(), gone.clone());
            async move {
                entered.send(()).await.unwrap();
                gone.wait_for(|gone| *gone).await.unwrap();
                "late"
            }
        };
        let (address, stop, server) =
            running(Limits::default(), Router::new().route("/", get(handler))).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let answer = tokio::spawn(async move {
            exchange(&mut stream, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await
        });
        enters.recv().await.unwrap();
        stop.send(()).unwrap();
        go.send(true).unwrap();
        let answer = answer.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("late"), "{answer}");
        timeout(PATIENCE, server).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_request_that_never_ends_does_not_keep_rollbackd_from_stopping() {
        let (entered, mut enters) = tokio::sync::mpsc::channel::<()>(1);
        let handler = move || {
            let entered = entered.clone();
            async move {
                entered.send(()).await.unwrap();
                std::future::pending::<()>().await;
            }
        };
        let limits = Limits { shutdown_grace: Duration::from_millis(20), ..Limits::default() };
        let (address, stop, server) = running(limits, Router::new().route("/", get(handler))).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        enters.recv().await.unwrap();
        stop.send(()).unwrap();
        timeout(PATIENCE, server).await.unwrap().unwrap();
    }

    fn refused(metrics: &Metrics) -> bool {
        let text = metrics.encode().unwrap();
        !text.contains("requests_refused_total{reason=\"connection\"} 0")
    }

    #[tokio::test]
    async fn headers_that_do_not_come_do_not_end_or_are_none_close_the_connection() {
        let limits = Limits { header_timeout: Duration::from_millis(50), ..Limits::default() };
        let endless = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(HEADER_BYTES_MAX));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(200));
        #[rustfmt::skip]
        let cases = [
            ("silent",     "",                          ""),
            ("slow",       "GET / HTTP/1.1\r\nhost: ",  ""),
            ("no HTTP",    "what?\r\n\r\n",             "HTTP/1.1 400"),
            ("endless",    &endless,                    "HTTP/1.1 431"),
            ("too many",   &many,                       "HTTP/1.1 431"),
        ];
        for (name, request, answer) in cases {
            let metrics = Metrics::new("test", "test").unwrap();
            let doors = Doors { tls: watch::channel(None).1, limits, metrics: metrics.clone() };
            let (address, _stop, _server) = running_behind(doors, Router::new()).await;
            let mut stream = TcpStream::connect(address).await.unwrap();
            let got = exchange(&mut stream, request).await;
            assert!(
                got.starts_with(answer) && got.is_empty() == answer.is_empty(),
                "{name}: {got}"
            );
            // The peer may see the end a moment before it is counted.
            timeout(PATIENCE, async {
                while !refused(&metrics) {
                    tokio::task::yield_now().await;
                }
            })
            .await
            .expect(name);
        }
    }

    #[tokio::test]
    async fn who_does_not_shake_hands_is_turned_away_and_counted() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let settings = super::super::TlsSettings {
            chain_pem: made.cert.pem().into(),
            key_pem: made.signing_key.serialize_pem().into(),
            tls13: true,
            ..Default::default()
        };
        let limits = Limits { header_timeout: Duration::from_millis(50), ..Limits::default() };
        let metrics = Metrics::new("test", "test").unwrap();
        let tls = watch::channel(Some(settings.server_config().unwrap())).1;
        let doors = Doors { tls, limits, metrics: metrics.clone() };
        let router = Router::new().route("/", get(async || "served"));
        let (address, _stop, _server) = running_behind(doors, router).await;
        for (count, request) in (1..).zip(["", "GET / HTTP/1.1\r\nhost: x\r\n\r\n"]) {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            // An alert of TLS, or nothing.
            drop(timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap());
            assert!(!answer.windows(4).any(|part| part == b"HTTP"), "{answer:?}");
            let counted = format!("requests_refused_total{{reason=\"tls\"}} {count}");
            timeout(PATIENCE, async {
                while !metrics.encode().unwrap().contains(&counted) {
                    tokio::task::yield_now().await;
                }
            })
            .await
            .expect(request);
        }
    }

    #[tokio::test]
    async fn a_connection_that_was_served_and_is_idle_is_closed_and_not_counted() {
        let limits = Limits { header_timeout: Duration::from_millis(50), ..Limits::default() };
        let metrics = Metrics::new("test", "test").unwrap();
        let doors = Doors { tls: watch::channel(None).1, limits, metrics: metrics.clone() };
        let router = Router::new().route("/", get(async || "served"));
        let (address, stop, server) = running_behind(doors, router).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(
            exchange(&mut stream, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.ends_with("served")
        );
        stop.send(()).unwrap();
        timeout(PATIENCE, server).await.unwrap().unwrap();
        assert!(!refused(&metrics));
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_cut() {
        /// Says when the answer's body is dropped.
        struct Told(tokio::sync::mpsc::UnboundedSender<()>);
        impl Drop for Told {
            fn drop(&mut self) {
                self.0.send(()).ok();
            }
        }
        let limits = Limits { write_timeout: Duration::from_millis(50), ..Limits::default() };
        let (dropped, mut drops) = tokio::sync::mpsc::unbounded_channel();
        // Without an end, so that it fills every buffer there is.
        let handler = move || {
            let told = Told(dropped.clone());
            let body = futures::stream::unfold(told, async |told| {
                Some((Ok::<_, std::convert::Infallible>(vec![b'x'; 1 << 20]), told))
            });
            std::future::ready(axum::body::Body::from_stream(body))
        };
        let (address, _stop, _server) =
            running(limits, Router::new().route("/", get(handler))).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        timeout(PATIENCE, drops.recv()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait_for_their_turn() {
        let limits = Limits {
            connections_max: 1,
            connection_age_max: Duration::from_millis(50),
            ..Limits::default()
        };
        let router = Router::new().route("/", get(async || "served"));
        let (address, _stop, _server) = running(limits, router).await;
        let _first = TcpStream::connect(address).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        let request = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        assert!(exchange(&mut second, request).await.ends_with("served"));
    }
}
