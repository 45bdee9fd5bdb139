//! The instance metadata service, version 2 only: who asks without a token gets nothing.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use super::api::REGION;
use super::http::Message;

const TOKEN: &str = "a-token-of-the-double";
const MAC: &str = "02:00:00:00:00:01";

/// A running metadata service; its threads end with the process.
#[derive(Debug, Clone)]
pub struct Metadata {
    address: SocketAddr,
    vpc: String,
    instance: String,
    interface: String,
    with_token: Arc<AtomicUsize>,
    without_token: Arc<AtomicUsize>,
}

impl Metadata {
    /// The metadata of an instance in this VPC.
    pub fn start(vpc: &str) -> Result<Self> {
        Self::of(vpc, "i-0123456789abcdef0", "eni-0123456789abcdef0")
    }

    /// The metadata of this instance, whose first interface is this one and has no public address.
    pub fn of(vpc: &str, instance: &str, interface: &str) -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening on loopback")?;
        let address = listener.local_addr().context("its address")?;
        let this = Self {
            address,
            vpc: vpc.to_owned(),
            instance: instance.to_owned(),
            interface: interface.to_owned(),
            with_token: Arc::default(),
            without_token: Arc::default(),
        };
        let server = this.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                std::thread::spawn(move || drop(server.serve(stream)));
            }
        });
        Ok(this)
    }

    /// Its URL, for `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many questions came with a token, and how many without: those of version 1.
    pub fn asked(&self) -> (usize, usize) {
        let count = |questions: &AtomicUsize| questions.load(Ordering::SeqCst);
        (count(&self.with_token), count(&self.without_token))
    }

    fn serve(&self, mut stream: TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let Some(request) = Message::read(&mut stream)? else {
            return Ok(());
        };
        let mut answer = self.answer(&request);
        answer.headers.insert(
            "x-aws-ec2-metadata-token-ttl-seconds".to_owned(),
            "21600".to_owned(),
        );
        stream.write_all(&answer.bytes())?;
        Ok(())
    }

    fn answer(&self, request: &Message) -> Message {
        let text = |text: &str| Message::answer(200, "text/plain", text);
        let mut words = request.line.split(' ');
        let (method, path) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        if (method, path) == ("PUT", "/latest/api/token") {
            return text(TOKEN);
        }
        if request
            .headers
            .get("x-aws-ec2-metadata-token")
            .map(String::as_str)
            != Some(TOKEN)
        {
            self.without_token.fetch_add(1, Ordering::SeqCst);
            return Message::answer(401, "text/plain", "");
        }
        self.with_token.fetch_add(1, Ordering::SeqCst);
        let of_interface = format!("/latest/meta-data/network/interfaces/macs/{MAC}/");
        if let Some(what) = path.strip_prefix(&of_interface) {
            return match what {
                "vpc-id" => text(&self.vpc),
                "interface-id" => text(&self.interface),
                _ => Message::answer(404, "text/plain", ""),
            };
        }
        match path {
            "/latest/meta-data/mac" => text(MAC),
            "/latest/meta-data/placement/region" => text(REGION),
            "/latest/meta-data/instance-id" => text(&self.instance),
            _ => Message::answer(404, "text/plain", ""),
        }
    }
}
