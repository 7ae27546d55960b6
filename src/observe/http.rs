//! The little HTTP that this needs: a few paths, bounded connections, bounded time.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::metrics::CONTENT_TYPE;
use super::{Observe, document, render};
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

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
/// The page has all that it needs inside, and asks nobody but us.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) async fn serve(listen: SocketAddr, observe: Observe) -> Result<()> {
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        Error::config(format!("metrics.listen {listen} cannot be listened at"))
            .source(error)
            .hint("choose a free port and an address of this host")
    })?;
    tracing::info!(listen = %listener.local_addr().unwrap_or(listen), "the status page is at /, metrics are at /metrics");
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

/// What is answered: status, kind and text.
type Answer = (StatusCode, &'static str, String);

fn answer(request: &Request<Incoming>, observe: &Observe) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let (status, kind, text) = match (request.method(), page(path, observe)) {
        (&Method::GET | &Method::HEAD, Some(answer)) => answer,
        (_, Some(_)) => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned()),
        (_, None) => (StatusCode::NOT_FOUND, TEXT, "/ /status /metrics /healthz /readyz\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

fn page(path: &str, observe: &Observe) -> Option<Answer> {
    Some(match path {
        "/" => (StatusCode::OK, HTML, include_str!("page.html").to_owned()),
        "/status" => (StatusCode::OK, JSON, document(&observe()).to_string() + "\n"),
        "/metrics" => (StatusCode::OK, CONTENT_TYPE, render(&observe())),
        "/healthz" => (StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/readyz" => ready(observe),
        _ => return None,
    })
}

fn ready(observe: &Observe) -> Answer {
    let seen = observe().seen;
    if seen.streaming {
        return (StatusCode::OK, TEXT, "streaming\n".to_owned());
    }
    let why = seen.trouble.map_or_else(|| "not streaming yet".to_owned(), |trouble| trouble.text);
    (StatusCode::SERVICE_UNAVAILABLE, TEXT, why + "\n")
}
