//! openssl's own server, one protocol range each, behind a certificate authority made for the run.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Process;
use crate::netns::Namespace;

/// A throw-away certificate authority.
#[derive(Debug, Clone)]
pub struct Authority {
    folder: PathBuf,
}

impl Authority {
    /// Makes its key and certificate in `folder`.
    pub fn new(folder: &Path) -> Result<Self> {
        let this = Self {
            folder: folder.to_owned(),
        };
        this.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=Postern lab authority",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ])?;
        Ok(this)
    }

    /// What clients trust.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Makes a key and a certificate for `name`: their files.
    pub fn issue(&self, name: &str) -> Result<(PathBuf, PathBuf)> {
        let (key, certificate) = (format!("{name}.key"), format!("{name}.pem"));
        let (subject, extension) = (format!("/CN={name}"), format!("subjectAltName=DNS:{name}"));
        self.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            &subject,
            "-addext",
            &extension,
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ])?;
        Ok((self.folder.join(key), self.folder.join(certificate)))
    }

    fn openssl(&self, args: &[&str]) -> Result<()> {
        let output = Command::new("openssl")
            .args(args)
            .current_dir(&self.folder)
            .output()
            .context("running openssl")?;
        if !output.status.success() {
            bail!(
                "openssl {}: {}",
                args.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }
}

/// A running `openssl s_server`.
#[derive(Debug)]
pub struct TlsServer {
    _process: Process,
}

impl TlsServer {
    /// Serves status pages over TLS at `address` as `name`. `protocol` narrows it: `-tls1_2`, `-tls1_1`, or nothing.
    pub fn start(
        namespace: &Namespace,
        authority: &Authority,
        name: &str,
        address: SocketAddr,
        protocol: &[&str],
    ) -> Result<Self> {
        let (key, certificate) = authority.issue(name)?;
        let mut command = namespace.command("openssl");
        command
            .args([
                "s_server",
                "-quiet",
                "-www",
                "-accept",
                &address.to_string(),
                "-key",
            ])
            .arg(key);
        command.arg("-cert").arg(certificate).args(protocol);
        if protocol.contains(&"-tls1_1") {
            // OpenSSL 3 refuses to speak it otherwise.
            command.args(["-cipher", "DEFAULT:@SECLEVEL=0"]);
        }
        let what = format!("openssl s_server for {name}");
        let process = Process::listening(&mut command, &what, namespace, address)?;
        Ok(Self { _process: process })
    }
}

/// A TLS server of OpenSSL's library that serves many at a time: it completes each handshake, waits for a request and
/// answers it. Unlike OpenSSL's own program it keeps nobody waiting for a connection that its client has left.
#[derive(Debug)]
pub struct PatientTlsServer {
    _process: Process,
}

impl PatientTlsServer {
    /// Listens at `address`, with a certificate of `name`.
    pub fn start(
        namespace: &Namespace,
        authority: &Authority,
        name: &str,
        address: SocketAddr,
    ) -> Result<Self> {
        let (key, certificate) = authority.issue(name)?;
        let mut command = namespace.command("python3");
        command
            .args(["-c", PATIENT])
            .args([key, certificate])
            .args([address.ip().to_string(), address.port().to_string()]);
        let what = format!("a TLS server for {name}");
        let process = Process::listening(&mut command, &what, namespace, address)?;
        Ok(Self { _process: process })
    }
}

const PATIENT: &str = "
import socket, ssl, sys, threading
key, certificate, host, port = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
family = socket.AF_INET6 if ':' in host else socket.AF_INET
listener = socket.create_server((host, int(port)), family=family, backlog=64)

def serve(connection):
    try:
        with context.wrap_socket(connection, server_side=True) as secured:
            if secured.recv(65536):
                secured.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\nhere\\n')
    except OSError:
        pass

while True:
    connection, _ = listener.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
";
