//! The little HTTP that metrics need: two paths, bounded connections, bounded time.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Observe, render};
use crate::clock;
use crate::error::{Error, Result};

/// Connections at a time; further ones wait.
const CONNECTIONS_MAX: usize = 16;
/// How long one may take in all.
const CONNECTION_LIMIT: Duration = Duration::from_secs(30);
/// How long its request's head may take.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// Most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;

pub(super) async fn serve(listen: SocketAddr, observe: Observe) -> Result<()> {
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        Error::config(format!("metrics.listen {listen} cannot be listened at"))
            .source(error)
            .hint("choose a free port and an address of this host")
    })?;
    tracing::info!(listen = %listener.local_addr().unwrap_or(listen), "metrics are told at /metrics");
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let Ok((stream, _)) = accepted else {
            // Too many open files, say: it passes.
            clock::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let observe = Arc::clone(&observe);
        connections.spawn(async move {
            let _place = place;
            let service = service_fn(move |request| {
                let answer = answer(&request, &observe);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_LIMIT)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service);
            // Whoever asked has gone, or has talked too long.
            drop(clock::with_timeout(CONNECTION_LIMIT, connection).await);
        });
    }
}

fn answer(request: &Request<Incoming>, observe: &Observe) -> Response<Full<Bytes>> {
    let known = matches!(request.uri().path(), "/metrics" | "/healthz");
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, render(&observe())),
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, "ok\n".to_owned()),
        _ if known => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "/metrics or /healthz\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    response
}
