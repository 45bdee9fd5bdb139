//! The metadata service at the address that both clouds give it, which is whichever the test says.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::netns::Namespace;

/// Where both clouds have it.
pub const ADDRESS: &str = "169.254.169.254";
const TOKEN: &str = "a-token-of-the-double";

/// Whose service it is.
#[derive(Debug, Clone)]
pub enum Role {
    /// Nobody's: connections come to nothing.
    Silent,
    /// EC2's, version 2 only, with these answers and no others.
    Aws(BTreeMap<String, String>),
    /// That of Google's double, which listens on loopback.
    Google(SocketAddr),
}

#[derive(Debug)]
struct State {
    role: Role,
    asked: u64,
}

/// A running service; its threads end with the process.
#[derive(Debug, Clone)]
pub struct Metadata {
    state: Arc<Mutex<State>>,
}

impl Metadata {
    /// Serves in a namespace that has the address; silent at first.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let address: SocketAddr = format!("{ADDRESS}:80").parse()?;
        let listener = namespace.enter(|| TcpListener::bind(address))?;
        let listener = listener.with_context(|| format!("listening on {address}"))?;
        let this = Self {
            state: Arc::new(Mutex::new(State {
                role: Role::Silent,
                asked: 0,
            })),
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

    /// Becomes another one.
    pub fn be(&self, role: Role) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.role = role;
    }

    /// How often somebody came.
    pub fn asked(&self) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked
    }

    fn serve(&self, mut stream: TcpStream) -> Result<()> {
        let role = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.asked += 1;
            state.role.clone()
        };
        match role {
            Role::Silent => Ok(()),
            Role::Google(at) => {
                join(stream, TcpStream::connect(at)?);
                Ok(())
            }
            Role::Aws(answers) => {
                stream.set_read_timeout(Some(Duration::from_secs(10)))?;
                // The SDK's client keeps its connection for the next question.
                let mut reader = BufReader::new(stream.try_clone()?);
                while let Some(head) = head(&mut reader)? {
                    stream.write_all(aws(&answers, &head).as_bytes())?;
                    if head.iter().any(|line| line == "Connection: close") {
                        break;
                    }
                }
                Ok(())
            }
        }
    }
}

/// The next request, without a body: none has one.
fn head(reader: &mut impl std::io::BufRead) -> Result<Option<Vec<String>>> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if line.trim().is_empty() {
            return Ok(Some(head));
        }
        head.push(line.trim().to_owned());
    }
}

/// The answer of version 2 of EC2's service: nothing without a token.
fn aws(answers: &BTreeMap<String, String>, head: &[String]) -> String {
    let mut words = head
        .first()
        .map(String::as_str)
        .unwrap_or_default()
        .split(' ');
    let (method, path) = (words.next(), words.next().unwrap_or_default());
    let token = head.iter().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case("x-aws-ec2-metadata-token")
            .then(|| value.trim())
    });
    if (method, path) == (Some("PUT"), "/latest/api/token") {
        return http("200 OK", TOKEN);
    }
    match (token == Some(TOKEN), answers.get(path)) {
        (false, _) => http("401 Unauthorized", ""),
        (true, Some(text)) => http("200 OK", text),
        (true, None) => http("404 Not Found", ""),
    }
}

fn http(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nX-Aws-Ec2-Metadata-Token-Ttl-Seconds: 21600\r\nContent-Type: text/plain\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Carries between two connections until both directions are done.
pub(super) fn join(near: TcpStream, far: TcpStream) {
    let copy = |mut from: TcpStream, mut to: TcpStream| {
        move || {
            let mut buffer = [0; 16 << 10];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                let bytes = buffer.get(..length).unwrap_or_default();
                if to.write_all(bytes).is_err() {
                    break;
                }
            }
            // Closed by the other side is as good.
            drop(to.shutdown(Shutdown::Write));
        }
    };
    let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else {
        return;
    };
    std::thread::spawn(copy(near, far));
    std::thread::spawn(copy(far_too, near_too));
}
