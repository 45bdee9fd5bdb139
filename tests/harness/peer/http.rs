//! A plain HTTP server of a dozen lines: all that is asked of it is that it would have answered.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Namespace;

/// A listening server; its thread ends with the process.
#[derive(Debug)]
pub struct HttpServer {
    /// Where it listens.
    pub address: SocketAddr,
}

impl HttpServer {
    /// Answers every request at `address` with 200.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let listener = namespace
            .enter(|| TcpListener::bind(address))?
            .with_context(|| format!("listening on {address}"))?;
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || -> std::io::Result<()> {
                    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                    stream.read(&mut [0; 4096]).map(drop)?;
                    stream.write_all(
                        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n",
                    )
                });
            }
        });
        Ok(Self { address })
    }
}
