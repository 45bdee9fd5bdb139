//! The daemon's health, as a test says it is.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use super::http::Message;

/// A running `/healthz`; its thread ends with the process.
#[derive(Debug, Clone)]
pub struct Healthz {
    address: SocketAddr,
    healthy: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
}

impl Healthz {
    /// Listens on loopback, and is well or not.
    pub fn start(healthy: bool) -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening on loopback")?;
        let this = Self {
            address: listener.local_addr().context("its address")?,
            healthy: Arc::new(AtomicBool::new(healthy)),
            asked: Arc::default(),
        };
        let server = this.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who hangs up is none of ours.
                drop(server.serve(stream));
            }
        });
        Ok(this)
    }

    /// Where it is asked.
    pub fn url(&self) -> String {
        format!("http://{}/healthz", self.address)
    }

    /// Is well from now on, or not.
    pub fn set(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::SeqCst);
    }

    /// How often it was asked.
    pub fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }

    fn serve(&self, mut stream: TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        if Message::read(&mut stream)?.is_some() {
            let status = if self.healthy.load(Ordering::SeqCst) {
                200
            } else {
                503
            };
            let mut answer = Message::answer(status, "text/plain", "");
            answer
                .headers
                .insert("connection".to_owned(), "close".to_owned());
            stream.write_all(&answer.bytes())?;
            self.asked.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}
