//! `/healthz` for whoever replaces appliances, `/metrics` for whoever watches them.
//!
//! Enough of HTTP/1.1 for a probe: one request, one answer, closed. Health speaks of the data
//! plane only: replacing an appliance cannot cure a cloud API, a log sink or a resolver.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::control::Shared;
use crate::metrics;

/// Which pages a listener has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/healthz`.
    Health,
    /// `/metrics`.
    Metrics,
}

/// Listens on `address`; an IPv6 wildcard falls back to IPv4 on a machine without IPv6.
///
/// # Errors
/// When the address cannot be had.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(_) if address.is_ipv6() && address.ip().is_unspecified() => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        result => result,
    }
}

/// Answers requests for one page; never returns.
pub async fn serve(listener: TcpListener, page: Page, appliance: Shared) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let appliance = Rc::clone(&appliance);
        tokio::task::spawn_local(async move {
            // A peer that is slow or gone has no claim on an answer.
            drop(tokio::time::timeout(PATIENCE, answer(stream, page, &appliance)).await);
            drop(place);
        });
    }
}

async fn answer(mut stream: TcpStream, page: Page, appliance: &Shared) -> io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 1 << 10];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < REQUEST_BYTES_MAX {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            break;
        }
        request.extend_from_slice(buffer.get(..length).unwrap_or_default());
    }
    let (status, body) = respond(&request, page, appliance);
    let kind = match page {
        Page::Health => "text/plain; charset=utf-8",
        Page::Metrics => metrics::CONTENT_TYPE,
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if !request.starts_with(b"HEAD ") {
        stream.write_all(body.as_bytes()).await?;
    }
    stream.shutdown().await
}

fn respond(request: &[u8], page: Page, appliance: &Shared) -> (&'static str, String) {
    let mut words = request.split(|&byte| byte == b' ' || byte == b'\r');
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    if method != b"GET" && method != b"HEAD" {
        return ("405 Method Not Allowed", "only GET\n".to_owned());
    }
    let path = target
        .split(|&byte| byte == b'?')
        .next()
        .unwrap_or_default();
    match (page, path) {
        (Page::Health, b"/healthz") => health(appliance),
        (Page::Metrics, b"/metrics") => metrics(appliance),
        (Page::Health | Page::Metrics, _) => ("404 Not Found", "no such page\n".to_owned()),
    }
}

fn health(appliance: &Shared) -> (&'static str, String) {
    let appliance = appliance.borrow();
    if let Some(broken) = appliance.data_plane_fault() {
        return ("503 Service Unavailable", format!("unhealthy: {broken}\n"));
    }
    if appliance.policy().is_none() {
        return ("200 OK", "degraded: no_policy\n".to_owned());
    }
    ("200 OK", "ok\n".to_owned())
}

fn metrics(appliance: &Shared) -> (&'static str, String) {
    match metrics::render(&appliance.borrow()) {
        Ok(text) => ("200 OK", text),
        Err(error) => ("500 Internal Server Error", format!("{error}\n")),
    }
}

/// Probes served at once.
const CONNECTIONS_MAX: usize = 64;
const REQUEST_BYTES_MAX: usize = 8 << 10;
const PATIENCE: Duration = Duration::from_secs(5);
