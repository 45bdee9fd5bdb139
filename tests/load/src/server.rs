//! The server: one flight for a hello, one record or many for a request.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::exchange::{self, ONE, STREAM};

/// Connections the kernel may keep waiting for us.
const BACKLOG: u32 = 4_096;

/// Serves until killed; says `{"ready":1}` when it listens.
pub(crate) async fn serve(port: u16, flight: &Path) -> Result<()> {
    let flight: Arc<[u8]> = std::fs::read(flight)
        .with_context(|| format!("reading {}", flight.display()))?
        .into();
    let listener = listen(port).with_context(|| format!("listening on port {port}"))?;
    println!("{{\"ready\":1}}");
    loop {
        // Out of descriptors is no reason to stop: the next one that closes helps.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let flight = Arc::clone(&flight);
        tokio::spawn(async move {
            // The client ends every connection with a reset: an error here is how a good one ends.
            drop(converse(stream, &flight).await);
        });
    }
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::UNSPECIFIED, port).into())?;
    socket.listen(BACKLOG)
}

async fn converse(mut stream: TcpStream, flight: &[u8]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut read = Vec::with_capacity(4_096);
    while !exchange::whole_record(&read) {
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(flight).await?;
    read.clear();
    while !exchange::contains(&read, ONE) && !exchange::contains(&read, STREAM) {
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    }
    if exchange::contains(&read, STREAM) {
        let records = exchange::protected(b"", 16_384).repeat(16);
        loop {
            stream.write_all(&records).await?;
        }
    }
    stream
        .write_all(&exchange::protected(b"answer", 320))
        .await?;
    // Until the client is done with it.
    stream.read_buf(&mut read).await.map(drop)
}
