//! The user data, from either cloud's metadata service.
//!
//! Two requests at most, over a link-local address, before anything else runs: no SDK, no retry that could hide which
//! service answered.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Both clouds have it there (EC2 user guide, "Instance metadata"; Compute Engine, "About VM metadata").
pub(super) const ADDRESS: &str = "169.254.169.254:80";

/// Whose service is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// IMDSv2: a token first.
    Aws,
    /// A header on every request, and on every answer.
    Gcp,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum MetadataError {
    /// Nothing is there, or it says nothing in time.
    #[error("the metadata service is silent: {0}")]
    Silent(#[from] io::Error),
    /// It answers with something else than the thing or its absence.
    #[error("the metadata service answers {path} with {status}")]
    Refused {
        /// What was asked for.
        path: &'static str,
        /// The status line.
        status: String,
    },
    /// Another cloud's service answers.
    #[error("{0}")]
    Foreign(&'static str),
}

/// The user data of this machine, empty where there is none.
///
/// # Errors
///
/// When the service is silent, refuses, or is another cloud's.
pub(super) fn user_data(address: SocketAddr, service: Service) -> Result<String, MetadataError> {
    let (path, header) = match service {
        Service::Aws => {
            let token = exchange(
                address,
                "PUT",
                TOKEN,
                "X-aws-ec2-metadata-token-ttl-seconds: 60",
            )?;
            if token.header("metadata-flavor").is_some() {
                return Err(MetadataError::Foreign(
                    "this machine is an Amazon EC2 instance, and its metadata service is Google's",
                ));
            }
            let token = token.found(TOKEN)?.unwrap_or_default();
            (
                "/latest/user-data",
                format!("X-aws-ec2-metadata-token: {}", token.trim()),
            )
        }
        Service::Gcp => (ATTRIBUTE, "Metadata-Flavor: Google".to_owned()),
    };
    let answer = exchange(address, "GET", path, &header)?;
    if service == Service::Gcp && answer.header("metadata-flavor") != Some("Google") {
        return Err(MetadataError::Foreign(
            "this machine is a Google Compute Engine instance, and its metadata service is not Google's",
        ));
    }
    Ok(answer.found(path)?.unwrap_or_default())
}

/// One answer.
#[derive(Debug)]
struct Answer {
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body; nothing when there is no such thing.
    fn found(self, path: &'static str) -> Result<Option<String>, MetadataError> {
        let status = self.head.lines().next().unwrap_or_default();
        match status.split(' ').nth(1) {
            Some("200") => Ok(Some(self.body)),
            Some("404") => Ok(None),
            _ => Err(MetadataError::Refused {
                path,
                status: status.chars().take(STATUS_SHOWN).collect(),
            }),
        }
    }
}

fn exchange(address: SocketAddr, method: &str, path: &str, header: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {}\r\n{header}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        address.ip()
    )?;
    let mut text = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut text)?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an answer of HTTP"))?;
    Ok(Answer {
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

const TOKEN: &str = "/latest/api/token";
/// GCP has no user data; the attribute of this name stands for it.
const ATTRIBUTE: &str = "/computeMetadata/v1/instance/attributes/postern";
const LIMIT: Duration = Duration::from_secs(2);
/// AWS allows 16 KiB of user data, GCP 256 KiB a value; the rest is headers.
const ANSWER_MAX: u64 = 300 << 10;
const STATUS_SHOWN: usize = 60;
