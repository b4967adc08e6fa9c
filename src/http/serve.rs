//! Connections: accepted, limited, and closed in good order.

use std::future::Future;
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::Limits;

/// The longest a request's line and headers may be together.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// How long to wait when no connection can be accepted, for want of file descriptors say.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

/// Serves until `shutdown` is done and the requests in progress are answered, or
/// [`Limits::shutdown_grace`] is over.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let room = Arc::new(Semaphore::new(limits.connections_max as usize));
    let (stop, stopped) = watch::channel(());
    let accepting = async {
        // The semaphore is never closed, so that this ends only by being dropped.
        while let Ok(place) = Arc::clone(&room).acquire_owned().await {
            let stream = accept(&listener).await;
            let connection = connection(stream, router.clone(), limits, stopped.clone());
            tokio::spawn(async move {
                connection.await;
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
    drop(room.acquire_many(limits.connections_max).await);
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

async fn connection(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    mut stopped: watch::Receiver<()>,
) {
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_buf_size(HEADER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    let grace = tokio::select! {
        result = connection.as_mut() => {
            if let Err(error) = result {
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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, router, limits, async {
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

    #[tokio::test]
    async fn headers_that_do_not_come_or_do_not_end_close_the_connection() {
        let limits = Limits { header_timeout: Duration::from_millis(50), ..Limits::default() };
        let (address, _stop, _server) = running(limits, Router::new()).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        exchange(&mut silent, "").await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        exchange(&mut slow, "GET / HTTP/1.1\r\nhost: ").await;
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
