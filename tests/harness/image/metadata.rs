//! Both clouds' metadata services at their real address, as strict as they are: no token or no header, no answer.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::guest::Machine;
use crate::netns::Namespace;

/// Where both clouds have it.
pub const ADDRESS: &str = "169.254.169.254";
const TOKEN: &str = "a-token-of-the-double";

#[derive(Debug)]
struct State {
    machine: Machine,
    answers: BTreeMap<String, String>,
    asked: Vec<String>,
}

/// A running service; its thread ends with the process.
#[derive(Debug, Clone)]
pub struct Metadata {
    state: Arc<Mutex<State>>,
}

impl Metadata {
    /// Serves in a namespace that has the address.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let address: SocketAddr = format!("{ADDRESS}:80").parse()?;
        let listener = namespace.enter(|| TcpListener::bind(address))?;
        let listener = listener.with_context(|| format!("listening on {address}"))?;
        let this = Self {
            state: Arc::new(Mutex::new(State {
                machine: Machine::Elsewhere,
                answers: BTreeMap::new(),
                asked: Vec::new(),
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

    /// Becomes another cloud's, with these answers and no others; [`Machine::Elsewhere`] says nothing at all.
    pub fn be(&self, machine: Machine, answers: &[(&str, &str)]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.machine = machine;
        state.answers = answers
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
            .collect();
    }

    /// Every path asked for so far.
    pub fn asked(&self) -> Vec<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked.clone()
    }

    fn serve(&self, mut stream: TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut head = Vec::new();
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_owned());
        }
        if let Some(answer) = self.answer(&head) {
            stream.write_all(answer.as_bytes())?;
        }
        Ok(())
    }

    fn answer(&self, head: &[String]) -> Option<String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut words = head.first()?.split(' ');
        let (method, path) = (words.next()?, words.next()?.to_owned());
        state.asked.push(path.clone());
        let header = |name: &str| {
            head.iter().skip(1).find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let (flavour, allowed) = match state.machine {
            Machine::Elsewhere => return None,
            Machine::Aws if (method, path.as_str()) == ("PUT", "/latest/api/token") => {
                return Some(http(
                    "200 OK",
                    "X-Aws-Ec2-Metadata-Token-Ttl-Seconds: 21600\r\n",
                    TOKEN,
                ));
            }
            Machine::Aws => ("", header("x-aws-ec2-metadata-token") == Some(TOKEN)),
            Machine::Gcp => (
                "Metadata-Flavor: Google\r\nServer: Metadata Server for VM\r\n",
                header("metadata-flavor") == Some("Google"),
            ),
        };
        Some(match (allowed, state.answers.get(&path)) {
            (false, _) if state.machine == Machine::Aws => http("401 Unauthorized", "", ""),
            (false, _) => http(
                "403 Forbidden",
                flavour,
                "Missing Metadata-Flavor:Google header.",
            ),
            (true, Some(text)) => http("200 OK", flavour, text),
            (true, None) => http("404 Not Found", flavour, ""),
        })
    }
}

fn http(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
